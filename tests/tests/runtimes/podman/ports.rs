//! Published ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use netd_tests::runtimes::{Podman, Site, conflist};
use netd_tests::{Host, Place, scenario, traffic};
use serde_json::json;

use super::SETTINGS;

/// Echoes of both protocols at a container's port, in both families.
fn serve(inside: &Place, port: u16) -> Result<()> {
    traffic::serve(inside.listen((Ipv6Addr::UNSPECIFIED, port))?);
    traffic::echo(inside.udp((Ipv6Addr::UNSPECIFIED, port))?);
    Ok(())
}

fn tcp(from: &Place, to: impl Into<IpAddr>, port: u16) -> Result<()> {
    let to = SocketAddr::new(to.into(), port);
    traffic::exchange(from, to, port.into(), 10_000, 100_000)
        .with_context(|| format!("from {} to {to}", from.name))
}

fn udp(from: &Place, to: impl Into<IpAddr>, port: u16) -> Result<()> {
    let to = SocketAddr::new(to.into(), port);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    traffic::ping(&from.udp((any, 0))?, to, port.into(), 1200)
        .with_context(|| format!("from {} to {to}", from.name))
}

/// From another host and from this one, in both families, to every kind of address.
fn from_everywhere(outsider: &Host, host: &Host, ask: impl Fn(&Place, IpAddr) -> Result<()>) -> Result<()> {
    for address in [IpAddr::from(host.v4), host.v6.into()] {
        ask(outsider, address)?;
        ask(host, address)?;
    }
    ask(host, Ipv4Addr::LOCALHOST.into())?;
    ask(host, Ipv6Addr::LOCALHOST.into())
}

#[test]
fn ports_answer_in_both_protocols_and_families_from_everywhere() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({ "ipv6": true }))?;
        podman.sh("run -d --name web --network shop -p 8080:80 -p 5353:80/udp -p 9000-9003:7000-7003 busybox sleep 1000")?;
        let inside = podman.inside("web")?;
        serve(&inside, 80)?;
        from_everywhere(&outsider, &site.host, |from, to| tcp(from, to, 8080))?;
        from_everywhere(&outsider, &site.host, |from, to| udp(from, to, 5353))?;
        for port in 0..4 {
            serve(&inside, 7000 + port)?;
            tcp(&outsider, site.host.v4, 9000 + port)?;
        }
        // By way of the host back to itself.
        tcp(&inside, site.host.v4, 8080)?;
        let listed = podman.sh("port web")?;
        ensure!(listed.stdout.contains("80/udp -> 0.0.0.0:5353"), "{listed:?}");
        podman.sh("rm -f -t 0 web")?;
        ensure!(outsider.connect((site.host.v4, 8080)).is_err(), "the port is closed");
        podman.left_nothing()
    });
}

#[test]
fn a_thousand_ports_of_one_container_answer() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        podman.sh("run -d --name web --network shop -p 20000-20999:20000-20999 busybox sleep 1000")?;
        let inside = podman.inside("web")?;
        for port in [20_000, 20_500, 20_999] {
            serve(&inside, port)?;
            tcp(&outsider, site.host.v4, port)?;
            tcp(&site.host, Ipv6Addr::LOCALHOST, port)?;
        }
        podman.sh("rm -f -t 0 web")?;
        ensure!(outsider.connect((site.host.v4, 20_500)).is_err(), "the ports are closed");
        podman.left_nothing()
    });
}

#[test]
fn a_port_on_one_address_is_on_no_other() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        let own = site.host.v4;
        podman.sh(&format!(
            "run -d --name web --network shop -p 127.0.0.1:8080:80 -p {own}:8081:80 -p [::1]:8082:80 -p 127.0.0.1:8080:80/udp \
             busybox sleep 1000"
        ))?;
        serve(&podman.inside("web")?, 80)?;
        tcp(&site.host, Ipv4Addr::LOCALHOST, 8080)?;
        udp(&site.host, Ipv4Addr::LOCALHOST, 8080)?;
        tcp(&site.host, Ipv6Addr::LOCALHOST, 8082)?;
        tcp(&outsider, own, 8081)?;
        for (port, address) in [
            (8080, IpAddr::from(own)),
            (8081, Ipv4Addr::LOCALHOST.into()),
            (8081, site.host.v6.into()),
            (8082, Ipv4Addr::LOCALHOST.into()),
        ] {
            ensure!(site.host.connect((address, port)).is_err(), "{address}:{port} answers");
        }
        podman.sh("rm -f -t 0 web")?;
        podman.left_nothing()
    });
}

#[test]
fn a_port_that_is_taken_names_its_owner_and_leaves_nothing() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        podman.sh("run -d --name web --network shop -p 8080:80 busybox sleep 1000")?;
        serve(&podman.inside("web")?, 80)?;
        let clash = podman.run("run -d --name late --network shop -p 8080:80 busybox sleep 1000")?;
        let clash = clash.refused(126, "8080")?;
        let id = &podman.inspect("web")?["Id"].as_str().unwrap_or_default()[..12].to_owned();
        ensure!(clash.stderr.contains(id), "which container has it? {clash:?}");
        let foreign = site.host.listen((Ipv4Addr::UNSPECIFIED, 8081))?;
        let clash = podman.run("run -d --name later --network shop -p 8081:80 busybox sleep 1000")?;
        clash.refused(126, "8081")?;
        drop(foreign);
        tcp(&site.host, site.host.v4, 8080)?;
        podman.sh("rm -f -t 0 web")?;
        podman.sh("start late later")?;
        podman.sh("rm -f -t 0 late later")?;
        podman.left_nothing()
    });
}
