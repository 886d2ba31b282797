use std::fs;

use super::*;

const ADD: Version = Version::V100;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self, version: Version, ranges: &Value, more: &Value) -> Config {
        let mut ipam = json!({ "type": "host-local", "ranges": ranges, "dataDir": self.0.path() });
        let mut all = json!({ "cniVersion": version.as_str(), "name": "app", "type": "macvlan" });
        for (key, value) in more.as_object().unwrap() {
            let place = if key == "runtimeConfig" || key == "args" { &mut all } else { &mut ipam };
            place[key] = value.clone();
        }
        all["ipam"] = ipam;
        Config::read(all.to_string().as_bytes()).unwrap()
    }

    fn lease(&self, ranges: &Value, container: &str) -> Result<Vec<String>> {
        self.lease_with(ranges, &json!({}), &environment(container, "eth0", ""))
    }

    fn lease_with(&self, ranges: &Value, more: &Value, environment: &Environment) -> Result<Vec<String>> {
        let result = run(Verb::Add, environment, &self.config(ADD, ranges, more))?.unwrap();
        let ips = result["ips"].as_array().unwrap();
        Ok(ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect())
    }

    fn del(&self, ranges: &Value, container: &str, interface: &str) {
        let config = self.config(ADD, ranges, &json!({}));
        assert_eq!(run(Verb::Del, &environment(container, interface, ""), &config).unwrap(), None);
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join("app")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn environment(container: &str, interface: &str, args: &str) -> Environment {
    Environment {
        container: container.into(),
        interface: interface.into(),
        args: args.into(),
        ..Environment::default()
    }
}

fn small() -> Value {
    json!([[{ "subnet": "10.1.2.0/29" }]])
}

#[test]
fn two_families_get_their_second_addresses_and_give_them_back() {
    let folder = Folder::new();
    let ranges = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "2001:db8:1::/64" }]]);
    let more = json!({ "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "2001:db8:1::9" }] });
    let config = folder.config(Version::V040, &ranges, &more);
    let result = run(Verb::Add, &environment("one", "eth0", ""), &config).unwrap().unwrap();
    assert_eq!(
        result,
        json!({
            "cniVersion": "0.4.0",
            "ips": [
                { "version": "4", "address": "10.1.2.2/24", "gateway": "10.1.2.1" },
                { "version": "6", "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1" },
            ],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "2001:db8:1::9" }],
        })
    );
    let wanted = ["10.1.2.2", "2001:db8:1::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"];
    assert_eq!(folder.files(), wanted);
    let place = folder.0.path().join("app");
    assert_eq!(fs::read_to_string(place.join("10.1.2.2")).unwrap(), "one\r\neth0");
    assert_eq!(fs::read_to_string(place.join("last_reserved_ip.1")).unwrap(), "2001:db8:1::2");
    run(Verb::Check, &environment("one", "eth0", ""), &config).unwrap();
    folder.del(&ranges, "one", "eth0");
    assert_eq!(folder.files(), wanted[2..]);
    assert_eq!(run(Verb::Check, &environment("one", "eth0", ""), &config).unwrap_err().code, Code::Wrong);
    folder.del(&ranges, "one", "eth0");
}

#[test]
fn the_first_versions_have_an_object_a_family() {
    let folder = Folder::new();
    let ranges = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "2001:db8:1::/64" }]]);
    let more = json!({ "routes": [{ "dst": "0.0.0.0/0" }] });
    let config = folder.config(Version::V020, &ranges, &more);
    let result = run(Verb::Add, &environment("one", "eth0", ""), &config).unwrap().unwrap();
    let v4 = json!({ "ip": "10.1.2.2/24", "gateway": "10.1.2.1", "routes": [{ "dst": "0.0.0.0/0" }] });
    assert_eq!((&result["ip4"], &result["ip6"]["ip"]), (&v4, &json!("2001:db8:1::2/64")));
    let two = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.3.0/24" }]]);
    let config = folder.config(Version::V020, &two, &json!({}));
    assert_eq!(
        run(Verb::Add, &environment("two", "eth0", ""), &config).unwrap_err().code,
        Code::InvalidConfig
    );
}

#[test]
fn a_container_has_one_address_an_interface() {
    let folder = Folder::new();
    let second = environment("one", "eth1", "");
    assert_eq!(folder.lease(&small(), "one").unwrap(), ["10.1.2.2/29"]);
    assert_eq!(folder.lease_with(&small(), &json!({}), &second).unwrap(), ["10.1.2.3/29"]);
    let twice = folder.lease(&small(), "one").unwrap_err();
    assert!(twice.message.contains("10.1.2.2 has been allocated to one"), "{twice:?}");
    folder.del(&small(), "one", "eth0");
    assert!(folder.files().contains(&"10.1.2.3".to_owned()), "the other interface keeps its own");
}

