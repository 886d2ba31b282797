//! `netd service`: create, ls, inspect, update, rm, drain.

mod create;
mod table;
mod update;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use netd_api::client::blocking::Client;
use netd_api::service::{self, DrainEndpoint, ListParams, Service, ServiceParams};
use netd_api::value::Reference;
use netd_api::{Filter, Nothing};

use super::each;
use super::output::{self, Format, print, print_json, print_line, print_one};

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
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only such, see below
    #[arg(short, long, value_name = "K=V")]
    filter: Vec<Filter>,
}

/// Show services with their endpoints
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd service inspect web
  netd service inspect web --format table")]
pub(super) struct InspectArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
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
        Command::Ls(args) => list(client, args),
        Command::Inspect(args) => inspect(client, &args),
        Command::Update(args) => update::update(client, *args),
        Command::Rm(args) => remove(client, &args),
        Command::Drain(args) => drain(client, args),
    }
}

fn list(client: &Client, args: LsArgs) -> Result<ExitCode> {
    let params = ListParams { filter: args.filter };
    let services = client.call::<service::List>(&params, &Nothing {}).context("list services")?;
    let id = |service: &Service| if args.no_trunc { service.id.clone() } else { output::short(&service.id) };
    if args.quiet {
        print(&services.iter().map(|service| id(service) + "\n").collect::<String>())?;
    } else if args.format == Format::Json {
        print_json(&services)?;
    } else {
        print(&table::render(&services, id))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(client: &Client, args: &InspectArgs) -> Result<ExitCode> {
    let mut found = Vec::new();
    let code = each(&args.names, |name| {
        let params = ServiceParams { name: name.clone() };
        let shown = client.call::<service::Inspect>(&params, &Nothing {});
        found.push(shown.with_context(|| format!("inspect the service {name}"))?);
        Ok(())
    })?;
    match args.format {
        Format::Json => print_json(&found)?,
        Format::Table => found.iter().try_for_each(|service| print_one(service, Format::Table))?,
    }
    Ok(code)
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
