//! The plugin under the names of the reference plugins, as podman, containerd and nerdctl chain them: literal
//! configurations in, a working container out. Each plugin's reading of its configuration is tested beside it.

mod container;
mod netavark;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::query::Resolver;
use netd_tests::{Host, eventually, scenario, traffic};
use serde_json::{Value, json};

use crate::container::{Container, address, called, error, podman};

fn reaches(from: &Container<'_>, to: &Value) -> Result<bool> {
    Ok(from.inside().run(&format!("ping -c1 -W1 {}", address(to)?))?.code == 0)
}

fn has_bridge(host: &Host, name: &str) -> Result<bool> {
    Ok(host.run(&format!("ip link show {name}"))?.code == 0)
}

#[test]
fn podmans_chain_makes_a_container_with_names_and_ports() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let ports = json!([
            { "hostPort": 8080, "containerPort": 7000, "protocol": "tcp" },
            { "hostPort": 8081, "containerPort": 7001, "protocol": "tcp" },
            { "hostPort": 5353, "containerPort": 7000, "protocol": "udp", "hostIP": "127.0.0.1" },
        ]);
        let list = podman("app", 1);
        let web = Container::new(&netd, "web", &list)?
            .with("portMappings", ports)
            .with("aliases", json!({ "app": ["w1", "3f2a9c0d1e2b"] }))
            .with("ips", json!(["10.89.1.77"]));
        let client = Container::new(&netd, "client", &list)?;
        // What is called before the first ADD finds nothing, and is content.
        web.del("", None)?;
        let result = web.add()?;
        let names: Vec<_> = (0..3).map(|at| result["interfaces"][at]["name"].as_str()).collect();
        ensure!(names[0] == Some("cni-podman1") && names[2] == Some("eth0"), "{result}");
        for at in 0..3 {
            ensure!(result["interfaces"][at]["mac"].as_str().is_some_and(|mac| mac.len() == 17), "{result}");
        }
        let ip =
            json!({ "version": "4", "interface": 2, "address": "10.89.1.77/24", "gateway": "10.89.1.1" });
        ensure!(result["ips"] == json!([ip]) && result["routes"][0]["dst"] == "0.0.0.0/0", "{result}");
        ensure!(
            result["dns"] == json!({ "nameservers": ["127.0.0.11"], "search": ["dns.podman"] }),
            "{result}"
        );
        let second = client.add()?;
        let resolver = Resolver::new(&client.inside())?;
        for name in ["web", "w1", "3f2a9c0d1e2b", "web.dns.podman"] {
            ensure!(resolver.addresses(name)? == [IpAddr::from(address(&result)?)], "{name}");
        }
        ensure!(reaches(&client, &result)? && reaches(&web, &second)?, "they reach each other");
        client.inside().sh("ping -c1 -W2 198.51.100.1").context("and the outside")?;
        for port in [7000, 7001] {
            traffic::serve(web.inside().listen((Ipv4Addr::UNSPECIFIED, port))?);
        }
        for port in [8080, 8081] {
            traffic::exchange(&outsider, (host.v4, port).into(), 1, 1000, 1000)?;
        }
        web.check(&result)?;
        let portmap = &list["plugins"][1];
        traffic::echo(web.inside().udp((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::ping(&host.udp(([127, 0, 0, 1], 0))?, ([127, 0, 0, 1], 5353).into(), 1, 100)?;

        web.del(&web.netns(), Some(&result))?;
        ensure!(error(&web.call("CHECK", portmap, &web.netns(), Some(&result))?)?["code"] == 7, "it is gone");
        ensure!(outsider.connect((host.v4, 8080)).is_err(), "the port is closed");
        let answer = resolver.ask("w1", hickory_proto::rr::RecordType::A)?;
        ensure!(netd_tests::query::addresses(&answer).is_empty(), "{answer:?}");
        web.del("", None)?;
        ensure!(has_bridge(&host, "cni-podman1")?, "another container is on it");
        client.del("", Some(&second))?;
        ensure!(!has_bridge(&host, "cni-podman1")?, "the network goes with its last container");
        let left = netd.netd("network ls")?.stdout;
        ensure!(!left.contains("app"), "{left}");
        web.leave()?;
        client.leave()
    });
}

