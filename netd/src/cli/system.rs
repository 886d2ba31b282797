//! `netd status`, `netd doctor`, `netd down`, `netd log`.

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::system::{self, Diagnosis, DownRequest, LogFilter, Verdict};
use netd_sys::process::PidFd;
use nix::poll::{PollFd, PollFlags, poll};

use super::output::{self, Format, print, print_json, print_line, print_one};

/// Show the daemon, the data plane, the store, the kernel's features and counts
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd status
  netd status --format json | jq .data_plane")]
pub(super) struct StatusArgs {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Check what netd needs from this host; says what to do
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  netd doctor

Fails if a check fails; warnings are no failure.")]
pub(super) struct DoctorArgs {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Take all ports and names off, and stop the daemon and the data plane
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd down               sandboxes keep their namespaces; the next `netd run` serves them again
  netd down --purge       nothing is left: no namespace, no device, no state")]
pub(super) struct DownArgs {
    /// Remove all kernel objects and the state too
    #[arg(long)]
    purge: bool,
}

/// Show or change what the daemon logs, while it runs
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd log                                    show it
  netd log debug
  netd log info,netd::manager=debug
  netd log info,access=off                    no line for each connection")]
pub(super) struct LogArgs {
    /// LEVEL[,TARGET=LEVEL]...
    filter: Option<String>,
}

pub(super) fn status(client: &Client, args: &StatusArgs) -> Result<ExitCode> {
    let status = client.call::<system::Status>(&Nothing {}, &Nothing {}).context("show the status")?;
    print_one(&status, args.format)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn doctor(client: &Client, args: &DoctorArgs) -> Result<ExitCode> {
    let diagnosis = client.call::<system::Doctor>(&Nothing {}, &Nothing {}).context("check the host")?;
    match args.format {
        Format::Json => print_json(&diagnosis)?,
        Format::Table => print(&report(&diagnosis))?,
    }
    let failed = diagnosis.checks.iter().any(|check| check.verdict == Verdict::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Milliseconds a daemon has to end: its requests, the data plane and the store have bounds of their own below that.
const END_WITHIN: u16 = 30_000;

/// The answer comes while the daemon still ends; down is down when its process is gone.
fn wait_for_the_end(daemon: Option<&PidFd>) -> Result<()> {
    let Some(daemon) = daemon else { return Ok(()) };
    let mut watched = [PollFd::new(daemon.as_fd(), PollFlags::POLLIN)];
    match poll(&mut watched, END_WITHIN).context("wait for the daemon's end")? {
        0 => bail!("take netd down: the daemon (process {}) has not ended yet", daemon.pid()),
        _ => Ok(()),
    }
}

pub(super) fn down(client: &Client, args: &DownArgs) -> Result<ExitCode> {
    let request = DownRequest { purge: args.purge };
    // Held from before the call, so that the number cannot have gone to another process when it is waited for.
    let status = client.call::<system::Status>(&Nothing {}, &Nothing {}).context("take netd down")?;
    let daemon = PidFd::open(status.pid);
    let report = client.call::<system::Down>(&Nothing {}, &request).context("take netd down")?;
    wait_for_the_end(daemon.ok().as_ref())?;
    if report.errors.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for error in &report.errors {
        eprintln!("netd: take netd down: {}", output::one_line(error));
    }
    Ok(ExitCode::FAILURE)
}

pub(super) fn log(client: &Client, args: LogArgs) -> Result<ExitCode> {
    let filter = match args.filter {
        None => client.call::<system::GetLog>(&Nothing {}, &Nothing {}).context("show the log filter")?,
        Some(filter) if filter.trim().is_empty() => bail!("change the log filter: it is empty; write `info`"),
        Some(filter) => client
            .call::<system::SetLog>(&Nothing {}, &LogFilter { filter })
            .context("change the log filter")?,
    };
    print_line(&filter.filter)?;
    Ok(ExitCode::SUCCESS)
}

/// The remedy stands below what it is for.
fn report(diagnosis: &Diagnosis) -> String {
    let width = diagnosis.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for check in &diagnosis.checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        let line = format!("{verdict:7}  {:width$}  {}", check.name, check.detail);
        text.push_str(line.trim_end());
        text.push('\n');
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("{:7}  {:width$}  -> {remedy}\n", "", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use netd_api::system::Check;

    use super::*;

    #[test]
    fn a_remedy_stands_below_its_check() {
        let check = |name: &str, verdict, remedy: Option<&str>| Check {
            name: name.into(),
            verdict,
            detail: format!("about {name}"),
            remedy: remedy.map(Into::into),
        };
        let checks = vec![
            check("kernel", Verdict::Ok, None),
            check("ip-forward", Verdict::Failed, Some("set it")),
            check("mtu", Verdict::Warning, None),
        ];
        assert_eq!(
            report(&Diagnosis { checks }),
            "ok       kernel      about kernel\n\
             FAILED   ip-forward  about ip-forward\n\
             \u{20}                    -> set it\n\
             warning  mtu         about mtu\n"
        );
    }
}
