//! `netd network`: create, ls, inspect, rm, prune, connect, disconnect, update, alias.

mod create;
mod update;

use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use netd_api::client::blocking::Client;
use netd_api::network::{self, ConnectSandbox, DisconnectSandbox, ListParams, Network, NetworkParams};
use netd_api::value::{Alias, Reference};
use netd_api::{Filter, Nothing};

use super::each;
use super::output::{Table, print, print_line};
use super::several::{InspectFlags, ListFlags};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Create(Box<create::CreateArgs>),
    Ls(LsArgs),
    Inspect(InspectArgs),
    Rm(RmArgs),
    Prune(PruneArgs),
    Connect(ConnectArgs),
    Disconnect(DisconnectArgs),
    Update(update::UpdateArgs),
    Alias(update::AliasArgs),
}

/// List networks
#[derive(Args, Debug)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  netd network ls
  netd network ls -q --filter label=team=web
  netd network ls --format json

Filters: driver, id, label, label!, name, scope, type=custom|builtin, dangling=true|false. Values of one
key are alternatives, keys must all hold."
)]
pub(super) struct LsArgs {
    #[command(flatten)]
    flags: ListFlags,
}

/// Show networks with the sandboxes on them
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd network inspect app
  netd network inspect app --format table")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
}

/// Remove networks that no sandbox is on
#[derive(Args, Debug)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  netd network rm app
  netd network rm $(netd network ls -q --filter label=test)"
)]
pub(super) struct RmArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

/// Remove all networks that no sandbox is on
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd network prune
  netd network prune -f --filter label!=keep")]
pub(super) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=K[=V], label!=K[=V]
    #[arg(long, value_name = "K=V")]
    filter: Vec<Filter>,
}

/// Put a running sandbox on one more network
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd network connect app web
  netd network connect --ip 10.1.0.9 --alias search app web")]
pub(super) struct ConnectArgs {
    /// This address of the network, not any
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// The same of IPv6
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// One more name of the sandbox on this network
    #[arg(long, value_name = "NAME")]
    alias: Vec<Alias>,
    network: Reference,
    sandbox: Reference,
}

/// Take a running sandbox off a network
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  netd network disconnect app web")]
pub(super) struct DisconnectArgs {
    network: Reference,
    sandbox: Reference,
}

pub(super) fn run(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Create(args) => create::create(client, *args),
        Command::Ls(args) => list(client, &args),
        Command::Inspect(args) => inspect(client, &args),
        Command::Rm(args) => remove(client, &args),
        Command::Prune(args) => prune(client, args),
        Command::Connect(args) => connect(client, args),
        Command::Disconnect(args) => disconnect(client, args),
        Command::Update(args) => update::network(client, args),
        Command::Alias(args) => update::aliases(client, args),
    }
}

fn list(client: &Client, args: &LsArgs) -> Result<ExitCode> {
    let params = ListParams { filter: args.flags.filter.clone() };
    let networks = client.call::<network::List>(&params, &Nothing {}).context("list networks")?;
    args.flags.print(&networks, |network: &Network| &network.id, |id| table(&networks, id))
}

fn table(networks: &[Network], id: impl Fn(&Network) -> String) -> String {
    let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"]);
    for network in networks {
        let subnets: Vec<String> =
            network.ipam.config.iter().map(|config| config.subnet.to_string()).collect();
        table.row([
            id(network),
            network.name.clone(),
            network.driver.clone(),
            network.scope.clone(),
            subnets.join(", "),
        ]);
    }
    table.render()
}

fn inspect(client: &Client, args: &InspectArgs) -> Result<ExitCode> {
    args.flags.print("network", |name| client.call::<network::Inspect>(&NetworkParams { name }, &Nothing {}))
}

fn remove(client: &Client, args: &RmArgs) -> Result<ExitCode> {
    each(&args.names, |name| {
        let params = NetworkParams { name: name.clone() };
        client
            .call::<network::Remove>(&params, &Nothing {})
            .with_context(|| format!("remove the network {name}"))?;
        Ok(print_line(name)?)
    })
}

fn prune(client: &Client, args: PruneArgs) -> Result<ExitCode> {
    if !args.force && !confirmed("Remove all networks that no sandbox is on? [y/N] ")? {
        bail!("prune networks: it was not confirmed; answer y, or give -f");
    }
    let params = ListParams { filter: args.filter };
    let pruned = client.call::<network::Prune>(&params, &Nothing {}).context("prune networks")?;
    print(&pruned.networks_deleted.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Asks on the terminal only: a script gives `-f`, or says `y` on its standard input.
fn confirmed(question: &str) -> Result<bool> {
    if io::stdin().is_terminal() {
        eprint!("{question}");
    }
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn connect(client: &Client, args: ConnectArgs) -> Result<ExitCode> {
    let deed = format!("connect the sandbox {} to the network {}", args.sandbox, args.network);
    let body = ConnectSandbox {
        sandbox: args.sandbox,
        ipv4_address: args.ip,
        ipv6_address: args.ip6,
        aliases: args.alias,
        mac_address: None,
        interface: None,
        dns_name: None,
        bandwidth: None,
        owner: None,
    };
    client.call::<network::Connect>(&NetworkParams { name: args.network }, &body).context(deed)?;
    Ok(ExitCode::SUCCESS)
}

fn disconnect(client: &Client, args: DisconnectArgs) -> Result<ExitCode> {
    let deed = format!("disconnect the sandbox {} from the network {}", args.sandbox, args.network);
    let body = DisconnectSandbox { sandbox: args.sandbox };
    client.call::<network::Disconnect>(&NetworkParams { name: args.network }, &body).context(deed)?;
    Ok(ExitCode::SUCCESS)
}
