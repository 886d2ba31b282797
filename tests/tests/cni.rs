//! The CNI plugin as a runtime drives it: environment and stdin in, result or error object out, on namespaces that the
//! runtime made. What it reads and prints without a daemon is tested beside the plugin.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use netd_tests::cni::{
    Container, address, config, error, plugin, publishing, sandboxes, sandboxes_become, with,
};
use netd_tests::query::Resolver;
use netd_tests::{eventually, scenario, traffic};
use serde_json::{Value, json};

#[test]
fn a_container_is_attached_named_published_checked_and_taken_off() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let (web, client) = (Container::new(&netd, "web")?, Container::new(&netd, "client")?);
        let before = web.inside().sh("readlink /proc/self/ns/net")?.stdout;
        let bare = with(&config(&netd, "0.4.0", "app"), "subnet", "10.60.0.0/24");
        let podman = with(
            &bare,
            "runtimeConfig",
            json!({ "aliases": { "app": ["w1"] }, "portMappings": [
                { "hostPort": 8080, "containerPort": 7000, "protocol": "tcp" },
                { "HostPort": 8081, "ContainerPort": 7000, "Protocol": "", "HostIP": "" }] }),
        );
        let result = web.add("eth0", &podman)?;
        let own = &result["interfaces"][1];
        ensure!(own["name"] == "eth0" && own["sandbox"] == web.netns.as_str(), "{result}");
        ensure!(result["ips"][0]["interface"] == 1 && result["ips"][0]["gateway"] == "10.60.0.1", "{result}");
        ensure!(result["dns"]["nameservers"] == json!(["127.0.0.11"]), "{result}");
        let reply = client.add("net0", &with(&bare, "cniVersion", "1.0.0"))?;
        ensure!(reply["cniVersion"] == "1.0.0" && reply["ips"][0].get("version").is_none(), "{reply}");
        ensure!(client.links()?.contains("net0"), "the runtime chooses the device's name");

        let resolver = Resolver::new(&client.inside())?;
        for name in ["w1", "web"] {
            ensure!(resolver.addresses(name)? == [IpAddr::from(address(&result)?)], "{name}");
        }
        let [a, b, c, d] = address(&result)?.octets();
        let reverse = resolver.ask(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), RecordType::PTR)?;
        ensure!(reverse.answers.iter().all(|answer| answer.data.to_string() == "web.app."), "{reverse}");
        ensure!(reverse.answers.len() == 1 && resolver.addresses("cni-web").is_err(), "{reverse}");
        client.inside().sh(&format!("ping -c1 -W2 {}", address(&result)?))?;
        client.inside().sh("ping -c1 -W2 198.51.100.1")?;
        traffic::serve(web.inside().listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        for port in [8080, 8081] {
            traffic::exchange(&outsider, (host.v4, port).into(), 1, 1000, 1000)?;
        }

        let told = with(&podman, "prevResult", result.clone());
        ensure!(web.call("CHECK", "eth0", &told)?.success()?.stdout.is_empty(), "CHECK prints nothing");
        let mut other = told.clone();
        other["prevResult"]["ips"][0]["address"] = "10.60.0.99/24".into();
        ensure!(error(&web.call("CHECK", "eth0", &other)?)?["msg"].to_string().contains("10.60.0"), "a lie");

        ensure!(error(&web.call("ADD", "eth0", &podman)?)?["code"] == 100, "twice the same");
        web.del("eth0", &web.netns, &told)?;
        web.has_only_loopback()?;
        web.del("eth0", "", &podman)?;
        ensure!(error(&web.call("CHECK", "eth0", &told)?)?["code"] == 3, "CHECK knows it has gone");
        ensure!(outsider.connect((host.v4, 8080)).is_err(), "the port is closed");
        ensure!(web.inside().sh("readlink /proc/self/ns/net")?.stdout == before, "the namespace is theirs");
        client.del("net0", &client.netns, &bare)?;
        ensure!(sandboxes(&netd)? == 0, "nothing is left");
        host.sh("ip netns del web")?;
        host.sh("ip netns del client").map(drop)
    });
}

