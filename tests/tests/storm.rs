//! Containers that come and go all at once, and processes that are killed in the middle of it: what was asked for is done
//! or was never begun, and whatever is left goes with its container.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::cni::{Container, address, config, error, publishing, sandboxes, sandboxes_become, with};
use netd_tests::query::Resolver;
use netd_tests::{Daemon, eventually, scenario};
use nix::sys::signal::Signal;
use serde_json::Value;

fn containers<'a>(netd: &'a Daemon, count: usize) -> Result<Vec<Container<'a>>> {
    (0..count).map(|number| Container::new(netd, &format!("c{number}"))).collect()
}

/// Each with its number, all at once.
fn at_once<T: Send>(
    containers: &[Container<'_>],
    deed: impl Fn(usize, &Container<'_>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let deed = &deed;
    std::thread::scope(|scope| {
        let all: Vec<_> = containers
            .iter()
            .enumerate()
            .map(|(number, one)| scope.spawn(move || deed(number, one)))
            .collect();
        all.into_iter().map(|one| one.join().expect("a deed does not panic")).collect()
    })
}

fn unmount(containers: &[Container<'_>]) -> Result<()> {
    containers.iter().try_for_each(Container::unmount)
}

#[test]
fn fifty_come_and_go_at_once_on_one_network_and_on_ten() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let all = containers(&netd, 50)?;
        for networks in [1, 10] {
            let network = |number: usize| {
                let name = format!("of{networks}-{}", number % networks);
                publishing(&config(&netd, "1.0.0", &name), 9000 + number as u16, 80)
            };
            let results = at_once(&all, |number, one| one.add("eth0", &network(number)))?;
            let addresses = results.iter().map(address).collect::<Result<BTreeSet<_>>>()?;
            ensure!(addresses.len() == all.len(), "each has its own: {addresses:?}");
            ensure!(sandboxes(&netd)? == all.len());
            let resolver = Resolver::new(&all[0].inside())?;
            ensure!(resolver.addresses("c40")? == [IpAddr::from(address(&results[40])?)], "names are known");
            at_once(&all, |number, one| one.del("eth0", &one.netns, &network(number)))?;
            ensure!(sandboxes(&netd)? == 0, "all are gone");
        }
        all.iter().try_for_each(Container::has_only_loopback)?;
        unmount(&all)
    });
}

#[test]
fn add_and_del_race_for_one_id_and_the_last_word_counts() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let web = Container::new(&netd, "web")?;
        let front = publishing(&config(&netd, "1.0.0", "front"), 8080, 80);
        let back = config(&netd, "1.0.0", "back");
        for round in 0..15 {
            let (added, deleted) = std::thread::scope(|scope| {
                let add = scope.spawn(|| web.call("ADD", "eth0", &front));
                let del = scope.spawn(|| web.call("DEL", "eth0", &front));
                (add.join().expect("no panic"), del.join().expect("no panic"))
            });
            ensure!(added?.code == 0 && deleted?.code == 0, "nobody is in the way of the other");
            // Two DELs at once: the last network takes the sandbox along, whichever it is.
            web.call("ADD", "eth0", &front)?;
            web.add("eth1", &back)?;
            std::thread::scope(|scope| {
                let one = scope.spawn(|| web.del("eth0", "", &front));
                let two = scope.spawn(|| web.del("eth1", "", &back));
                one.join().expect("no panic")?;
                two.join().expect("no panic")
            })?;
            ensure!(sandboxes(&netd)? == 0, "round {round} leaves something");
            ensure!(host.connect((host.v4, 8080)).is_err(), "the port is closed");
        }
        web.has_only_loopback()?;
        web.unmount()
    });
}

#[test]
fn a_daemon_that_is_killed_while_it_adds_has_done_it_or_not_begun() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let all = containers(&netd, 16)?;
        let app = with(&config(&netd, "1.0.0", "app"), "ipv6", true);
        netd.netd("network create app --ipv6")?;
        for after in [1, 6, 12] {
            // From the moment that so many are there, at least one is under way.
            let results = std::thread::scope(|scope| {
                let killer = scope.spawn(|| {
                    eventually(Duration::from_secs(10), "some are there", || {
                        ensure!(sandboxes(&netd)? >= after, "not yet");
                        Ok(())
                    })?;
                    netd.kill()
                });
                let results = at_once(&all, |_, one| one.call("ADD", "eth0", &app));
                killer.join().expect("no panic")?;
                results
            })?;
            netd.start()?;
            for (one, added) in all.iter().zip(&results) {
                if added.code == 0 {
                    let told = with(&app, "prevResult", added.json()?);
                    one.call("CHECK", "eth0", &told)?.success().context("what was said is true")?;
                    continue;
                }
                ensure!(error(added)?["code"] == 11, "{added:?}");
                // As a runtime does after a failed ADD, before it tries again.
                one.del("eth0", &one.netns, &app)?;
                one.add("eth0", &app).context("nothing of the first attempt is in the way")?;
            }
            ensure!(sandboxes(&netd)? == all.len());
            at_once(&all, |_, one| one.del("eth0", &one.netns, &app))?;
            ensure!(sandboxes(&netd)? == 0, "after {after}");
            all.iter().try_for_each(Container::has_only_loopback)?;
        }
        unmount(&all)
    });
}

#[test]
fn a_plugin_that_is_killed_leaves_nothing_that_outlives_its_container() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let app: Value = config(&netd, "1.0.0", "app");
        let stdin = "/run/lab/stdin";
        std::fs::write(stdin, app.to_string())?;
        for number in 0..24 {
            let web = Container::new(&netd, &format!("web{number}"))?;
            let place = web
                .environment("eth0", &web.netns)
                .with_env("CNI_COMMAND", "ADD")
                .with_env("CNI_PATH", "/opt/cni/bin");
            let plugin = place.start(&format!("sh -c 'exec netd-cni < {stdin}'"))?;
            std::thread::park_timeout(Duration::from_micros(number * 400));
            plugin.signal(Signal::SIGKILL).ok();
            plugin.wait(Duration::from_secs(5))?;
            if number % 2 == 0 {
                web.del("eth0", &web.netns, &app)?;
            }
            web.unmount()?;
        }
        sandboxes_become(&netd, 0)
    });
}
