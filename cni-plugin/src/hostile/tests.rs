use proptest::prelude::*;
use serde_json::{Value, json};

use super::call;

const VERBS: &[&str] = &["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "add"];

proptest! {
    #[test]
    fn any_bytes_are_a_call_or_a_refusal(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        call(&input);
    }

    #[test]
    fn any_environment_is_read_or_refused(
        verb in 0..VERBS.len(), id in "\\PC{0,20}", name in "\\PC{0,17}", args in "[A-Z0-9=;._]{0,60}", stdin in "\\PC{0,60}",
    ) {
        let environment = format!("CNI_COMMAND={}\nCNI_CONTAINERID={id}\nCNI_IFNAME={name}\nCNI_NETNS=/n\nCNI_ARGS={args}", VERBS[verb]);
        call(format!("{environment}\n\n{stdin}").as_bytes());
    }

    #[test]
    fn any_shape_under_a_known_key_is_read_or_refused(key in 0..KEYS.len(), value in shapes()) {
        let mut document = json!({ "cniVersion": "1.1.0", "name": "app" });
        let mut place = &mut document;
        for part in KEYS[key].split('/') {
            place = &mut place[part];
        }
        *place = value;
        call(format!("CNI_COMMAND=ADD\nCNI_CONTAINERID=web\nCNI_NETNS=/n\nCNI_IFNAME=eth0\n\n{document}").as_bytes());
    }
}

const KEYS: &[&str] = &[
    "runtimeConfig",
    "runtimeConfig/portMappings",
    "runtimeConfig/ips",
    "runtimeConfig/aliases",
    "runtimeConfig/bandwidth",
    "runtimeConfig/ipRanges",
    "runtimeConfig/dns/servers",
    "runtimeConfig/mac",
    "args/cni",
    "dns",
    "subnet",
    "ipam",
    "ipam/ranges",
    "mtu",
    "prevResult",
    "cni.dev/valid-attachments",
];

/// JSON with the words of the configuration in it.
fn shapes() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(vec![
        "hostPort",
        "containerPort",
        "protocol",
        "subnet",
        "rangeStart",
        "rangeEnd",
        "containerID",
        "app",
        "10.0.0.0/8",
        "fd00::/8",
        "255.255.255.255",
        "tcp",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..4).prop_map(|members| members
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}
