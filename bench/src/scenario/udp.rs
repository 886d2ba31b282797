//! A published UDP port: many small exchanges, fewer with more on their way, and what a QUIC stack sends in bulk.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Host, Lab, eventually};

use crate::figures::{DIRECT, NETD};
use crate::load::udp::{Bulk, Exchange};
use crate::measure::{FigureId, Results};
use crate::programs::Programs;
use crate::rival::netd::Netd;
use crate::rival::{Contender, Protocol, direct, docker_proxy, nft_dnat, nginx_stream};
use crate::scenario::{Plan, admit};
use crate::site::{self, Node};

#[derive(Clone, Copy)]
enum Test {
    Exchange { flows: usize, outstanding: usize, rate: FigureId, lost: FigureId, p99: Option<FigureId> },
    Bulk,
}

const TESTS: &[(&str, Test)] = &[
    (
        "64 flows x 1",
        Test::Exchange {
            flows: 64,
            outstanding: 1,
            rate: "udp-64x1",
            lost: "udp-64x1-lost",
            p99: Some("udp-64x1-p99"),
        },
    ),
    (
        "16 flows x 32",
        Test::Exchange { flows: 16, outstanding: 32, rate: "udp-16x32", lost: "udp-16x32-lost", p99: None },
    ),
    ("QUIC-like bulk", Test::Bulk),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "u-client")?;
    let plain = Node::new(lab, &client, "u-plain", 21)?;
    let kernel = Node::new(lab, &client, "u-nft", 22)?;
    let ours = Node::new(lab, &client, "u-netd", 23)?;
    let (container, behind_nat) = (plain.container(lab, &client)?, kernel.container(lab, &client)?);
    let netd = Netd::start(&ours, Protocol::Udp)?;
    let mut programs = vec![Programs::udp(&container.host)?, Programs::udp(&behind_nat.host)?];
    programs.push(Programs::udp(&netd.sandbox)?);

    let mut contenders = Vec::new();
    let mut enter = |name, start: &dyn Fn() -> Result<Contender>| {
        if plan.wants(name) {
            let started = start().and_then(|contender| {
                answers(&client, contender.doors.echo).with_context(|| format!("{name} forwards"))?;
                Ok(contender)
            });
            contenders.extend(admit(results, name, started));
        }
    };
    enter(NETD, &|| netd.contender());
    enter(DIRECT, &|| Ok(direct::start(&container)));
    enter("nft DNAT", &|| nft_dnat::start(&kernel, &behind_nat));
    enter("docker-proxy", &|| docker_proxy::start(&plain, &container, Protocol::Udp));
    enter("nginx stream", &|| nginx_stream::start(&plain, &container, Protocol::Udp));

    plan.interleave(
        results,
        &contenders,
        TESTS,
        |contender| contender.name,
        |contender, test, seconds| measure(&client, contender, test, Duration::from_secs(seconds)),
    );
    drop((contenders, programs));
    netd.end()
}

fn measure(client: &Host, contender: &Contender, test: Test, time: Duration) -> Result<Vec<(FigureId, f64)>> {
    match test {
        Test::Exchange { flows, outstanding, rate, lost, p99 } => {
            let exchange = Exchange { to: contender.doors.echo, flows, outstanding, payload: PAYLOAD, time };
            let done = client.enter(|| exchange.run())??;
            ensure!(done.answered > 0, "no answer at all");
            let mut values = vec![(rate, done.rate()), (lost, share(done.lost, done.answered))];
            values.extend(p99.map(|figure| (figure, done.latency(0.99).as_secs_f64() * 1e6)));
            Ok(values)
        }
        Test::Bulk => {
            let bulk = Bulk::quic_like(contender.doors.sink, time);
            let done = client.enter(|| bulk.run())??;
            ensure!(done.bytes > 0, "nothing arrived");
            Ok(vec![("udp-bulk", done.gigabits()), ("udp-bulk-lost", share(done.lost_bytes, done.bytes))])
        }
    }
}

/// Waits until an echo comes back.
fn answers(client: &Host, to: SocketAddr) -> Result<()> {
    let socket = client.udp(([0, 0, 0, 0], 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.connect(to)?;
    eventually(Duration::from_secs(5), &format!("an echo from {to}"), || {
        socket.send(b"are you there?")?;
        Ok(socket.recv(&mut [0; 64])?)
    })
    .map(drop)
}

/// Percent of all that were lost.
fn share(lost: u64, arrived: u64) -> f64 {
    lost as f64 * 100.0 / (lost + arrived) as f64
}

/// A small question, as of DNS or a game.
const PAYLOAD: usize = 64;
