//! Overlay networks of several nodes, as users and hostile sandboxes meet them.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::cluster::Node;
use netd_tests::traffic::{exchange, serve};
use netd_tests::{Cluster, Place, Process, eventually, scenario};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(15);
fn ping(from: &Place, to: impl std::fmt::Display) -> Result<()> {
    from.run(&format!("ping -q -c1 -W1 {to}"))?.success().map(drop)
}

fn unreached(from: &Place, to: impl std::fmt::Display) -> Result<()> {
    ensure!(from.run(&format!("ping -q -c1 -W1 {to}"))?.code == 1, "{to} is reached, or was not asked");
    Ok(())
}

fn create(cluster: &Cluster, network: &str, flags: &str) -> Result<()> {
    cluster.nodes[0].netd(&format!("network create -d overlay {flags} {network}"))?;
    cluster.everywhere(PATIENCE, "the network is known", |node| node.inspect("network", network).map(drop))
}

fn dropped(node: &Node, reason: &str) -> Result<u64> {
    let metrics = node.http("GET", "/metrics", "")?.body;
    let start = format!("netd_overlay_dropped_packets_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&*start)).context(metrics.clone())?;
    Ok(line.parse()?)
}

/// What is done is dropped by this node, for this reason.
fn refused(node: &Node, reason: &str, deed: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = dropped(node, reason)?;
    deed()?;
    let after = dropped(node, reason)?;
    ensure!(after > before, "{before} were counted as {reason} before, {after} afterwards");
    Ok(())
}

fn tunnels(node: &Node) -> Result<usize> {
    Ok(node.host.look("ip -o link show type vxlan")?.lines().filter(|line| !line.contains("nxprobe")).count())
}

/// `netd doctor` has looked, and finds no such fault with the network.
fn in_order(node: &Node, check: &str, network: &str) -> Result<()> {
    let said = node.try_netd("doctor --format json")?.json()?;
    let checks = said["checks"].as_array().context("checks")?;
    let mut found = checks.iter().filter(|found| found["name"] == check).peekable();
    ensure!(found.peek().is_some(), "{said:#}");
    let is_fault = |found: &Value| {
        found["verdict"] != "ok" && found["detail"].as_str().is_some_and(|detail| detail.contains(network))
    };
    ensure!(!found.any(is_fault), "{said:#}");
    Ok(())
}

fn mac(place: &Place) -> Result<String> {
    let shown = place.look("ip -br link show eth0")?;
    Ok(shown.split_whitespace().nth(2).context(shown.clone())?.to_owned())
}

#[test]
fn sandboxes_of_two_nodes_are_on_one_network_and_on_no_other() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        create(&cluster, "red", "--ipv6")?;
        create(&cluster, "blue", "")?;
        let (a, b) = (one.create("a", "--network red")?, two.create("b", "--network red")?);
        let c = two.create("c", "--network blue")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (two.address("b", "red")?, two.address("b", "red")?);
        eventually(PATIENCE, "the other node's sandbox is reached", || ping(&a, v4))?;
        ping(&a, v6)?;
        for (node, sandbox, other) in [(one, "a", "b"), (two, "b", "a")] {
            node.netd(&format!("exec {sandbox} -- ping -q -c1 -W2 {other}"))?;
            let unknown = node.try_netd(&format!("exec {sandbox} -- ping -q -c1 -W2 c"))?;
            ensure!(unknown.code == 2, "a name of another network: {unknown:?}");
        }
        serve(b.listen((Ipv6Addr::UNSPECIFIED, 9000))?);
        exchange(&a, (v4, 9000).into(), 1, 20_000_000, 20_000_000)?;
        exchange(&a, (v6, 9000).into(), 2, 5_000_000, 5_000_000)?;
        for beyond in [one.address::<Ipv4Addr>("a", "red")?, v4] {
            unreached(&c, beyond)?;
        }
        let shown = (tunnels(one)?, tunnels(two)?);
        ensure!(shown == (1, 2), "devices where there are endpoints, and only there: {shown:?}");

        // Without a control plane everything goes on.
        one.kill()?;
        exchange(&a, (v4, 9000).into(), 3, 5_000_000, 5_000_000)?;
        one.start()?;
        exchange(&a, (v4, 9000).into(), 4, 5_000_000, 5_000_000)
    });
}

