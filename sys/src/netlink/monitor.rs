//! What changes in a namespace, as the kernel reports it: links, addresses, routes, namespaces, nftables. The reports
//! say that something changed; what there is now is for the reader to look up, above all after `Lost`.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use super::attr::{attributes, text, u32_at};
use super::channel::{Channel, Frame};
use super::{addr, link, route};
use crate::error::{Doing, KernelError};
use crate::netns::Netns;

/// A change, or the news that some were missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link is new or different.
    Link(link::Link),
    LinkGone(link::Link),
    Address(addr::Addr),
    AddressGone(addr::Addr),
    Route(route::Route),
    RouteGone(route::Route),
    /// Another namespace, known here by this number, has appeared or ended.
    Netns(i32),
    NetnsGone(i32),
    /// One nftables transaction.
    Tables(Tables),
    /// More happened than the socket could hold.
    Lost,
}

/// What one nftables transaction touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The names, of any family.
    pub touched: BTreeSet<String>,
    /// Of these, the ones removed (and perhaps made again).
    pub removed: BTreeSet<String>,
    /// The port of the socket that did it: `Nft::port` for one's own.
    pub port: u32,
}

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Links,
    Addresses,
    Routes,
    Netns,
}

/// A socket that becomes readable when something changed. It never blocks.
#[derive(Debug)]
pub struct Monitor {
    channel: Channel,
    tables: Tables,
}

impl Monitor {
    /// Of these groups, in the namespace of the calling thread.
    pub fn open(groups: &[Group]) -> Result<Self, KernelError> {
        let numbers = groups.iter().flat_map(|group| match group {
            Group::Links => &[1_u32][..], // RTNLGRP_LINK, and so on
            Group::Addresses => &[5, 9],
            Group::Routes => &[7, 11],
            Group::Netns => &[28],
        });
        Self::subscribe(NETLINK_ROUTE, numbers)
    }

    pub fn open_in(netns: &Netns, groups: &[Group]) -> Result<Self, KernelError> {
        netns.run(|| Self::open(groups))?
    }

    /// Of nftables, in the namespace of the calling thread.
    pub fn nftables() -> Result<Self, KernelError> {
        Self::subscribe(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES])
    }

    fn subscribe<'a>(
        protocol: isize,
        groups: impl IntoIterator<Item = &'a u32>,
    ) -> Result<Self, KernelError> {
        let channel = Channel::open(protocol)?;
        for group in groups {
            channel.socket().add_membership(*group).doing("watch", format_args!("netlink group {group}"))?;
        }
        channel.socket().set_non_blocking(true).doing("prepare", "the netlink socket")?;
        Ok(Self { channel, tables: Tables::default() })
    }

    /// What has happened since, up to some hundreds of events; more leave the socket readable.
    pub fn read(&mut self) -> Result<Vec<Event>, KernelError> {
        let mut events = Vec::new();
        for _ in 0..DATAGRAMS {
            match self.channel.receive() {
                Ok(frames) => {
                    for frame in frames {
                        events.extend(event(&frame, &mut self.tables));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.tables = Tables::default();
                    events.push(Event::Lost);
                }
                Err(error) => return Err(error).doing("read", "the kernel's notifications"),
            }
        }
        Ok(events)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn event(frame: &Frame<'_>, tables: &mut Tables) -> Option<Event> {
    Some(match frame.kind {
        RTM_NEWLINK => Event::Link(link::decode(frame)?),
        RTM_DELLINK => Event::LinkGone(link::decode(frame)?),
        RTM_NEWADDR => Event::Address(addr::decode(frame)?),
        RTM_DELADDR => Event::AddressGone(addr::decode(frame)?),
        RTM_NEWROUTE => Event::Route(route::decode(frame)?),
        RTM_DELROUTE => Event::RouteGone(route::decode(frame)?),
        RTM_NEWNSID => Event::Netns(nsid(frame)?),
        RTM_DELNSID => Event::NetnsGone(nsid(frame)?),
        kind if kind >> 8 == NFTABLES => return nftables(frame, (kind & 0xff) as u8, tables),
        _ => return None,
    })
}

/// A transaction is one message for each thing it changed, all of which begin with the table's name, and a last one
/// with the new generation.
fn nftables(frame: &Frame<'_>, kind: u8, tables: &mut Tables) -> Option<Event> {
    if kind == NFT_MSG_NEWGEN {
        tables.port = frame.port;
        return Some(Event::Tables(mem::take(tables)));
    }
    let (_, name) = attributes(frame.payload, NFGENMSG).find(|(kind, _)| *kind == NFTA_TABLE)?;
    if kind == NFT_MSG_DELTABLE {
        tables.removed.insert(text(name));
    }
    tables.touched.insert(text(name));
    None
}

fn nsid(frame: &Frame<'_>) -> Option<i32> {
    let (_, value) = attributes(frame.payload, RTGENMSG).find(|(kind, _)| *kind == NETNSA_NSID)?;
    u32_at(value, 0).map(u32::cast_signed)
}

/// Read at one go at most, so that a storm of changes does not keep the caller from its other work.
const DATAGRAMS: usize = 256;

const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;
const RTM_DELLINK: u16 = libc::RTM_DELLINK;
const RTM_NEWADDR: u16 = libc::RTM_NEWADDR;
const RTM_DELADDR: u16 = libc::RTM_DELADDR;
const RTM_NEWROUTE: u16 = libc::RTM_NEWROUTE;
const RTM_DELROUTE: u16 = libc::RTM_DELROUTE;
const RTM_NEWNSID: u16 = libc::RTM_NEWNSID;
const RTM_DELNSID: u16 = libc::RTM_DELNSID;
const RTGENMSG: usize = 4; // with its padding
const NETNSA_NSID: u16 = 1;
const NFNLGRP_NFTABLES: u32 = 7;
const NFTABLES: u16 = 10;
const NFGENMSG: usize = 4;
const NFTA_TABLE: u16 = 1;
const NFT_MSG_DELTABLE: u8 = 2;
const NFT_MSG_NEWGEN: u8 = 15;
