//! Networks joined, left and laid anew while containers run; pods.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::ensure;
use netd_tests::runtimes::{Podman, Site, conflist};
use netd_tests::{scenario, traffic};
use serde_json::json;

use super::SETTINGS;

#[test]
fn a_running_container_joins_and_leaves_networks() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("front", "front", &json!({}))?;
        conflist("back", "back", &json!({ "subnet": "10.75.0.0/24" }))?;
        podman.sh("run -d --name db --network back busybox sleep 1000")?;
        podman.sh("run -d --cap-add NET_RAW --name web --network front -p 8080:80 busybox sleep 1000")?;
        traffic::serve(podman.inside("web")?.listen((Ipv6Addr::UNSPECIFIED, 80))?);
        podman.sh("network connect --alias api --ip 10.75.0.9 back web")?;
        for name in ["api", "web"] {
            let found = podman.exec("db", &format!("nslookup {name}"))?;
            ensure!(found.stdout.contains("10.75.0.9"), "{found:?}");
        }
        podman.exec("web", "ping -c1 -W2 db")?;
        traffic::exchange(&outsider, (site.host.v4, 8080).into(), 1, 1000, 1000)?;
        podman.sh("network disconnect back web")?;
        ensure!(podman.run("exec db nslookup api")?.code != 0, "the alias goes along");
        ensure!(!podman.exec("web", "ip addr")?.stdout.contains("eth1"), "the device is gone");
        traffic::exchange(&outsider, (site.host.v4, 8080).into(), 2, 1000, 1000)?;
        podman.sh("rm -f -t 0 web db")?;
        podman.left_nothing()
    });
}

#[test]
fn reload_gives_back_addresses_names_and_ports() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({ "ipv6": true }))?;
        podman.sh("run -d --name client --network shop busybox sleep 1000")?;
        podman
            .sh("run -d --name web --network shop --network-alias w1 -p 8080:80 busybox httpd -f -h /etc")?;
        let before = podman.exec("web", "ip addr show eth0")?.stdout;
        let address = |text: &str| {
            text.lines().filter(|line| line.contains("inet")).map(str::to_owned).collect::<Vec<_>>()
        };
        // Somebody has taken the device away; this is what brings it back.
        podman.inside("web")?.sh("ip link del eth0")?;
        podman.sh("network reload web")?;
        let after = podman.exec("web", "ip addr show eth0")?.stdout;
        ensure!(address(&before) == address(&after), "before {before} after {after}");
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        podman.exec("client", "wget -qO - http://w1/passwd")?;
        podman.sh("rm -f -t 0 web client")?;
        podman.left_nothing()
    });
}

#[test]
fn a_pod_has_one_place_on_the_network() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        // Without systemd, podman gives a pod's own cgroup no right to any device.
        podman.sh(
            "pod create --share-parent=false --name duo --infra-image busybox --infra-command 'sleep 1000' --network shop \
             --network-alias two -p 9090:80",
        )?;
        podman.sh("run -d --pod duo --name one busybox httpd -f -h /etc")?;
        podman.sh("run -d --pod duo --name other busybox sleep 1000")?;
        podman.sh("run -d --network shop --name client busybox sleep 1000")?;
        podman.exec("other", "wget -qO - http://127.0.0.1/passwd")?;
        for name in ["duo", "two"] {
            podman.exec("client", &format!("wget -qO - http://{name}/passwd"))?;
        }
        outsider.sh(&format!("curl -sSf http://{}:9090/passwd", site.host.v4))?;
        podman.sh("pod stop -t 0 duo")?;
        ensure!(outsider.connect((site.host.v4, 9090)).is_err(), "the pod has stopped");
        podman.sh("pod start duo")?;
        outsider.sh(&format!("curl -sSf http://{}:9090/passwd", site.host.v4))?;
        podman.exec("client", "wget -qO - http://two/passwd")?;
        podman.sh("pod rm -f -t 0 duo")?;
        podman.sh("rm -f -t 0 client")?;
        podman.left_nothing()
    });
}

#[test]
fn containers_stay_reachable_while_netd_is_started_anew() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        podman.sh("run -d --name web --network shop -p 8080:80 busybox sleep 1000")?;
        podman.sh("run -d --name leaver --network shop -p 8081:80 busybox sleep 1000")?;
        traffic::serve(podman.inside("web")?.listen((Ipv4Addr::UNSPECIFIED, 80))?);
        let load = traffic::Load::start(&outsider, (site.host.v4, 8080).into(), 2, 100, 1000);
        site.netd.kill()?;
        podman.run("run --rm --network shop busybox true")?.refused(126, "netd")?;
        // One that goes while netd is away is taken off when it is back.
        podman.sh("rm -f -t 0 leaver")?;
        site.netd.start()?;
        podman.sh("run --rm --network shop -p 8081:80 busybox nslookup web")?;
        ensure!(load.finish()? > 0, "connections were made all the time");
        podman.sh("rm -f -t 0 web")?;
        podman.left_nothing()
    });
}
