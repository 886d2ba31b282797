//! What the serving thread counts, as plain atomics that any thread may read. Nothing in here locks while a query is
//! answered: the list of upstream servers changes only when somebody configures others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::answer::Kind;

/// Upper bounds of the histogram's buckets, in microseconds; the last bucket has none.
pub const BUCKETS_MICROS: [u64; 14] =
    [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 200_000, 600_000, 1_000_000, 4_000_000];

#[derive(Default)]
pub(crate) struct Metrics {
    kinds: [AtomicU64; Kind::ALL.len()],
    pub(crate) dropped: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) forged: AtomicU64,
    pub(crate) tcp_refused: AtomicU64,
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    nanos: AtomicU64,
    upstreams: Mutex<HashMap<SocketAddr, Arc<UpstreamCounters>>>,
}

/// Shared by all places that ask one server.
#[derive(Debug, Default)]
pub(crate) struct UpstreamCounters {
    asked: AtomicU64,
    failures: AtomicU64,
}

/// What has been counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Answers by kind, every kind once.
    pub answers: Vec<(Kind, u64)>,
    /// Packets that deserve no answer.
    pub dropped: u64,
    /// Questions refused because too many were under way.
    pub overloaded: u64,
    /// Datagrams on upstream sockets that answered nothing that was asked.
    pub forged: u64,
    /// TCP connections closed at once because there were too many.
    pub tcp_refused: u64,
    /// Queries that took up to [`BUCKETS_MICROS`] (each only in the first bucket that fits), then those that took longer.
    pub buckets: Vec<u64>,
    /// Time from receiving queries to their answers, added up.
    pub total: Duration,
    pub upstreams: Vec<UpstreamStats>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStats {
    pub server: SocketAddr,
    pub asked: u64,
    /// Silence, refusals and unusable replies.
    pub failures: u64,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Local,
        Self::NoData,
        Self::NxDomain,
        Self::ServFail,
        Self::Refused,
        Self::FormErr,
        Self::NotImp,
        Self::Forwarded,
        Self::Cached,
    ];

    /// As a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::NoData => "nodata",
            Self::NxDomain => "nxdomain",
            Self::ServFail => "servfail",
            Self::Refused => "refused",
            Self::FormErr => "formerr",
            Self::NotImp => "notimp",
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
        }
    }
}

impl Metrics {
    pub(crate) fn answered(&self, kind: Kind) {
        self.kinds[kind as usize].fetch_add(1, Relaxed);
    }

    /// `queries` took `each`.
    pub(crate) fn took(&self, each: Duration, queries: u64) {
        let micros = u64::try_from(each.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(queries, Relaxed);
        let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos.saturating_mul(queries), Relaxed);
    }

    /// The counters of one server. Those of servers that nobody asks any more go when others come.
    pub(crate) fn upstream(&self, server: SocketAddr) -> Arc<UpstreamCounters> {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.retain(|known, counters| *known == server || Arc::strong_count(counters) > 1);
        upstreams.entry(server).or_default().clone()
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut upstreams: Vec<UpstreamStats> = upstreams
            .iter()
            .map(|(server, counters)| UpstreamStats {
                server: *server,
                asked: counters.asked.load(Relaxed),
                failures: counters.failures.load(Relaxed),
            })
            .collect();
        upstreams.sort_by_key(|upstream| upstream.server);
        Stats {
            answers: Kind::ALL.map(|kind| (kind, self.kinds[kind as usize].load(Relaxed))).into(),
            dropped: self.dropped.load(Relaxed),
            overloaded: self.overloaded.load(Relaxed),
            forged: self.forged.load(Relaxed),
            tcp_refused: self.tcp_refused.load(Relaxed),
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            total: Duration::from_nanos(self.nanos.load(Relaxed)),
            upstreams,
        }
    }
}

impl Stats {
    pub fn answers_of(&self, kind: Kind) -> u64 {
        self.answers.iter().filter(|(of, _)| *of == kind).map(|(_, count)| count).sum()
    }
}

impl UpstreamCounters {
    pub(crate) fn asked(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}
