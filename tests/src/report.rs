//! What a failed scenario prints: every command so far, then how each host looks and what each daemon said.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use crate::place::Place;

/// The commands of a scenario in order, and the logs worth printing.
pub struct Transcript {
    started: Instant,
    lines: Mutex<Vec<String>>,
    logs: Mutex<Vec<PathBuf>>,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), lines: Mutex::default(), logs: Mutex::default() }
    }

    pub fn note(&self, line: &str) {
        let line = format!("{:8.3} {line}", self.started.elapsed().as_secs_f64());
        self.lines.lock().expect("no holder panics").push(line);
    }

    pub(crate) fn watch(&self, log: &Path) {
        let mut logs = self.logs.lock().expect("no holder panics");
        if !logs.iter().any(|known| known == log) {
            logs.push(log.into());
        }
    }

    /// The whole picture, for a person to read.
    pub(crate) fn tell(&self, places: &[Place]) -> String {
        let lines = self.lines.lock().expect("no holder panics").clone();
        let logs = self.logs.lock().expect("no holder panics").clone();
        let mut out = format!("\n---- commands\n{}\n", lines.join("\n"));
        for place in places {
            for look in [
                "ip -br link",
                "ip -br addr",
                "ip route show table all",
                "ip -6 route",
                "ip rule",
                "nft list ruleset",
                "ss -Htulpn",
            ] {
                let seen = place.look(look).unwrap_or_else(|error| format!("{error:#}"));
                if !seen.trim().is_empty() {
                    let _ = writeln!(out, "---- {}: {look}\n{}", place.name, seen.trim_end());
                }
            }
        }
        for log in logs {
            let text = std::fs::read(&log).unwrap_or_default();
            let _ = writeln!(out, "---- {}\n{}", log.display(), tail(&String::from_utf8_lossy(&text)));
        }
        out
    }
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

const LOG_LINES: usize = 200;
