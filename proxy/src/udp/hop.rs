//! Datagrams from node to node. Towards the backend's node each has its flow's header before it, signed once; on the way
//! back a status and the flow's nonce. A flow has a socket of its own on the dialing side, so who sent a datagram tells
//! the flow on the other. A datagram that is too long with what comes before it is dropped and counted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use netd_sys::datagram::Local;
use netd_sys::poll::Interest;

use super::receive::moved;
use super::upstream::{self, Upstream, Way};
use super::wrapped::Wrapped;
use super::{Dropped, Number, Udp};
use crate::flows::{End, FlowId, Key, LaneId, Traffic};
use crate::gate::Pass;
use crate::hop::{Header, Mesh, Node, Refusal, Status, here, wire};
use crate::source;
use crate::table::ServiceId;
use crate::worker::{Kit, SharedSocket};

/// A socket that other nodes send to, and the lane of each service that they may ask for.
pub(super) struct MeshSocket {
    pub(super) socket: SharedSocket,
    pub(super) lanes: HashMap<ServiceId, LaneId>,
}

/// A flow's way through another node.
pub(super) struct Through {
    pub(super) node: Arc<Node>,
    pub(super) header: Box<[u8]>,
    pub(super) nonce: u64,
    /// Of the backend.
    pub(super) port: u16,
}

/// What another node has said of a flow that it sent.
pub(super) struct Visit {
    node: Arc<Node>,
    /// What was verified: the same bytes need not be verified again.
    header: Box<[u8]>,
    pub(super) nonce: u64,
    pub(super) client: SocketAddr,
    pub(super) port: u16,
    _place: Pass,
}

/// What comes before an answer: a status, and the nonce.
pub(super) const ANSWER: usize = 9;
const ROUNDS: usize = 4;

pub(super) fn answer(status: Status, nonce: u64) -> [u8; ANSWER] {
    let mut head = [status.byte(); ANSWER];
    head[1..].copy_from_slice(&nonce.to_be_bytes());
    head
}

/// What an answer of the node says of the flow with this nonce; none: it is not the node's.
pub(super) fn heard(nonce: u64, datagram: &[u8]) -> Option<(Status, &[u8])> {
    let (head, payload) = datagram.split_first_chunk::<ANSWER>()?;
    (head[1..] == nonce.to_be_bytes()).then(|| (Status::from_byte(head[0]), payload))
}

/// The datagrams of a train, one by one.
pub(super) fn singles(payload: &[u8], segment: Option<u16>) -> impl Iterator<Item = &[u8]> {
    let size = segment.map_or(payload.len(), usize::from).max(1);
    // An empty datagram is a datagram too.
    let count = payload.len().div_ceil(size).max(1);
    (0..count).map(move |at| &payload[at * size..payload.len().min((at + 1) * size)])
}

impl Udp {
    /// Takes what other nodes have sent.
    pub(super) fn receive_mesh(&mut self, kit: &mut Kit, number: u32) {
        for _ in 0..ROUNDS {
            let (Some(mesh), Some(entry)) = (kit.mesh.clone(), self.meshes.get(number as usize)) else {
                return;
            };
            let Ok(count) = self.incoming.recv(entry.socket.as_fd()) else { return };
            let (mut wrapped, mut room) =
                (std::mem::take(&mut self.wrapped), std::mem::take(&mut kit.scratch));
            let mut current = None;
            for place in 0..count {
                let datagram = self.incoming.datagram(place);
                let (Some(from), local, segment) = (datagram.source, datagram.local, datagram.segment) else {
                    continue;
                };
                let Some(node) = mesh.from(from.ip()) else {
                    mesh.refuse_stranger();
                    continue;
                };
                // A copy: what is opened for it changes the rest of us.
                let train = &mut room[..datagram.payload.len()];
                train.copy_from_slice(datagram.payload);
                let visitor = Visitor { mesh: &mesh, node, number, from, local };
                for single in singles(train, segment) {
                    let Some((id, payload)) = self.visit(kit, &visitor, single) else { continue };
                    if current.is_some_and(|current| current != id) || wrapped.is_full() {
                        self.pass_on(kit, current, &mut wrapped);
                    }
                    current = Some(id);
                    wrapped.push(&[], payload);
                    self.table.client_sent(id, Traffic::of(payload, None), kit.now);
                }
            }
            self.pass_on(kit, current, &mut wrapped);
            (self.wrapped, kit.scratch) = (wrapped, room);
            if count < self.incoming.capacity() {
                return;
            }
        }
    }

