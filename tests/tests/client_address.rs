//! Whom a program in a sandbox sees when somebody comes through a published port with `client-address = "client"`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{self, Backend};
use netd_tests::load::{Answer, talk};
use netd_tests::{Daemon, Host, Lab, Place, Setup, eventually, scenario, traffic};

const PATIENCE: Duration = Duration::from_secs(10);

fn seen() -> Setup {
    Setup { config: "[publish]\nclient-address = \"client\"\n".into(), ..Setup::default() }
}

/// One datagram from `from` and its answer, both on one socket.
fn ask_datagram(from: &Place, local: IpAddr, to: SocketAddr) -> Result<(Answer, SocketAddr)> {
    let asked = from.enter(|| {
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect(to)?;
        let answer = talk::datagram(&socket, 3, 900, PATIENCE)?;
        Ok::<_, anyhow::Error>((answer, socket.local_addr()?))
    })?;
    asked.with_context(|| format!("ask {to}/udp from {}", from.name))
}

/// The client of a connection from `from`, as the program saw it, and as it was.
fn connection(from: &Place, to: SocketAddr) -> Result<(SocketAddr, SocketAddr)> {
    let mut talk = backend::talk(from, to)?;
    let local = talk.local()?;
    Ok((talk.say(5, 200_000)?.client, local))
}

fn published(netd: &Daemon) -> Result<Backend> {
    netd.netd("network create app --ipv6")?;
    Backend::start(netd, "web", "--network app -p 8080:7000 -p 8080:7000/udp")
}

#[test]
fn a_program_sees_clients_of_other_hosts() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon_with(seen())?;
        let _web = published(&netd)?;
        let ways: [(IpAddr, IpAddr); 2] =
            [(host.v4.into(), outsider.v4.into()), (host.v6.into(), outsider.v6.into())];
        for (to, from) in ways {
            let to = SocketAddr::new(to, 8080);
            for _ in 0..3 {
                let (client, was) = connection(&outsider, to)?;
                ensure!(client == was, "{client} was seen, {was} it was");
            }
            let (answer, was) = ask_datagram(&outsider, from, to)?;
            ensure!(answer.client == was, "{} was seen, {was} it was", answer.client);
        }
        // Both legs carry much, whichever way.
        netd_tests::load::Steady::start(&outsider, netd_tests::load::Offer::tcp((host.v4, 8080).into(), 50))?
            .finish()
            .map(drop)
    });
}

#[test]
fn neighbours_and_the_host_itself_are_served_from_the_host() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon_with(seen())?;
        let web = published(&netd)?;
        netd.netd("network create other --ipv6")?;
        let neighbour = netd.create("neighbour", "--network app")?;
        let stranger = netd.create("stranger", "--network other")?;
        let gateway: Ipv4Addr = netd.inspect("network", "app")?["IPAM"]["Config"][0]["Gateway"]
            .as_str()
            .context("a gateway")?
            .parse()?;
        for to in [SocketAddr::from((host.v4, 8080)), SocketAddr::from((host.v6, 8080))] {
            for from in [&neighbour, &web.place] {
                let (client, was) = connection(from, to)?;
                ensure!(client.ip() != was.ip(), "{} would answer its neighbour straight", from.name);
            }
            let (client, was) = connection(&stranger, to)?;
            ensure!(client == was, "of another network: {client} was seen, {was} it was");
            let (client, was) = connection(&host, to)?;
            ensure!(client.ip() == was.ip(), "the host under its own address: {client}, {was}");
        }
        for to in [SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), (Ipv6Addr::LOCALHOST, 8080).into()] {
            let (client, _) = connection(&host, to)?;
            ensure!(!client.ip().is_loopback(), "{client}");
            let (answer, _) = ask_datagram(&host, to.ip(), to)?;
            ensure!(!answer.client.ip().is_loopback(), "{}", answer.client);
        }
        let (client, _) = connection(&host, (gateway, 8080).into())?;
        ensure!(client.ip() == gateway, "{client}");
        Ok(())
    });
}

#[test]
fn strict_checks_of_sources_and_bridged_packets_in_the_firewall_change_nothing() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon_with(seen())?;
        let _web = published(&netd)?;
        let settings = [
            "net.ipv4.conf.all.rp_filter=1",
            "net.ipv4.conf.all.src_valid_mark=1",
            "net.bridge.bridge-nf-call-iptables=1",
            "net.bridge.bridge-nf-call-ip6tables=1",
        ];
        for setting in settings {
            host.run(&format!("sysctl -qw {setting}"))?.success()?;
            is_seen(&host, &outsider).with_context(|| setting.to_owned())?;
        }
        // As Docker does to what leaves a network of its own.
        for line in [
            "nft add table ip other",
            "nft add chain ip other post { type nat hook postrouting priority 100 ; }",
            &format!("nft add rule ip other post ip saddr {} masquerade", outsider.v4),
        ] {
            host.run(line)?.success()?;
        }
        let (client, was) = connection(&outsider, (host.v4, 8080).into())?;
        ensure!(client.ip() != was.ip(), "somebody else's masquerade goes on working: {client}");
        host.run("nft delete table ip other")?.success().map(drop)
    });
}

fn is_seen(host: &Host, outsider: &Host) -> Result<()> {
    for to in [SocketAddr::from((host.v4, 8080)), SocketAddr::from((host.v6, 8080))] {
        let (client, was) = connection(outsider, to)?;
        ensure!(client == was, "{client} was seen, {was} it was");
    }
    Ok(())
}

/// What stands in the kernel for it.
fn traces(host: &Host) -> Result<Vec<String>> {
    let looks = [
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
    ];
    let mut traces = Vec::new();
    for look in looks {
        let all = host.look(look)?;
        let is_trace = |line: &&str| line.contains("28261") || line.contains("transparent");
        traces.extend(all.lines().filter(is_trace).map(str::to_owned));
    }
    Ok(traces)
}

#[test]
fn nothing_stands_in_the_kernel_unless_a_port_wants_it_and_what_is_lost_comes_back() {
    scenario(|lab: &Lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon_with(seen())?;
        ensure!(traces(&host)?.is_empty(), "{:?}", traces(&host)?);
        let _web = published(&netd)?;
        is_seen(&host, &outsider)?;
        let before = traces(&host)?;
        ensure!(before.len() >= 5, "{before:?}");

        for line in ["ip rule del pref 901", "ip -6 rule del pref 900", "nft flush ruleset"] {
            host.run(line)?.success()?;
        }
        eventually(PATIENCE, "it is put back", || {
            ensure!(traces(&host)? == before, "{:?}", traces(&host)?);
            Ok(())
        })?;
        is_seen(&host, &outsider)?;

        netd.kill()?;
        for line in ["ip rule del pref 900", "ip rule del pref 901", "ip route flush table 28261"] {
            host.run(line)?.success()?;
        }
        netd.start()?;
        ensure!(traces(&host)? == before, "{:?}", traces(&host)?);
        is_seen(&host, &outsider)?;

        netd.netd("down --purge")?;
        eventually(PATIENCE, "it is gone", || {
            ensure!(traces(&host)?.is_empty(), "{:?}", traces(&host)?);
            Ok(())
        })
    });
}

#[test]
fn a_port_published_before_the_setting_stays_as_it_was() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = netd.create("web", "-p 8080:7000")?;
        traffic::serve(web.listen((Ipv6Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)?;
        ensure!(traces(&host)?.is_empty(), "{:?}", traces(&host)?);
        Ok(())
    });
}