#[test]
fn one_container_is_on_two_networks_and_keeps_its_ports_when_it_leaves_one() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let ports = json!([{ "hostPort": 8080, "containerPort": 7000, "protocol": "tcp" }]);
        let first = Container::new(&netd, "web", &podman("front", 1))?.with("portMappings", ports);
        let second = Container { interface: "eth1", list: podman("back", 2), ..first.clone() };
        let (one, two) = (first.add()?, second.add()?);
        ensure!(two["interfaces"][2]["name"] == "eth1", "{two}");
        traffic::serve(first.inside().listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)?;
        first.del(&first.netns(), Some(&one))?;
        ensure!(!has_bridge(&host, "cni-podman1")?, "nobody is on that network any more");
        traffic::exchange(&outsider, (host.v4, 8080).into(), 2, 1000, 1000)
            .context("by the other network")?;
        second.del("", Some(&two))?;
        ensure!(outsider.connect((host.v4, 8080)).is_err(), "the port is closed");
        ensure!(netd.netd("sandbox ls -q")?.stdout.is_empty(), "nothing is left");
        first.leave()
    });
}

#[test]
fn the_firewalls_policy_is_the_networks_isolation() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let with_policy = |name: &str, number: u8, policy: &str| {
            let mut list = podman(name, number);
            list["plugins"][2]["ingressPolicy"] = policy.into();
            list
        };
        let foo = [
            Container::new(&netd, "foo1", &with_policy("foo", 1, "same-bridge"))?,
            Container::new(&netd, "foo2", &with_policy("foo", 1, "same-bridge"))?,
        ];
        let cells = [
            Container::new(&netd, "cell1", &with_policy("cells", 2, "isolated"))?,
            Container::new(&netd, "cell2", &with_policy("cells", 2, "isolated"))?,
        ];
        let open = Container::new(&netd, "open", &podman("open", 3))?;
        let [foo1, foo2] = [foo[0].add()?, foo[1].add()?];
        let [cell1, cell2] = [cells[0].add()?, cells[1].add()?];
        let opened = open.add()?;
        ensure!(reaches(&foo[0], &foo2)?, "same bridge");
        ensure!(!reaches(&cells[0], &cell2)?, "isolated from its own neighbours");
        ensure!(!reaches(&foo[0], &cell1)? && !reaches(&open, &foo1)?, "kept out");
        ensure!(reaches(&foo[0], &opened)?, "an open network takes whoever comes");
        foo[0].check(&foo1)?;
        cells[1].check(&cell2)?;
        netd.netd("network update -o isolate=false foo")?;
        let firewall = &foo[0].plugins()?[2];
        let wrong = error(&foo[0].call("CHECK", firewall, &foo[0].netns(), Some(&foo1))?)?;
        ensure!(wrong["msg"].to_string().contains("isolate=true"), "{wrong}");

        let mut policy = firewall.clone();
        policy["ingressPolicy"] = "perhaps".into();
        let refused = error(&foo[0].call("ADD", &policy, &foo[0].netns(), Some(&foo1))?)?;
        ensure!(refused["msg"].to_string().contains("ingressPolicy"), "{refused}");
        for one in foo.iter().chain(&cells).chain([&open]) {
            one.del("", None)?;
            one.leave()?;
        }
        Ok(())
    });
}

#[test]
fn while_the_daemon_is_away_dels_succeed_and_are_done_later() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let list = podman("app", 1);
        let (web, late) = (Container::new(&netd, "web", &list)?, Container::new(&netd, "late", &list)?);
        let result = web.add()?;
        netd.kill()?;
        ensure!(
            error(&late.call("ADD", &list["plugins"][0], &late.netns(), None)?)?["code"] == 11,
            "try again"
        );
        web.del("", Some(&result))?;
        netd.start()?;
        let second = late.add()?;
        eventually(Duration::from_secs(5), "the first one is off", || {
            ensure!(netd.netd("sandbox ls -q")?.stdout.lines().count() == 1);
            Ok(())
        })?;
        late.del(&late.netns(), Some(&second))?;
        ensure!(netd.netd("sandbox ls -q")?.stdout.is_empty() && !has_bridge(&host, "cni-podman1")?);
        web.leave()?;
        late.leave()
    });
}

