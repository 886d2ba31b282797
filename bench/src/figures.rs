//! The goals, as data: what each figure is, against whom it counts, and what it has to reach.

use Goal::{Least, LeastOf, Most, MostOf};

use crate::measure::{FigureId, Name, Results, Summary};

pub(crate) const NETD: Name = "netd";
/// netd, its ports steered: by BPF, and by nftables.
pub(crate) const NETD_SK_LOOKUP: Name = "netd, sk_lookup";
pub(crate) const NETD_TPROXY: Name = "netd, tproxy";
pub(crate) const DIRECT: Name = "direct";
pub(crate) const PLAIN_BRIDGE: Name = "plain bridge";
pub(crate) const PLAIN_VXLAN: Name = "plain VXLAN";
pub(crate) const KERNEL_MESH: Name = "nft DNAT + VXLAN";
/// netd, a PROXY header telling the client's address; and a port of the node that has the container.
pub(crate) const NETD_PROXY_V1: Name = "netd, PROXY v1";
pub(crate) const NETD_PROXY_V2: Name = "netd, PROXY v2";
pub(crate) const NETD_ONE_NODE: Name = "netd, one node";
/// netd, connecting to the container under its own address.
pub(crate) const NETD_NOT_KEPT: Name = "netd, not kept";
/// netd, the kernel connecting to the backend at once.
pub(crate) const NETD_STRAIGHT: Name = "netd, connect";
/// netd's network with a way out of the host, where the other has none.
pub(crate) const NETD_WAY_OUT: Name = "netd, way out";

pub(crate) struct Figure {
    pub(crate) id: FigureId,
    /// Row of the goals; empty: told beside them, no goal of its own.
    pub(crate) row: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    /// Whose ratio to what is told; empty: the values themselves.
    pub(crate) base: Name,
    pub(crate) goals: &'static [Goal],
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Ratio to somebody, at least or at most.
    LeastOf(Name, f64),
    MostOf(Name, f64),
    /// The figure itself.
    Most(f64),
    Least(f64),
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Met,
    /// By which share of the goal it is missed.
    Short(f64),
    /// What should be none is so much.
    Over(f64),
    /// It, or who it is measured against, did not run.
    Unmeasured,
}

impl Goal {
    pub(crate) fn judge(self, figure: FigureId, results: &Results) -> Verdict {
        let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
        let (reached, wanted, least) = match self {
            Self::LeastOf(base, wanted) => (median(results.ratio(figure, NETD, base)), wanted, true),
            Self::MostOf(base, wanted) => (median(results.ratio(figure, NETD, base)), wanted, false),
            Self::Least(wanted) => (median(results.value(figure, NETD)), wanted, true),
            Self::Most(wanted) => (median(results.value(figure, NETD)), wanted, false),
        };
        let Some(reached) = reached else { return Verdict::Unmeasured };
        let miss = if least { wanted - reached } else { reached - wanted };
        match miss {
            miss if miss <= 0.0 => Verdict::Met,
            miss if wanted == 0.0 => Verdict::Over(miss),
            miss => Verdict::Short(miss / wanted),
        }
    }

    /// The goal of the figure itself.
    pub(crate) fn value(self) -> Option<f64> {
        match self {
            Self::Least(wanted) | Self::Most(wanted) => Some(wanted),
            _ => None,
        }
    }

    pub(crate) fn wants_less(self) -> bool {
        matches!(self, Self::MostOf(..) | Self::Most(_))
    }

    /// The goal as a ratio to `base`, for the plot.
    pub(crate) fn ratio_to(self, to: Name) -> Option<f64> {
        match self {
            Self::LeastOf(base, wanted) | Self::MostOf(base, wanted) if base == to => Some(wanted),
            _ => None,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeastOf(base, wanted) => write!(f, ">= {wanted} x {base}"),
            Self::MostOf(base, wanted) => write!(f, "<= {wanted} x {base}"),
            Self::Least(wanted) => write!(f, ">= {wanted}"),
            Self::Most(wanted) => write!(f, "<= {wanted}"),
        }
    }
}

