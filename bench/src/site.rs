//! The road that is measured: client -> node -> container, each a namespace, joined by veth pairs of MTU 1500, TCP by
//! cubic everywhere. Each node has its own pair of links to the same client, so that one contender's rules and
//! connection tracking slow no other down.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use netd_tests::{Host, Lab, Place};

/// A node that the client reaches over a link of its own.
pub(crate) struct Node {
    pub(crate) host: Host,
    /// Its address on that link: where published ports are.
    pub(crate) address: IpAddr,
    number: u8,
}

/// A container on a plain bridge of a node, routed to without NAT.
pub(crate) struct Container {
    pub(crate) host: Host,
    pub(crate) address: IpAddr,
    /// The node's address on the bridge.
    pub(crate) gateway: IpAddr,
}

impl Node {
    pub(crate) fn new(lab: &Lab, client: &Host, name: &str, number: u8) -> Result<Self> {
        let host = lab.host(name)?;
        let address = Ipv4Addr::new(10, 81, number, 1);
        let links = format!(
            "link add up{number} mtu 1500 type veth peer name up0 netns {name}
             addr add 10.81.{number}.2/24 dev up{number}
             link set up{number} up"
        );
        batch(client, &links)?;
        // A link-local address would still be changing when a daemon starts here.
        set(&host, "net/ipv6/conf/up0/disable_ipv6", "1")?;
        batch(&host, &format!("addr add {address}/24 dev up0\nlink set up0 up"))?;
        cubic(&host)?;
        set(&host, "net/ipv4/ip_forward", "1")?;
        Ok(Self { host, address: address.into(), number })
    }

    /// Its plain container; one a node.
    pub(crate) fn container(&self, lab: &Lab, client: &Host) -> Result<Container> {
        let number = self.number;
        let name = format!("{}-box", self.host.name);
        let host = lab.host(&name)?;
        let (address, gateway) = (Ipv4Addr::new(10, 82, number, 2), Ipv4Addr::new(10, 82, number, 1));
        let links = format!(
            "link add box0 type bridge
             addr add {gateway}/24 dev box0
             link set box0 up
             link add box1 mtu 1500 type veth peer name box netns {name}
             link set box1 master box0 up"
        );
        batch(&self.host, &links)?;
        batch(
            &host,
            &format!("addr add {address}/24 dev box\nlink set box up\nroute replace default via {gateway}"),
        )?;
        batch(client, &format!("route add 10.82.{number}.0/24 via {}", self.address))?;
        Ok(Container { host, address: address.into(), gateway: gateway.into() })
    }
}

impl Container {
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

/// The machine that makes the load.
pub(crate) fn client(lab: &Lab, name: &str) -> Result<Host> {
    let host = lab.host(name)?;
    // A connection a request uses up ports quicker than they come back.
    set(&host, "net/ipv4/ip_local_port_range", "10000 65000")?;
    set(&host, "net/ipv4/tcp_tw_reuse", "1")?;
    Ok(host)
}

/// TCP by cubic over every route that `place` has now. The machine may have another default, and may not let a
/// namespace choose for itself (`tcp_allowed_congestion_control`); a route is always free to.
pub(crate) fn cubic(place: &Place) -> Result<()> {
    let routes = place.look("ip -4 route show")?;
    // `linkdown` is told of a bridge without ports, and not understood.
    let routes = routes.lines().map(|route| route.trim().trim_end_matches(" linkdown"));
    let replaced: String = routes.map(|route| format!("route replace {route} congctl cubic\n")).collect();
    batch(place, &replaced)
}

pub(crate) fn set(place: &Place, key: &str, value: &str) -> Result<()> {
    place
        .enter(|| fs::write(format!("/proc/sys/{key}"), value))?
        .with_context(|| format!("set {key} to {value} in {}", place.name))
}

pub(crate) fn batch(place: &Place, commands: &str) -> Result<()> {
    place.run_with("ip -batch -", commands.as_bytes(), Duration::from_secs(10))?.success().map(drop)
}
