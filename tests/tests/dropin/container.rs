//! One container as a runtime has it attached: which plugins are called, in which order, with what.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, Finished, Place};
use serde_json::{Value, json};

/// One container on one network, and the list of plugins that its runtime calls for it.
#[derive(Clone)]
pub(crate) struct Container<'a> {
    pub netd: &'a Daemon,
    pub id: &'static str,
    pub interface: &'static str,
    pub list: Value,
    pub runtime: Value,
}

impl<'a> Container<'a> {
    pub(crate) fn new(netd: &'a Daemon, id: &'static str, list: &Value) -> Result<Self> {
        netd.place.sh(&format!("ip netns add {id}"))?;
        Ok(Self { netd, id, interface: "eth0", list: list.clone(), runtime: json!({}) })
    }

    pub(crate) fn with(mut self, capability: &str, value: Value) -> Self {
        self.runtime[capability] = value;
        self
    }

    pub(crate) fn netns(&self) -> String {
        format!("/run/netns/{}", self.id)
    }

    pub(crate) fn inside(&self) -> Place {
        self.netd.inside(&self.netns())
    }

    pub(crate) fn call(
        &self,
        verb: &str,
        plugin: &Value,
        netns: &str,
        before: Option<&Value>,
    ) -> Result<Finished> {
        let mut config = plugin.clone();
        for key in ["cniVersion", "name"] {
            config[key] = self.list[key].clone();
        }
        config["socket"] = json!(self.netd.socket());
        config["spool"] = json!(self.netd.dir().join("spool"));
        for (capability, value) in self.runtime.as_object().context("an object")? {
            if plugin["capabilities"][capability] == true {
                config["runtimeConfig"][capability] = value.clone();
            }
        }
        if let Some(before) = before {
            config["prevResult"] = before.clone();
        }
        let place = self
            .netd
            .place
            .with_env("CNI_COMMAND", verb)
            .with_env("CNI_CONTAINERID", self.id)
            .with_env("CNI_NETNS", netns)
            .with_env("CNI_IFNAME", self.interface)
            .with_env("CNI_PATH", "/nonexistent")
            .with_env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAME={}", self.id));
        let program = called(self.netd, plugin["type"].as_str().context("a type")?)?;
        place.run_with(&program, config.to_string().as_bytes(), Duration::from_secs(20))
    }

    pub(crate) fn plugins(&self) -> Result<&Vec<Value>> {
        self.list["plugins"].as_array().context("a list of plugins")
    }

    /// As libcni does it: each sees what those before it have made.
    pub(crate) fn add(&self) -> Result<Value> {
        let mut result: Option<Value> = None;
        for plugin in self.plugins()? {
            result = Some(self.call("ADD", plugin, &self.netns(), result.as_ref())?.success()?.json()?);
        }
        result.context("a result")
    }

    pub(crate) fn check(&self, result: &Value) -> Result<()> {
        for plugin in self.plugins()? {
            let done = self.call("CHECK", plugin, &self.netns(), Some(result))?.success()?;
            ensure!(done.stdout.is_empty(), "{done:?}");
        }
        Ok(())
    }

    pub(crate) fn del(&self, netns: &str, result: Option<&Value>) -> Result<()> {
        for plugin in self.plugins()?.iter().rev() {
            let done = self.call("DEL", plugin, netns, result)?.success()?;
            ensure!(done.stdout.is_empty(), "{done:?}");
        }
        Ok(())
    }

    pub(crate) fn leave(&self) -> Result<()> {
        self.netd.place.sh(&format!("ip netns del {}", self.id)).map(drop)
    }
}

/// The program under another name.
pub(crate) fn called(netd: &Daemon, name: &str) -> Result<String> {
    let path = format!("/run/plugins/{name}");
    netd.place.sh("mkdir -p /run/plugins")?;
    netd.place.sh(&format!("sh -c 'test -e {path} || ln -sf $(command -v netd-cni) {path}'"))?;
    Ok(path)
}

pub(crate) fn error(finished: &Finished) -> Result<Value> {
    ensure!(finished.code != 0, "it should have failed: {finished:?}");
    finished.json()
}

pub(crate) fn address(result: &Value) -> Result<Ipv4Addr> {
    let cidr = result["ips"][0]["address"].as_str().context("an address")?;
    cidr.split('/').next().unwrap_or_default().parse().with_context(|| format!("address of {result}"))
}

/// What `podman network create` writes, 4.3.1.
pub(crate) fn podman(name: &str, number: u8) -> Value {
    json!({ "cniVersion": "0.4.0", "name": name, "plugins": [
        { "type": "bridge", "bridge": format!("cni-podman{number}"), "isGateway": true, "ipMasq": true,
          "hairpinMode": true, "capabilities": { "ips": true }, "ipam": { "type": "host-local",
          "routes": [{ "dst": "0.0.0.0/0" }],
          "ranges": [[{ "subnet": format!("10.89.{number}.0/24"), "gateway": format!("10.89.{number}.1") }]] } },
        { "type": "portmap", "capabilities": { "portMappings": true } },
        { "type": "firewall", "backend": "" },
        { "type": "tuning" },
        { "type": "dnsname", "domainName": "dns.podman", "capabilities": { "aliases": true } },
    ] })
}
