//! The data plane's figures in OpenMetrics text. Labels are services and listeners that exist, and reasons from fixed
//! lists, so their number is bounded by what was configured.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::stats::port;
use crate::dataplane::Stats;
use crate::dataplane::stats::{Counts, Mesh, Service};

type Number = fn(&Counts) -> u64;

/// Counters and gauges of a service: name, help, whether it only grows, value.
const SERVICE: [(&str, &str, bool, Number); 12] = [
    ("connections_opened", "Connections and flows accepted", true, |counts| counts.accepted),
    ("connections_open", "Connections and flows open now", false, |counts| counts.open),
    ("connect_retries", "Attempts made on another backend after one failed", true, |counts| counts.retries),
    ("connect_retries_denied", "Attempts not made because the service had made too many", true, |counts| {
        counts.retries_denied
    }),
    (
        "backend_ejections",
        "Times a backend was passed over because it could not be connected to",
        true,
        |counts| counts.ejections,
    ),
    (
        "client_addresses_lost",
        "Backends that were to see their client's address and did not",
        true,
        |counts| counts.address_lost,
    ),
    ("bytes_to_backend", "Bytes from clients to backends", true, |counts| counts.bytes_to_backend),
    ("bytes_to_client", "Bytes from backends to clients", true, |counts| counts.bytes_to_client),
    ("datagrams_to_backend", "Datagrams from clients to backends", true, |counts| {
        counts.datagrams_to_backend
    }),
    ("datagrams_to_client", "Datagrams from backends to clients", true, |counts| counts.datagrams_to_client),
    ("udp_flows_expired", "UDP flows ended by silence", true, |counts| counts.flows_expired),
    ("udp_flows_evicted", "UDP flows ended to make room", true, |counts| counts.flows_evicted),
];

/// The same by port: of a service that has several, which of them it is.
const PORT: [(&str, &str, bool, Number); 4] = [
    ("port_connections_opened", "Connections and flows accepted on a port", true, |counts| counts.accepted),
    ("port_connections_open", "Connections and flows of a port open now", false, |counts| counts.open),
    ("port_bytes_to_backend", "Bytes from clients of a port", true, |counts| counts.bytes_to_backend),
    ("port_bytes_to_client", "Bytes to clients of a port", true, |counts| counts.bytes_to_client),
];

pub(super) fn render(stats: &Stats) -> String {
    let mut text = Text::default();
    dns(&mut text, stats);
    ports(&mut text, stats);
    for (name, help, grows, value) in SERVICE {
        text.family(name, help, if grows { "counter" } else { "gauge" });
        for service in &stats.services {
            text.sample(name, grows, &[("service", &service.label)], value(&service.counts));
        }
    }
    by_reason(
        &mut text,
        &stats.services,
        "connections_failed",
        "Connections and flows not served",
        |counts| &counts.failed,
    );
    by_reason(&mut text, &stats.services, "datagrams_dropped", "Datagrams not passed on", |counts| {
        &counts.datagrams_dropped
    });
    backends(&mut text, &stats.services);
    text.family("connect_seconds", "How long connecting to a backend took", "histogram");
    let bounds = netd_proxy::CONNECT_BOUNDS;
    for service in &stats.services {
        let counts = &service.counts;
        text.histogram(
            "connect_seconds",
            &[("service", &service.label)],
            &bounds,
            &counts.connect,
            counts.connect_seconds,
        );
    }
    if let Some(mesh) = &stats.mesh {
        hops(&mut text, mesh);
    }
    text.0
}

/// Sums: a label for each backend would have no bound.
fn backends(text: &mut Text, services: &[Service]) {
    text.family("backends", "Backends by how they count for balancing", "gauge");
    for service in services {
        for state in ["starting", "ready", "draining", "leaving", "failing"] {
            let count = service.members.values().filter(|member| member.state == state).count();
            text.sample("backends", false, &[("service", &service.label), ("state", state)], count as u64);
        }
    }
    text.family("backends_ejected", "Backends passed over because they could not be connected to", "gauge");
    for service in services {
        let count = service.members.values().filter(|member| member.ejected).count();
        text.sample("backends_ejected", false, &[("service", &service.label)], count as u64);
    }
}

fn ports(text: &mut Text, stats: &Stats) {
    let labels: BTreeMap<&str, &str> =
        stats.services.iter().map(|service| (&*service.id, &*service.label)).collect();
    for (name, help, grows, value) in PORT {
        text.family(name, help, if grows { "counter" } else { "gauge" });
        for listener in &stats.listeners {
            let service = labels.get(&*listener.service).copied().unwrap_or_default();
            let port = port(listener.protocol, listener.address);
            text.sample(name, grows, &[("service", service), ("port", &port)], value(&listener.counts));
        }
    }
}

