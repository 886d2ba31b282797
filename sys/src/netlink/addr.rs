//! Addresses of links, both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage, CacheInfo,
};
use rtnetlink::AddressMessageBuilder;

use super::attr::{address, attributes};
use super::channel::Frame;
use super::{Op, Rtnl};
use crate::error::KernelError;

/// An address on a link, with the length of its subnet's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addr {
    pub link: u32,
    pub address: IpNetwork,
}

/// Gives the link an address. IPv6 ones are usable at once: netd has leased the address, so the kernel's second of
/// asking whether somebody else has it would only delay every start.
pub fn add(addr: Addr) -> Op<'static> {
    let message = RouteNetlinkMessage::NewAddress(message(addr));
    Op::new("add the address", place(addr), NLM_F_CREATE | NLM_F_EXCL, message)
}

/// One more address of a link, which the kernel does not choose as the source of what the host sends while there is
/// another (it is deprecated, in the words of RFC 4862).
pub fn add_alias(addr: Addr) -> Op<'static> {
    let mut message = message(addr);
    if addr.address.is_ipv6() {
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    }
    Op::new(
        "add the address",
        place(addr),
        NLM_F_CREATE | NLM_F_EXCL,
        RouteNetlinkMessage::NewAddress(message),
    )
}

/// The same where the address may be there already.
pub fn replace(addr: Addr) -> Op<'static> {
    let message = RouteNetlinkMessage::NewAddress(message(addr));
    Op::new("set the address", place(addr), NLM_F_CREATE | NLM_F_REPLACE, message)
}

pub fn delete(addr: Addr) -> Op<'static> {
    Op::new("remove the address", place(addr), 0, RouteNetlinkMessage::DelAddress(message(addr)))
}

fn place(addr: Addr) -> String {
    format!("{} of link {}", addr.address, addr.link)
}

fn message(addr: Addr) -> AddressMessage {
    let prefix = addr.address.prefix();
    let mut message = match addr.address.ip() {
        IpAddr::V4(ip) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(addr.link).address(ip, prefix).build()
        }
        IpAddr::V6(ip) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(addr.link).address(ip, prefix).build()
        }
    };
    if addr.address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

impl Rtnl {
    /// Every address of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Addr>, KernelError> {
        self.dump("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()), decode)
    }
}

pub(crate) fn decode(frame: &Frame<'_>) -> Option<Addr> {
    let header = AddressHeader::parse(frame.payload).ok()?;
    let (mut local, mut remote) = (None, None);
    for (kind, value) in attributes(frame.payload, ADDRESS_HEADER) {
        match kind {
            IFA_ADDRESS => remote = address(value),
            IFA_LOCAL => local = address(value),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 sends IFA_LOCAL only there.
    let address = IpNetwork::new(local.or(remote)?, header.prefix_len).ok()?;
    Some(Addr { link: header.index, address })
}

const ADDRESS_HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
