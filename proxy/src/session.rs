//! One client's connection from accept to close: search a backend, relay both ways, pass ends and resets on, and close
//! the account. Sessions of a worker live in one slab; an event finds its session by the number in its token, and a
//! number that was used again is told apart by its generation.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_sys::poll::{Event, Interest};
use netd_sys::socket;
use slab::Slab;

use crate::account::{Account, Ending};
use crate::connect::{Attempt, Halt, Search};
use crate::gate::Pass;
use crate::hop::{self, Arrivals, Come, Node, Refusal, Status};
use crate::metrics::Failure;
use crate::proxy_protocol;
use crate::relay::{Broken, Direction, Leg, Tools};
use crate::snapshot::Occupied;
use crate::worker::{Kit, Side, Token};

/// All sessions of a worker.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slab: Slab<Session>,
    generation: u32,
    /// Those whose turn ended before their work did.
    busy: Vec<usize>,
    waiting: Vec<Waiting>,
    /// Connections of other nodes that have not said yet what they want.
    pub(crate) arrivals: Arrivals,
}

/// A client for whose backend there was no descriptor: the one held back for it was taken by another thread between
/// two system calls. It is served when there is one again.
#[derive(Debug)]
struct Waiting {
    client: TcpStream,
    search: Search,
    account: Account,
}

/// How long before the search for a descriptor goes on.
const PAUSE: Duration = Duration::from_millis(20);

/// No buffers and no pipes while it is idle: ten thousand of these are a few megabytes.
#[derive(Debug)]
struct Session {
    id: SessionId,
    client: Leg,
    /// The attempt's socket while `connecting`, then the backend's.
    backend: Leg,
    connecting: Option<Box<Connecting>>,
    to_backend: Direction,
    to_client: Direction,
    account: Account,
    /// The backend has been sent something of the client's.
    begun: bool,
    queued: bool,
}

#[derive(Debug)]
struct Connecting {
    search: Search,
    backend: Occupied,
    /// The node that is to lead to it: what is connected to is that node.
    node: Option<Arc<Node>>,
    /// It has been told what is wanted.
    told: bool,
    started: Instant,
    until: Option<Instant>,
}

