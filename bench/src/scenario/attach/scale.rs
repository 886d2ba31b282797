//! A thousand sandboxes on ten networks: whether the last attach costs what the first did, and how long a restarted
//! control plane takes until it is ready again.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::Daemon;

use crate::figures::NETD;
use crate::measure::{Results, Summary};
use crate::rival::attacher::Attacher;
use crate::rival::netd::Api;
use crate::scenario::Plan;
use crate::scenario::attach::{Spaces, milliseconds};
use crate::task::Usage;

pub(super) fn run(daemon: &Daemon, plan: &Plan, results: &mut Results) -> Result<()> {
    let spaces = Spaces::make(SANDBOXES)?;
    let networks: Vec<_> = (0..NETWORKS).map(|number| format!("scale{number}")).collect();
    for network in &networks {
        daemon.netd(&format!("network create {network}"))?;
    }
    for round in 1..=plan.rounds.min(MOST_ROUNDS) {
        let apis: Vec<_> = networks.iter().map(|network| Api::new(daemon, network, false)).collect();
        let mut times = Vec::with_capacity(SANDBOXES);
        for (number, netns) in spaces.0.iter().enumerate() {
            times.push(milliseconds(apis[number % NETWORKS].attach(number, netns)?));
        }
        let median = |times: &[f64]| {
            Summary::of(times.iter().copied()).map(|summary| summary.median).context("nothing was attached")
        };
        let (first, last) = (median(&times[..SAMPLE])?, median(&times[SANDBOXES - SAMPLE..])?);
        let memory = Usage::of(&[daemon.pid()?, daemon.dataplane()?])?.megabytes();
        daemon.kill()?;
        let ready = restart(daemon)?;
        eprintln!(
            "  round {round}  1,000 sandboxes  {NETD}: first {first:.2} ms, last {last:.2} ms, {memory:.1} MB, \
             restart {:.0} ms",
            milliseconds(ready)
        );
        for (figure, value) in [
            ("scale-first", first),
            ("scale-last", last / first),
            ("scale-memory", memory),
            ("scale-restart", ready.as_secs_f64()),
        ] {
            results.record(figure, NETD, round, value);
        }
        let api = Api::new(daemon, &networks[0], false);
        for (number, netns) in spaces.0.iter().enumerate() {
            api.detach(number, netns)?;
        }
    }
    networks.iter().try_for_each(|network| daemon.netd(&format!("network rm {network}")).map(drop))
}

/// From the start of the process until it says that it is ready.
fn restart(daemon: &Daemon) -> Result<Duration> {
    let start = Instant::now();
    daemon.launch()?;
    while !is_ready(&daemon.socket()) {
        ensure!(start.elapsed() < LONGEST, "not ready within {LONGEST:?}: {}", daemon.log());
        park_timeout(Duration::from_millis(2));
    }
    Ok(start.elapsed())
}

/// Asks once and waits only shortly, so that one question that gets no answer does not count for more than it is.
fn is_ready(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: netd\r\nconnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok::<_, std::io::Error>(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

const SANDBOXES: usize = 1_000;
const NETWORKS: usize = 10;
/// So many attaches at the beginning and at the end.
const SAMPLE: usize = 50;
/// Each builds and takes down all of it.
const MOST_ROUNDS: usize = 3;
const LONGEST: Duration = Duration::from_secs(60);