/// Every flow inside is one more for a table that the host has a limit for.
#[test]
fn connection_tracking_keeps_nothing_of_tunnels() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        create(&cluster, "red", "")?;
        let (a, b) = (one.create("a", "--network red")?, two.create("b", "--network red")?);
        let address: Ipv4Addr = two.address("b", "red")?;
        eventually(PATIENCE, "the other node's sandbox is reached", || ping(&a, address))?;
        serve(b.listen((Ipv4Addr::UNSPECIFIED, 80))?);
        for seed in 0..20 {
            exchange(&a, (address, 80).into(), seed, 1000, 1000)?;
        }
        for node in [one, two] {
            let tracked = node.host.look("cat /proc/net/nf_conntrack")?;
            ensure!(tracked.contains("dport=2379 "), "it is at work, and sees the node ask etcd: {tracked}");
            ensure!(!tracked.contains("dport=4789 "), "{tracked}");
        }
        Ok(())
    });
}

#[test]
fn the_last_sandbox_takes_the_devices_along_and_the_next_brings_them_again() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        create(&cluster, "red", "")?;
        one.create("a", "--network red")?;
        let target: Ipv4Addr = one.address("a", "red")?;
        for _ in 0..3 {
            let b = two.create("b", "--network red")?;
            eventually(PATIENCE, "the other node's sandbox is reached", || ping(&b, target))?;
            in_order(two, "devices", "red")?;
            two.netd("sandbox rm b")?;
            in_order(two, "devices", "red")?;
        }
        eventually(PATIENCE, "the devices go", || {
            let left = tunnels(two)?;
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
    });
}

/// What becomes of the rules `inet netd`, as whoever watches nftables is told.
struct Rules<'a> {
    node: &'a Node,
    watch: Process,
    signs: Cell<u32>,
}

impl<'a> Rules<'a> {
    fn watch(node: &'a Node) -> Result<Self> {
        let rules = Self { node, watch: node.host.start("nft monitor")?, signs: Cell::new(0) };
        eventually(PATIENCE, "it watches", || rules.sign())?;
        Ok(rules)
    }

    /// What comes before this has been told.
    fn sign(&self) -> Result<()> {
        self.signs.set(self.signs.get() + 1);
        let sign = format!("table inet sign{}", self.signs.get());
        self.node.host.sh(&format!("nft add {sign}"))?;
        let seen = eventually(Duration::from_secs(1), "the sign is seen", || {
            ensure!(self.watch.output().contains(&sign), "{}", self.watch.output());
            Ok(())
        });
        self.node.host.sh(&format!("nft delete {sign}"))?;
        seen
    }

    fn changed_by(&self, line: &str) -> Result<Vec<String>> {
        let before = self.watch.output().len();
        self.node.netd(line)?;
        self.sign()?;
        let told = self.watch.output().split_off(before);
        Ok(told.lines().filter(|line| line.contains("inet netd")).map(str::to_owned).collect())
    }
}

