//! Programs that are measured: started, looked at through /proc, and ended as an operator would end them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use netd_tests::{Place, Process};
use nix::sys::signal::Signal;

/// A program in the background that gets a SIGTERM when this is dropped, so that it can end its children; what does
/// not obey is killed.
pub(crate) struct Server(Process);

impl Server {
    pub(crate) fn start(place: &Place, line: &str) -> Result<Self> {
        // As a service manager would: where the kernel shares processors out by session (sched_autogroup), one program of a
        // contender has not the share of all others, nor two the share of one.
        Ok(Self(place.start(&format!("setsid {line}"))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid
    }

    /// What it said, for an error message.
    pub(crate) fn output(&self) -> String {
        self.0.output()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.0.signal(Signal::SIGTERM).is_ok() {
            let _ = self.0.wait(Duration::from_secs(3));
        }
    }
}

/// What some processes and all their descendants have used and hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    /// Threads of all of them.
    pub(crate) tasks: u64,
    /// Times that one of the threads slept and was woken.
    pub(crate) wakeups: u64,
}

impl Usage {
    pub(crate) fn of(roots: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in family(roots)? {
            // One that has just ended uses nothing.
            let Some(one) = Self::of_one(pid) else { continue };
            sum.cpu_seconds += one.cpu_seconds;
            sum.resident_bytes += one.resident_bytes;
            sum.tasks += one.tasks;
            sum.wakeups += one.wakeups;
        }
        Ok(sum)
    }

    pub(crate) fn megabytes(&self) -> f64 {
        self.resident_bytes as f64 / 1e6
    }

    fn of_one(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mut usage = Self { resident_bytes: field(&status, "VmRSS:")? * 1024, ..Self::default() };
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            usage.tasks += 1;
            usage.wakeups += field(&status, "voluntary_ctxt_switches:")?;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold blanks; utime and stime are the 12th and 13th field after it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        usage.cpu_seconds = ticks as f64 / TICKS;
        Some(usage)
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `roots` and all that descend from them.
fn family(roots: &[u32]) -> Result<Vec<u32>> {
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc").context("list processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut all = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        let more = children.remove(&pid).unwrap_or_default();
        all.extend(more.into_iter().filter(|child| !roots.contains(child)));
    }
    Ok(all)
}

/// USER_HZ: fixed by the kernel's interface on all machines Rust runs on.
const TICKS: f64 = 100.0;
