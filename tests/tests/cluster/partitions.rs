//! Networks that are cut: a node without the store, a node without its peers, a node without anybody.

use std::time::{Duration, Instant};

use anyhow::ensure;
use netd_tests::load::{Offer, Steady};
use netd_tests::{Backend, scenario};

use crate::stage::{everybody, has_ready, stage};

#[test]
fn a_node_without_the_store_serves_and_says_what_it_cannot_do() {
    scenario(|lab| {
        let it = stage(lab, 3, "")?;
        let (cut, loads) = (it.node(3), it.loads(&[1, 3], 60)?);
        loads.iter().try_for_each(|load| load.more(30))?;
        it.cluster.cut_from_etcd(cut)?;
        // Its lease ends: to the others it is gone, and nobody has to wait for that.
        [1, 2].iter().try_for_each(|node| {
            netd_tests::eventually(Duration::from_secs(15), "its endpoint leaves the others", || {
                has_ready(it.node(*node), "web", 2)
            })
        })?;
        loads.iter().try_for_each(|load| load.more(60))?;
        // What is its own goes on.
        cut.netd("network create here")?;
        cut.create("local", "--network here")?;
        cut.netd("sandbox rm local")?;
        cut.try_netd("sandbox create far --network app")?.refused(1, "store")?;
        cut.try_netd("network create far -d overlay")?.refused(1, "store")?;
        ensure!(!cut.netd("sandbox ls")?.stdout.contains("far"), "a refusal changes nothing");
        // What goes while it is alone is settled later.
        it.node(1).netd("sandbox create near --network app")?;
        it.cluster.cuts.heal()?;
        everybody(&it.cluster, "web", 3)?;
        cut.create("far", "--network app")?;
        loads.iter().try_for_each(|load| load.more(30))?;
        for load in loads {
            load.finish()?.flawless(200)?;
        }
        Ok(())
    });
}

#[test]
fn a_node_without_its_peers_is_passed_by_and_comes_back() {
    scenario(|lab| {
        let it = stage(lab, 3, "")?;
        let loads = it.loads(&[1, 2], 80)?;
        loads.iter().try_for_each(|load| load.more(40))?;
        it.cluster.cut_from_peers(it.node(3))?;
        let cut = Instant::now();
        loads.iter().try_for_each(|load| load.more(6 * 80))?;
        // Its own clients are served by its own backend.
        let alone = Steady::start(&it.outsider, Offer::tcp(it.door(3), 60))?;
        alone.more(4 * 60)?;
        it.cluster.cuts.heal()?;
        let tally = alone.finish()?;
        let last = tally.since(cut + Duration::from_secs(3));
        ensure!(last.failed() == 0, "{tally}");
        for load in loads {
            let tally = load.finish()?;
            println!("through the others: {tally}; the last failure {:?} after", tally.troubled_for(cut));
            tally.since(cut + Duration::from_secs(3)).flawless(200)?;
        }
        let load = Steady::start(&it.outsider, Offer::tcp(it.door(1), 60))?;
        netd_tests::eventually(Duration::from_secs(30), "all three answer through node1 again", || {
            let by = load.so_far().by();
            ensure!(by.len() == 3, "{by:?}");
            Ok(())
        })?;
        load.finish()?.flawless(3).map(drop)
    });
}

#[test]
fn what_leaves_a_node_while_it_is_alone_leaves_the_store_when_it_is_back() {
    scenario(|lab| {
        let mut it = stage(lab, 3, "")?;
        let node = &it.cluster.nodes[2];
        it.cluster.isolate(node)?;
        let gone = it.backends.pop().expect("three");
        gone.remove()?;
        node.kill()?;
        node.launch()?;
        it.cluster.cuts.heal()?;
        node.ready()?;
        everybody(&it.cluster, "web", 2)?;
        let name = it.cluster.etcd.keys("netd/v1/endpoint/")?.len();
        ensure!(name == 2, "{name} endpoints in the store");
        let _again = Backend::start(node, "web3", "--network app --service web")?;
        everybody(&it.cluster, "web", 3)
    });
}
