//! Who is chosen: policies and affinity, seen by clients of many addresses on another machine.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::backend::talk;
use netd_tests::load::Talk;
use netd_tests::{Backend, Daemon, Host, Lab, eventually, scenario};

/// A service with some backends, published on 8080, and a machine with a whole subnet of addresses.
pub(crate) fn stage(
    lab: &Lab,
    policy: &str,
    backends: usize,
) -> Result<(Daemon, Host, Vec<Backend>, SocketAddr)> {
    let (host, clients) = (lab.host("n1")?, lab.host("clients")?);
    clients.sh("ip route add local 10.9.0.0/16 dev lo")?;
    host.sh(&format!("ip route add 10.9.0.0/16 via {}", clients.v4))?;
    let netd = host.daemon()?;
    netd.netd("network create app")?;
    netd.netd(&format!("service create web --network app -p 8080:7000 {policy}"))?;
    let start = |number| Backend::start(&netd, &format!("web{number}"), "--network app --service web");
    let backends = (1..=backends).map(start).collect::<Result<_>>()?;
    Ok((netd, clients, backends, (host.v4, 8080).into()))
}

/// An address and port of its own: some policies go by both.
pub(crate) fn client(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    (Ipv4Addr::new(10, 9, high, low), 20_000 + number).into()
}

/// Who answers each of so many clients.
fn choices(clients: &Host, to: SocketAddr, count: u16) -> Result<BTreeMap<u16, String>> {
    clients.enter(|| {
        (0..count)
            .map(|number| {
                let mut talk = Talk::open(to, Some(client(number)), PATIENCE)?;
                let answer = talk.say(number.into(), 100)?;
                Ok((number, answer.by))
            })
            .collect()
    })?
}

/// Whether each client has the backend that it had before.
fn kept(before: &BTreeMap<u16, String>, after: &BTreeMap<u16, String>) -> Result<()> {
    let moved = before.iter().filter(|(client, by)| after[client] != **by);
    let moved: Vec<_> = moved.map(|(client, by)| format!("{client}: {by} -> {}", after[client])).collect();
    ensure!(moved.is_empty(), "each client keeps its backend, not {moved:?}");
    Ok(())
}

fn counts(choices: &BTreeMap<u16, String>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for by in choices.values() {
        *counts.entry(by.as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_is_even_and_weights_are_kept() {
    scenario(|lab| {
        let (netd, clients, _backends, to) = stage(lab, "", 4)?;
        let even = choices(&clients, to, 400)?;
        ensure!(counts(&even).values().all(|count| (96..=104).contains(count)), "{:?}", counts(&even));
        // Backends outside have weights of their own.
        let outside = lab.host("old")?;
        let shares = [(1, 5), (2, 3), (3, 1), (4, 1)];
        let echo = |(number, _): &(u16, u16)| {
            let echo = outside.start(&format!("lab_echo --name old{number} --tcp {}", 7000 + number))?;
            echo.says("ready").map(|_| echo)
        };
        let _echoes: Vec<_> = shares.iter().map(echo).collect::<Result<_>>()?;
        let backends: String = shares
            .map(|(number, weight)| format!(" --backend {}:{},weight={weight}", outside.v4, 7000 + number))
            .concat();
        netd.netd(&format!("service create heavy --network app -p 8081:7000 --policy weighted{backends}"))?;
        let weighted = choices(&clients, SocketAddr::new(to.ip(), 8081), 1000)?;
        let weighted = counts(&weighted);
        for (name, share) in [("old1", 0.5), ("old2", 0.3), ("old3", 0.1), ("old4", 0.1)] {
            let got = *weighted.get(name).context("it is chosen")? as f64 / 1000.0;
            ensure!((got - share).abs() <= 0.02, "{name} has {got} instead of {share}: {weighted:?}");
        }
        Ok(())
    });
}

#[test]
fn the_least_busy_gets_more_when_some_take_their_time() {
    scenario(|lab| {
        let (_netd, clients, backends, to) = stage(lab, "--policy least-connections", 3)?;
        // Whoever talks to the first keeps it busy; the others are let go.
        let mut held = Vec::new();
        let mut of_first = 0;
        for seed in 0..60 {
            let mut one = talk(&clients, to)?;
            if one.say(seed, 10)?.by == backends[0].name {
                of_first += 1;
                held.push(one);
            } else {
                one.close()?;
            }
        }
        ensure!(of_first <= 8, "a busy one was given {of_first} of 60");
        Ok(())
    });
}

#[test]
fn a_source_hash_keeps_clients_and_maglev_moves_few() {
    scenario(|lab| {
        let (netd, clients, mut backends, to) = stage(lab, "--policy source-hash", 10)?;
        let first = choices(&clients, to, 300)?;
        kept(&first, &choices(&clients, to, 300)?)?;
        ensure!(counts(&first).len() == 10, "all are used: {:?}", counts(&first));
        netd.netd("service update web --policy maglev")?;
        let before = choices(&clients, to, 1000)?;
        kept(&before, &choices(&clients, to, 1000)?)?;
        let even = counts(&before);
        ensure!(even.values().all(|count| (60..=140).contains(count)), "{even:?}");
        let gone = backends.pop().context("ten of them")?;
        let name = gone.name.clone();
        gone.remove()?;
        let after = choices(&clients, to, 1000)?;
        let moved = before.iter().filter(|(client, by)| **by != name && after[client] != **by).count();
        ensure!(moved <= 20, "{moved} of 1000 lost a backend that is still there");
        Ok(())
    });
}

#[test]
fn affinity_holds_through_changes_and_ends_with_its_time() {
    scenario(|lab| {
        let (netd, clients, mut backends, to) = stage(lab, "--affinity client-ip:2", 3)?;
        let first = choices(&clients, to, 30)?;
        ensure!(counts(&first).len() == 3, "{:?}", counts(&first));
        backends.push(Backend::start(&netd, "web4", "--network app --service web")?);
        netd.netd("service update web --drain 5s")?;
        ensure!(choices(&clients, to, 30)? == first, "others come, settings change: each keeps its backend");
        let gone = backends.remove(0);
        let name = gone.name.clone();
        gone.remove()?;
        let moved = choices(&clients, to, 30)?;
        for (client, by) in &first {
            ensure!((*by == name) == (moved[client] != *by), "only those of {name} move: client {client}");
        }
        // Nobody comes for as long as it holds; then the choice is free again.
        let quiet = Instant::now();
        eventually(Duration::from_secs(8), "the time is over", || {
            ensure!(quiet.elapsed() > Duration::from_millis(2500), "not yet");
            Ok(())
        })?;
        let fresh = choices(&clients, to, 30)?;
        ensure!(fresh != moved, "chosen anew");
        Ok(())
    });
}

const PATIENCE: Duration = Duration::from_secs(5);
