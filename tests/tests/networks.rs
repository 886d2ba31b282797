//! Networks: modes, reach, isolation, the way out, live changes, and what is made in the kernel for them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::capture::Capture;
use netd_tests::{Place, eventually, scenario, traffic};

#[test]
fn sandboxes_of_a_network_reach_each_other_in_both_families_at_once() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6")?;
        let one = netd.create("one", "--network app")?;
        let two = netd.create("two", "--network app")?;
        for at in [
            SocketAddr::from((netd.address::<Ipv4Addr>("two", "app")?, 7000)),
            SocketAddr::from((netd.address::<Ipv6Addr>("two", "app")?, 7000)),
        ] {
            // Bound at once: no address may still be tentative.
            traffic::serve(two.listen(at)?);
            traffic::exchange(&one, at, 1, 100_000, 100_000)?;
        }
        let links = one.sh("ip -br link")?.stdout;
        ensure!(links.lines().count() == 2 && links.contains("eth0"), "only lo and eth0: {links}");
        ensure!(links.lines().any(|line| line.starts_with("lo") && line.contains("LOOPBACK,UP")), "{links}");
        Ok(())
    });
}

/// Of a packet from elsewhere the kernel asks for the neighbour by the bridge's link-local address, and while that is
/// tentative it asks nobody.
#[test]
fn packets_from_elsewhere_find_a_sandbox_of_a_new_network() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.create("one", "--network app")?;
        let tentative = host.sh("ip -6 -o addr show tentative")?.stdout;
        ensure!(!tentative.contains(" nd-"), "{tentative}");
        let own = host.sh("ip -6 -o addr show scope link")?.stdout;
        ensure!(own.lines().any(|line| line.contains(" nd-") && line.contains("fe80::")), "{own}");
        Ok(())
    });
}

#[test]
fn without_a_network_a_sandbox_is_on_the_default_bridge() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.create("one", "")?;
        netd.create("two", "--network bridge")?;
        let one: Ipv4Addr = netd.address("one", "bridge")?;
        host.sh("ip link show netd0")?;
        host.sh(&format!("ping -c1 -W2 {one}"))?;
        netd.inside("two").sh(&format!("ping -c1 -W2 {one}"))?;
        let dump = netd.netd("dns dump two")?.stdout;
        ensure!(!dump.contains("one"), "no names on the default bridge: {dump}");
        Ok(())
    });
}

#[test]
fn none_has_only_loopback_and_host_is_the_host() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let alone = netd.create("alone", "--network none")?;
        let links = alone.sh("ip -br link")?.stdout;
        ensure!(links.lines().count() == 1 && links.starts_with("lo") && links.contains("UP"), "{links}");
        ensure!(alone.run("ping -c1 -W1 192.0.2.254")?.code != 0, "none has a way out");

        netd.netd("sandbox create onhost --network host")?;
        let seen = netd.netd("exec onhost -- readlink /proc/self/ns/net")?.stdout;
        ensure!(seen == host.sh("readlink /proc/self/ns/net")?.stdout, "{seen}");

        netd.netd("network create app")?;
        for (network, sandbox) in [("app", "onhost"), ("app", "alone"), ("host", "alone")] {
            let refused = netd.try_netd(&format!("network connect {network} {sandbox}"))?;
            ensure!(refused.code == 1, "{network} {sandbox}: {refused:?}");
        }
        for mode in ["host", "none"] {
            let refused = netd.try_netd(&format!("sandbox create x --network {mode} --network app"))?;
            ensure!([1, 2].contains(&refused.code) && refused.stderr.contains(mode), "{refused:?}");
        }
        Ok(())
    });
}

#[test]
fn a_container_mode_sandbox_shares_localhost_names_and_hosts() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let web = netd.create("web", "--network app")?;
        netd.netd("sandbox create side --network container:web")?;
        traffic::serve(web.listen(([127, 0, 0, 1], 7000))?);
        for look in ["readlink /proc/self/ns/net", "cat /etc/hosts", "cat /etc/resolv.conf"] {
            let (own, shared) =
                (netd.netd(&format!("exec web -- {look}"))?, netd.netd(&format!("exec side -- {look}"))?);
            ensure!(own.stdout == shared.stdout, "{look}: {own:?} {shared:?}");
        }
        netd.netd("exec side -- nc -z 127.0.0.1 7000")?;
        for flag in [
            "-p 8080:80",
            "--hostname h",
            "--dns 192.0.2.1",
            "--add-host a:1.2.3.4",
            "--expose 80",
            "--link web",
            "-P",
        ] {
            let refused = netd.try_netd(&format!("sandbox create x --network container:web {flag}"))?;
            ensure!(refused.code == 1, "{flag} does not go with container mode: {refused:?}");
        }
        netd.netd("network create other")?;
        ensure!(netd.try_netd("network connect other side")?.code == 1, "side has no namespace of its own");
        netd.try_netd("sandbox create y --network container:nobody")?.refused(1, "nobody")?;
        Ok(())
    });
}