#[test]
fn who_joins_others_on_a_network_with_services_leaves_the_hosts_rules_alone() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 1)?;
        let node = &cluster.nodes[0];
        create(&cluster, "red", "--ipv6")?;
        node.netd("service create web --network red")?;
        node.netd("service create mail --network red")?;
        let vip = node.inspect("service", "web")?["VIP"].as_str().context("a VIP")?.to_owned();
        let rules = Rules::watch(node)?;
        let elements_alone = |line: &str| -> Result<()> {
            let told = rules.changed_by(line)?;
            let are_elements = told.iter().all(|one| one.contains("element inet netd vip"));
            ensure!(!told.is_empty() && are_elements, "`{line}` changed {told:?}");
            Ok(())
        };
        let nothing = |line: &str| -> Result<()> {
            let told = rules.changed_by(line)?;
            ensure!(told.is_empty(), "`{line}` changed {told:?}");
            Ok(())
        };
        let home = || node.host.look("nft list set inet netd vip4_home");
        elements_alone("sandbox create a --network red --service web")?;
        ensure!(home()?.contains(&vip), "the first one brings the network: {}", home()?);
        nothing("sandbox create b --network red --service web")?;
        nothing("sandbox create c")?;
        nothing("network connect red c")?;
        nothing("sandbox rm -f a")?;
        nothing("network disconnect red c")?;
        ensure!(home()?.contains(&vip), "somebody is left: {}", home()?);
        elements_alone("sandbox rm -f b")?;
        ensure!(!home()?.contains(&vip), "the last one takes it along: {}", home()?);
        elements_alone("network connect red c")?;
        ensure!(home()?.contains(&vip), "it is back: {}", home()?);
        Ok(())
    });
}

#[test]
fn a_sandbox_that_forges_its_address_reaches_nobody_and_is_counted() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        create(&cluster, "red", "--ipv6")?;
        let (a, _b) = (one.create("a", "--network red")?, two.create("b", "--network red")?);
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (two.address("b", "red")?, two.address("b", "red")?);
        eventually(PATIENCE, "the other node's sandbox is reached", || ping(&a, v4))?;
        ping(&a, v6)?;
        a.sh("ip addr add 198.18.0.9/32 dev eth0")?;
        a.sh("ip addr add 2001:db8:bad::9/128 dev eth0 nodad")?;
        for (forged, target) in [("198.18.0.9", IpAddr::from(v4)), ("2001:db8:bad::9", v6.into())] {
            let probe = format!("-I {forged} {target}");
            refused(one, "forged-address", || unreached(&a, &probe))?;
            ping(&a, target)?;
            let question = if target.is_ipv4() { "forged-arp" } else { "forged-neighbour" };
            a.sh(&format!("ip neigh flush to {target}"))?;
            refused(one, question, || unreached(&a, &probe))?;
            eventually(PATIENCE, "it is itself again", || ping(&a, target))?;
        }

        // A flush of everybody's rules opens nothing, and heals.
        one.host.sh("nft flush ruleset")?;
        eventually(PATIENCE, "the rules are back", || {
            one.host.run("nft list table bridge netd")?.success().map(drop)
        })?;
        unreached(&a, format!("-I 198.18.0.9 {v4}"))?;
        eventually(PATIENCE, "its own traffic passes", || ping(&a, v4))?;

        let own = mac(&a)?;
        a.sh("ip link set eth0 address 02:00:00:00:0f:0f")?;
        refused(one, "forged-mac", || unreached(&a, v4))?;
        a.sh(&format!("ip link set eth0 address {own}"))?;
        eventually(PATIENCE, "its own traffic passes", || ping(&a, v4))
    });
}

#[test]
fn nothing_that_a_sandbox_says_by_its_own_addresses_is_counted_from_its_first_packet_to_its_last() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        create(&cluster, "red", "--ipv6")?;
        create(&cluster, "blue", "--ipv6")?;
        two.create("b", "--network red")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (two.address("b", "red")?, two.address("b", "red")?);
        for round in 0..4 {
            // The second is an address that others may remember: it is announced.
            let a = one.create("a", "--network blue")?;
            one.netd("network connect red a")?;
            eventually(PATIENCE, "the other node's sandbox is reached", || ping(&a, v4))?;
            eventually(PATIENCE, "by IPv6, too", || ping(&a, v6))?;
            let _talk4 = a.start(&format!("ping -q -n -i0.002 {v4}"))?;
            let _talk6 = a.start(&format!("ping -q -n -i0.002 {v6}"))?;
            match round % 2 {
                0 => one.netd("network disconnect red a")?,
                _ => one.netd("sandbox rm a")?,
            };
            one.try_netd("sandbox rm a")?;
        }
        for node in [one, two] {
            let metrics = node.http("GET", "/metrics", "")?.body;
            let lines = metrics.lines().filter(|line| line.starts_with("netd_overlay_dropped_packets_total"));
            let counted: Vec<_> = lines.filter(|line| !line.ends_with(" 0")).collect();
            ensure!(counted.is_empty(), "{counted:?}");
        }
        Ok(())
    });
}