#[test]
fn a_container_is_on_two_networks_by_two_adds() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = Container::new(&netd, "web")?;
        let ports = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 7000 }] });
        let front = with(&config(&netd, "1.1.0", "front"), "runtimeConfig", ports.clone());
        let back = with(&config(&netd, "1.1.0", "back"), "runtimeConfig", ports);
        let first = web.add("eth0", &front)?;
        let second = web.add("eth1", &back)?;
        ensure!(first["routes"][0]["dst"] == "0.0.0.0/0" && second.get("routes").is_none(), "{second}");
        ensure!(sandboxes(&netd)? == 1, "one container is one sandbox");
        traffic::serve(web.inside().listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)?;
        ensure!(
            error(&web.call("ADD", "eth1", &config(&netd, "1.1.0", "third"))?)?["code"] == 100,
            "a taken name"
        );

        host.sh("ip -n web link add eth9 type bridge")?;
        let foreign = error(&web.call("ADD", "eth9", &config(&netd, "1.1.0", "third"))?)?;
        ensure!(foreign["details"].to_string().contains("eth9 already"), "{foreign}");
        host.sh("ip -n web link del eth9").context("it is left to whom it belongs")?;

        web.del("eth0", "", &front)?;
        eventually(Duration::from_secs(2), "eth0 goes alone", || {
            let links = web.links()?;
            ensure!(links.contains("eth1") && !links.contains("eth0"), "{links}");
            Ok(())
        })?;
        traffic::exchange(&outsider, (host.v4, 8080).into(), 2, 1000, 1000)?;
        web.del("eth1", "", &back)?;
        ensure!(sandboxes(&netd)? == 0, "the last network takes the sandbox along");
        host.sh("ip netns del web").map(drop)
    });
}

#[test]
fn what_left_while_the_daemon_was_away_goes_when_it_is_back() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let (web, other) = (Container::new(&netd, "web")?, Container::new(&netd, "other")?);
        let app = config(&netd, "1.1.0", "app");
        let fixed = publishing(&app, 8080, 80);
        web.add("eth0", &fixed)?;
        ensure!(plugin(&netd.place, "STATUS", &app)?.code == 0, "it serves");
        netd.kill()?;
        ensure!(error(&other.call("ADD", "eth0", &app)?)?["code"] == 11, "try again");
        ensure!(error(&plugin(&netd.place, "STATUS", &app)?)?["code"] == 50, "it does not serve");
        for _ in 0..2 {
            web.del("eth0", "", &fixed)?;
        }
        netd.start()?;
        sandboxes_become(&netd, 0).context("the note is carried out by the daemon itself")?;
        web.has_only_loopback()?;
        other.add("eth0", &fixed).context("the port is free")?;

        // A note of a plugin that waited in vain appears while the daemon runs.
        let note = netd.state_dir().join("cni-spool/some.tombstone");
        ensure!(!note.with_file_name("other.tombstone").exists(), "what is done is gone");
        let sandbox = netd.netd("sandbox ls --format json")?.json()?[0]["Name"].clone();
        let text =
            json!({ "socket": netd.socket(), "sandbox": sandbox, "network": "app", "interface": "eth0" });
        std::fs::write(note.with_extension("draft"), text.to_string())?;
        std::fs::rename(note.with_extension("draft"), &note)?;
        sandboxes_become(&netd, 0)?;
        ensure!(!note.exists(), "it is done");
        web.unmount()?;
        other.unmount()
    });
}

#[test]
fn a_note_that_cannot_be_written_is_told_and_never_a_success() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let web = Container::new(&netd, "web")?;
        let small = "/run/lab/small";
        std::fs::create_dir_all(small)?;
        netd.place.sh(&format!("mount -t tmpfs -o size=4k,nr_inodes=16 tmpfs {small}"))?;
        let app = with(&config(&netd, "1.0.0", "app"), "spool", format!("{small}/spool"));
        web.add("eth0", &app)?;
        netd.kill()?;
        std::fs::write(format!("{small}/filler"), vec![0; 4096])?;
        let told = error(&web.call("DEL", "eth0", &app)?)?;
        ensure!(told["code"] == 11 && told["details"].to_string().contains("No space left"), "{told}");
        ensure!(told["details"].to_string().contains("small/spool"), "it says where: {told}");
        ensure!(std::fs::read_dir(format!("{small}/spool"))?.count() == 0, "nothing half is left");

        std::fs::remove_file(format!("{small}/filler"))?;
        web.del("eth0", "", &app).context("there is room again")?;
        netd.start()?;
        // The daemon does not know this folder; the next call of the plugin does.
        web.add("eth0", &app).context("its own note is carried out first")?;
        ensure!(sandboxes(&netd)? == 1 && std::fs::read_dir(format!("{small}/spool"))?.count() == 0);
        web.del("eth0", "", &app)?;
        netd.place.sh(&format!("umount {small}"))?;
        web.unmount()
    });
}

