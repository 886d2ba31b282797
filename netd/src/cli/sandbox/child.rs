//! The command of `netd sandbox run`: a child that enters the sandbox by `netd exec`, while this process stays outside,
//! passes signals on, and waits to remove the sandbox.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use netd_api::value::Reference;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that arrived and were not acted on yet.
pub(super) struct Signals {
    runtime: Runtime,
    arrived: mpsc::Receiver<Signal>,
}

impl Signals {
    /// From now on the signals of [`CAUGHT`] are collected instead of ending this process.
    pub(super) fn catch() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("catch signals")?;
        let (arrive, arrived) = mpsc::channel(64);
        let entered = runtime.enter();
        for caught in CAUGHT {
            let mut stream = signal(SignalKind::from_raw(caught as i32)).context("catch signals")?;
            let arrive = arrive.clone();
            runtime.spawn(async move {
                while stream.recv().await.is_some() && arrive.send(caught).await.is_ok() {}
            });
        }
        drop(entered);
        Ok(Self { runtime, arrived })
    }
}

/// Runs until the command has ended.
pub(super) fn run(
    signals: &mut Signals,
    socket: &Path,
    sandbox: &Reference,
    command: &[OsString],
) -> Result<ExitCode> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("netd")
        .arg("--socket")
        .arg(socket)
        .args(["exec", sandbox, "--"])
        .args(command)
        .spawn()
        .context("start the command in the sandbox")?;
    let Signals { runtime, arrived } = signals;
    let status =
        runtime.block_on(wait(&mut child, arrived)).context("wait for the command in the sandbox")?;
    Ok(exit_code(status))
}

async fn wait(child: &mut Child, arrived: &mut mpsc::Receiver<Signal>) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match arrived.recv().await {
            Some(Signal::SIGCHLD) => {}
            Some(signal) if from_terminal(signal) => {}
            Some(signal) => pass_on(child, signal),
            // The tasks that send live as long as the runtime that this runs on.
            None => return child.wait(),
        }
    }
}

/// What a key on the terminal sends goes to the whole foreground group, so the command has it already. It must not get
/// it twice: programs take a second SIGINT for impatience.
fn from_terminal(signal: Signal) -> bool {
    let stat = || fs::read_to_string("/proc/self/stat").unwrap_or_default();
    matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && in_foreground(&stat())
}

/// Whether the process group (5th field of proc_pid_stat(5)) is the terminal's foreground group (8th). The name, the
/// second field, may hold anything, so fields are counted from its last bracket.
fn in_foreground(stat: &str) -> bool {
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split(' ').collect();
    fields.get(2).is_some_and(|group| fields.get(5) == Some(group))
}

/// The child was not waited for yet, so its pid is its own; if it has just ended, the signal has nobody to reach.
fn pass_on(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ended = kill(Pid::from_raw(pid), signal);
    }
}

/// As a shell tells it: 128 + N for the signal N.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

const CAUGHT: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foreground_is_read_from_the_process_table() {
        assert!(in_foreground("812 (a) S b) S 1 812 700 34816 812 4194304"));
        assert!(!in_foreground("812 (netd) S 1 812 700 34816 700 4194304"));
        assert!(!in_foreground("812 (netd) S 1 812 700 0 -1 4194304"));
        assert!(!in_foreground(""));
    }

    #[test]
    fn an_end_by_a_signal_is_told_as_a_shell_does() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), ExitCode::from(7));
        assert_eq!(exit_code(ExitStatus::from_raw(15)), ExitCode::from(143));
    }
}
