//! What the data plane counts, as it goes over the link: plain names and numbers, all optional, so that the two sides
//! need not be of one build. Counters start with the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use netd_proxy::table::{BackendState, Protocol};
use netd_proxy::udp::Dropped;
use netd_proxy::{Failure, Refusal};
use serde::{Deserialize, Serialize};

/// Listeners or services in one message, and backends of them: well below what a message may have.
const PART: usize = 64;
const PART_BACKENDS: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// The revision that is served.
    pub revision: u64,
    pub dns: Dns,
    pub listeners: Vec<Listener>,
    pub services: Vec<Service>,
    /// None without a cluster.
    pub mesh: Option<Mesh>,
}

/// Connections from node to node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Mesh {
    /// Came from addresses of no node that is heard.
    pub strangers: u64,
    pub nodes: Vec<NodeHops>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeHops {
    pub node: Arc<str>,
    /// From here to there, and from there to here.
    pub to: Hops,
    pub from: Hops,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hops {
    pub opened: u64,
    /// By reason; those that never happened are left out.
    pub failed: BTreeMap<String, u64>,
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
    #[serde(default)]
    pub backends: BTreeMap<Arc<str>, u32>,
    /// The rest of what is known of each.
    #[serde(default)]
    pub members: BTreeMap<Arc<str>, Member>,
}

/// A backend, as it counts for balancing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    /// `starting`, `ready`, `draining`, `leaving` or `failing`.
    pub state: String,
    /// What its checks have found, once they have.
    pub well: Option<bool>,
    /// It, or one of its ports, could not be connected to and is passed over for a while.
    pub ejected: bool,
    /// Connections and flows that it was given, ever.
    pub accepted: u64,
    pub failed: BTreeMap<String, u64>,
    pub ejections: u64,
    pub bytes_to_backend: u64,
    pub bytes_to_client: u64,
    pub connect: Vec<u64>,
    pub connect_seconds: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub accepted: u64,
    pub open: u64,
    /// By reason; those that never happened are left out.
    pub failed: BTreeMap<String, u64>,
    pub retries: u64,
    pub retries_denied: u64,
    pub ejections: u64,
    /// Backends that were to see their client's address and did not.
    pub address_lost: u64,
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
        for service in part.services {
            match self.services.last_mut().filter(|last| last.id == service.id) {
                Some(last) => {
                    last.backends.extend(service.backends);
                    last.members.extend(service.members);
                }
                None => self.services.push(service),
            }
        }
    }
}

/// The figures in parts that fit into a message each. The first has everything but listeners and services.
pub(crate) fn parts(revision: u64, dns: &netd_dns::Stats, proxy: &netd_proxy::Stats) -> Vec<Stats> {
    let mut parts = vec![Stats {
        revision,
        dns: Dns::from(dns),
        mesh: proxy.mesh.as_ref().map(Mesh::from),
        ..Stats::default()
    }];
    let listeners = proxy
        .listeners
        .chunks(PART)
        .map(|some| Stats { listeners: some.iter().map(Listener::from).collect(), ..Stats::default() });
    parts.extend(listeners);
    parts.extend(services(&proxy.services));
    parts
}

/// A service of more backends than a part may have goes on in the next one.
fn services(all: &[netd_proxy::ServiceStats]) -> Vec<Stats> {
    let mut parts: Vec<Stats> = Vec::new();
    let mut room = 0;
    for stats in all {
        let mut rest = &stats.backends[..];
        let mut is_first = true;
        while is_first || !rest.is_empty() {
            if room == 0 || parts.last().is_none_or(|part| part.services.len() >= PART) {
                parts.push(Stats::default());
                room = PART_BACKENDS;
            }
            let (some, more) = rest.split_at(rest.len().min(room));
            let counts = if is_first { Counts::from(&stats.counts) } else { Counts::default() };
            let service = Service::of(stats, counts, some);
            parts.last_mut().expect("one was pushed").services.push(service);
            (rest, is_first) = (more, false);
            room -= some.len();
        }
    }
    parts
}

