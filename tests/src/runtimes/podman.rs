//! podman as Debian has it, with CNI networks and runc. It has no daemon: everything is its command line.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Site, image, write};
use crate::command::Finished;
use crate::eventually::eventually;
use crate::place::Place;
use crate::snapshot::processes;

pub struct Podman<'a> {
    pub place: Place,
    site: &'a Site,
}

impl<'a> Podman<'a> {
    /// With an image `busybox`. `settings` is the user's containers.conf.
    pub fn new(site: &'a Site, settings: &str) -> Result<Self> {
        write(SETTINGS, settings)?;
        write(MACHINE, NO_SYSTEMD)?;
        let place = site.host.with_env("HOME", "/run/lab/home");
        let podman = Self { place, site };
        podman.sh(&format!("load -q -i {}", image::archive(&site.host)?.display()))?;
        let backend = podman.sh("info --format {{.Host.NetworkBackend}}/{{.Host.OCIRuntime.Name}}")?;
        ensure!(backend.text() == "cni/runc", "{backend:?}");
        Ok(podman)
    }

    /// `podman LINE`; wants success.
    pub fn sh(&self, line: &str) -> Result<Finished> {
        self.run(line)?.success()
    }

    /// `podman LINE`; any end is fine.
    pub fn run(&self, line: &str) -> Result<Finished> {
        self.place.run_with(&format!("podman {line}"), b"", PATIENCE)
    }

    /// A command in a container; wants success.
    pub fn exec(&self, container: &str, line: &str) -> Result<Finished> {
        self.sh(&format!("exec {container} {line}"))
    }

    /// The namespace of a running container, entered without podman's help.
    pub fn inside(&self, container: &str) -> Result<Place> {
        let path = self.inspect(container)?["NetworkSettings"]["SandboxKey"].clone();
        let path = path.as_str().filter(|path| !path.is_empty());
        Ok(self.site.netd.inside(path.with_context(|| format!("{container} has no namespace"))?))
    }

    pub fn inspect(&self, container: &str) -> Result<Value> {
        Ok(self.sh(&format!("inspect --type container {container}"))?.json()?[0].clone())
    }

    /// What a user wants to see after the last container was removed: no process, namespace, sandbox or link of it.
    pub fn left_nothing(&self) -> Result<()> {
        let containers = self.sh("ps -aq")?;
        ensure!(containers.text().is_empty(), "{containers:?}");
        self.site.left_nothing()?;
        eventually(Duration::from_secs(5), "nothing is left of the containers", || {
            let is_theirs = |line: &String| {
                ["conmon", "runc", "podman", "netd-cni"].iter().any(|name| line.ends_with(name))
            };
            let programs =
                processes()?.into_iter().filter_map(|process| process.arguments.into_iter().next());
            let left: Vec<_> = programs.filter(is_theirs).collect();
            ensure!(left.is_empty(), "{left:?}");
            let namespaces = self.place.look("ip netns list")?;
            ensure!(!namespaces.contains("netns-"), "{namespaces}");
            Ok(())
        })
    }
}

const SETTINGS: &str = "/etc/containers/containers.conf";
const MACHINE: &str = "/etc/containers/containers.conf.d/lab.conf";
/// What podman would find out by itself where systemd runs, and limits that any root may set.
const NO_SYSTEMD: &str = r#"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;
const PATIENCE: Duration = Duration::from_secs(40);
