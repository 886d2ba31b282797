//! containerd's CRI plugin, driven as a kubelet drives it: for each pod it calls the plugins for the loopback device and
//! for eth0 at once, with capabilities and arguments of its own spelling.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use netd_tests::runtimes::{Containerd, Cri, Site, conflist, cri};
use netd_tests::{eventually, scenario, traffic};
use serde_json::json;

fn settings() -> String {
    let cni = "[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/local/lib/netd/cni\"\n";
    format!("{}{cni}", cri::SETTINGS)
}

fn network() -> Result<()> {
    let capabilities = json!({ "portMappings": true, "bandwidth": true, "dns": true });
    conflist(
        "10-netd",
        "pods",
        &json!({ "subnet": "10.77.0.0/24", "ipv6": true, "capabilities": capabilities }),
    )
}

#[test]
fn pods_find_each_other_and_are_published_until_they_are_stopped() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        network()?;
        let containerd = Containerd::start_with(&site, &settings())?;
        let cri = Cri(&containerd);
        eventually(Duration::from_secs(10), "the network is ready", || cri.is_ready())?;
        let web = cri.run_pod("web-0", &[(80, 8080)])?;
        let status = cri.status(&web)?;
        ensure!(status.contains("10.77.0."), "the pod's address: {status:?}");
        cri.run(&web, "server", "httpd -f -h /etc")?;
        let client = cri.run_pod("client-0", &[])?;
        let shell = cri.run(&client, "shell", "sleep 1000")?;
        let resolv = cri.exec(&shell, "cat /etc/resolv.conf")?;
        ensure!(resolv.contains("nameserver 127.0.0.11"), "{resolv}");
        for url in ["http://web-0/passwd", "http://127.0.0.1/passwd"] {
            let page = cri.exec(&shell, &format!("timeout 5 wget -qO - {url}"))?;
            ensure!(page.contains("root:x:0:0") == url.contains("web-0"), "{url}: {page:?}");
        }
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        outsider.sh(&format!("curl -sSf http://[{}]:8080/passwd", site.host.v6))?;
        // A kubelet stops what it has stopped, and removes it later.
        cri.stop(&web)?;
        ensure!(outsider.connect((site.host.v4, 8080)).is_err(), "the port is closed");
        for pod in [&web, &client] {
            cri.stop(pod)?;
            cri.remove(pod)?;
        }
        site.left_nothing()?;
        containerd.stop()
    });
}

#[test]
fn pods_come_at_once_and_outlive_containerd_and_netd() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        network()?;
        let containerd = Containerd::start_with(&site, &settings())?;
        let cri = Cri(&containerd);
        eventually(Duration::from_secs(10), "the network is ready", || cri.is_ready())?;
        let pods = std::thread::scope(|scope| {
            let cri = &cri;
            let all: Vec<_> = (0..6)
                .map(|number| scope.spawn(move || cri.run_pod(&format!("p{number}"), &[(80, 8100 + number)])))
                .collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect::<Result<Vec<_>>>()
        })?;
        traffic::serve(cri.inside(&pods[3])?.listen((Ipv4Addr::UNSPECIFIED, 80))?);
        let load = traffic::Load::start(&outsider, (site.host.v4, 8103).into(), 1, 100, 1000);
        let containerd = containerd.restart()?;
        let cri = Cri(&containerd);
        eventually(Duration::from_secs(10), "the network is ready", || cri.is_ready())?;
        site.netd.kill()?;
        // A pod that stops while netd is away is taken off when it is back.
        cri.stop(&pods[0])?;
        cri.remove(&pods[0])?;
        let refused = cri.run_pod("late", &[]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("netd"), "why it cannot start: {refused}");
        site.netd.start()?;
        let again = cri.run_pod("again", &[(80, 8100)])?;
        ensure!(load.finish()? > 0, "connections were made all the time");
        for pod in pods.iter().skip(1).chain([&again]) {
            cri.stop(pod)?;
            cri.remove(pod)?;
        }
        site.left_nothing()?;
        containerd.stop()
    });
}
