//! What most scenarios begin with: nodes, the overlay network `app`, the service `web` published on 8080, and backends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use netd_tests::cluster::Node;
use netd_tests::load::{Offer, Steady};
use netd_tests::query::Resolver;
use netd_tests::{Backend, Cluster, Host, Lab, Place, eventually};

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// One on each of the first nodes: web1 on node1, and so on.
    pub(crate) backends: Vec<Backend>,
    /// A machine that is no node.
    pub(crate) outsider: Host,
}

/// Three nodes with a backend on each of the first `backends`; `flags` are the service's.
pub(crate) fn stage(lab: &Lab, backends: usize, flags: &str) -> Result<Stage> {
    on(Cluster::start(lab, 3)?, lab, backends, flags)
}

/// The same on these nodes.
pub(crate) fn on(cluster: Cluster, lab: &Lab, backends: usize, flags: &str) -> Result<Stage> {
    let outsider = lab.host("outsider")?;
    let first = &cluster.nodes[0];
    first.netd("network create app -d overlay --ipv6")?;
    first.netd(&format!(
        "service create web --network app -p published=8080,target=7000 -p published=8080,target=7000,protocol=udp {flags}"
    ))?;
    know(&cluster, "service", "web")?;
    let start = |(node, number): (&Node, usize)| {
        Backend::start(node, &format!("web{number}"), "--network app --service web")
    };
    let backends = cluster.nodes.iter().zip(1..=backends).map(start).collect::<Result<Vec<_>>>()?;
    everybody(&cluster, "web", backends.len())?;
    Ok(Stage { cluster, backends, outsider })
}

/// Waits until each node knows of this network or service.
pub(crate) fn know(cluster: &Cluster, noun: &str, name: &str) -> Result<()> {
    cluster.everywhere(SOON, &format!("{noun} {name} is known"), |node| node.inspect(noun, name).map(drop))
}

/// Waits until each node has so many ready endpoints of a service.
pub(crate) fn everybody(cluster: &Cluster, service: &str, count: usize) -> Result<()> {
    cluster.everywhere(SOON, &format!("{count} endpoints of {service} are ready"), |node| {
        has_ready(node, service, count)
    })
}

pub(crate) fn has_ready(node: &Node, service: &str, count: usize) -> Result<()> {
    let inspected = node.inspect("service", service)?;
    let all = inspected["Endpoints"].as_array().into_iter().flatten();
    let ready = all.filter(|one| one["State"] == "ready").count();
    ensure!(ready == count, "{inspected}");
    Ok(())
}

impl Stage {
    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.cluster.nodes[number - 1]
    }

    /// The published port of a node.
    pub(crate) fn door(&self, number: usize) -> SocketAddr {
        (self.node(number).host.v4, 8080).into()
    }

    /// A steady load from outside through each of these nodes.
    pub(crate) fn loads(&self, nodes: &[usize], rate: u32) -> Result<Vec<Steady>> {
        nodes.iter().map(|node| Steady::start(&self.outsider, Offer::tcp(self.door(*node), rate))).collect()
    }
}

/// Waits until a name has so many addresses for `client`.
pub(crate) fn resolves(client: &Place, name: &str, count: usize) -> Result<Vec<IpAddr>> {
    let resolver = Resolver::new(client)?;
    eventually(SOON, &format!("{name} has {count} addresses"), || {
        let found = resolver.addresses(name)?;
        ensure!(found.len() == count, "it has {found:?}");
        Ok(found)
    })
}

pub(crate) const SOON: Duration = Duration::from_secs(10);
