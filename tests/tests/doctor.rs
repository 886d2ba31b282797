//! `netd doctor`: nothing to say on a healthy host; each fault, made here, named with a remedy that works.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, Host, Lab, eventually, scenario};
use serde_json::Value;

/// The checks that are not in order.
fn faults(netd: &Daemon) -> Result<Vec<Value>> {
    let said = netd.try_netd("doctor --format json")?;
    let checks = said.json()?["checks"].as_array().cloned().context("a list of checks")?;
    let broken = checks.iter().any(|check| check["verdict"] == "failed");
    ensure!(said.code == i32::from(broken), "the exit code tells whether something is broken: {said:?}");
    Ok(checks.into_iter().filter(|check| check["verdict"] != "ok").collect())
}

fn healthy(netd: &Daemon) -> Result<()> {
    let faults = faults(netd)?;
    ensure!(faults.is_empty(), "there is nothing to find: {faults:#?}");
    Ok(())
}

/// The one fault there is, of that name and verdict, that tells all of this; gives its remedy.
fn fault(netd: &Daemon, name: &str, verdict: &str, fragments: &[&str]) -> Result<String> {
    let faults = faults(netd)?;
    let [fault] = &faults[..] else { anyhow::bail!("one fault {name}, not {faults:#?}") };
    let detail = fault["detail"].as_str().unwrap_or_default();
    let fits = fault["name"] == name && fault["verdict"] == verdict;
    ensure!(fits && fragments.iter().all(|fragment| detail.contains(fragment)), "{fragments:?}: {fault:#}");
    Ok(fault["remedy"].as_str().context("each fault has a remedy")?.to_owned())
}

/// A daemon with a network of both families and a sandbox with a published port on it.
fn town(host: &Host) -> Result<(Daemon, String)> {
    let netd = host.daemon()?;
    netd.netd("network create app --ipv6 --subnet 10.77.0.0/24")?;
    netd.create("web", "--network app -p 8080:80")?;
    let id = netd.inspect("network", "app")?["Id"].as_str().context("an id")?.to_owned();
    Ok((netd, format!("nd-{}", &id[..10])))
}

fn reaches(netd: &Daemon, to: Ipv4Addr) -> Result<bool> {
    Ok(netd.inside("web").run(&format!("ping -c 1 -W 1 {to}"))?.code == 0)
}

#[test]
fn a_healthy_host_gets_a_clean_bill() {
    scenario(|lab| {
        let (netd, _) = town(&lab.host("n1")?)?;
        healthy(&netd)?;
        let table = netd.netd("doctor")?.stdout;
        ensure!(table.lines().all(|line| line.starts_with("ok ")), "{table}");
        Ok(())
    });
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_named_and_its_remedy_works() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, bridge) = town(&host)?;
        ensure!(reaches(&netd, Lab::INTERNET)?, "the way out is open at first");
        for (table, chain) in [("inet fw", "forward"), ("ip filter", "FORWARD")] {
            host.sh(&format!("nft add table {table}"))?;
            host.sh(&format!(
                "nft add chain {table} {chain} {{ type filter hook forward priority 0 ; policy drop ; }}"
            ))?;
            ensure!(!reaches(&netd, Lab::INTERNET)?, "{table} drops");
            let place = format!("chain {chain} of table {table}");
            let remedy = fault(&netd, "firewall", "warning", &[&place, &format!("{bridge} (app)"), "netd0"])?;
            if chain == "forward" {
                remedy.split("; ").try_for_each(|command| host.sh(command).map(drop))?;
            } else {
                // What iptables would write, by nft.
                ensure!(remedy.contains("iptables -I FORWARD -i nd-+ -j ACCEPT"), "{remedy}");
                for (key, name) in
                    [("iifname", "nd-*"), ("oifname", "nd-*"), ("iifname", "netd0"), ("oifname", "netd0")]
                {
                    host.sh(&format!("nft insert rule {table} {chain} {key} {name} counter accept"))?;
                }
            }
            ensure!(reaches(&netd, Lab::INTERNET)?, "{table} lets it through now");
            healthy(&netd)?;
            host.sh(&format!("nft delete table {table}"))?;
        }
        host.sh("nft add table inet fw")?;
        host.sh("nft add chain inet fw input { type filter hook input priority 0 ; policy drop ; }")?;
        healthy(&netd)?;
        ensure!(
            netd.netd("doctor")?.stdout.contains("chain input of table inet fw"),
            "who is asked for ports"
        );
        host.sh("nft delete table inet fw").map(drop)
    });
}

