//! Doors: the listening sockets of a worker, and taking connections from them. A door that may take no more (its own
//! limit, the process's, no descriptors) is taken out of the poller, so that nobody spins on it; connections wait in the
//! kernel's backlog.
//!
//! A funnel's doors are for many listeners. Whose a connection is, is known once it is taken, so the limit of one listener
//! refuses there, and does not keep others waiting.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use netd_sys::poll::Interest;
use netd_sys::socket::{self, AcceptFailure};
use slab::Slab;
use tracing::warn;

use crate::account::Account;
use crate::gate::{Gate, Pass};
use crate::metrics::Failure;
use crate::peers::Handed;
use crate::routes::Routes;
use crate::session::Sessions;
use crate::snapshot::ListenerHandle;
use crate::table::{FunnelId, ListenerId, MESH_TCP, Protocol};
use crate::worker::{Kit, SharedSocket, Token};

/// The doors of one worker.
#[derive(Debug)]
pub(crate) struct Doors {
    slab: Slab<Door>,
    /// A listener has one door here, or several when it has more sockets than there are workers.
    by_id: HashMap<ListenerId, Vec<usize>>,
    /// Whom the doors of a funnel lead to.
    funnels: Funnels,
    /// Tells doors that had the same place apart.
    generation: u32,
    /// Those that wait for room.
    shut: Vec<usize>,
    /// All doors are shut until there are descriptors again.
    exhausted: bool,
    /// The places of the whole process.
    process: Arc<Gate>,
}

#[derive(Debug)]
struct Door {
    behind: Behind,
    socket: SharedSocket,
    number: u64,
    interest: Interest,
    watched: bool,
}

/// Who is behind a door.
#[derive(Debug)]
enum Behind {
    One(Arc<ListenerHandle>),
    /// Whoever the client asks for.
    Many(FunnelId),
    /// Whoever another node asks for.
    Nodes,
}

/// Connections that one door takes in one turn; then others have theirs.
const TURN: usize = 64;

enum Taken {
    One,
    /// None for now; the poller tells.
    None,
    /// This one was lost; the next may be there.
    Lost,
    Full,
    Exhausted,
    /// The socket is of no use.
    Dead(io::Error),
}

impl Doors {
    pub(crate) fn new(process: Arc<Gate>) -> Self {
        Self {
            slab: Slab::new(),
            by_id: HashMap::new(),
            funnels: HashMap::new(),
            generation: 0,
            shut: Vec::new(),
            exhausted: false,
            process,
        }
    }

    /// Makes a door to `socket`; without one, replaces what is behind the doors of this listener, or leads there whoever
    /// comes through its funnel and asks for it.
    pub(crate) fn put(
        &mut self,
        kit: &mut Kit,
        handle: Arc<ListenerHandle>,
        socket: Option<SharedSocket>,
        interest: Interest,
    ) -> io::Result<()> {
        if let Some(funnel) = &handle.listener.funnel {
            let routes = self.funnels.entry(Arc::clone(funnel)).or_default();
            routes.put(handle.listener.address, Arc::clone(&handle));
            return Ok(());
        }
        let Some(socket) = socket else {
            for index in self.by_id.get(&handle.listener.id).into_iter().flatten() {
                if let Some(door) = self.slab.get_mut(*index) {
                    door.behind = Behind::One(Arc::clone(&handle));
                }
            }
            self.reopen(kit);
            return Ok(());
        };
        let id = Arc::clone(&handle.listener.id);
        self.make(kit, id, Behind::One(handle), socket, interest)
    }

    /// Makes a door to `socket` for all listeners of the funnel.
    pub(crate) fn put_funnel(
        &mut self,
        kit: &Kit,
        funnel: &FunnelId,
        socket: SharedSocket,
        interest: Interest,
    ) -> io::Result<()> {
        self.make(kit, Arc::clone(funnel), Behind::Many(Arc::clone(funnel)), socket, interest)
    }

    /// Makes a door for other nodes.
    pub(crate) fn put_mesh(&mut self, kit: &Kit, socket: SharedSocket, interest: Interest) -> io::Result<()> {
        self.make(kit, MESH_TCP.into(), Behind::Nodes, socket, interest)
    }

    pub(crate) fn drop_mesh(&mut self, kit: &Kit) {
        self.close(kit, MESH_TCP);
    }

