//! What the two processes hold and do when nothing is asked of them.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::Result;
use netd_tests::Daemon;

use crate::figures::NETD;
use crate::measure::Results;
use crate::scenario::Plan;
use crate::task::Usage;

pub(super) fn run(daemon: &Daemon, plan: &Plan, results: &mut Results) -> Result<()> {
    let pids = [daemon.pid()?, daemon.dataplane()?];
    // What starting has left to do is not rest.
    pause(Duration::from_secs(3));
    let span = Duration::from_secs(if plan.seconds > 1 { 10 } else { 2 });
    let (before, start) = (Usage::of(&pids)?, Instant::now());
    pause(span);
    let after = Usage::of(&pids)?;
    let wakeups = (after.wakeups - before.wakeups) as f64 / start.elapsed().as_secs_f64();
    eprintln!("  at rest  {NETD}: {:.1} MB, {wakeups:.1} wake-ups a second", after.megabytes());
    results.record("rest-memory", NETD, 1, after.megabytes());
    results.record("rest-wakeups", NETD, 1, wakeups);
    Ok(())
}

/// Time itself is what is waited for.
pub(super) fn pause(span: Duration) {
    let end = Instant::now() + span;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        park_timeout(left);
    }
}
