//! A node that nobody hears of for longer than its lease, because its daemon or its way to etcd is away: it goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::cluster::Node;
use netd_tests::load::{Offer, Steady};
use netd_tests::{eventually, scenario};

use crate::stage::{Stage, everybody, resolves, stage};

/// Longer than the lease.
const LATER: Duration = Duration::from_secs(15);

fn is_down(of: &Node, name: &str) -> Result<()> {
    eventually(LATER, &format!("{name} is down"), || {
        let seen = of.inspect("node", name)?;
        ensure!(seen["State"] == "down", "{seen}");
        Ok(())
    })
}

/// Clients of node3, which has no backend of its own: from outside, and a sandbox that asks the service and another sandbox.
fn clients(it: &Stage) -> Result<Vec<Steady>> {
    let inside = it.node(3).create("inside", "--network app")?;
    let vip = resolves(&inside, "web", 1)?[0];
    let straight = resolves(&inside, "web1", 1)?[0];
    Ok(vec![
        Steady::start(&it.outsider, Offer::tcp(it.door(3), 40))?,
        Steady::start(&it.outsider, Offer::udp(it.door(3), 20))?,
        Steady::start(&inside, Offer::tcp((vip, 7000).into(), 40))?,
        Steady::start(&inside, Offer::tcp((straight, 7000).into(), 20))?,
    ])
}

#[test]
fn a_node_whose_daemon_is_away_for_longer_than_its_lease_serves_all_its_clients() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let loads = clients(&it)?;
        loads.iter().try_for_each(|load| load.more(20))?;
        it.node(3).kill()?;
        is_down(it.node(1), "node3")?;
        is_down(it.node(2), "node3")?;
        loads.iter().try_for_each(|load| load.more(80))?;
        // What a node knows of one that is away outlives its own daemon, too.
        it.node(2).kill()?;
        it.node(2).start()?;
        loads.iter().take(3).try_for_each(|load| load.more(80))?;
        it.node(3).start()?;
        everybody(&it.cluster, "web", 2)?;
        loads.iter().try_for_each(|load| load.more(20))?;
        loads.into_iter().try_for_each(|load| load.finish()?.flawless(100).map(drop))
    });
}

#[test]
fn a_node_without_the_store_serves_its_clients_from_backends_of_others() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let loads = clients(&it)?;
        loads.iter().try_for_each(|load| load.more(20))?;
        it.cluster.cut_from_etcd(it.node(3))?;
        is_down(it.node(1), "node3")?;
        loads.iter().try_for_each(|load| load.more(80))?;
        it.cluster.cuts.heal()?;
        loads.iter().try_for_each(|load| load.more(20))?;
        loads.into_iter().try_for_each(|load| load.finish()?.flawless(100).map(drop))
    });
}

#[test]
fn a_node_that_was_removed_while_it_was_away_is_not_heard() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        it.node(3).kill()?;
        is_down(it.node(1), "node3")?;
        let ask = || Steady::start(&it.outsider, Offer::tcp(it.door(3), 40));
        let load = ask()?;
        load.more(20)?;
        load.finish()?.flawless(20)?;
        it.node(1).netd("node rm node3")?;
        it.node(2).inspect("node", "node3").context("it was a member")?;
        eventually(LATER, "nothing comes through", || {
            let load = ask()?;
            load.more(4)?;
            let tally = load.finish()?;
            ensure!(tally.answered() == 0, "{tally}");
            Ok(())
        })
    });
}
