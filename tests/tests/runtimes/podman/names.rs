//! Containers find each other by name and alias.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::ensure;
use netd_tests::query::Resolver;
use netd_tests::runtimes::{Podman, Site, conflist};
use netd_tests::scenario;
use serde_json::json;

use super::SETTINGS;

#[test]
fn containers_of_a_conflist_find_each_other_and_are_published() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({ "subnet": "10.70.0.0/24" }))?;
        conflist("other", "other", &json!({}))?;
        podman
            .sh("run -d --name web --network shop --network-alias w1 -p 8080:80 busybox httpd -f -h /etc")?;
        podman.sh("run -d --name client --network shop busybox sleep 1000")?;
        let address = podman.exec("web", "hostname -i")?;
        ensure!(address.text().starts_with("10.70.0."), "{address:?}");
        let id = &podman.inspect("web")?["Id"].as_str().unwrap_or_default()[..12].to_owned();
        for name in ["web", "w1", id, "web.shop"] {
            let found = podman.exec("client", &format!("nslookup {name}"))?;
            ensure!(found.stdout.contains(address.text()), "{found:?}");
            podman.exec("client", &format!("wget -qO - http://{name}/passwd"))?;
        }
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        let elsewhere = podman.run("run --rm --network other busybox nslookup web")?;
        ensure!(elsewhere.code != 0, "a name of another network: {elsewhere:?}");
        podman.sh("rm -f -t 0 web client")?;
        podman.left_nothing()
    });
}

#[test]
fn an_alias_of_several_containers_leads_to_each_equally_often() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({ "ipv6": true }))?;
        for name in ["s1", "s2"] {
            podman.sh(&format!(
                "run -d --name {name} --network shop --network-alias search busybox sleep 1000"
            ))?;
        }
        podman.sh("run -d --name client --network shop busybox sleep 1000")?;
        let resolver = Resolver::new(&podman.inside("client")?)?;
        let mut first = HashMap::<IpAddr, u32>::new();
        for _ in 0..200 {
            let found = resolver.addresses("search")?;
            ensure!(found.len() == 2, "{found:?}");
            *first.entry(found[0]).or_default() += 1;
        }
        ensure!(first.len() == 2 && first.values().all(|count| (95..=105).contains(count)), "{first:?}");

        // A stopped container answers no more, so nothing leads to it.
        podman.sh("stop -t 0 s1")?;
        ensure!(resolver.addresses("search")?.len() == 1, "s1 has stopped");
        podman.sh("start s1")?;
        ensure!(resolver.addresses("search")?.len() == 2, "s1 is back");
        podman.sh("rm -f -t 0 s1 s2 client")?;
        podman.left_nothing()
    });
}
