use serde_json::json;

use super::*;

fn settings() -> EndpointSettings {
    EndpointSettings {
        ip_address: "10.60.0.2".into(),
        ip_prefix_len: 24,
        gateway: "10.60.0.1".into(),
        global_ipv6_address: "fd60::2".into(),
        global_ipv6_prefix_len: 64,
        ipv6_gateway: "fd60::1".into(),
        mac_address: "02:6e:0a:3c:00:02".into(),
        interface: "eth0".into(),
        host_interface: "nv001122334455".into(),
        dns_names: vec!["web".into()],
        ..EndpointSettings::default()
    }
}

fn printed(settings: &EndpointSettings, version: Version, before: Option<&Value>) -> Value {
    let dns = Dns { search: vec!["svc.local".parse().unwrap()], ..Dns::default() };
    let way_out = WayOut { v4: true, v6: true };
    let attached = Attached { settings, netns: "/run/netns/x", mtu: Some(1500), way_out, dns: &dns };
    attached.result(version, before.and_then(Value::as_object))
}

#[test]
fn the_result_is_in_the_callers_version() {
    let old = json!({
        "cniVersion": "0.4.0",
        "interfaces": [
            { "name": "nv001122334455" },
            { "name": "eth0", "mac": "02:6e:0a:3c:00:02", "sandbox": "/run/netns/x" },
        ],
        "ips": [
            { "version": "4", "interface": 1, "address": "10.60.0.2/24", "gateway": "10.60.0.1" },
            { "version": "6", "interface": 1, "address": "fd60::2/64", "gateway": "fd60::1" },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.60.0.1" }, { "dst": "::/0", "gw": "fd60::1" }],
        "dns": { "nameservers": ["127.0.0.11"], "search": ["svc.local"] },
    });
    assert_eq!(printed(&settings(), Version::V040, None), old);

    let mut expected = old.clone();
    expected["cniVersion"] = "0.3.1".into();
    assert_eq!(printed(&settings(), Version::V031, None), expected);

    let mut expected = old;
    expected["cniVersion"] = "1.0.0".into();
    for ip in expected["ips"].as_array_mut().unwrap() {
        ip.as_object_mut().unwrap().remove("version");
    }
    assert_eq!(printed(&settings(), Version::V100, None), expected);

    expected["cniVersion"] = "1.1.0".into();
    expected["interfaces"][0]["mtu"] = 1500.into();
    expected["interfaces"][1]["mtu"] = 1500.into();
    assert_eq!(printed(&settings(), Version::V110, None), expected);
}

#[test]
fn the_first_versions_have_an_object_a_family() {
    for version in [Version::V010, Version::V020] {
        assert_eq!(
            printed(&settings(), version, None),
            json!({
                "cniVersion": version.as_str(),
                "ip4": { "ip": "10.60.0.2/24", "gateway": "10.60.0.1",
                         "routes": [{ "dst": "0.0.0.0/0", "gw": "10.60.0.1" }] },
                "ip6": { "ip": "fd60::2/64", "gateway": "fd60::1", "routes": [{ "dst": "::/0", "gw": "fd60::1" }] },
                "dns": { "nameservers": ["127.0.0.11"], "search": ["svc.local"] },
            })
        );
    }
}

#[test]
fn a_network_without_gateway_and_names_has_neither_routes_nor_a_server() {
    let inner = EndpointSettings {
        gateway: String::new(),
        ipv6_gateway: String::new(),
        dns_names: Vec::new(),
        ..settings()
    };
    let result = printed(&inner, Version::V100, None);
    assert_eq!(result["ips"][0], json!({ "interface": 1, "address": "10.60.0.2/24" }));
    assert_eq!(result.get("routes"), None);
    assert_eq!(result["dns"], json!({ "search": ["svc.local"] }));
}

#[test]
fn what_the_chain_made_before_keeps_its_place_and_its_unknown_members() {
    let before = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "dummy0", "sandbox": "/run/netns/x", "mac": "02:00:00:00:00:01", "pciID": "0:1" }],
        "ips": [{ "interface": 0, "address": "192.0.2.7/32" }],
        "routes": null,
        "dns": { "nameservers": ["192.0.2.53"], "domain": "d" },
        "vendor": { "x": 1 },
    });
    let result = printed(&settings(), Version::V110, Some(&before));
    assert_eq!(result["interfaces"][0], before["interfaces"][0]);
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["ips"][0], before["ips"][0]);
    assert_eq!(result["ips"][1]["interface"], 2);
    assert_eq!(result["vendor"], before["vendor"]);
    assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
    assert_eq!(result["dns"]["nameservers"], json!(["127.0.0.11", "192.0.2.53"]));
    assert_eq!(result["dns"]["domain"], "d");
}

#[test]
fn check_finds_the_addresses_of_its_own_device() {
    let told = json!({
        "interfaces": [{ "name": "eth0" }, { "name": "eth0", "sandbox": "/run/netns/x" }],
        "ips": [
            { "interface": 0, "address": "10.0.0.1/24" },
            { "interface": 1, "address": "10.60.0.2/24" },
            { "address": "fd60::2/64" },
            { "interface": 9, "address": 5 },
        ],
    });
    let told = told.as_object().unwrap();
    let expected: Vec<IpAddr> = vec!["10.60.0.2".parse().unwrap(), "fd60::2".parse().unwrap()];
    assert_eq!(addresses_of(told, "eth0"), Some(expected));
    assert_eq!(addresses_of(told, "eth1"), None);
    assert_eq!(addresses_of(&Map::new(), "eth0"), None);
}
