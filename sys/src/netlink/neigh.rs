//! Neighbours: which MAC address answers for an IP address on a link, set by us for good.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};

use super::attr::{address, attributes, mac_address};
use super::channel::Frame;
use super::{Op, Rtnl};
use crate::error::KernelError;

/// An entry of a link's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub link: u32,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// Set by hand: it is neither asked for nor forgotten. What `add` and `replace` make is always so.
    pub permanent: bool,
}

pub fn add(neighbour: &Neighbour) -> Op<'static> {
    let message = RouteNetlinkMessage::NewNeighbour(message(neighbour));
    Op::new("add the neighbour", place(neighbour), NLM_F_CREATE | NLM_F_EXCL, message)
}

pub fn replace(neighbour: &Neighbour) -> Op<'static> {
    let message = RouteNetlinkMessage::NewNeighbour(message(neighbour));
    Op::new("set the neighbour", place(neighbour), NLM_F_CREATE | NLM_F_REPLACE, message)
}

pub fn delete(neighbour: &Neighbour) -> Op<'static> {
    Op::new(
        "remove the neighbour",
        place(neighbour),
        0,
        RouteNetlinkMessage::DelNeighbour(message(neighbour)),
    )
}

fn place(neighbour: &Neighbour) -> String {
    format!("{} of link {}", neighbour.address, neighbour.link)
}

fn message(neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader {
        family: neighbour.address.into(),
        ifindex: neighbour.link,
        state: NeighbourState::Permanent,
        ..NeighbourHeader::default()
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(neighbour.address)),
        NeighbourAttribute::LinkLayerAddress(neighbour.mac.to_vec()),
    ];
    message
}

impl Rtnl {
    /// The neighbours whose MAC address is known.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, KernelError> {
        self.dump("neighbours", RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), decode)
    }

    /// Those of one link.
    pub fn neighbours_of(&mut self, link: u32) -> Result<Vec<Neighbour>, KernelError> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(link));
        self.dump("neighbours", RouteNetlinkMessage::GetNeighbour(request), decode)
    }
}

pub(crate) fn decode(frame: &Frame<'_>) -> Option<Neighbour> {
    let header = NeighbourHeader::parse(frame.payload).ok()?;
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(frame.payload, NEIGHBOUR_HEADER) {
        match kind {
            NDA_DST => ip = address(value),
            NDA_LLADDR => mac = mac_address(value),
            _ => {}
        }
    }
    let permanent = header.state == NeighbourState::Permanent;
    Some(Neighbour { link: header.ifindex, address: ip?, mac: mac?, permanent })
}

const NEIGHBOUR_HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
