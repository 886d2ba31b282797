//! A container runtime's side of CNI: namespaces that it makes itself, and the plugin called with environment and stdin.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::command::{Finished, Process};
use crate::daemon::Daemon;
use crate::eventually::eventually;
use crate::place::Place;

/// One container: its id, and the path by which its namespace is told to the plugin.
pub struct Container<'a> {
    netd: &'a Daemon,
    pub id: String,
    pub netns: String,
}

impl<'a> Container<'a> {
    /// With a namespace that has a name, as podman and the CRI make them.
    pub fn new(netd: &'a Daemon, id: &str) -> Result<Self> {
        netd.place.sh(&format!("ip netns add {id}"))?;
        Ok(Self { netd, id: id.into(), netns: format!("/run/netns/{id}") })
    }

    /// With the namespace of a process, as ctr and nerdctl have them.
    pub fn of_process(netd: &'a Daemon, id: &str) -> Result<(Self, Process)> {
        let process = netd.place.start("unshare --net sleep 1000")?;
        let host = netd.place.namespace_id()?;
        let container = Self { netd, id: id.into(), netns: format!("/proc/{}/ns/net", process.pid) };
        eventually(Duration::from_secs(5), "the process has a namespace of its own", || {
            ensure!(container.inside().namespace_id()? != host, "not yet");
            Ok(())
        })?;
        Ok((container, process))
    }

    pub fn inside(&self) -> Place {
        Place::new(&self.id, Some(Path::new(&self.netns)), Arc::clone(&self.netd.place.transcript))
    }

    pub fn call(&self, verb: &str, interface: &str, config: &Value) -> Result<Finished> {
        self.call_in(verb, interface, &self.netns, config)
    }

    pub fn call_in(&self, verb: &str, interface: &str, netns: &str, config: &Value) -> Result<Finished> {
        plugin(&self.environment(interface, netns), verb, config)
    }

    /// Where the plugin starts, knowing which container is meant.
    pub fn environment(&self, interface: &str, netns: &str) -> Place {
        self.netd
            .place
            .with_env("CNI_CONTAINERID", &self.id)
            .with_env("CNI_NETNS", netns)
            .with_env("CNI_IFNAME", interface)
            .with_env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAME={}", self.id))
    }

    pub fn add(&self, interface: &str, config: &Value) -> Result<Value> {
        self.call("ADD", interface, config)?.success()?.json()
    }

    /// DEL prints nothing.
    pub fn del(&self, interface: &str, netns: &str, config: &Value) -> Result<()> {
        let done = self.call_in("DEL", interface, netns, config)?.success()?;
        ensure!(done.stdout.is_empty(), "{done:?}");
        Ok(())
    }

    pub fn links(&self) -> Result<String> {
        Ok(self.inside().sh("ip -br link")?.stdout)
    }

    pub fn has_only_loopback(&self) -> Result<()> {
        eventually(Duration::from_secs(2), "the device goes", || {
            let links = self.links()?;
            ensure!(links.lines().count() == 1, "{links}");
            Ok(())
        })
    }

    /// Takes the namespace's name away.
    pub fn unmount(&self) -> Result<()> {
        self.netd.place.sh(&format!("ip netns del {}", self.id)).map(drop)
    }
}

pub fn plugin(place: &Place, verb: &str, config: &Value) -> Result<Finished> {
    let place = place.with_env("CNI_COMMAND", verb).with_env("CNI_PATH", "/opt/cni/bin");
    place.run_with("netd-cni", config.to_string().as_bytes(), Duration::from_secs(40))
}

/// A failed call's error object.
pub fn error(finished: &Finished) -> Result<Value> {
    ensure!(finished.code != 0, "it should have failed: {finished:?}");
    finished.json()
}

pub fn config(netd: &Daemon, version: &str, name: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": name,
        "type": "netd-cni",
        "socket": netd.socket(),
        "spool": netd.state_dir().join("cni-spool"),
    })
}

#[must_use]
pub fn with(config: &Value, key: &str, value: impl Into<Value>) -> Value {
    let mut config = config.clone();
    config[key] = value.into();
    config
}

/// One published port, as runtimes ask for it.
#[must_use]
pub fn publishing(config: &Value, host: u16, container: u16) -> Value {
    let mappings =
        json!({ "portMappings": [{ "hostPort": host, "containerPort": container, "protocol": "tcp" }] });
    with(config, "runtimeConfig", mappings)
}

pub fn sandboxes(netd: &Daemon) -> Result<usize> {
    Ok(netd.netd("sandbox ls -q")?.stdout.lines().count())
}

/// Waits until the daemon has that many.
pub fn sandboxes_become(netd: &Daemon, wanted: usize) -> Result<()> {
    eventually(Duration::from_secs(5), &format!("there are {wanted} sandboxes"), || {
        let found = sandboxes(netd)?;
        ensure!(found == wanted, "there are {found}");
        Ok(())
    })
}

pub fn address(result: &Value) -> Result<Ipv4Addr> {
    let cidr = result["ips"][0]["address"].as_str().context("an address")?;
    cidr.split('/').next().unwrap_or_default().parse().with_context(|| format!("address of {result}"))
}
