//! `netd stats`: what goes through each port, from the difference of two answers.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::stats::{Bucket, Figures, Read, Stats};
use netd_api::value::Span;

use super::output::{Format, Table, print, print_line};

/// Show connections, rates, bytes and errors of services and published ports
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  netd stats
  netd stats --no-stream web
  netd stats --format json --no-stream          counters, from which rates follow

P50 and P99 say how long connecting to an endpoint took, of the interval's connections.")]
pub(super) struct Args {
    /// One table and no more
    #[arg(long)]
    no_stream: bool,
    /// What rates are worked out over, and between two tables
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Span,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only these
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) fn show(client: &Client, args: &Args) -> Result<ExitCode> {
    let pause = args.interval.get().max(SHORTEST);
    let mut before = read(client, args)?;
    if let Some(unknown) = args.services.iter().find(|name| !has(&before, name)) {
        bail!("show statistics: nothing is counted for {unknown:?}; `netd stats --no-stream` shows for what");
    }
    loop {
        if args.format == Format::Json {
            print_line(&serde_json::to_string(&before)?)?;
            if args.no_stream {
                return Ok(ExitCode::SUCCESS);
            }
        }
        std::thread::park_timeout(pause);
        let after = read(client, args)?;
        if args.format == Format::Table {
            print(&table(&before, &after))?;
            if args.no_stream {
                return Ok(ExitCode::SUCCESS);
            }
            print_line("")?;
        }
        before = after;
    }
}

const SHORTEST: Duration = Duration::from_millis(100);

fn has(stats: &Stats, service: &str) -> bool {
    stats.services.iter().chain(&stats.ports).any(|figures| figures.service == service)
}

fn read(client: &Client, args: &Args) -> Result<Stats> {
    let mut stats = client.call::<Read>(&Nothing {}, &Nothing {}).context("show statistics")?;
    if !args.services.is_empty() {
        let is_wanted = |figures: &Figures| args.services.contains(&figures.service);
        stats.services.retain(is_wanted);
        stats.ports.retain(is_wanted);
    }
    Ok(stats)
}

fn table(before: &Stats, after: &Stats) -> String {
    let span = SystemTime::from(after.time).duration_since(before.time.into()).unwrap_or_default();
    let mut table = Table::new(&[
        "SERVICE",
        "PORT",
        "OPEN",
        "NEW/S",
        "TO BACKEND/S",
        "TO CLIENT/S",
        "FAILED",
        "RETRIES",
        "P50",
        "P99",
    ]);
    for figures in &after.ports {
        let same = |other: &&Figures| other.service == figures.service && other.port == figures.port;
        let old = before.ports.iter().find(same);
        let since = |count: fn(&Figures) -> u64| {
            let grown = count(figures).saturating_sub(old.map_or(0, count));
            grown as f64 / span.as_secs_f64().max(f64::EPSILON)
        };
        let connect = grown(old.map_or(&[], |old| &old.connect), &figures.connect);
        table.row([
            figures.service.clone(),
            figures.port.as_deref().map(shown).unwrap_or_default(),
            figures.open.to_string(),
            format!("{:.1}", since(|figures| figures.accepted)),
            bytes(since(|figures| figures.bytes_to_backend)),
            bytes(since(|figures| figures.bytes_to_client)),
            figures.failed.values().sum::<u64>().to_string(),
            figures.retries.to_string(),
            quantile(&connect, 0.5),
            quantile(&connect, 0.99),
        ]);
    }
    table.render()
}

/// `tcp/10.0.0.9:*` for an address that is served on every port.
fn shown(port: &str) -> String {
    port.strip_suffix(":0").map_or_else(|| port.to_owned(), |address| format!("{address}:*"))
}

/// What has come in between; a data plane that was started in between has begun at nothing.
fn grown(before: &[Bucket], after: &[Bucket]) -> Vec<Bucket> {
    let old = before.iter().map(|bucket| bucket.count).chain(std::iter::repeat(0));
    after.iter().zip(old).map(|(new, old)| Bucket { count: new.count.saturating_sub(old), ..*new }).collect()
}

/// The bound of the bucket in which it lies: `<1ms`.
fn quantile(buckets: &[Bucket], part: f64) -> String {
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let rank = (total as f64 * part).ceil();
    let mut sum = 0;
    let mut longest = 0.0;
    for bucket in buckets {
        sum += bucket.count;
        let reached = total > 0 && sum as f64 >= rank;
        match bucket.up_to {
            Some(up_to) if reached => return format!("<{}", time(up_to)),
            Some(up_to) => longest = up_to,
            None if reached => return format!(">{}", time(longest)),
            None => {}
        }
    }
    "-".into()
}

fn time(seconds: f64) -> String {
    humantime::format_duration(Duration::from_micros((seconds * 1e6).round() as u64))
        .to_string()
        .replace(' ', "")
}

fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut count = count;
    let mut unit = 0;
    while count >= 1000.0 && unit + 1 < UNITS.len() {
        count /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count:.0}B") } else { format!("{count:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, accepted: u64, sent: u64, connect: [u64; 3]) -> Stats {
        let bounds = [Some(0.001), Some(0.25), None];
        let connect = bounds.into_iter().zip(connect).map(|(up_to, count)| Bucket { up_to, count }).collect();
        let figures = Figures {
            service: "web".into(),
            port: Some("tcp/10.0.0.9:80".into()),
            open: 3,
            accepted,
            bytes_to_client: sent,
            connect,
            ..Figures::default()
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Stats { time: time.into(), services: Vec::new(), ports: vec![figures] }
    }

    #[test]
    fn rates_are_what_came_in_between() {
        let shown = table(&at(10, 100, 0, [100, 0, 0]), &at(12, 150, 5_000_000, [140, 10, 0]));
        let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["web", "tcp/10.0.0.9:80", "3", "25.0", "0B", "2.5MB", "0", "0", "<1ms", "<250ms"]);
        assert_eq!(
            (super::shown("udp/[::1]:0"), super::shown("tcp/[::]:80")),
            ("udp/[::1]:*".into(), "tcp/[::]:80".into())
        );
        let restarted = table(&at(10, 100, 9, [0, 0, 0]), &at(11, 5, 0, [0, 0, 2]));
        assert!(restarted.contains(" 0.0 ") && restarted.contains(">250ms"), "{restarted}");
    }
}
