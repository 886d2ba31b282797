//! Connections of other nodes until their header has been heard: from live nodes only, in bounded time and size. What is
//! asked for has to be a backend of this very node; nothing in a header makes us connect anywhere else.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_sys::poll::Interest;
use netd_sys::socket;
use slab::Slab;

use super::meters::Refusal;
use super::wire::{self, Heard, LONGEST, Status};
use super::{Guest, Header, Node};
use crate::account::Account;
use crate::gate::Pass;
use crate::kit::Kit;
use crate::session::SessionId;
use crate::snapshot::{ListenerHandle, ServiceHandle};
use crate::table::ServiceId;
use crate::worker::Token;

/// A node sends its header with the first segment; one that has not by then never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those of one worker, and the services that they may ask for.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    slab: Slab<Arrival>,
    generation: u32,
    /// Each behind the mesh's own listener.
    services: HashMap<ServiceId, Arc<ListenerHandle>>,
}

#[derive(Debug)]
struct Arrival {
    id: SessionId,
    caller: Caller,
    heard: Vec<u8>,
    until: Instant,
}

/// Who has knocked.
#[derive(Debug)]
struct Caller {
    stream: TcpStream,
    node: Arc<Node>,
    /// At the node's gate, and in the process.
    node_place: Pass,
    process_place: Pass,
}

/// A connection whose header was heard: to be served like a client's.
pub(crate) struct Come {
    pub(crate) stream: TcpStream,
    pub(crate) account: Account,
}

enum Outcome {
    Wait(Caller),
    Come(Come),
    Over,
}

impl Arrivals {
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn reach(&mut self, service: Arc<ListenerHandle>) {
        self.services.insert(Arc::clone(&service.service.id), service);
    }

    pub(crate) fn forget(&mut self, service: &ServiceId) {
        self.services.remove(service);
    }

    pub(crate) fn forget_all(&mut self) {
        self.services.clear();
    }

    /// Takes a connection in that was just accepted. Its header is there already, as a rule.
    pub(crate) fn admit(
        &mut self,
        kit: &mut Kit,
        stream: TcpStream,
        from: SocketAddr,
        process_place: Pass,
    ) -> Option<Come> {
        let Some(node) = kit.mesh.as_ref().and_then(|mesh| mesh.from(from.ip())).cloned() else {
            if let Some(mesh) = &kit.mesh {
                mesh.refuse_stranger();
            }
            socket::reset(stream);
            return None;
        };
        let Some(node_place) = node.gate.enter() else {
            answer(&stream, &node, Status::Limit, &mut kit.scratch);
            return None;
        };
        let mut heard = Vec::new();
        match self.listen(kit, Caller { stream, node, node_place, process_place }, &mut heard) {
            Outcome::Come(come) => Some(come),
            Outcome::Over => None,
            Outcome::Wait(caller) => {
                self.wait(kit, caller, heard);
                None
            }
        }
    }

    fn wait(&mut self, kit: &mut Kit, caller: Caller, heard: Vec<u8>) {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        let id =
            SessionId { index: entry.key() as u32, generation: self.generation & SessionId::GENERATIONS };
        let token = Token::arrival(id);
        if kit.poller.add(&caller.stream, token.into(), Interest::READ).is_ok() {
            let until = kit.now + PATIENCE;
            kit.timers.set(until, token);
            entry.insert(Arrival { id, caller, heard, until });
        }
    }

    /// More of a header has come.
    pub(crate) fn ready(&mut self, kit: &mut Kit, id: SessionId) -> Option<Come> {
        let Arrival { id, caller, mut heard, until } = self.take(id)?;
        match self.listen(kit, caller, &mut heard) {
            Outcome::Come(come) => {
                kit.timers.cancel(until, Token::arrival(id));
                // The session that follows registers it anew.
                let _ = kit.poller.remove(&come.stream);
                Some(come)
            }
            Outcome::Over => {
                kit.timers.cancel(until, Token::arrival(id));
                None
            }
            Outcome::Wait(caller) => {
                // Back to the very place it was taken from, which is the next free one.
                self.slab.insert(Arrival { id, caller, heard, until });
                None
            }
        }
    }

