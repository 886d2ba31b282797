//! Docker's daemon as Debian has it, with the containerd that it starts itself, and its command line.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Site, image};
use crate::command::{Finished, Process};
use crate::eventually::eventually;
use crate::place::Place;

pub struct Dockerd<'a> {
    pub place: Place,
    site: &'a Site,
    process: Mutex<Option<Process>>,
}

impl<'a> Dockerd<'a> {
    /// In its usual folders, with an image `busybox`, and without networks or firewall rules of its own.
    pub fn start(site: &'a Site) -> Result<Self> {
        let place = site.host.with_env("HOME", "/run/lab/home");
        let docker = Self { place, site, process: Mutex::default() };
        docker.launch()?;
        docker.sh(&format!("load -q -i {}", image::archive(&site.host)?.display()))?;
        Ok(docker)
    }

    /// Starts it again after `stop` or `kill`.
    pub fn launch(&self) -> Result<()> {
        let process = self.place.start("dockerd --bridge none --iptables=false --ip6tables=false")?;
        *self.process.lock().map_err(|_| anyhow!("a holder panicked"))? = Some(process);
        eventually(PATIENCE, "dockerd answers", || {
            let process = self.process.lock().map_err(|_| anyhow!("a holder panicked"))?;
            ensure!(process.as_ref().is_some_and(Process::runs), "it has ended");
            self.place.run("docker version --format {{.Server.Version}}")?.success().map(drop)
        })
    }

    /// `docker LINE`; wants success.
    pub fn sh(&self, line: &str) -> Result<Finished> {
        self.run(line)?.success()
    }

    /// `docker LINE`; any end is fine.
    pub fn run(&self, line: &str) -> Result<Finished> {
        self.place.run_with(&format!("docker {line}"), b"", PATIENCE)
    }

    /// A command in a container; wants success.
    pub fn exec(&self, container: &str, line: &str) -> Result<Finished> {
        self.sh(&format!("exec {container} {line}"))
    }

    pub fn inspect(&self, noun: &str, name: &str) -> Result<Value> {
        Ok(self.sh(&format!("{noun} inspect {name}"))?.json()?[0].clone())
    }

    /// The namespace of a running container, entered without Docker's help.
    pub fn inside(&self, container: &str) -> Result<Place> {
        let path = self.inspect("container", container)?["NetworkSettings"]["SandboxKey"].clone();
        let path = path.as_str().filter(|path| !path.is_empty());
        Ok(self.site.netd.inside(path.with_context(|| format!("{container} has no namespace"))?))
    }

    /// Ends it as an operator would; its containers end with it.
    pub fn stop(&self) -> Result<()> {
        self.end_with(Signal::SIGTERM)
    }

    pub fn kill(&self) -> Result<()> {
        self.end_with(Signal::SIGKILL)
    }

    fn end_with(&self, signal: Signal) -> Result<()> {
        let process = self.process.lock().map_err(|_| anyhow!("a holder panicked"))?.take();
        let process = process.context("dockerd does not run")?;
        process.signal(signal)?;
        process.wait(PATIENCE).map(drop)
    }
}

const PATIENCE: Duration = Duration::from_secs(40);
