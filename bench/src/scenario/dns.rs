//! The DNS server in each sandbox: local names under load and one at a time, cached forwards, and what happens to
//! everybody when an upstream is dead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use netd_tests::{Daemon, Host, Lab, Place, eventually, query};

use crate::figures::NETD;
use crate::load::{dnsperf, flight, question};
use crate::measure::{FigureId, Name, Results};
use crate::rival::{aardvark, dnsmasq, netd, program};
use crate::scenario::{Plan, admit};
use crate::site::{self, Node};

/// A server as a client sees it.
struct Resolver {
    name: Name,
    client: Place,
    server: SocketAddr,
}

#[derive(Clone, Copy)]
enum Test {
    Local,
    One,
    Cached,
}

const TESTS: &[(&str, Test)] =
    &[("local names", Test::Local), ("one at a time", Test::One), ("cached forwards", Test::Cached)];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "d-client")?;
    let plain = Node::new(lab, &client, "d-plain", 31)?;
    let container = plain.container(lab, &client)?;
    let ours = Node::new(lab, &client, "d-netd", 32)?;
    let upstream = lab.host("d-upstream")?;
    let names: Vec<_> = (0..NAMES).map(|number| format!("n{number}")).collect();
    let local = dnsperf::questions("local.txt", names.iter().cloned())?;
    let foreign = dnsperf::questions("foreign.txt", (0..NAMES).map(|number| format!("n{number}.{ZONE}")))?;

    let (alive, dead) = upstreams(&upstream)?;
    let _upstream = dnsmasq::upstream(&upstream, alive, ZONE)?;
    // Takes every question and answers none.
    let _silence = upstream.udp(dead)?;
    let daemon = netd::daemon(&ours, &format!("[dns]\nservers = [\"{}\"]\n", alive.ip()))?;
    let asker = sandboxes(&daemon, &names)?;

    let mut resolvers = Vec::new();
    let enter = |name: Name, client: &Place, server: SocketAddr| {
        let resolver = Resolver { name, client: client.clone(), server };
        resolver.wait(&names[..1]).map(|()| resolver)
    };
    for name in [NETD, LOCAL].into_iter().filter(|name| *name == LOCAL || plan.wants(name)) {
        resolvers.extend(admit(results, name, enter(name, &asker, query::SERVER)));
    }
    let at = |port| SocketAddr::new(container.gateway, port);
    let _dnsmasq = wanted(
        plan,
        results,
        "dnsmasq",
        || dnsmasq::local(&plain.host, at(53), &names),
        |_| {
            resolvers.push(enter("dnsmasq", &container.host, at(53))?);
            Ok(())
        },
    );
    let start = || aardvark::start(&plain.host, &container, at(5353), &names);
    let _aardvark = wanted(plan, results, "aardvark-dns", start, |_| {
        resolvers.push(enter("aardvark-dns", &container.host, at(5353))?);
        Ok(())
    });
    let files = Files { local, foreign };
    if program("dnsperf", "dnsperf").map_err(|error| results.trouble("dnsperf", error.to_string())).is_ok() {
        let run = |resolver: &Resolver, test, seconds| resolver.measure(test, seconds, &files, &names);
        plan.interleave(results, &resolvers, TESTS, |resolver| resolver.name, run);
    }
    netd::end(&daemon)?;
    if plan.wants(NETD) {
        in_flight(lab, &client, plan, results, [dead, alive])?;
    }
    Ok(())
}

struct Files {
    local: PathBuf,
    foreign: PathBuf,
}

/// Starts a server if it is asked for; `admitted` says whether it answers.
fn wanted<S>(
    plan: &Plan,
    results: &mut Results,
    name: Name,
    start: impl FnOnce() -> Result<S>,
    admitted: impl FnOnce(&S) -> Result<()>,
) -> Option<S> {
    if !plan.wants(name) {
        return None;
    }
    let started = start().and_then(|server| admitted(&server).map(|()| server));
    admit(results, name, started)
}

impl Resolver {
    /// Until it answers.
    fn wait(&self, names: &[String]) -> Result<()> {
        eventually(Duration::from_secs(10), &format!("{} answers", self.name), || {
            let mut once = [true, false].into_iter();
            question::one_by_one(&self.client, self.server, names, || once.next() == Some(true)).map(drop)
        })
    }

