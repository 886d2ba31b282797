//! Packets beyond 64 KiB within a host: where they are switched on, that they follow the ways out, and that everything
//! gets through with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, Lab, Place, eventually, scenario, traffic};

const LARGE: &str = "gso_max_size 196608";
const USUAL: &str = "gso_max_size 65536";
const MUCH: u64 = 8 << 20;

fn bridge(netd: &Daemon, network: &str) -> Result<String> {
    let id = netd.inspect("network", network)?["Id"].as_str().context("an id")?.to_owned();
    Ok(format!("nd-{}", &id[..10]))
}

/// The device in the sandbox and, if it is to be large, the bridge.
fn has(inside: &Place, size: &str) -> Result<()> {
    let shown = inside.look("ip -d link show eth0")?;
    ensure!(shown.contains(size), "{size}: {shown}");
    Ok(())
}

#[test]
fn packets_are_large_where_nothing_leaves_the_host() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create inside --internal")?;
        netd.netd("network create lan")?;
        netd.netd("network create wished -o big-tcp=on")?;
        netd.netd("network create plain --internal -o big-tcp=off")?;
        for (network, size) in [("inside", LARGE), ("lan", USUAL), ("wished", LARGE), ("plain", USUAL)] {
            has(&netd.create(&format!("on-{network}"), &format!("--network {network}"))?, size)?;
            let shown = host.look(&format!("ip -d link show {}", bridge(&netd, network)?))?;
            ensure!(shown.contains(size), "what the host sends to {network}: {shown}");
        }
        netd.try_netd("network create odd -o big-tcp=maybe")?.refused(1, "use on, off or auto")?;
        Ok(())
    });
}

#[test]
fn the_size_follows_the_ways_out_of_the_host() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        host.sh("ip link set eth0 down")?;
        let netd = host.daemon()?;
        netd.netd("network create lan")?;
        let inside = netd.create("web", "--network lan")?;
        has(&inside, LARGE).context("there is no way out yet")?;
        for command in [
            "link add d0 type veth peer name d1",
            "addr add 203.0.113.1/24 dev d0",
            "link set d0 up",
            "link set d1 up",
        ] {
            host.sh(&format!("ip {command}"))?;
        }
        let soon = Duration::from_secs(20);
        eventually(soon, "a way out that takes 64 KiB", || has(&inside, USUAL))?;
        has(&netd.create("later", "--network lan")?, USUAL)?;
        host.sh("ip link del d0")?;
        netd.kill()?;
        netd.start()?;
        eventually(soon, "and none again, seen at a start", || has(&inside, LARGE))?;
        has(&netd.create("latest", "--network lan")?, LARGE)
    });
}

#[test]
fn everything_gets_through_with_large_packets() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6 -o big-tcp=on")?;
        let web = netd.create("web", "--network app -p 8080:7000")?;
        let neighbour = netd.create("db", "--network app")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::serve(web.listen((Ipv6Addr::UNSPECIFIED, 7001))?);
        has(&web, LARGE)?;
        for address in [IpAddr::V4(host.v4), IpAddr::V6(host.v6)] {
            let port = SocketAddr::new(address, 8080);
            traffic::exchange(&outsider, port, 1, MUCH, MUCH).context("from another host to the port")?;
            traffic::exchange(&neighbour, port, 2, MUCH, MUCH).context("from a neighbour to the port")?;
        }
        let four: Ipv4Addr = netd.address("web", "app")?;
        traffic::exchange(&neighbour, (four, 7000).into(), 3, MUCH, MUCH)?;
        let six: Ipv6Addr = {
            let networks = netd.inspect("sandbox", "web")?["NetworkSettings"]["Networks"]["app"].clone();
            networks["GlobalIPv6Address"].as_str().context("an address")?.parse()?
        };
        traffic::exchange(&neighbour, (six, 7001).into(), 4, MUCH, MUCH)?;
        traffic::exchange(&host, (four, 7000).into(), 5, MUCH, MUCH).context("from the host itself")?;
        // Cut up in software on the way, and whole when they arrive.
        traffic::serve(lab.router.listen((Lab::INTERNET, 9000))?);
        traffic::serve(lab.router.listen((Lab::INTERNET6, 9000))?);
        traffic::exchange(&web, (Lab::INTERNET, 9000).into(), 6, MUCH, MUCH)?;
        traffic::exchange(&web, (Lab::INTERNET6, 9000).into(), 7, MUCH, MUCH)
    });
}
