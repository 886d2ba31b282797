//! What a device is left to do with the packets it is given: checksums. By the old system call of ethtool, which every
//! kernel has, and which needs no family looked up.

use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Doing as _, KernelError};

/// Whether packets handed to the link, in the namespace of the calling thread, may have checksums yet to be filled in by
/// whatever device sends them. Switched off, the kernel fills them in before, and cuts up large packets too: slower, and
/// right where a device does it wrong.
pub fn set_checksums(link: &str, on: bool) -> Result<(), KernelError> {
    command(link, &mut Value { command: ETHTOOL_STXCSUM, data: on.into() })
        .doing("set checksums of the link", link)
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

fn command(link: &str, value: &mut Value) -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeroes is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays the end of the text.
    if link.len() >= request.ifr_name.len() {
        return Err(nix::errno::Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the request names a value that outlives the call and is as long as its command says.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    nix::errno::Errno::result(result).map(drop)
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;
