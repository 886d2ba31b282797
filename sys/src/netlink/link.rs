//! Links: bridges and veth pairs made, set, found and removed. What to know of the kernel: the far end of a veth pair
//! is best made where it belongs (moving or renaming costs 16 ms), it cannot be made up, and removing a link takes
//! 40 ms of waiting, so links are taken off their bridge at once and removed by group in the background.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkHeader, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::attr::{attributes, mac_address, text, u32_at};
use super::channel::Frame;
use super::vxlan::{self, Tunnel};
use super::{Op, Rtnl};
use crate::error::KernelError;

/// A bridge to be made. It is up at once, forwards at once (no spanning tree) and floods multicast, so that neighbour
/// discovery never depends on a querier.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    pub name: &'a str,
    /// Given, it stays; otherwise the kernel takes the lowest of the ports, which changes as they come and go.
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub group: u32,
}

pub fn bridge(spec: &Bridge<'_>) -> Op<'static> {
    let mut build = LinkBridge::new(spec.name)
        .link_group(spec.group)
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .mcast_snooping(false);
    if let Some(mac) = spec.mac {
        build = build.address(mac.to_vec());
    }
    if let Some(mtu) = spec.mtu {
        build = build.mtu(mtu);
    }
    Op::new("create the bridge", spec.name, CREATE, RouteNetlinkMessage::NewLink(build.build()))
}

/// A veth pair to be made: this end here and in its bridge, without addresses; the far end in another namespace,
/// still down.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub master: Option<u32>,
    pub group: u32,
    pub mtu: Option<u32>,
    /// The largest packet handed on whole (GSO and GRO, both families). Beyond 64 KiB only where every way out takes
    /// packets of that size, else the kernel cuts them up in software.
    pub gso: Option<u32>,
    pub peer: Peer<'a>,
}

/// The far end of a pair.
#[derive(Clone, Debug)]
pub struct Peer<'a> {
    pub netns: BorrowedFd<'a>,
    pub name: &'a str,
    /// Chosen, what follows in that namespace need not look it up.
    pub index: Option<u32>,
    pub mac: Option<[u8; 6]>,
}

/// One request for both ends, the far one in its namespace from the start; one more keeps the kernel from giving the
/// near one a link-local address that nobody uses, and the host two routes for each. Both ends are down: bring the near
/// one up last. Up before the far one, it counts as a port without a carrier, and its bridge hears of the carrier only
/// some time after; what is sent until then is lost.
pub fn veth<'a>(spec: &Veth<'a>) -> Op<'a> {
    let mut far = LinkUnspec::new_with_name(spec.peer.name)
        .index(spec.peer.index.unwrap_or(0))
        .setns_by_fd(spec.peer.netns.as_raw_fd());
    let mut near = LinkVeth::new(spec.name, spec.peer.name).link_group(spec.group);
    if let Some(mac) = spec.peer.mac {
        far = far.address(mac.to_vec());
    }
    if let Some(mtu) = spec.mtu {
        (far, near) = (far.mtu(mtu), near.mtu(mtu));
    }
    if let Some(master) = spec.master {
        near = near.controller(master);
    }
    let far = with_gso(far, spec.gso).build();
    let near = with_gso(near, spec.gso).set_info_data(InfoData::Veth(InfoVeth::Peer(far))).build();
    let bare = without_link_local(Which::Name(spec.name));
    Op::new("create the veth pair", spec.name, CREATE, RouteNetlinkMessage::NewLink(near))
        .then(0, RouteNetlinkMessage::SetLink(bare))
        .forgiving(NO_IPV6)
}

fn with_gso<T>(build: LinkMessageBuilder<T>, size: Option<u32>) -> LinkMessageBuilder<T> {
    let Some(size) = size else { return build };
    build
        .append_extra_attribute(LinkAttribute::GsoMaxSize(size))
        .append_extra_attribute(LinkAttribute::GroMaxSize(size))
        .append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(size))
        .append_extra_attribute(LinkAttribute::GroIpv4MaxSize(size))
}

/// How a request names an existing link.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    Index(u32),
    Name(&'a str),
}

impl From<u32> for Which<'_> {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl<'a> From<&'a str> for Which<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "with index {index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Which<'_> {
    fn build(self) -> LinkMessageBuilder<LinkUnspec> {
        match self {
            Self::Index(index) => LinkUnspec::new_with_index(index),
            Self::Name(name) => LinkUnspec::new_with_name(name),
        }
    }
}

fn set(deed: &'static str, which: Which<'_>, message: LinkMessage) -> Op<'static> {
    Op::new(deed, which, 0, RouteNetlinkMessage::SetLink(message))
}