#[test]
fn every_version_goes_through_a_whole_life() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let web = Container::new(&netd, "web")?;
        for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let app = with(&config(&netd, version, "app"), "ipv6", true);
            let result = web.add("eth0", &app)?;
            ensure!(result["cniVersion"] == version, "{result}");
            let (v4, v6) = if version < "0.3.0" {
                (&result["ip4"]["ip"], &result["ip6"]["ip"])
            } else {
                ensure!(
                    result["ips"][0]["version"] == if version < "1" { json!("4") } else { json!(null) },
                    "{result}"
                );
                (&result["ips"][0]["address"], &result["ips"][1]["address"])
            };
            let inside = web.inside().sh("ip -br addr show eth0")?.stdout;
            for address in [v4, v6] {
                let address = address.as_str().with_context(|| format!("both families in {result}"))?;
                ensure!(inside.contains(address), "{address} in {inside}");
            }
            let told = with(&app, "prevResult", result);
            let checked = web.call("CHECK", "eth0", &told)?;
            if version < "0.4.0" {
                ensure!(error(&checked)?["code"] == 1, "CHECK came with 0.4.0");
            } else {
                checked.success()?;
            }
            for verb in ["GC", "STATUS"] {
                let done = plugin(&netd.place, verb, &app)?;
                let code = if version < "1.1.0" {
                    json!(1)
                } else if verb == "GC" {
                    json!(7)
                } else {
                    json!(null)
                };
                ensure!(done.code == 0 || done.json()?["code"] == code, "{verb} in {version}: {done:?}");
                ensure!((done.code == 0) == code.is_null(), "{verb} in {version}: {done:?}");
            }
            web.del("eth0", &web.netns, &told)?;
            web.del("eth0", &web.netns, &app)?;
            web.has_only_loopback()?;
        }
        web.unmount()
    });
}

#[test]
fn check_finds_what_the_kernel_lacks() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let web = Container::new(&netd, "web")?;
        let app = publishing(&with(&config(&netd, "1.0.0", "app"), "ipv6", true), 8080, 80);
        for (breaks, named) in [
            ("ip addr flush dev eth0", "does not have the address"),
            ("ip route del default", "no default route"),
            ("ip link set eth0 down", "is down"),
            ("ip link del eth0", "is gone"),
        ] {
            let told = with(&app, "prevResult", web.add("eth0", &app)?);
            web.call("CHECK", "eth0", &told)?.success()?;
            // Other plugins of the chain may add to it.
            web.inside().sh("ip addr add 192.0.2.200/32 dev eth0")?;
            web.inside().sh("ip link set eth0 address 02:00:00:00:00:09")?;
            web.call("CHECK", "eth0", &told)?.success().context("more than there was is fine")?;
            web.inside().sh(breaks)?;
            let found = error(&web.call("CHECK", "eth0", &told)?)?;
            ensure!(found["code"] == 101 && found["msg"].to_string().contains(named), "{breaks}: {found}");
            let name = netd.netd("sandbox ls -q")?;
            netd.try_netd(&format!("sandbox check {}", name.text()))?.refused(1, named)?;
            web.del("eth0", &web.netns, &app)?;
        }
        let result = web.add("eth0", &app)?;
        let port = result["interfaces"][0]["name"].as_str().context("the host's end")?.to_owned();
        host.sh(&format!("ip link set {port} nomaster"))?;
        let found = error(&web.call("CHECK", "eth0", &with(&app, "prevResult", result))?)?;
        ensure!(found["msg"].to_string().contains("is no port of"), "{found}");
        web.del("eth0", "", &app)?;
        web.unmount()
    });
}

