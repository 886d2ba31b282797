//! Nodes that reach each other by IPv6 alone: the overlay, services and published ports carry both families as ever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, becomes, vip};
use netd_tests::capture::Capture;
use netd_tests::load::talk;
use netd_tests::{Cluster, Place, eventually, scenario, traffic};

use crate::stage::{SOON, everybody, on, resolves};

fn echo(from: &Place, to: SocketAddr) -> Result<netd_tests::load::Answer> {
    let socket = from.udp(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse::<SocketAddr>()?)?;
    socket.connect(to)?;
    Ok(talk::datagram(&socket, 3, 1200, Duration::from_secs(1))?)
}

#[test]
fn nodes_that_reach_each_other_by_ipv6_alone_serve_both_families() {
    scenario(|lab| {
        let it = on(Cluster::over_ipv6(lab, 3)?, lab, 2, "")?;
        let wire = Capture::start(&it.node(2).host, "eth0", "ip6 and udp port 4789")?;
        // Sandboxes: what is large comes through, and what is one byte too long is told at home.
        let client = it.node(1).create("client", "--network app")?;
        resolves(&client, "web2", 1)?;
        let inspected = it.node(2).inspect("sandbox", "web2")?;
        let endpoint = &inspected["NetworkSettings"]["Networks"]["app"];
        let v6: Ipv6Addr = endpoint["GlobalIPv6Address"].as_str().context("an IPv6 address")?.parse()?;
        let v4: Ipv4Addr = it.node(2).address("web2", "app")?;
        for address in [IpAddr::from(v4), v6.into()] {
            let at = SocketAddr::new(address, 7100);
            traffic::serve(it.backends[1].place.listen(at)?);
            traffic::exchange(&client, at, 1, 3_000_000, 3_000_000)?;
            ensure!(ask(&client, (address, 7000))?.by == "web2", "{address}");
            ensure!(echo(&client, (address, 7000).into())?.by == "web2", "{address}");
        }
        // 1500, less an Ethernet, IPv6, UDP and VXLAN header; an ICMP echo has 28 bytes of headers.
        client.sh(&format!("ping -c1 -W2 -M do -s 1402 {v4}"))?;
        ensure!(client.run(&format!("ping -c1 -W2 -M do -s 1403 {v4}"))?.code != 0, "one byte too long");
        wire.sees("ICMP echo request")?;

        // Services: by their addresses, from a node without a backend too.
        let far = it.node(3).create("far", "--network app")?;
        let vips: (Ipv4Addr, Ipv6Addr) = (vip(it.node(1), "web")?, vip(it.node(1), "web")?);
        for from in [&client, &far] {
            for to in [SocketAddr::from((vips.0, 7000)), (vips.1, 7000).into()] {
                let mut by: Vec<String> =
                    (0..4).map(|_| ask(from, to).map(|answer| answer.by)).collect::<Result<_>>()?;
                by.sort();
                ensure!(by == ["web1", "web1", "web2", "web2"], "{} hears {by:?} at {to}", from.name);
                echo(from, to)?;
            }
        }
        // Published ports: a client of either family at every node, seen as itself over the hop.
        for node in &it.cluster.nodes {
            for address in [IpAddr::from(node.host.v4), node.host.v6.into()] {
                let to = SocketAddr::new(address, 8080);
                let own: IpAddr = if to.is_ipv4() { it.outsider.v4.into() } else { it.outsider.v6.into() };
                for _ in 0..2 {
                    for answer in [ask(&it.outsider, to)?, echo(&it.outsider, to)?] {
                        ensure!(answer.client.ip() == own, "{to}: the backend saw {}", answer.client);
                    }
                }
            }
        }
        // Each node has tried the others, and says so.
        eventually(SOON, "node1 has tried the others", || {
            let told = it.node(1).try_netd("doctor")?.stdout;
            let line = told.lines().find(|line| line.contains("whole streams arrive at"));
            let line = line.with_context(|| told.clone())?;
            ensure!(
                ["node2 (just now)", "node3 (just now)"].iter().all(|node| line.contains(node)),
                "{line}"
            );
            Ok(())
        })?;
        // And a node that is lost is lost by IPv6, too.
        it.cluster.kill(it.node(2))?;
        eventually(SOON * 2, "its backend is gone", || {
            ensure!(
                (0..4).all(|_| ask(&far, (vips.1, 7000)).is_ok_and(|answer| answer.by == "web1")),
                "not yet"
            );
            Ok(())
        })?;
        it.cluster.revive(it.node(2))?;
        becomes(it.node(1), "web", "web2", "ready")?;
        everybody(&it.cluster, "web", 2)
    });
}
