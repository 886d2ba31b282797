//! `netd events`.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use netd_api::Filter;
use netd_api::client::blocking::Client;
use netd_api::events::{self, Event, FollowParams};
use netd_api::value::Timestamp;

use super::output::{Format, print_line};
use super::usage;

/// Follow what happens
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  netd events
  netd events --since 10m --filter type=network
  netd events --since 1h --until 0s --format json      what is remembered of the last hour

Times are 2026-01-31T08:00:00Z, seconds since 1970, or how long ago: 90s, 10m, 1h30m.
Filters: type, action (or event), network, sandbox, service, node, label.")]
pub(super) struct Args {
    /// Begin with what is remembered from this time on
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// End at this time
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Only such events, see below
    #[arg(short, long, value_name = "K=V")]
    filter: Vec<Filter>,
    /// json: one object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn follow(client: &Client, args: Args) -> Result<ExitCode> {
    let now = SystemTime::now();
    let time = |text: Option<String>, flag| text.map(|text| time(&text, now).context(flag)).transpose();
    let (since, until) = match (time(args.since, "--since"), time(args.until, "--until")) {
        (Ok(since), Ok(until)) => (since, until),
        (Err(error), _) | (_, Err(error)) => return Ok(usage(&format!("follow events: {error:#}"))?),
    };
    let params = FollowParams { since, until, filter: args.filter };
    for event in client.follow::<events::Follow>(&params).context("follow events")? {
        let event = event.context("follow events")?;
        match args.format {
            Format::Json => print_line(&serde_json::to_string(&event)?)?,
            Format::Table => print_line(&line(&event))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn time(text: &str, now: SystemTime) -> Result<Timestamp> {
    match humantime::parse_duration(text) {
        Ok(ago) => Ok(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).into()),
        Err(_) => Ok(text.parse().context("no length of time, as 90s or 10m, and no time")?),
    }
}

/// As Docker writes them.
fn line(event: &Event) -> String {
    let mut attributes = vec![format!("name={}", event.name)];
    attributes.extend(event.attributes.iter().map(|(key, value)| format!("{key}={value}")));
    format!("{} {} {} {} ({})", event.time, event.r#type, event.action, event.id, attributes.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_points_or_ages() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let at = |seconds| Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time("1m40s", now).unwrap(), at(900));
        assert_eq!(time("17", now).unwrap(), at(17));
        assert_eq!(time("1970-01-01T00:00:05Z", now).unwrap(), at(5));
        assert_eq!(time("9h", now).unwrap(), at(0));
        time("soon", now).unwrap_err();
    }

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            time: Timestamp::from(SystemTime::UNIX_EPOCH),
            r#type: "network".into(),
            action: "connect".into(),
            id: "0123".into(),
            name: "app".into(),
            attributes: [("sandbox".to_owned(), "web".to_owned())].into(),
        };
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:00.000000000Z network connect 0123 (name=app, sandbox=web)"
        );
    }
}
