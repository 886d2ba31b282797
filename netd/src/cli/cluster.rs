//! `netd cluster`: restore.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::cluster;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Restore(RestoreArgs),
}

/// Write what this node knows of the cluster into an etcd that has lost it
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  netd cluster restore

For an etcd whose data is gone: networks, services, nodes and addresses are written as this node last knew them, and
every node goes on from there. Better, where there is one: a snapshot of etcd. It is done on one node, the one that was
connected last; nothing that etcd has is overwritten.")]
pub(super) struct RestoreArgs {}

pub(super) fn run(client: &Client, command: &Command) -> Result<ExitCode> {
    let Command::Restore(RestoreArgs {}) = command;
    client.call::<cluster::Restore>(&Nothing {}, &Nothing {}).context("restore the cluster's records")?;
    Ok(ExitCode::SUCCESS)
}
