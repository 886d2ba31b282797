//! A published port on every node, whatever node runs the backends; and whose address those see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, echoes, echoes_unconnected, vip};
use netd_tests::load::{Talk, talk};
use netd_tests::{Backend, Cluster, Place, eventually, scenario};

use crate::stage::{SOON, everybody, know, stage};

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn echo(from: &Place, to: SocketAddr) -> Result<netd_tests::load::Answer> {
    let socket = from.udp(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse::<SocketAddr>()?)?;
    socket.connect(to)?;
    Ok(talk::datagram(&socket, 3, 1200, Duration::from_secs(1))?)
}

#[test]
fn a_port_is_open_on_every_node_and_the_client_is_seen_as_itself() {
    scenario(|lab| {
        let it = stage(lab, 1, "")?;
        let host_mode = "service create local --network app -p published=8090,target=7000,mode=host";
        it.node(1).netd(host_mode)?;
        know(&it.cluster, "service", "local")?;
        let _local = Backend::start(it.node(2), "local2", "--network app --service local")?;
        everybody(&it.cluster, "local", 1)?;
        for node in &it.cluster.nodes {
            for address in [IpAddr::from(node.host.v4), node.host.v6.into()] {
                let to = SocketAddr::new(address, 8080);
                let client: IpAddr = if to.is_ipv4() { it.outsider.v4.into() } else { it.outsider.v6.into() };
                for answer in [ask(&it.outsider, to)?, echo(&it.outsider, to)?] {
                    ensure!(answer.by == "web1", "{answer:?}");
                    ensure!(answer.client.ip() == client, "{to}: the backend saw {}", answer.client);
                }
                let open = it.outsider.connect((address, 8090)).is_ok();
                ensure!(
                    open == (node.host.name == "node2"),
                    "host mode is open on {}: {open}",
                    node.host.name
                );
            }
            for address in LOOPBACKS {
                ensure!(ask(&node.place, (address, 8080))?.by == "web1", "on {}", node.host.name);
                ensure!(echo(&node.place, (address, 8080).into())?.by == "web1", "on {}", node.host.name);
            }
        }
        let answer = ask(&it.outsider, (it.node(2).host.v4, 8090))?;
        ensure!(answer.client.ip() == it.outsider.v4, "{answer:?}");
        it.node(3).netd("service rm web")?;
        it.cluster.everywhere(SOON, "the port is closed again", |node| {
            ensure!(it.outsider.connect((node.host.v4, 8080)).is_err(), "it is open");
            Ok(())
        })
    });
}

#[test]
fn a_vip_leads_to_backends_of_all_nodes_from_any_node() {
    scenario(|lab| {
        let mut it = stage(lab, 2, "")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(it.node(1), "web")?, vip(it.node(1), "web")?);
        let clients: Vec<_> = it
            .cluster
            .nodes
            .iter()
            .map(|node| node.create(&format!("client-{}", node.host.name), "--network app"))
            .collect::<Result<_>>()?;
        let backends = it.backends.iter().map(|backend| &backend.place);
        for client in clients.iter().chain(backends) {
            for to in [SocketAddr::from((v4, 7000)), (v6, 7000).into()] {
                let mut by: Vec<_> = (0..4).map(|_| Ok(ask(client, to)?.by)).collect::<Result<_>>()?;
                by.sort();
                ensure!(by == ["web1", "web1", "web2", "web2"], "{} hears {by:?}", client.name);
                echo(client, to)?;
                ensure!(ask(client, (to.ip(), 9999)).is_err(), "nothing listens there");
            }
        }
        // On an underlay of 1500 bytes, bulk of every size comes through.
        let bulk = clients[2].enter(|| Talk::open((v4, 7000).into(), None, PATIENCE)?.say(1, 1 << 20))??;
        ensure!(bulk.by.starts_with("web"), "{bulk:?}");
        // The nearest first, if asked for.
        it.node(1).netd("service update web --prefer-local")?;
        for (client, by) in clients.iter().zip(["web1", "web2"]) {
            eventually(SOON, &format!("{} hears only {by}", client.name), || {
                for _ in 0..4 {
                    let answer = ask(client, (v4, 7000))?;
                    ensure!(answer.by == by, "{answer:?}");
                }
                Ok(())
            })?;
        }
        it.backends.remove(0).remove()?;
        eventually(SOON, "another, when the nearest is gone", || {
            ensure!(ask(&clients[0], (v4, 7000))?.by == "web2", "not yet");
            Ok(())
        })
    });
}

