//! The store itself: restarted, hung, away for long, and with records of other versions in it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netd_tests::eventually::throughout;
use netd_tests::load::{Offer, Steady};
use netd_tests::query::Loop;
use netd_tests::{Backend, eventually, scenario};

use crate::stage::{SOON, everybody, has_ready, know, resolves, stage};

#[test]
fn etcd_killed_and_started_again_is_not_noticed_by_traffic() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let client = it.node(1).create("client", "--network app")?;
        resolves(&client, "web", 1)?;
        let (loads, queries) = (it.loads(&[1, 3], 60)?, Loop::start(&client, "tasks.web")?);
        it.cluster.etcd.kill()?;
        loads.iter().try_for_each(|load| load.more(60))?;
        it.cluster.etcd.restart()?;
        // It answers others before this node has tried again.
        let _third = eventually(Duration::from_secs(10), "the store is in reach again", || {
            Backend::start(it.node(3), "web3", "--network app --service web")
        })?;
        everybody(&it.cluster, "web", 3)?;
        // It hangs, with its connections open, for longer than a lease.
        it.cluster.etcd.freeze()?;
        loads.iter().try_for_each(|load| load.more(7 * 60))?;
        it.cluster.etcd.thaw()?;
        everybody(&it.cluster, "web", 3)?;
        loads.iter().try_for_each(|load| load.more(60))?;
        queries.finish()?;
        loads.into_iter().try_for_each(|load| load.finish()?.flawless(400).map(drop))
    });
}