#[test]
fn packets_of_a_tunnel_that_is_no_nodes_are_dropped_and_counted() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        create(&cluster, "red", "-o vni=77")?;
        let (a, b) = (one.create("a", "--network red")?, two.create("b", "--network red")?);
        let (own, target): (Ipv4Addr, Ipv4Addr) = (one.address("a", "red")?, two.address("b", "red")?);
        eventually(PATIENCE, "the other node's sandbox is reached", || ping(&a, target))?;
        let (mac, v4) = (mac(&b)?, two.host.v4);
        // Somebody beside the nodes, and a sandbox behind one: each as the sandbox that the other node has.
        let stranger = lab.host("stranger")?;
        let insider = one.create("insider", "")?;
        for (place, node, reason) in
            [(&stranger.place, two, "vxlan-from-no-node"), (&insider, one, "vxlan-from-sandbox")]
        {
            place.sh(&format!("ip link add forged type vxlan id 77 remote {v4} dstport 4789 nolearning"))?;
            place.sh(&format!("ip addr add {own}/32 dev forged"))?;
            place.sh("ip link set forged up")?;
            place.sh(&format!("ip route add {target}/32 dev forged"))?;
            place.sh(&format!("ip neigh add {target} lladdr {mac} dev forged"))?;
            let heard = || two.netd("exec b -- cat /proc/net/snmp").map(|shown| echoes(shown.text()));
            let before = heard()?;
            refused(node, reason, || unreached(place, target))?;
            ensure!(heard()? == before, "what came from {} was let in", place.name);
        }
        ping(&a, target)
    });
}

/// Echo requests that were received: the field of `InEchos`.
fn echoes(snmp: &str) -> Option<u64> {
    let mut rows = snmp.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = (rows.next()?, rows.next()?);
    let at = names.split(' ').position(|name| name == "InEchos")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[test]
fn packets_are_as_large_as_the_way_between_the_nodes_carries() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        one.try_netd("network create -d overlay -o mtu=1451 big")?.refused(1, "1450")?;
        one.try_netd("network create -d overlay -o vni=4095 taken")?.refused(1, "4095")?;
        create(&cluster, "red", "")?;
        let (a, _b) = (one.create("a", "--network red")?, two.create("b", "--network red")?);
        let target: Ipv4Addr = two.address("b", "red")?;
        eventually(PATIENCE, "the other node's sandbox is reached", || ping(&a, target))?;
        ping(&a, format!("-M do -s 1422 {target}"))?;
        let mtu = |wanted: u64| {
            let shown = one.inspect("network", "red")?;
            ensure!(shown["MTU"] == wanted, "{shown}");
            ensure!(a.look("ip link show eth0")?.contains(&format!("mtu {wanted} ")));
            Ok(())
        };
        mtu(1450)?;
        one.host.sh("ip link set eth0 mtu 1400")?;
        eventually(PATIENCE, "the MTU follows", || mtu(1350))?;
        ping(&a, format!("-M do -s 1322 {target}"))?;
        ["devices", "mtu"].iter().try_for_each(|check| in_order(one, check, "red"))?;
        one.host.sh("ip link set eth0 mtu 1500")?;
        eventually(PATIENCE, "the MTU follows", || mtu(1450))
    });
}
