//! What the data plane counts, as it goes over the link: plain names and numbers, all optional, so that the two sides
//! need not be of one build. Counters start with the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use netd_proxy::Failure;
use netd_proxy::table::Protocol;
use netd_proxy::udp::Dropped;
use serde::{Deserialize, Serialize};

/// Listeners or services in one message: well below what a message may have.
const PART: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// The revision that is served.
    pub revision: u64,
    pub dns: Dns,
    pub listeners: Vec<Listener>,
    pub services: Vec<Service>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Dns {
    /// By kind of answer, see [`netd_dns::Kind::label`].
    pub answers: BTreeMap<String, u64>,
    pub dropped: u64,
    pub overloaded: u64,
    pub forged: u64,
    pub tcp_refused: u64,
    /// Not cumulative, by [`netd_dns::BUCKETS_MICROS`].
    pub buckets: Vec<u64>,
    pub seconds: f64,
    pub upstreams: Vec<Upstream>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Upstream {
    pub server: SocketAddr,
    pub asked: u64,
    pub failures: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub id: Arc<str>,
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub service: Arc<str>,
    pub counts: Counts,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub id: Arc<str>,
    pub label: Arc<str>,
    pub counts: Counts,
    /// Open connections and flows by backend.
    pub backends: BTreeMap<Arc<str>, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub accepted: u64,
    pub open: u64,
    /// By reason; those that never happened are left out.
    pub failed: BTreeMap<String, u64>,
    pub retries: u64,
    pub bytes_to_backend: u64,
    pub bytes_to_client: u64,
    /// Not cumulative, by [`netd_proxy::CONNECT_BOUNDS`].
    pub connect: Vec<u64>,
    pub connect_seconds: f64,
    pub datagrams_to_backend: u64,
    pub datagrams_to_client: u64,
    pub flows_expired: u64,
    pub flows_evicted: u64,
    pub datagrams_dropped: BTreeMap<String, u64>,
}

impl Stats {
    /// Adds another part of the same answer.
    pub(crate) fn join(&mut self, part: Self) {
        self.listeners.extend(part.listeners);
        self.services.extend(part.services);
    }
}

/// The figures in parts that fit into a message each. The first has everything but listeners and services.
pub(crate) fn parts(revision: u64, dns: &netd_dns::Stats, proxy: &netd_proxy::Stats) -> Vec<Stats> {
    let mut parts = vec![Stats { revision, dns: Dns::from(dns), ..Stats::default() }];
    let listeners = proxy
        .listeners
        .chunks(PART)
        .map(|some| Stats { listeners: some.iter().map(Listener::from).collect(), ..Stats::default() });
    let services = proxy
        .services
        .chunks(PART)
        .map(|some| Stats { services: some.iter().map(Service::from).collect(), ..Stats::default() });
    parts.extend(listeners.chain(services));
    parts
}

impl From<&netd_dns::Stats> for Dns {
    fn from(stats: &netd_dns::Stats) -> Self {
        Self {
            answers: stats.answers.iter().map(|(kind, count)| (kind.label().to_owned(), *count)).collect(),
            dropped: stats.dropped,
            overloaded: stats.overloaded,
            forged: stats.forged,
            tcp_refused: stats.tcp_refused,
            buckets: stats.buckets.clone(),
            seconds: stats.total.as_secs_f64(),
            upstreams: stats
                .upstreams
                .iter()
                .map(|upstream| Upstream {
                    server: upstream.server,
                    asked: upstream.asked,
                    failures: upstream.failures,
                })
                .collect(),
        }
    }
}

impl From<&netd_proxy::ListenerStats> for Listener {
    fn from(stats: &netd_proxy::ListenerStats) -> Self {
        Self {
            id: Arc::clone(&stats.listener),
            protocol: stats.protocol,
            address: stats.address,
            service: Arc::clone(&stats.service),
            counts: Counts::from(&stats.counts),
        }
    }
}

impl From<&netd_proxy::ServiceStats> for Service {
    fn from(stats: &netd_proxy::ServiceStats) -> Self {
        Self {
            id: Arc::clone(&stats.service),
            label: Arc::clone(&stats.label),
            counts: Counts::from(&stats.counts),
            backends: stats.backends.iter().map(|one| (Arc::clone(&one.backend), one.open)).collect(),
        }
    }
}

impl From<&netd_proxy::Counts> for Counts {
    fn from(counts: &netd_proxy::Counts) -> Self {
        let datagrams = &counts.datagrams;
        Self {
            accepted: counts.accepted,
            open: counts.open,
            failed: happened(Failure::ALL.map(|why| (why.name(), counts.failed(why)))),
            retries: counts.retries,
            bytes_to_backend: counts.bytes_to_backend,
            bytes_to_client: counts.bytes_to_client,
            connect: counts.connect.into(),
            connect_seconds: counts.connect_seconds,
            datagrams_to_backend: datagrams.to_backend,
            datagrams_to_client: datagrams.to_client,
            flows_expired: datagrams.expired,
            flows_evicted: datagrams.evicted,
            datagrams_dropped: happened(Dropped::ALL.map(|why| (why.name(), datagrams.dropped(why)))),
        }
    }
}

fn happened(counts: impl IntoIterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(why, count)| (why.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ports_go_in_many_small_parts() {
        let counts = netd_proxy::Counts {
            accepted: u64::MAX,
            failed: [u64::MAX; Failure::ALL.len()],
            connect: [u64::MAX; netd_proxy::CONNECT_BOUNDS.len() + 1],
            ..netd_proxy::Counts::default()
        };
        let listeners = (0..1000u16)
            .map(|port| netd_proxy::ListenerStats {
                listener: format!("tcp/[2001:db8:1111:2222:3333:4444:5555:6666]:{port}").into(),
                protocol: Protocol::Tcp,
                address: ([u16::MAX; 8], port).into(),
                service: "x".repeat(100).into(),
                counts: counts.clone(),
            })
            .collect();
        let proxy = netd_proxy::Stats { listeners, ..netd_proxy::Stats::default() };
        let parts = parts(3, &netd_dns::Stats::default(), &proxy);
        let mut whole = Stats { revision: 3, ..Stats::default() };
        for part in parts {
            assert!(serde_json::to_vec(&part).unwrap().len() < 100_000);
            whole.join(part);
        }
        assert_eq!(whole.listeners.len(), 1000);
    }

    #[test]
    fn an_older_data_planes_figures_can_be_read() {
        let text = r#"{"revision":4,"dns":{"answers":{"local":2}},"something-new":1,
            "services":[{"id":"s","label":"web","counts":{"accepted":3},"backends":{"b":1}}]}"#;
        let stats: Stats = serde_json::from_str(text).unwrap();
        assert_eq!(
            (stats.revision, stats.dns.answers["local"], stats.services[0].counts.accepted),
            (4, 2, 3)
        );
    }
}
