//! A flow's side towards its backend: choosing one, the socket connected to it, choosing another when it refuses, and
//! the line in the access log when all is over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netd_sys::poll::Interest;
use netd_sys::{datagram, socket};

use crate::affinity::Hold;
use crate::ejection::Door;
use crate::flows::{End, Ended, FlowId, Key, Room};
use crate::gate::Pass;
use crate::hop::{Header, Node, Status};
use crate::metrics::Failure;
use crate::snapshot::{Ask, BackendHandle, ListenerHandle, Occupied, Pool, ServiceHandle};
use crate::source;
use crate::table::{Place, Protocol};
use crate::worker::Kit;

use super::hop::{Through, Visit};
use super::{Dropped, Lane, Number, Udp};

pub(super) struct Upstream {
    socket: OwnedFd,
    peer: SocketAddr,
    occupied: Occupied,
    service: Arc<ServiceHandle>,
    pub(super) way: Way,
    /// The backend's host said that nobody listens there; the next datagram looks for another place.
    refused: bool,
    /// The place is already the other one of two addresses that the backend has.
    turned: bool,
    _pass: Pass,
    /// Keeps the client's backend for it.
    _hold: Option<Hold>,
}

/// How a flow gets from its client to its backend.
pub(super) enum Way {
    /// Both are met by this node.
    Straight,
    /// The backend's node leads on.
    Through(Box<Through>),
    /// The client has come to another node.
    Visit(Box<Visit>),
}

impl Upstream {
    pub(super) fn new(
        socket: OwnedFd,
        peer: SocketAddr,
        occupied: Occupied,
        service: Arc<ServiceHandle>,
        way: Way,
        pass: Pass,
        hold: Option<Hold>,
    ) -> Self {
        occupied.backend.meters().opened();
        Self { socket, peer, occupied, service, way, refused: false, turned: false, _pass: pass, _hold: hold }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn backend(&self) -> &BackendHandle {
        &self.occupied.backend
    }

    /// Whether the next datagram is to look for another place. What leaves may still have an answer to the last one to give,
    /// so its flow goes on until then.
    fn is_to_move(&self) -> bool {
        self.refused || self.backend().leaves()
    }

    /// Whether the flow of `key` would still be led there.
    pub(super) fn leads_as(&self, key: &Key, handle: &ListenerHandle, pool: &Pool) -> bool {
        let backend = &self.occupied.backend;
        let target = handle.listener.target(key.port);
        let leads = match &self.way {
            Way::Straight => backend.addresses(key.client.ip(), target).contains(&Some(self.peer)),
            Way::Through(through) => port_of(backend, key, target) == Some(through.port),
            Way::Visit(visit) => {
                let addresses = backend.addresses(visit.client.ip(), Some(visit.port));
                backend.is_here() && addresses.contains(&Some(self.peer))
            }
        };
        Arc::ptr_eq(&self.service, &handle.service) && pool.keeps(backend) && leads
    }

    /// The backend has sent something.
    pub(super) fn answered(&self, lane: &Lane, key: &Key, bytes: u64) {
        let backend = self.backend();
        backend.meters().moved_to_client(bytes);
        let port = match &self.way {
            Way::Visit(visit) => Some(visit.port),
            Way::Straight | Way::Through(_) => lane.target_port(key),
        };
        backend.reached(Door::new(Protocol::Udp, port));
    }

    /// Tells of the flow that has ended, once.
    pub(super) fn account(&self, ended: &Ended<Self>, handle: &ListenerHandle) {
        let flow = &ended.flow;
        self.service.meters.closed();
        if ended.why == End::Evicted && flow.from_backend.datagrams == 0 {
            // Counted only: a flood of made-up sources would be a flood of lines.
            return;
        }
        let client = match &self.way {
            Way::Visit(visit) => visit.client,
            Way::Straight | Way::Through(_) => flow.key.client,
        };
        tracing::info!(
            target: "access",
            listener = &*handle.listener.id,
            service = &*self.service.label,
            client = %client,
            backend = &*self.occupied.backend.id,
            seconds = (flow.last - flow.opened).as_secs_f64(),
            to_backend = flow.from_client.bytes,
            to_client = flow.from_backend.bytes,
            datagrams_to_backend = flow.from_client.datagrams,
            datagrams_to_client = flow.from_backend.datagrams,
            end = ended.why.name(),
        );
    }
}

impl Udp {
    /// The flow of `key`, made if there is none; `Err` says why there can be none.
    pub(super) fn flow_of(&mut self, kit: &mut Kit, key: Key) -> Result<FlowId, Dropped> {
        let Some(id) = self.table.find(&key) else { return self.open_flow(kit, key) };
        if self.table.flow(id).is_some_and(|flow| flow.upstream.is_to_move()) {
            self.pick_again(kit, id);
        }
        Ok(id)
    }

