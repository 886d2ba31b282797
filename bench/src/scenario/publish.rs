//! A published TCP port: bulk, requests, new connections, what the relay costs, and ten thousand idle connections.

use anyhow::Result;
use netd_tests::{Host, Lab};

use crate::figures::{DIRECT, NETD};
use crate::load::idle::Idle;
use crate::load::{iperf, wrk};
use crate::measure::{FigureId, Results};
use crate::programs::Programs;
use crate::rival::netd::Netd;
use crate::rival::{Contender, Protocol, direct, docker_proxy, haproxy, nft_dnat, nginx_stream};
use crate::scenario::{Plan, admit};
use crate::site::{self, Node};
use crate::task::Usage;

#[derive(Clone, Copy)]
enum Test {
    /// iperf3's flags, and where the rate and the relay's share go.
    Bulk {
        flags: &'static str,
        rate: FigureId,
        cpu: FigureId,
    },
    Requests {
        connections: usize,
        close: bool,
        rate: FigureId,
    },
}

const TESTS: &[(&str, Test)] = &[
    ("bulk, 1 stream", Test::Bulk { flags: "", rate: "bulk-1", cpu: "relay-cpu" }),
    ("bulk, 8 streams", Test::Bulk { flags: "-P 8", rate: "bulk-8", cpu: "relay-cpu-8" }),
    ("bulk, reverse", Test::Bulk { flags: "-R", rate: "bulk-reverse", cpu: "relay-cpu-reverse" }),
    ("keep-alive x 64", Test::Requests { connections: 64, close: false, rate: "keepalive-64" }),
    ("keep-alive x 1", Test::Requests { connections: 1, close: false, rate: "keepalive-1" }),
    ("connections x 64", Test::Requests { connections: 64, close: true, rate: "connect-64" }),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "p-client")?;
    let plain = Node::new(lab, &client, "p-plain", 11)?;
    let kernel = Node::new(lab, &client, "p-nft", 12)?;
    let ours = Node::new(lab, &client, "p-netd", 13)?;
    let (container, behind_nat) = (plain.container(lab, &client)?, kernel.container(lab, &client)?);
    let netd = Netd::start(&ours, Protocol::Tcp)?;
    for place in [&client.place, &plain.host, &kernel.host, &ours.host, &container.host, &behind_nat.host] {
        site::cubic(place)?;
    }
    site::cubic(&netd.sandbox)?;
    let mut programs = vec![Programs::tcp(&container.host)?, Programs::tcp(&behind_nat.host)?];
    programs.push(Programs::tcp(&netd.sandbox)?);

    let mut contenders = Vec::new();
    let mut enter = |name, start: &dyn Fn() -> Result<Contender>| {
        if plan.wants(name) {
            let started = start().and_then(|contender| {
                contender.wait(&client, Protocol::Tcp)?;
                Ok(contender)
            });
            contenders.extend(admit(results, name, started));
        }
    };
    enter(NETD, &|| netd.contender());
    enter(DIRECT, &|| Ok(direct::start(&container)));
    enter("nft DNAT", &|| nft_dnat::start(&kernel, &behind_nat));
    enter("docker-proxy", &|| docker_proxy::start(&plain, &container, Protocol::Tcp));
    enter("haproxy", &|| haproxy::start(&plain, &container));
    enter("nginx stream", &|| nginx_stream::start(&plain, &container, Protocol::Tcp));

    plan.interleave(
        results,
        &contenders,
        TESTS,
        |contender| contender.name,
        |contender, test, seconds| measure(&client, contender, test, seconds),
    );
    let ours = contenders.iter().find(|contender| contender.name == NETD);
    if let Some(Err(error)) = ours.map(|ours| idle(&client, ours, plan, results)) {
        results.trouble(NETD, format!("idle connections: {error:#}"));
    }
    drop((contenders, programs));
    netd.end()
}

fn measure(client: &Host, contender: &Contender, test: Test, seconds: u64) -> Result<Vec<(FigureId, f64)>> {
    let before = Usage::of(&contender.relays)?;
    let spent = || Ok::<_, anyhow::Error>(Usage::of(&contender.relays)?.cpu_seconds - before.cpu_seconds);
    let mut values = Vec::new();
    match test {
        Test::Bulk { flags, rate, cpu } => {
            let bulk = iperf::run(client, contender.doors.bulk, seconds, flags)?;
            values.push((rate, bulk.gigabits));
            if !contender.relays.is_empty() {
                values.push((cpu, spent()? / bulk.gigabytes));
                values.push(("relay-memory", Usage::of(&contender.relays)?.megabytes()));
            }
        }
        Test::Requests { connections, close, rate } => {
            let requests = wrk::run(client, contender.doors.http, seconds, connections, close)?;
            values.push((rate, requests.rate));
            if rate == "keepalive-64" {
                values.push(("keepalive-64-p99", requests.p99.as_secs_f64() * 1e3));
                if !contender.relays.is_empty() {
                    let each = spent()? / (requests.rate * seconds as f64);
                    values.push(("relay-cpu-request", each * 1e6));
                }
            }
            values.push(("request-errors", requests.failed as f64));
        }
    }
    Ok(values)
}

/// Memory with them, and bulk with and without them in each round: they are opened anew each time.
fn idle(client: &Host, netd: &Contender, plan: &Plan, results: &mut Results) -> Result<()> {
    for round in 1..=plan.rounds {
        let without = iperf::run(client, netd.doors.bulk, plan.seconds, "")?;
        let idle = Idle::open(client, netd.doors.http, IDLE)?;
        let held = Usage::of(&netd.relays)?;
        let beside = iperf::run(client, netd.doors.bulk, plan.seconds, "")?;
        let ratio = beside.gigabits / without.gigabits;
        eprintln!(
            "  round {round}/{}  {} idle connections  {NETD}: {:.1} MB, bulk x {ratio:.2}",
            plan.rounds,
            idle.len(),
            held.megabytes()
        );
        results.record("idle-memory", NETD, round, held.megabytes());
        results.record("idle-bulk", NETD, round, ratio);
        results.record("idle-connections", NETD, round, idle.len() as f64);
    }
    Ok(())
}

const IDLE: usize = 10_000;
