//! A process by descriptor: it stays that process when the pid has been reused, and it is readable when it has ended.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::signal::Signal;

use crate::error::KernelError;

#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    pub fn open(pid: u32) -> Result<Self, KernelError> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd =
            RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(|| last("open the process", pid))?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec) for us, and nobody else knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails with ESRCH when the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), KernelError> {
        let none: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: with a null siginfo the call reads no memory of ours.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal as i32, none, 0)
        };
        if result == 0 { Ok(()) } else { Err(last("signal the process", self.pid)) }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn last(deed: &'static str, pid: u32) -> KernelError {
    KernelError::new(deed, pid, std::io::Error::last_os_error())
}
