//! Many DNS questions at once by dnsperf, as eight clients with 100 outstanding.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use netd_tests::Place;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answers {
    pub(crate) rate: f64,
    /// Percent of the questions without an answer, or with an error for an answer.
    pub(crate) failed: f64,
}

/// A file with a question for each name.
pub(crate) fn questions(file: &str, names: impl Iterator<Item = String>) -> Result<PathBuf> {
    let path = Path::new("/run/lab").join(file);
    let text: String = names.map(|name| name + " A\n").collect();
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

pub(crate) fn run(client: &Place, server: SocketAddr, questions: &Path, seconds: u64) -> Result<Answers> {
    let line = format!(
        "dnsperf -s {} -p {} -d {} -l {seconds} -c 8 -q 100 -t 1",
        server.ip(),
        server.port(),
        questions.display()
    );
    let finished = client.run_with(&line, b"", Duration::from_secs(seconds + 15))?.success()?;
    parse(&finished.stdout).with_context(|| format!("read what dnsperf said: {}", finished.stdout))
}

fn parse(text: &str) -> Option<Answers> {
    let after = |mark| text.lines().find_map(|line| line.trim().strip_prefix(mark)).map(str::trim);
    let first = |mark| after(mark)?.split(' ').next()?.parse::<f64>().ok();
    let sent = first("Queries sent:").filter(|sent| *sent > 0.0)?;
    // "NOERROR 100 (99.0%), SERVFAIL 1 (1.0%)"
    let codes = after("Response codes:").unwrap_or_default();
    let good = codes.split(", ").find_map(|code| code.strip_prefix("NOERROR "));
    let good = good.and_then(|count| count.split(' ').next()?.parse().ok()).unwrap_or(0.0);
    Some(Answers { rate: first("Queries per second:")?, failed: (sent - good).max(0.0) * 100.0 / sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_silence_count_as_failed() {
        let text = "Statistics:\n\n  Queries sent:         1000\n  Queries completed:    990 (99.00%)\n  \
                    Queries lost:         10 (1.00%)\n\n  Response codes:       NOERROR 980 (98.99%), SERVFAIL 10 (1.01%)\n  \
                    Queries per second:   78612.5\n";
        assert_eq!(parse(text), Some(Answers { rate: 78_612.5, failed: 2.0 }));
        assert_eq!(parse("Error: no server"), None);
    }
}
