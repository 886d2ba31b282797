//! Nodes themselves: listed, drained, taken up again, removed; clocks that are apart; one network of ten.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use netd_tests::load::{Offer, Steady};
use netd_tests::{Backend, Cluster, Setup, eventually, scenario};

use crate::stage::{SOON, everybody, has_ready, know, resolves, stage};

#[test]
fn a_drained_node_gets_no_new_connections_and_an_active_one_does() {
    scenario(|lab| {
        let it = stage(lab, 3, "")?;
        let listed = it.node(2).netd("node ls")?.stdout;
        ensure!(["node1", "node2", "node3"].iter().all(|name| listed.contains(name)), "{listed}");
        let loads = it.loads(&[1, 2, 3], 60)?;
        it.node(1).netd("node drain node2")?;
        it.cluster.everywhere(SOON, "web2 drains", |node| has_ready(node, "web", 2))?;
        let drained = Instant::now();
        loads.iter().try_for_each(|load| load.more(60))?;
        for load in &loads {
            let by = load.so_far().since(drained).by();
            ensure!(by.keys().eq(["web1", "web3"]), "{by:?}");
        }
        it.node(3).netd("node activate node2")?;
        everybody(&it.cluster, "web", 3)?;
        loads.iter().try_for_each(|load| load.more(30))?;
        for load in loads {
            let tally = load.finish()?;
            tally.flawless(100)?;
            ensure!(tally.by().len() == 3, "{tally}");
        }
        Ok(())
    });
}

#[test]
fn a_removed_node_is_forgotten_and_cleans_up_when_it_comes_back() {
    scenario(|lab| {
        let it = stage(lab, 3, "")?;
        it.node(1).try_netd("node rm node3")?.refused(1, "node3")?;
        it.cluster.kill(it.node(3))?;
        eventually(SOON * 2, "node3 is down", || {
            let state = it.node(1).inspect("node", "node3")?["State"].clone();
            ensure!(state == "down", "{state}");
            Ok(())
        })?;
        it.node(1).netd("node rm node3")?;
        for node in [1, 2] {
            eventually(SOON, "it is forgotten", || {
                let listed = it.node(node).netd("node ls")?.stdout;
                ensure!(!listed.contains("node3"), "{listed}");
                has_ready(it.node(node), "web", 2)
            })?;
        }
        it.cluster.revive(it.node(3))?;
        // What runs there goes on, without its place on the cluster's networks.
        eventually(SOON, "it has left the cluster's networks", || {
            let networks = it.node(3).inspect("sandbox", "web3")?["NetworkSettings"]["Networks"].clone();
            ensure!(networks.get("app").is_none(), "{networks}");
            Ok(())
        })?;
        has_ready(it.node(1), "web", 2)
    });
}

#[test]
fn clocks_that_are_minutes_apart_change_nothing() {
    scenario(|lab| {
        // The kernel has no clock of the day for a namespace; what the C library tells a program can be replaced.
        std::fs::write("/run/lab/clock.c", CLOCK)?;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o", "/run/lab/clock.so", "/run/lab/clock.c", "-ldl"])
            .output()?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let cluster = Cluster::skewed(lab, "/run/lab/clock.so", &[0, 600, -600])?;
        let [one, two, three] = &cluster.nodes[..] else { unreachable!("three") };
        let told = |index: usize| -> Result<u64> {
            let events = cluster.nodes[index].netd("status --format json")?.json()?;
            let started = events["started"].as_str().context("a time")?.to_owned();
            let seconds = Command::new("date").args(["-d", &started, "+%s"]).output()?;
            Ok(String::from_utf8_lossy(&seconds.stdout).trim().parse()?)
        };
        ensure!(told(1)? > told(0)? + 500 && told(2)? + 500 < told(0)?, "the clocks are apart");
        one.netd("network create app -d overlay --ipv6")?;
        two.netd("service create web --network app -p published=8080,target=7000 --drain 2s")?;
        know(&cluster, "service", "web")?;
        let start = |node, name| Backend::start(node, name, "--network app --service web");
        let mut backends = vec![start(one, "web1")?, start(two, "web2")?, start(three, "web3")?];
        everybody(&cluster, "web", 3)?;
        let outsider = lab.host("outsider")?;
        let loads: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| Steady::start(&outsider, Offer::tcp((node.host.v4, 8080).into(), 40)))
            .collect::<Result<_>>()?;
        // Longer than a lease, which nobody loses; a drain asked for by another node's clock.
        loads.iter().try_for_each(|load| load.more(6 * 40))?;
        everybody(&cluster, "web", 3)?;
        backends.remove(1).retire("web")?;
        everybody(&cluster, "web", 2)?;
        for load in loads {
            load.finish()?.flawless(200)?;
        }
        cluster.kill(three)?;
        let client = one.create("client", "--network app")?;
        resolves(&client, "tasks.web", 1).map(drop)?;
        cluster.revive(three)
    });
}

/// The time of day moved by CLOCK_SKEW seconds; time since the start is left alone.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, at);
    const char *skew = getenv("CLOCK_SKEW");
    if (id == CLOCK_REALTIME && skew) at->tv_sec += atol(skew);
    return done;
}
"#;

#[test]
fn ten_nodes_agree() {
    scenario(|lab| {
        let cluster = Cluster::with(lab, 10, &Setup::default())?;
        cluster.nodes[0].netd("network create app -d overlay")?;
        know(&cluster, "network", "app")?;
        cluster.nodes[9].netd("service create web --network app -p published=8080,target=7000")?;
        know(&cluster, "service", "web")?;
        let backend = Backend::start(&cluster.nodes[4], "web1", "--network app --service web")?;
        everybody(&cluster, "web", 1)?;
        let outsider = lab.host("outsider")?;
        for node in &cluster.nodes {
            netd_tests::backend::ask(&outsider, (node.host.v4, 8080))?;
        }
        let others = cluster.nodes.iter().map(|node| {
            let name = format!("s-{}", node.host.name);
            Ok((node, name.clone(), node.create(&name, "--network app")?))
        });
        let others: Vec<_> = others.collect::<Result<_>>()?;
        for (_, _, place) in &others {
            for (_, name, _) in &others {
                resolves(place, name, 1)?;
            }
        }
        let to: std::net::Ipv4Addr = cluster.nodes[4].address("web1", "app")?;
        for (node, _, place) in &others {
            netd_tests::backend::ask(place, (to, 7000))
                .with_context(|| format!("from {}", node.host.name))?;
        }
        backend.remove()?;
        everybody(&cluster, "web", 0)?;
        for node in &cluster.nodes {
            let answer = netd_tests::backend::ask(&outsider, (node.host.v4, 8080));
            ensure!(answer.is_err(), "{} answers: {answer:?}", node.host.name);
        }
        Ok(())
    });
}
