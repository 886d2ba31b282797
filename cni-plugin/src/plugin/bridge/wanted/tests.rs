use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Wanted> {
    Wanted::read(&Config::read(text.as_bytes())?)
}

fn options(wanted: &Wanted) -> Vec<String> {
    wanted.request.options.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// What `podman network create` 4.3 writes, with what libcni adds when it calls the plugin.
const PODMAN: &str = r#"{"bridge":"cni-podman1","capabilities":{"ips":true},"cniVersion":"0.4.0","hairpinMode":true,
    "ipMasq":true,"ipam":{"ranges":[[{"gateway":"10.89.0.1","subnet":"10.89.0.0/24"}]],
    "routes":[{"dst":"0.0.0.0/0"}],"type":"host-local"},"isGateway":true,"name":"app","type":"bridge"}"#;

#[test]
fn a_plain_network_of_podman() {
    let wanted = read(PODMAN).unwrap();
    assert_eq!(&*wanted.request.name, "app");
    assert_eq!(wanted.bridge, "cni-podman1");
    assert!(wanted.routes.is_empty());
    assert!(!wanted.request.internal && !wanted.request.enable_ipv6);
    assert_eq!(options(&wanted), ["bridge-name=cni-podman1", "icc=true", "isolate=false", "masquerade=true"]);
    let subnets = serde_json::to_value(&wanted.request.ipam.config).unwrap();
    assert_eq!(subnets, json!([{ "Subnet": "10.89.0.0/24", "Gateway": "10.89.0.1" }]));
    assert_eq!(wanted.dns, Dns::default());
}

#[test]
fn an_internal_network_of_podman() {
    let wanted = read(
        r#"{"bridge":"cni-podman2","capabilities":{"ips":true},"cniVersion":"0.4.0","hairpinMode":true,"ipam":{
        "ranges":[[{"gateway":"10.89.1.1","subnet":"10.89.1.0/24"}]],"type":"host-local"},"name":"inner","type":"bridge"}"#,
    )
    .unwrap();
    assert!(wanted.request.internal);
    assert!(options(&wanted).contains(&"masquerade=false".to_owned()));
}

