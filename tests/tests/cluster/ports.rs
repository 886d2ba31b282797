//! Published ports that one node cannot serve at first, on addresses of one node, and that lead to where they begin.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use netd_tests::load::{Offer, Steady};
use netd_tests::{Place, eventually, scenario};

use crate::stage::{SOON, know, stage};

fn answers(client: &Place, at: SocketAddr) -> Result<()> {
    eventually(SOON, &format!("{at} answers"), || {
        let load = Steady::start(client, Offer::tcp(at, 40))?;
        load.more(4)?;
        load.finish()?.flawless(4).map(drop)
    })
}

#[test]
fn a_port_that_somebody_has_on_one_node_is_served_there_once_it_is_free() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let far = it.node(3);
        let program = far.place.listen((Ipv4Addr::UNSPECIFIED, 9000))?;
        far.netd("sandbox create other -p 9001:80")?;
        it.node(1).netd("service update web --publish-add 9000:7000 --publish-add 9001:7000")?;
        for port in [9000, 9001] {
            answers(&it.outsider, (it.node(1).host.v4, port).into())?;
            answers(&it.outsider, (it.node(2).host.v4, port).into())?;
        }
        let seen = far.try_netd("doctor")?.stdout;
        ensure!(seen.contains("tcp/0.0.0.0:9000"), "{seen}");
        ensure!(seen.contains("of service web is published, but sandbox other has it"), "{seen}");
        drop(program);
        answers(&it.outsider, (far.host.v4, 9000).into())?;
        far.netd("sandbox rm other")?;
        answers(&it.outsider, (far.host.v4, 9001).into())?;
        let seen = far.try_netd("doctor")?.stdout;
        ensure!(seen.contains("every published port is served"), "{seen}");
        Ok(())
    });
}

#[test]
fn a_port_on_one_address_is_served_by_whatever_node_has_the_address() {
    scenario(|lab| {
        let it = stage(lab, 1, "")?;
        let (second, floating) = (it.node(2).host.v4, Ipv4Addr::new(192, 0, 2, 200));
        // Typed at a node that has neither.
        it.node(1).netd(&format!(
            "service create side --network app -p {second}:9000:7000 -p {floating}:9001:7000"
        ))?;
        know(&it.cluster, "service", "side")?;
        let _side = netd_tests::Backend::start(it.node(3), "side1", "--network app --service side")?;
        answers(&it.outsider, (second, 9000).into())?;
        for elsewhere in [it.node(1).host.v4, it.node(3).host.v4] {
            let refused = it.outsider.connect((elsewhere, 9000)).is_err();
            ensure!(refused, "{elsewhere} is not the address");
        }
        for node in [it.node(2), it.node(3)] {
            node.place.sh(&format!("ip addr add {floating}/24 dev eth0"))?;
            it.outsider.sh("ip neigh flush all")?;
            answers(&it.outsider, (floating, 9001).into())?;
            node.place.sh(&format!("ip addr del {floating}/24 dev eth0"))?;
        }
        it.cluster.everywhere(SOON, "nothing is amiss with ports", |node| {
            let seen = node.try_netd("doctor")?.stdout;
            ensure!(seen.contains("every published port is served"), "{seen}");
            Ok(())
        })
    });
}

#[test]
fn a_service_leads_nobody_back_to_itself() {
    scenario(|lab| {
        let it = stage(lab, 2, "")?;
        let first = it.node(1);
        let vip: IpAddr = first.inspect("service", "web")?["VIP"].as_str().unwrap_or_default().parse()?;
        let second = it.node(2).host.v4;
        // One service may lead to another, by its address or its port.
        first.netd(&format!("service create door --network app -p 9000:80 --backend {vip}:7000"))?;
        first.netd(&format!("service create way --network app -p 9001:80 --backend {second}:9000"))?;
        answers(&it.outsider, (first.host.v4, 9001).into())?;
        let refused = |line: &str| first.try_netd(line)?.refused(1, "leads back to service");
        refused(&format!("service update door --backend-add {second}:9000"))?;
        refused(&format!("service update door --backend-add {second}:9001"))?;
        refused(&format!("service create own --network app -p 9002:80 --backend {second}:9002"))?;
        // What netd cannot know: an address of the host that is led to another. The rest goes on.
        let hidden = Ipv4Addr::new(203, 0, 113, 1);
        let line = format!("service create round --network app -p 9003:80 --backend {hidden}:9003");
        first.netd(&line)?;
        first.place.sh(&format!("ip addr add {hidden}/32 dev lo"))?;
        let clients = Steady::start(&it.outsider, Offer::tcp((first.host.v4, 9003).into(), 40))?;
        let others = Steady::start(&it.outsider, Offer::tcp(it.door(1), 40))?;
        clients.more(80)?;
        others.more(40)?;
        others.finish()?.flawless(40)?;
        ensure!(clients.finish()?.answered() == 0, "there is nobody to answer");
        eventually(Duration::from_secs(10), "no connection stays", || {
            let seen = first.inspect("service", "round")?;
            ensure!(seen["Endpoints"][0]["ActiveConnections"] == 0, "{seen}");
            Ok(())
        })?;
        first.place.sh(&format!("ip addr del {hidden}/32 dev lo")).map(drop)
    });
}
