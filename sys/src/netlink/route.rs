//! Routes, both families. What is listed is what address management must keep clear of, so every table and every kind
//! is in it, the kernel's own routes too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::attr::{address, attributes, u32_at};
use super::channel::Frame;
use super::{Op, Rtnl};
use crate::error::KernelError;

/// A route, to be made or as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNetwork,
    pub gateway: Option<IpAddr>,
    /// The link it leaves through; of several next hops, the first one's.
    pub link: Option<u32>,
    /// The gateway is reached through `link` although no subnet of the link holds it.
    pub onlink: bool,
    /// The source address preferred for what takes this route.
    pub source: Option<IpAddr>,
    pub metric: Option<u32>,
    pub table: u32,
    pub kind: Kind,
}

/// How the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub link: u32,
    /// It ends on this host: the address is one of its own.
    pub is_local: bool,
    /// Where the route says so; else it is the link's. What hosts on the way have said of late is left out of account: it
    /// is forgotten again, and anybody can say it.
    pub mtu: Option<u32>,
}

/// What becomes of a packet that takes a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unicast,
    /// Delivered here.
    Local,
    Broadcast,
    Multicast,
    /// Dropped, silently or not: blackhole, unreachable, prohibit.
    Refused,
    Other,
}

impl Route {
    /// A subnet that is directly on the link.
    pub fn on_link(destination: IpNetwork, link: u32) -> Self {
        Self {
            destination,
            gateway: None,
            link: Some(link),
            onlink: false,
            source: None,
            metric: None,
            table: MAIN,
            kind: Kind::Unicast,
        }
    }

    /// The default route through a gateway.
    pub fn default_via(gateway: IpAddr, link: u32) -> Self {
        let everything = match gateway {
            IpAddr::V4(_) => IpNetwork::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => IpNetwork::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let destination = IpNetwork::new(everything.ip(), 0).unwrap_or(everything);
        Self { gateway: Some(gateway), ..Self::on_link(destination, link) }
    }

    /// A way to an address of this host's, asked for under another one of them.
    pub fn to_own(address: IpAddr, source: IpAddr, link: u32) -> Self {
        Self {
            source: Some(source),
            table: LOCAL,
            kind: Kind::Local,
            ..Self::on_link(IpNetwork::from(address), link)
        }
    }

    /// Every destination there is.
    pub fn is_default(&self) -> bool {
        self.destination.prefix() == 0 && self.kind == Kind::Unicast
    }
}

pub fn add(route: &Route) -> Op<'static> {
    let message = RouteNetlinkMessage::NewRoute(message(route));
    Op::new("add the route", way(route), NLM_F_CREATE | NLM_F_EXCL, message)
}

/// Adds it, or takes the place of the one with the same destination, metric and table.
pub fn replace(route: &Route) -> Op<'static> {
    let message = RouteNetlinkMessage::NewRoute(message(route));
    Op::new("set the route", way(route), NLM_F_CREATE | NLM_F_REPLACE, message)
}

/// Adds it before those with the same destination, metric and table, which stay. For IPv4, whose routes have an order.
pub fn prepend(route: &Route) -> Op<'static> {
    Op::new("add the route", way(route), NLM_F_CREATE, RouteNetlinkMessage::NewRoute(message(route)))
}

pub fn delete(route: &Route) -> Op<'static> {
    Op::new("remove the route", way(route), 0, RouteNetlinkMessage::DelRoute(message(route)))
}

/// Of several with this destination and table, removes the one that the kernel has made by itself. For IPv6, where the
/// source that a route prefers does not tell it from another.
pub fn delete_kernels(route: &Route) -> Op<'static> {
    let mut message = message(route);
    message.header.protocol = RouteProtocol::Kernel;
    Op::new("remove the kernel's route", way(route), 0, RouteNetlinkMessage::DelRoute(message))
}

fn way(route: &Route) -> String {
    let mut text = format!("to {}", route.destination);
    if let Some(gateway) = route.gateway {
        text.push_str(&format!(" via {gateway}"));
    }
    if let Some(link) = route.link {
        text.push_str(&format!(" through link {link}"));
    }
    text
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: route.destination.ip().into(),
        destination_prefix_length: route.destination.prefix(),
        // A larger number goes into an attribute.
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: RouteProtocol::Static,
        scope: scope(route),
        kind: kind_to_kernel(route.kind),
        ..RouteHeader::default()
    };
    message.header.flags.set(RouteFlags::Onlink, route.onlink);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(RouteAddress::from(route.destination.network())));
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.link.map(RouteAttribute::Oif));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// IPv4 refuses a gateway on a route of link scope, and wants that scope where there is no gateway. A removal has to
/// repeat it.
fn scope(route: &Route) -> RouteScope {
    match (route.kind, route.gateway) {
        (Kind::Local, _) => RouteScope::Host,
        (Kind::Unicast | Kind::Broadcast, None) if route.destination.is_ipv4() => RouteScope::Link,
        _ => RouteScope::Universe,
    }
}

