//! Docker with netd as its network and IPAM plugin, as its user types it.

use std::time::Duration;

use anyhow::{Result, ensure};
use netd_tests::runtimes::{Dockerd, Site};
use netd_tests::{Lab, eventually, scenario};

#[test]
fn containers_find_each_other_and_are_published() {
    scenario(|lab: &Lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::with(lab, PLUGIN)?;
        let docker = Dockerd::start(&site)?;
        docker.sh("network create -d netd --ipam-driver netd --subnet 10.70.0.0/24 shop")?;
        docker.sh(&format!(
            "run -d --name web {LIMITS} --network shop --network-alias w1 -p 8080:80 busybox httpd -f -h /etc"
        ))?;
        docker.sh(&format!("run -d --name client {LIMITS} --network shop busybox sleep 1000"))?;
        let address = docker.exec("web", "hostname -i")?;
        ensure!(address.text() == "10.70.0.2", "{address:?}");
        for name in ["web", "w1"] {
            docker.exec("client", &format!("wget -qO - http://{name}/passwd"))?;
        }
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        docker.sh("rm -f web client")?;
        docker.sh("network rm shop")?;
        left_nothing(&site)
    });
}

/// What a user wants to see after the last container and network were removed.
fn left_nothing(site: &Site) -> Result<()> {
    let sandboxes = site.netd.netd("sandbox ls -q")?;
    ensure!(sandboxes.text().is_empty(), "{sandboxes:?}");
    let networks = site.netd.netd("network ls")?;
    ensure!(!networks.stdout.contains("docker-"), "{networks:?}");
    eventually(Duration::from_secs(5), "no link or port is left", || {
        let links = site.host.look("ip -br link")?;
        ensure!(!["nv", "nw", "nd-"].iter().any(|mark| links.contains(mark)), "{links}");
        let ports = site.host.look("ss -Hlntu")?;
        ensure!(ports.lines().all(|line| line.contains("127.0.0.1")), "{ports}");
        Ok(())
    })
}

const PLUGIN: &str = "[docker]\nplugin = true\n";
/// Docker's own are more than this machine lets anybody have.
const LIMITS: &str = "--ulimit nofile=20000:20000 --ulimit nproc=20000";