#[test]
fn a_namespace_made_by_somebody_else_is_joined_and_left() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        host.sh("ip netns add theirs")?;
        let id = |place: &str| host.sh(&format!("ip netns exec {place} readlink /proc/self/ns/net"));
        let before = id("theirs")?.stdout;
        netd.netd("sandbox create job --network app --netns /run/netns/theirs")?;
        let peer = netd.create("peer", "--network app")?;
        let address: Ipv4Addr = netd.address("job", "app")?;
        peer.sh(&format!("ping -c1 -W2 {address}"))?;
        netd.netd("sandbox rm job")?;
        ensure!(id("theirs")?.stdout == before, "the namespace is still theirs");
        eventually(Duration::from_secs(2), "eth0 goes with the sandbox", || {
            let links = host.look("ip -n theirs -br link")?;
            ensure!(!links.contains("eth0"), "{links}");
            Ok(())
        })?;
        netd.try_netd("sandbox create job --network app --netns /etc/hostname")?
            .refused(1, "/etc/hostname")?;
        netd.try_netd("sandbox create job --network app --netns /run/netns/nowhere")?
            .refused(1, "nowhere")?;
        host.sh("ip netns del theirs").map(drop)
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_no_way_in() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create inner --internal --subnet 10.40.0.0/24")?;
        let one = netd.create("one", "--network inner")?;
        netd.create("two", "--network inner -p 8080:7000")?;
        let address: Ipv4Addr = netd.address("two", "inner")?;
        one.sh(&format!("ping -c1 -W2 {address}"))?;
        ensure!(one.run("ping -c1 -W1 198.51.100.1")?.code != 0, "internal networks have no way out");
        let routes = one.sh("ip route")?.stdout;
        ensure!(!routes.contains("default"), "{routes}");
        outsider.sh(&format!("ip route add 10.40.0.0/24 via {}", host.v4))?;
        ensure!(outsider.run(&format!("ping -c1 -W1 {address}"))?.code != 0, "nor a way in");
        Ok(())
    });
}

#[test]
fn networks_are_isolated_from_each_other_and_from_outside() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create red --ipv6 --subnet 10.41.0.0/24 --subnet fd41::/64")?;
        netd.netd("network create blue --ipv6 --subnet 10.42.0.0/24 --subnet fd42::/64")?;
        let red = netd.create("red", "--network red --ip 10.41.0.9 --ip6 fd41::9")?;
        let blue = netd.create("blue", "--network blue --ip 10.42.0.9 --ip6 fd42::9")?;
        let neighbour = netd.create("neighbour", "--network blue")?;
        for (address, route) in [("10.42.0.9", "10.42.0.0/24"), ("fd42::9", "fd42::/64")] {
            neighbour.sh(&format!("ping -c1 -W2 {address}"))?;
            host.sh(&format!("ping -c1 -W2 {address}"))?;
            ensure!(red.run(&format!("ping -c1 -W1 {address}"))?.code != 0, "red reaches blue at {address}");
            let via: IpAddr = if address.contains(':') { host.v6.into() } else { host.v4.into() };
            outsider.sh(&format!("ip route add {route} via {via}"))?;
            ensure!(
                outsider.run(&format!("ping -c1 -W1 {address}"))?.code != 0,
                "an outsider reaches {address}"
            );
        }
        blue.sh("ping -c1 -W2 10.42.0.1").map(drop)
    });
}

