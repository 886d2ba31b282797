//! One network on several nodes: reach, names, sizes, isolation, where it is present, and what is never sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use netd_tests::capture::Capture;
use netd_tests::cluster::Node;
use netd_tests::{Cluster, Place, eventually, query, scenario, traffic};

use crate::stage::{SOON, know, resolves};

/// A sandbox of this name, and its addresses on a network.
fn sandbox(node: &Node, name: &str, network: &str) -> Result<(Place, Ipv4Addr, Ipv6Addr)> {
    let place = node.create(name, &format!("--network {network}"))?;
    let inspected = node.inspect("sandbox", name)?;
    let endpoint = &inspected["NetworkSettings"]["Networks"][network];
    let v6 = endpoint["GlobalIPv6Address"].as_str().context("an IPv6 address")?.parse()?;
    Ok((place, node.address(name, network)?, v6))
}

#[test]
fn sandboxes_of_two_nodes_are_neighbours_in_both_families() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 3)?;
        let [one, two, three] = &cluster.nodes[..] else { unreachable!("three") };
        one.netd("network create app -d overlay --ipv6")?;
        know(&cluster, "network", "app")?;
        // What a tunnel cannot carry cannot be asked for, neither before nor after.
        for line in ["network create big -d overlay -o big-tcp=on", "network update -o big-tcp=on app"] {
            one.try_netd(line)?.refused(1, "the driver overlay has no option \"big-tcp\"")?;
        }
        one.try_netd("network update -o vni=9 app")?.refused(1, "vni cannot be changed")?;
        let (a, a4, a6) = sandbox(one, "a", "app")?;
        let (b, b4, b6) = sandbox(two, "b", "app")?;
        resolves(&a, "b", 1)?;
        resolves(&b, "a", 1)?;
        for (from, name, to) in [(&a, "b", [IpAddr::from(b4), b6.into()]), (&b, "a", [a4.into(), a6.into()])]
        {
            let server = if name == "a" { &a } else { &b };
            let resolver = query::Resolver::new(from)?;
            ensure!(resolver.addresses(name)? == [to[0]], "{name} resolves");
            for address in to {
                let at = SocketAddr::new(address, 7000);
                traffic::serve(server.listen(at)?);
                traffic::exchange(from, at, 1, 3_000_000, 3_000_000)?;
                let socket = server.udp(at)?;
                traffic::echo(socket);
                let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let client = from.udp(any.parse::<SocketAddr>()?)?;
                [100, 1400, 9000].iter().try_for_each(|length| traffic::ping(&client, at, 5, *length))?;
            }
        }
        // An underlay of 1500 leaves 1450 for IPv4 outside; what is larger is told at home, not lost on the way.
        ensure!(a.look("ip -br link show eth0")?.contains("eth0"), "its device");
        ensure!(
            a.look("cat /sys/class/net/eth0/mtu").is_ok()
                && a.look("ip link show eth0")?.contains("mtu 1450"),
            "MTU"
        );
        a.sh(&format!("ping -c1 -W2 -M do -s 1422 {b4}"))?;
        ensure!(a.run(&format!("ping -c1 -W2 -M do -s 1423 {b4}"))?.code != 0, "one byte too long");
        // The world outside, through the sandbox's own node.
        a.sh("ping -c1 -W2 198.51.100.1")?;
        b.sh("ping -c1 -W2 198.51.100.1")?;
        // Only where it is needed.
        // Only the devices that try out the way to other nodes are on each of them.
        let tunnels = |node: &Node| -> Result<Vec<String>> {
            let links = node.host.look("ip -br link")?;
            let names = links.lines().filter_map(|line| line.split([' ', '@']).next());
            Ok(names.filter(|name| name.starts_with("nx") && *name != "nxprobe").map(str::to_owned).collect())
        };
        ensure!(tunnels(three)?.is_empty() && tunnels(two)?.len() == 1, "node3 has no endpoint");
        one.netd("sandbox rm a")?;
        eventually(SOON, "it leaves node1 with its last endpoint", || {
            ensure!(tunnels(one)?.is_empty(), "{:?}", tunnels(one)?);
            Ok(())
        })
    });
}

#[test]
fn networks_on_the_same_nodes_do_not_reach_each_other() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = &cluster.nodes[..] else { unreachable!("two") };
        for name in ["red", "blue"] {
            one.netd(&format!("network create {name} -d overlay --ipv6"))?;
            know(&cluster, "network", name)?;
        }
        let (red, ..) = sandbox(one, "red1", "red")?;
        let (red2, red4, _) = sandbox(two, "red2", "red")?;
        traffic::serve(red2.listen(SocketAddr::from((red4, 7000)))?);
        eventually(SOON, "red reaches red", || traffic::exchange(&red, (red4, 7000).into(), 1, 1000, 1000))?;
        for (node, name) in [(one, "blue1"), (two, "blue2")] {
            let (blue, v4, v6) = sandbox(node, name, "blue")?;
            for address in [IpAddr::from(v4), v6.into()] {
                let at = SocketAddr::new(address, 7000);
                traffic::serve(blue.listen(at)?);
                traffic::exchange(&node.inside(name), at, 1, 10, 10)?;
                ensure!(red.connect(at).is_err(), "red reaches {name} at {at}");
            }
            ensure!(query::Resolver::new(&red)?.addresses(name).is_err(), "red knows {name} by name");
        }
        Ok(())
    });
}

#[test]
fn nothing_is_flooded_and_neighbours_are_known_without_asking() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = &cluster.nodes[..] else { unreachable!("two") };
        one.netd("network create app -d overlay --subnet 10.50.0.0/24 --ipv6")?;
        know(&cluster, "network", "app")?;
        let (a, ..) = sandbox(one, "a", "app")?;
        let (_b, b4, b6) = sandbox(two, "b", "app")?;
        resolves(&a, "b", 1)?;
        let wire = Capture::start(&two.host, "eth0", "udp port 4789")?;
        // Nobody has these; broadcasts and multicasts concern nobody on another node.
        a.run("ping -c2 -i0.2 -W1 10.50.0.77")?;
        a.run("ping -c2 -i0.2 -W1 -b 10.50.0.255")?;
        a.run("ping -c2 -i0.2 -W1 ff02::1%eth0")?;
        a.sh("ip neigh flush dev eth0")?;
        a.sh(&format!("ping -c1 -W2 {b4}"))?;
        a.sh(&format!("ping -c1 -W2 {b6}"))?;
        let lines = wire.sees("ICMP6, echo request")?;
        for unwanted in ["ARP", "ff02::", "10.50.0.77", "10.50.0.255", "neighbor solicitation"] {
            ensure!(!lines.contains(unwanted), "{unwanted} went over the wire: {lines}");
        }
        ensure!(lines.contains("ICMP echo request"), "{lines}");
        Ok(())
    });
}