/// A figure whose contenders are told as ratios to `base`.
const fn against(
    row: &'static str,
    id: FigureId,
    what: &'static str,
    unit: &'static str,
    base: Name,
    goals: &'static [Goal],
) -> Figure {
    Figure { id, row, what, unit, base, goals }
}

/// A figure told as it is.
const fn plain(
    row: &'static str,
    id: FigureId,
    what: &'static str,
    unit: &'static str,
    goals: &'static [Goal],
) -> Figure {
    Figure { id, row, what, unit, base: "", goals }
}

#[rustfmt::skip]
pub(crate) const FIGURES: &[Figure] = &[
    against("P1", "bulk-1", "published TCP port, bulk, 1 stream", "Gbit/s", DIRECT, &[LeastOf(DIRECT, 0.90), LeastOf("docker-proxy", 1.7)]),
    against("P2", "bulk-8", "bulk, 8 streams", "Gbit/s", DIRECT, &[LeastOf(DIRECT, 0.97)]),
    against("P3", "bulk-reverse", "bulk, container to client", "Gbit/s", DIRECT, &[LeastOf(DIRECT, 0.80)]),
    against("P4", "keepalive-64", "keep-alive requests, 64 connections", "1/s", DIRECT, &[LeastOf(DIRECT, 0.75)]),
    against("P4", "keepalive-64-p99", "keep-alive requests, 64 connections, p99", "ms", DIRECT, &[MostOf(DIRECT, 1.5)]),
    against("P5", "keepalive-1", "keep-alive requests, 1 connection", "1/s", DIRECT, &[LeastOf(DIRECT, 1.8)]),
    against("P6", "connect-64", "new connection per request, 64", "1/s", DIRECT, &[LeastOf(DIRECT, 0.90)]),
    against("P7", "relay-cpu", "CPU seconds of the relay per GB (of P1)", "s/GB", "docker-proxy", &[MostOf("docker-proxy", 0.6)]),
    plain("", "relay-cpu-8", "CPU seconds of the relay per GB, 8 streams (of P2)", "s/GB", &[]),
    plain("", "relay-cpu-reverse", "CPU seconds of the relay per GB, reverse (of P3)", "s/GB", &[]),
    plain("", "relay-cpu-request", "CPU of the relay per keep-alive request (of P4)", "us", &[]),
    plain("", "relay-memory", "resident memory of the relay after the bulk runs", "MB", &[]),
    plain("", "request-errors", "failed requests of P4 to P6", "", &[Most(0.0)]),
    plain("P8", "idle-memory", "10,000 idle connections: memory of both processes", "MB", &[Most(60.0)]),
    plain("P8", "idle-bulk", "bulk beside them against bulk without", "x", &[Least(0.95)]),
    plain("P8", "idle-connections", "connections that were open (descriptors are the limit)", "", &[]),
    against("U1", "udp-64x1", "UDP, 64 flows x 1 outstanding", "1/s", DIRECT, &[LeastOf(DIRECT, 0.60)]),
    plain("U1", "udp-64x1-lost", "UDP, 64 flows x 1, lost", "%", &[Most(0.0)]),
    against("U2", "udp-16x32", "UDP, 16 flows x 32", "1/s", DIRECT, &[LeastOf(DIRECT, 0.72)]),
    plain("U2", "udp-16x32-lost", "UDP, 16 flows x 32, lost", "%", &[Most(0.0)]),
    against("U3", "udp-bulk", "UDP, QUIC-like bulk (44 x 1400 B)", "Gbit/s", DIRECT, &[LeastOf(DIRECT, 0.45), LeastOf("docker-proxy", 18.0)]),
    plain("U3", "udp-bulk-lost", "UDP, QUIC-like bulk, lost", "%", &[]),
    against("", "udp-64x1-p99", "UDP, 64 flows x 1, p99", "us", DIRECT, &[]),
    against("B1", "east-west-1", "container to container, bulk, 1 stream (netd: internal network)", "Gbit/s", PLAIN_BRIDGE, &[LeastOf(PLAIN_BRIDGE, 1.3)]),
    against("B1", "east-west-8", "container to container, bulk, 8 streams", "Gbit/s", PLAIN_BRIDGE, &[]),
    against("", "east-west-requests", "container to container, keep-alive requests, 64 connections", "1/s", PLAIN_BRIDGE, &[]),
    against("", "steer-connect", "ways to catch a port: new connection per request, 64", "1/s", NETD, &[]),
    against("", "steer-keepalive", "ways to catch a port: keep-alive requests, 64 connections", "1/s", NETD, &[]),
    against("", "steer-bulk", "ways to catch a port: bulk, 1 stream", "Gbit/s", NETD, &[]),
    against("", "steer-udp", "ways to catch a port: UDP, 64 flows x 1 outstanding", "1/s", NETD, &[]),
    against("V1", "vip-bulk", "container to VIP, same node, bulk, 1 stream", "Gbit/s", DIRECT, &[LeastOf(DIRECT, 1.0)]),
    against("V1", "vip-requests", "container to VIP, keep-alive requests, 64 connections", "1/s", DIRECT, &[LeastOf(DIRECT, 0.95)]),
    against("V1", "vip-connections", "container to VIP, new connection per request, 64", "1/s", DIRECT, &[LeastOf(DIRECT, 1.0)]),
    against("V1", "vip-udp", "container to VIP, UDP, 64 flows x 1 outstanding", "1/s", DIRECT, &[]),
    plain("S12", "services-add", "10,000 services: one more", "ms", &[Most(100.0)]),
    plain("S12", "services-add-growth", "10,000 services: one more, against one more of ten", "x", &[Most(1.5)]),
    plain("S12", "services-all", "10,000 services: until all are served", "s", &[]),
    plain("S12", "services-memory", "10,000 services: memory of both processes more", "MB", &[]),
    plain("S12", "services-lookup-growth", "10,000 services: asking for a name, against ten", "x", &[Most(1.5)]),
    plain("S12", "services-connect-growth", "10,000 services: opening a connection, against ten", "x", &[Most(1.5)]),
    against("O1", "overlay-1", "two nodes, overlay, bulk, 1 stream", "Gbit/s", PLAIN_VXLAN, &[LeastOf(PLAIN_VXLAN, 1.0)]),
    against("O1", "overlay-8", "two nodes, overlay, bulk, 8 streams", "Gbit/s", PLAIN_VXLAN, &[LeastOf(PLAIN_VXLAN, 1.0)]),
    against("O1", "overlay-requests", "two nodes, overlay, keep-alive requests, 64 connections", "1/s", PLAIN_VXLAN, &[LeastOf(PLAIN_VXLAN, 1.0)]),
    against("O1", "overlay-connections", "two nodes, overlay, new connection per request, 64", "1/s", PLAIN_VXLAN, &[LeastOf(PLAIN_VXLAN, 1.0)]),
    against("O1", "overlay-udp", "two nodes, overlay, UDP, 64 flows x 1 outstanding", "1/s", PLAIN_VXLAN, &[LeastOf(PLAIN_VXLAN, 1.0)]),
    against("", "mesh-bulk", "a port of a node without backends, bulk, 1 stream", "Gbit/s", KERNEL_MESH, &[]),
    against("", "mesh-requests", "a port of a node without backends, keep-alive requests, 64 connections", "1/s", KERNEL_MESH, &[]),
    against("", "mesh-connections", "a port of a node without backends, new connection per request, 64", "1/s", KERNEL_MESH, &[]),
    against("", "mesh-udp", "a port of a node without backends, UDP, 64 flows x 1 outstanding", "1/s", KERNEL_MESH, &[]),
    plain("C1", "converge-3-p50", "a sandbox made or removed: until the last of 3 nodes serves it, p50", "ms", &[]),
    plain("C1", "converge-3-p99", "until the last of 3 nodes serves it, p99", "ms", &[Most(50.0)]),
    plain("C1", "converge-10-p50", "until the last of 10 nodes serves it, p50", "ms", &[]),
    plain("C1", "converge-10-p99", "until the last of 10 nodes serves it, p99", "ms", &[Most(50.0)]),
    plain("C1", "converge-25-p50", "until the last of 25 nodes serves it, p50", "ms", &[]),
    plain("C1", "converge-25-p99", "until the last of 25 nodes serves it, p99", "ms", &[]),
    against("N1", "dns-local", "DNS, local names (dnsperf, 8 clients)", "1/s", "dnsmasq", &[LeastOf("dnsmasq", 1.4), LeastOf("aardvark-dns", 18.0)]),
    plain("N1", "dns-lost", "DNS, local names, unanswered or failed", "%", &[Most(0.0)]),
    against("N2", "dns-one", "DNS, one client one outstanding", "1/s", "dnsmasq", &[LeastOf("dnsmasq", 3.0)]),
    against("N2", "dns-one-p50", "DNS, one client one outstanding, p50", "us", "dnsmasq", &[]),
    against("N3", "dns-cached", "DNS, cached forwards against local names", "1/s", "netd local", &[LeastOf("netd local", 0.8)]),
    plain("N3", "dns-flight-p99", "DNS, 10,000 in flight with one upstream dead, p99", "ms", &[Most(600.0)]),
    plain("N3", "dns-flight-lost", "DNS, 10,000 in flight, unanswered or failed", "%", &[Most(0.0)]),
    plain("N3", "dns-flight-local-p99", "DNS, local answers meanwhile, p99", "ms", &[]),
    plain("N3", "dns-flight-local-lost", "DNS, local questions meanwhile, unanswered", "", &[Most(0.0)]),
    plain("A1", "attach", "attach to a given namespace, no port", "ms", &[Most(1.5)]),
    plain("A1", "attach-port", "attach with one published port", "ms", &[Most(1.5)]),
    plain("", "detach", "detach", "ms", &[]),
    plain("A2", "cni-add", "through netd-cni: ADD, process start to exit", "ms", &[Most(5.0)]),
    plain("A2", "cni-del", "through netd-cni: DEL", "ms", &[Most(3.0)]),
    plain("A3", "attach-parallel", "50 attaches in parallel (rivals: 30), wall", "ms", &[Most(120.0)]),
    plain("A3", "attach-parallel-failed", "attaches in parallel, failed", "", &[Most(0.0)]),
    plain("", "detach-parallel", "detaches in parallel, wall", "ms", &[]),
    plain("", "detach-parallel-failed", "detaches in parallel, failed", "", &[]),
    plain("R1", "range-tasks", "1,000 published UDP ports: processes and threads more", "", &[Most(0.0)]),
    plain("R1", "range-memory", "1,000 published UDP ports: memory more", "MB", &[Most(10.0)]),
    plain("R1", "range-ready", "1,000 published UDP ports: ready after", "s", &[Most(0.3)]),
    plain("S1", "scale-last", "1,000 sandboxes on 10 networks: last attaches against the first", "x", &[Most(1.2)]),
    plain("S1", "scale-first", "1,000 sandboxes on 10 networks: the first 50, median", "ms", &[]),
    plain("S3", "scale-restart", "restart of the control plane with 1,000 sandboxes, to ready", "s", &[Most(1.0)]),
    plain("", "scale-memory", "memory of both processes with 1,000 sandboxes", "MB", &[]),
    plain("M1", "rest-memory", "at rest: both processes together", "MB", &[Most(30.0)]),
    plain("M1", "rest-wakeups", "at rest: wake-ups of both together", "1/s", &[Most(0.0)]),
];

pub(crate) fn figure(id: FigureId) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_tells_by_how_much_it_is_missed() {
        let mut results = Results::default();
        results.record("bulk-1", NETD, 0, 9.0);
        results.record("bulk-1", DIRECT, 0, 12.0);
        assert_eq!(LeastOf(DIRECT, 0.75).judge("bulk-1", &results), Verdict::Met);
        assert_eq!(LeastOf(DIRECT, 1.5).judge("bulk-1", &results), Verdict::Short(0.5));
        assert_eq!(Most(6.0).judge("bulk-1", &results), Verdict::Short(0.5));
        assert_eq!(Most(0.0).judge("bulk-1", &results), Verdict::Over(9.0));
        assert_eq!(LeastOf("haproxy", 1.0).judge("bulk-1", &results), Verdict::Unmeasured);
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let mut ids: Vec<_> = FIGURES.iter().map(|figure| figure.id).collect();
        ids.sort_unstable();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
