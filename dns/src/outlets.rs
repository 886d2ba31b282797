//! The sockets that questions leave through. Towards the host's servers: connected sockets of our own, a few for each
//! server, replaced after a number of questions so that the port is no more predictable than the id. Towards a view's
//! own servers: the sockets that came with the view, because only they are in its namespace.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use tokio::task::AbortHandle;

use netd_sys::datagram::{SendBatch, enlarge_buffers};

use crate::forward::{Outline, Ticket, Unsendable};
use crate::parse::flag;
use crate::readable::Readable;
use crate::reply::{push_opt, put_header};
use crate::table::SocketUse;
use crate::target::{Place, Upstream};

/// Sockets towards one of the host's servers that take new questions.
const ACTIVE: usize = 4;

/// Questions after which such a socket only waits for its replies.
const QUESTIONS_EACH: u32 = 128;

/// Own sockets in all. Beyond it those that there are serve on.
const MOST_SOCKETS: usize = 256;

/// Questions under way on one socket: half of the ids, so that a free one is found soon and is hard to guess.
const MOST_PENDING: usize = 1 << 15;

/// TCP sockets kept for one view and family.
const MOST_STREAMS: usize = 16;

/// Names one socket for as long as the process lives.
pub(crate) type OutletKey = u64;

/// Where a question waits for its reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    outlet: OutletKey,
    id: u16,
}

pub(crate) struct Outlets {
    sockets: HashMap<OutletKey, Outlet>,
    last_key: OutletKey,
    host: HashMap<SocketAddr, Vec<OutletKey>>,
    views: HashMap<Place, ViewOutlets>,
    message: Vec<u8>,
    batch: SendBatch,
    /// Sockets whose reader is to be started by the caller.
    unread: Vec<(OutletKey, Rc<Readable>)>,
    /// Questions whose refusal was met on the way out; for the caller to take.
    refused: Vec<Ticket>,
}

#[derive(Default)]
struct ViewOutlets {
    datagrams: Vec<OutletKey>,
    streams_v4: Vec<OwnedFd>,
    streams_v6: Vec<OwnedFd>,
}