    /// The flow of a datagram, and what it says to the backend.
    fn visit<'d>(
        &mut self,
        kit: &mut Kit,
        visitor: &Visitor<'_>,
        bytes: &'d [u8],
    ) -> Option<(FlowId, &'d [u8])> {
        let (header, whole) = match wire::split(bytes) {
            Ok(split) => split,
            Err(status) => {
                visitor.failed(status);
                return None;
            }
        };
        let payload = &bytes[whole.len()..];
        let entry = self.meshes.get(visitor.number as usize)?;
        let lane = entry.lanes.get(header.service).copied();
        let local = visitor.local.map(|local| local.address);
        let key = lane.map(|lane| Key { lane, client: visitor.from, local, port: 0 });
        let known = key.and_then(|key| self.table.find(&key));
        let is_verified = known
            .and_then(|id| self.table.flow(id))
            .is_some_and(|flow| matches!(&flow.upstream.way, Way::Visit(visit) if *visit.header == *whole));
        if let (Some(id), true) = (known, is_verified) {
            return Some((id, payload));
        }
        if !header.is_datagram || !visitor.mesh.key.has_signed(whole) {
            visitor.failed(Status::Denied);
            return None;
        }
        if let Some(id) = known {
            // The same port of the node, and another flow: the old one is over.
            let ended = self.table.end(id, End::Evicted);
            self.close(ended);
        }
        let opened =
            key.ok_or(Status::NoBackend).and_then(|key| self.admit(kit, key, visitor, &header, whole));
        match opened {
            Ok(id) => Some((id, payload)),
            Err(status) => {
                visitor.failed(status);
                self.say(visitor, &answer(status, header.nonce));
                None
            }
        }
    }

    fn admit(
        &mut self,
        kit: &mut Kit,
        key: Key,
        visitor: &Visitor<'_>,
        header: &Header<'_>,
        whole: &[u8],
    ) -> Result<FlowId, Status> {
        let lane = self.lanes.get(key.lane).ok_or(Status::NoBackend)?;
        let handle = Arc::clone(&lane.handle);
        let backend = here(&handle.service, header.backend).ok_or(Status::NoBackend)?;
        let peer = backend.address(header.client.ip(), Some(header.target_port)).ok_or(Status::NoBackend)?;
        let place = visitor.node.gate.enter().ok_or(Status::Limit)?;
        let pass = self.room(kit, key, &handle).ok_or(Status::Limit)?;
        let leads_back = handle.service.pool().leads_back && visitor.mesh.leads_back(header.client.ip());
        let as_client = header.as_client && leads_back;
        let client = source::towards(header.client, peer).filter(|_| as_client);
        let socket = upstream::connect(&handle, client, peer).map_err(|error| status_of(&error))?;
        let visit = Visit {
            node: Arc::clone(visitor.node),
            header: whole.into(),
            nonce: header.nonce,
            client: header.client,
            port: header.target_port,
            _place: place,
        };
        let opened = self.table.open(key, kit.now, |id| {
            kit.poller.add(&socket, Number::Flow(id).token(), Interest::READ).map_err(|_| Status::Limit)?;
            let service = Arc::clone(&handle.service);
            let way = Way::Visit(Box::new(visit));
            Ok::<_, Status>(Upstream::new(socket, peer, backend.occupy(), service, way, pass, None))
        })?;
        handle.meters.opened();
        handle.service.meters.opened();
        visitor.node.from.opened();
        Ok(opened)
    }

    /// Sends what was gathered for a flow to its backend.
    fn pass_on(&mut self, kit: &mut Kit, flow: Option<FlowId>, wrapped: &mut Wrapped) {
        let Some(id) = flow else { return wrapped.clear() };
        let Some(entry) = self.table.flow(id) else { return wrapped.clear() };
        let Some(lane) = self.lanes.get(entry.key.lane) else { return wrapped.clear() };
        let meters = &lane.handle.meters;
        let sent = wrapped.send(&mut self.outgoing, entry.upstream.socket(), None, None, &meters.datagrams);
        moved(lane, &entry.upstream, sent.bytes, sent.datagrams);
        if sent.is_refused {
            self.note_refusal(kit, id);
        }
    }

    /// The backend of a flow that another node has sent does not listen: the node is told, and looks for another one.
    pub(super) fn end_visit(&mut self, id: FlowId, status: Status) {
        let Some(ended) = self.table.end(id, End::BackendGone) else { return };
        if let (Way::Visit(visit), Some(lane)) =
            (&ended.flow.upstream.way, self.lanes.get(ended.flow.key.lane))
        {
            if let Some(why) = Refusal::of(status) {
                visit.node.from.failed(why);
            }
            let key = &ended.flow.key;
            let head = answer(status, visit.nonce);
            let mut out = self.outgoing.begin();
            let from = key.local.map(|address| Local { address, interface: 0, port: 0 });
            if out.push(Some(key.client), from, None, &head, 0) {
                out.send(lane.socket.as_fd());
            }
        }
        self.close([ended]);
    }

    fn say(&mut self, visitor: &Visitor<'_>, head: &[u8]) {
        let Some(entry) = self.meshes.get(visitor.number as usize) else { return };
        let from = visitor.local.map(|local| Local { interface: 0, port: 0, ..local });
        let mut out = self.outgoing.begin();
        if out.push(Some(visitor.from), from, None, head, 0) {
            out.send(entry.socket.as_fd());
        }
    }
}

/// Where a datagram of another node came from, and to.
struct Visitor<'m> {
    mesh: &'m Mesh,
    node: &'m Arc<Node>,
    number: u32,
    from: SocketAddr,
    local: Option<Local>,
}

impl Visitor<'_> {
    fn failed(&self, status: Status) {
        if let Some(why) = Refusal::of(status) {
            self.node.from.failed(why);
        }
    }
}

fn status_of(error: &std::io::Error) -> Status {
    match Dropped::from(error) {
        Dropped::Refused => Status::Refused,
        Dropped::Exhausted => Status::Limit,
        _ => Status::Unreachable,
    }
}