    fn make(
        &mut self,
        kit: &Kit,
        id: Arc<str>,
        behind: Behind,
        socket: SharedSocket,
        interest: Interest,
    ) -> io::Result<()> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        let index = entry.key();
        let number = (u64::from(self.generation) & GENERATIONS) << INDEX_BITS | index as u64;
        if !self.exhausted {
            kit.poller.add(&socket, Token::door(number).into(), interest)?;
        }
        self.by_id.entry(id).or_default().push(index);
        entry.insert(Door { behind, socket, number, interest, watched: !self.exhausted });
        Ok(())
    }

    pub(crate) fn drop_listener(&mut self, kit: &Kit, handle: &ListenerHandle) {
        let listener = &handle.listener;
        match &listener.funnel {
            None => self.close(kit, &listener.id),
            Some(funnel) => {
                if let Some(routes) = self.funnels.get_mut(funnel) {
                    routes.remove(listener.address);
                }
            }
        }
    }

    pub(crate) fn drop_funnel(&mut self, kit: &Kit, id: &FunnelId) {
        self.funnels.remove(id);
        self.close(kit, id);
    }

    fn close(&mut self, kit: &Kit, id: &str) {
        for index in self.by_id.remove(id).into_iter().flatten() {
            self.slab.remove(index).unwatch(kit);
        }
    }

    pub(crate) fn drop_all(&mut self, kit: &mut Kit) {
        self.by_id.clear();
        self.funnels.clear();
        self.shut.clear();
        std::mem::take(&mut self.slab).into_iter().for_each(|(_, mut door)| door.unwatch(kit));
    }

    /// Takes the last connections and lets go of all sockets. Of a socket that others wait for too, only one is told
    /// of a connection; it may have been us, so what is there when we stop listening is ours to take.
    pub(crate) fn retire(&mut self, kit: &mut Kit, sessions: &mut Sessions) {
        self.slab.iter_mut().for_each(|(_, door)| door.unwatch(kit));
        for (_, door) in &self.slab {
            for _ in 0..TURN {
                if !matches!(door.take(kit, sessions, &self.process, &self.funnels), Taken::One | Taken::Lost)
                {
                    break;
                }
            }
        }
        self.drop_all(kit);
    }

    /// Somebody knocks at a door.
    pub(crate) fn ready(&mut self, kit: &mut Kit, sessions: &mut Sessions, number: u64) {
        let index = (number & ((1 << INDEX_BITS) - 1)) as usize;
        let Some(door) = self.slab.get_mut(index).filter(|door| door.number == number) else { return };
        for _ in 0..TURN {
            // Without the reserve, the next client could be accepted and then not served.
            let taken = if kit.reserve.fill() {
                door.take(kit, sessions, &self.process, &self.funnels)
            } else {
                Taken::Exhausted
            };
            match taken {
                Taken::One | Taken::Lost => {}
                Taken::None => return,
                Taken::Full => {
                    door.unwatch(kit);
                    return self.shut.push(index);
                }
                Taken::Exhausted => return self.exhausted(kit),
                Taken::Dead(error) => {
                    warn!(listener = door.behind.id(), %error, "cannot accept any more");
                    return door.unwatch(kit);
                }
            }
        }
    }

    /// Opens the doors again whose gates have room; called when somebody has left.
    pub(crate) fn reopen(&mut self, kit: &mut Kit) {
        let (slab, process) = (&mut self.slab, &self.process);
        let exhausted = self.exhausted;
        self.shut.retain(|index| {
            let Some(door) = slab.get_mut(*index).filter(|door| !door.watched) else { return false };
            if exhausted || process.wait() || door.behind.gate().is_some_and(|gate| gate.wait()) {
                return true;
            }
            door.watch(kit);
            !door.watched
        });
    }

    fn exhausted(&mut self, kit: &mut Kit) {
        warn!(
            "no descriptors left: new connections wait; raise the limit on open files or lower max_connections"
        );
        self.exhausted = true;
        self.slab.iter_mut().for_each(|(_, door)| door.unwatch(kit));
        let look = kit.reserve.next_look(kit.now);
        kit.timers.set(look, Token::DESCRIPTORS);
    }

    /// Looks whether there are descriptors again.
    pub(crate) fn look_for_descriptors(&mut self, kit: &mut Kit) {
        if !kit.reserve.fill() {
            let look = kit.reserve.next_look(kit.now);
            return kit.timers.set(look, Token::DESCRIPTORS);
        }
        self.exhausted = false;
        self.shut = self.slab.iter().map(|(index, _)| index).collect();
        self.reopen(kit);
    }
}