pub fn up<'a>(link: impl Into<Which<'a>>) -> Op<'static> {
    let which = link.into();
    set("bring up the link", which, which.build().up().build())
}

pub fn down<'a>(link: impl Into<Which<'a>>) -> Op<'static> {
    let which = link.into();
    set("take down the link", which, which.build().down().build())
}

pub fn mtu<'a>(link: impl Into<Which<'a>>, mtu: u32) -> Op<'static> {
    let which = link.into();
    set("set the MTU of the link", which, which.build().mtu(mtu).build())
}

pub fn mac<'a>(link: impl Into<Which<'a>>, mac: [u8; 6]) -> Op<'static> {
    let which = link.into();
    set("set the MAC address of the link", which, which.build().address(mac.to_vec()).build())
}

/// Puts the link into a bridge.
pub fn master<'a>(link: impl Into<Which<'a>>, bridge: u32) -> Op<'static> {
    let which = link.into();
    set("put into its bridge the link", which, which.build().controller(bridge).build())
}

/// Takes the link out of its bridge.
pub fn nomaster<'a>(link: impl Into<Which<'a>>) -> Op<'static> {
    let which = link.into();
    set("take out of its bridge the link", which, which.build().nocontroller().build())
}

pub fn group<'a>(link: impl Into<Which<'a>>, group: u32) -> Op<'static> {
    let which = link.into();
    set("set the group of the link", which, which.build().link_group(group).build())
}

/// A note that `ip link` shows, at most 255 bytes.
pub fn alias<'a>(link: impl Into<Which<'a>>, text: &str) -> Op<'static> {
    let which = link.into();
    set("describe the link", which, which.build().alias(text).build())
}

/// `Veth::gso` for a link that exists. A bridge takes no more than its ports do, and 64 KiB while it has none.
pub fn gso<'a>(link: impl Into<Which<'a>>, size: u32) -> Op<'static> {
    let which = link.into();
    set("set the packet size of the link", which, with_gso(which.build(), Some(size)).build())
}

/// Whether the link takes packets for everybody.
pub fn promiscuous<'a>(link: impl Into<Which<'a>>, on: bool) -> Op<'static> {
    let which = link.into();
    set("set the promiscuous mode of the link", which, which.build().promiscuous(on).build())
}

/// Whether the link takes multicast of every group.
pub fn all_multicast<'a>(link: impl Into<Which<'a>>, on: bool) -> Op<'static> {
    let which = link.into();
    set("set the multicast mode of the link", which, which.build().allmulticast(on).build())
}

/// How many packets may wait to be sent.
pub fn queue<'a>(link: impl Into<Which<'a>>, length: u32) -> Op<'static> {
    let which = link.into();
    let message = which.build().append_extra_attribute(LinkAttribute::TxQueueLen(length)).build();
    set("set the queue of the link", which, message)
}

pub fn rename(index: u32, name: &str) -> Op<'static> {
    set("rename the link", Which::Index(index), LinkUnspec::new_with_index(index).name(name).build())
}

/// Keeps the kernel from giving the link an IPv6 link-local address, and so from probing for duplicates of it, when
/// it comes up. Has to stand before `up`: the kernel ignores it where a link is made.
pub fn no_link_local<'a>(link: impl Into<Which<'a>>) -> Op<'static> {
    let which = link.into();
    set("switch off link-local addresses of the link", which, without_link_local(which)).forgiving(NO_IPV6)
}

fn without_link_local(which: Which<'_>) -> LinkMessage {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    which.build().append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode])).build()
}

/// How a bridge treats one port; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Port {
    /// Isolated ports reach the bridge and its other ports, but not one another.
    pub isolated: Option<bool>,
    /// Whether a frame may leave through the port it came in by.
    pub hairpin: Option<bool>,
    pub learning: Option<bool>,
    /// Whether frames leave by it that nobody knows a port for, and those for many.
    pub flood: Option<bool>,
    /// Whether the bridge answers for the port's neighbours itself, as far as it knows them.
    pub answer_for: Option<bool>,
    /// Only frames from addresses that are forwarded to the port come in by it. Kernels before 5.18 take no notice.
    pub locked: Option<bool>,
}

pub fn port<'a>(link: impl Into<Which<'a>>, spec: Port) -> Op<'static> {
    let which = link.into();
    let mut build = match which {
        Which::Index(index) => LinkBridgePort::new(index),
        Which::Name(name) => LinkBridgePort::new(0).name(name),
    };
    if let Some(on) = spec.isolated {
        build = build.isolated(on);
    }
    if let Some(on) = spec.hairpin {
        build = build.hairpin(on);
    }
    if let Some(on) = spec.learning {
        build = build.learning(on);
    }
    if let Some(on) = spec.flood {
        build = build.flood(on).mcast_flood(on).bcast_flood(on);
    }
    if let Some(on) = spec.answer_for {
        build = build.neigh_suppress(on);
    }
    if let Some(on) = spec.locked {
        build = build.locked(on);
    }
    // Not SetLink: only RTM_NEWLINK looks at the settings of a port.
    Op::new("set the bridge port", which, 0, RouteNetlinkMessage::NewLink(build.build()))
}

