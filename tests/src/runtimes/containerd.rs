//! containerd as Debian has it, and `ctr`, its own command line.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::image::{self, BUSYBOX};
use super::{Site, write};
use crate::command::{Finished, Process};
use crate::eventually::eventually;
use crate::place::Place;

pub struct Containerd<'a> {
    pub place: Place,
    site: &'a Site,
    process: Process,
}

impl<'a> Containerd<'a> {
    /// In its usual folders, with the image `BUSYBOX`, and without its side for Kubernetes.
    pub fn start(site: &'a Site) -> Result<Self> {
        Self::start_with(site, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
    }

    /// `settings` is its configuration file.
    pub fn start_with(site: &'a Site, settings: &str) -> Result<Self> {
        write("/etc/containerd/config.toml", settings)?;
        let containerd = Self::launch(site)?;
        let archive = image::archive(&site.host)?;
        for namespace in ["default", "k8s.io"] {
            containerd.ctr(&format!("-n {namespace} image import {}", archive.display()))?;
        }
        Ok(containerd)
    }

    fn launch(site: &'a Site) -> Result<Self> {
        let place = site.host.with_env("HOME", "/run/lab/home");
        let process = place.start("containerd")?;
        let containerd = Self { place, site, process };
        eventually(PATIENCE, "containerd answers", || containerd.ctr("version").map(drop))?;
        Ok(containerd)
    }

    /// `ctr LINE`; wants success.
    pub fn ctr(&self, line: &str) -> Result<Finished> {
        self.try_ctr(line)?.success()
    }

    /// `ctr LINE`; any end is fine.
    pub fn try_ctr(&self, line: &str) -> Result<Finished> {
        self.place.run_with(&format!("ctr {line}"), b"", PATIENCE)
    }

    /// `ctr run FLAGS busybox ID COMMAND`, to its end or, with `-d` among the flags, in the background. The lab's
    /// cgroups have no controller to take a share of the processor from.
    pub fn run(&self, flags: &str, id: &str, command: &str) -> Result<Finished> {
        self.ctr(&format!("run --cpu-shares 0 {flags} {BUSYBOX} {id} {command}"))
    }

    /// The network namespace of a container that runs.
    pub fn inside(&self, id: &str) -> Result<Place> {
        self.inside_of("default", id)
    }

    pub(super) fn inside_of(&self, namespace: &str, id: &str) -> Result<Place> {
        let tasks = self.ctr(&format!("-n {namespace} task ls"))?;
        let pid = tasks.stdout.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(id)).then(|| words.next().map(str::to_owned)).flatten()
        });
        let pid = pid.with_context(|| format!("{id} does not run: {}", tasks.stdout))?;
        Ok(self.site.netd.inside(&format!("/proc/{pid}/ns/net")))
    }

    /// Kills it and starts it again; what it runs goes on.
    pub fn restart(self) -> Result<Self> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(PATIENCE)?;
        Self::launch(self.site)
    }

    /// Ends it as an operator would.
    pub fn stop(self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(PATIENCE).map(drop)
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
