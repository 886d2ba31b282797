//! Container to container on one host, no port published: over a plain bridge as Docker makes it, over a network of netd
//! that leads nowhere else (its packets may be larger than 64 KiB), and over one with a way out that takes 64 KiB.

use std::net::Ipv4Addr;

use anyhow::Result;
use netd_tests::{Host, Lab};

use crate::figures::{NETD, NETD_WAY_OUT, PLAIN_BRIDGE};
use crate::measure::{Name, Results};
use crate::programs::Programs;
use crate::rival::netd;
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Ports, Test};
use crate::site::{self, Node};

const TESTS: &[(&str, Test)] = &[
    ("neighbours, bulk, 1 stream", Test::Bulk("", "east-west-1")),
    ("neighbours, bulk, 8 streams", Test::Bulk("-P 8", "east-west-8")),
    ("neighbours, keep-alive x 64", Test::Requests("east-west-requests")),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "e-client")?;
    let ours = Node::new(lab, &client, "e-netd", 31)?;
    let daemon = netd::daemon(&ours, "")?;
    daemon.netd("network create inside --internal")?;
    daemon.netd("network create lan")?;
    let pair = |name: Name, network: &str| -> Result<Pair> {
        let (near, far) = (format!("{network}-a"), format!("{network}-b"));
        let place = daemon.create(&near, &format!("--network {network}"))?;
        let server = daemon.create(&far, &format!("--network {network}"))?;
        Ok(Pair { name, client: place, server, address: daemon.address(&far, network)?, ports: Ports::OWN })
    };
    let all = [pair(NETD, "inside")?, plain(lab)?, pair(NETD_WAY_OUT, "lan")?];
    let pairs: Vec<Pair> = all.into_iter().filter(|pair| plan.wants(pair.name)).collect();
    let mut programs = Vec::new();
    for pair in &pairs {
        pair.ready()?;
        programs.push(Programs::tcp(&pair.server)?);
    }
    plan.interleave(results, &pairs, TESTS, |pair| pair.name, Pair::measure);
    drop(programs);
    netd::end(&daemon)
}

/// Two boxes on a bridge of a node, with the kernel's defaults.
fn plain(lab: &Lab) -> Result<Pair> {
    let node = lab.host("e-plain")?;
    site::batch(&node, "link add box0 type bridge\nlink set box0 up")?;
    let address = |number| Ipv4Addr::new(10, 83, 0, number);
    let join = |number: u8| -> Result<Host> {
        let name = format!("e-box{number}");
        let host = lab.host(&name)?;
        let link = format!(
            "link add box{number} mtu 1500 type veth peer name box netns {name}
             link set box{number} master box0 up"
        );
        site::batch(&node, &link)?;
        site::batch(&host, &format!("addr add {}/24 dev box\nlink set box up", address(number)))?;
        Ok(host)
    };
    let (client, server) = (join(1)?.place, join(2)?.place);
    Ok(Pair { name: PLAIN_BRIDGE, client, server, address: address(2).into(), ports: Ports::OWN })
}