#[test]
fn podmans_dual_stack_mtu_and_range() {
    let wanted = read(
        r#"{"bridge":"cni-podman3","cniVersion":"0.4.0","hairpinMode":true,"ipMasq":true,"isGateway":true,"mtu":1400,
        "ipam":{"ranges":[[{"gateway":"10.89.3.1","subnet":"10.89.3.0/24","rangeStart":"10.89.3.129",
        "rangeEnd":"10.89.3.255"}],[{"gateway":"fd10:89::1","subnet":"fd10:89::/64"}]],
        "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}],"type":"host-local"},"name":"both","type":"bridge"}"#,
    )
    .unwrap();
    assert!(wanted.request.enable_ipv6);
    assert!(options(&wanted).contains(&"mtu=1400".to_owned()));
    assert_eq!(wanted.request.ipam.config[0].ip_range, "10.89.3.128/25".parse().ok());
}

#[test]
fn nerdctls_and_containerds_networks() {
    let wanted = read(
        r#"{"cniVersion":"1.0.0","name":"bridge","nerdctlID":"17f29b07","nerdctlLabels":{"a":"b"},"type":"bridge",
        "bridge":"nerdctl0","isGateway":true,"ipMasq":true,"hairpinMode":true,"ipam":{"ranges":[[{"gateway":"10.4.0.1",
        "subnet":"10.4.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}],"type":"host-local"}}"#,
    )
    .unwrap();
    assert_eq!(wanted.bridge, "nerdctl0");
    let wanted = read(
        r#"{"cniVersion":"1.0.0","name":"containerd-net","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,
        "promiscMode":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}],
        [{"subnet":"2001:4860:4860::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}"#,
    )
    .unwrap();
    assert_eq!((&*wanted.bridge, wanted.request.ipam.config.len()), ("cni0", 2));
}

#[test]
fn the_references_defaults() {
    let wanted =
        read(r#"{"cniVersion":"1.0.0","name":"a","ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}"#)
            .unwrap();
    assert_eq!(wanted.bridge, "cni0");
    assert!(wanted.request.internal, "without isGateway nothing leads out");
    assert_eq!(options(&wanted), ["bridge-name=cni0", "icc=true", "isolate=false", "masquerade=false"]);
    let wanted = read(
        r#"{"cniVersion":"1.0.0","name":"a","isDefaultGateway":true,"portIsolation":true,"forceAddress":true,
        "ipMasqBackend":"iptables","vlan":0,"ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}"#,
    )
    .unwrap();
    assert!(!wanted.request.internal);
    assert!(options(&wanted).contains(&"icc=false".to_owned()));
}

#[test]
fn other_routes_are_routes_of_the_container() {
    let wanted = read(
        r#"{"cniVersion":"1.1.0","name":"a","isGateway":true,"ipam":{"type":"host-local","subnet":"10.1.0.0/24",
        "routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24"},{"dst":"198.51.100.0/24","gw":"10.1.0.9","priority":7,"table":100}]}}"#,
    )
    .unwrap();
    let [first, second] = &wanted.routes[..] else { panic!("two routes") };
    assert_eq!((first.gateway, first.metric, &first.told), (None, None, &json!({ "dst": "192.0.2.0/24" })));
    let gateway = Some(IpAddr::from([10, 1, 0, 9]));
    assert_eq!((second.gateway, second.metric, second.table), (gateway, Some(7), Some(100)));
}

#[test]
fn what_netd_does_not_do_is_refused_by_name() {
    for (key, value, code) in [
        ("ipam", json!({}), Code::UnsupportedField),
        ("ipam", json!({ "type": "dhcp" }), Code::UnsupportedField),
        ("vlan", json!(100), Code::UnsupportedField),
        ("vlan", json!(5000), Code::InvalidConfig),
        ("vlan", json!(-100), Code::InvalidConfig),
        ("vlanTrunk", json!([{ "id": 101 }]), Code::UnsupportedField),
        ("macspoofchk", json!(true), Code::UnsupportedField),
        ("enabledad", json!(true), Code::UnsupportedField),
        ("disableContainerInterface", json!(true), Code::UnsupportedField),
        ("promiscMode", json!(true), Code::InvalidConfig),
        ("mtu", json!("big"), Code::InvalidConfig),
        ("isGateway", json!(7), Code::InvalidConfig),
        ("ipam", json!({ "type": "host-local", "subnet": "10.1.0.0/24" }), Code::UnsupportedField),
    ] {
        let mut config: Value = serde_json::from_str(PODMAN).unwrap();
        config[key] = value;
        let refused = read(&config.to_string()).err().unwrap();
        assert_eq!(refused.code, code, "{key}: {refused:?}");
        let said = format!("{} {}", refused.message, refused.details);
        assert!(said.contains(key), "{said}");
    }
    let route = PODMAN.replace(r#""dst":"0.0.0.0/0""#, r#""dst":"0.0.0.0/0","advmss":1400"#);
    assert!(read(&route).err().unwrap().message.contains("ipam.routes[0].advmss"));
}

#[test]
fn resolvers_come_from_the_file_unless_the_configuration_has_some() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nameserver 192.0.2.53\nsearch lan\n").unwrap();
    let mut config: Value = serde_json::from_str(PODMAN).unwrap();
    config["ipam"]["resolvConf"] = file.path().to_str().unwrap().into();
    let dns = read(&config.to_string()).unwrap().dns;
    assert_eq!((dns.servers, dns.search[0].to_string()), (vec![[192, 0, 2, 53].into()], "lan".into()));
    config["dns"] = json!({ "nameservers": [] });
    assert_eq!(read(&config.to_string()).unwrap().dns, Dns::default());
}

#[test]
fn another_configuration_is_another_network() {
    let one = read(PODMAN).unwrap();
    assert_eq!(one.fingerprint(), read(PODMAN).unwrap().fingerprint());
    let vendor = PODMAN.replace(r#""type":"bridge""#, r#""type":"bridge","vendor":{"x":1}"#);
    assert_eq!(
        one.fingerprint(),
        read(&vendor).unwrap().fingerprint(),
        "what nobody reads makes no difference"
    );
    let other = PODMAN.replace("10.89.0.", "10.89.7.");
    assert_ne!(one.fingerprint(), read(&other).unwrap().fingerprint());
}
