//! Standard error that never makes its writer wait. Whoever reads the logs may stop reading, or be stuck itself; the
//! relays go on all the same, and the lines that did not fit are counted and told of later.

use std::io::{self, StderrLock, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe that polls as writable takes this many bytes without blocking (PIPE_BUF).
const PIECE: usize = 4096;

static LOST: AtomicU64 = AtomicU64::new(0);

/// One log line's writer. The lock is held from the look to the write, so nobody takes the room in between.
pub(crate) struct Stderr(StderrLock<'static>);

impl Stderr {
    pub(crate) fn new() -> Self {
        Self(io::stderr().lock())
    }
}

impl Write for Stderr {
    /// Always says that all was written. An error (the pipe's reader has gone, with the control plane perhaps) would be
    /// reported by the subscriber on this same stderr, by a macro that panics when that fails too.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if write_or_lose(&mut self.0, line, &LOST).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_or_lose(out: &mut (impl Write + AsFd), line: &[u8], lost: &AtomicU64) -> io::Result<()> {
    if !has_room(out) {
        lost.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let before = lost.swap(0, Ordering::Relaxed);
    if before > 0 {
        writeln!(out, "{before} log lines were lost: nobody read them in time")?;
    }
    for piece in line.chunks(PIECE) {
        if !has_room(out) {
            lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        out.write_all(piece)?;
    }
    Ok(())
}

fn has_room(out: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    // What cannot be polled is written to, as ever.
    poll(&mut fds, PollTimeout::ZERO) != Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let lost = AtomicU64::new(0);
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            write_or_lose(&mut writer, &line, &lost).unwrap();
        }
        let missing = lost.load(Ordering::Relaxed);
        assert!((1..1000).contains(&missing), "{missing} of 1000 lines were lost");
        let mut kept = vec![0; (1000 - missing as usize) * line.len()];
        reader.read_exact(&mut kept).unwrap();
        assert!(kept.iter().all(|byte| *byte == b'x'));

        write_or_lose(&mut writer, b"next\n", &lost).unwrap();
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("{missing} log lines were lost: nobody read them in time\nnext\n"));
    }
}