#[test]
fn sandboxes_reach_the_outside_behind_the_hosts_address() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.netd("network create plain --subnet 10.43.0.0/24 -o masquerade=false")?;
        let one = netd.create("one", "--network app")?;
        let (v4, v6): (IpAddr, IpAddr) =
            (netd_tests::Lab::INTERNET.into(), netd_tests::Lab::INTERNET6.into());
        for (to, own) in [(v4, IpAddr::from(host.v4)), (v6, host.v6.into())] {
            let server = lab.router.listen((to, 7000))?;
            let _connected = one.connect((to, 7000))?;
            let (_, from) = server.accept()?;
            ensure!(from.ip() == own, "the outside sees {from}, not the host");
        }
        let plain = netd.create("plain", "--network plain")?;
        lab.router.sh(&format!("ip route add 10.43.0.0/24 via {}", host.v4))?;
        let server = lab.router.udp((v4, 7001))?;
        server.set_read_timeout(Some(Duration::from_secs(3)))?;
        plain.udp(([0; 4], 0))?.send_to(b"x", (v4, 7001))?;
        let (_, from) = server.recv_from(&mut [0; 8])?;
        ensure!(
            from.ip() == netd.address::<IpAddr>("plain", "plain")?,
            "masquerade=false, but seen as {from}"
        );
        Ok(())
    });
}

#[test]
fn the_mtu_option_reaches_every_link_of_the_network() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create small -o mtu=1400")?;
        let one = netd.create("one", "--network small")?;
        ensure!(one.sh("ip link show eth0")?.stdout.contains("mtu 1400"), "eth0");
        let links = host.sh("ip -o link")?.stdout;
        let ours: Vec<_> =
            links.lines().filter(|line| line.contains(": nd-") || line.contains(": nv")).collect();
        ensure!(ours.len() == 2 && ours.iter().all(|line| line.contains("mtu 1400")), "{links}");
        netd.try_netd("network create tiny -o mtu=67")?.refused(1, "mtu")?;
        netd.try_netd("network create odd -o colour=red")?.refused(1, "colour")?;
        Ok(())
    });
}

#[test]
fn a_sandbox_joins_and_leaves_networks_while_it_works() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create front")?;
        netd.netd("network create back")?;
        let web = netd.create("web", "--network front")?;
        let peer = netd.create("peer", "--network front")?;
        let db = netd.create("db", "--network back --alias store")?;
        let front = SocketAddr::from((netd.address::<IpAddr>("peer", "front")?, 7000));
        traffic::serve(peer.listen(front)?);
        let back = SocketAddr::from((netd.address::<IpAddr>("db", "back")?, 7000));
        traffic::serve(db.listen(back)?);

        let steady = traffic::Download::start(&web, front, 4 << 20, Duration::from_secs(2))?;
        netd.netd("network connect back web --alias site")?;
        traffic::exchange(&web, back, 1, 1000, 1000)?;
        ensure!(
            netd.netd("exec web -- getent hosts store")?.stdout.contains(&back.ip().to_string()),
            "store"
        );
        netd.netd("exec db -- getent hosts site")?;
        netd.try_netd("network connect back web")?.refused(1, "back")?;
        netd.netd("network disconnect back web")?;
        ensure!(netd.try_netd("exec web -- getent hosts store")?.code != 0, "store is out of sight");
        ensure!(netd.try_netd("exec db -- getent hosts site")?.code != 0, "site is gone");
        ensure!(!web.sh("ip -br link")?.stdout.contains("eth1"), "eth1 is gone");
        netd.try_netd("network disconnect back web")?.refused(1, "back")?;
        steady.finish()
    });
}

#[test]
fn a_new_owner_of_an_address_announces_itself() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6 --subnet 10.44.0.0/24 --subnet fd44::/64")?;
        let peer = netd.create("peer", "--network app")?;
        netd.create("first", "--network app --ip 10.44.0.9 --ip6 fd44::9")?;
        peer.sh("ping -c1 -W2 10.44.0.9")?;
        peer.sh("ping -c1 -W2 fd44::9")?;
        netd.netd("sandbox rm first")?;
        let capture = Capture::start(&peer, "eth0", "arp or icmp6")?;
        let second = netd.create("second", "--network app --ip 10.44.0.9 --ip6 fd44::9")?;
        eventually(Duration::from_secs(5), "a gratuitous ARP packet", || {
            let seen = capture.lines();
            let forms = ["10.44.0.9 is-at", "who-has 10.44.0.9 tell 10.44.0.9"];
            ensure!(forms.iter().any(|form| seen.contains(form)), "{seen}");
            Ok(())
        })?;
        capture.sees("neighbor advertisement, tgt is fd44::9")?;
        // The peer's caches lead to the new owner at once.
        second.sh("ping -c1 -W1 10.44.0.1")?;
        peer.sh("ping -c1 -W1 10.44.0.9")?;
        peer.sh("ping -c1 -W1 fd44::9").map(drop)
    });
}

