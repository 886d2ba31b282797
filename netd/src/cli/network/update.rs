//! `netd network update` and `netd network alias`: live changes of a network, and of a sandbox's names on it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use netd_api::client::blocking::Client;
use netd_api::network::{ChangeEndpoint, ChangeNetwork, NetworkParams, Update, UpdateEndpoint};
use netd_api::value::{Alias, Label, Reference};

/// Change options of a network while sandboxes are on it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd network update -o isolate=true app
  netd network update -o icc=false -o masquerade=false app

Options (-o): icc=true|false (sandboxes of this network reach each other), isolate=true|false (other networks are
kept out), masquerade=true|false (what leaves takes the host's address). Connections that exist go on.")]
pub(in crate::cli) struct UpdateArgs {
    /// An option and its new value
    #[arg(short, long, value_name = "K=V", required = true)]
    opt: Vec<Label>,
    network: Reference,
}

/// Give a running sandbox more names on a network, or take some
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd network alias --add search app web
  netd network alias --add blue --rm green app web")]
pub(in crate::cli) struct AliasArgs {
    /// A name that it gets on the network
    #[arg(long, value_name = "NAME", required_unless_present = "rm")]
    add: Vec<Alias>,
    /// A name that it loses there
    #[arg(long, value_name = "NAME")]
    rm: Vec<Alias>,
    network: Reference,
    sandbox: Reference,
}

pub(super) fn network(client: &Client, args: UpdateArgs) -> Result<ExitCode> {
    let deed = format!("update the network {}", args.network);
    let body = ChangeNetwork { options: super::create::pairs(args.opt) };
    client.call::<Update>(&NetworkParams { name: args.network }, &body).context(deed)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn aliases(client: &Client, args: AliasArgs) -> Result<ExitCode> {
    let deed = format!("change the names of the sandbox {} on the network {}", args.sandbox, args.network);
    let body =
        ChangeEndpoint { add_aliases: args.add, remove_aliases: args.rm, ..ChangeEndpoint::of(args.sandbox) };
    client.call::<UpdateEndpoint>(&NetworkParams { name: args.network }, &body).context(deed)?;
    Ok(ExitCode::SUCCESS)
}
