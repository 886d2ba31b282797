//! One daemon per state directory: a lock file, held for as long as the process lives and freed by the kernel however
//! it ends. The file holds the owner's pid for the message the second daemon gives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use netd_sys::process::PidFd;
use nix::poll::{PollFd, PollFlags, poll};

use super::StoreError;

const NAME: &str = "lock";
/// Milliseconds that the owner of the lock may take to end.
const LAST_MOMENTS: u16 = 1000;

#[derive(Debug)]
pub(super) struct DirectoryLock {
    /// Closing it frees the lock. The file stays: removing it would let two daemons lock two files of one name.
    _file: File,
}

impl DirectoryLock {
    pub(super) fn acquire(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(NAME);
        let failed =
            |deed| move |source: io::Error| StoreError::Io { deed, path: directory.join(NAME), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open the lock file"))?;
        let mut result = file.try_lock();
        if matches!(result, Err(TryLockError::WouldBlock)) {
            // A daemon that was killed a moment ago holds it until the kernel has taken it apart.
            wait_for_the_end_of(owner(&mut file));
            result = file.try_lock();
        }
        match result {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { directory: directory.to_owned(), pid: owner(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write the pid to"))?;
        Ok(Self { _file: file })
    }
}

fn wait_for_the_end_of(owner: Option<u32>) {
    let Some(Ok(owner)) = owner.map(PidFd::open) else { return };
    let mut watched = [PollFd::new(owner.as_fd(), PollFlags::POLLIN)];
    // However it goes, the lock is tried once more and tells.
    let _ = poll(&mut watched, LAST_MOMENTS);
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
