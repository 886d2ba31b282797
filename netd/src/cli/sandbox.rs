//! `netd sandbox`: create, ls, inspect, rm, run.

mod attach;
mod child;
mod create;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use netd_api::client::ClientError;
use netd_api::client::blocking::Client;
use netd_api::network::ListParams;
use netd_api::sandbox::{self, RemoveParams, Sandbox, SandboxParams};
use netd_api::value::Reference;
use netd_api::{Code, Nothing};

use super::output::{self, print_line};
use super::several::{InspectFlags, ListFlags};
use super::{each, usage};
use create::CreateArgs;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Create(Box<CreateOnlyArgs>),
    Ls(LsArgs),
    Inspect(InspectArgs),
    Check(CheckArgs),
    Rm(RmArgs),
    Run(Box<RunArgs>),
}

/// Create a sandbox; prints its id
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd sandbox create web -p 8080:80
  netd sandbox create web --network app --alias search --ip 10.7.0.9
  netd sandbox create web --network app --network name=db,alias=front
  netd sandbox create web1 --service web                    an endpoint of a service, on its network
  netd sandbox create side --network container:web          shares web's namespace
  netd sandbox create given --netns /proc/4711/ns/net       a namespace that somebody else made

The namespace has a name, so `ip netns exec NAME` works too; `netd exec` adds resolv.conf and hosts.")]
pub(super) struct CreateOnlyArgs {
    #[command(flatten)]
    create: CreateArgs,
}

/// Create a sandbox, run a command in it, remove it when the command ends
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd sandbox run web -p 8080:80 -- python3 -m http.server 80
  netd sandbox run probe --network app -- curl -s http://web/

The exit code is the command's; 128 + N if the signal N ended it. SIGINT, SIGTERM, SIGHUP and SIGQUIT reach
the command.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    create: CreateArgs,
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// List sandboxes
#[derive(Args, Debug)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  netd sandbox ls
  netd sandbox ls -q --filter network=app
  netd sandbox ls --format json

Filters: id, label, label!, name, network. Values of one key are alternatives, keys must all hold."
)]
pub(super) struct LsArgs {
    #[command(flatten)]
    flags: ListFlags,
}

/// Show sandboxes with their networks and ports
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd sandbox inspect web
  netd sandbox inspect web --format table")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
}

/// Look whether sandboxes have all that they should; prints what is missing
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd sandbox check web
  netd sandbox check $(netd sandbox ls -q)

The exit code is 1 if something is missing. Nothing is changed; the daemon puts things right when it starts.")]
pub(super) struct CheckArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

/// Remove sandboxes with their ports and names
#[derive(Args, Debug)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  netd sandbox rm web
  netd sandbox rm -f $(netd sandbox ls -q)

An endpoint of a service gets no new connections first; it goes when the last one has ended, or after the
service's drain time (10s unless set). With -f it goes at once."
)]
pub(super) struct RmArgs {
    /// At once; also one that others share. One that is not there is no failure
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

pub(super) fn run(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Create(args) => match make(client, args.create)? {
            Ok(sandbox) => print_line(&sandbox.id).map(|()| ExitCode::SUCCESS).map_err(Into::into),
            Err(code) => Ok(code),
        },
        Command::Ls(args) => list(client, &args),
        Command::Inspect(args) => inspect(client, &args),
        Command::Check(args) => check(client, &args),
        Command::Rm(args) => remove(client, &args),
        Command::Run(args) => run_inside(client, *args),
    }
}

/// The inner failure is one of usage, told already.
fn make(client: &Client, args: CreateArgs) -> Result<Result<Sandbox, ExitCode>> {
    let deed = format!("create the sandbox {}", args.name);
    let request = match args.request() {
        Ok(request) => request,
        Err(error) => return Ok(Err(usage(&format!("{deed}: {error:#}"))?)),
    };
    let sandbox = client.call::<sandbox::Create>(&Nothing {}, &request).context(deed)?;
    for warning in &sandbox.warnings {
        eprintln!("netd: warning: {}", output::one_line(warning));
    }
    Ok(Ok(sandbox))
}

fn run_inside(client: &Client, args: RunArgs) -> Result<ExitCode> {
    // Before the sandbox is made: from here on a signal does not end this process and leave the sandbox behind.
    let mut signals = child::Signals::catch()?;
    let sandbox = match make(client, args.create)? {
        Ok(sandbox) => sandbox,
        Err(code) => return Ok(code),
    };
    let id: Reference = sandbox.id.parse().context("read the new sandbox's id")?;
    let ended = child::run(&mut signals, client.socket(), &id, &args.command);
    let removed = take_away(client, &RemoveParams { name: id, force: true })
        .with_context(|| format!("remove the sandbox {}", sandbox.name));
    match (ended, removed) {
        (Ok(code), Ok(())) => Ok(code),
        (Err(error), Ok(())) => Err(error),
        (Ok(code), Err(error)) => {
            output::complain(&error);
            Ok(if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code })
        }
        (Err(first), Err(second)) => {
            output::complain(&second);
            Err(first)
        }
    }
}

fn list(client: &Client, args: &LsArgs) -> Result<ExitCode> {
    let params = ListParams { filter: args.flags.filter.clone() };
    let sandboxes = client.call::<sandbox::List>(&params, &Nothing {}).context("list sandboxes")?;
    args.flags.print(
        &sandboxes,
        |sandbox: &Sandbox| &sandbox.id,
        |id| table::render(&sandboxes, id, SystemTime::now()),
    )
}

fn inspect(client: &Client, args: &InspectArgs) -> Result<ExitCode> {
    args.flags.print("sandbox", |name| client.call::<sandbox::Inspect>(&SandboxParams { name }, &Nothing {}))
}

fn check(client: &Client, args: &CheckArgs) -> Result<ExitCode> {
    each(&args.names, |name| {
        let params = SandboxParams { name: name.clone() };
        let faults = client.call::<sandbox::Check>(&params, &Nothing {});
        let faults = faults.with_context(|| format!("check the sandbox {name}"))?;
        let line = |fault: &sandbox::Fault| match &fault.network {
            Some(network) => format!("on {network}, {}", fault.detail),
            None => fault.detail.clone(),
        };
        let found: Vec<String> = faults.iter().map(line).collect();
        anyhow::ensure!(found.is_empty(), "check the sandbox {name}: {}", found.join("; "));
        Ok(())
    })
}

fn remove(client: &Client, args: &RmArgs) -> Result<ExitCode> {
    // Connections of an endpoint get the time that its service gives them.
    let patient = Client::new(client.socket()).context("make a client")?.timeout(PATIENCE);
    each(&args.names, |name| {
        let params = RemoveParams { name: name.clone(), force: args.force };
        take_away(&patient, &params).with_context(|| format!("remove the sandbox {name}"))?;
        Ok(print_line(name)?)
    })
}

/// Longer than any service lets its endpoints drain.
const PATIENCE: Duration = Duration::from_secs(90_000);

/// With force, one that is gone already is as good as removed.
fn take_away(client: &Client, params: &RemoveParams) -> Result<(), ClientError> {
    match client.call::<sandbox::Remove>(params, &Nothing {}) {
        Err(error) if params.force && error.api().is_some_and(|api| api.code == Code::NotFound) => Ok(()),
        removed => removed.map(|_nothing| ()),
    }
}
