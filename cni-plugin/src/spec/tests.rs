use std::ffi::OsString;

use serde_json::{Value, json};

use super::*;
use crate::error::{Code, Failure};

const ID: &str = "3f2a9c0d1e2b4455667788990011223344556677889900112233445566778899";

fn command(variables: &[(&str, &str)]) -> Result<Command, Failure> {
    Command::read(|key| {
        variables.iter().find(|(name, _)| *name == key).map(|(_, value)| OsString::from(value))
    })
}

fn environment(args: &str) -> Environment {
    Environment {
        container: ID.into(),
        netns: "/run/netns/netns-1".into(),
        interface: "eth0".into(),
        args: args.into(),
        own_netns: false,
    }
}

fn config(text: &str) -> Result<Config, Failure> {
    Config::read(text.as_bytes())
}

fn wishes(text: &str, args: &str) -> Result<Wishes, Failure> {
    Wishes::read(&config(text)?, &environment(args))
}

/// A configuration called `app` with these capabilities.
fn with(runtime: &Value) -> String {
    json!({ "cniVersion": "1.0.0", "name": "app", "type": "netd-cni", "runtimeConfig": runtime }).to_string()
}

/// The name that is registered, then the aliases.
fn names(wishes: &Wishes) -> Vec<String> {
    wishes.name.iter().chain(&wishes.aliases).map(ToString::to_string).collect()
}