#[test]
fn an_etcd_that_hangs_holds_up_nobody_who_does_without_it() {
    scenario(|lab| {
        let it = stage(lab, 1, "")?;
        let node = it.node(1);
        node.create("here", "--network bridge")?;
        it.cluster.etcd.freeze()?;
        std::thread::scope(|scope| -> Result<()> {
            let waiting = [
                ("/v1/services", r#"{"Name":"late","Network":"app"}"#),
                ("/v1/sandboxes", r#"{"Name":"late","Networks":[{"Network":"app"}]}"#),
                ("/v1/networks", r#"{"Name":"late","Driver":"overlay"}"#),
            ];
            let ask = |(path, body)| scope.spawn(move || node.http("POST", path, body));
            let waiting: Vec<_> = waiting.map(ask).into();
            let mut local = 0;
            // A good deal longer than anybody waits for etcd.
            throughout(Duration::from_secs(4), "local requests are answered", || {
                let begun = Instant::now();
                for path in ["/v1/sandboxes", "/v1/sandboxes/here", "/v1/status"] {
                    ensure!(node.http("GET", path, "")?.status == 200, "{path}");
                }
                local += 1;
                let body = format!(r#"{{"Name":"local{local}"}}"#);
                let made = node.http("POST", "/v1/sandboxes", &body)?;
                ensure!(made.status == 201, "a sandbox on the host's own network: {made:?}");
                ensure!(node.http("DELETE", &format!("/v1/sandboxes/local{local}"), "")?.status < 300);
                ensure!(begun.elapsed() < Duration::from_millis(1500), "all that took {:?}", begun.elapsed());
                Ok(())
            })?;
            for asked in waiting {
                let answer = asked.join().expect("it does not panic")?;
                ensure!(answer.status == 503 && answer.body.contains("etcd"), "{answer:?}");
            }
            Ok(())
        })?;
        let begun = Instant::now();
        node.try_netd("service create late --network app")?.refused(1, "etcd")?;
        ensure!(begun.elapsed() < Duration::from_secs(1), "known to be unwell, it is not waited for");
        // What leaves the cluster's network leaves it here, and is told when there is somebody to tell.
        node.netd("sandbox rm -f web1")?;
        it.cluster.etcd.thaw()?;
        everybody(&it.cluster, "web", 0)?;
        eventually(SOON, "services are made again", || {
            let made = node.try_netd("service create late --network app")?;
            ensure!(made.code == 0, "{}", made.stderr);
            Ok(())
        })
    });
}

#[test]
fn nodes_serve_what_they_knew_for_as_long_as_etcd_is_away_and_through_restarts() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let client = it.node(3).create("client", "--network app")?;
        resolves(&client, "tasks.web", 2)?;
        let loads = it.loads(&[1, 3], 60)?;
        it.cluster.etcd.stop()?;
        // Three times a lease; no clock runs after that.
        throughout(Duration::from_secs(16), "nothing is forgotten", || {
            has_ready(it.node(3), "web", 2)?;
            resolves(&client, "tasks.web", 2).map(drop)
        })?;
        for node in &it.cluster.nodes {
            node.kill()?;
            node.start()?;
        }
        loads.iter().try_for_each(|load| load.more(60))?;
        it.node(1).try_netd("sandbox create far --network app")?.refused(1, "store")?;
        for load in loads {
            load.finish()?.flawless(500)?;
        }
        // Even when nothing is left of either process: what was known is on the disk.
        for node in &it.cluster.nodes {
            node.kill()?;
            node.kill_dataplane()?;
            node.start()?;
        }
        has_ready(it.node(3), "web", 2)?;
        let to = (resolves(&client, "web", 1)?[0], 7000).into();
        let load = Steady::start(&client, Offer::tcp(to, 30))?;
        load.more(60)?;
        it.cluster.etcd.restart()?;
        eventually(SOON, "node3 is with the store again", || {
            let third = it.node(3).try_netd("sandbox create third --network app")?;
            ensure!(third.code == 0, "{}", third.stderr);
            Ok(())
        })?;
        load.finish()?.flawless(60).map(drop)
    });
}

#[test]
fn an_etcd_that_has_lost_its_data_is_not_joined_and_gets_it_back() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let client = it.node(3).create("client", "--network app")?;
        let vip = resolves(&client, "web", 1)?;
        let loads = it.loads(&[1, 3], 60)?;
        it.cluster.etcd.stop()?;
        it.cluster.etcd.wipe()?;
        it.cluster.etcd.restart()?;
        it.cluster.everywhere(SOON, "each node says what has happened", |node| {
            let told = node.try_netd("doctor")?.stdout;
            ensure!(
                told.contains("none of this cluster's records") && told.contains("cluster restore"),
                "{told}"
            );
            let standing = node.http("GET", "/v1/status", "")?.body;
            ensure!(standing.contains(r#""estranged""#), "{standing}");
            Ok(())
        })?;
        it.node(2).kill()?;
        it.node(2).start()?;
        // Longer than a lease.
        throughout(Duration::from_secs(7), "everybody serves what was known", || {
            it.cluster.nodes.iter().try_for_each(|node| has_ready(node, "web", 2))?;
            ensure!(resolves(&client, "web", 1)? == vip);
            resolves(&client, "tasks.web", 2).map(drop)
        })?;
        it.node(1)
            .try_netd("network create other -d overlay")?
            .refused(1, "none of this cluster's records")?;
        ensure!(it.cluster.etcd.keys("netd/v1/")?.is_empty(), "nobody has joined it");
        it.node(1).netd("cluster restore")?;
        it.cluster.everywhere(SOON, "each node is a member again", |node| {
            let standing = node.http("GET", "/v1/status", "")?.body;
            ensure!(standing.contains(r#""member""#) && !standing.contains(r#""owed""#), "{standing}");
            Ok(())
        })?;
        it.node(1).try_netd("cluster restore")?.refused(1, "nothing to restore")?;
        let _third = Backend::start(it.node(3), "web3", "--network app --service web")?;
        everybody(&it.cluster, "web", 3)?;
        ensure!(resolves(&client, "web", 1)? == vip, "its address is what it was");
        it.node(2).netd("service create late --network app")?;
        know(&it.cluster, "service", "late")?;
        // Longer than a lease: whoever was not back by then would be missed.
        loads.iter().try_for_each(|load| load.more(7 * 60))?;
        everybody(&it.cluster, "web", 3)?;
        loads.into_iter().try_for_each(|load| load.finish()?.flawless(600).map(drop))
    });
}

#[test]
fn an_etcd_restored_from_a_snapshot_is_gone_on_with_from_there() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let client = it.node(3).create("client", "--network app")?;
        let vip = resolves(&client, "web", 1)?;
        let mut loads = it.loads(&[1, 3], 60)?;
        loads.push(Steady::start(&client, Offer::tcp((vip[0], 7000).into(), 60))?);
        let snapshot = it.cluster.etcd.save()?;
        // What the snapshot does not know: a network with a sandbox, a service, a backend, and an address.
        it.node(1).netd("network create later -d overlay")?;
        it.node(1).create("stray", "--network later")?;
        it.node(2).netd("service create newer --network app")?;
        let _third = Backend::start(it.node(3), "web3", "--network app --service web")?;
        it.node(2).create("newcomer", "--network app")?;
        let own: Ipv4Addr = it.node(2).address("newcomer", "app")?;
        everybody(&it.cluster, "web", 3)?;
        know(&it.cluster, "service", "newer")?;
        it.cluster.etcd.stop()?;
        it.cluster.etcd.wipe()?;
        it.cluster.etcd.restore(&snapshot)?;
        it.cluster.etcd.restart()?;
        it.cluster.everywhere(SOON, "each node goes on by itself", |node| {
            let standing = node.http("GET", "/v1/status", "")?.body;
            ensure!(standing.contains(r#""member""#) && !standing.contains(r#""owed""#), "{standing}");
            node.try_netd("service inspect newer")?.refused(1, "newer")?;
            node.try_netd("network inspect later")?.refused(1, "later")?;
            Ok(())
        })?;
        // Sandboxes are their node's, whatever the store knew of them.
        everybody(&it.cluster, "web", 3)?;
        ensure!(resolves(&client, "newcomer", 1)? == [own], "its address is its own");
        ensure!(resolves(&client, "web", 1)? == vip);
        client.sh(&format!("ping -c1 -W2 {own}"))?;
        let others = (1..=4).map(|number| {
            let (node, name) = (it.node(1 + number % 3), format!("other{number}"));
            node.create(&name, "--network app")?;
            node.address::<Ipv4Addr>(&name, "app")
        });
        let others = others.collect::<Result<Vec<_>>>()?;
        ensure!(!others.contains(&own), "no address is given out twice: {own}, {others:?}");
        it.node(1).netd("sandbox inspect stray")?;
        it.node(3).netd("service create newer --network app")?;
        it.node(2).netd("network create later -d overlay")?;
        know(&it.cluster, "service", "newer")?;
        know(&it.cluster, "network", "later")?;
        let again = it.node(1).create("again", "--network later")?;
        it.node(2).create("partner", "--network later")?;
        let partner = resolves(&again, "partner", 1)?[0];
        again.sh(&format!("ping -c1 -W2 {partner}"))?;
        it.node(1).netd("sandbox rm stray")?;
        // Longer than a lease: whoever was not back by then would be missed.
        loads.iter().try_for_each(|load| load.more(7 * 60))?;
        everybody(&it.cluster, "web", 3)?;
        loads.into_iter().try_for_each(|load| load.finish()?.flawless(600).map(drop))
    });
}

#[test]
fn records_of_a_newer_version_are_read_as_far_as_they_are_known() {
    scenario(|lab| {
        let it = stage(lab, 1, "")?;
        // A record with more in it than this version knows, and one of a kind that it does not know.
        let key = it.cluster.etcd.keys("netd/v1/service/")?.pop().expect("the service");
        let value = it.cluster.etcd.ctl(&format!("get --print-value-only {key}"))?.stdout;
        let newer = value.trim().replacen('{', r#"{"of-a-newer-version":{"a":1},"#, 1);
        ensure!(newer.len() > value.trim().len(), "the record is JSON: {value}");
        it.cluster.etcd.put(&key, &newer)?;
        it.cluster.etcd.put("netd/v1/novelty/one", "{}")?;
        it.cluster.etcd.put("netd/v1/service/broken", "no record at all")?;
        let second = Backend::start(it.node(2), "web2", "--network app --service web")?;
        everybody(&it.cluster, "web", 2)?;
        for node in &it.cluster.nodes {
            node.kill()?;
            node.start()?;
        }
        everybody(&it.cluster, "web", 2)?;
        ensure!(it.cluster.etcd.keys("netd/v1/novelty/")?.len() == 1, "what is not understood is left alone");
        second.remove()?;
        everybody(&it.cluster, "web", 1)
    });
}

#[test]
fn two_hundred_services_made_at_once_are_there_on_every_node() {
    scenario(|lab| {
        let it = stage(lab, 0, "")?;
        it.node(1).netd("network create wide -d overlay --subnet 10.61.0.0/20")?;
        know(&it.cluster, "network", "wide")?;
        std::thread::scope(|scope| -> Result<()> {
            let maker = |first: usize| {
                let nodes = &it.cluster.nodes;
                scope.spawn(move || -> Result<()> {
                    for number in (first..200).step_by(6) {
                        let body = format!(r#"{{"Name":"s{number}","Network":"wide"}}"#);
                        let answer = nodes[number % 3].http("POST", "/v1/services", &body)?;
                        ensure!(answer.status < 300, "{answer:?}");
                    }
                    Ok(())
                })
            };
            let makers: Vec<_> = (0..6).map(maker).collect();
            makers.into_iter().try_for_each(|maker| maker.join().expect("it does not panic"))
        })?;
        it.cluster.everywhere(Duration::from_secs(10), "201 services", |node| {
            let listed = node.place.look("netd service ls --format json")?;
            let listed: serde_json::Value = serde_json::from_str(&listed)?;
            let mut vips: Vec<_> =
                listed.as_array().into_iter().flatten().map(|one| one["VIP"].clone()).collect();
            vips.sort_by_key(ToString::to_string);
            vips.dedup();
            ensure!(vips.len() == 201, "{} VIPs", vips.len());
            Ok(())
        })?;
        let _backend = Backend::start(it.node(1), "one", "--network wide --service s199")?;
        let client = it.node(3).create("client", "--network wide")?;
        resolves(&client, "s0", 1)?;
        let to = resolves(&client, "s199", 1)?[0];
        eventually(Duration::from_secs(5), "the last of them answers", || {
            netd_tests::backend::ask(&client, (to, 7000)).map(drop)
        })
    });
}
