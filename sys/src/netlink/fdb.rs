//! Forwarding entries: by which port of a bridge, and to which other host, frames for a MAC address leave. Set by us for
//! good; what the kernel has learned is listed too.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::attr::{address, attributes, mac_address};
use super::channel::Frame;
use super::{Op, Rtnl};
use crate::error::KernelError;

/// An entry as the kernel has it. Who keeps it tells what it says: the bridge by which port a frame leaves, a tunnel
/// device for which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub link: u32,
    pub mac: [u8; 6],
    /// None: it is the bridge's.
    pub remote: Option<IpAddr>,
    /// Set by hand. Neither is an entry of the port's own address.
    pub fixed: bool,
}

/// Frames for `mac` leave by the tunnel `link`, a port of a bridge, for the host `remote`.
pub fn remote(link: u32, mac: [u8; 6], remote: IpAddr) -> Op<'static> {
    let mut message = message(link, mac, NeighbourFlags::Controller | NeighbourFlags::Own);
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(remote)));
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Op::new("forward to another host", place(link, mac), flags, RouteNetlinkMessage::NewNeighbour(message))
}

/// The same on a tunnel that is no port of a bridge.
pub fn tunnel(link: u32, mac: [u8; 6], remote: IpAddr) -> Op<'static> {
    let mut message = message(link, mac, NeighbourFlags::Own);
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(remote)));
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Op::new("forward to another host", place(link, mac), flags, RouteNetlinkMessage::NewNeighbour(message))
}

/// No longer. In two steps, since the kernel leaves the tunnel's entry when the bridge's is missing.
pub fn no_remote(link: u32, mac: [u8; 6]) -> Op<'static> {
    let at = |flags| RouteNetlinkMessage::DelNeighbour(message(link, mac, flags));
    Op::new("stop forwarding to another host", place(link, mac), 0, at(NeighbourFlags::Controller))
        .then(0, at(NeighbourFlags::Own))
        .forgiving(GONE)
}

/// Frames for `mac` leave by `link`, a port of a bridge; on a locked port, only frames from it come in.
pub fn local(link: u32, mac: [u8; 6]) -> Op<'static> {
    let message = RouteNetlinkMessage::NewNeighbour(message(link, mac, NeighbourFlags::Controller));
    Op::new("forward to the port", place(link, mac), NLM_F_CREATE | NLM_F_REPLACE, message)
}

fn message(link: u32, mac: [u8; 6], flags: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader {
        family: AddressFamily::Bridge,
        ifindex: link,
        // Permanent would mean an address of the host itself. The bridge wants the one, a tunnel the other.
        state: NeighbourState::Other(NOARP | REACHABLE),
        flags,
        ..NeighbourHeader::default()
    };
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    message
}

fn place(link: u32, [a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} by link {link}")
}

impl Rtnl {
    /// The entries of one port, the bridge's and its own.
    pub fn forwarding(&mut self, link: u32) -> Result<Vec<Entry>, KernelError> {
        let mut request = NeighbourMessage::default();
        (request.header.family, request.header.ifindex) = (AddressFamily::Bridge, link);
        self.dump("forwarding entries", RouteNetlinkMessage::GetNeighbour(request), decode)
    }
}

pub(crate) fn decode(frame: &Frame<'_>) -> Option<Entry> {
    let header = NeighbourHeader::parse(frame.payload).ok()?;
    let (mut mac, mut remote) = (None, None);
    for (kind, value) in attributes(frame.payload, NEIGHBOUR_HEADER) {
        match kind {
            NDA_DST => remote = address(value),
            NDA_LLADDR => mac = mac_address(value),
            _ => {}
        }
    }
    let state = u16::from(header.state);
    let fixed = state & NOARP != 0 || remote.is_some() && state & PERMANENT != 0;
    Some(Entry { link: header.ifindex, mac: mac?, remote, fixed })
}

const GONE: &[i32] = &[libc::ENOENT];

const NOARP: u16 = libc::NUD_NOARP;
const REACHABLE: u16 = libc::NUD_REACHABLE;
const PERMANENT: u16 = libc::NUD_PERMANENT;
const NEIGHBOUR_HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
