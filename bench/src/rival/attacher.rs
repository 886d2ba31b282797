//! Who attaches namespaces to a network: one trait, so that all are timed alike.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::Place;

use crate::measure::Name;

/// Attaches may go on side by side.
pub(crate) trait Attacher: Sync {
    fn name(&self) -> Name;

    /// Attaches number `number` with its namespace at `netns`; how long that took.
    fn attach(&self, number: usize, netns: &Path) -> Result<Duration>;

    fn detach(&self, number: usize, netns: &Path) -> Result<Duration>;

    /// Takes away what failed attaches and detaches have left behind, so that the next round starts clean.
    fn tidy(&self) {}
}

/// For those that work with iptables and a bridge: all rules of the node go, and the bridge with its ports.
pub(crate) fn wipe(place: &Place, bridge: &str) {
    for line in ["nft flush ruleset".to_owned(), format!("ip link delete {bridge}")] {
        // There may be nothing to take away.
        let _ = place.look(&line);
    }
}

/// Runs a program in `place` and waits; its output, and the time from its start to its end.
pub(crate) fn timed(place: &Place, command: Command, stdin: &[u8]) -> Result<(Vec<u8>, Duration)> {
    place.enter(move || run(command, stdin))?
}

fn run(mut command: Command, stdin: &[u8]) -> Result<(Vec<u8>, Duration)> {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    // Dropped at once: the program reads to the end. All these inputs fit a pipe.
    let sent = child.stdin.take().context("stdin is piped")?.write_all(stdin);
    let output = child.wait_with_output()?;
    let took = start.elapsed();
    sent.with_context(|| format!("tell {program} what to do"))?;
    let said = || [&output.stderr[..], &output.stdout].concat();
    ensure!(
        output.status.success(),
        "{program}: {}: {}",
        output.status,
        String::from_utf8_lossy(&said()).trim()
    );
    Ok((output.stdout, took))
}
