//! Published ports of services that nobody can answer for: refused at once, from everywhere, and still nobody else's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, becomes, echoes};
use netd_tests::{Backend, Cluster, Daemon, Host, Place, eventually, refusal, scenario};

const PATIENCE: Duration = Duration::from_secs(10);

/// Every way to a port of the host.
fn ways<'p>(host: &'p Host, others: &[&'p Place], port: u16) -> Vec<(&'p Place, SocketAddr)> {
    let outside: [SocketAddr; 2] = [(host.v4, port).into(), (host.v6, port).into()];
    let loopback: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let own = loopback.into_iter().chain(outside).map(|to| (&host.place, to));
    others.iter().flat_map(|from| outside.map(|to| (*from, to))).chain(own).collect()
}

fn refused(host: &Host, others: &[&Place], port: u16) -> Result<()> {
    ways(host, others, port).into_iter().try_for_each(|(from, to)| {
        refusal::of_tcp(from, to)
            .and_then(|()| refusal::of_udp(from, to))
            .with_context(|| format!("from {}", from.name))
    })
}

fn served(host: &Host, others: &[&Place], port: u16) -> Result<()> {
    ways(host, others, port).into_iter().try_for_each(|(from, to)| {
        ask(from, to)?;
        echoes(from, to)
    })
}

/// Nobody else can have it.
fn held(host: &Host, port: u16) -> Result<()> {
    let taken = host.enter(|| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err()
            && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_err()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err()
            && UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).is_err()
    })?;
    ensure!(taken, "port {port} could be had by another program");
    Ok(())
}

fn restarted(netd: &Daemon) -> Result<()> {
    netd.kill_dataplane()?;
    eventually(PATIENCE, "another data plane is there", || netd.netd("service inspect web").map(drop))?;
    netd.kill()?;
    netd.start()
}

#[test]
fn a_published_port_is_refused_while_nobody_answers_and_stays_taken() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.netd("service create web --network app -p 8080:7000 -p 8080:7000/udp")?;
        let client = netd.create("client", "--network app")?;
        let others = [&outsider.place, &client];
        refused(&host, &others, 8080)?;
        held(&host, 8080)?;
        netd.try_netd("sandbox create x -p 8080:80")?.refused(1, "service web")?;
        restarted(&netd)?;
        refused(&host, &others, 8080).context("after restarts")?;
        held(&host, 8080)?;

        let one = Backend::start(&netd, "web1", "--service web")?;
        served(&host, &others, 8080)?;
        restarted(&netd)?;
        served(&host, &others, 8080).context("after restarts")?;
        let talk = netd_tests::backend::talk(&outsider, (host.v4, 8080))?;
        netd.netd("service drain web web1")?;
        served(&host, &others, 8080).context("nobody else is left than one that drains")?;
        drop(talk);
        one.remove()?;
        refused(&host, &others, 8080).context("the last one has gone")?;
        held(&host, 8080)?;
        let _two = Backend::start(&netd, "web2", "--service web")?;
        served(&host, &others, 8080)?;
        netd.netd("service rm web")?;
        host.listen((Ipv4Addr::UNSPECIFIED, 8080)).map(drop).context("it is free")
    });
}

#[test]
fn a_port_whose_endpoints_all_fail_is_refused_until_one_is_well() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        let check = "--health http://:80/health --health-interval 100ms --health-fall 1";
        netd.netd(&format!("service create web --network app -p 8080:7000 -p 8080:7000/udp {check}"))?;
        netd.netd(&format!(
            "service create own --network app --endpoint-mode dnsrr -p published=9090,target=7000,mode=host \
             -p published=9090,target=7000,protocol=udp,mode=host {check}"
        ))?;
        let web = Backend::start(&netd, "web1", "--service web")?;
        let own = Backend::start(&netd, "own1", "--service own")?;
        let others = [&outsider.place];
        for (backend, service, port) in [(&web, "web", 8080), (&own, "own", 9090)] {
            becomes(&netd, service, &backend.name, "ready")?;
            served(&host, &others, port)?;
            backend.switch("/fail")?;
            becomes(&netd, service, &backend.name, "failing")?;
            refused(&host, &others, port).with_context(|| format!("{service} is unwell"))?;
            held(&host, port)?;
            backend.switch("/mend")?;
            becomes(&netd, service, &backend.name, "ready")?;
            served(&host, &others, port)?;
        }
        Ok(())
    });
}

#[test]
fn every_node_refuses_a_port_while_no_node_answers() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let outsider = lab.host("outsider")?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        one.netd("network create app --driver overlay --ipv6")?;
        one.netd("service create web --network app -p 8080:7000 -p 8080:7000/udp")?;
        let others = [&outsider.place];
        let all = |deed: &dyn Fn(&Host) -> Result<()>| {
            cluster.everywhere(PATIENCE, "the port is as it should be", |node| deed(&node.host))
        };
        all(&|host| refused(host, &others, 8080).and_then(|()| held(host, 8080)))?;
        let web = Backend::start(two, "web1", "--service web")?;
        all(&|host| served(host, &others, 8080))?;
        web.remove()?;
        all(&|host| refused(host, &others, 8080).and_then(|()| held(host, 8080)))
    });
}