#[test]
fn settings_that_were_turned_back_are_named() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, bridge) = town(&host)?;
        for (key, value, told) in [
            ("net/ipv4/ip_forward".to_owned(), "0", "net.ipv4.ip_forward is 0"),
            ("net/ipv6/conf/all/forwarding".to_owned(), "0", "net.ipv6.conf.all.forwarding is 0"),
            (format!("net/ipv4/conf/{bridge}/forwarding"), "0", "do not reach the outside"),
        ] {
            host.sh(&format!("sysctl -w {key}={value}"))?;
            let faults = faults(&netd)?;
            let fault = faults
                .iter()
                .find(|fault| fault["detail"].as_str().is_some_and(|detail| detail.contains(told)))
                .with_context(|| format!("{key}: {faults:#?}"))?;
            ensure!(fault["name"] == "sysctls" && fault["verdict"] == "failed", "{fault:#}");
            let remedy = fault["remedy"].as_str().context("a remedy")?;
            host.sh(remedy.split(';').next().context("a command")?)?;
            healthy(&netd)?;
        }
        Ok(())
    });
}

#[test]
fn a_bridge_that_somebody_changed_is_named_and_put_back() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, bridge) = town(&host)?;
        host.sh(&format!("ip link set {bridge} mtu 1400"))?;
        let remedy = fault(&netd, "devices", "warning", &["MTU 1400", "app"])?;
        host.sh(&remedy)?;
        healthy(&netd)?;
        host.sh(&format!("ip addr del 10.77.0.1/24 dev {bridge}"))?;
        ensure!(
            fault(&netd, "devices", "failed", &["10.77.0.1", "app"])?.contains("restart netd"),
            "the remedy"
        );
        netd.kill()?;
        netd.start()?;
        healthy(&netd)?;
        host.sh(&format!("ip link del {bridge}"))?;
        let gone = faults(&netd)?;
        ensure!(gone.iter().any(|fault| fault["detail"].to_string().contains("is gone")), "{gone:#?}");
        netd.kill()?;
        netd.start()?;
        healthy(&netd)
    });
}

#[test]
fn an_mtu_beyond_the_way_out_is_named() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create jumbo -o mtu=9000")?;
        let remedy = fault(&netd, "mtu", "warning", &["jumbo (9000)", "1500 of eth0"])?;
        ensure!(remedy.contains("mtu=1500"), "{remedy}");
        netd.netd("network rm jumbo")?;
        healthy(&netd)
    });
}

#[test]
fn a_route_into_a_network_of_ours_is_named() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, _) = town(&host)?;
        for route in ["10.77.0.128/25", "10.64.0.0/10"] {
            host.sh(&format!("ip route add {route} via 192.0.2.254"))?;
            fault(&netd, "subnets", "warning", &[route, "by eth0", "10.77.0.0/24", "app"])?;
            host.sh(&format!("ip route del {route}"))?;
            healthy(&netd)?;
        }
        Ok(())
    });
}

#[test]
fn a_published_port_that_somebody_else_has_is_named() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, _) = town(&host)?;
        netd.kill()?;
        netd.kill_dataplane()?;
        let taken = eventually(Duration::from_secs(5), "the port is free to be taken", || {
            host.listen(SocketAddr::from((host.v4, 8080)))
        })?;
        netd.start()?;
        let remedy = fault(&netd, "ports", "failed", &["tcp/0.0.0.0:8080", "web"])?;
        ensure!(remedy.contains("ss -lnp sport = :8080"), "{remedy}");
        drop(taken);
        netd.kill()?;
        netd.kill_dataplane()?;
        netd.start()?;
        healthy(&netd)
    });
}

#[test]
fn a_server_on_the_resolvers_own_address_is_named() {
    scenario(|lab| {
        let (netd, _) = town(&lab.host("n1")?)?;
        let web = netd.inside("web");
        let everywhere = web.udp((Ipv4Addr::UNSPECIFIED, 53))?;
        healthy(&netd)?;
        drop(everywhere);
        let there = web.udp((Ipv4Addr::new(127, 0, 0, 11), 53))?;
        let remedy = fault(&netd, "resolver-address", "warning", &["web", "127.0.0.11:53"])?;
        ensure!(remedy.contains("0.0.0.0:53"), "{remedy}");
        drop(there);
        healthy(&netd)
    });
}