/// A session's place, and which of the sessions that have had that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Wait,
    GoOn,
    /// No descriptor for the next attempt.
    SearchLater,
    Over(Ending),
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.slab.len() + self.waiting.len() + self.arrivals.len()
    }

    pub(crate) fn has_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Begins with a connection that was just accepted.
    pub(crate) fn open(&mut self, kit: &mut Kit, client: TcpStream, account: Account) {
        let search = Search::new(&account, Instant::now());
        self.search(kit, Waiting { client, search, account });
    }

    /// Begins with a connection of another node that was just accepted.
    pub(crate) fn admit(&mut self, kit: &mut Kit, stream: TcpStream, from: SocketAddr, place: Pass) {
        if let Some(Come { stream, account }) = self.arrivals.admit(kit, stream, from, place) {
            self.open(kit, stream, account);
        }
    }

    /// Such a connection says more.
    pub(crate) fn arriving(&mut self, kit: &mut Kit, id: SessionId) {
        if let Some(Come { stream, account }) = self.arrivals.ready(kit, id) {
            self.open(kit, stream, account);
        }
    }

    fn search(&mut self, kit: &mut Kit, mut waiting: Waiting) {
        let attempt = match waiting.search.next(&waiting.account, kit) {
            Ok(attempt) => attempt,
            Err(Halt::Failed(failure)) => return waiting.end(Ending::Failed(failure)),
            Err(Halt::NoDescriptor) => {
                if self.waiting.is_empty() {
                    kit.timers.set(kit.now + PAUSE, Token::WAITING);
                }
                return self.waiting.push(waiting);
            }
        };
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        let index = entry.key();
        let id = SessionId { index: index as u32, generation: self.generation & SessionId::GENERATIONS };
        let session = entry.insert(Session::new(id, waiting, attempt));
        let verdict = session.attempt(kit);
        self.settle(kit, index, verdict);
    }

    /// Looks whether there are descriptors for those that wait for one.
    pub(crate) fn search_again(&mut self, kit: &mut Kit) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.search(kit, waiting);
        }
    }

    pub(crate) fn ready(&mut self, kit: &mut Kit, id: SessionId, side: Side, event: Event) {
        let Some(session) = self.at(id) else { return };
        match side {
            Side::Client => session.client.learn(event),
            Side::Backend => session.backend.learn(event),
        }
        let verdict = if session.connecting.is_some() {
            session.attempt_ready(kit, event)
        } else {
            session.relay_or_break(kit, side, event)
        };
        self.settle(kit, id.index as usize, verdict);
    }

    /// The time of a session's attempt is over.
    pub(crate) fn timed_out(&mut self, kit: &mut Kit, id: SessionId) {
        let Some(session) = self.at(id) else { return };
        let verdict = session.attempt_timed_out(kit);
        self.settle(kit, id.index as usize, verdict);
    }

    /// Gives another turn to all that wanted one.
    pub(crate) fn go_on(&mut self, kit: &mut Kit) {
        for index in std::mem::take(&mut self.busy) {
            let Some(session) = self.slab.get_mut(index).filter(|session| session.queued) else { continue };
            session.queued = false;
            let verdict = session.relay(kit);
            self.settle(kit, index, verdict);
        }
    }

    /// Resets the connections whose backends have drained for as long as they may.
    pub(crate) fn cut(&mut self, kit: &mut Kit) {
        let over = self.slab.iter().filter(|(_, session)| session.account.is_cut(kit.now));
        let over: Vec<usize> = over.map(|(index, _)| index).collect();
        for index in over {
            self.settle(kit, index, Verdict::Over(Ending::Cut));
        }
    }

    /// Resets all connections that are left; how many.
    pub(crate) fn cut_all(&mut self, kit: &mut Kit) -> usize {
        let cut = self.len();
        self.arrivals.cut_all(kit);
        std::mem::take(&mut self.waiting).into_iter().for_each(|waiting| waiting.end(Ending::Cut));
        let sessions = std::mem::take(&mut self.slab);
        sessions.into_iter().for_each(|(_, session)| session.end(kit, Ending::Cut));
        cut
    }

    fn at(&mut self, id: SessionId) -> Option<&mut Session> {
        self.slab.get_mut(id.index as usize).filter(|session| session.id == id)
    }

    fn settle(&mut self, kit: &mut Kit, index: usize, verdict: Verdict) {
        match verdict {
            Verdict::Wait => {}
            Verdict::GoOn => {
                if let Some(session) = self.slab.get_mut(index).filter(|session| !session.queued) {
                    session.queued = true;
                    self.busy.push(index);
                }
            }
            Verdict::SearchLater => {
                // This closes the attempt that has failed, and so makes room for the next.
                if let Some(waiting) = self.slab.remove(index).back_to_search() {
                    self.search(kit, waiting);
                }
            }
            Verdict::Over(ending) => self.slab.remove(index).end(kit, ending),
        }
    }
}

impl SessionId {
    /// Generations fit the token beside an index.
    pub(crate) const GENERATIONS: u32 = (1 << 27) - 1;

