//! A port of a node that has no backend: the client comes to one node, the container runs on another. netd carries the
//! client's address there in each of its ways; the kernel's road loses it. `one node` is netd's port on the node that has the
//! container: what the hop costs is the difference.

use std::time::Duration;

use anyhow::{Result, bail};
use netd_tests::cluster::Node;
use netd_tests::{Cluster, Lab, Place, Setup, eventually};

use crate::figures::{NETD, NETD_ONE_NODE, NETD_PROXY_V1, NETD_PROXY_V2};
use crate::measure::{Name, Results};
use crate::programs::{BULK, ECHO, HTTP, HTTP_PROXY, Programs};
use crate::rival::{netd, plain_vxlan};
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Test};
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
    for server in [&all[0].server, &kernel.server] {
        programs.extend([Programs::tcp(server)?, Programs::udp(server)?]);
    }
    all.push(kernel);
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
    let pair = |name: Name, node: &Node, http: u16| {
        let (client, server, address) = (client.clone(), server.clone(), node.host.v4.into());
        Pair { name, client, server, address, http }
    };
    Ok(vec![
        pair(NETD, one, HTTP),
        pair(NETD_ONE_NODE, two, HTTP),
        pair(NETD_PROXY_V1, one, FIRST),
        pair(NETD_PROXY_V2, one, FIRST + 1),
    ])
}

/// The first of the ports with a PROXY header.
const FIRST: u16 = 8101;
