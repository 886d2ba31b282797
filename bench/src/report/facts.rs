//! On what machine, and with which programs, the figures came about.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::scenario::Plan;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_mb: u64,
    pub(crate) load_before: String,
    pub(crate) commit: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    /// Package and version of everything measured or measuring.
    pub(crate) versions: Vec<(String, String)>,
}

impl Facts {
    pub(crate) fn gather(plan: &Plan) -> Self {
        let cpu = read("/proc/cpuinfo");
        let memory = read("/proc/meminfo");
        Self {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            processor: value_of(&cpu, "model name").unwrap_or("unknown").into(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mb: value_of(&memory, "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kilobytes| kilobytes / 1024),
            load_before: read("/proc/loadavg").trim().into(),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            rounds: plan.rounds,
            seconds: plan.seconds,
            versions: PACKAGES.iter().map(|package| ((*package).to_owned(), version(package))).collect(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':').map(|(_, value)| value.trim()))
}

fn version(package: &str) -> String {
    said("dpkg-query", &["-W", "-f", "${Version}", package])
}

/// What a program prints, or `unknown`.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.ok().filter(|output| output.status.success());
    text.map_or_else(|| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

const PACKAGES: &[&str] = &[
    "aardvark-dns",
    "containernetworking-plugins",
    "dnsmasq-base",
    "dnsperf",
    "docker.io",
    "haproxy",
    "iperf3",
    "netavark",
    "nftables",
    "nginx-light",
    "wrk",
];
