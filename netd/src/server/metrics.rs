//! The control plane's own figures, and the data plane's as it reports them, as one OpenMetrics text.

use std::time::Duration;

use netd_api::system::{ClusterStatus, Counts};
use netd_api::{Verb as _, network, sandbox};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::exposition;
use crate::dataplane::Stats;

/// Upper bounds in seconds; an attach takes about a millisecond.
const BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];

/// Labels come from the list of verbs, so their number is bounded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    outcome: &'static str,
}

/// Reasons come from the firewall's list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

/// The same of the cluster, while this node belongs to one.
type OfCluster = (Gauge, fn(&ClusterStatus) -> u64);

/// A gauge and where its value is found.
type Counted = (Gauge, fn(&Counts) -> u64);

pub(crate) struct Metrics {
    registry: Registry,
    attach: Histogram,
    detach: Histogram,
    requests: Family<Request, Counter>,
    seconds: Family<Request, Histogram>,
    counts: [Counted; 5],
    cluster: [OfCluster; 5],
    revision: Gauge,
    served: Gauge,
    restarts: Counter,
    reconnects: Counter,
    repairs: Counter,
    dropped: Family<Dropped, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("netd");
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let (attach, detach) = (Histogram::new(BUCKETS), Histogram::new(BUCKETS));
        registry.register(
            "attach_seconds",
            "From request to answer: sandboxes made, networks joined",
            attach.clone(),
        );
        registry.register(
            "detach_seconds",
            "From request to answer: sandboxes removed, networks left",
            detach.clone(),
        );
        let (revision, served) = (Gauge::default(), Gauge::default());
        let (restarts, repairs) = (Counter::default(), Counter::default());
        let reconnects = Counter::default();
        registry.register("api_requests", "Requests by verb and outcome", requests.clone());
        registry.register("api_request_seconds", "How long a verb took, by outcome", seconds.clone());
        registry.register("store_revision", "The store's counter of commits", revision.clone());
        registry.register(
            "dataplane_restarts",
            "Data planes started in the place of one that ended",
            restarts.clone(),
        );
        registry.register(
            "cluster_store_reconnects",
            "Times the connection to the cluster's store was made again",
            reconnects.clone(),
        );
        registry.register("nftables_repairs", "Times the firewall table was put back", repairs.clone());
        let dropped = Family::default();
        registry.register(
            "overlay_dropped_packets",
            "Packets of overlay networks, and between nodes, that were not let through",
            dropped.clone(),
        );
        let counts: [Counted; 5] = [
            (gauge(&mut registry, "networks", "Networks"), |counts| counts.networks),
            (gauge(&mut registry, "sandboxes", "Sandboxes"), |counts| counts.sandboxes),
            (gauge(&mut registry, "endpoints", "Places of sandboxes on networks"), |counts| counts.endpoints),
            (gauge(&mut registry, "published_ports", "Published ports"), |counts| counts.published_ports),
            (gauge(&mut registry, "names", "Names that resolve"), |counts| counts.names),
        ];
        let cluster = of_cluster(&mut registry);
        Self {
            registry,
            attach,
            detach,
            requests,
            seconds,
            counts,
            cluster,
            revision,
            served,
            restarts,
            reconnects,
            repairs,
            dropped,
        }
    }

    pub(crate) fn request(&self, verb: &'static str, done: bool, took: Duration) {
        let labels = Request { verb, outcome: if done { "done" } else { "failed" } };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        match verb {
            sandbox::Create::ID | network::Connect::ID if done => self.attach.observe(took.as_secs_f64()),
            sandbox::Remove::ID | network::Disconnect::ID if done => self.detach.observe(took.as_secs_f64()),
            _ => {}
        }
    }

    pub(crate) fn repaired(&self) {
        self.repairs.inc();
    }

    /// What the firewall has dropped since the start, in all.
    pub(crate) fn dropped(&self, all: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, packets) in all {
            let counter = self.dropped.get_or_create(&Dropped { reason });
            counter.inc_by(packets.saturating_sub(counter.get()));
        }
    }

    pub(crate) fn render(
        &self,
        counts: Counts,
        revision: u64,
        restarts: u64,
        stats: Option<&Stats>,
        cluster: Option<&ClusterStatus>,
    ) -> String {
        for (gauge, value) in &self.cluster {
            gauge.set(cluster.map_or(0, |cluster| signed(value(cluster))));
        }
        for (gauge, value) in &self.counts {
            gauge.set(signed(value(&counts)));
        }
        let reconnects = cluster.map_or(0, |cluster| cluster.reconnects);
        self.reconnects.inc_by(reconnects.saturating_sub(self.reconnects.get()));
        self.revision.set(signed(revision));
        self.restarts.inc_by(restarts.saturating_sub(self.restarts.get()));
        if let Some(stats) = stats {
            self.served.set(signed(stats.revision));
        }
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "cannot write the metrics");
        }
        if let Some(stats) = stats {
            // The text ends with "# EOF", which has to stay last.
            let end = text.rfind("# EOF").unwrap_or(text.len());
            text.insert_str(end, &exposition::render(stats));
        }
        text
    }
}

fn of_cluster(registry: &mut Registry) -> [OfCluster; 5] {
    [
        (gauge(registry, "cluster_store_connected", "Whether the cluster's store is in reach"), |cluster| {
            u64::from(cluster.connected)
        }),
        (gauge(registry, "cluster_store_revision", "Up to where the cluster's store was read"), |cluster| {
            cluster.revision
        }),
        (
            gauge(registry, "cluster_store_lag", "Revisions that were read and are not served yet"),
            |cluster| cluster.revision.saturating_sub(cluster.served),
        ),
        (gauge(registry, "cluster_members", "Nodes that belong to the cluster"), |cluster| cluster.members),
        (gauge(registry, "cluster_nodes_alive", "Nodes of the cluster that are alive"), |cluster| {
            u64::try_from(cluster.alive.len()).unwrap_or(u64::MAX)
        }),
    ]
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
