//! HTTP requests by wrk.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use netd_tests::Place;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Requests {
    pub(crate) rate: f64,
    pub(crate) p99: Duration,
    /// Connections and requests that went wrong.
    pub(crate) failed: u64,
}

pub(crate) fn run(
    client: &Place,
    to: SocketAddr,
    seconds: u64,
    connections: usize,
    close: bool,
) -> Result<Requests> {
    let header = if close { "-H 'Connection: close' " } else { "" };
    let line = format!("wrk -t1 -c{connections} -d{seconds}s --latency {header}http://{to}/");
    let finished = client.run_with(&line, b"", Duration::from_secs(seconds + 15))?.success()?;
    parse(&finished.stdout).with_context(|| format!("read what wrk said: {}", finished.stdout))
}

fn parse(text: &str) -> Option<Requests> {
    let after = |mark: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(mark).map(|rest| rest.trim().to_owned()))
    };
    let numbers = |text: String| {
        let words: Vec<_> = text.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).collect();
        words.into_iter().sum::<u64>()
    };
    let failed = [after("Socket errors:"), after("Non-2xx or 3xx responses:")];
    Some(Requests {
        rate: after("Requests/sec:")?.parse().ok()?,
        p99: span(&after("99%")?)?,
        failed: failed.into_iter().flatten().map(numbers).sum(),
    })
}

/// `1.52ms`, `870.00us`, `1.2s`.
fn span(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_errors_is_read() {
        let text = "  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.30ms  500.00us  9.99ms\n  \
                    Latency Distribution\n     50%    1.20ms\n     99%    2.50ms\n  100 requests in 2.00s, 1MB read\n  \
                    Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 2\n\
                    Requests/sec:  48123.50\nTransfer/sec:  1MB\n";
        let wanted = Requests { rate: 48_123.5, p99: Duration::from_micros(2500), failed: 6 };
        assert_eq!(parse(text), Some(wanted));
        assert_eq!(parse("unable to connect"), None);
    }
}
