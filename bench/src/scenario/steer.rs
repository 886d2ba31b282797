//! The ways by which a published port is caught, beside one another: a socket of its own, BPF `sk_lookup`, nftables'
//! tproxy. Which of the last two serves a runtime's ports is netd's choice; these figures are why.

use std::time::Duration;

use anyhow::Result;
use netd_tests::{Host, Lab};

use crate::figures::{NETD, NETD_SK_LOOKUP, NETD_TPROXY};
use crate::load::udp::Exchange;
use crate::load::{iperf, wrk};
use crate::measure::{FigureId, Results};
use crate::programs::Programs;
use crate::rival::netd::{Netd, Way};
use crate::rival::{Contender, Protocol};
use crate::scenario::Plan;
use crate::site::{self, Node};

#[derive(Clone, Copy)]
enum Test {
    Connections,
    Requests,
    Bulk,
    Datagrams,
}

const TESTS: &[(&str, Test)] = &[
    ("ways, connections x 64", Test::Connections),
    ("ways, keep-alive x 64", Test::Requests),
    ("ways, bulk, 1 stream", Test::Bulk),
    ("ways, UDP, 64 flows x 1", Test::Datagrams),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "s-client")?;
    let ways = [(NETD, Way::Bind), (NETD_SK_LOOKUP, Way::SkLookup), (NETD_TPROXY, Way::Tproxy)];
    let (mut all, mut programs, mut contenders) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (name, way)) in (41..).zip(ways).filter(|(_, (name, _))| plan.wants(name)) {
        let node = Node::new(lab, &client, &format!("s-node{number}"), number)?;
        let netd = Netd::publish(&node, &[Protocol::Tcp, Protocol::Udp], way)?;
        [&netd.sandbox, &node.host].into_iter().try_for_each(site::cubic)?;
        programs.extend([Programs::tcp(&netd.sandbox)?, Programs::udp(&netd.sandbox)?]);
        let contender = Contender { name, ..netd.contender()? };
        contender.wait(&client, Protocol::Tcp)?;
        contenders.push(contender);
        all.push(netd);
    }
    site::cubic(&client.place)?;
    plan.interleave(
        results,
        &contenders,
        TESTS,
        |contender| contender.name,
        |contender, test, seconds| measure(&client, contender, test, seconds),
    );
    drop((contenders, programs));
    all.into_iter().try_for_each(Netd::end)
}

fn measure(client: &Host, contender: &Contender, test: Test, seconds: u64) -> Result<Vec<(FigureId, f64)>> {
    let requests = |close| wrk::run(client, contender.doors.http, seconds, 64, close);
    Ok(vec![match test {
        Test::Connections => ("steer-connect", requests(true)?.rate),
        Test::Requests => ("steer-keepalive", requests(false)?.rate),
        Test::Bulk => ("steer-bulk", iperf::run(client, contender.doors.bulk, seconds, "")?.gigabits),
        Test::Datagrams => {
            let time = Duration::from_secs(seconds);
            let exchange =
                Exchange { to: contender.doors.echo, flows: 64, outstanding: 1, payload: 64, time };
            ("steer-udp", client.enter(|| exchange.run())??.rate())
        }
    }])
}