#[test]
fn what_the_reference_has_written_is_read() {
    let folder = Folder::new();
    let place = folder.0.path().join("app");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("10.1.2.2"), "old").unwrap();
    fs::write(place.join("10.1.2.3"), " spaced \r\n eth0 \n").unwrap();
    fs::write(place.join("last_reserved_ip.0"), "10.1.2.3\n").unwrap();
    fs::write(place.join("README"), "mine").unwrap();
    assert_eq!(folder.lease(&small(), "new").unwrap(), ["10.1.2.4/29"]);
    folder.del(&small(), "old", "eth7");
    folder.del(&small(), "spaced", "eth0");
    folder.del(&small(), "unknown", "eth0");
    assert_eq!(folder.files(), ["10.1.2.4", "README", "last_reserved_ip.0", "lock"]);
}

#[test]
fn addresses_go_round_and_none_is_reused_before_it_must() {
    let folder = Folder::new();
    assert_eq!(folder.lease(&small(), "a").unwrap(), ["10.1.2.2/29"]);
    folder.del(&small(), "a", "eth0");
    for (container, wanted) in [("b", 3), ("c", 4), ("d", 5), ("e", 6), ("f", 2)] {
        assert_eq!(folder.lease(&small(), container).unwrap(), [format!("10.1.2.{wanted}/29")]);
    }
    let full = folder.lease(&small(), "g").unwrap_err();
    assert!(full.details.contains("no IP addresses available in range set: 10.1.2.1-10.1.2.6"), "{full:?}");
    folder.del(&small(), "d", "eth0");
    assert_eq!(folder.lease(&small(), "g").unwrap(), ["10.1.2.5/29"]);
    fs::write(folder.0.path().join("app/last_reserved_ip.0"), "10.9.9.9").unwrap();
    folder.del(&small(), "b", "eth0");
    assert_eq!(folder.lease(&small(), "h").unwrap(), ["10.1.2.3/29"], "a last one from elsewhere is none");
}

#[test]
fn several_ranges_of_a_set_are_used_one_after_another() {
    let folder = Folder::new();
    let ranges = json!([[
        { "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.8", "rangeEnd": "10.1.2.9", "gateway": "10.1.2.9" },
        { "subnet": "10.1.3.0/30" },
    ]]);
    for (container, wanted) in [("a", "10.1.2.8/24"), ("b", "10.1.3.2/30")] {
        assert_eq!(folder.lease(&ranges, container).unwrap(), [wanted]);
    }
    assert!(folder.lease(&ranges, "c").is_err(), "gateways and broadcast addresses are nobody's");
}

#[test]
fn a_requested_address_is_given_or_nothing_is() {
    let ranges = json!([[{ "subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.99" }], [{ "subnet": "fd00::/64" }]]);
    for (more, args, wanted) in [
        (json!({}), "IP=10.1.2.7", ["10.1.2.7/24", "fd00::2/64"]),
        (
            json!({ "args": { "cni": { "ips": ["10.1.2.8/24", "fd00::8"] } } }),
            "",
            ["10.1.2.8/24", "fd00::8/64"],
        ),
        (json!({ "runtimeConfig": { "ips": ["fd00::9/64"] } }), "IP=10.1.2.9", ["10.1.2.9/24", "fd00::9/64"]),
    ] {
        let folder = Folder::new();
        assert_eq!(folder.lease_with(&ranges, &more, &environment("one", "eth0", args)).unwrap(), wanted);
    }
    let folder = Folder::new();
    folder.lease_with(&ranges, &json!({}), &environment("one", "eth0", "IP=10.1.2.7")).unwrap();
    let before = folder.files();
    for (asked, why) in [
        ("10.1.2.7", "taken"),
        ("10.1.2.1", "the subnet's gateway"),
        ("10.1.2.100", "no range set takes the requested 10.1.2.100"),
        ("10.7.7.7", "no range set takes the requested 10.7.7.7"),
        ("10.1.2.8,10.1.2.9", "no range set takes the requested 10.1.2.9"),
    ] {
        let args = format!("IP={asked}");
        let refused = folder.lease_with(&ranges, &json!({}), &environment("two", "eth0", &args)).unwrap_err();
        assert!(refused.details.contains(why), "{asked}: {refused:?}");
    }
    let bad = folder.lease_with(&ranges, &json!({}), &environment("two", "eth0", "IP=x")).unwrap_err();
    assert_eq!((bad.code, folder.files()), (Code::InvalidEnvironment, before));
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    for (ranges, why) in [
        (json!([[{ "subnet": "10.1.2.0/31" }]]), "too small|this small"),
        (json!([[{ "subnet": "10.1.2.0/32" }]]), "this small"),
        (json!([[{ "subnet": "fd00::/127" }]]), "this small"),
        (json!([[{ "subnet": "10.1.2.1/24" }]]), "host bits"),
        (json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1" }]]), "is not in 10.1.2.0/24"),
        (json!([[{ "subnet": "10.1.2.0/24", "rangeEnd": "fd00::1" }]]), "is not in 10.1.2.0/24"),
        (json!([[{ "subnet": "10.1.2.0/24", "gateway": "10.1.3.1" }]]), "is not in 10.1.2.0/24"),
        (
            json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8" }]]),
            "lies behind",
        ),
        (json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "10.1.2.0/25" }]]), "overlaps"),
        (json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.0.0/16" }]]), "overlaps"),
        (json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "fd00::/64" }]]), "one family"),
        (json!([[{ "rangeStart": "10.1.2.9" }]]), "no subnet"),
        (json!([[]]), "no ranges"),
    ] {
        let folder = Folder::new();
        let refused = folder.lease(&ranges, "one").unwrap_err();
        let said = format!("{} {}", refused.message, refused.details);
        assert!(why.split('|').any(|why| said.contains(why)), "{ranges}: {said}");
    }
    let apart = json!([[
        { "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.2", "rangeEnd": "10.1.2.9" },
        { "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10" },
    ]]);
    assert_eq!(Folder::new().lease(&apart, "one").unwrap(), ["10.1.2.2/24"], "one subnet in two parts");
}

