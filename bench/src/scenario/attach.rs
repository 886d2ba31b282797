//! Attaching namespaces to a network: one by one and many at once beside the CNI plugins and netavark; then what netd
//! alone is asked: a thousand ports, a thousand sandboxes, a restart with them, and rest.

mod range;
mod rest;
mod scale;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use netd_sys::netns::Netns;
use netd_tests::Lab;

use crate::figures::NETD;
use crate::measure::{FigureId, Results};
use crate::rival::attacher::Attacher;
use crate::rival::cni::Chain;
use crate::rival::netavark::Netavark;
use crate::rival::netd::{self, Api};
use crate::scenario::{Plan, admit};
use crate::site::{self, Node};

/// An attacher, and where its figures go.
struct Entry {
    attacher: Box<dyn Attacher>,
    attach: &'static [FigureId],
    detach: &'static [FigureId],
    /// How many at once; none: not asked.
    parallel: usize,
}

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "a-client")?;
    if plan.wants(NETD) {
        let node = Node::new(lab, &client, "a-alone", 41)?;
        let daemon = netd::daemon(&node, "")?;
        let part = |what: &str, done: Result<()>, results: &mut Results| {
            if let Err(error) = done {
                results.trouble(NETD, format!("{what}: {error:#}"));
            }
        };
        let done = rest::run(&daemon, plan, results);
        part("rest", done, results);
        let done = range::run(&daemon, plan, results);
        part("a thousand ports", done, results);
        let done = scale::run(&daemon, plan, results);
        part("a thousand sandboxes", done, results);
        netd::end(&daemon)?;
    }
    beside_rivals(lab, plan, results)
}

fn beside_rivals(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "a-client2")?;
    let ours = Node::new(lab, &client, "a-netd", 42)?;
    let cni = Node::new(lab, &client, "a-cni", 43)?;
    let avark = Node::new(lab, &client, "a-netavark", 44)?;
    let daemon = netd::daemon(&ours, "")?;
    daemon.netd("network create lan")?;

    let mut entries = Vec::new();
    if plan.wants(NETD) {
        let api = |ports| Box::new(Api::new(&daemon, "lan", ports));
        entries.push(Entry {
            attacher: api(false),
            attach: &["attach"],
            detach: &["detach"],
            parallel: PARALLEL,
        });
        entries.push(Entry { attacher: api(true), attach: &["attach-port"], detach: &[], parallel: 0 });
        let plugin = admit(results, NETD, Chain::netd(&ours.host, &daemon.socket()));
        entries.extend(plugin.map(|chain| Entry {
            attacher: Box::new(chain),
            attach: &["cni-add"],
            detach: &["cni-del"],
            parallel: 0,
        }));
    }
    let rival = |attacher| Entry {
        attacher,
        attach: &["attach-port", "cni-add"],
        detach: &["detach", "cni-del"],
        parallel: PARALLEL_RIVALS,
    };
    if plan.wants("CNI chain") {
        let chain = admit(results, "CNI chain", Chain::reference(&cni.host));
        entries.extend(chain.map(|chain| rival(Box::new(chain) as Box<dyn Attacher>)));
    }
    if plan.wants("netavark") {
        let started = admit(results, "netavark", Netavark::new(&avark.host));
        entries.extend(started.map(|started| rival(Box::new(started))));
    }
    for round in 0..=plan.rounds {
        for turn in 0..entries.len() {
            let entry = &entries[(turn + round) % entries.len()];
            let spaces = Spaces::make(entry.parallel.max(EACH))?;
            if let Err(error) = one_by_one(entry, &spaces, plan, round, results) {
                results.trouble(entry.attacher.name(), format!("one by one: {error:#}"));
            }
            if entry.parallel > 0 {
                at_once(entry, &spaces, plan, round, results)?;
            }
        }
    }
    drop(entries);
    netd::end(&daemon)
}

