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
use crate::metrics::Failure;
use crate::snapshot::{Ask, BackendHandle, ListenerHandle, Occupied, Pool, ServiceHandle};
use crate::table::Protocol;
use crate::worker::Kit;

use super::{Dropped, Lane, Number, Udp};

pub(super) struct Upstream {
    socket: OwnedFd,
    peer: SocketAddr,
    occupied: Occupied,
    service: Arc<ServiceHandle>,
    /// The backend's host said that nobody listens there; the next datagram looks for another place.
    refused: bool,
    /// The place is already the other one of two addresses that the backend has.
    turned: bool,
    _pass: Pass,
    /// Keeps the client's backend for it.
    _hold: Option<Hold>,
}

impl Upstream {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn backend(&self) -> &BackendHandle {
        &self.occupied.backend
    }

    /// Whether the flow of `key` would still be led there.
    pub(super) fn leads_as(&self, key: &Key, handle: &ListenerHandle, pool: &Pool) -> bool {
        let backend = &self.occupied.backend;
        let addresses = backend.addresses(key.client.ip(), handle.listener.target(key.port));
        Arc::ptr_eq(&self.service, &handle.service)
            && pool.keeps(backend)
            && addresses.contains(&Some(self.peer))
    }

    /// The backend has sent something.
    pub(super) fn answered(&self, lane: &Lane, key: &Key, bytes: u64) {
        let backend = self.backend();
        backend.meters().moved_to_client(bytes);
        backend.reached(Door::new(Protocol::Udp, lane.target_port(key)));
    }

    /// Tells of the flow that has ended, once.
    pub(super) fn account(&self, ended: &Ended<Self>, handle: &ListenerHandle) {
        let flow = &ended.flow;
        self.service.meters.closed();
        if ended.why == End::Evicted && flow.from_backend.datagrams == 0 {
            // Counted only: a flood of made-up sources would be a flood of lines.
            return;
        }
        tracing::info!(
            target: "access",
            listener = &*handle.listener.id,
            service = &*self.service.label,
            client = %flow.key.client,
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
        if self.table.flow(id).is_some_and(|flow| flow.upstream.refused) {
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
        let opened = self.try_open(kit, key, &handle);
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
                    _ => Failure::Limit,
                };
                handle.meters.failed(failure);
                handle.service.meters.failed(failure);
            }
        }
        opened
    }

    fn try_open(&mut self, kit: &mut Kit, key: Key, handle: &ListenerHandle) -> Result<FlowId, Dropped> {
        let pool = self.lanes.get(key.lane).map(|lane| Arc::clone(&lane.pool)).ok_or(Dropped::NoBackend)?;
        let service = &handle.service;
        let port = handle.listener.target(key.port);
        let ask = ask(kit, &key, port, &[]);
        let (_, backend) = service.pick(&pool, &ask).ok_or(Dropped::NoBackend)?;
        let peer = backend.address(key.client.ip(), port).ok_or(Dropped::NoBackend)?;
        let pass = self.room(kit, key, handle).ok_or(Dropped::Limit)?;
        let socket = match datagram::connect(peer) {
            // Another flow's descriptor does as well, if one has gone quiet.
            Err(error) if socket::no_descriptors(&error) => {
                let given_up = self.table.give_up(key.lane, kit.now).ok_or(Dropped::Exhausted)?;
                self.close([given_up]);
                datagram::connect(peer)
            }
            connected => connected,
        };
        let socket = socket.map_err(|error| Dropped::from(&error))?;
        self.table.open(key, kit.now, |id| {
            kit.poller
                .add(&socket, Number::Flow(id).token(), Interest::READ)
                .map_err(|_| Dropped::Exhausted)?;
            let occupied = backend.occupy();
            backend.meters().opened();
            let hold = service.hold(key.client);
            let service = Arc::clone(service);
            Ok(Upstream {
                socket,
                peer,
                occupied,
                service,
                refused: false,
                turned: false,
                _pass: pass,
                _hold: hold,
            })
        })
    }

    /// Whether the source is one of our own listening sockets, which never send but to clients: somebody made it up.
    fn is_own(&self, key: &Key) -> bool {
        key.local == Some(key.client.ip()) && self.lanes.has_listener_on(key.client)
    }

    /// A place in this worker's table, and one of the listener's on all workers.
    fn room(&mut self, kit: &Kit, key: Key, handle: &ListenerHandle) -> Option<Pass> {
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
        if let Some(lane) = self.lanes.get(flow.key.lane) {
            lane.handle.meters.failed(Failure::Refused);
            lane.handle.service.meters.failed(Failure::Refused);
            let backend = flow.upstream.backend();
            let port = lane.target_port(&flow.key);
            // One that may listen in the other family is not at fault yet.
            if flow.upstream.turned || backend.addresses(flow.upstream.peer.ip(), port)[1].is_none() {
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
    /// the backend is back.
    pub(super) fn pick_again(&mut self, kit: &mut Kit, id: FlowId) {
        let Some(flow) = self.table.flow(id) else { return };
        let key = flow.key;
        let Some(lane) = self.lanes.get(key.lane) else { return };
        let (handle, pool) = (Arc::clone(&lane.handle), Arc::clone(&lane.pool));
        let other = elsewhere(kit, lane, &key, &pool, &flow.upstream);
        let Some(upstream) = self.table.upstream_mut(id) else { return };
        upstream.refused = false;
        let Some(Elsewhere { peer, occupied, turned }) = other else { return };
        let connected = datagram::connect(peer).and_then(|socket| {
            kit.poller.add(&socket, Number::Flow(id).token(), Interest::READ)?;
            Ok::<_, io::Error>(socket)
        });
        if let Ok(socket) = connected {
            // The old socket is this flow's alone: closing it takes it out of the poller.
            (upstream.socket, upstream.peer, upstream.occupied) = (socket, peer, occupied);
            upstream.turned = turned;
            upstream.backend().meters().opened();
            handle.meters.retried();
            handle.service.meters.retried();
        }
    }
}

/// Where a flow that is refused may go on.
struct Elsewhere {
    peer: SocketAddr,
    occupied: Occupied,
    turned: bool,
}

fn elsewhere(kit: &mut Kit, lane: &Lane, key: &Key, pool: &Pool, now: &Upstream) -> Option<Elsewhere> {
    let backend = &now.occupied.backend;
    let turn = backend.other_than(now.peer, lane.target_port(key));
    let turn = turn.map(|peer| Elsewhere { peer, occupied: backend.occupy(), turned: true });
    if now.turned {
        another(kit, lane, key, pool, now).or(turn)
    } else {
        turn.or_else(|| another(kit, lane, key, pool, now))
    }
}

fn another(kit: &mut Kit, lane: &Lane, key: &Key, pool: &Pool, now: &Upstream) -> Option<Elsewhere> {
    let refusing = pool.index_of(&now.occupied.backend.id);
    let port = lane.target_port(key);
    let ask = ask(kit, key, port, refusing.as_slice());
    let (_, backend) = lane.handle.service.pick(pool, &ask)?;
    let peer = backend.address(key.client.ip(), port)?;
    Some(Elsewhere { peer, occupied: backend.occupy(), turned: false })
}

fn ask<'t>(kit: &mut Kit, key: &Key, port: Option<u16>, tried: &'t [u16]) -> Ask<'t> {
    let door = Door::new(Protocol::Udp, port);
    Ask { client: key.client, door, tried, now: kit.now, random: kit.random() }
}
