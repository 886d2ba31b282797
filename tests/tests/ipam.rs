//! Addresses: pools, ranges, fixed addresses, what is in the way, and what an error says when nothing is left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, scenario};

#[test]
fn a_chosen_subnet_keeps_clear_of_every_route_of_the_host() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create first")?;
        let taken = subnet(&netd, "first", 0)?;
        netd.netd("network rm first")?;
        // Now somebody's VPN is there, and a part of the next pool is routed too.
        host.sh(&format!("ip route add {taken} via 192.0.2.254"))?;
        netd.netd("network create second")?;
        let chosen = subnet(&netd, "second", 0)?;
        ensure!(chosen != taken, "{chosen} is routed elsewhere");
        // What the user names is refused on the same routes, by which route and what to do, and on our own networks.
        for subnet in [&*taken, "192.0.2.128/25", "192.0.0.0/16"] {
            let refused = netd.try_netd(&format!("network create third --subnet {subnet}"))?;
            refused.refused(1, "route to")?.refused(1, "eth0")?.refused(1, "choose another")?;
        }
        netd.try_netd(&format!("network create third --subnet {chosen}"))?.refused(1, "second")?;
        // A VPN that takes the place of the default route by its halves is in nobody's way.
        for half in ["0.0.0.0/1", "128.0.0.0/1"] {
            host.sh(&format!("ip route add {half} via 192.0.2.254"))?;
        }
        netd.netd("network create third --subnet 10.49.0.0/24")?;
        netd.netd("network create fourth")?;
        for half in ["0.0.0.0/1", "128.0.0.0/1"] {
            host.sh(&format!("ip route del {half} via 192.0.2.254"))?;
        }
        host.sh(&format!("ip route del {taken}")).map(drop)
    });
}

#[test]
fn gateway_range_and_reserved_addresses_are_respected_to_the_last() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd(
            "network create app --subnet 10.50.0.0/24 --gateway 10.50.0.254 --ip-range 10.50.0.128/30 --aux-address router=10.50.0.129",
        )?;
        let mut given = Vec::new();
        for name in ["a", "b", "c"] {
            let inside = netd.create(name, "--network app")?;
            given.push(netd.address::<Ipv4Addr>(name, "app")?.to_string());
            ensure!(inside.sh("ip route")?.stdout.contains("default via 10.50.0.254"), "the gateway");
        }
        given.sort();
        ensure!(given == ["10.50.0.128", "10.50.0.130", "10.50.0.131"], "{given:?}");
        let refused = netd.try_netd("sandbox create d --network app")?;
        // Who holds them: enough to act on.
        refused.refused(1, "app")?.refused(1, "10.50.0.128/30")?.refused(1, "a")?;
        netd.create("outside-the-range", "--network app --ip 10.50.0.7")?;
        netd.netd("sandbox rm b")?;
        netd.create("d", "--network app")?;
        Ok(())
    });
}

#[test]
fn a_fixed_address_is_given_or_the_owner_is_named() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6 --subnet 10.51.0.0/24 --subnet fd51::/64")?;
        netd.netd("network create other --subnet 10.52.0.0/24")?;
        let holder =
            netd.create("holder", "--network app --ip 10.51.0.77 --ip6 fd51::77 --mac 02:00:00:00:00:77")?;
        let seen = holder.sh("ip addr show eth0")?.stdout;
        for part in ["10.51.0.77/24", "fd51::77/64", "02:00:00:00:00:77"] {
            ensure!(seen.contains(part), "{part}: {seen}");
        }
        for (flags, says) in [
            ("--network app --ip 10.51.0.77", "holder"),
            ("--network app --ip6 fd51::77", "holder"),
            ("--network app --ip 10.52.0.9", "10.52.0.9"),
            ("--network app --ip 10.51.0.1", "gateway"),
            ("--network app --ip 10.51.0.0", "10.51.0.0"),
            ("--network app --ip 10.51.0.255", "10.51.0.255"),
            ("--network other --ip6 fd51::9", "IPv6"),
        ] {
            netd.try_netd(&format!("sandbox create x {flags}"))?.refused(1, says)?;
        }
        let left = netd.netd("sandbox ls")?.stdout;
        ensure!(!left.contains(" x "), "a refused sandbox leaves nothing: {left}");
        netd.create("y", "--network other")?;
        netd.netd("network connect app y --ip 10.51.0.78")?;
        ensure!(netd.address::<Ipv4Addr>("y", "app")? == Ipv4Addr::new(10, 51, 0, 78), "connect --ip");
        Ok(())
    });
}

#[test]
fn an_ipv6_network_without_a_subnet_gets_a_unique_local_one() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.netd("network create app2 --ipv6")?;
        let (one, two) = (subnet(&netd, "app", 1)?, subnet(&netd, "app2", 1)?);
        ensure!(one.starts_with("fd") && two.starts_with("fd") && one != two, "{one} {two}");
        netd.create("a", "--network app")?;
        let networks = netd.inspect("sandbox", "a")?["NetworkSettings"]["Networks"]["app"].clone();
        let address: Ipv6Addr = networks["GlobalIPv6Address"].as_str().context("an IPv6 address")?.parse()?;
        ensure!(address.is_unique_local(), "{address}");
        Ok(())
    });
}

#[test]
fn small_subnets_are_used_whole() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create pair --subnet 10.53.0.0/30")?;
        netd.create("a", "--network pair")?;
        ensure!(netd.address::<IpAddr>("a", "pair")?.to_string() == "10.53.0.2", "the one address");
        netd.try_netd("sandbox create b --network pair")?.refused(1, "a")?;
        Ok(())
    });
}

#[test]
fn a_size_alone_chooses_a_subnet_that_stays() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --subnet 0.0.0.0/24 --subnet ::/120")?;
        let chosen = [subnet(&netd, "app", 0)?, subnet(&netd, "app", 1)?];
        ensure!(chosen[0].ends_with("/24") && !chosen[0].starts_with("0."), "{chosen:?}");
        ensure!(chosen[1].ends_with("/120") && chosen[1].starts_with("fd"), "{chosen:?}");
        netd.kill()?;
        netd.start()?;
        ensure!([subnet(&netd, "app", 0)?, subnet(&netd, "app", 1)?] == chosen, "{chosen:?}");
        netd.create("one", "--network app").map(drop)
    });
}

/// The n-th subnet of a network.
fn subnet(netd: &Daemon, network: &str, index: usize) -> Result<String> {
    let subnet = netd.inspect("network", network)?["IPAM"]["Config"][index]["Subnet"].clone();
    Ok(subnet.as_str().with_context(|| format!("subnet {index} of {network}: {subnet}"))?.to_owned())
}