#[test]
fn every_node_makes_the_same_choice_for_a_client() {
    scenario(|lab| {
        let it = stage(lab, 3, "--policy maglev")?;
        it.outsider.sh("ip route add local 10.9.0.0/24 dev lo")?;
        for node in &it.cluster.nodes {
            node.host.sh(&format!("ip route add 10.9.0.0/24 via {}", it.outsider.v4))?;
        }
        let choices = |door: SocketAddr| -> Result<Vec<String>> {
            it.outsider.enter(|| {
                let one = |number| {
                    let from = SocketAddr::from(([10, 9, 0, number], 20_000 + u16::from(number)));
                    let answer = Talk::open(door, Some(from), PATIENCE)?.say_and_close(1, 100)?;
                    ensure!(answer.client.ip() == from.ip(), "{answer:?}");
                    Ok(answer.by)
                };
                (1..=100).map(one).collect()
            })?
        };
        let first = choices(it.door(1))?;
        for number in [2, 3] {
            ensure!(choices(it.door(number))? == first, "node{number} chooses as node1 does");
        }
        for name in ["web1", "web2", "web3"] {
            let count = first.iter().filter(|by| *by == name).count();
            ensure!(count >= 15, "{name} has {count} of 100");
        }
        for node in &it.cluster.nodes {
            node.host.sh("ip route del 10.9.0.0/24")?;
        }
        Ok(())
    });
}

#[test]
fn a_proxy_header_tells_the_client_across_nodes() {
    scenario(|lab| {
        let it = stage(lab, 0, "")?;
        for version in [1, 2] {
            let (name, port) = (format!("told{version}"), 9090 + version);
            let publish = format!("published={port},target=7001,proxy-protocol=v{version}");
            it.node(1).netd(&format!("service create {name} --network app -p {publish}"))?;
            know(&it.cluster, "service", &name)?;
            it.node(1).create(&name, &format!("--network app --service {name}"))?;
            let echo = it.node(1).exec(&name, &format!("lab_echo --name {name} --proxy --tcp 7001"))?;
            echo.says("ready")?;
            everybody(&it.cluster, &name, 1)?;
            for node in &it.cluster.nodes {
                for address in [IpAddr::from(node.host.v4), node.host.v6.into()] {
                    let to = SocketAddr::new(address, port);
                    let client: IpAddr =
                        if to.is_ipv4() { it.outsider.v4.into() } else { it.outsider.v6.into() };
                    let answer = ask(&it.outsider, to)?;
                    let told = answer.told.clone().with_context(|| format!("{answer:?}"))?;
                    let (from, asked) = told.addresses.with_context(|| format!("{answer:?}"))?;
                    ensure!(
                        u16::from(told.version) == version && from.ip() == client && asked == to,
                        "{answer:?}"
                    );
                }
            }
        }
        Ok(())
    });
}

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_program_of_a_node_reaches_services_whose_backends_are_elsewhere() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [here, there] = &cluster.nodes[..] else { unreachable!("two") };
        here.netd("network create app -d overlay --ipv6")?;
        here.netd(
            "service create web --network app --port 7000 --port 7000/udp -p 8080:7000 -p 8080:7000/udp",
        )?;
        here.netd("service create any --network app")?;
        know(&cluster, "service", "any")?;
        let _web = Backend::start(there, "web1", "--service web")?;
        let _any = Backend::start(there, "any1", "--service any")?;
        // The network, and with it the service's address, is on a node while a sandbox there is on it.
        let client = here.create("client", "--network app")?;
        everybody(&cluster, "web", 1)?;
        everybody(&cluster, "any", 1)?;
        let at = |service| -> Result<[SocketAddr; 2]> {
            let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(here, service)?, vip(here, service)?);
            Ok([(v4, 7000).into(), (v6, 7000).into()])
        };
        let addresses = at("web")?;
        for to in addresses.into_iter().chain(LOOPBACKS.map(|ip| (ip, 8080).into())) {
            ensure!(ask(&here.host, to)?.by == "web1", "{to}");
            echoes(&here.host, to)?;
            echoes_unconnected(&here.host, to)?;
        }
        for to in at("any")? {
            for node in &cluster.nodes {
                ensure!(ask(&node.host, to)?.by == "any1", "{to}");
                echoes(&node.host, to)?;
                echoes_unconnected(&node.host, to)?;
            }
        }
        for to in addresses {
            ensure!(ask(&client, to)?.by == "web1", "{to}");
        }
        Ok(())
    });
}
