//! `netd run`: what can be said to the daemon when it is started. What is not said comes from the configuration file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

/// Start the daemon
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  netd run
  netd run --state-dir /tmp/a/state --run-dir /tmp/a/run      a second daemon, beside the first
  netd run --store etcd://10.0.0.1:2379 --advertise-addr 10.0.0.7     one node of several
  netd run --log-format json --metrics-addr 127.0.0.1:9300

SIGTERM ends the daemon and the data plane that it started. Networks and sandboxes stay, and are
served again from the next start on; `netd down` takes them away.")]
pub(crate) struct RunArgs {
    /// Configuration file [default: /etc/netd/netd.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This node's name [default: the host's name]
    #[arg(long, value_name = "NODE")]
    pub name: Option<String>,
    /// Where networks and sandboxes are remembered [default: /var/lib/netd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where sockets, resolv.conf and hosts files are [default: /run/netd]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Where namespaces get their names [default: /run/netns; RUN_DIR/netns if --run-dir is given]
    #[arg(long, value_name = "DIR")]
    pub netns_dir: Option<PathBuf>,
    /// The global `--socket`: where the daemon listens [default: RUN_DIR/netd.sock]
    #[arg(skip)]
    pub socket: Option<PathBuf>,
    /// redb: this host alone, a file in the state directory. etcd://HOST:PORT[,HOST:PORT...]: beside it, what nodes
    /// share is in etcd (etcds:// with TLS; certificates and password by [cluster] in the configuration file)
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// Where other nodes reach this one [default: the address from which etcd is reached]
    #[arg(long, value_name = "IP")]
    pub advertise_addr: Option<IpAddr>,
    /// Serve /metrics, /healthz and /readyz here too, over TCP
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}
