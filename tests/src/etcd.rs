//! Debian's etcd on a machine of the lab, with its own data directory: stopped, frozen, started on the same data, wiped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::command::{Finished, Process};
use crate::eventually::eventually;
use crate::host::Host;

pub struct Etcd {
    host: Host,
    dir: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Etcd {
    pub fn start(host: &Host) -> Result<Self> {
        let dir = Path::new("/run/lab").join(format!("{}-data", host.name));
        let etcd = Self { host: host.clone(), dir, process: Mutex::default() };
        etcd.restart()?;
        Ok(etcd)
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What a daemon's `--store` takes.
    pub fn url(&self) -> String {
        format!("etcd://{}:2379", self.host.v4)
    }

    /// Starts it on the data that is there, and waits until it answers.
    pub fn restart(&self) -> Result<()> {
        let (at, dir) = (format!("http://{}:2379", self.host.v4), self.dir.display());
        let line = format!(
            "etcd --name lab --data-dir {dir} --listen-client-urls {at} --advertise-client-urls {at} \
             --listen-peer-urls {PEER} --initial-advertise-peer-urls {PEER} --initial-cluster lab={PEER} \
             --logger zap --log-level warn"
        );
        // It wants to be asked twice on what its authors do not test.
        let place = self.host.with_env("ETCD_UNSUPPORTED_ARCH", "arm64");
        *self.lock() = Some(place.start(&line)?);
        eventually(Duration::from_secs(15), "etcd answers", || {
            ensure!(self.lock().as_ref().is_some_and(Process::runs), "it has ended");
            self.ctl("endpoint health").map(drop)
        })
    }

    /// Ends it as an operator would.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    pub fn kill(&self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let process = self.lock().take().context("etcd does not run")?;
        process.signal(signal)?;
        process.wait(Duration::from_secs(10)).map(drop)
    }

    /// It hangs, with its connections open.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.lock().as_ref().context("etcd does not run")?.signal(signal)
    }

    /// All it knew is lost; it has to be stopped.
    pub fn wipe(&self) -> Result<()> {
        ensure!(self.lock().is_none(), "etcd runs");
        fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }

    /// Writes all that it knows into a file.
    pub fn save(&self) -> Result<PathBuf> {
        let file = self.dir.with_extension("snapshot");
        self.ctl(&format!("snapshot save {}", file.display()))?;
        Ok(file)
    }

    /// Gives it back what it knew when that was saved, as its manual says; it has to be stopped and wiped.
    pub fn restore(&self, snapshot: &Path) -> Result<()> {
        ensure!(self.lock().is_none(), "etcd runs");
        let (from, dir) = (snapshot.display(), self.dir.display());
        let place = self.host.with_env("ETCDCTL_API", "3");
        place.sh(&format!(
            "etcdctl snapshot restore {from} --data-dir {dir} --name lab --initial-cluster lab={PEER} \
             --initial-advertise-peer-urls {PEER}"
        ))?;
        Ok(())
    }

    /// `etcdctl LINE`, on etcd's own machine.
    pub fn ctl(&self, line: &str) -> Result<Finished> {
        let place = self.host.with_env("ETCDCTL_API", "3");
        place.sh(&format!("etcdctl --endpoints http://{}:2379 {line}", self.host.v4))
    }

    /// Writes a value as it is, whatever characters it has.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        let line = format!("etcdctl --endpoints http://{}:2379 put {key}", self.host.v4);
        let place = self.host.with_env("ETCDCTL_API", "3");
        place.run_with(&line, value.as_bytes(), Duration::from_secs(10))?.success().map(drop)
    }

    /// Keys that begin so.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let found = self.ctl(&format!("get --prefix --keys-only {prefix}"))?;
        Ok(found.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// It has no peers.
const PEER: &str = "http://127.0.0.1:2380";
