//! The command line: one file a noun. Every command but `run` and `dataplane` is a client of the daemon's socket and
//! uses `netd-api` only, so what it can do any other client can do too.
//!
//! arguments -> clap -> <noun> -> netd_api::client -> output. Failures go to stderr as `netd: <deed>: <cause>`, one line
//! each; the exit code is 0, 1 (failed) or 2 (usage), and for `exec` and `sandbox run` that of the command.

mod cluster;
mod completion;
mod dns;
mod events;
mod exec;
mod network;
mod node;
mod output;
mod ports;
mod sandbox;
mod service;
mod several;
mod stats;
mod system;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use netd_api::client::{self, blocking};

use crate::config::RunArgs;

/// Networks, names, published ports and balanced services for containers and plain programs
#[derive(Parser, Debug)]
#[command(
    name = "netd",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  netd run &                                                        start the daemon (as root)
  netd sandbox run web -p 8080:80 -- python3 -m http.server 80      hello, world
  netd network create app
  netd sandbox create db --network app
  netd exec db -- redis-server

`netd COMMAND --help` shows more examples. Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    /// The daemon's socket [default: /run/netd/netd.sock]
    #[arg(long, global = true, env = "NETD_SOCKET", hide_env_values = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(Box<RunArgs>),
    Down(system::DownArgs),
    Status(system::StatusArgs),
    Doctor(system::DoctorArgs),
    /// Networks: create, list, show, remove, connect
    #[command(subcommand)]
    Network(network::Command),
    /// Sandboxes: namespaces with networks, names and published ports
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// What the nodes share: put it back
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Nodes of the cluster: list, show, drain, activate, remove
    #[command(subcommand)]
    Node(node::Command),
    /// Services: a name and an address that many sandboxes answer at
    #[command(subcommand)]
    Service(service::Command),
    Exec(exec::Args),
    Port(ports::PortArgs),
    Publish(ports::PublishArgs),
    Unpublish(ports::UnpublishArgs),
    Events(events::Args),
    Stats(stats::Args),
    /// What names lead to
    #[command(subcommand)]
    Dns(dns::Command),
    Log(system::LogArgs),
    Completion(completion::Args),
    /// The data plane's process; `netd run` starts it
    #[command(hide = true)]
    Dataplane(Box<crate::dataplane::Options>),
}

type Daemon = fn(RunArgs) -> Result<()>;

/// The whole program; `daemon` is what `netd run` does.
pub(crate) fn run(daemon: Daemon) -> ExitCode {
    let Cli { socket, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. There is nowhere to tell that stderr is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(daemon, socket, command) {
        Ok(code) => code,
        Err(error) if output::closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(daemon: Daemon, socket: Option<PathBuf>, command: Command) -> Result<ExitCode> {
    let client = || {
        let socket = socket.clone().unwrap_or_else(|| client::DEFAULT_SOCKET.into());
        blocking::Client::new(socket).context("make a client")
    };
    match command {
        Command::Run(args) => daemon(RunArgs { socket, ..*args }).map(|()| ExitCode::SUCCESS),
        Command::Dataplane(options) => crate::dataplane::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Down(args) => system::down(&client()?, &args),
        Command::Status(args) => system::status(&client()?, &args),
        Command::Doctor(args) => system::doctor(&client()?, &args),
        Command::Network(command) => network::run(&client()?, command),
        Command::Cluster(command) => cluster::run(&client()?, &command),
        Command::Node(command) => node::run(&client()?, command),
        Command::Sandbox(command) => sandbox::run(&client()?, command),
        Command::Service(command) => service::run(&client()?, command),
        Command::Exec(args) => exec::run(&client()?, &args),
        Command::Port(args) => ports::show(&client()?, &args),
        Command::Publish(args) => ports::publish(&client()?, &args),
        Command::Unpublish(args) => ports::unpublish(&client()?, &args),
        Command::Events(args) => events::follow(&client()?, args),
        Command::Stats(args) => stats::show(&client()?, &args),
        Command::Dns(dns::Command::Dump(args)) => dns::dump(&client()?, args),
        Command::Log(args) => system::log(&client()?, args),
        Command::Completion(args) => completion::write(&args),
    }
}

/// Does one thing to each of several names: a failure is told at once and does not keep the others from their turn.
fn each<N>(names: &[N], mut deed: impl FnMut(&N) -> Result<()>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match deed(name) {
            Ok(()) => {}
            Err(error) if output::closed(&error) => return Err(error),
            Err(error) => {
                output::complain(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

const USAGE: u8 = 2;

/// A failure of what was asked for, not of doing it.
fn usage(message: &str) -> io::Result<ExitCode> {
    eprintln!("netd: {message}");
    Ok(ExitCode::from(USAGE))
}

#[cfg(test)]
mod tests;
