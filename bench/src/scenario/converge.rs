//! How long after a commit to the cluster's store the last of all nodes serves it: a sandbox is made or removed on one node,
//! and every node tells when its data plane has the table that follows. Nothing is asked meanwhile: on a machine that has
//! all of the nodes, questions would take the time that is measured. Afterwards every node is asked once, by a program in
//! a sandbox there, and has to answer right at once. Time counts from when the transaction was handed to etcd, and until
//! the last of the other nodes: that one itself serves what is its own before others are told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use netd_tests::cluster::Node;
use netd_tests::query::{Resolver, addresses};
use netd_tests::{Cluster, Lab, Setup, eventually, http};

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
    let (said, told) = mpsc::channel();
    let mut watch = Watch { told, resolvers: Vec::new() };
    for (count, p50, p99) in SIZES {
        while cluster.nodes.len() < count {
            cluster.join(lab, &Setup::default())?;
            if cluster.nodes.len() == 1 {
                cluster.nodes[0].netd("network create app -d overlay")?;
            }
            let number = cluster.nodes.len() - 1;
            let node = &cluster.nodes[number];
            eventually(PATIENCE, "it knows the network", || node.inspect("network", "app"))?;
            let inside = node.create(&node.host.name, "--network app")?;
            watch.resolvers.push(Resolver::new(&inside)?);
            follow(&node.socket(), number, said.clone())?;
        }
        for round in 1..=plan.rounds {
            let times = (0..CHANGES).map(|number| change(&cluster, &watch, round, number));
            let mut times = times.collect::<Result<Vec<_>>>()?.concat();
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
    drop(watch);
    cluster.nodes.iter().try_for_each(|node| node.netd("down --purge").map(drop))
}

/// A sandbox comes and goes on one of the nodes; how long each took to be served everywhere.
fn change(cluster: &Cluster, watch: &Watch, round: usize, number: usize) -> Result<[Duration; 2]> {
    let at = number % cluster.nodes.len();
    let node = &cluster.nodes[at];
    let name = format!("probe-{round}-{number}-{}", cluster.nodes.len());
    let body = format!(r#"{{"Name":"{name}","Networks":[{{"Network":"app"}}]}}"#);
    let answer = node.http("POST", "/v1/sandboxes", &body)?;
    ensure!(answer.status == 201, "{answer:?}");
    let up = watch.served(node, at, &name, true)?;
    let answer = node.http("DELETE", &format!("/v1/sandboxes/{name}"), "")?;
    ensure!(answer.status < 300, "{answer:?}");
    let down = watch.served(node, at, &name, false)?;
    Ok([up, down])
}

/// What a node has said of a revision of the cluster's store, and when, by the clock of the machine.
struct Said {
    node: usize,
    serves: bool,
    revision: u64,
    at: Duration,
}

/// All nodes, as they are heard and as they are asked.
struct Watch {
    told: mpsc::Receiver<Said>,
    resolvers: Vec<Resolver>,
}

impl Watch {
    /// Waits until all serve what that node has written last, and makes sure that they do.
    fn served(&self, node: &Node, at: usize, name: &str, there: bool) -> Result<Duration> {
        let status = node.http("GET", "/v1/status", "")?.json()?;
        let revision =
            status["cluster"]["revision"].as_u64().with_context(|| format!("a revision in {status}"))?;
        let (mut committed, mut served) = (None, vec![None; self.resolvers.len()]);
        while served.iter().any(Option::is_none) {
            let said = self.told.recv_timeout(PATIENCE);
            let said = said.with_context(|| format!("{name} at revision {revision}: {served:?} serve it"))?;
            if said.serves {
                let first = &mut served[said.node];
                *first = first.or((said.revision >= revision).then_some(said.at));
            } else if said.node == at {
                // A node tells what it has written before it tells that it serves it.
                committed = committed.max(Some(said.at));
            }
        }
        for (number, resolver) in self.resolvers.iter().enumerate() {
            let answer = resolver.ask(name, RecordType::A)?;
            ensure!(
                addresses(&answer).is_empty() != there,
                "node {} does not serve {name}: {answer}",
                number + 1
            );
        }
        let committed = committed.context("nobody has written anything")?;
        let others = served.into_iter().enumerate().filter(|(node, _)| *node != at);
        let last = others.filter_map(|(_, when)| when).max().context("there is no other node")?;
        Ok(last.saturating_sub(committed))
    }
}

/// Passes on what a node says of the store, until either end has gone.
fn follow(socket: &Path, node: usize, said: mpsc::Sender<Said>) -> Result<()> {
    let mut stream = http::connect(socket)?;
    stream.set_read_timeout(None)?;
    stream.write_all(b"GET /v1/events?filter=type%3Dstore HTTP/1.1\r\nhost: netd\r\n\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    let head = lines.next().context("no answer")??;
    ensure!(head.contains("200"), "{head}");
    std::thread::spawn(move || {
        // Between the events are the sizes of the chunks they come in.
        for line in lines.map_while(Result::ok).filter(|line| line.starts_with('{')) {
            if let Some(event) = parse(&line, node)
                && said.send(event).is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

fn parse(line: &str, node: usize) -> Option<Said> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let serves = match event["action"].as_str()? {
        "served" => true,
        "committed" => false,
        _ => return None,
    };
    let number = |name: &str| event["attributes"][name].as_str()?.parse().ok();
    Some(Said {
        node,
        serves,
        revision: number("revision")?,
        at: Duration::from_nanos(number("monotonic-ns")?),
    })
}

/// Of each kind, a round and number of nodes.
const CHANGES: usize = 50;
const PATIENCE: Duration = Duration::from_secs(10);