    fn open_flow(&mut self, kit: &mut Kit, key: Key) -> Result<FlowId, Dropped> {
        if self.is_own(&key) {
            return Err(Dropped::Loop);
        }
        let lane = self.lanes.get(key.lane).ok_or(Dropped::Limit)?;
        let handle = Arc::clone(&lane.handle);
        let trail = kit.trails.length(Protocol::Udp, key.client).ok_or(Dropped::Loop);
        let opened = trail.and_then(|trail| self.try_open(kit, key, &handle, trail));
        match opened {
            Ok(_) => {
                handle.meters.opened();
                handle.service.meters.opened();
                handle.service.note_connection(kit.now);
            }
            Err(why) => {
                let failure = match why {
                    Dropped::NoBackend => Failure::NoBackend,
                    Dropped::Unreachable => Failure::Unreachable,
                    Dropped::Loop => Failure::Loop,
                    _ => Failure::Limit,
                };
                handle.meters.failed(failure);
                handle.service.meters.failed(failure);
            }
        }
        opened
    }

    fn try_open(
        &mut self,
        kit: &mut Kit,
        key: Key,
        handle: &ListenerHandle,
        trail: u8,
    ) -> Result<FlowId, Dropped> {
        let pool = self.lanes.get(key.lane).map(|lane| Arc::clone(&lane.pool)).ok_or(Dropped::NoBackend)?;
        let service = &handle.service;
        let (backend, route) = choose(kit, &key, handle, &pool, &[]).ok_or(Dropped::NoBackend)?;
        let pass = self.room(kit, key, handle).ok_or(Dropped::Limit)?;
        let opened = match route.open(kit, &key, handle, &backend) {
            // Another flow's descriptor does as well, if one has gone quiet.
            Err(error) if socket::no_descriptors(&error) => {
                let given_up = self.table.give_up(key.lane, kit.now).ok_or(Dropped::Exhausted)?;
                self.close([given_up]);
                route.open(kit, &key, handle, &backend)
            }
            opened => opened,
        };
        let (socket, way) = opened.map_err(|error| Dropped::from(&error))?;
        self.table.open(key, kit.now, |id| {
            kit.poller
                .add(&socket, Number::Flow(id).token(), Interest::READ)
                .map_err(|_| Dropped::Exhausted)?;
            let hold = service.hold(key.client);
            let mut backend = backend.occupy();
            backend.lay_trail(&kit.trails, Protocol::Udp, &socket, trail);
            Ok(Upstream::new(socket, route.peer, backend, Arc::clone(service), way, pass, hold))
        })
    }

    /// Whether the source is one of our own listening sockets, which never send but to clients: somebody made it up.
    fn is_own(&self, key: &Key) -> bool {
        key.local == Some(key.client.ip()) && self.lanes.has_listener_on(key.client)
    }

    /// A place in this worker's table, and one of the listener's on all workers.
    pub(super) fn room(&mut self, kit: &Kit, key: Key, handle: &ListenerHandle) -> Option<Pass> {
        loop {
            match self.table.make_room(key.lane, kit.now) {
                Room::Free => break,
                Room::GivenUp(ended) => self.close([ended]),
                Room::Full => return None,
            }
        }
        handle.gate.enter().or_else(|| {
            let given_up = self.table.give_up(key.lane, kit.now)?;
            self.close([given_up]);
            handle.gate.enter()
        })
    }