    /// The time of a header is over.
    pub(crate) fn timed_out(&mut self, id: SessionId) {
        if let Some(Arrival { caller, .. }) = self.take(id) {
            caller.node.from.failed(Refusal::Malformed);
            socket::reset(caller.stream);
        }
    }

    pub(crate) fn cut_all(&mut self, kit: &mut Kit) {
        for (_, Arrival { id, caller, until, .. }) in std::mem::take(&mut self.slab) {
            kit.timers.cancel(until, Token::arrival(id));
            socket::reset(caller.stream);
        }
    }

    fn take(&mut self, id: SessionId) -> Option<Arrival> {
        let index = id.index as usize;
        self.slab.get(index).filter(|arrival| arrival.id == id)?;
        Some(self.slab.remove(index))
    }

    /// Reads what is there, and goes on if that is all.
    fn listen(&self, kit: &mut Kit, caller: Caller, heard: &mut Vec<u8>) -> Outcome {
        let room = LONGEST + 1 - heard.len();
        match (&caller.stream).read(&mut kit.scratch[..room]) {
            Ok(0) => return Outcome::Over,
            Ok(count) => heard.extend_from_slice(&kit.scratch[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Outcome::Wait(caller);
            }
            Err(_) => return Outcome::Over,
        }
        let Some(mesh) = kit.mesh.clone() else { return Outcome::Over };
        let status = match wire::read(&mesh.key, heard) {
            Heard::Part => return Outcome::Wait(caller),
            Heard::Wrong(status) => status,
            // Whoever sends more than its header has not waited for the answer.
            Heard::Header(header, length) if length < heard.len() || header.is_datagram => Status::Malformed,
            Heard::Header(header, _) => match self.asked_for(&header) {
                Ok(asked) => return self.serve(&header, asked, &mesh, caller, kit),
                Err(status) => status,
            },
        };
        answer(&caller.stream, &caller.node, status, &mut kit.scratch);
        Outcome::Over
    }

    /// The backend that is meant, if it is one of this node.
    fn asked_for(&self, header: &Header<'_>) -> Result<Asked, Status> {
        let listener = self.services.get(header.service).ok_or(Status::NoBackend)?;
        let backend = here(&listener.service, header.backend).ok_or(Status::NoBackend)?;
        Ok(Asked { listener: Arc::clone(listener), backend })
    }

    fn serve(
        &self,
        header: &Header<'_>,
        Asked { listener, backend }: Asked,
        mesh: &super::Mesh,
        caller: Caller,
        kit: &mut Kit,
    ) -> Outcome {
        let Caller { stream, node, node_place, process_place } = caller;
        let Some(place) = listener.gate.enter() else {
            answer(&stream, &node, Status::Limit, &mut kit.scratch);
            return Outcome::Over;
        };
        let guest = Guest {
            node,
            backend,
            target_port: header.target_port,
            asked: header.asked,
            as_client: header.as_client && mesh.leads_back(header.client.ip()),
            proxy_protocol: header.proxy_protocol,
            _place: node_place,
        };
        let account = Account::of_guest(listener, header.client, [place, process_place], guest);
        Outcome::Come(Come { stream, account })
    }
}

struct Asked {
    listener: Arc<ListenerHandle>,
    backend: Arc<crate::snapshot::BackendHandle>,
}

/// The backend of that name, if this node has it.
pub(crate) fn here(service: &ServiceHandle, backend: &str) -> Option<Arc<crate::snapshot::BackendHandle>> {
    service.pool().find(backend).filter(|backend| backend.is_here()).cloned()
}

/// Says why not. What is unread is read first: a close over it would be a reset, and the answer be lost.
fn answer(mut stream: &TcpStream, node: &Node, status: Status, scratch: &mut [u8]) {
    if let Some(why) = Refusal::of(status) {
        node.from.failed(why);
    }
    let _ = stream.read(scratch);
    // Fails when the node has gone, and then there is nobody to tell.
    let _ = stream.write(&[status.byte()]);
}
