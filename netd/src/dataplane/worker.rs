//! The data plane's process: takes its listening socket over, gives its privileges up, starts the servers, and follows
//! one control plane at a time. When that dies it serves on and waits for the next.

mod peer;
pub(super) mod serve;

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use netd_sys::process::restrict_system_calls;
use netd_sys::seqpacket::Listener;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getuid;

use super::confine::confine;
use super::plane::{Plane, Settings};
use crate::config::LogFormat;
use crate::telemetry;
use serve::Worker;

/// `netd dataplane`. Started by `netd run`, or as a unit of its own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Listen for the control plane here; without it, the listening socket is standard input
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Change the root directory to this empty one
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Run as this user of /etc/passwd [default: netd, or number 64742 where there is none]
    #[arg(long)]
    pub user: Option<String>,
    /// Relay threads; 0 takes one for each processor
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Microseconds to look for more work before going to sleep
    #[arg(long, default_value_t = 50)]
    pub spin_us: u64,
    /// Connections and flows open at once, over all ports
    #[arg(long, default_value_t = 8_000)]
    pub max_connections: u32,
    /// What SIGTERM leaves open connections to end by themselves, in seconds
    #[arg(long, default_value_t = 10)]
    pub drain_seconds: u64,
    /// What is logged, in the form `info,access=off`
    #[arg(long, default_value = "info")]
    pub log: String,
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Runs until it is told to end.
pub(crate) fn run(options: &Options) -> Result<()> {
    // Before any thread is started, which inherits it: signals are read from a descriptor, those of a terminal ignored.
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().context("cannot block signals")?;
    // What `ps` and `top` show of it; started from /proc/self/exe, it would be called `exe`.
    nix::sys::prctl::set_name(c"netd-dataplane").context("cannot name the process")?;
    telemetry::start(&options.log, options.log_format)?;
    let build = build();
    // Who may connect besides root: whoever started this process.
    let parent = getuid().as_raw();
    let listener = listener(options)?;
    confine(options.user.as_deref(), options.root.as_deref())?;
    let settings = Settings {
        workers: options.workers,
        spin: Duration::from_micros(options.spin_us),
        max_connections: options.max_connections,
    };
    let plane = Plane::start(&settings).context("cannot start the servers")?;
    restrict_system_calls()?;
    tracing::info!(build, pid = std::process::id(), "the data plane serves");
    let drain = Duration::from_secs(options.drain_seconds);
    Worker::new(plane, listener, signals, build, parent, drain)?.run()
}

/// Names the program that runs: version, size and time of the file it was started from, even when another has taken its
/// name. Two processes with one name are of one build.
pub(crate) fn build() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match fs::metadata("/proc/self/exe") {
        Ok(file) => format!("{version}-{:x}-{:x}.{:x}", file.size(), file.mtime(), file.mtime_nsec()),
        Err(_) => version.to_owned(),
    }
}

fn listener(options: &Options) -> Result<Listener> {
    if let Some(path) = &options.socket {
        return Ok(Listener::bind(path)?);
    }
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("cannot use standard input")?;
    let listener = Listener::inherited(stdin)
        .context("standard input has to be the socket to listen on (give --socket PATH to make one)")?;
    // The listener is one descriptor, not two: it has to be possible to close it.
    let null = fs::File::open("/dev/null").context("cannot open /dev/null")?;
    nix::unistd::dup2_stdin(null).context("cannot let go of standard input")?;
    Ok(listener)
}
