//! Waiting for many descriptors at once: epoll and an eventfd behind safe types. A caller names each descriptor by a
//! number of its own (the token) and gets that number back with what happened. No clock and no callbacks live here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// What to be told about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(EpollFlags);

impl Interest {
    /// Told as long as there is something to read.
    pub const READ: Self = Self(EpollFlags::EPOLLIN);
    /// Told as long as it can be read or written.
    pub const READ_WRITE: Self = Self(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT));
    /// [`Interest::READ`] on a socket that several pollers wait for: one of them is woken, not all.
    pub const READ_SHARED: Self = Self(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLEXCLUSIVE));
    /// Told once whenever a stream becomes readable or writable, or its peer ends: registered once and never changed.
    pub const STREAM: Self = Self(
        EpollFlags::EPOLLIN
            .union(EpollFlags::EPOLLOUT)
            .union(EpollFlags::EPOLLRDHUP)
            .union(EpollFlags::EPOLLPRI)
            .union(EpollFlags::EPOLLET),
    );
    /// Told once whenever there is something new to read.
    pub const READ_EDGE: Self = Self(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET));
}

/// What happened to the descriptor behind `token`.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: u64,
    flags: EpollFlags,
}

impl Event {
    pub fn readable(&self) -> bool {
        self.flags.intersects(
            EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR,
        )
    }

    pub fn writable(&self) -> bool {
        self.flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
    }

    /// The peer sends no more, or marked urgent data: a short read does not mean that nothing is left.
    pub fn read_to_the_end(&self) -> bool {
        self.flags.intersects(
            EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLPRI,
        )
    }

    /// The socket holds an error: of a connect, or a reset.
    pub fn failed(&self) -> bool {
        self.flags.intersects(EpollFlags::EPOLLERR)
    }
}

/// An epoll instance.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Watches `fd` until it is removed, or until its last duplicate is closed: a descriptor that has duplicates must
    /// be removed before it is dropped.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(interest.0, token))?)
    }

    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(interest.0, token))?)
    }

    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits for at least one event, at most for `timeout` (for ever without one), and fills `events`. The kernel
    /// counts in milliseconds; a part of one is rounded up, so that nobody wakes before its deadline.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.filled = 0;
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(limit) => milliseconds_up(limit),
        };
        match self.epoll.wait(&mut events.buffer, timeout) {
            Ok(filled) => events.filled = filled,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

fn milliseconds_up(limit: Duration) -> EpollTimeout {
    let milliseconds = limit.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(i32::try_from(milliseconds).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}

/// Room for the events of one wait.
#[derive(Debug)]
pub struct Events {
    buffer: Vec<EpollEvent>,
    filled: usize,
}

impl Events {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![EpollEvent::empty(); capacity.max(1)], filled: 0 }
    }

    pub fn len(&self) -> usize {
        self.filled
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub fn at(&self, index: usize) -> Option<Event> {
        self.buffer[..self.filled].get(index).map(named)
    }

    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.buffer[..self.filled].iter().map(named)
    }
}

fn named(event: &EpollEvent) -> Event {
    Event { token: event.data(), flags: event.events() }
}

/// Wakes a poller from another thread.
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
}

impl Waker {
    /// A waker that makes `poller` report `token`. It is told edge by edge, so that nothing has to be read back.
    pub fn new(poller: &Poller, token: u64) -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        poller.add(&event, token, Interest::READ_EDGE)?;
        Ok(Self { event })
    }

    pub fn wake(&self) {
        // The counter overflows after 2^64 wake-ups; no other failure exists for an eventfd that is open.
        let _ = self.event.write(1);
    }
}

/// A descriptor that stands for nothing: held so that one can be given up when the process has no more.
pub fn spare_descriptor() -> io::Result<OwnedFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_stream_is_reported_once_per_change() {
        let poller = Poller::new().unwrap();
        let mut events = Events::with_capacity(8);
        let (near, mut far) = UnixStream::pair().unwrap();
        poller.add(&near, 7, Interest::STREAM).unwrap();
        poller.wait(&mut events, None).unwrap();
        assert!(events.iter().all(|event| event.token == 7 && event.writable() && !event.readable()));
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        far.write_all(b"x").unwrap();
        poller.wait(&mut events, None).unwrap();
        assert!(events.at(0).is_some_and(|event| event.readable() && !event.read_to_the_end()));
        drop(far);
        poller.wait(&mut events, None).unwrap();
        assert!(events.at(0).is_some_and(|event| event.read_to_the_end()));
    }

    #[test]
    fn a_waker_wakes_each_time() {
        let poller = Poller::new().unwrap();
        let mut events = Events::with_capacity(1);
        let waker = Waker::new(&poller, 3).unwrap();
        for _ in 0..3 {
            waker.wake();
            poller.wait(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert_eq!(events.len(), 1);
        }
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
    }

    #[test]
    fn a_part_of_a_millisecond_is_rounded_up() {
        assert_eq!(milliseconds_up(Duration::from_micros(1)), EpollTimeout::from(1u8));
        assert_eq!(milliseconds_up(Duration::from_millis(3)), EpollTimeout::from(3u8));
        assert_eq!(milliseconds_up(Duration::ZERO), EpollTimeout::ZERO);
    }
}
