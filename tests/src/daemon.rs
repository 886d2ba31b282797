//! A netd of the lab: started on a host with directories of its own, killed, started again, and taken down for good.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Finished, Process};
use crate::eventually::eventually;
use crate::http::{self, Answer};
use crate::place::Place;
use crate::snapshot::processes;

/// How a daemon is started.
#[derive(Clone, Default)]
pub struct Setup {
    /// The text of its configuration file.
    pub config: String,
    /// More arguments to `netd run`.
    pub arguments: String,
}

#[derive(Clone)]
pub struct Daemon {
    /// The host, with NETD_SOCKET set: what a user's shell there would be.
    pub place: Place,
    dir: PathBuf,
    setup: Setup,
    /// For the daemon alone, not for its clients.
    env: Vec<(String, String)>,
    process: Arc<Mutex<Option<Process>>>,
}

impl Daemon {
    pub(crate) fn prepare(host: &Place, dir: &Path, setup: Setup, env: &[(&str, String)]) -> Result<Self> {
        let binary = binary_dir()?.join("netd");
        ensure!(binary.exists(), "{} is missing: run `cargo build --bins` first", binary.display());
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        std::fs::write(dir.join("netd.toml"), &setup.config)?;
        let place = host.with_env("NETD_SOCKET", dir.join("netd.sock"));
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Ok(Self { place, dir: dir.into(), setup, env, process: Arc::default() })
    }

