//! `netd node`: ls, inspect, drain, activate, rm.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use netd_api::client::blocking::Client;
use netd_api::node::{self, ListParams, Node, NodeParams, RemoveParams};
use netd_api::value::Reference;
use netd_api::{Filter, Nothing};

use super::each;
use super::output::{Format, Table, print, print_json, print_line};
use super::several::InspectFlags;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Ls(LsArgs),
    Inspect(InspectArgs),
    /// Lead no new connections to what runs on nodes; old ones finish
    Drain(NamesArgs),
    /// Take drained or removed nodes back
    Activate(NamesArgs),
    Rm(RmArgs),
}

/// List the nodes of the cluster, as this one knows them
#[derive(Args, Debug)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  netd node ls
  netd node ls -q --filter state=down

Filters: name, state=ready|down|removed, availability=active|drain|removed."
)]
pub(super) struct LsArgs {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// Only such, see below
    #[arg(short, long, value_name = "K=V")]
    filter: Vec<Filter>,
}

/// Show nodes: addresses, tunnels, version, state
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  netd node inspect node2")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd node drain node2        lead no new connections to what runs there; old ones finish
  netd node activate node2     take it back, drained or removed")]
pub(super) struct NamesArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

/// Take nodes out of the cluster, with their endpoints and addresses
#[derive(Args, Debug)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  netd node rm node2             one that is gone: its addresses are free again
  netd node rm --force node2     one that is alive: its sandboxes leave all networks of the cluster

A node that was removed stays away until `netd node activate NAME`."
)]
pub(super) struct RmArgs {
    /// Also one that is alive
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

pub(super) fn run(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Ls(args) => list(client, args),
        Command::Inspect(args) => inspect(client, &args),
        Command::Drain(args) => each(&args.names, |name| {
            let params = NodeParams { name: name.clone() };
            let drained = client.call::<node::Drain>(&params, &Nothing {});
            drained.with_context(|| format!("drain the node {name}"))?;
            Ok(print_line(name)?)
        }),
        Command::Activate(args) => each(&args.names, |name| {
            let params = NodeParams { name: name.clone() };
            let activated = client.call::<node::Activate>(&params, &Nothing {});
            activated.with_context(|| format!("activate the node {name}"))?;
            Ok(print_line(name)?)
        }),
        Command::Rm(args) => each(&args.names, |name| {
            let params = RemoveParams { name: name.clone(), force: args.force };
            let removed = client.call::<node::Remove>(&params, &Nothing {});
            removed.with_context(|| format!("remove the node {name}"))?;
            Ok(print_line(name)?)
        }),
    }
}

fn list(client: &Client, args: LsArgs) -> Result<ExitCode> {
    let params = ListParams { filter: args.filter };
    let nodes = client.call::<node::List>(&params, &Nothing {}).context("list nodes")?;
    if args.quiet {
        print(&nodes.iter().map(|node| format!("{}\n", node.name)).collect::<String>())?;
    } else if args.format == Format::Json {
        print_json(&nodes)?;
    } else {
        print(&table(&nodes))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(nodes: &[Node]) -> String {
    let mut table = Table::new(&["NAME", "STATE", "AVAILABILITY", "ADDRESS", "ENDPOINTS", "VERSION"]);
    for node in nodes {
        let name = if node.here { format!("{} *", node.name) } else { node.name.clone() };
        let address = node.address.map(|address| address.to_string()).unwrap_or_default();
        let version = node.version.clone().unwrap_or_default();
        let (state, availability) = (node.state.as_str(), node.availability.as_str());
        let endpoints = node.endpoints.to_string();
        table.row([name, state.to_owned(), availability.to_owned(), address, endpoints, version]);
    }
    table.render()
}

fn inspect(client: &Client, args: &InspectArgs) -> Result<ExitCode> {
    args.flags.print("node", |name| client.call::<node::Inspect>(&NodeParams { name }, &Nothing {}))
}
