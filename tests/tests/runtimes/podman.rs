//! podman 4 with CNI networks, as its user types it.

use std::net::Ipv4Addr;

use anyhow::ensure;
use netd_tests::runtimes::{Podman, Site, conflist};
use netd_tests::{Lab, scenario, traffic};
use serde_json::json;

#[test]
fn containers_of_a_conflist_find_each_other_and_are_published() {
    scenario(|lab: &Lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(
            &site,
            "[network]\nnetwork_backend = \"cni\"\n[engine]\nenable_port_reservation = false\n",
        )?;
        conflist("shop", "shop", &json!({ "subnet": "10.70.0.0/24" }))?;
        podman
            .sh("run -d --name web --network shop --network-alias w1 -p 8080:80 busybox httpd -f -h /etc")?;
        podman.sh("run -d --name client --network shop busybox sleep 1000")?;
        let address = podman.exec("web", "hostname -i")?;
        ensure!(address.text().starts_with("10.70.0."), "{address:?}");
        for name in ["web", "w1"] {
            let found = podman.exec("client", &format!("nslookup {name}"))?;
            ensure!(found.stdout.contains(address.text()), "{found:?}");
            podman.exec("client", &format!("wget -qO - http://{name}/passwd"))?;
        }
        traffic::serve(podman.inside("web")?.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        podman.sh("rm -f -t 0 web client")?;
        podman.left_nothing()
    });
}
