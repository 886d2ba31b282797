//! The same program as netavark calls it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;
use netd_tests::query::Resolver;
use netd_tests::{scenario, traffic};
use serde_json::{Value, json};

use crate::container::{called, error};

#[test]
fn netavarks_setup_and_teardown() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let plugin = called(&netd, "netd")?;
        let call = |deed: &str, input: &Value| {
            netd.place.run_with(
                &format!("{plugin} {deed}"),
                input.to_string().as_bytes(),
                Duration::from_secs(20),
            )
        };
        let info = call("info", &json!({}))?.success()?.json()?;
        ensure!(info["api_version"] == "1.0.0" && info["version"].is_string(), "{info}");
        let definition = json!({ "name": "app", "id": "2f259bab", "driver": "netd", "ipv6_enabled": true,
            "internal": false, "dns_enabled": true, "ipam_options": { "driver": "host-local" } });
        let network = call("create", &definition)?.success()?.json()?;
        ensure!(network["name"] == "app" && network["driver"] == "netd", "{network}");
        ensure!(
            network["subnets"][0] == json!({ "subnet": "10.89.0.0/24", "gateway": "10.89.0.1" }),
            "{network}"
        );
        let inputs = ["one", "two"].map(|name| {
            json!({ "container_id": format!("{name}752947ff91f9"), "container_name": name, "network": network,
                "port_mappings": if name == "one" { json!([{ "container_port": 7000, "host_ip": "",
                    "host_port": 8080, "protocol": "tcp", "range": 1 }]) } else { Value::Null },
                "network_options": { "aliases": [format!("{name}-alias")], "interface_name": "eth0",
                    "static_ips": [if name == "one" { "10.89.0.50" } else { "10.89.0.51" }], "static_mac": null } })
        });
        host.sh("ip netns add one")?;
        host.sh("ip netns add two")?;
        let status = call("setup /run/netns/one", &inputs[0])?.success()?.json()?;
        let eth0 = &status["interfaces"]["eth0"];
        ensure!(
            eth0["subnets"][0] == json!({ "ipnet": "10.89.0.50/24", "gateway": "10.89.0.1" }),
            "{status}"
        );
        ensure!(eth0["mac_address"].as_str().is_some_and(|mac| mac.len() == 17), "{status}");
        ensure!(status["dns_server_ips"] == json!(["127.0.0.11"]), "{status}");
        call("setup /run/netns/two", &inputs[1])?.success()?;
        let resolver = Resolver::new(&netd.inside("/run/netns/two"))?;
        for name in ["one", "one-alias", "one.dns.podman"] {
            ensure!(resolver.addresses(name)? == [IpAddr::from([10, 89, 0, 50])], "{name}");
        }
        traffic::serve(netd.inside("/run/netns/one").listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)?;
        let twice = call("setup /run/netns/one", &inputs[0])?;
        ensure!(error(&twice)?["error"].to_string().contains("already"), "{twice:?}");

        // Gone is gone, with or without the namespace, as often as it is asked for.
        for netns in ["/run/netns/one", "/run/netns/one", "/nonexistent"] {
            let done = call(&format!("teardown {netns}"), &inputs[0])?.success()?;
            ensure!(done.stdout.is_empty(), "{done:?}");
        }
        ensure!(netd.netd("network ls")?.stdout.contains("app"), "somebody is on it");
        call("teardown /run/netns/two", &inputs[1])?.success()?;
        ensure!(!netd.netd("network ls")?.stdout.contains("app"), "the last one takes it along");
        let bad = call("setup /nonexistent", &inputs[0])?;
        ensure!(error(&bad)?["error"].to_string().contains("/nonexistent"), "{bad:?}");
        host.sh("ip netns del one")?;
        host.sh("ip netns del two").map(drop)
    });
}
