//! VXLAN: the device that carries frames of one network between hosts in UDP. What we make learns nothing and floods
//! nothing: frames go where `fdb` entries say, and nowhere else.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::VxlanDf;
use rtnetlink::LinkVxlan;

use super::Op;
use super::attr::{address, attributes, u32_at};

/// A tunnel device to be made. It is down, and a port of `master` if one is given.
#[derive(Clone, Debug)]
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub tunnel: Tunnel,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub group: u32,
    pub master: Option<u32>,
    /// What does not fit a link on the way is lost, not cut up: the way's MTU shows.
    pub unfragmented: bool,
}

/// What makes a tunnel that tunnel: none of it can be changed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The network's number on the wire, 24 bits.
    pub vni: u32,
    /// The source of everything that is sent, always the same. Its family is that of the tunnel.
    pub local: IpAddr,
    pub port: u16,
}

/// Over IPv4 without UDP checksums, as RFC 7348 wants it: the inner packets have their own. Over IPv6 with them on the
/// way out, and required on the way in.
pub fn vxlan(spec: &Vxlan<'_>) -> Op<'static> {
    let Tunnel { vni, local, port } = spec.tunnel;
    let mut build = LinkVxlan::new(spec.name, vni)
        .port(port)
        .learning(false)
        .ttl(HOPS)
        .udp_csum(local.is_ipv6())
        .link_group(spec.group)
        .mtu(spec.mtu);
    build = match local {
        IpAddr::V4(local) => build.local(local),
        IpAddr::V6(local) => build.local6(local).udp_zero_csum6_tx(false).udp_zero_csum6_rx(false),
    };
    if let Some(mac) = spec.mac {
        build = build.address(mac.to_vec());
    }
    if let Some(master) = spec.master {
        build = build.controller(master);
    }
    if spec.unfragmented {
        build = build.df(VxlanDf::Set);
    }
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Op::new("create the VXLAN device", spec.name, flags, RouteNetlinkMessage::NewLink(build.build()))
}

/// From the description of a link's kind.
pub(super) fn decode(data: &[u8]) -> Option<Tunnel> {
    let (mut vni, mut local, mut port) = (None, None, None);
    for (kind, value) in attributes(data, 0) {
        match kind {
            IFLA_VXLAN_ID => vni = u32_at(value, 0),
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => local = address(value),
            IFLA_VXLAN_PORT => port = value.try_into().ok().map(u16::from_be_bytes),
            _ => {}
        }
    }
    Some(Tunnel { vni: vni?, local: local?, port: port? })
}

/// Not that of the packet inside, which its sender could choose so that it does not arrive.
const HOPS: u8 = 64;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
