//! `netd exec`: this process moves into the sandbox and becomes the command, so signals, the terminal and the exit code
//! need no middleman.
//!
//! ask the daemon -> own mount namespace with the sandbox's resolv.conf and hosts -> hostname -> network namespace -> exec

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, ExitCode};

use anyhow::{Context, Result, bail};
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::sandbox::{self, Sandbox, SandboxParams, Status};
use netd_api::value::Reference;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{gethostname, sethostname};

/// Run a command in a sandbox: in its namespace, with its resolv.conf and hosts
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  netd exec web -- ip address
  netd exec web -- curl -s http://db:8080/

The command sees the host's files, but for /etc/resolv.conf and /etc/hosts. The exit code is the command's;
127 if there is no such command, 126 if it cannot be run.")]
pub(super) struct Args {
    name: Reference,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Comes back only if it fails.
pub(super) fn run(client: &Client, args: &Args) -> Result<ExitCode> {
    let Some((program, arguments)) = args.command.split_first() else { bail!("exec: no command is given") };
    let deed = |name: &str| format!("run {} in the sandbox {name}", program.display());
    let params = SandboxParams { name: args.name.clone() };
    let sandbox = client.call::<sandbox::Inspect>(&params, &Nothing {}).with_context(|| deed(&args.name))?;
    enter(&sandbox).with_context(|| deed(&sandbox.name))?;
    let failure = process::Command::new(program).args(arguments).exec();
    let code = match failure.kind() {
        ErrorKind::NotFound => 127,
        _ => 126,
    };
    super::output::complain(&anyhow::Error::from(failure).context(deed(&sandbox.name)));
    Ok(ExitCode::from(code))
}

fn enter(sandbox: &Sandbox) -> Result<()> {
    if sandbox.state.status == Status::Dead {
        bail!("its namespace is gone; remove it with `netd sandbox rm -f {}`", sandbox.name);
    }
    let path = &sandbox.network_settings.sandbox_key;
    let namespace = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let files = [
        (sandbox.resolv_conf_path.as_deref(), Path::new("/etc/resolv.conf")),
        (sandbox.hosts_path.as_deref(), Path::new("/etc/hosts")),
    ];
    if files.iter().any(|(source, _)| source.is_some()) {
        own_mounts()?;
    }
    for (source, target) in files {
        if let Some(source) = source {
            cover(source, target)?;
        }
    }
    name_host(&sandbox.config.hostname)?;
    let entered = privileged(setns(namespace, CloneFlags::CLONE_NEWNET));
    entered.with_context(|| format!("enter the network namespace {}", path.display()))
}

/// What is mounted here from now on is seen by nobody else. What the host unmounts goes away here too: a command that
/// runs for weeks must not keep the host's disks busy, so the mounts are slaves and not private.
fn own_mounts() -> Result<()> {
    privileged(unshare(CloneFlags::CLONE_NEWNS)).context("make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("keep mounts to this process")
}

/// The file that `target` leads to, if it exists: it is often a link, and the link itself cannot be mounted on.
fn cover(source: &Path, target: &Path) -> Result<()> {
    let target = match fs::canonicalize(target) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("resolve {}", target.display())),
    };
    mount(Some(source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mount {} on {}", source.display(), target.display()))
}

fn name_host(name: &str) -> Result<()> {
    let present = gethostname().context("read the host's name")?;
    if name.is_empty() || present == name {
        return Ok(());
    }
    privileged(unshare(CloneFlags::CLONE_NEWUTS)).context("make a namespace for the hostname")?;
    sethostname(name).with_context(|| format!("set the hostname {name}"))
}

fn privileged(result: nix::Result<()>) -> Result<()> {
    match result {
        Err(Errno::EPERM) => bail!("not permitted; be root"),
        result => result.map_err(io::Error::from).map_err(Into::into),
    }
}
