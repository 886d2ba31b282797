//! Bulk TCP by iperf3.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::Place;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk {
    pub(crate) gigabits: f64,
    pub(crate) gigabytes: f64,
}

/// `flags` are iperf3's own, as in `-P 8` or `-R`.
pub(crate) fn run(client: &Place, to: SocketAddr, seconds: u64, flags: &str) -> Result<Bulk> {
    let line = format!("iperf3 -J -c {} -p {} -t {seconds} {flags}", to.ip(), to.port());
    let finished = client.run_with(&line, b"", Duration::from_secs(seconds + 15))?;
    let report = finished.json()?;
    ensure!(report["error"].is_null(), "iperf3 to {to}: {}", report["error"]);
    let received = &report["end"]["sum_received"];
    let number = |field: &str| received[field].as_f64().with_context(|| format!("iperf3 tells no {field}"));
    Ok(Bulk { gigabits: number("bits_per_second")? / 1e9, gigabytes: number("bytes")? / 1e9 })
}