#[test]
fn a_network_follows_its_configuration_and_leaves_other_peoples_bridges_alone() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let web = Container::new(&netd, "web", &podman("app", 1))?;
        web.add()?;
        let moved = podman("app", 7);
        let other = Container::new(&netd, "other", &moved)?;
        let refused = error(&other.call("ADD", &moved["plugins"][0], &other.netns(), None)?)?;
        ensure!(refused["msg"].to_string().contains("another configuration"), "{refused}");
        // As `podman network rm` does it, after the containers.
        web.del("", None)?;
        let result = other.add()?;
        ensure!(address(&result)? == Ipv4Addr::new(10, 89, 7, 2), "{result}");
        // A runtime ends without a DEL, and removes the network's device with its configuration. The subnet is free for
        // the next network all the same.
        host.sh("ip netns del other")?;
        eventually(Duration::from_secs(5), "the daemon notices", || {
            ensure!(netd.netd("sandbox ls -q")?.stdout.is_empty());
            Ok(())
        })?;
        host.sh("ip link del cni-podman7")?;
        let heir = Container::new(&netd, "heir", &podman("heir", 7))?;
        ensure!(address(&heir.add()?)? == Ipv4Addr::new(10, 89, 7, 2));
        heir.del("", None)?;
        heir.leave()?;

        host.sh("ip link add br0 type bridge")?;
        host.sh("ip addr add 10.89.9.1/24 dev br0")?;
        host.sh("ip link set br0 up")?;
        let mut list = podman("given", 9);
        list["plugins"][0]["bridge"] = "br0".into();
        host.sh("ip link add guest type veth peer name guest0")?;
        host.sh("ip link set guest master br0")?;
        let given = Container::new(&netd, "given", &list)?;
        let refused = error(&given.call("ADD", &list["plugins"][0], &given.netns(), None)?)?;
        ensure!(refused["msg"].to_string().contains("in use by guest"), "{refused}");
        host.sh("ip link del guest")?;
        let result = given.add()?;
        given.check(&result)?;
        given.del(&given.netns(), Some(&result))?;
        ensure!(host.sh("ip addr show br0")?.stdout.contains("10.89.9.1/24"), "it is left as it was");
        host.sh("ip link del br0")?;
        given.leave()?;
        web.leave()
    });
}

#[test]
fn routes_are_those_of_the_configuration() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let mut list = podman("app", 1);
        list["cniVersion"] = "1.0.0".into();
        list["plugins"][0]["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "198.51.100.0/24" }, { "dst": "203.0.113.0/24", "gw": "10.89.1.9", "priority": 7 }]);
        let web = Container::new(&netd, "web", &list)?;
        let result = web.add()?;
        let [first, others @ ..] = &result["routes"].as_array().context("routes")?[..] else {
            anyhow::bail!("{result}")
        };
        ensure!(*first == json!({ "dst": "0.0.0.0/0", "gw": "10.89.1.1" }), "{result}");
        ensure!(
            Some(others) == list["plugins"][0]["ipam"]["routes"].as_array().map(|all| &all[1..]),
            "{result}"
        );
        let routes = web.inside().sh("ip route")?.stdout;
        ensure!(routes.contains("198.51.100.0/24 via 10.89.1.1 dev eth0"), "{routes}");
        ensure!(
            routes.contains("203.0.113.0/24 via 10.89.1.9 dev eth0") && routes.contains("metric 7"),
            "{routes}"
        );
        web.inside().sh("ping -c1 -W2 198.51.100.1")?;
        web.check(&result)?;
        web.inside().sh("ip route del 198.51.100.0/24")?;
        let wrong = error(&web.call("CHECK", &list["plugins"][0], &web.netns(), Some(&result))?)?;
        ensure!(wrong["msg"].to_string().contains("198.51.100.0/24"), "{wrong}");
        web.inside().sh("ip addr flush dev eth0")?;
        let wrong = error(&web.call("CHECK", &list["plugins"][0], &web.netns(), Some(&result))?)?;
        ensure!(wrong["msg"].to_string().contains("10.89.1.2"), "{wrong}");
        web.del("", None)?;
        web.leave()
    });
}

#[test]
fn one_container_has_both_families() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let mut list = podman("app", 1);
        list["cniVersion"] = "1.0.0".into();
        let ipam = &mut list["plugins"][0]["ipam"];
        ipam["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
        let second = json!([{ "subnet": "fd89::/64", "gateway": "fd89::1" }]);
        ipam["ranges"].as_array_mut().context("ranges")?.push(second);
        let web = Container::new(&netd, "web", &list)?
            .with("portMappings", json!([{ "hostPort": 8080, "containerPort": 7000, "protocol": "tcp" }]))
            .with("ips", json!(["10.89.1.7", "fd89::7"]));
        let result = web.add()?;
        let v6 = json!({ "interface": 2, "address": "fd89::7/64", "gateway": "fd89::1" });
        ensure!(result["ips"][1] == v6 && result["routes"][1]["dst"] == "::/0", "{result}");
        let bridge = host.sh("ip addr show cni-podman1")?.stdout;
        ensure!(bridge.contains("10.89.1.1/24") && bridge.contains("fd89::1/64"), "{bridge}");
        web.inside().sh("ping -c1 -W2 2001:db8:2::fe")?;
        traffic::serve(web.inside().listen((std::net::Ipv6Addr::UNSPECIFIED, 7000))?);
        for address in [IpAddr::from(host.v4), host.v6.into()] {
            traffic::exchange(&outsider, (address, 8080).into(), 1, 1000, 1000)?;
        }
        web.check(&result)?;
        web.del("", Some(&result))?;
        web.leave()
    });
}