#[test]
fn the_runtimes_ranges_come_first_and_the_older_form_is_a_range() {
    let folder = Folder::new();
    let more =
        json!({ "runtimeConfig": { "ipRanges": [[{ "subnet": "10.9.0.0/24" }]] }, "subnet": "10.8.0.0/24" });
    let given = folder.lease_with(&small(), &more, &environment("one", "eth0", "")).unwrap();
    assert_eq!(given, ["10.8.0.2/24", "10.9.0.2/24", "10.1.2.2/29"]);
}

#[test]
fn gc_frees_what_is_not_listed() {
    let folder = Folder::new();
    for container in ["a", "b"] {
        folder.lease(&small(), container).unwrap();
    }
    let text = |list: Option<Value>| {
        let mut all = json!({ "cniVersion": "1.1.0", "name": "app", "ipam": { "dataDir": folder.0.path() } });
        if let Some(list) = list {
            all["cni.dev/valid-attachments"] = list;
        }
        Config::read(all.to_string().as_bytes()).unwrap()
    };
    assert!(run(Verb::Gc, &Environment::default(), &text(None)).is_err(), "no list is no order");
    let list = json!([{ "containerID": "b", "ifname": "eth0" }, { "containerID": "a", "ifname": "eth1" }]);
    run(Verb::Gc, &Environment::default(), &text(Some(list))).unwrap();
    assert_eq!(folder.files(), ["10.1.2.3", "last_reserved_ip.0", "lock"]);
}

#[test]
fn many_processes_at_once_get_addresses_of_their_own() {
    let folder = Folder::new();
    let ranges = json!([[{ "subnet": "10.1.2.0/24" }]]);
    let names: Vec<String> = (0..16).map(|n| format!("c{n}")).collect();
    let mut given: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> =
            names.iter().map(|name| scope.spawn(|| folder.lease(&ranges, name).unwrap())).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    given.sort();
    given.dedup();
    assert_eq!(given.len(), names.len());
}

#[test]
fn a_process_that_ended_half_way_is_no_hindrance() {
    let folder = Folder::new();
    folder.lease(&small(), "a").unwrap();
    let place = folder.0.path().join("app");
    // Killed between the link and the removal of the draft.
    fs::hard_link(place.join("10.1.2.2"), place.join(".draft")).unwrap();
    assert_eq!(folder.lease(&small(), "b").unwrap(), ["10.1.2.3/29"]);
    assert_eq!(fs::read_to_string(place.join("10.1.2.2")).unwrap(), "a\r\neth0", "the lease is whole");
}

#[test]
fn a_resolver_file_becomes_dns() {
    let text = "# c\n; d\nnameserver 192.0.2.1\nnameserver  fd00::1\ndomain example.com\n\
                search a.example b.example\noptions ndots:2 rotate\nnonsense\n";
    let wanted = json!({ "nameservers": ["192.0.2.1", "fd00::1"], "domain": "example.com",
                         "search": ["a.example", "b.example"], "options": ["ndots:2", "rotate"] });
    assert_eq!(resolvers(text), wanted);
    assert_eq!(resolv_conf("/nonexistent").unwrap_err().code, Code::Io);
}
