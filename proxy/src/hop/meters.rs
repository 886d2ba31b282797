//! What is counted of hops, by node and way.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::hop::Status;
use crate::metrics::Failure;

/// Why a hop came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The backend's own: it refused, was silent, or there was no way to it.
    Refused,
    Timeout,
    Unreachable,
    /// The other node does not have this backend (any more).
    NoBackend,
    Limit,
    /// The two nodes' data planes are of different versions: the older one is to be updated.
    Version,
    /// The two nodes hold different tokens.
    Denied,
    Malformed,
    /// The node itself did not answer.
    Away,
}

impl Refusal {
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoBackend,
        Self::Limit,
        Self::Version,
        Self::Denied,
        Self::Malformed,
        Self::Away,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoBackend => "no-backend",
            Self::Limit => "limit",
            Self::Version => "version",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Away => "away",
        }
    }

    /// None for success.
    pub(crate) fn of(status: Status) -> Option<Self> {
        Some(match status {
            Status::Ok => return None,
            Status::Refused => Self::Refused,
            Status::Timeout => Self::Timeout,
            Status::Unreachable => Self::Unreachable,
            Status::NoBackend => Self::NoBackend,
            Status::Limit => Self::Limit,
            Status::Version => Self::Version,
            Status::Denied => Self::Denied,
            Status::Malformed => Self::Malformed,
        })
    }

    /// As the service counts it.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Refused => Failure::Refused,
            Self::Timeout => Failure::Timeout,
            Self::NoBackend => Failure::NoBackend,
            Self::Limit => Failure::Limit,
            Self::Unreachable | Self::Version | Self::Denied | Self::Malformed | Self::Away => {
                Failure::Unreachable
            }
        }
    }
}

/// The live counters of one way.
#[derive(Debug, Default)]
pub(crate) struct HopMeters {
    opened: AtomicU64,
    failed: [AtomicU64; Refusal::ALL.len()],
}

impl HopMeters {
    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, why: Refusal) {
        self.failed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> HopCounts {
        HopCounts {
            opened: self.opened.load(Ordering::Relaxed),
            failed: self.failed.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }
}

/// What the counters of one way said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HopCounts {
    pub opened: u64,
    /// In the order of [`Refusal::ALL`].
    pub failed: [u64; Refusal::ALL.len()],
}

impl HopCounts {
    pub fn failed(&self, why: Refusal) -> u64 {
        self.failed[why as usize]
    }
}