#[test]
fn names_of_links_follow_from_ids() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        netd.create("one", "--network app")?;
        let network = netd.inspect("network", "app")?;
        let id = network["Id"].as_str().context("a network has an id")?;
        ensure!(id.len() == 64, "{id}");
        host.sh(&format!("ip link show nd-{}", &id[..10]))?;
        let before = host.sh("ip -br link")?.stdout;
        ensure!(before.contains("nv"), "{before}");
        ensure!(netd.terminate()? == 0, "a graceful end");
        netd.start()?;
        ensure!(host.sh("ip -br link")?.stdout == before, "a restart changes no link");
        Ok(())
    });
}

#[test]
fn icc_false_keeps_neighbours_apart() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create quiet -o icc=false")?;
        let one = netd.create("one", "--network quiet")?;
        netd.create("two", "--network quiet")?;
        let two: Ipv4Addr = netd.address("two", "quiet")?;
        ensure!(one.run(&format!("ping -c1 -W1 {two}"))?.code != 0, "icc=false, but {two} answers");
        one.sh("ping -c1 -W2 198.51.100.1").map(drop)
    });
}

#[test]
fn the_number_of_rules_does_not_grow_with_sandboxes() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        let rules = |host: &Place| -> Result<_> {
            let table = host.sh("nft -s list table inet netd")?.stdout;
            // Elements of sets and maps are data, not rules.
            Ok(table
                .lines()
                .filter(|line| line.contains("accept") || line.contains("drop") || line.contains("jump"))
                .count())
        };
        netd.create("first", "--network app -p 8000:80")?;
        let one = rules(&host)?;
        for number in 0..10 {
            netd.create(&format!("more{number}"), &format!("--network app -p 80{number}1:80"))?;
        }
        let many = rules(&host)?;
        ensure!(one > 0 && one == many, "{one} rules for one sandbox, {many} for eleven");
        Ok(())
    });
}

#[test]
fn only_the_sysctls_that_are_needed_are_set() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let settings = |host: &Place| -> Result<BTreeSet<String>> {
            let text = host.look("sh -c 'grep -rs . /proc/sys/net/ipv4/ip_* /proc/sys/net/ipv4/conf/all /proc/sys/net/ipv4/conf/default /proc/sys/net/ipv4/conf/eth0 /proc/sys/net/ipv6/conf/all /proc/sys/net/ipv6/conf/default /proc/sys/net/ipv6/conf/eth0'")?;
            Ok(text.lines().filter(|line| !line.contains("stable_secret")).map(str::to_owned).collect())
        };
        let before = settings(&host)?;
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.create("one", "--network app")?;
        let after = settings(&host)?;
        let changed: Vec<_> = after.difference(&before).collect();
        ensure!(changed.iter().any(|line| line.ends_with("ip_forward:1")), "{changed:?}");
        // The kernel itself stops accepting redirects then. Forwarding would end the host's own acceptance of router
        // advertisements; accept_ra=2 keeps it.
        let needed = ["forwarding:1", "ip_forward:1", "accept_ra:2", "accept_redirects:0"];
        ensure!(changed.iter().all(|line| needed.iter().any(|end| line.ends_with(end))), "{changed:#?}");
        Ok(())
    });
}

#[test]
fn networks_in_use_and_predefined_networks_stay() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        for name in ["first", "second", "third"] {
            netd.netd(&format!("network create {name}"))?;
        }
        netd.create("user", "--network second")?;
        let some = netd.try_netd("network rm first second nothing third")?;
        let some = some.refused(1, "user")?.refused(1, "nothing")?;
        let left = netd.netd("network ls")?.stdout;
        ensure!(
            !left.contains("first") && left.contains("second") && !left.contains("third"),
            "{some:?}: {left}"
        );
        for name in ["bridge", "host", "none"] {
            netd.try_netd(&format!("network rm {name}"))?.refused(1, name)?;
            let refused = netd.try_netd(&format!("network create {name}"))?;
            ensure!([1, 2].contains(&refused.code) && refused.stderr.contains(name), "{refused:?}");
        }
        netd.try_netd("network create second")?.refused(1, "second")?;
        netd.netd("network create spare")?;
        netd.netd("network prune -f")?;
        let left = netd.netd("network ls")?.stdout;
        ensure!(left.contains("second") && !left.contains("spare") && left.contains("bridge"), "{left}");
        Ok(())
    });
}
