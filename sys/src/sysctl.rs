//! Kernel settings of a network namespace. `/proc/sys/net` shows the namespace of the thread that opens it, so the
//! plain functions speak of where the caller is; wrap several in one `Netns::run` to set them elsewhere.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::error::{Doing, KernelError};
use crate::netns::Netns;

/// The value of `key`, written with slashes (`net/ipv4/conf/eth0.5/forwarding`: names of links contain dots).
pub fn read(key: &str) -> Result<String, KernelError> {
    let path = path(key).doing("read the sysctl", key)?;
    let text = fs::read_to_string(path).doing("read the sysctl", key)?;
    Ok(text.trim_end().to_owned())
}

/// Sets `key` if it differs, and says what it was: a setting that is right is left alone, and a caller can undo.
pub fn write(key: &str, value: &str) -> Result<String, KernelError> {
    let previous = read(key)?;
    if previous != value {
        let path = path(key).doing("set the sysctl", key)?;
        fs::write(path, value).doing("set the sysctl", format_args!("{key} to {value}"))?;
    }
    Ok(previous)
}

/// `read` in another namespace.
pub fn read_in(netns: &Netns, key: &str) -> Result<String, KernelError> {
    netns.run(|| read(key))?
}

/// `write` in another namespace.
pub fn write_in(netns: &Netns, key: &str, value: &str) -> Result<String, KernelError> {
    netns.run(|| write(key, value))?
}

/// A key may hold the name of a link, which somebody else chose: it must not lead out of `/proc/sys`.
fn path(key: &str) -> io::Result<PathBuf> {
    if key.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a sysctl's name"));
    }
    Ok(PathBuf::from("/proc/sys").join(key))
}
