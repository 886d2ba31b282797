//! The sending half of the link, for any thread: a packet goes out on the caller's own call where the peer has room,
//! so a small change costs one system call and wakes nobody but the peer. What does not fit waits here, in order.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};

use netd_sys::seqpacket::Connection;

use super::frame::Packet;

/// Bytes that may wait for a peer that does not read; past it the link counts as broken.
const LIMIT: usize = 64 << 20;

pub(crate) struct Outbox {
    connection: Arc<Connection>,
    queue: Mutex<Queue>,
    /// Called when something waits or the link has broken: whoever owns the connection has to look at it.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<Packet>,
    bytes: usize,
    broken: bool,
}

/// What the owner of the connection has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Nothing,
    /// The peer has to read.
    Room,
    /// Too many descriptors of this user are under way: try again a little later.
    Descriptors,
    /// The link is broken.
    Broken,
}

impl Outbox {
    pub(crate) fn new(connection: Arc<Connection>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { connection, queue: Mutex::default(), wake: Box::new(wake) }
    }

    /// Sends or queues; never blocks. To a broken link everything is lost: its successor is told the whole again.
    pub(crate) fn send(&self, packets: Vec<Packet>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.broken {
            return;
        }
        queue.bytes += packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
        queue.packets.extend(packets);
        let pending = queue.drain(&self.connection);
        drop(queue);
        if pending != Pending::Nothing {
            (self.wake)();
        }
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&self) -> Pending {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).drain(&self.connection)
    }

    /// Nothing is sent from now on.
    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).fail();
    }
}

impl Queue {
    fn drain(&mut self, connection: &Connection) -> Pending {
        while let Some(packet) = self.packets.front() {
            match connection.send(&packet.bytes, &packet.fds) {
                Ok(()) => {
                    self.bytes -= packet.bytes.len();
                    self.packets.pop_front();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.cannot_send(&error),
            }
        }
        if self.broken { Pending::Broken } else { Pending::Nothing }
    }

    fn cannot_send(&mut self, error: &io::Error) -> Pending {
        let full = self.bytes > LIMIT;
        match error {
            _ if full => tracing::warn!("the data plane link has {LIMIT} bytes waiting: giving it up"),
            _ if error.kind() == ErrorKind::WouldBlock => return Pending::Room,
            _ if error.raw_os_error() == Some(nix::libc::ETOOMANYREFS) => return Pending::Descriptors,
            _ => tracing::debug!(%error, "cannot send on the data plane link"),
        }
        self.fail();
        Pending::Broken
    }

    fn fail(&mut self) {
        self.broken = true;
        self.packets.clear();
        self.bytes = 0;
    }
}