    fn measure(
        &self,
        test: Test,
        seconds: u64,
        files: &Files,
        names: &[String],
    ) -> Result<Vec<(FigureId, f64)>> {
        let perf = |questions| dnsperf::run(&self.client, self.server, questions, seconds);
        match test {
            Test::Cached if self.name == NETD => Ok(vec![("dns-cached", perf(&files.foreign)?.rate)]),
            Test::Cached if self.name == LOCAL => Ok(vec![("dns-cached", perf(&files.local)?.rate)]),
            _ if self.name == LOCAL => Ok(Vec::new()),
            Test::Cached => Ok(Vec::new()),
            Test::Local => {
                let answers = perf(&files.local)?;
                Ok(vec![("dns-local", answers.rate), ("dns-lost", answers.failed)])
            }
            Test::One => {
                let end = Instant::now() + Duration::from_secs(seconds);
                let asked = question::one_by_one(&self.client, self.server, names, || Instant::now() < end)?;
                let p50 = asked.latency(0.5).context("no answer")?;
                Ok(vec![("dns-one", asked.rate()), ("dns-one-p50", p50.as_secs_f64() * 1e6)])
            }
        }
    }
}

/// Ten sandboxes that share the names out as aliases, and the one that asks.
fn sandboxes(daemon: &Daemon, names: &[String]) -> Result<Place> {
    daemon.netd("network create lan")?;
    for (number, some) in names.chunks(100).enumerate() {
        let aliases: Vec<_> = some.iter().map(|name| format!("--alias {name}")).collect();
        daemon.create(&format!("box{number}"), &format!("--network lan {}", aliases.join(" ")))?;
    }
    daemon.create("asker", "--network lan")
}

/// Where a live and a dead server are: two addresses of one host.
fn upstreams(host: &Host) -> Result<(SocketAddr, SocketAddr)> {
    host.sh("ip addr add 192.0.2.201/24 dev eth0")?;
    let dead = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 201));
    Ok((SocketAddr::new(host.v4.into(), 53), SocketAddr::new(dead, 53)))
}

/// Ten thousand names asked for at once while the first upstream is dead and the second one lives, by a data plane that
/// knows of neither yet; a neighbour goes on asking for local names.
fn in_flight(
    lab: &Lab,
    client: &Host,
    plan: &Plan,
    results: &mut Results,
    [dead, alive]: [SocketAddr; 2],
) -> Result<()> {
    let node = Node::new(lab, client, "d-flight", 34)?;
    let config = format!("[dns]\nservers = [\"{}\", \"{}\"]\n", dead.ip(), alive.ip());
    let daemon = netd::daemon(&node, &config)?;
    let names: Vec<_> = (0..10).map(|number| format!("n{number}")).collect();
    let asker = sandboxes(&daemon, &names)?;
    for round in 1..=plan.rounds {
        daemon.terminate()?;
        daemon.start()?;
        let foreign: Vec<_> = (0..IN_FLIGHT).map(|number| format!("r{round}x{number}.{ZONE}")).collect();
        let over = AtomicBool::new(false);
        let (flight, local) = std::thread::scope(|scope| {
            let local = scope.spawn(|| {
                question::one_by_one(&asker, query::SERVER, &names, || !over.load(Ordering::Relaxed))
            });
            let flight = flight::run(&asker, query::SERVER, &foreign);
            over.store(true, Ordering::Relaxed);
            Ok::<_, anyhow::Error>((flight?, local.join().map_err(|_| anyhow!("the client panicked"))??))
        })?;
        let milliseconds =
            |span: Option<Duration>| span.map_or(f64::INFINITY, |span| span.as_secs_f64() * 1e3);
        for (figure, value) in [
            ("dns-flight-p99", milliseconds(flight.latency(0.99))),
            ("dns-flight-lost", flight.failed as f64 * 100.0 / IN_FLIGHT as f64),
            ("dns-flight-local-p99", milliseconds(local.latency(0.99))),
            ("dns-flight-local-lost", local.failed as f64),
        ] {
            eprintln!("  round {round}/{}  {figure}: {value:.2}", plan.rounds);
            results.record(figure, NETD, round, value);
        }
    }
    netd::end(&daemon)
}

/// Our own server asked for local names, beside which cached forwards stand.
const LOCAL: Name = "netd local";
const ZONE: &str = "fwd.test";
const NAMES: usize = 1_000;
const IN_FLIGHT: usize = 10_000;
