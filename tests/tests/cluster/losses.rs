//! Backends, daemons and whole nodes lost or replaced under a steady load through the others.

use std::time::{Duration, Instant};

use anyhow::ensure;
use netd_tests::load::{Offer, Steady};
use netd_tests::{Backend, Place, refusal, scenario};

use crate::stage::{SOON, everybody, has_ready, resolves, stage};

#[test]
fn replacing_all_backends_and_killing_one_fails_no_connection_through_any_node() {
    scenario(|lab| {
        let mut it = stage(lab, 3, "")?;
        let loads = it.loads(&[1, 2, 3], 60)?;
        let mut replaced = Vec::new();
        for (number, old) in (1..).zip(std::mem::take(&mut it.backends)) {
            let name = format!("new{number}");
            replaced.push(Backend::start(it.node(number), &name, "--network app --service web")?);
            everybody(&it.cluster, "web", 4)?;
            old.retire("web")?;
            everybody(&it.cluster, "web", 3)?;
        }
        loads.iter().try_for_each(|load| load.more(30))?;
        replaced[2].kill()?;
        let killed = Instant::now();
        loads.iter().try_for_each(|load| load.more(120))?;
        for load in loads {
            let tally = load.finish()?;
            tally.since(killed).flawless(100)?;
            ensure!(tally.failed() <= tally.during(killed).attempts().len(), "{tally}");
            let last = tally.since(killed).by();
            ensure!(last.keys().eq(["new1", "new2"]), "{last:?}");
        }
        Ok(())
    });
}

#[test]
fn endpoints_that_go_down_to_the_last_cut_nobody_through_any_node() {
    scenario(|lab| {
        let it = stage(lab, 0, "--drain 3s")?;
        let start =
            |number| Backend::start(it.node(number), &format!("web{number}"), "--network app --service web");
        let _both = [start(2)?, start(3)?];
        everybody(&it.cluster, "web", 2)?;
        let client = it.node(1).create("client", "--network app")?;
        let vip = resolves(&client, "web", 1)?[0];
        // Some connection is open at any time, so that the last endpoint goes when its time is over.
        let load = |from: &Place, to| Steady::start(from, Offer::slow(to, 60, 60));
        let loads = [
            load(&client, (vip, 7000).into())?,
            load(&it.outsider, it.door(1))?,
            load(&it.outsider, it.door(2))?,
            load(&it.outsider, it.door(3))?,
        ];
        loads.iter().try_for_each(|load| load.more(30))?;
        it.node(2).netd("sandbox rm web2")?;
        everybody(&it.cluster, "web", 1)?;
        loads.iter().try_for_each(|load| load.more(30))?;
        let alone = Instant::now();
        it.node(3).netd("sandbox rm web3")?;
        loads.iter().try_for_each(|load| load.more(30))?;
        for load in loads {
            let tally = load.finish()?;
            println!("{tally}");
            tally.cut_nobody()?;
            let under_way = tally.during(alone).attempts().len();
            ensure!(tally.before(alone).failed() <= under_way, "another was there: {tally}");
        }
        let doors = [(&client, (vip, 7000).into()), (&*it.outsider, it.door(1)), (&*it.outsider, it.door(3))];
        doors.into_iter().try_for_each(|(from, to): (_, std::net::SocketAddr)| refusal::of_tcp(from, to))
    });
}

#[test]
fn a_node_that_dies_is_missed_for_three_seconds_at_most() {
    scenario(|lab| {
        let mut it = stage(lab, 3, "")?;
        let client = it.node(1).create("client", "--network app")?;
        let mut loads = it.loads(&[1, 2], 80)?;
        let vip = resolves(&client, "web", 1)?[0];
        loads.push(Steady::start(&client, Offer::tcp((vip, 7000).into(), 80))?);
        loads.iter().try_for_each(|load| load.more(80))?;
        it.cluster.kill(it.node(3))?;
        let killed = Instant::now();
        // Longer than the lease of the dead.
        loads.iter().try_for_each(|load| load.more(8 * 80))?;
        resolves(&client, "tasks.web", 2)?;
        [1, 2].iter().try_for_each(|node| has_ready(it.node(*node), "web", 2))?;
        for load in loads {
            let tally = load.finish()?;
            println!(
                "through the survivors: {tally}; the last failure {:?} after",
                tally.troubled_for(killed)
            );
            tally.since(killed + Duration::from_secs(3)).flawless(300)?;
            let under_way = tally.during(killed).attempts().len();
            ensure!(tally.before(killed).failed() <= under_way, "{tally}");
        }
        // Its power comes back: so do its records; what ran in its sandboxes has to be started again.
        it.cluster.revive(it.node(3))?;
        it.backends[2].again()?;
        everybody(&it.cluster, "web", 3)?;
        resolves(&client, "tasks.web", 3)?;
        let load = Steady::start(&it.outsider, Offer::tcp(it.door(1), 60))?;
        load.more(60)?;
        let tally = load.finish()?;
        ensure!(tally.failed() == 0 && tally.by().len() == 3, "{tally}");
        Ok(())
    });
}

#[test]
fn restarting_every_daemon_in_turn_and_all_at_once_fails_nothing() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let loads = it.loads(&[1, 2, 3], 60)?;
        loads.iter().try_for_each(|load| load.more(30))?;
        for node in &it.cluster.nodes {
            node.kill()?;
            loads.iter().try_for_each(|load| load.more(30))?;
            node.start()?;
            loads.iter().try_for_each(|load| load.more(10))?;
        }
        it.cluster.nodes.iter().try_for_each(|node| node.kill())?;
        // Longer than their leases: none is alive to the store, all serve.
        loads.iter().try_for_each(|load| load.more(7 * 60))?;
        it.cluster.nodes.iter().try_for_each(|node| node.launch())?;
        it.cluster.nodes.iter().try_for_each(|node| node.ready())?;
        // Longer than a lease: by then it is believed who is not back.
        loads.iter().try_for_each(|load| load.more(7 * 60))?;
        everybody(&it.cluster, "web", 2)?;
        loads.into_iter().try_for_each(|load| load.finish()?.flawless(900).map(drop))?;
        it.cluster.everywhere(SOON, "changes reach every node again", |node| has_ready(node, "web", 2))
    });
}

#[test]
fn a_data_plane_that_dies_is_passed_by_until_it_is_back() {
    scenario(|lab| {
        let it = stage(lab, 3, "")?;
        let loads = it.loads(&[1, 2], 80)?;
        loads.iter().try_for_each(|load| load.more(40))?;
        it.node(3).kill_dataplane()?;
        let killed = Instant::now();
        loads.iter().try_for_each(|load| load.more(200))?;
        for load in loads {
            let tally = load.finish()?;
            tally.since(killed).flawless(150)?;
            ensure!(tally.failed() <= tally.during(killed).attempts().len(), "{tally}");
        }
        Ok(())
    });
}