#[test]
fn rates_are_set_behind_the_bridge() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let mut list = podman("app", 1);
        let plugin = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
        list["plugins"].as_array_mut().context("a list")?.push(plugin);
        // As containerd's Go structs come out.
        let rates =
            json!({ "IngressRate": 8_000_000, "IngressBurst": 800_000, "EgressRate": 0, "EgressBurst": 0 });
        let web = Container::new(&netd, "web", &list)?.with("bandwidth", rates);
        let result = web.add()?;
        let device = result["interfaces"][1]["name"].as_str().context("the host's end")?;
        let shaped = host.sh(&format!("tc qdisc show dev {device}"))?.stdout;
        ensure!(shaped.contains("tbf") && shaped.contains("rate 8Mbit"), "{shaped}");
        web.check(&result)?;
        web.del("", Some(&result))?;
        web.leave()
    });
}

#[test]
fn many_come_and_go_on_networks_that_come_and_go_with_them() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let ids = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        let one = |(number, id): (usize, &'static str)| {
            Container::new(&netd, id, &podman(if number % 2 == 0 { "even" } else { "odd" }, number as u8 % 2))
        };
        let containers = ids.into_iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
        called(&netd, "bridge")?;
        std::thread::scope(|scope| {
            let all: Vec<_> = containers
                .iter()
                .map(|one| {
                    scope.spawn(move || {
                        for _ in 0..3 {
                            let result = one.add()?;
                            one.del(&one.netns(), Some(&result))?;
                        }
                        Ok::<_, anyhow::Error>(())
                    })
                })
                .collect();
            all.into_iter().try_for_each(|one| one.join().expect("no deed panics"))
        })?;
        ensure!(netd.netd("sandbox ls -q")?.stdout.is_empty());
        let left = netd.netd("network ls")?.stdout;
        ensure!(!left.contains("even") && !left.contains("odd"), "{left}");
        containers.iter().try_for_each(Container::leave)
    });
}

#[test]
fn containerds_loopback_is_up_and_down() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let list =
            json!({ "cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{ "type": "loopback" }] });
        let pod = Container::new(&netd, "pod", &list)?;
        let result = pod.add()?;
        ensure!(
            result["interfaces"][0]["name"] == "lo" && result["ips"][0]["address"] == "127.0.0.1/8",
            "{result}"
        );
        ensure!(pod.inside().sh("ip link show lo")?.stdout.contains("LOOPBACK,UP"));
        pod.del(&pod.netns(), None)?;
        ensure!(!pod.inside().sh("ip link show lo")?.stdout.contains("LOOPBACK,UP"));
        pod.del("/nonexistent", None)?;
        let own = error(&pod.call("ADD", &list["plugins"][0], "/proc/self/ns/net", None)?)?;
        ensure!(own["code"] == 8, "{own}");
        pod.leave()
    });
}

#[test]
fn a_plugin_says_whose_place_it_takes_and_works_behind_netds_own_alone() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        // nerdctl reads the version from there.
        let about =
            netd.place.run_with(&called(&netd, "firewall")?, b"", Duration::from_secs(5))?.success()?;
        ensure!(about.stderr.starts_with("CNI firewall plugin v1.9.0\n"), "{about:?}");
        let list = podman("app", 1);
        let web = Container::new(&netd, "web", &list)?
            .with("portMappings", json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let foreign = json!({ "cniVersion": "0.4.0", "interfaces": [{ "name": "eth0", "sandbox": "x" }] });
        for plugin in [1, 2, 4] {
            let plugin = &list["plugins"][plugin];
            let refused = error(&web.call("ADD", plugin, &web.netns(), Some(&foreign))?)?;
            ensure!(
                refused["code"] == 7 && refused["details"].to_string().contains("netd's own bridge"),
                "{refused}"
            );
            let unchained = error(&web.call("ADD", plugin, &web.netns(), None)?)?;
            ensure!(unchained["msg"].to_string().contains("chained"), "{unchained}");
        }
        let mut portmap = list["plugins"][1].clone();
        portmap["conditionsV4"] = json!(["-s", "10.0.0.0/8"]);
        let refused = error(&web.call("ADD", &portmap, &web.netns(), Some(&foreign))?)?;
        ensure!(refused["code"] == 2 && refused["msg"].to_string().contains("conditionsV4"), "{refused}");
        web.leave()
    });
}
