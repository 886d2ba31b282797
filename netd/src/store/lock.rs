//! One daemon per state directory: a lock file, held for as long as the process lives and freed by the kernel however
//! it ends. The file holds the owner's pid for the message the second daemon gives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use netd_sys::process::PidFd;
use nix::poll::{PollFd, PollFlags, poll};

use super::StoreError;

const NAME: &str = "lock";
/// How long the owner of the lock may take to end, and what it has started to let go.
const LAST_MOMENTS: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(10);

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
            result = try_for_a_moment(&mut file);
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

/// A daemon that was killed a moment ago holds it until the kernel has taken it apart, and a child that it was starting
/// until that is a program of its own, which nothing tells of.
#[expect(clippy::disallowed_methods, reason = "it is what polls with a deadline")]
fn try_for_a_moment(file: &mut File) -> Result<(), TryLockError> {
    let until = Instant::now() + LAST_MOMENTS;
    if let Some(Ok(owner)) = owner(file).map(PidFd::open) {
        let mut watched = [PollFd::new(owner.as_fd(), PollFlags::POLLIN)];
        let patience = u16::try_from(LAST_MOMENTS.as_millis()).unwrap_or(u16::MAX);
        // However it goes, the lock is tried once more and tells.
        let _ = poll(&mut watched, patience);
    }
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(AGAIN),
            result => return result,
        }
    }
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_dead_owner_was_starting_is_waited_for_and_a_live_owner_is_not_overrun() {
        let directory = tempfile::tempdir().unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let mut held = File::create(directory.path().join(NAME)).unwrap();
        held.lock().unwrap();
        writeln!(held, "{}", ended.id()).unwrap();
        let mut child = Command::new("sleep").arg("0.2").stdin(held).spawn().unwrap();
        let other = File::open(directory.path().join(NAME)).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let lock = DirectoryLock::acquire(directory.path()).unwrap();
        child.wait().unwrap();
        let refused = DirectoryLock::acquire(directory.path()).unwrap_err();
        assert!(matches!(refused, StoreError::InUse { pid, .. } if pid == Some(std::process::id())));
        drop(lock);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
