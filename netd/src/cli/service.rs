//! `netd service`: create, ls, inspect, update, rm, drain.

mod create;
mod table;
mod update;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::service::{self, DrainEndpoint, ListParams, Service, ServiceParams};
use netd_api::value::Reference;

use super::each;
use super::output::print_line;
use super::several::{InspectFlags, ListFlags};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Create(Box<create::CreateArgs>),
    Ls(LsArgs),
    Inspect(InspectArgs),
    Update(Box<update::UpdateArgs>),
    Rm(RmArgs),
    Drain(DrainArgs),
}

/// List services
#[derive(Args, Debug)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  netd service ls
  netd service ls -q --filter network=app
  netd service ls --format json

Filters: id, label, label!, mode=vip|dnsrr|external-name, name, network. Values of one key are alternatives, keys
must all hold."
)]
pub(super) struct LsArgs {
    #[command(flatten)]
    flags: ListFlags,
}

/// Show services with their endpoints
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd service inspect web
  netd service inspect web --format table")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
}

/// Remove services; their sandboxes stay
#[derive(Args, Debug)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  netd service rm web
  netd service rm $(netd service ls -q --filter label=test)"
)]
pub(super) struct RmArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

/// Give an endpoint no new connections; old ones finish
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd service drain web web1
  netd service drain web 192.0.2.7:80          a backend outside
  netd service drain --undo web web1           it gets connections again")]
pub(super) struct DrainArgs {
    /// Give it new connections again
    #[arg(long)]
    undo: bool,
    name: Reference,
    /// A sandbox, an endpoint's id, or IP:PORT of a backend outside
    endpoint: String,
}

pub(super) fn run(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Create(args) => create::create(client, *args),
        Command::Ls(args) => list(client, &args),
        Command::Inspect(args) => inspect(client, &args),
        Command::Update(args) => update::update(client, *args),
        Command::Rm(args) => remove(client, &args),
        Command::Drain(args) => drain(client, args),
    }
}

fn list(client: &Client, args: &LsArgs) -> Result<ExitCode> {
    let params = ListParams { filter: args.flags.filter.clone() };
    let services = client.call::<service::List>(&params, &Nothing {}).context("list services")?;
    args.flags.print(&services, |service: &Service| &service.id, |id| table::render(&services, id))
}

fn inspect(client: &Client, args: &InspectArgs) -> Result<ExitCode> {
    args.flags.print("service", |name| client.call::<service::Inspect>(&ServiceParams { name }, &Nothing {}))
}

fn remove(client: &Client, args: &RmArgs) -> Result<ExitCode> {
    each(&args.names, |name| {
        let params = ServiceParams { name: name.clone() };
        client
            .call::<service::Remove>(&params, &Nothing {})
            .with_context(|| format!("remove the service {name}"))?;
        Ok(print_line(name)?)
    })
}

fn drain(client: &Client, args: DrainArgs) -> Result<ExitCode> {
    let deed = format!("drain the endpoint {} of the service {}", args.endpoint, args.name);
    let body = DrainEndpoint { endpoint: args.endpoint, undo: args.undo };
    client.call::<service::Drain>(&ServiceParams { name: args.name }, &body).context(deed)?;
    Ok(ExitCode::SUCCESS)
}
