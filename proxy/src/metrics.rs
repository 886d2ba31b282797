//! Counters: plain atomics that the data path reaches without a lookup, and the plain values they are read into.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::udp::{DatagramCounts, DatagramMeters};

/// Why a connection (or a flow) did not get a backend, or how it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Timeout,
    Unreachable,
    NoBackend,
    /// The listener or the process had as many as it may have.
    Limit,
    /// An established connection ended with a reset.
    Reset,
    /// It has come back to us, time and again.
    Loop,
}

impl Failure {
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoBackend,
        Self::Limit,
        Self::Reset,
        Self::Loop,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoBackend => "no-backend",
            Self::Limit => "limit",
            Self::Reset => "reset",
            Self::Loop => "loop",
        }
    }
}

/// The upper bounds of the connect histogram, in seconds; one more bucket is above all of them.
pub const CONNECT_BOUNDS: [f64; 10] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];

/// The live counters of a listener or a service.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    accepted: AtomicU64,
    open: AtomicI64,
    failed: [AtomicU64; Failure::ALL.len()],
    retries: AtomicU64,
    address_lost: AtomicU64,
    denied: AtomicU64,
    ejections: AtomicU64,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    connect: [AtomicU64; CONNECT_BOUNDS.len() + 1],
    connect_micros: AtomicU64,
    pub(crate) datagrams: DatagramMeters,
}

impl Meters {
    /// A connection (or flow) has come in.
    pub(crate) fn opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.failed[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A backend was to see its client's address, and sees ours.
    pub(crate) fn lost_address(&self) {
        self.address_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt was not made, because the service had made too many.
    pub(crate) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// A backend is passed over from now on.
    pub(crate) fn ejected(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn moved_to_backend(&self, bytes: u64) {
        self.to_backend.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn moved_to_client(&self, bytes: u64) {
        self.to_client.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn connected(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket =
            CONNECT_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(CONNECT_BOUNDS.len());
        self.connect[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.connect_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            accepted: load(&self.accepted),
            open: u64::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(0),
            failed: self.failed.each_ref().map(load),
            retries: load(&self.retries),
            address_lost: load(&self.address_lost),
            denied: load(&self.denied),
            ejections: load(&self.ejections),
            bytes_to_backend: load(&self.to_backend),
            bytes_to_client: load(&self.to_client),
            connect: self.connect.each_ref().map(load),
            connect_seconds: Duration::from_micros(load(&self.connect_micros)).as_secs_f64(),
            datagrams: self.datagrams.read(),
        }
    }
}

/// What the counters of a listener or a service said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Connections accepted or flows opened, ever.
    pub accepted: u64,
    pub open: u64,
    /// In the order of [`Failure::ALL`].
    pub failed: [u64; Failure::ALL.len()],
    /// Attempts after the first of a connection.
    pub retries: u64,
    /// Backends that were to see their client's address and did not, because the kernel would not have it.
    pub address_lost: u64,
    /// Attempts that were not made, because there had been too many.
    pub denied: u64,
    /// Times a backend was passed over for a while, because it could not be connected to.
    pub ejections: u64,
    pub bytes_to_backend: u64,
    pub bytes_to_client: u64,
    /// Successful connects by [`CONNECT_BOUNDS`], not cumulative; the last is for what took longer.
    pub connect: [u64; CONNECT_BOUNDS.len() + 1],
    /// The sum of what is in `connect`.
    pub connect_seconds: f64,
    /// What only datagrams have.
    pub datagrams: DatagramCounts,
}

impl Counts {
    pub fn failed(&self, failure: Failure) -> u64 {
        self.failed[failure as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_what_was_counted() {
        let meters = Meters::default();
        meters.opened();
        meters.opened();
        meters.closed();
        meters.failed(Failure::NoBackend);
        meters.connected(Duration::from_micros(200));
        meters.connected(Duration::from_secs(60));
        let counts = meters.read();
        assert_eq!((counts.accepted, counts.open), (2, 1));
        assert_eq!(counts.failed(Failure::NoBackend), 1);
        assert_eq!(counts.failed.iter().sum::<u64>(), 1);
        assert_eq!((counts.connect[1], counts.connect[CONNECT_BOUNDS.len()]), (1, 1));
        assert!((counts.connect_seconds - 60.0002).abs() < 1e-6);
    }
}