fn kind_to_kernel(kind: Kind) -> RouteType {
    match kind {
        Kind::Unicast => RouteType::Unicast,
        Kind::Local => RouteType::Local,
        Kind::Broadcast => RouteType::Broadcast,
        Kind::Multicast => RouteType::Multicast,
        Kind::Refused => RouteType::Unreachable,
        // To a removal, any kind; to an addition, an error.
        Kind::Other => RouteType::Unspec,
    }
}

fn kind_of_kernel(kind: RouteType) -> Kind {
    match kind {
        RouteType::Unicast => Kind::Unicast,
        RouteType::Local => Kind::Local,
        RouteType::Broadcast => Kind::Broadcast,
        RouteType::Multicast => Kind::Multicast,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Kind::Refused,
        _ => Kind::Other,
    }
}

impl Rtnl {
    /// Every route of the namespace, all tables, both families.
    pub fn routes(&mut self) -> Result<Vec<Route>, KernelError> {
        let mut found = Vec::new();
        // Asked for both at once, the kernel adds multicast routing and MPLS, which are no routes of ours.
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            found.append(&mut self.dump("routes", RouteNetlinkMessage::GetRoute(request), decode)?);
        }
        Ok(found)
    }

    /// Those to addresses of the host's own that are on this link.
    pub fn local_routes(&mut self, link: u32) -> Result<Vec<Route>, KernelError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.table = libc::RT_TABLE_LOCAL;
            request.header.kind = RouteType::Local;
            request.attributes.push(RouteAttribute::Oif(link));
            found.append(&mut self.dump("local routes", RouteNetlinkMessage::GetRoute(request), decode)?);
        }
        Ok(found)
    }

    /// The way to an address, rules and metrics considered; none where none leads.
    pub fn way_to(&mut self, destination: IpAddr) -> Result<Option<Way>, KernelError> {
        let mut request = RouteMessage::default();
        request.header.address_family = destination.into();
        request.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        request.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination)));
        let found =
            self.ask(&format!("the way to {destination}"), RouteNetlinkMessage::GetRoute(request), found_way);
        match found {
            Err(error) if error.errno().is_some_and(|errno| NO_WAY.contains(&errno)) => Ok(None),
            other => other,
        }
    }
}

fn found_way(frame: &Frame<'_>) -> Option<Way> {
    let (mut link, mut mtu, mut is_passing) = (None, None, false);
    for (kind, value) in attributes(frame.payload, ROUTE_HEADER) {
        match kind {
            RTA_OIF => link = u32_at(value, 0),
            RTA_METRICS => {
                let metric = attributes(value, 0).find(|(kind, _)| *kind == RTAX_MTU);
                mtu = metric.and_then(|(_, value)| u32_at(value, 0));
            }
            RTA_CACHEINFO => is_passing = u32_at(value, CACHE_EXPIRES).is_some_and(|left| left != 0),
            _ => {}
        }
    }
    let is_local = frame.payload.get(ROUTE_TYPE).is_some_and(|kind| *kind == libc::RTN_LOCAL);
    Some(Way { link: link?, is_local, mtu: mtu.filter(|_| !is_passing) })
}

pub(crate) fn decode(frame: &Frame<'_>) -> Option<Route> {
    let header = RouteHeader::parse(frame.payload).ok()?;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut destination = any;
    let mut route = Route {
        destination: IpNetwork::from(any),
        gateway: None,
        link: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        source: None,
        metric: None,
        table: header.table.into(),
        kind: kind_of_kernel(header.kind),
    };
    for (kind, value) in attributes(frame.payload, ROUTE_HEADER) {
        match kind {
            RTA_DST => destination = address(value)?,
            RTA_PRIORITY => route.metric = u32_at(value, 0),
            RTA_PREFSRC => route.source = address(value),
            RTA_TABLE => route.table = u32_at(value, 0)?,
            RTA_MULTIPATH if route.link.is_none() => {
                route.link = u32_at(value, 4);
                let first = usize::from(u16::from_ne_bytes(*value.first_chunk()?));
                attributes(value.get(..first)?, NEXT_HOP_HEADER)
                    .for_each(|(kind, value)| hop(&mut route, kind, value));
            }
            _ => hop(&mut route, kind, value),
        }
    }
    route.destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    Some(route)
}

fn hop(route: &mut Route, kind: u16, value: &[u8]) {
    match kind {
        RTA_OIF => route.link = u32_at(value, 0),
        RTA_GATEWAY => route.gateway = address(value),
        // An IPv4 route through an IPv6 gateway: the address follows its family.
        RTA_VIA => route.gateway = value.get(2..).and_then(address),
        _ => {}
    }
}

/// The table of the host's own addresses, which is looked into first.
pub const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
/// The table that packets take when no rule says otherwise.
pub const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

const ROUTE_HEADER: usize = 12;
/// Where its type stands in the header.
const ROUTE_TYPE: usize = 7;
const NEXT_HOP_HEADER: usize = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const CACHE_EXPIRES: usize = 8;
const NO_WAY: &[i32] =
    &[libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EAFNOSUPPORT];
