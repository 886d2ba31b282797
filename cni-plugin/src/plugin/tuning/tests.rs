use netd_sys::netlink::link;
use nix::sched::{CloneFlags, unshare};

use super::*;

const MAC: &str = "02:00:00:00:00:09";

/// On a thread of its own, in a namespace of its own with one device.
fn inside(test: impl FnOnce(&Path) + Send + 'static) {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("the tests run as root");
        let mut rtnl = Rtnl::open().unwrap();
        let spec = link::Bridge { name: "eth0", mac: Some([2, 0, 0, 0, 0, 1]), mtu: Some(1500), group: 0 };
        rtnl.transact(vec![link::bridge(&spec)]).unwrap();
        test(tempfile::tempdir().unwrap().path());
    })
    .join()
    .unwrap();
}

fn environment() -> Environment {
    Environment {
        container: "one".into(),
        netns: "/proc/thread-self/ns/net".into(),
        interface: "eth0".into(),
        // The namespace that the test itself is in.
        own_netns: true,
        ..Environment::default()
    }
}

fn config(folder: &Path, more: &Value) -> Config {
    let mut all = json!({
        "cniVersion": "1.1.0", "name": "app", "type": "tuning", "dataDir": folder.join("data"),
        "prevResult": { "cniVersion": "1.1.0", "vendor": 1, "interfaces": [
            { "name": "eth0", "mac": "02:00:00:00:00:01" },
            { "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x" }] },
    });
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
    Config::read(all.to_string().as_bytes()).unwrap()
}

fn found() -> link::Link {
    Rtnl::open().unwrap().link("eth0").unwrap().unwrap()
}

#[test]
fn settings_are_made_found_and_put_back() {
    inside(|folder| {
        let before = found();
        let more = json!({ "promisc": true, "mtu": 1400, "txQLen": 77, "allmulti": true, "mac": MAC,
                           "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net/core/somaxconn": "500" } });
        let config = config(folder, &more);
        let result = run(Verb::Add, &environment(), &config).unwrap().unwrap();
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(
            (&interfaces[0]["mac"], &interfaces[1]["mac"]),
            (&json!("02:00:00:00:00:01"), &json!(MAC))
        );
        assert_eq!((&interfaces[1]["mtu"], &result["vendor"]), (&json!(1400), &json!(1)));
        let now = found();
        assert_eq!((now.mtu, now.queue, now.promiscuous, now.all_multicast), (1400, 77, true, true));
        assert_eq!(now.mac, Some([2, 0, 0, 0, 0, 9]));
        assert_eq!(sysctl::read("net/core/somaxconn").unwrap(), "500");
        run(Verb::Check, &environment(), &config).unwrap();
        sysctl::write("net/ipv4/conf/eth0/arp_filter", "0").unwrap();
        let wrong = run(Verb::Check, &environment(), &config).unwrap_err();
        assert!(wrong.message.contains("arp_filter is 0, not 1"), "{wrong:?}");

        // A second ADD does not take what the first has set for what was there before.
        run(Verb::Add, &environment(), &config).unwrap();
        for _ in 0..2 {
            assert_eq!(run(Verb::Del, &environment(), &config).unwrap(), None);
        }
        assert_eq!(found(), before);
        assert_ne!(sysctl::read("net/core/somaxconn").unwrap(), "500");
        assert!(run(Verb::Check, &environment(), &config).is_err());
        assert_eq!(fs::read_dir(folder.join("data")).unwrap().count(), 0);
    });
}

#[test]
fn a_failure_puts_back_what_was_done() {
    inside(|folder| {
        let before = found();
        let more = json!({ "mtu": 99_999_999, "txQLen": 77, "sysctl": { "net.core.somaxconn": "500" } });
        let refused = run(Verb::Add, &environment(), &config(folder, &more)).unwrap_err();
        assert!(refused.message.contains("eth0"), "{refused:?}");
        assert_eq!(found(), before);
        assert_ne!(sysctl::read("net/core/somaxconn").unwrap(), "500");
        let nothing = json!({ "sysctl": { "net.core.no_such_thing": "1" } });
        assert!(run(Verb::Add, &environment(), &config(folder, &nothing)).is_err());
    });
}

#[test]
fn the_mac_address_of_args_comes_before_the_capabilities_and_that_before_cni_args() {
    inside(|folder| {
        let mac = |more: Value, args: &str| {
            let environment = Environment { args: args.into(), ..environment() };
            let wanted = Wanted::read(&config(folder, &more), &environment).unwrap();
            wanted.settings.mac.map(|mac| mac[5])
        };
        let args = "IgnoreUnknown=1;MAC=02:00:00:00:00:01";
        assert_eq!(mac(json!({}), ""), None);
        assert_eq!(mac(json!({}), args), Some(1));
        let by_runtime = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:02" } });
        assert_eq!(mac(by_runtime.clone(), args), Some(2));
        let mut both = by_runtime;
        both["args"] = json!({ "cni": { "mac": "02:00:00:00:00:03" } });
        assert_eq!(mac(both, args), Some(3));
        let bad = config(folder, &json!({ "mac": "x" }));
        assert_eq!(Wanted::read(&bad, &environment()).err().unwrap().code, Code::InvalidConfig);
    });
}

#[test]
fn podmans_empty_tuning_only_passes_the_result_on() {
    inside(|folder| {
        let config = config(folder, &json!({}));
        let elsewhere = Environment { netns: "/nonexistent".into(), ..environment() };
        let result = run(Verb::Add, &elsewhere, &config).unwrap().unwrap();
        assert_eq!(Some(result.as_object().unwrap()), config.prev_result().unwrap());
        assert_eq!(run(Verb::Del, &elsewhere, &config).unwrap(), None);
        let bare = br#"{"cniVersion":"1.0.0","name":"app","prevResult":{"cniVersion":"1.0.0"}}"#;
        let result = run(Verb::Add, &elsewhere, &Config::read(bare).unwrap()).unwrap();
        assert_eq!(result, Some(json!({ "cniVersion": "1.0.0" })), "nothing is added");
        let unchained = Config::read(br#"{"cniVersion":"1.0.0","name":"app"}"#).unwrap();
        assert_eq!(run(Verb::Add, &environment(), &unchained).unwrap_err().code, Code::InvalidConfig);
    });
}
