//! What programs of the host itself, outside of any sandbox, get from services at their own addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, echoes, echoes_unconnected, vip};
use netd_tests::load::Talk;
use netd_tests::refusal::{of_tcp as refused, of_udp as refused_udp};
use netd_tests::{Backend, Daemon, Host, Lab, Setup, scenario};

const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon that leads clients to services by BPF (`sk_lookup`), or without it (`tproxy`).
fn daemon_by(host: &Host, way: &str) -> Result<Daemon> {
    if way == "tproxy" {
        host.filter_bridges(false)?;
    }
    host.daemon_with(Setup { config: format!("[publish]\nsteer = \"{way}\"\n"), ..Setup::default() })
}

fn vips(netd: &Daemon, service: &str) -> Result<[IpAddr; 2]> {
    Ok([vip::<Ipv4Addr>(netd, service)?.into(), vip::<Ipv6Addr>(netd, service)?.into()])
}

fn gateways(netd: &Daemon, network: &str) -> Result<Vec<IpAddr>> {
    let shown = netd.inspect("network", network)?;
    let subnets = shown["IPAM"]["Config"].as_array().context("subnets")?.iter();
    subnets.map(|subnet| Ok(subnet["Gateway"].as_str().context("a gateway")?.parse()?)).collect()
}

/// The bridge that has this address.
fn device_of(host: &Host, address: IpAddr) -> Result<String> {
    let all = host.look("ip -o addr")?;
    let line = all.lines().find(|line| line.contains(&format!(" {address}/"))).context("it is there")?;
    Ok(line.split_whitespace().nth(1).context("a device")?.to_owned())
}

/// By connections, and by datagrams of sockets of both kinds.
fn is_served(host: &Host, to: SocketAddr, by: &str) -> Result<()> {
    ensure!(ask(host, to)?.by == by, "{to} is {by}");
    echoes(host, to)?;
    echoes_unconnected(host, to)
}

#[test]
fn a_program_of_the_host_is_answered_at_every_port_and_by_every_socket() {
    scenario(|lab| every_port(lab, "sk_lookup"));
}

#[test]
fn a_program_of_the_host_is_answered_without_bpf() {
    scenario(|lab| every_port(lab, "tproxy"));
}

fn every_port(lab: &Lab, way: &str) -> Result<()> {
    let host = lab.host("n1")?;
    let netd = daemon_by(&host, way)?;
    for (network, flags) in [("app", ""), ("inner", "--internal")] {
        netd.netd(&format!("network create {network} --ipv6 {flags}"))?;
        let (any, some) = (format!("any-{network}"), format!("some-{network}"));
        netd.netd(&format!("service create {any} --network {network}"))?;
        netd.netd(&format!("service create {some} --network {network} --port 53:7000 --port 53:7000/udp"))?;
        for vip in vips(&netd, &any)?.into_iter().chain(vips(&netd, &some)?) {
            refused(&host, (vip, 53))?;
            refused_udp(&host, (vip, 53)).context("nobody answers for it yet")?;
        }
        let _any = Backend::start(&netd, &format!("{any}1"), &format!("--service {any}"))?;
        let _some = Backend::start(&netd, &format!("{some}1"), &format!("--service {some}"))?;
        for vip in vips(&netd, &any)? {
            is_served(&host, (vip, 7000).into(), &format!("{any}1")).context("any port")?;
        }
        for vip in vips(&netd, &some)? {
            is_served(&host, (vip, 53).into(), &format!("{some}1")).context("a port that is declared")?;
            refused(&host, (vip, 7000))?;
            refused_udp(&host, (vip, 7000))?;
        }
        for vip in vips(&netd, &some)? {
            let bound =
                host.enter(|| Talk::open((vip, 53).into(), Some((vip, 0).into()), PATIENCE)?.say(3, 900))?;
            ensure!(bound.context("from the service's own address")?.by == format!("{some}1"));
        }
        for (vip, gateway) in vips(&netd, &any)?.into_iter().zip(gateways(&netd, network)?) {
            let client = host.connect((vip, 7000))?.local_addr()?;
            ensure!(client.ip() == gateway, "{vip} is asked from {client}");
        }
        netd.netd(&format!("sandbox rm -f {any}1 {some}1"))?;
        for vip in vips(&netd, &any)?.into_iter().chain(vips(&netd, &some)?) {
            refused_udp(&host, (vip, 53)).context("nobody answers for it any more")?;
        }
        netd.netd(&format!("service rm {any}"))?;
    }
    Ok(())
}

#[test]
fn what_was_done_to_addresses_and_routes_is_mended_by_the_next_start() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.netd("service create web --network app")?;
        let _web = Backend::start(&netd, "web1", "--service web")?;
        let vips = vips(&netd, "web")?;
        let gateways = gateways(&netd, "app")?;
        let bridge = device_of(&host, vips[0])?;
        let addresses = || vips.iter().zip(["32", "128"]).map(|(vip, prefix)| format!("{vip}/{prefix}"));
        let each = |deed: &str| -> Result<()> {
            for address in addresses() {
                host.sh(&deed.replace("ADDRESS", &address).replace("BRIDGE", &bridge))?;
            }
            Ok(())
        };
        let mended = |what: &str| -> Result<()> {
            netd.start()?;
            let served = |vip: &IpAddr| is_served(&host, (*vip, 7000).into(), "web1");
            vips.iter().try_for_each(served).with_context(|| format!("after {what}"))
        };
        let [away, back] = ["ip addr del ADDRESS dev BRIDGE", "ip addr add ADDRESS dev BRIDGE nodad"];
        let route_away = "ip route del local ADDRESS dev BRIDGE table local proto static";
        let faults: [(&str, &[&str]); 4] = [
            ("nothing", &[]),
            ("routes were lost", &[route_away]),
            ("addresses were lost", &[away]),
            ("addresses came again", &[away, back]),
        ];
        for (what, deeds) in faults {
            netd.kill()?;
            deeds.iter().try_for_each(|deed| each(deed)).with_context(|| what.to_owned())?;
            mended(what)?;
        }
        for gateway in &gateways {
            let all = host.look("ip -o addr")?;
            let own = all.split_whitespace().find(|word| word.starts_with(&format!("{gateway}/")));
            host.sh(&format!("ip addr del {} dev {bridge}", own.context("the gateway's address")?))?;
        }
        for vip in vips {
            let way = host.look(&format!("ip route get {vip}"))?;
            ensure!(way.starts_with("local "), "{vip} is no less the host's own: {way}");
        }
        netd.netd("service create more --network app")?;
        netd.kill()?;
        mended("the gateway's addresses were lost")?;

        // What no record knows: a route whose address and service went while nobody looked.
        netd.kill()?;
        let stray = match vips[0] {
            IpAddr::V4(vip) => Ipv4Addr::from(u32::from(vip) ^ 1),
            IpAddr::V6(_) => unreachable!("the first is IPv4"),
        };
        let from = format!("src {} proto static scope host", gateways[0]);
        host.sh(&format!("ip route add local {stray} dev {bridge} table local {from}"))?;
        mended("another's route was left")?;
        ensure!(!host.look("ip route show table all")?.contains(&format!("local {stray} ")));

        each(away)?;
        netd.netd("service rm web")?;
        let left = host.look("ip route show table all")?;
        ensure!(!vips.iter().any(|vip| left.contains(&format!("local {vip} "))), "{left}");
        Ok(())
    });
}