struct Outlet {
    socket: Rc<Readable>,
    /// By the id of the question.
    pending: HashMap<u16, Pending>,
    taken: u32,
    kind: OutletKind,
    reader: Option<AbortHandle>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OutletKind {
    /// Ours, connected.
    Host { retired: bool },
    /// A view's, unconnected.
    View { v6: bool },
}

struct Pending {
    ticket: Ticket,
    server: SocketAddr,
}

impl Outlets {
    pub(crate) fn new() -> Self {
        Self {
            sockets: HashMap::new(),
            last_key: 0,
            host: HashMap::new(),
            views: HashMap::new(),
            message: Vec::with_capacity(512),
            batch: SendBatch::new(1),
            unread: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Sockets that have come up since the last call; each needs a reader.
    pub(crate) fn take_unread(&mut self) -> Vec<(OutletKey, Rc<Readable>)> {
        std::mem::take(&mut self.unread)
    }

    pub(crate) fn take_refused(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.refused)
    }

    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(crate) fn set_reader(&mut self, key: OutletKey, reader: AbortHandle) {
        match self.sockets.get_mut(&key) {
            Some(outlet) => outlet.reader = Some(reader),
            None => reader.abort(),
        }
    }

    /// Takes a view's sockets over. Datagram sockets replace those of an earlier delivery.
    pub(crate) fn supply(&mut self, place: Place, sockets: Vec<(SocketUse, OwnedFd)>) -> io::Result<()> {
        let fresh = sockets.iter().any(|(usage, _)| is_datagram(*usage));
        if fresh && let Some(view) = self.views.get_mut(&place) {
            let before = std::mem::take(&mut view.datagrams);
            before.into_iter().for_each(|key| self.close(key));
        }
        for (usage, socket) in sockets {
            if is_datagram(usage) {
                let v6 = usage == SocketUse::UpstreamUdp6;
                let key = self.open(socket, OutletKind::View { v6 })?;
                self.views.entry(place).or_default().datagrams.push(key);
                continue;
            }
            let view = self.views.entry(place).or_default();
            let streams =
                if usage == SocketUse::UpstreamTcp6 { &mut view.streams_v6 } else { &mut view.streams_v4 };
            if streams.len() < MOST_STREAMS {
                streams.push(socket);
            }
        }
        Ok(())
    }

    pub(crate) fn drop_place(&mut self, place: Place) {
        if let Some(view) = self.views.remove(&place) {
            view.datagrams.into_iter().for_each(|key| self.close(key));
        }
    }

    /// A TCP socket of this place for `server`, and how many more there are.
    pub(crate) fn take_stream(&mut self, place: Place, server: SocketAddr) -> Option<(OwnedFd, usize)> {
        let view = self.views.get_mut(&place)?;
        let streams = if server.is_ipv6() { &mut view.streams_v6 } else { &mut view.streams_v4 };
        streams.pop().map(|socket| (socket, streams.len()))
    }

    /// Every socket that came with a view and is still open.
    pub(crate) fn of_view(&self, place: Place) -> Vec<(SocketUse, io::Result<OwnedFd>)> {
        let Some(view) = self.views.get(&place) else { return Vec::new() };
        let datagrams = view.datagrams.iter().filter_map(|key| {
            let outlet = self.sockets.get(key)?;
            let v6 = outlet.kind == OutletKind::View { v6: true };
            let usage = if v6 { SocketUse::UpstreamUdp6 } else { SocketUse::UpstreamUdp4 };
            Some((usage, outlet.socket.try_clone()))
        });
        let v4 = view.streams_v4.iter().map(|socket| (SocketUse::UpstreamTcp4, socket.try_clone()));
        let v6 = view.streams_v6.iter().map(|socket| (SocketUse::UpstreamTcp6, socket.try_clone()));
        datagrams.chain(v4).chain(v6).collect()
    }

    /// Lets sockets towards host servers go that are not asked any more; replies under way still come in.
    pub(crate) fn keep_host_servers(&mut self, servers: &[SocketAddr]) {
        let gone: Vec<SocketAddr> =
            self.host.keys().filter(|server| !servers.contains(server)).copied().collect();
        for server in gone {
            for key in self.host.remove(&server).unwrap_or_default() {
                self.retire(key);
            }
        }
    }

    pub(crate) fn send(
        &mut self,
        upstream: &Upstream,
        ticket: Ticket,
        outline: Outline<'_>,
    ) -> Result<Slot, Unsendable> {
        let key = self.outlet_for(upstream).map_err(|_| Unsendable)?;
        let outlet = self.sockets.get_mut(&key).ok_or(Unsendable)?;
        let id = outlet.free_id().ok_or(Unsendable)?;
        encode(&mut self.message, id, outline);
        let connected = matches!(outlet.kind, OutletKind::Host { .. });
        let to = (!connected).then_some(upstream.address);
        upstream.counters.asked();
        // The first try may only report, and only once, what came back for earlier questions.
        let mut sent = false;
        for _ in 0..2 {
            let mut outgoing = self.batch.begin();
            let pushed = outgoing.push(to, None, None, &self.message, 0);
            let outcome = outgoing.send(outlet.socket.as_fd());
            sent = pushed && outcome.messages == 1;
            if sent {
                break;
            }
            if outcome.failures.iter().any(|failure| is_refusal(&failure.error)) {
                self.refused.extend(outlet.pending.drain().map(|(_, pending)| pending.ticket));
            }
        }
        if !sent {
            return Err(Unsendable);
        }
        outlet.pending.insert(id, Pending { ticket, server: upstream.address });
        outlet.taken += 1;
        if connected && outlet.taken >= QUESTIONS_EACH && self.sockets.len() < MOST_SOCKETS {
            if let Some(active) = self.host.get_mut(&upstream.address) {
                active.retain(|other| *other != key);
            }
            self.retire(key);
        }
        Ok(Slot { outlet: key, id })
    }

    pub(crate) fn forget(&mut self, slot: &Slot) {
        if let Some(outlet) = self.sockets.get_mut(&slot.outlet) {
            outlet.pending.remove(&slot.id);
            self.close_if_done(slot.outlet);
        }
    }

    /// Whose reply a datagram may be: the right id, from where the question went.
    pub(crate) fn ticket(
        &self,
        key: OutletKey,
        source: Option<SocketAddr>,
        message: &[u8],
    ) -> Option<Ticket> {
        let pending = self.sockets.get(&key)?.pending.get(&id_of(message)?)?;
        (source == Some(pending.server)).then_some(pending.ticket)
    }

    /// The reply to this id has been taken.
    pub(crate) fn settle(&mut self, key: OutletKey, message: &[u8]) {
        if let Some(id) = id_of(message) {
            self.forget(&Slot { outlet: key, id });
        }
    }

    /// Everything that waits on a socket the kernel has reported an error for.
    pub(crate) fn fail(&mut self, key: OutletKey) -> Vec<Ticket> {
        let Some(outlet) = self.sockets.get_mut(&key) else { return Vec::new() };
        let tickets = outlet.pending.drain().map(|(_, pending)| pending.ticket).collect();
        self.close_if_done(key);
        tickets
    }

    fn outlet_for(&mut self, upstream: &Upstream) -> io::Result<OutletKey> {
        let v6 = upstream.address.is_ipv6();
        if upstream.place != Place::Host {
            let keys =
                self.views.get(&upstream.place).map(|view| view.datagrams.as_slice()).unwrap_or_default();
            let fitting = |key: &&OutletKey| {
                self.sockets.get(key).is_some_and(|outlet| outlet.kind == OutletKind::View { v6 })
            };
            let fitting: Vec<&OutletKey> = keys.iter().filter(fitting).collect();
            return pick(&fitting).copied().copied().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        }
        let active = self.host.get(&upstream.address).map(Vec::as_slice).unwrap_or_default();
        if active.len() >= ACTIVE
            && let Some(key) = pick(active)
        {
            return Ok(*key);
        }
        let any: SocketAddr =
            if v6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(upstream.address)?;
        // Ten thousand replies may come at once. Without the privilege the system's limit has to do.
        drop(enlarge_buffers(&socket));
        socket.set_nonblocking(true)?;
        let key = self.open(socket.into(), OutletKind::Host { retired: false })?;
        self.host.entry(upstream.address).or_default().push(key);
        Ok(key)
    }

    fn open(&mut self, socket: OwnedFd, kind: OutletKind) -> io::Result<OutletKey> {
        let socket = Rc::new(Readable::new(socket)?);
        self.last_key += 1;
        let key = self.last_key;
        self.unread.push((key, socket.clone()));
        self.sockets.insert(key, Outlet { socket, pending: HashMap::new(), taken: 0, kind, reader: None });
        Ok(key)
    }

    fn retire(&mut self, key: OutletKey) {
        if let Some(outlet) = self.sockets.get_mut(&key) {
            outlet.kind = OutletKind::Host { retired: true };
            self.close_if_done(key);
        }
    }

    fn close_if_done(&mut self, key: OutletKey) {
        let done =
            |outlet: &Outlet| outlet.pending.is_empty() && outlet.kind == OutletKind::Host { retired: true };
        if self.sockets.get(&key).is_some_and(done) {
            self.close(key);
        }
    }

    fn close(&mut self, key: OutletKey) {
        if let Some(reader) = self.sockets.remove(&key).and_then(|outlet| outlet.reader) {
            reader.abort();
        }
    }
}

impl Outlet {
    /// A random id that no question on this socket has.
    fn free_id(&self) -> Option<u16> {
        if self.pending.len() >= MOST_PENDING {
            return None;
        }
        loop {
            let id = rand::random();
            if !self.pending.contains_key(&id) {
                return Some(id);
            }
        }
    }
}

/// What other hosts say about a datagram; everything else is about the one being sent.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable)
}

fn pick<T>(from: &[T]) -> Option<&T> {
    let place = rand::random_range(0..from.len().max(1));
    from.get(place)
}

fn is_datagram(usage: SocketUse) -> bool {
    matches!(usage, SocketUse::UpstreamUdp4 | SocketUse::UpstreamUdp6)
}

fn id_of(message: &[u8]) -> Option<u16> {
    message.first_chunk().map(|id| u16::from_be_bytes(*id))
}

/// The question as it goes out, without anything of the client but its question and wishes.
pub(crate) fn encode(message: &mut Vec<u8>, id: u16, outline: Outline<'_>) {
    message.clear();
    message.extend_from_slice(&[0; crate::parse::HEADER]);
    message.extend_from_slice(outline.question);
    // AD in a question asks for AD in the reply; a client that did not ask is not told.
    let mut flags = flag::AUTHENTIC_DATA;
    if outline.recursion_desired {
        flags |= flag::RECURSION_DESIRED;
    }
    if outline.checking_disabled {
        flags |= flag::CHECKING_DISABLED;
    }
    if let Some(dnssec_ok) = outline.edns {
        push_opt(message, 0, dnssec_ok);
    }
    put_header(message, id, flags, [1, 0, 0, u16::from(outline.edns.is_some())]);
}