    /// Starts `netd run` and waits until it says that it is ready.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.ready()
    }

    /// Waits until it says that it is ready.
    pub fn ready(&self) -> Result<()> {
        eventually(READY, "netd is ready", || {
            ensure!(self.runs(), "it has ended: {}", self.log());
            let answer = http::request(&self.socket(), "GET", "/readyz", "")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
    }

    /// Starts `netd run` and does not wait.
    pub fn launch(&self) -> Result<()> {
        self.launch_as("netd")
    }

    /// The same as another program file.
    pub fn launch_as(&self, program: &str) -> Result<()> {
        let line = self.command_line().replacen("netd", program, 1);
        self.place.transcript.note(&format!("{}$ {line} &", self.place.name));
        let place =
            self.env.iter().fold(self.place.clone(), |place, (key, value)| place.with_env(key, value));
        let process = place.start_into(&line, &self.log_file())?;
        *self.lock() = Some(process);
        Ok(())
    }

    pub fn command_line(&self) -> String {
        let Self { dir, setup, .. } = self;
        let dir = dir.display();
        format!(
            "netd run --config {dir}/netd.toml --state-dir {dir}/state --run-dir {dir}/run --netns-dir {dir}/netns --socket {dir}/netd.sock {}",
            setup.arguments
        )
    }

    /// `netd LINE` on this host; wants success.
    pub fn netd(&self, line: &str) -> Result<Finished> {
        self.place.sh(&format!("netd {line}"))
    }

    /// `netd LINE` on this host; any end is fine.
    pub fn try_netd(&self, line: &str) -> Result<Finished> {
        self.place.run(&format!("netd {line}"))
    }

    pub fn http(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        http::request(&self.socket(), method, path, body)
    }

    /// Makes a sandbox and gives the place inside it.
    pub fn create(&self, name: &str, flags: &str) -> Result<Place> {
        self.netd(&format!("sandbox create {name} {flags}"))?;
        Ok(self.inside(name))
    }

    /// The namespace of a sandbox, entered without netd's help.
    pub fn inside(&self, name: &str) -> Place {
        Place::new(name, Some(&self.netns_dir().join(name)), Arc::clone(&self.place.transcript))
    }

    /// Starts a program in a sandbox by `netd exec`.
    pub fn exec(&self, sandbox: &str, line: &str) -> Result<Process> {
        self.place.start(&format!("netd exec {sandbox} -- {line}"))
    }

    /// `netd inspect` of one object, as JSON.
    pub fn inspect(&self, noun: &str, name: &str) -> Result<serde_json::Value> {
        let all = self.netd(&format!("{noun} inspect {name}"))?.json()?;
        Ok(all.get(0).cloned().unwrap_or(all))
    }

    /// The address of a sandbox on a network: `IPAddress` or `GlobalIPv6Address`.
    pub fn address<T: std::str::FromStr>(&self, sandbox: &str, network: &str) -> Result<T> {
        let networks = self.inspect("sandbox", sandbox)?["NetworkSettings"]["Networks"][network].clone();
        ["IPAddress", "GlobalIPv6Address"]
            .iter()
            .find_map(|field| networks[*field].as_str()?.parse().ok())
            .with_context(|| format!("no such address of {sandbox} on {network} in {networks}"))
    }

    pub fn kill(&self) -> Result<()> {
        self.end_with(Signal::SIGKILL).map(drop)
    }

    /// Ends it as an operator would; its exit code.
    pub fn terminate(&self) -> Result<i32> {
        self.end_with(Signal::SIGTERM)
    }

    fn end_with(&self, signal: Signal) -> Result<i32> {
        let process = self.lock().take().context("the daemon does not run")?;
        self.place.transcript.note(&format!("{}# {signal} to netd run, {}", self.place.name, process.pid));
        process.signal(signal)?;
        process.wait(READY)
    }

    /// After somebody else has killed it.
    pub(crate) fn reaped(&self) -> Result<()> {
        self.lock().take().map_or(Ok(()), |process| process.wait(READY).map(drop))
    }

    pub fn runs(&self) -> bool {
        self.lock().as_ref().is_some_and(Process::runs)
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.lock().as_ref().context("the daemon does not run")?.pid)
    }

    /// The process id of this host's data plane, found as an operator would: by its command line and namespace.
    pub fn dataplane(&self) -> Result<u32> {
        let host = self.place.namespace_id()?;
        let mut found = processes()?.into_iter().filter(|process| {
            process.arguments.get(1).is_some_and(|verb| verb == "dataplane") && process.netns == Some(host)
        });
        found.next().map(|process| process.pid).context("no data plane runs on this host")
    }

    pub fn kill_dataplane(&self) -> Result<()> {
        let pid = self.dataplane()?;
        self.place.transcript.note(&format!("{}# SIGKILL to netd dataplane, {pid}", self.place.name));
        kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL).context("kill the data plane")
    }

    /// `netd down --purge`, with a daemon started for it if none runs, and both processes gone.
    pub(crate) fn purge(&self) -> Result<()> {
        if !self.runs() {
            self.start()?;
        }
        self.netd("down --purge")?;
        eventually(READY, "both processes end", || {
            ensure!(!self.runs(), "netd run is still there");
            ensure!(self.dataplane().is_err(), "the data plane is still there");
            Ok(())
        })
    }

    pub(crate) fn sandboxes(&self) -> Vec<Place> {
        let names = std::fs::read_dir(self.netns_dir()).into_iter().flatten().flatten();
        names.map(|entry| self.inside(&entry.file_name().to_string_lossy())).collect()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("netd.sock")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn netns_dir(&self) -> PathBuf {
        self.dir.join("netns")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("netd.log")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The program under test, as another build of it: one byte more at its end.
pub fn other_build(path: &Path) -> Result<()> {
    std::fs::copy(binary_dir()?.join("netd"), path)
        .with_context(|| format!("copy netd to {}", path.display()))?;
    let mut file = std::fs::File::options().append(true).open(path)?;
    Ok(std::io::Write::write_all(&mut file, b"\n")?)
}

/// Where Cargo has put `netd` beside this program: tests are one folder further down.
pub(crate) fn binary_dir() -> Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    let dir = this.parent().ok_or_else(|| anyhow!("{} has no folder", this.display()))?;
    Ok(if dir.ends_with("deps") { dir.join("..").canonicalize()? } else { dir.into() })
}

const READY: Duration = Duration::from_secs(10);