#[test]
fn gc_frees_what_is_not_listed_on_its_own_network() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let (one, two) = (Container::new(&netd, "one")?, Container::new(&netd, "two")?);
        let (app, db) = (config(&netd, "1.1.0", "app"), config(&netd, "1.1.0", "db"));
        one.add("eth0", &app)?;
        two.add("eth0", &app)?;
        two.add("eth1", &db)?;
        netd.netd("sandbox create mine --network app")?;
        // Another configuration, on the same network of netd's, and one more device of a container that is ours.
        let theirs = Container::new(&netd, "theirs")?;
        let other = with(&config(&netd, "1.1.0", "other"), "network", "app");
        theirs.add("eth0", &other)?;
        ensure!(error(&plugin(&netd.place, "GC", &app)?)?["code"] == 7, "no list is no order");
        ensure!(sandboxes(&netd)? == 4, "and changes nothing");
        let list = json!([{ "containerID": "one", "ifname": "eth0" }]);
        plugin(&netd.place, "GC", &with(&app, "cni.dev/valid-attachments", list))?.success()?;
        ensure!(one.links()?.contains("eth0"), "it is listed");
        eventually(Duration::from_secs(2), "two leaves app and stays on db", || {
            let links = two.links()?;
            ensure!(links.contains("eth1") && !links.contains("eth0"), "{links}");
            Ok(())
        })?;
        for config in [&app, &db] {
            plugin(&netd.place, "GC", &with(config, "cni.dev/valid-attachments", json!([])))?.success()?;
        }
        one.has_only_loopback()?;
        two.has_only_loopback()?;
        ensure!(netd.netd("sandbox ls")?.stdout.contains("mine"), "what no runtime made is nobody's garbage");
        ensure!(theirs.links()?.contains("eth0"), "what another one made is not ours");
        plugin(&netd.place, "GC", &with(&other, "cni.dev/valid-attachments", json!([])))?.success()?;
        theirs.has_only_loopback()?;
        theirs.unmount()?;
        netd.place.sh("ip netns del one")?;
        netd.place.sh("ip netns del two").map(drop)
    });
}

#[test]
fn many_containers_come_at_once_on_a_network_that_nobody_has_made() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let containers =
            (0..12).map(|n| Container::new(&netd, &format!("c{n}"))).collect::<Result<Vec<_>>>()?;
        let app = with(&config(&netd, "1.0.0", "app"), "ipv6", true);
        let at_once = |deed: &(dyn Fn(&Container<'_>) -> Result<Value> + Sync)| {
            std::thread::scope(|scope| {
                let all: Vec<_> = containers.iter().map(|one| scope.spawn(move || deed(one))).collect();
                all.into_iter()
                    .map(|one| one.join().expect("a deed does not panic"))
                    .collect::<Result<Vec<_>>>()
            })
        };
        let results = at_once(&|one| one.add("eth0", &app))?;
        let addresses = results.iter().map(address).collect::<Result<BTreeSet<_>>>()?;
        ensure!(addresses.len() == containers.len(), "each has its own: {addresses:?}");
        ensure!(
            results[0]["ips"][1]["gateway"] == results[1]["ips"][1]["gateway"],
            "both families: {results:?}"
        );
        at_once(&|one| one.del("eth0", &one.netns, &app).map(|()| Value::Null))?;
        ensure!(sandboxes(&netd)? == 0, "all are gone");

        // The default network has no names, so there is no server to tell of.
        let plain = containers[0].add("eth0", &with(&app, "network", "bridge"))?;
        ensure!(plain.get("dns").is_none(), "{plain}");
        containers[0].del("eth0", "", &with(&app, "network", "bridge"))?;
        containers.iter().try_for_each(Container::unmount)
    });
}

#[test]
fn a_network_follows_its_configuration_once_nobody_is_on_it() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let (one, two) = (Container::new(&netd, "one")?, Container::new(&netd, "two")?);
        let app = config(&netd, "1.0.0", "app");
        let (old, new) = (with(&app, "subnet", "10.60.0.0/24"), with(&app, "subnet", "10.61.0.0/24"));
        one.add("eth0", &old)?;
        let refused = error(&two.call("ADD", "eth0", &new)?)?;
        ensure!(
            refused["code"] == 7 && refused["msg"].to_string().contains("another configuration"),
            "{refused}"
        );
        one.del("eth0", &one.netns, &old)?;
        ensure!(address(&two.add("eth0", &new)?)?.octets()[1] == 61, "the new subnet");
        two.del("eth0", &two.netns, &new)?;
        // Nobody has told that the configuration is gone: its subnet serves the next one that asks for it.
        let other = with(&config(&netd, "1.0.0", "other"), "subnet", "10.61.0.0/24");
        ensure!(address(&one.add("eth0", &other)?)?.octets()[1] == 61, "the subnet is free");
        one.del("eth0", &one.netns, &other)?;
        // A network that people have made stays as they have made it.
        netd.netd("network create mine --subnet 10.62.0.0/24")?;
        let mine = with(&config(&netd, "1.0.0", "mine"), "subnet", "10.63.0.0/24");
        ensure!(address(&one.add("eth0", &mine)?)?.octets()[1] == 62, "theirs");
        one.del("eth0", &one.netns, &mine)?;
        ["one", "two"].iter().try_for_each(|name| netd.place.sh(&format!("ip netns del {name}")).map(drop))
    });
}
