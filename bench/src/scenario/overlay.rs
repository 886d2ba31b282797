//! Container to container on two nodes: over netd's overlay, and over a plain bridge and VXLAN device with a static
//! forwarding table. The nodes hang off one switch.

use std::time::Duration;

use anyhow::{Result, bail};
use netd_tests::{Cluster, Lab, Setup, eventually};

use crate::figures::NETD;
use crate::measure::Results;
use crate::programs::Programs;
use crate::rival::{netd, plain_vxlan};
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Ports, Test};

const TESTS: &[(&str, Test)] = &[
    ("overlay, bulk, 1 stream", Test::Bulk("", "overlay-1")),
    ("overlay, bulk, 8 streams", Test::Bulk("-P 8", "overlay-8")),
    ("overlay, keep-alive x 64", Test::Requests("overlay-requests")),
    ("overlay, connections x 64", Test::Connections("overlay-connections")),
    ("overlay, UDP, 64 flows x 1", Test::Datagrams("overlay-udp")),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let mut cluster = Cluster::empty(lab, "o-")?;
    cluster.join(lab, &Setup::default())?;
    cluster.join(lab, &Setup::default())?;
    let all = [ours(&cluster)?, plain_vxlan::pair(lab)?];
    let pairs: Vec<Pair> = all.into_iter().filter(|pair| plan.wants(pair.name)).collect();
    let mut programs = Vec::new();
    for pair in &pairs {
        pair.ready()?;
        programs.extend([Programs::tcp(&pair.server)?, Programs::udp(&pair.server)?]);
    }
    plan.interleave(results, &pairs, TESTS, |pair| pair.name, Pair::measure);
    drop(programs);
    cluster.nodes.iter().try_for_each(|node| netd::end(node))
}

fn ours(cluster: &Cluster) -> Result<Pair> {
    let [one, two] = &cluster.nodes[..] else { bail!("two nodes") };
    one.netd("network create app -d overlay")?;
    eventually(Duration::from_secs(10), "node2 knows the network", || two.inspect("network", "app"))?;
    let (client, server) = (one.create("near", "--network app")?, two.create("far", "--network app")?);
    let address = two.address("far", "app")?;
    Ok(Pair { name: NETD, client, server, address, ports: Ports::OWN })
}