    /// The socket of this flow has reported that its backend does not listen.
    pub(super) fn note_refusal(&mut self, kit: &mut Kit, id: FlowId) {
        let Some(flow) = self.table.flow(id) else { return };
        if matches!(flow.upstream.way, Way::Visit(_)) {
            return self.end_visit(id, Status::Refused);
        }
        if let Some(lane) = self.lanes.get(flow.key.lane) {
            lane.handle.meters.failed(Failure::Refused);
            lane.handle.service.meters.failed(Failure::Refused);
            let backend = flow.upstream.backend();
            let port = lane.target_port(&flow.key);
            let is_remote = matches!(flow.upstream.way, Way::Through(_));
            // One that may listen in the other family is not at fault yet.
            if is_remote
                || flow.upstream.turned
                || backend.addresses(flow.upstream.peer.ip(), port)[1].is_none()
            {
                let ask = ask(kit, &flow.key, port, &[]);
                lane.handle.service.failed(&lane.pool, backend, Failure::Refused, &ask);
            }
        }
        if let Some(upstream) = self.table.upstream_mut(id) {
            upstream.refused = true;
        }
    }

    /// Moves a flow that is refused to the backend's address of the other family, as a server may listen in one alone;
    /// then to another backend. Without another it stays, or goes from one address to the other, and so notices when
    /// the backend is back. One whose backend leaves goes to another, if there is one.
    pub(super) fn pick_again(&mut self, kit: &mut Kit, id: FlowId) {
        let Some(flow) = self.table.flow(id) else { return };
        let key = flow.key;
        let Some(lane) = self.lanes.get(key.lane) else { return };
        let (handle, pool) = (Arc::clone(&lane.handle), Arc::clone(&lane.pool));
        let other = elsewhere(kit, lane, &key, &pool, &flow.upstream);
        let Some(upstream) = self.table.upstream_mut(id) else { return };
        upstream.refused = false;
        let Some(Elsewhere { route, mut occupied, turned }) = other else { return };
        let trail = kit.trails.length(Protocol::Udp, key.client).unwrap_or(u8::MAX);
        let connected = route.open(kit, &key, &handle, &occupied.backend).and_then(|(socket, way)| {
            kit.poller.add(&socket, Number::Flow(id).token(), Interest::READ)?;
            Ok::<_, io::Error>((socket, way))
        });
        if let Ok((socket, way)) = connected {
            occupied.lay_trail(&kit.trails, Protocol::Udp, &socket, trail);
            // The old socket is this flow's alone: closing it takes it out of the poller.
            (upstream.socket, upstream.peer, upstream.occupied) = (socket, route.peer, occupied);
            (upstream.way, upstream.turned) = (way, turned);
            upstream.backend().meters().opened();
            handle.meters.retried();
            handle.service.meters.retried();
        }
    }
}

/// Where a flow's datagrams go.
struct Route {
    peer: SocketAddr,
    /// Through whom, if that is not the backend itself.
    node: Option<Arc<Node>>,
}

impl Route {
    /// None when the backend's node is known to be gone.
    fn to(kit: &Kit, key: &Key, backend: &BackendHandle, port: Option<u16>) -> Option<Self> {
        match backend.place {
            Place::Node { mesh } => {
                let node = kit.mesh.as_ref()?.at(mesh)?;
                Some(Self { peer: mesh, node: Some(Arc::clone(node)) })
            }
            Place::Here | Place::Elsewhere => {
                Some(Self { peer: backend.address(key.client.ip(), port)?, node: None })
            }
        }
    }

