//! The CNI way: Debian's reference plugins as a chain (bridge with host-local, portmap, firewall), and `netd-cni` alone,
//! both started as a runtime starts them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netd_tests::Place;
use serde_json::{Value, json};

use crate::figures::NETD;
use crate::measure::Name;
use crate::rival::attacher::{Attacher, timed, wipe};
use crate::rival::program;

pub(crate) struct Chain {
    name: Name,
    place: Place,
    /// In the order of ADD, each with its program.
    plugins: Vec<(PathBuf, Value)>,
    version: &'static str,
    network: &'static str,
}

impl Chain {
    pub(crate) fn reference(place: &Place) -> Result<Self> {
        let ipam = json!({
            "type": "host-local", "dataDir": LEASES, "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "10.90.0.0/16"}]],
        });
        let configs = [
            json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": ipam}),
            json!({"type": "portmap"}),
            json!({"type": "firewall"}),
        ];
        let package = "containernetworking-plugins";
        plugin("host-local", package)?;
        program("iptables", "iptables")?;
        let found = configs.map(|config| {
            let name = config["type"].as_str().context("every plugin has a type")?;
            Ok((plugin(name, package)?, config))
        });
        let plugins = found.into_iter().collect::<Result<_>>()?;
        Ok(Self { name: "CNI chain", place: place.clone(), plugins, version: "0.4.0", network: "rival" })
    }

    /// Through the daemon at `socket`, to its network `lan`.
    pub(crate) fn netd(place: &Place, socket: &Path) -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("netd-cni");
        let mut command = Command::new(&beside);
        command.env("CNI_COMMAND", "VERSION");
        let versions = timed(place, command, b"").map(|(output, _)| output).unwrap_or_default();
        if !String::from_utf8_lossy(&versions).contains("supportedVersions") {
            bail!("not measured: {} is not built", beside.display());
        }
        let plugins = vec![(beside, json!({"type": "netd-cni", "socket": socket}))];
        Ok(Self { name: NETD, place: place.clone(), plugins, version: "1.0.0", network: "lan" })
    }

    fn run(&self, verb: &str, number: usize, netns: &Path) -> Result<Duration> {
        let mut steps: Vec<_> = self.plugins.iter().collect();
        if verb == "DEL" {
            steps.reverse();
        }
        let (mut sum, mut previous) = (Duration::ZERO, None);
        for (path, config) in steps {
            let mut config = config.clone();
            config["cniVersion"] = self.version.into();
            config["name"] = self.network.into();
            config["runtimeConfig"] = json!({"portMappings": [
                {"hostPort": FIRST_PORT + number, "containerPort": 80, "protocol": "tcp"}
            ]});
            config["prevResult"] = previous.take().unwrap_or_default();
            if config["prevResult"].is_null() {
                config.as_object_mut().context("a configuration is an object")?.remove("prevResult");
            }
            let mut command = Command::new(path);
            command
                .env("CNI_COMMAND", verb)
                .env("CNI_CONTAINERID", format!("{number:064x}"))
                .env("CNI_NETNS", netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", path.parent().context("a plugin is in a folder")?);
            let (output, took) = timed(&self.place, command, config.to_string().as_bytes())?;
            sum += took;
            previous = serde_json::from_slice(&output).ok();
        }
        Ok(sum)
    }
}

impl Attacher for Chain {
    fn name(&self) -> Name {
        self.name
    }

    fn attach(&self, number: usize, netns: &Path) -> Result<Duration> {
        self.run("ADD", number, netns)
    }

    fn detach(&self, number: usize, netns: &Path) -> Result<Duration> {
        self.run("DEL", number, netns)
    }

    fn tidy(&self) {
        // The daemon of `netd-cni` needs no help.
        if self.name != NETD {
            wipe(&self.place, "cni0");
            let _ = std::fs::remove_dir_all(LEASES);
        }
    }
}

/// Only where plugins are: iproute2 has a `bridge`, too.
fn plugin(name: &str, package: &str) -> Result<PathBuf> {
    let places = ["/usr/lib/cni", "/opt/cni/bin"].map(|dir| Path::new(dir).join(name));
    match places.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("not measured: the plugin {name} is missing; install the package {package}"),
    }
}

const LEASES: &str = "/run/lab/cni";
const FIRST_PORT: usize = 30_000;