impl Door {
    fn take(&self, kit: &mut Kit, sessions: &mut Sessions, process: &Arc<Gate>, funnels: &Funnels) -> Taken {
        let Some(places) = self.places(process) else { return Taken::Full };
        let (stream, client) = match socket::accept(&self.socket) {
            Ok(accepted) => accepted,
            Err(error) => {
                return match AcceptFailure::from(&error) {
                    AcceptFailure::Empty => Taken::None,
                    AcceptFailure::Connection => Taken::Lost,
                    AcceptFailure::Exhausted => Taken::Exhausted,
                    AcceptFailure::Socket => Taken::Dead(error),
                };
            }
        };
        kit.reserve.recovered();
        let (asked, found) = match &self.behind {
            Behind::One(handle) => (None, Some(Arc::clone(handle))),
            Behind::Many(funnel) => {
                let asked = stream.local_addr().ok();
                (asked, asked.and_then(|asked| asked_for(asked, funnels.get(funnel))))
            }
            Behind::Nodes => {
                sessions.admit(kit, stream, client, places.process);
                return Taken::One;
            }
        };
        // Nobody is there under what it asked for, or there is no room: the client is told at once.
        let Some((handle, places)) = found.and_then(|handle| places.at(handle)) else {
            socket::reset(stream);
            return Taken::Lost;
        };
        let Some(trail) = kit.trails.length(Protocol::Tcp, client) else {
            refuse(&handle, Failure::Loop);
            socket::reset(stream);
            return Taken::Lost;
        };
        let mut account = Account::open(handle, client, asked, places);
        account.trail = trail;
        match kit.peers.lighter(sessions.len()) {
            Some(peer) => peer.hand(Handed { stream, account, spare: kit.reserve.give() }),
            None => sessions.open(kit, stream, account),
        }
        Taken::One
    }

    /// A place in the process, and one at the listener if there is only one. `None`: full, and we are told when there is
    /// room.
    fn places(&self, process: &Arc<Gate>) -> Option<Places> {
        loop {
            let here = self.behind.gate().map(Gate::enter);
            match (here, process.enter()) {
                (None, Some(process)) => return Some(Places { process, listener: None }),
                (Some(Some(here)), Some(process)) => return Some(Places { process, listener: Some(here) }),
                (here, there) => {
                    let gate = self.behind.gate().filter(|_| here.as_ref().is_some_and(Option::is_none));
                    drop((here, there));
                    if gate.unwrap_or(process).wait() {
                        if let Behind::One(handle) = &self.behind {
                            refuse(handle, Failure::Limit);
                        }
                        return None;
                    }
                }
            }
        }
    }

    fn watch(&mut self, kit: &Kit) {
        let token = Token::door(self.number).into();
        self.watched = kit.poller.add(&self.socket, token, self.interest).is_ok();
    }

    fn unwatch(&mut self, kit: &Kit) {
        if std::mem::take(&mut self.watched) {
            // It was added by watch() or put(), so it is there.
            let _ = kit.poller.remove(&self.socket);
        }
    }
}

impl Behind {
    fn id(&self) -> &str {
        match self {
            Self::One(handle) => &handle.listener.id,
            Self::Many(funnel) => funnel,
            Self::Nodes => MESH_TCP,
        }
    }

    /// Of the only listener there is.
    fn gate(&self) -> Option<&Arc<Gate>> {
        match self {
            Self::One(handle) => Some(&handle.gate),
            Self::Many(_) | Self::Nodes => None,
        }
    }
}

/// What a connection takes before it is known whose it is.
struct Places {
    process: Pass,
    listener: Option<Pass>,
}

impl Places {
    /// With a place at the listener; `None` when that is full.
    fn at(self, handle: Arc<ListenerHandle>) -> Option<(Arc<ListenerHandle>, [Pass; 2])> {
        match self.listener.or_else(|| handle.gate.enter()) {
            Some(here) => Some((handle, [here, self.process])),
            None => {
                refuse(&handle, Failure::Limit);
                None
            }
        }
    }
}

fn refuse(handle: &ListenerHandle, why: Failure) {
    handle.meters.failed(why);
    handle.service.meters.failed(why);
}

fn asked_for(asked: SocketAddr, routes: Option<&Routes<Arc<ListenerHandle>>>) -> Option<Arc<ListenerHandle>> {
    routes?.find(asked.ip(), asked.port()).cloned()
}

type Funnels = HashMap<FunnelId, Routes<Arc<ListenerHandle>>>;

const INDEX_BITS: u32 = 32;
const GENERATIONS: u64 = (1 << 28) - 1;