    fn open(
        &self,
        kit: &mut Kit,
        key: &Key,
        handle: &ListenerHandle,
        backend: &BackendHandle,
    ) -> io::Result<(OwnedFd, Way)> {
        let is_as_client = source::is_clients(&handle.listener.source, key.client);
        let Some(node) = &self.node else {
            let leads_back = backend.is_here() && handle.service.pool().leads_back;
            let client = source::towards(key.client, self.peer).filter(|_| is_as_client && leads_back);
            return Ok((connect(handle, client, self.peer)?, Way::Straight));
        };
        let impossible = || io::Error::from(io::ErrorKind::HostUnreachable);
        let mesh = kit.mesh.clone().ok_or_else(impossible)?;
        let port = port_of(backend, key, handle.listener.target(key.port)).ok_or_else(impossible)?;
        let nonce = kit.random();
        let local = key.local.unwrap_or_else(|| handle.listener.address.ip());
        let asked = if key.port == 0 { handle.listener.address.port() } else { key.port };
        let mut header = Vec::new();
        let written = Header {
            service: &handle.service.id,
            backend: &backend.id,
            target_port: port,
            client: key.client,
            asked: SocketAddr::new(local, asked),
            as_client: is_as_client,
            proxy_protocol: None,
            nonce,
            is_datagram: true,
        }
        .write(&mesh.key, &mut header);
        if !written {
            return Err(impossible());
        }
        let socket = datagram::connect(self.peer)?;
        let through = Through { node: Arc::clone(node), header: header.into(), nonce, port };
        node.to.opened();
        Ok((socket, Way::Through(Box::new(through))))
    }
}

/// A socket to `peer`, from the client's address if one is given and it can be.
pub(super) fn connect(
    handle: &ListenerHandle,
    client: Option<SocketAddr>,
    peer: SocketAddr,
) -> io::Result<OwnedFd> {
    if let Some(client) = client {
        if let Some(socket) = datagram::connect_as(client, peer)? {
            return Ok(socket);
        }
        handle.meters.lost_address();
        handle.service.meters.lost_address();
    }
    datagram::connect(peer)
}

fn port_of(backend: &BackendHandle, key: &Key, target: Option<u16>) -> Option<u16> {
    let [first, second] = backend.addresses(key.client.ip(), target);
    first.or(second).map(|address| address.port())
}

/// A backend that can be reached, but not this one.
fn choose(
    kit: &mut Kit,
    key: &Key,
    handle: &ListenerHandle,
    pool: &Pool,
    not: &[u16],
) -> Option<(Arc<BackendHandle>, Route)> {
    let port = handle.listener.target(key.port);
    let mut tried = [0; ATTEMPTS];
    let mut count = not.len().min(ATTEMPTS);
    tried[..count].copy_from_slice(&not[..count]);
    while count < ATTEMPTS {
        let ask = ask(kit, key, port, &tried[..count]);
        let (index, backend) = handle.service.pick(pool, &ask)?;
        if let Some(route) = Route::to(kit, key, backend, port) {
            return Some((Arc::clone(backend), route));
        }
        tried[count] = index;
        count += 1;
    }
    None
}

/// Backends that one datagram makes us look at.
const ATTEMPTS: usize = 8;

/// Where a flow that is refused may go on.
struct Elsewhere {
    route: Route,
    occupied: Occupied,
    turned: bool,
}

fn elsewhere(kit: &mut Kit, lane: &Lane, key: &Key, pool: &Pool, now: &Upstream) -> Option<Elsewhere> {
    let backend = &now.occupied.backend;
    let other = match now.way {
        Way::Straight if !backend.leaves() => backend.other_than(now.peer, lane.target_port(key)),
        Way::Straight | Way::Through(_) | Way::Visit(_) => None,
    };
    let turn = other.map(|peer| Elsewhere {
        route: Route { peer, node: None },
        occupied: backend.occupy(),
        turned: true,
    });
    if now.turned {
        another(kit, lane, key, pool, now).or(turn)
    } else {
        turn.or_else(|| another(kit, lane, key, pool, now))
    }
}

fn another(kit: &mut Kit, lane: &Lane, key: &Key, pool: &Pool, now: &Upstream) -> Option<Elsewhere> {
    let refusing = pool.index_of(&now.occupied.backend.id);
    let chosen = choose(kit, key, &lane.handle, pool, refusing.as_slice());
    let (backend, route) = chosen.filter(|(backend, _)| !backend.leaves())?;
    Some(Elsewhere { route, occupied: backend.occupy(), turned: false })
}

fn ask<'t>(kit: &mut Kit, key: &Key, port: Option<u16>, tried: &'t [u16]) -> Ask<'t> {
    let door = Door::new(Protocol::Udp, port);
    Ask { client: key.client, door, tried, now: kit.now, random: kit.random() }
}
