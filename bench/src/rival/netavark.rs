//! netavark as podman runs it: one process for setup and one for teardown, told everything on stdin.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use netd_tests::Place;
use serde_json::json;

use crate::measure::Name;
use crate::rival::attacher::{Attacher, timed, wipe};
use crate::rival::program;

pub(crate) struct Netavark {
    place: Place,
    program: PathBuf,
}

impl Netavark {
    pub(crate) fn new(place: &Place) -> Result<Self> {
        let program = program("netavark", "netavark")?;
        std::fs::create_dir_all(DIR)?;
        Ok(Self { place: place.clone(), program })
    }

    fn run(&self, verb: &str, number: usize, netns: &Path) -> Result<Duration> {
        let order = json!({
            "container_id": format!("{number:064x}"),
            "container_name": format!("c{number}"),
            "port_mappings": [{
                "container_port": 80, "host_ip": "", "host_port": 30_000 + number, "protocol": "tcp", "range": 1
            }],
            "networks": {"rival": {
                "static_ips": [format!("10.91.{}.{}", number / 200, number % 200 + 2)], "interface_name": "eth0"
            }},
            "network_info": {"rival": {
                "name": "rival", "id": "e".repeat(64), "driver": "bridge", "network_interface": "podman1",
                "subnets": [{"subnet": "10.91.0.0/16", "gateway": "10.91.0.1"}],
                "ipv6_enabled": false, "internal": false, "dns_enabled": false,
                "ipam_options": {"driver": "host-local"}
            }}
        });
        let mut command = Command::new(&self.program);
        command.args(["--config", DIR, verb]).arg(netns);
        Ok(timed(&self.place, command, order.to_string().as_bytes())?.1)
    }
}

impl Attacher for Netavark {
    fn name(&self) -> Name {
        "netavark"
    }

    fn attach(&self, number: usize, netns: &Path) -> Result<Duration> {
        self.run("setup", number, netns)
    }

    fn detach(&self, number: usize, netns: &Path) -> Result<Duration> {
        self.run("teardown", number, netns)
    }

    fn tidy(&self) {
        wipe(&self.place, "podman1");
    }
}

const DIR: &str = "/run/lab/netavark";