    pub(crate) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_number(number: u64) -> Self {
        // The halves, as number() joined them.
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

impl Waiting {
    fn end(self, ending: Ending) {
        break_off(self.client, &self.account, ending);
        self.account.close(ending);
    }
}

/// Lets a client know that there is no more: by a reset or, if it is another node that waits for an answer, by that.
fn break_off(client: TcpStream, account: &Account, ending: Ending) {
    match (&account.guest, ending) {
        (Some(guest), Ending::Failed(failure)) => {
            // Fails when the node has gone, and then there is nobody to tell.
            let _ = (&client).write(&[guest.failed(failure).byte()]);
        }
        _ => socket::reset(client),
    }
}

impl Connecting {
    fn cancel(&mut self, kit: &mut Kit, id: SessionId) {
        if let Some(until) = self.until.take() {
            kit.timers.cancel(until, Token::session(id, Side::Backend));
        }
    }

    fn node_failed(&self, why: Refusal) {
        if let Some(node) = &self.node {
            node.failed(why);
        }
    }
}

impl Session {
    fn new(id: SessionId, Waiting { client, search, account }: Waiting, attempt: Attempt) -> Self {
        let Attempt { stream, backend, node, started, until } = attempt;
        // Another node says nothing before it has been answered.
        let client = if account.guest.is_some() { Leg::silent(client) } else { Leg::unknown(client) };
        Self {
            id,
            client,
            backend: Leg::silent(stream),
            connecting: Some(Box::new(Connecting { search, backend, node, told: false, started, until })),
            to_backend: Direction::default(),
            to_client: Direction::default(),
            account,
            begun: false,
            queued: false,
        }
    }

    /// Waits for the attempt that was just started, or goes on when it has succeeded at once.
    fn attempt(&mut self, kit: &mut Kit) -> Verdict {
        let token = Token::session(self.id, Side::Backend);
        if kit.poller.add(&self.backend.stream, token.into(), Interest::STREAM).is_err() {
            return Verdict::Over(Ending::Failed(Failure::Limit));
        }
        match self.connecting.as_ref().and_then(|connecting| connecting.until) {
            Some(until) => {
                kit.timers.set(until, token);
                Verdict::Wait
            }
            None => self.connected(kit),
        }
    }

    fn attempt_ready(&mut self, kit: &mut Kit, event: Event) -> Verdict {
        let told = self.connecting.as_ref().is_some_and(|connecting| connecting.told);
        if told {
            return if event.readable() { self.node_answered(kit) } else { Verdict::Wait };
        }
        // Until its end is known a connecting socket is neither writable nor hung up.
        if event.writable() { self.connect_ended(kit) } else { Verdict::Wait }
    }

    fn connect_ended(&mut self, kit: &mut Kit) -> Verdict {
        let outcome = self.backend.stream.take_error();
        let Some(connecting) = &mut self.connecting else { return Verdict::Wait };
        connecting.cancel(kit, self.id);
        match outcome {
            Ok(None) => self.connected(kit),
            Ok(Some(error)) | Err(error) => {
                connecting.search.failed(&error, &self.account, kit);
                connecting.node_failed(Refusal::Away);
                self.next_attempt(kit)
            }
        }
    }

    fn attempt_timed_out(&mut self, kit: &mut Kit) -> Verdict {
        match &mut self.connecting {
            None => Verdict::Wait,
            Some(connecting) => {
                if let Some(until) = connecting.search.extended(connecting.started, &self.account, kit) {
                    connecting.until = Some(until);
                    kit.timers.set(until, Token::session(self.id, Side::Backend));
                    return Verdict::Wait;
                }
                connecting.search.timed_out(&self.account, kit);
                connecting.node_failed(Refusal::Away);
                self.next_attempt(kit)
            }
        }
    }

    /// Tells the node that was reached which backend is meant. It answers in the time that another connect would have.
    fn tell_node(&mut self, kit: &mut Kit) -> Verdict {
        let Some(connecting) = &mut self.connecting else { return Verdict::Wait };
        let asked = self.account.asked(&self.client.stream);
        let backend = &connecting.backend.backend;
        let header = hop::header(kit.mesh.as_deref(), &self.account, backend, asked);
        // It fits into the empty buffer of a new connection.
        let written = (&self.backend.stream).write(&header).unwrap_or_default();
        if header.is_empty() || written < header.len() {
            connecting.search.refused(Refusal::Away, &self.account, kit);
            connecting.node_failed(Refusal::Away);
            return self.next_attempt(kit);
        }
        connecting.told = true;
        let until = connecting.search.until(kit.now, &self.account, kit);
        connecting.until = Some(until);
        kit.timers.set(until, Token::session(self.id, Side::Backend));
        Verdict::Wait
    }

    fn node_answered(&mut self, kit: &mut Kit) -> Verdict {
        let mut status = [0];
        let heard = (&self.backend.stream).read(&mut status);
        let Some(connecting) = &mut self.connecting else { return Verdict::Wait };
        let why = match heard {
            Ok(1..) => Refusal::of(Status::from_byte(status[0])),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Verdict::Wait;
            }
            Ok(0) | Err(_) => Some(Refusal::Away),
        };
        connecting.cancel(kit, self.id);
        match why {
            None => {
                if let Some(node) = &connecting.node {
                    node.to.opened();
                }
                self.begin(kit)
            }
            Some(why) => {
                connecting.search.refused(why, &self.account, kit);
                connecting.node_failed(why);
                self.next_attempt(kit)
            }
        }
    }

    fn next_attempt(&mut self, kit: &mut Kit) -> Verdict {
        let Some(connecting) = &mut self.connecting else { return Verdict::Wait };
        match connecting.search.next(&self.account, kit) {
            Err(Halt::Failed(failure)) => Verdict::Over(Ending::Failed(failure)),
            Err(Halt::NoDescriptor) => Verdict::SearchLater,
            Ok(Attempt { stream, backend, node, started, until }) => {
                // Dropping the old socket closes it and takes it out of the poller.
                self.backend = Leg::silent(stream);
                let told = false;
                (connecting.backend, connecting.node, connecting.told) = (backend, node, told);
                (connecting.started, connecting.until) = (started, until);
                self.attempt(kit)
            }
        }
    }

    /// What it was before an attempt was under way.
    fn back_to_search(self) -> Option<Waiting> {
        let Connecting { search, .. } = *self.connecting?;
        Some(Waiting { client: self.client.stream, search, account: self.account })
    }

    fn connected(&mut self, kit: &mut Kit) -> Verdict {
        let through_node = self.connecting.as_ref().is_some_and(|connecting| connecting.node.is_some());
        if through_node { self.tell_node(kit) } else { self.begin(kit) }
    }

    /// The way to the backend is open.
    fn begin(&mut self, kit: &mut Kit) -> Verdict {
        let Some(connecting) = self.connecting.take() else { return Verdict::Wait };
        self.account.connected(connecting.backend, connecting.started.elapsed());
        if let Some(guest) = &self.account.guest {
            guest.served();
            self.to_client = Direction::beginning_with(Box::new([Status::Ok.byte()]));
        }
        // Whoever connects to the backend itself says who the client is.
        if let Some(version) = self.account.proxy_protocol().filter(|_| connecting.node.is_none()) {
            let asked = self.account.asked(&self.client.stream);
            let header = proxy_protocol::header(version, self.account.client, asked);
            self.to_backend = Direction::beginning_with(header);
        }
        if connecting.node.is_some() {
            // What the backend has said may have come right behind the node's answer.
            self.backend.may_hold_more();
        }
        // Only now: before there is a backend, nothing that the client does matters.
        let token = Token::session(self.id, Side::Client);
        match kit.poller.add(&self.client.stream, token.into(), Interest::STREAM) {
            Ok(()) => {
                let verdict = self.relay(kit);
                // What the client has said by now took the end of the handshake along; else it is sent bare.
                if !self.begun {
                    socket::acknowledge(&self.backend.stream);
                }
                verdict
            }
            Err(_) => Verdict::Over(Ending::Failed(Failure::Limit)),
        }
    }

    fn relay_or_break(&mut self, kit: &mut Kit, side: Side, event: Event) -> Verdict {
        match (self.relay(kit), side) {
            // The connection is broken, and what could be saved has been moved.
            (Verdict::Wait, Side::Client) if event.failed() => Verdict::Over(Ending::ResetByClient),
            (Verdict::Wait, Side::Backend) if event.failed() => Verdict::Over(Ending::ResetByBackend),
            (verdict, _) => verdict,
        }
    }

    fn relay(&mut self, kit: &mut Kit) -> Verdict {
        let mut tools = Tools { scratch: &mut kit.scratch, pipes: &mut kit.pipes };
        // Both in any case: an answer is still delivered when its backend does not take the rest of the question.
        let up = self.to_backend.pump(&mut self.client, &mut self.backend, &mut tools);
        let down = self.to_client.pump(&mut self.backend, &mut self.client, &mut tools);
        self.account.moved(self.to_backend.moved, self.to_client.moved);
        if !self.begun && self.to_backend.moved > 0 {
            self.begun = true;
            socket::acknowledge(&self.backend.stream);
        }
        match (up, down) {
            (Err(Broken::Source), _) | (_, Err(Broken::Sink)) => Verdict::Over(Ending::ResetByClient),
            (Err(Broken::Sink), _) | (_, Err(Broken::Source)) => Verdict::Over(Ending::ResetByBackend),
            (Ok(_), Ok(_)) if self.to_backend.is_finished() && self.to_client.is_finished() => {
                Verdict::Over(Ending::Closed)
            }
            (Ok(up), Ok(down)) if up || down => Verdict::GoOn,
            (Ok(_), Ok(_)) => Verdict::Wait,
        }
    }

    fn end(self, kit: &mut Kit, ending: Ending) {
        if let Some(mut connecting) = self.connecting {
            connecting.cancel(kit, self.id);
        }
        self.to_backend.release(&mut kit.pipes);
        self.to_client.release(&mut kit.pipes);
        if ending != Ending::Closed {
            break_off(self.client.stream, &self.account, ending);
            socket::reset(self.backend.stream);
        }
        self.account.close(ending);
    }
}