/// One node's name a label: as many as the cluster has.
fn hops(text: &mut Text, mesh: &Mesh) {
    let ways = || mesh.nodes.iter().flat_map(|node| [(node, "to", &node.to), (node, "from", &node.from)]);
    text.family("hops_opened", "Connections and flows passed on to, or taken from, another node", "counter");
    for (node, way, hops) in ways() {
        text.sample("hops_opened", true, &[("node", &node.node), ("way", way)], hops.opened);
    }
    text.family("hops_failed", "Connections and flows that the node passed on to could not serve", "counter");
    for (node, way, hops) in ways() {
        for (reason, count) in &hops.failed {
            let labels = [("node", &*node.node), ("way", way), ("reason", reason)];
            text.sample("hops_failed", true, &labels, *count);
        }
    }
    text.family(
        "mesh_strangers",
        "Connections and datagrams refused because no node of the cluster has their address",
        "counter",
    );
    text.sample("mesh_strangers", true, &[], mesh.strangers);
}

fn dns(text: &mut Text, stats: &Stats) {
    let dns = &stats.dns;
    text.family("dns_queries", "Questions of sandboxes by kind of answer", "counter");
    for (kind, count) in &dns.answers {
        text.sample("dns_queries", true, &[("answer", kind)], *count);
    }
    for (name, help, value) in [
        ("dns_packets_dropped", "Packets that deserve no answer", dns.dropped),
        ("dns_overloaded", "Questions refused because too many were under way", dns.overloaded),
        ("dns_forged_replies", "Datagrams that answered nothing that was asked", dns.forged),
        ("dns_tcp_refused", "TCP connections closed because there were too many", dns.tcp_refused),
    ] {
        text.family(name, help, "counter");
        text.sample(name, true, &[], value);
    }
    for (name, help) in [
        ("dns_upstream_queries", "Questions asked of a server"),
        ("dns_upstream_failures", "Silence, refusals and unusable replies of a server"),
    ] {
        text.family(name, help, "counter");
        for upstream in &dns.upstreams {
            let value = if name == "dns_upstream_queries" { upstream.asked } else { upstream.failures };
            text.sample(name, true, &[("server", &upstream.server.to_string())], value);
        }
    }
    text.family("dns_query_seconds", "From a question's arrival to its answer", "histogram");
    let bounds: Vec<f64> = netd_dns::BUCKETS_MICROS.iter().map(|&micros| micros_to_seconds(micros)).collect();
    text.histogram("dns_query_seconds", &[], &bounds, &dns.buckets, dns.seconds);
}

fn by_reason(
    text: &mut Text,
    services: &[Service],
    name: &str,
    help: &str,
    of: impl Fn(&Counts) -> &BTreeMap<String, u64>,
) {
    text.family(name, help, "counter");
    for service in services {
        for (reason, count) in of(&service.counts) {
            text.sample(name, true, &[("service", &service.label), ("reason", reason)], *count);
        }
    }
}

fn micros_to_seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP netd_{name} {help}."));
        self.line(format_args!("# TYPE netd_{name} {kind}"));
    }

    /// OpenMetrics wants `_total` behind the name of what only grows.
    fn sample(&mut self, name: &str, grows: bool, labels: &[(&str, &str)], value: u64) {
        let total = if grows { "_total" } else { "" };
        self.line(format_args!("netd_{name}{total}{} {value}", Labels(labels, None)));
    }

    /// `counts` has one number a bucket and one for what is beyond the last; buckets are told cumulatively.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        seconds: f64,
    ) {
        let mut sum = 0;
        for (index, count) in counts.iter().enumerate() {
            sum += count;
            let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            self.line(format_args!("netd_{name}_bucket{} {sum}", Labels(labels, Some(&bound))));
        }
        self.line(format_args!("netd_{name}_sum{} {seconds}", Labels(labels, None)));
        self.line(format_args!("netd_{name}_count{} {sum}", Labels(labels, None)));
    }

    fn line(&mut self, line: impl Display) {
        // A String takes everything.
        let _ = writeln!(self.0, "{line}");
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)], Option<&'a str>);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.0.iter().copied().chain(self.1.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, value) in all {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{separator}{name}=\"{value}\"")?;
            separator = ',';
        }
        if separator == ',' { f.write_char('}') } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_finds_a_services_figures() {
        let text = r#"{"services":[{"id":"s","label":"we\"b","backends":{},
            "members":{"a":{"state":"ready"},"b":{"state":"ready","ejected":true},"c":{"state":"failing"}},"counts":
            {"accepted":3,"open":1,"failed":{"refused":2},"connect":[1,2],"connect_seconds":0.5}}],
            "listeners":[{"id":"l","protocol":"Tcp","address":"0.0.0.0:8080","service":"s","counts":{"accepted":2}}]}"#;
        let stats: Stats = serde_json::from_str(text).unwrap();
        let shown = render(&stats);
        for line in [
            r#"netd_connections_opened_total{service="we\"b"} 3"#,
            r#"netd_port_connections_opened_total{service="we\"b",port="tcp/0.0.0.0:8080"} 2"#,
            r#"netd_connections_open{service="we\"b"} 1"#,
            r#"netd_connections_failed_total{service="we\"b",reason="refused"} 2"#,
            r#"netd_backends{service="we\"b",state="ready"} 2"#,
            r#"netd_backends{service="we\"b",state="draining"} 0"#,
            r#"netd_backends_ejected{service="we\"b"} 1"#,
            r#"netd_connect_seconds_count{service="we\"b"} 3"#,
            r#"netd_connect_seconds_sum{service="we\"b"} 0.5"#,
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
    }
}
