//! A port of a node that has no backend: the client comes to one node, the container runs on another. netd carries the
//! client's address there in each of its ways, or (`not kept`: the container's way out is another network, so what it
//! answers to a client would not come by netd) connects under the node's; the kernel's road loses it. `one node` is netd's port on the node that has the
//! container: what the hop costs is the difference.

use std::time::Duration;

use anyhow::{Result, bail};
use netd_tests::cluster::Node;
use netd_tests::{Cluster, Lab, Place, Setup, eventually};

use crate::figures::{NETD, NETD_NOT_KEPT, NETD_ONE_NODE, NETD_PROXY_V1, NETD_PROXY_V2};
use crate::measure::{Name, Results};
use crate::programs::{BULK, ECHO, HTTP, HTTP_PROXY, Programs};
use crate::rival::{netd, plain_vxlan};
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Ports, Test};
use crate::site;

const TESTS: &[(&str, Test)] = &[
    ("mesh, bulk, 1 stream", Test::Bulk("", "mesh-bulk")),
    ("mesh, keep-alive x 64", Test::Requests("mesh-requests")),
    ("mesh, connections x 64", Test::Connections("mesh-connections")),
    ("mesh, UDP, 64 flows x 1", Test::Datagrams("mesh-udp")),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "m-client")?;
    let mut cluster = Cluster::empty(lab, "m-")?;
    cluster.join(lab, &Setup::default())?;
    cluster.join(lab, &Setup::default())?;
    let kernel = plain_vxlan::mesh(lab, &client)?;
    let mut all = ours(&cluster, &client)?;
    let mut programs = Vec::new();
    let lost = not_kept(&cluster, &client)?;
    for server in [&all[0].server, &lost.server, &kernel.server] {
        programs.extend([Programs::tcp(server)?, Programs::udp(server)?]);
    }
    all.extend([lost, kernel]);
    all.iter().try_for_each(Pair::ready)?;
    let pairs: Vec<Pair> = all.into_iter().filter(|pair| plan.wants(pair.name)).collect();
    plan.interleave(results, &pairs, TESTS, |pair| pair.name, Pair::measure);
    drop(programs);
    cluster.nodes.iter().try_for_each(|node| netd::end(node))
}

fn ours(cluster: &Cluster, client: &Place) -> Result<Vec<Pair>> {
    let [one, two] = &cluster.nodes[..] else { bail!("two nodes") };
    one.netd("network create app -d overlay")?;
    let plain = format!("-p {HTTP}:{HTTP} -p {BULK}:{BULK} -p {ECHO}:{ECHO}/udp");
    let told = |version: u16, port: u16| {
        format!("-p published={port},target={HTTP_PROXY},proxy-protocol=v{version}")
    };
    let (v1, v2) = (told(1, FIRST), told(2, FIRST + 1));
    one.netd(&format!("service create web --network app {plain} {v1} {v2}"))?;
    eventually(Duration::from_secs(10), "node2 knows the service", || two.inspect("service", "web"))?;
    let server = two.create("web1", "--network app --service web")?;
    let pair = |name: Name, node: &Node, ports: Ports| {
        let (client, server, address) = (client.clone(), server.clone(), node.host.v4.into());
        Pair { name, client, server, address, ports }
    };
    // Only nginx understands a PROXY header.
    let header = |http: u16| Ports { http, others: None };
    Ok(vec![
        pair(NETD, one, Ports::OWN),
        pair(NETD_ONE_NODE, two, Ports::OWN),
        pair(NETD_PROXY_V1, one, header(FIRST)),
        pair(NETD_PROXY_V2, one, header(FIRST + 1)),
    ])
}

fn not_kept(cluster: &Cluster, client: &Place) -> Result<Pair> {
    let [one, two] = &cluster.nodes[..] else { bail!("two nodes") };
    let [http, bulk, echo] = [FIRST + 2, FIRST + 3, FIRST + 4];
    let ports = format!("-p {http}:{HTTP} -p {bulk}:{BULK} -p {echo}:{ECHO}/udp");
    one.netd(&format!("service create plain --network app {ports}"))?;
    eventually(Duration::from_secs(10), "node2 knows the service", || two.inspect("service", "plain"))?;
    two.netd("network create away")?;
    let server = two.create("plain1", "--network away --network app --service plain")?;
    Ok(Pair {
        name: NETD_NOT_KEPT,
        client: client.clone(),
        server,
        address: one.host.v4.into(),
        ports: Ports { http, others: Some((bulk, echo)) },
    })
}

/// The first of the ports that are not the programs' own.
const FIRST: u16 = 8101;