/// Removes the link and waits for it: some 40 ms. See `delete_group`.
pub fn delete<'a>(link: impl Into<Which<'a>>) -> Op<'static> {
    let which = link.into();
    Op::new("delete the link", which, 0, RouteNetlinkMessage::DelLink(which.build().build()))
}

/// Removes every link of the group in one go: 50 of them in the time of one. The kernel refuses group 0, which is
/// everybody's, and says `ENODEV` when the group is empty.
pub fn delete_group(group: u32) -> Op<'static> {
    let message = LinkMessageBuilder::<LinkUnspec>::default().link_group(group).build();
    Op::new("delete the links of group", group, 0, RouteNetlinkMessage::DelLink(message))
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, ...; physical links and `lo` have none.
    pub kind: Option<String>,
    pub group: u32,
    pub master: Option<u32>,
    pub mtu: u32,
    /// The largest packet it takes whole, of both families the smaller; none where the kernel knows but one size.
    pub gso: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub up: bool,
    pub loopback: bool,
    /// Up and in service: the other end is up too, and the kernel sends what the link is given.
    pub running: bool,
    pub promiscuous: bool,
    pub all_multicast: bool,
    /// How many packets may wait to be sent.
    pub queue: u32,
    pub alias: Option<String>,
    /// The other end of a veth pair, the parent of a VLAN.
    pub peer: Option<u32>,
    /// Where `peer` is, when it is in another namespace.
    pub peer_netns: Option<i32>,
    /// Of a VXLAN device with a source of its own.
    pub tunnel: Option<Tunnel>,
}

impl Rtnl {
    pub fn links(&mut self) -> Result<Vec<Link>, KernelError> {
        let request = LinkUnspec::new_with_index(0).append_extra_attribute(brief()).build();
        self.dump("links", RouteNetlinkMessage::GetLink(request), decode)
    }

    pub fn link<'a>(&mut self, link: impl Into<Which<'a>>) -> Result<Option<Link>, KernelError> {
        let which = link.into();
        let request = which.build().append_extra_attribute(brief()).build();
        self.ask(&format!("the link {which}"), RouteNetlinkMessage::GetLink(request), decode)
    }
}

/// Counters are most of what the kernel would send.
fn brief() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

pub(crate) fn decode(frame: &Frame<'_>) -> Option<Link> {
    let header = LinkHeader::parse(frame.payload).ok()?;
    let mut link = Link {
        index: header.index,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        running: header.flags.contains(LinkFlags::Running),
        promiscuous: header.flags.contains(LinkFlags::Promisc),
        all_multicast: header.flags.contains(LinkFlags::Allmulti),
        ..Link::default()
    };
    let (mut gso, mut gso_v4) = (None, None);
    for (kind, value) in attributes(frame.payload, LINK_HEADER) {
        match kind {
            IFLA_ADDRESS => link.mac = mac_address(value),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_LINK => link.peer = u32_at(value, 0).filter(|index| *index != 0),
            IFLA_MASTER => link.master = u32_at(value, 0).filter(|index| *index != 0),
            IFLA_LINKINFO => {
                for (kind, value) in attributes(value, 0) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = Some(text(value)),
                        // Its numbers mean what the kind says, which comes first.
                        IFLA_INFO_DATA if link.kind.as_deref() == Some("vxlan") => {
                            link.tunnel = vxlan::decode(value);
                        }
                        _ => {}
                    }
                }
            }
            IFLA_TXQLEN => link.queue = u32_at(value, 0)?,
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_GROUP => link.group = u32_at(value, 0)?,
            IFLA_GSO_MAX_SIZE => gso = u32_at(value, 0),
            IFLA_GSO_IPV4_MAX_SIZE => gso_v4 = u32_at(value, 0),
            IFLA_LINK_NETNSID => link.peer_netns = u32_at(value, 0).map(u32::cast_signed),
            _ => {}
        }
    }
    link.gso = gso.zip(gso_v4).map(|(gso, gso_v4)| gso.min(gso_v4));
    Some(link)
}

/// Without IPv6, in the kernel or on a link with an MTU below 1280, there is nothing to switch off.
const NO_IPV6: &[i32] = &[libc::EAFNOSUPPORT];

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

const LINK_HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