/// Ten a round: with five rounds, the median is of fifty. Round 0 does not count.
fn one_by_one(
    entry: &Entry,
    spaces: &Spaces,
    plan: &Plan,
    round: usize,
    results: &mut Results,
) -> Result<()> {
    let name = entry.attacher.name();
    let times = if round == 0 { 2 } else { EACH };
    for number in 0..times {
        let netns = &spaces.0[number];
        let attached = entry.attacher.attach(number, netns)?;
        let detached = entry.attacher.detach(number, netns)?;
        if round == 0 {
            continue;
        }
        let place = round * EACH + number;
        let record = |results: &mut Results, figures: &[FigureId], took: Duration| {
            figures.iter().for_each(|figure| results.record(figure, name, place, milliseconds(took)));
        };
        record(results, entry.attach, attached);
        record(results, entry.detach, detached);
        if number == 0 {
            eprintln!(
                "  round {round}/{}  {}  {name}: {:.2} ms, detach {:.2} ms",
                plan.rounds,
                entry.attach[0],
                milliseconds(attached),
                milliseconds(detached)
            );
        }
    }
    Ok(())
}

fn at_once(entry: &Entry, spaces: &Spaces, plan: &Plan, round: usize, results: &mut Results) -> Result<()> {
    let name = entry.attacher.name();
    let all = &spaces.0[..entry.parallel];
    let (attached, failed) = storm(all, |number, netns| entry.attacher.attach(number, netns))?;
    let (detached, stuck) = storm(all, |number, netns| entry.attacher.detach(number, netns))?;
    if !failed.is_empty() || !stuck.is_empty() {
        entry.attacher.tidy();
    }
    if round == 0 {
        return Ok(());
    }
    eprintln!(
        "  round {round}/{}  {} at once  {name}: {:.0} ms, {} failed; down {:.0} ms, {} failed",
        plan.rounds,
        all.len(),
        milliseconds(attached),
        failed.len(),
        milliseconds(detached),
        stuck.len()
    );
    for (what, errors) in [("attach", &failed), ("detach", &stuck)] {
        if let Some(error) = errors.first() {
            results.trouble(name, format!("{what} at once, for one: {error:#}"));
        }
    }
    // The time it takes to fail tells nothing.
    if failed.len() < all.len() {
        results.record("attach-parallel", name, round, milliseconds(attached));
        results.record("detach-parallel", name, round, milliseconds(detached));
    }
    results.record("attach-parallel-failed", name, round, failed.len() as f64);
    results.record("detach-parallel-failed", name, round, stuck.len() as f64);
    Ok(())
}

/// All at once, from threads that wait for each other; the time until the last is done, and what failed.
fn storm(
    spaces: &[PathBuf],
    deed: impl Fn(usize, &Path) -> Result<Duration> + Sync,
) -> Result<(Duration, Vec<anyhow::Error>)> {
    let gate = std::sync::Barrier::new(spaces.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = spaces
            .iter()
            .enumerate()
            .map(|(number, netns)| {
                let (gate, deed) = (&gate, &deed);
                scope.spawn(move || {
                    gate.wait();
                    deed(number, netns)
                })
            })
            .collect();
        gate.wait();
        let start = Instant::now();
        let mut failed = Vec::new();
        for thread in threads {
            let done = thread.join().map_err(|_| anyhow!("a thread of the storm panicked"))?;
            failed.extend(done.err());
        }
        Ok((start.elapsed(), failed))
    })
}

/// Namespaces that somebody else, a container runtime, has made.
pub(super) struct Spaces(Vec<PathBuf>);

impl Spaces {
    fn make(count: usize) -> Result<Self> {
        let mut spaces = Self(Vec::with_capacity(count));
        for number in 0..count {
            let path = PathBuf::from(format!("/run/netns/bench-{number}"));
            Netns::create_at(&path).context("make a container's namespace")?;
            spaces.0.push(path);
        }
        Ok(spaces)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for path in &self.0 {
            // The lab's own /run goes with the lab, and what is mounted in it.
            let _ = Netns::remove_at(path);
        }
    }
}

pub(super) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

const EACH: usize = 10;
const PARALLEL: usize = 50;
/// As many as netavark and the plugins were measured with; they take seconds for it.
const PARALLEL_RIVALS: usize = 30;
