//! Moving bytes between sockets without copying them: splice(2) through a pipe. The pipe counts what it holds, so that
//! a caller can tell "the socket has nothing" from "the pipe is full", for which the kernel has one answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// A pipe between two sockets.
#[derive(Debug)]
pub struct Pipe {
    write: OwnedFd,
    read: OwnedFd,
    capacity: usize,
    held: usize,
}

impl Pipe {
    /// A pipe for about `capacity` bytes. The kernel may grant less: above fs.pipe-max-size, or when the pipes of this
    /// user exceed fs.pipe-user-pages-soft. What it granted is in [`Pipe::capacity`].
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let wanted = i32::try_from(capacity).unwrap_or(i32::MAX);
        let granted = match fcntl(&write, FcntlArg::F_SETPIPE_SZ(wanted)) {
            Ok(granted) => granted,
            Err(_) => fcntl(&write, FcntlArg::F_GETPIPE_SZ)?,
        };
        Ok(Self { write, read, capacity: usize::try_from(granted).unwrap_or(0), held: 0 })
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that went in and have not come out.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `limit` bytes from `source`; never waits. 0 is the end of the stream, or urgent data at the front
    /// of it, which only a read gets past.
    pub fn fill(&mut self, source: impl AsFd, limit: usize) -> io::Result<usize> {
        let moved = splice(source, None, &self.write, None, limit, flags())?;
        self.held += moved;
        Ok(moved)
    }

    /// Gives what the pipe holds to `sink`, or as much as that takes; never waits. A sink whose peer is gone raises
    /// SIGPIPE, for which splice has no flag: the process must ignore it, as every Rust program does from its start.
    pub fn drain(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, sink, None, self.held, flags())?;
        self.held -= moved.min(self.held);
        Ok(moved)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (mut source, source_end) = UnixStream::pair().unwrap();
        let (sink_end, mut sink) = UnixStream::pair().unwrap();
        for end in [&source_end, &sink_end] {
            end.set_nonblocking(true).unwrap();
        }
        let mut pipe = Pipe::new(1 << 16).unwrap();
        assert!(pipe.capacity() >= 4096);
        assert_eq!(pipe.fill(&source_end, 1 << 16).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        source.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill(&source_end, 1 << 16).unwrap(), 5);
        assert_eq!(pipe.held(), 5);
        assert_eq!(pipe.drain(&sink_end).unwrap(), 5);
        assert_eq!(pipe.held(), 0);
        let mut seen = [0; 5];
        sink.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"hello");
        drop(source);
        assert_eq!(pipe.fill(&source_end, 1 << 16).unwrap(), 0);
    }
}
