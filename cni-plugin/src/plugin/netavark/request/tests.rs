use super::*;

fn given() -> Value {
    json!({
        "container_id": "752947ff91f961eb3cb47ffe9315016979f3ffbec09e4d96a4fae3fb03391697",
        "container_name": "testctr",
        "port_mappings": [
            { "container_port": 80, "host_ip": "127.0.0.1", "host_port": 8080, "protocol": "tcp", "range": 1 },
            { "container_port": 53, "host_ip": "", "host_port": 5300, "protocol": "tcp,udp", "range": 10 },
        ],
        "network": {
            "dns_enabled": true,
            "driver": "netd",
            "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
            "internal": false,
            "ipv6_enabled": false,
            "name": "app",
            "network_interface": "podman1",
            "options": { "mtu": "1400", "isolate": "strict" },
            "ipam_options": { "driver": "host-local" },
            "subnets": [{ "gateway": "10.89.0.1", "lease_range": null, "subnet": "10.89.0.0/24" }],
            "network_dns_servers": null,
        },
        "network_options": {
            "aliases": ["752947ff91f9", "not a name"],
            "interface_name": "eth0",
            "static_ips": ["10.89.0.50"],
            "static_mac": "aa:bb:cc:dd:aa:00",
        },
    })
}

#[test]
fn netavarks_setup_is_understood() {
    let request = Request::read(&given()).unwrap();
    assert_eq!((&*request.interface, &*request.network.name), ("eth0", "app"));
    let names: Vec<String> =
        request.wishes.name.iter().chain(&request.wishes.aliases).map(ToString::to_string).collect();
    assert_eq!(names, ["testctr", "752947ff91f9", "testctr.dns.podman", "752947ff91f9.dns.podman"]);
    let ports: Vec<String> = request.wishes.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["127.0.0.1:8080:80/tcp", "5300-5309:53-62/tcp", "5300-5309:53-62/udp"]);
    assert_eq!(request.wishes.v4, Some([10, 89, 0, 50].into()));
    assert_eq!(request.wishes.mac.unwrap().to_string(), "aa:bb:cc:dd:aa:00");
    let options: Vec<String> =
        request.network.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["bridge-name=podman1", "isolate=true", "mtu=1400"]);
    let (config, environment) = (as_config(&given()).unwrap(), environment(&given(), "/n").unwrap());
    assert_eq!((&*config.network, &*environment.interface, &*environment.netns), ("app", "eth0", "/n"));
}

#[test]
fn without_dns_there_are_no_names() {
    let mut given = given();
    given["network"]["dns_enabled"] = false.into();
    given["network"]["options"] = Value::Null;
    let request = Request::read(&given).unwrap();
    assert!(!request.has_names && request.wishes.name.is_none() && request.wishes.aliases.is_empty());
}

#[test]
fn what_netd_does_not_do_is_refused_by_name() {
    for (path, value, why) in [
        ("/network/options", json!({ "vlan": "5" }), "network.options.vlan"),
        ("/network/ipam_options", json!({ "driver": "dhcp" }), "network.ipam_options.driver"),
        ("/network/routes", json!([{ "destination": "10.0.0.0/8" }]), "network.routes[0]"),
        ("/network/subnets/0/subnet", json!("10.89.0.1/24"), "host bits"),
        ("/network/name", json!(null), "name is missing"),
        ("/network_options/interface_name", json!(""), "interface_name"),
        ("/network_options/static_ips", json!(["10.89.0.50", "10.89.0.51"]), "static_ips[1]"),
        ("/port_mappings/0/protocol", json!("sctp"), "port_mappings[0]"),
        ("/port_mappings/1/host_port", json!(65530), "beyond port 65535"),
        ("/container_id", json!(7), "container_id"),
    ] {
        let mut given = given();
        let (parent, key) = path.rsplit_once('/').unwrap();
        given.pointer_mut(parent).unwrap()[key] = value;
        let refused = Request::read(&given).err().or_else(|| environment(&given, "/n").err()).unwrap();
        let said = format!("{} {}", refused.message, refused.details);
        assert!(said.contains(why), "{path}: {said}");
    }
}
