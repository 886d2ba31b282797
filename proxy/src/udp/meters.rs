//! Counters that only datagrams have; what they share with connections is in [`crate::metrics`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use netd_sys::socket;

use crate::flows::End;

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A new flow, and as many as may be were in use.
    Limit,
    NoBackend,
    /// The process had no descriptor or memory for the flow's socket.
    Exhausted,
    /// The backend's host says that nobody listens on the port, and no other backend took it.
    Refused,
    /// No way to the backend or back to the client, or none that is allowed.
    Unreachable,
    /// The socket's send buffer was full.
    Backlog,
    /// It claims to come from a listening socket of ours: an answer would come back as the next question, for ever.
    Loop,
    /// With what nodes say to each other before it, it is too long for a datagram.
    TooLong,
    /// The kernel would not send it for another reason.
    Invalid,
}

impl Dropped {
    pub const ALL: [Self; 9] = [
        Self::Limit,
        Self::NoBackend,
        Self::Exhausted,
        Self::Refused,
        Self::Unreachable,
        Self::Backlog,
        Self::Loop,
        Self::TooLong,
        Self::Invalid,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::NoBackend => "no-backend",
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Backlog => "backlog",
            Self::Loop => "loop",
            Self::TooLong => "too-long",
            Self::Invalid => "invalid",
        }
    }
}

impl From<&io::Error> for Dropped {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::OutOfMemory => Self::Exhausted,
            _ if socket::no_descriptors(error) => Self::Exhausted,
            _ if socket::is_unreachable(error) => Self::Unreachable,
            _ => Self::Invalid,
        }
    }
}

/// The live counters of a listener.
#[derive(Debug, Default)]
pub(crate) struct DatagramMeters {
    to_backend: AtomicU64,
    to_client: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl DatagramMeters {
    pub(super) fn moved_to_backend(&self, datagrams: u64) {
        self.to_backend.fetch_add(datagrams, Ordering::Relaxed);
    }

    pub(super) fn moved_to_client(&self, datagrams: u64) {
        self.to_client.fetch_add(datagrams, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, why: Dropped, messages: usize) {
        self.dropped[why as usize].fetch_add(messages as u64, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, why: End) {
        match why {
            End::Idle => self.expired.fetch_add(1, Ordering::Relaxed),
            End::Evicted => self.evicted.fetch_add(1, Ordering::Relaxed),
            End::BackendGone | End::ListenerGone => return,
        };
    }

    pub(crate) fn read(&self) -> DatagramCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DatagramCounts {
            to_backend: load(&self.to_backend),
            to_client: load(&self.to_client),
            expired: load(&self.expired),
            evicted: load(&self.evicted),
            dropped: self.dropped.each_ref().map(load),
        }
    }
}

/// What the counters of a listener said. All zero for one of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Datagrams that were sent on to backends.
    pub to_backend: u64,
    /// Datagrams that came from backends.
    pub to_client: u64,
    /// Flows that ended by silence.
    pub expired: u64,
    /// Quiet flows that were given up for new ones.
    pub evicted: u64,
    /// Receives that went no further (a train counts once), in the order of [`Dropped::ALL`].
    pub dropped: [u64; Dropped::ALL.len()],
}

impl DatagramCounts {
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize]
    }
}