impl Service {
    /// With these of its backends.
    fn of(stats: &netd_proxy::ServiceStats, counts: Counts, backends: &[netd_proxy::BackendStats]) -> Self {
        Self {
            id: Arc::clone(&stats.service),
            label: Arc::clone(&stats.label),
            counts,
            backends: backends.iter().map(|one| (Arc::clone(&one.backend), one.open)).collect(),
            members: backends.iter().map(|one| (Arc::clone(&one.backend), Member::from(one))).collect(),
        }
    }
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

impl From<&netd_proxy::BackendStats> for Member {
    fn from(stats: &netd_proxy::BackendStats) -> Self {
        let counts = &stats.counts;
        Self {
            state: match stats.state {
                BackendState::Starting => "starting",
                BackendState::Ready => "ready",
                BackendState::Draining => "draining",
                BackendState::Leaving => "leaving",
                BackendState::Failing => "failing",
            }
            .to_owned(),
            well: stats.well,
            ejected: stats.is_ejected,
            accepted: counts.accepted,
            failed: happened(Failure::ALL.map(|why| (why.name(), counts.failed(why)))),
            ejections: counts.ejections,
            bytes_to_backend: counts.bytes_to_backend,
            bytes_to_client: counts.bytes_to_client,
            connect: counts.connect.into(),
            connect_seconds: counts.connect_seconds,
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
            retries_denied: counts.denied,
            ejections: counts.ejections,
            address_lost: counts.address_lost,
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

impl From<&netd_proxy::MeshStats> for Mesh {
    fn from(stats: &netd_proxy::MeshStats) -> Self {
        let nodes = stats.nodes.iter().map(|node| NodeHops {
            node: Arc::clone(&node.node),
            to: Hops::from(&node.to),
            from: Hops::from(&node.from),
        });
        Self { strangers: stats.strangers, nodes: nodes.collect() }
    }
}

impl From<&netd_proxy::HopCounts> for Hops {
    fn from(counts: &netd_proxy::HopCounts) -> Self {
        let failed = happened(Refusal::ALL.map(|why| (why.name(), counts.failed(why))));
        Self { opened: counts.opened, failed }
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
    fn a_service_of_many_backends_goes_in_parts_and_is_one_again() {
        let service = |id: usize, count: usize| {
            let backend = |n| netd_proxy::BackendStats {
                backend: format!("{}/{n:05}", "0123456789abcdef".repeat(4)).into(),
                open: u32::MAX,
                state: BackendState::Draining,
                well: Some(false),
                is_ejected: true,
                counts: netd_proxy::Counts {
                    accepted: u64::MAX,
                    failed: [u64::MAX; Failure::ALL.len()],
                    connect: [u64::MAX; netd_proxy::CONNECT_BOUNDS.len() + 1],
                    ..netd_proxy::Counts::default()
                },
            };
            netd_proxy::ServiceStats {
                service: format!("service/{id}").into(),
                label: "x".repeat(60).into(),
                counts: netd_proxy::Counts { accepted: id as u64, ..netd_proxy::Counts::default() },
                backends: (0..count).map(backend).collect(),
            }
        };
        let services: Vec<_> =
            [0, 1, 5000, 0, 512, 511, 2].iter().enumerate().map(|(id, count)| service(id, *count)).collect();
        let whole_of =
            |one: &netd_proxy::ServiceStats| Service::of(one, Counts::from(&one.counts), &one.backends);
        let proxy = netd_proxy::Stats { services: services.clone(), ..netd_proxy::Stats::default() };
        let mut whole = Stats::default();
        for part in parts(3, &netd_dns::Stats::default(), &proxy) {
            assert!(serde_json::to_vec(&part).unwrap().len() < super::super::frame::MAX_PACKET);
            whole.join(part);
        }
        assert_eq!(whole.services, services.iter().map(whole_of).collect::<Vec<_>>());
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