#[test]
fn all_missing_variables_are_in_one_error() {
    for verb in ["ADD", "CHECK"] {
        let failure = command(&[("CNI_COMMAND", verb), ("CNI_NETNS", "")]).unwrap_err();
        assert_eq!(failure.code, Code::InvalidEnvironment);
        assert_eq!(failure.message, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing");
    }
    let all = [("CNI_CONTAINERID", "web"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];
    for (missing, _) in all {
        let mut given: Vec<_> = all.into_iter().filter(|(key, _)| *key != missing).collect();
        given.push(("CNI_COMMAND", "ADD"));
        let failure = command(&given).unwrap_err();
        assert_eq!(failure.code, Code::InvalidEnvironment);
        assert_eq!(failure.message, format!("required env variables [{missing}] missing"));
    }
    let failure = command(&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")]).unwrap_err();
    assert_eq!(failure.message, "required env variables [CNI_CONTAINERID] missing");
}

#[test]
fn bad_variables_are_refused_and_an_empty_command_asks_who_it_is() {
    assert!(matches!(command(&[]), Ok(Command::About)));
    assert!(matches!(command(&[("CNI_COMMAND", "")]), Ok(Command::About)));
    assert!(matches!(command(&[("CNI_COMMAND", "VERSION")]), Ok(Command::Version)));
    assert!(matches!(command(&[("CNI_COMMAND", "STATUS")]), Ok(Command::Call(Verb::Status, _))));
    assert_eq!(command(&[("CNI_COMMAND", "add")]).unwrap_err().code, Code::InvalidEnvironment);
    for (container, interface) in [
        ("../etc", "eth0"),
        ("-a", "eth0"),
        ("a b", "eth0"),
        ("a", "sixteen-bytes-xx"),
        ("a", ".."),
        ("a", "e/0"),
        ("a", "e:0"),
        ("a", "e 0"),
    ] {
        let given = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", container), ("CNI_IFNAME", interface)];
        assert_eq!(command(&given).unwrap_err().code, Code::InvalidEnvironment, "{container} {interface}");
    }
}

#[test]
fn every_version_is_known_by_its_exact_name() {
    for version in Version::ALL {
        let text = json!({ "cniVersion": version.as_str(), "name": "app" }).to_string();
        assert_eq!(config(&text).unwrap().version, version);
    }
    assert_eq!(config(r#"{"name":"app"}"#).unwrap().version, Version::V010);
    for other in ["2.0.0", "1.0", "v1.0.0", "0.4.1"] {
        let failure = config(&json!({ "cniVersion": other, "name": "app" }).to_string()).unwrap_err();
        assert_eq!(failure.code, Code::IncompatibleVersion);
        assert!(failure.details.contains(other) && failure.details.contains("0.3.1 0.4.0 1.0.0 1.1.0"));
    }
}

#[test]
fn bad_configurations_have_the_codes_of_the_specification() {
    for (text, code) in [
        ("{", Code::Decoding),
        ("[]", Code::Decoding),
        (r#"{"cniVersion":"1.0.0"}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"a/b"}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":7}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"app","network":"host"}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"app","socket":"netd.sock"}"#, Code::InvalidConfig),
    ] {
        assert_eq!(config(text).unwrap_err().code, code, "{text}");
    }
}

#[test]
fn podman_is_understood() {
    let text = r#"{"cniVersion":"0.4.0","name":"app","type":"netd-cni",
        "capabilities":{"aliases":true,"ips":true,"portMappings":true},
        "runtimeConfig":{"aliases":{"app":["w1","3f2a9c0d1e2b"]},"portMappings":[
            {"hostPort":8080,"containerPort":80,"protocol":"tcp"},
            {"hostPort":5353,"containerPort":53,"protocol":"udp","hostIP":"127.0.0.1"}]}}"#;
    let wishes = wishes(text, "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:11:22:33:44:55;IP=10.89.0.7").unwrap();
    assert_eq!(names(&wishes), ["web", "w1", "3f2a9c0d1e2b"]);
    assert_eq!(wishes.hostname.as_deref(), Some("web"));
    let ports: Vec<String> = wishes.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8080:80/tcp", "127.0.0.1:5353:53/udp"]);
    assert_eq!(wishes.v4, Some([10, 89, 0, 7].into()));
    assert_eq!(wishes.mac.map(|mac| mac.to_string()).as_deref(), Some("02:11:22:33:44:55"));
}

#[test]
fn containerd_is_understood_with_its_keys_in_gos_case_and_nulls() {
    let runtime = json!({
        "portMappings": [{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
                         { "HostPort": 0, "ContainerPort": 81, "Protocol": "", "HostIP": "" }],
        "bandwidth": { "IngressRate": 1_000_000, "IngressBurst": 4_294_967_295_u32, "EgressRate": 0, "EgressBurst": 4_294_967_295_u32 },
        "dns": { "Servers": null, "Searches": ["svc.local"], "Options": null },
        "io.kubernetes.cri.pod-annotations": { "a": "b" },
        "ips": null,
    });
    let args =
        "K8S_POD_UID=1;K8S_POD_NAME=web-0;IgnoreUnknown=1;K8S_POD_NAMESPACE=d;K8S_POD_INFRA_CONTAINER_ID=x";
    let wishes = wishes(&with(&runtime), args).unwrap();
    let ports: Vec<String> = wishes.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8080:80/tcp"]);
    assert_eq!(wishes.dns.search.iter().map(|domain| &**domain).collect::<Vec<_>>(), ["svc.local"]);
    assert_eq!(names(&wishes), ["web-0"]);
    let bandwidth = wishes.bandwidth.expect("one way is limited");
    assert_eq!((bandwidth.ingress_rate, bandwidth.egress_rate), (1_000_000, 0));
}

#[test]
fn ctr_and_crio_are_understood() {
    let bare =
        wishes(r#"{"cniVersion":"1.0.0","name":"app","type":"netd-cni","runtimeConfig":null}"#, "").unwrap();
    assert_eq!(names(&bare), ["3f2a9c0d1e2b"]);
    let runtime = json!({ "aliases": { "other": ["x"] }, "cgroupPath": "kubepods", "ips": ["10.1.2.3/24", "fd00::3"],
                          "bandwidth": { "ingressRate": 0, "egressRate": 0 }, "ipRanges": [[{ "subnet": "10.1.0.0/24" }]] });
    let crio = wishes(&with(&runtime), "IgnoreUnknown=1;IP=10.9.9.9").unwrap();
    assert_eq!(names(&crio), ["3f2a9c0d1e2b"], "aliases of another network are not ours");
    assert_eq!(crio.v4, Some([10, 1, 2, 3].into()), "the capability comes before CNI_ARGS");
    assert_eq!((crio.bandwidth, crio.ranges[0].to_string().as_str()), (None, "10.1.0.0/24"));
    assert_eq!(crio.v6, Some("fd00::3".parse().unwrap()));
    let list = wishes(&with(&json!({ "aliases": ["A", "b"] })), "").unwrap();
    assert_eq!(names(&list), ["3f2a9c0d1e2b", "a", "b"]);
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (runtime, code, named) in [
        (json!({ "portMappings": [{ "hostPort": 1, "containerPort": 1, "protocol": "sctp" }] }), 2, "sctp"),
        (
            json!({ "portMappings": [{ "hostPort": 70000, "containerPort": 1 }] }),
            7,
            "portMappings[0].hostPort",
        ),
        (json!({ "portMappings": [{ "hostPort": 80 }] }), 7, "runtimeConfig.portMappings[0]"),
        (json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80, "hostIP": "x" }] }), 7, "hostIP"),
        (json!({ "portMappings": {} }), 7, "portMappings"),
        (json!({ "ips": ["10.1.2.3", "10.1.2.4"] }), 2, "runtimeConfig.ips[1]"),
        (json!({ "ips": ["nonsense"] }), 7, "runtimeConfig.ips[0]"),
        (json!({ "mac": "zz" }), 7, "runtimeConfig.mac"),
        (json!({ "aliases": ["a b"] }), 7, "runtimeConfig.aliases[0]"),
        (json!({ "bandwidth": { "ingressRate": 1_000_000 } }), 7, "a rate needs a burst"),
        (json!({ "bandwidth": { "EgressRate": 1, "EgressBurst": 34_359_738_368_u64 } }), 7, "4 GiB"),
        (json!({ "bandwidth": { "ingressRate": "x" } }), 7, "runtimeConfig.bandwidth.ingressRate"),
        (json!({ "ipRanges": [[{ "subnet": "10.1.0.9/24" }]] }), 7, "runtimeConfig.ipRanges[0][0].subnet"),
        (json!(5), 7, "runtimeConfig"),
    ] {
        let failure = wishes(&with(&runtime), "").unwrap_err();
        assert_eq!(failure.code as u32, code, "{runtime}: {failure:?}");
        let said = format!("{} {}", failure.message, failure.details);
        assert!(said.contains(named), "{runtime}: {said}");
    }
    for args in ["A=b", "IP=1=2", "IP", "IP=x;IgnoreUnknown=1", "MAC=1;IgnoreUnknown=1"] {
        assert_eq!(wishes(&with(&json!({})), args).unwrap_err().code, Code::InvalidEnvironment, "{args}");
    }
}

#[test]
fn the_later_source_of_a_wish_wins() {
    let args = "IgnoreUnknown=1;MAC=02:00:00:00:00:01;IP=10.1.0.1";
    let given = |more: Value| {
        let mut document = json!({ "cniVersion": "1.0.0", "name": "app" });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let wishes = wishes(&document.to_string(), args).unwrap();
        (wishes.mac.unwrap().octets()[5], wishes.v4.unwrap().octets()[3])
    };
    assert_eq!(given(json!({})), (1, 1));
    let by_args = json!({ "cni": { "mac": "02:00:00:00:00:02", "ips": ["10.1.0.2/24"] } });
    assert_eq!(given(json!({ "args": by_args })), (2, 2));
    let by_runtime = json!({ "mac": "02:00:00:00:00:03", "ips": ["10.1.0.3"] });
    assert_eq!(given(json!({ "args": by_args, "runtimeConfig": by_runtime })), (3, 3));
    let nothing = json!({ "mac": "", "ips": [] });
    assert_eq!(given(json!({ "runtimeConfig": nothing })), (1, 1), "what is empty is not given");
}

#[test]
fn ports_that_do_not_exist_are_refused() {
    for mapping in [
        json!({ "hostPort": 70_000, "containerPort": 80 }),
        json!({ "hostPort": -1, "containerPort": 80 }),
        json!({ "hostPort": 8080, "containerPort": 0 }),
        json!({ "hostPort": 8080, "containerPort": 65_536 }),
        json!({ "hostPort": 8080 }),
    ] {
        let refused = wishes(&with(&json!({ "portMappings": [mapping] })), "").unwrap_err();
        let said = format!("{} {}", refused.message, refused.details);
        assert!(refused.code == Code::InvalidConfig && said.contains("portMappings[0]"), "{refused:?}");
    }
    let unnamed = with(&json!({ "portMappings": [{ "hostPort": 0, "containerPort": 80 }] }));
    assert!(wishes(&unnamed, "").unwrap().ports.is_empty());
}

#[test]
fn the_network_is_made_as_the_configuration_says() {
    let made = |more: Value| {
        let mut document = json!({ "cniVersion": "1.0.0", "name": "app" });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config(&document.to_string())?.create_network()
    };
    let plain = made(json!({})).unwrap();
    assert_eq!((&*plain.name, plain.internal, plain.enable_ipv6), ("app", false, false));
    assert!(plain.ipam.config.is_empty() && plain.options.is_empty());

    let own = made(
        json!({ "network": "shared", "subnet": "10.60.0.0/24", "ipv6": "true", "mtu": 1400, "ipMasq": false,
                           "internal": true }),
    )
    .unwrap();
    assert_eq!((&*own.name, own.internal, own.enable_ipv6), ("shared", true, true));
    assert_eq!(own.ipam.config[0].subnet.unwrap().to_string(), "10.60.0.0/24");
    let options: Vec<_> = own.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["masquerade=false", "mtu=1400"]);

    let ranges = made(json!({ "isGateway": true, "ipMasq": true, "ipam": { "type": "host-local", "ranges": [
        [{ "Subnet": "10.61.0.0/24", "RangeStart": "10.61.0.128", "gateway": "10.61.0.1" }],
        [{ "subnet": "fd61::/64" }]] } }))
    .unwrap();
    assert!(ranges.enable_ipv6 && !ranges.internal && ranges.options.is_empty());
    let v4 = &ranges.ipam.config[0];
    assert_eq!(v4.ip_range.unwrap().to_string(), "10.61.0.128/25");
    assert_eq!(v4.gateway.unwrap().to_string(), "10.61.0.1");
    assert_eq!(ranges.ipam.config[1].subnet.unwrap().to_string(), "fd61::/64");

    let from = |subnet: &str, start: &str| {
        made(json!({ "ipam": { "ranges": [[{ "subnet": subnet, "rangeStart": start }]] } }))
    };
    let uneven = from("10.62.0.0/24", "10.62.0.10").unwrap();
    assert_eq!(uneven.ipam.config[0].auxiliary_addresses.len(), 9, "1 to 9 are not handed out");
    assert_eq!(from("10.62.0.0/16", "10.62.9.0").unwrap_err().code, Code::UnsupportedField);
    assert_eq!(made(json!({ "subnet": "10.63.0.9/24" })).unwrap_err().code, Code::InvalidConfig);
}

#[test]
fn a_missing_list_of_attachments_is_not_an_empty_one() {
    let valid = |more: &str| {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"app"{more}}}"#);
        config(&text).unwrap().valid_attachments()
    };
    assert_eq!(valid("").unwrap(), None);
    assert_eq!(valid(r#","cni.dev/valid-attachments":null"#).unwrap(), None);
    assert_eq!(valid(r#","cni.dev/valid-attachments":[]"#).unwrap(), Some(Vec::new()));
    let one = valid(r#","cni.dev/attachments":[{"containerID":"web","ifname":"eth0"}]"#).unwrap().unwrap();
    assert_eq!(one, [Valid { sandbox: sandbox_name("web").unwrap().to_string(), interface: "eth0".into() }]);
    assert!(valid(r#","cni.dev/valid-attachments":[{"ifname":"eth0"}]"#).is_err());
}

#[test]
fn a_containers_sandbox_is_found_by_its_id_alone() {
    assert_eq!(sandbox_name(ID).unwrap(), sandbox_name(ID).unwrap());
    assert!(sandbox_name(ID).unwrap().starts_with("cni-3f2a9c0d1e2b-"));
    let twin = format!("{}0", &ID[..63]);
    assert_ne!(sandbox_name(ID).unwrap(), sandbox_name(&twin).unwrap());
    assert!(sandbox_name(&"a".repeat(300)).is_ok());
}
