//! The kernel's list of sockets: those of a namespace that are connected, what a BPF program has kept with them, and
//! their end by force. Messages are written here byte by byte: two forms of a fixed length, and one attribute.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::attr::{attributes, u32_at};
use super::channel::{Channel, Frame};
use super::unanswered;
use crate::bpf::Transport;
use crate::error::{Doing as _, KernelError};
use crate::netns::Netns;

/// A socket that has a partner.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    family: u8,
    protocol: u8,
    /// As the kernel has it: ports, addresses, a number that no other socket has.
    id: [u8; ID],
    pub(crate) partner: IpAddr,
    /// As BPF programs have it; no other socket has had it.
    pub(crate) number: u64,
    /// What the map has for it. The kernel says so of streams alone.
    pub(crate) stored: Vec<u8>,
}

/// In the namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct SockDiag {
    channel: Channel,
}

impl SockDiag {
    pub(crate) fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        let channel = netns.run(|| Channel::open(NETLINK_SOCK_DIAG))??;
        Ok(Self { channel })
    }

    /// All of them, with what this map (of the type that belongs to sockets) has for each.
    pub(crate) fn connected(
        &mut self,
        transport: Transport,
        map: BorrowedFd<'_>,
    ) -> Result<Vec<Connected>, KernelError> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            all.append(&mut self.dump(family as u8, protocol(transport), map).doing("list", "sockets")?);
        }
        Ok(all)
    }

    fn dump(&mut self, family: u8, protocol: u8, map: BorrowedFd<'_>) -> io::Result<Vec<Connected>> {
        let storages = attribute(
            REQUEST_STORAGES,
            &attribute(REQUEST_MAP, &map.as_raw_fd().cast_unsigned().to_ne_bytes()),
        );
        let mut request = head(family, protocol, CONNECTED_STATES, &[0; ID]);
        request.extend(storages);
        let sequence = self.post(BY_FAMILY, NLM_F_DUMP, &request)?;
        let mut found = Vec::new();
        loop {
            for frame in self.channel.receive().map_err(unanswered)? {
                if frame.sequence != sequence {
                    continue;
                }
                match frame.verdict() {
                    Some(Err(refusal)) => return Err(io::Error::from_raw_os_error(refusal.errno)),
                    Some(Ok(())) if frame.kind == NLMSG_DONE => return Ok(found),
                    Some(Ok(())) => {}
                    None => found.extend(decode(&frame, protocol)),
                }
            }
        }
    }

    /// Whether it was still there.
    pub(crate) fn destroy(&mut self, socket: &Connected) -> Result<bool, KernelError> {
        let request = head(socket.family, socket.protocol, u32::MAX, &socket.id);
        let ended = self.post(DESTROY, NLM_F_ACK, &request).and_then(|sequence| self.verdict(sequence));
        match ended {
            // It has been closed, or has another partner since.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            other => other.map(|()| true).doing("end a connection to", socket.partner),
        }
    }

    fn verdict(&mut self, sequence: u32) -> io::Result<()> {
        loop {
            for frame in self.channel.receive().map_err(unanswered)? {
                if frame.sequence == sequence
                    && let Some(verdict) = frame.verdict()
                {
                    return verdict.map_err(|refusal| io::Error::from_raw_os_error(refusal.errno));
                }
            }
        }
    }

    fn post(&mut self, kind: u16, flags: u16, request: &[u8]) -> io::Result<u32> {
        let sequence = self.channel.reserve(1);
        let length = (HEADER + request.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(request);
        self.channel.send(&message)?;
        Ok(sequence)
    }
}

/// `inet_diag_req_v2`.
fn head(family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut head = vec![family, protocol, 0, 0];
    head.extend(states.to_ne_bytes());
    head.extend(id);
    head
}

/// Of a length that is a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (ATTRIBUTE + value.len()) as u16;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn decode(frame: &Frame<'_>, protocol: u8) -> Option<Connected> {
    if frame.kind != BY_FAMILY {
        return None;
    }
    let family = *frame.payload.first()?;
    let id: [u8; ID] = *frame.payload.get(4..)?.first_chunk()?;
    let nested = |from, kind| attributes(from, 0).find(|(found, _)| found & KIND_MASK == kind);
    let storages = attributes(frame.payload, MESSAGE).find(|(kind, _)| kind & KIND_MASK == STORAGES);
    let stored = storages
        .and_then(|(_, storages)| nested(storages, STORAGE))
        .and_then(|(_, storage)| nested(storage, STORAGE_VALUE));
    let [low, high] = [NUMBER, NUMBER + 4].map(|at| u32_at(&id, at).unwrap_or_default());
    Some(Connected {
        family,
        protocol,
        id,
        partner: partner(family, &id)?,
        number: u64::from(low) | u64::from(high) << 32,
        stored: stored.map(|(_, value)| value.to_vec()).unwrap_or_default(),
    })
}

/// An IPv6 socket may speak IPv4.
fn partner(family: u8, id: &[u8; ID]) -> Option<IpAddr> {
    let octets: [u8; 16] = *id.get(PARTNER..)?.first_chunk()?;
    if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = octets;
        return Some(Ipv4Addr::new(a, b, c, d).into());
    }
    Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
}

fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => libc::IPPROTO_TCP as u8,
        Transport::Udp => libc::IPPROTO_UDP as u8,
    }
}

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// `inet_diag_sockid`: two ports, two addresses, a device, a cookie.
const ID: usize = 48;
const PARTNER: usize = 4 + 16;
const NUMBER: usize = ID - 8;
/// `inet_diag_msg`: four bytes, the id, five numbers.
const MESSAGE: usize = 4 + ID + 20;
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// Nested or not, the kind is the same.
const KIND_MASK: u16 = 0x3fff;
const REQUEST_STORAGES: u16 = 2;
const REQUEST_MAP: u16 = 1;
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;
/// Established or on the way there, and what is half closed: a bit for each of the kernel's numbers. A connected
/// datagram socket counts as established.
const CONNECTED_STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8;
