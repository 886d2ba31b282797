//! How long after a change on one node the last of all nodes serves it: a sandbox is made or removed on one, and every
//! other is asked for its name until the answer is right. Asked is the data plane, by a program in a sandbox there. Time
//! counts from before the request, so what is told is more than from the store's commit to the last table.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use netd_tests::query::{Resolver, addresses};
use netd_tests::{Cluster, Lab, Place, Setup, eventually};

use crate::figures::NETD;
use crate::measure::{FigureId, Results};
use crate::scenario::Plan;

/// Nodes, and the figures of the median and of the slowest in a hundred.
const SIZES: [(usize, FigureId, FigureId); 3] = [
    (3, "converge-3-p50", "converge-3-p99"),
    (10, "converge-10-p50", "converge-10-p99"),
    (25, "converge-25-p50", "converge-25-p99"),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    if !plan.wants(NETD) {
        return Ok(());
    }
    let mut cluster = Cluster::empty(lab, "c-")?;
    let mut watchers = Vec::new();
    for (count, p50, p99) in SIZES {
        while cluster.nodes.len() < count {
            cluster.join(lab, &Setup::default())?;
            if cluster.nodes.len() == 1 {
                cluster.nodes[0].netd("network create app -d overlay")?;
            }
            let node = cluster.nodes.last().context("it was just added")?;
            eventually(PATIENCE, "it knows the network", || node.inspect("network", "app"))?;
            watchers.push(Watcher::start(&node.create(&node.host.name, "--network app")?)?);
        }
        for round in 1..=plan.rounds {
            let mut times = (0..CHANGES).map(|number| change(&cluster, &watchers, round, number));
            let mut times = times.try_fold(Vec::new(), |mut all, one| {
                all.extend(one?);
                anyhow::Ok(all)
            })?;
            times.sort_unstable();
            let at =
                |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
            eprintln!(
                "  round {round}/{}  {count} nodes: p50 {:.1} ms, p99 {:.1} ms",
                plan.rounds,
                at(50),
                at(99)
            );
            results.record(p50, NETD, round, at(50));
            results.record(p99, NETD, round, at(99));
        }
    }
    drop(watchers);
    cluster.nodes.iter().try_for_each(|node| node.netd("down --purge").map(drop))
}

/// A sandbox comes and goes on one of the nodes; how long each took to be seen everywhere.
fn change(cluster: &Cluster, watchers: &[Watcher], round: usize, number: usize) -> Result<[Duration; 2]> {
    let node = &cluster.nodes[number % cluster.nodes.len()];
    let name = format!("probe-{round}-{number}-{}", cluster.nodes.len());
    let body = format!(r#"{{"Name":"{name}","Networks":[{{"Network":"app"}}]}}"#);
    let up = seen_by_all(watchers, &name, true, || {
        let answer = node.http("POST", "/v1/sandboxes", &body)?;
        ensure!(answer.status == 201, "{answer:?}");
        Ok(())
    })?;
    let down = seen_by_all(watchers, &name, false, || {
        let answer = node.http("DELETE", &format!("/v1/sandboxes/{name}"), "")?;
        ensure!(answer.status < 300, "{answer:?}");
        Ok(())
    })?;
    Ok([up, down])
}

fn seen_by_all(
    watchers: &[Watcher],
    name: &str,
    there: bool,
    deed: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let (seen, when) = mpsc::channel();
    let pause = PAUSE * u32::try_from(watchers.len())?;
    for watcher in watchers {
        watcher.asks.send(Ask { name: name.into(), there, pause, seen: seen.clone() })?;
    }
    let started = Instant::now();
    deed()?;
    let mut last = started;
    for _ in watchers {
        last = last.max(when.recv_timeout(PATIENCE).with_context(|| format!("{name} is not seen by all"))?);
    }
    Ok(last - started)
}

/// What to wait for, and where to say when it came.
struct Ask {
    name: String,
    there: bool,
    pause: Duration,
    seen: mpsc::Sender<Instant>,
}

/// A program in a sandbox that asks for names.
struct Watcher {
    asks: mpsc::Sender<Ask>,
}

impl Watcher {
    fn start(place: &Place) -> Result<Self> {
        let resolver = Resolver::new(place)?;
        let (asks, told) = mpsc::channel::<Ask>();
        std::thread::spawn(move || {
            for ask in told {
                let end = Instant::now() + PATIENCE;
                while Instant::now() < end {
                    let found = resolver.ask(&ask.name, RecordType::A);
                    if found.is_ok_and(|answer| addresses(&answer).is_empty() != ask.there) {
                        // Nobody listens any more after a failure.
                        let _ = ask.seen.send(Instant::now());
                        break;
                    }
                    std::thread::park_timeout(ask.pause);
                }
            }
        });
        Ok(Self { asks })
    }
}

/// Of each kind, a round and number of nodes.
const CHANGES: usize = 50;
/// Between two questions of all nodes together: fewer would tell the time less well, more would take it from netd.
const PAUSE: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_secs(10);
