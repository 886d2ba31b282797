//! Doors: the listening sockets of a worker, and taking connections from them. A door that may take no more (its own
//! limit, the process's, no descriptors) is taken out of the poller, so that nobody spins on it; connections wait in the
//! kernel's backlog.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use netd_sys::poll::Interest;
use netd_sys::socket::{self, AcceptFailure};
use slab::Slab;
use tracing::warn;

use crate::account::Account;
use crate::gate::{Gate, Pass};
use crate::metrics::Failure;
use crate::peers::Handed;
use crate::session::Sessions;
use crate::snapshot::ListenerHandle;
use crate::table::ListenerId;
use crate::worker::{Kit, SharedSocket, Token};

/// The doors of one worker.
#[derive(Debug)]
pub(crate) struct Doors {
    slab: Slab<Door>,
    /// A listener has one door here, or several when it has more sockets than there are workers.
    by_id: HashMap<ListenerId, Vec<usize>>,
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
    handle: Arc<ListenerHandle>,
    socket: SharedSocket,
    number: u64,
    interest: Interest,
    watched: bool,
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
            generation: 0,
            shut: Vec::new(),
            exhausted: false,
            process,
        }
    }

    /// Makes a door to `socket`; without one, replaces what is behind the doors of this listener.
    pub(crate) fn put(
        &mut self,
        kit: &mut Kit,
        handle: Arc<ListenerHandle>,
        socket: Option<SharedSocket>,
        interest: Interest,
    ) -> io::Result<()> {
        let Some(socket) = socket else {
            for index in self.by_id.get(&handle.listener.id).into_iter().flatten() {
                if let Some(door) = self.slab.get_mut(*index) {
                    door.handle = Arc::clone(&handle);
                }
            }
            self.reopen(kit);
            return Ok(());
        };
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        let index = entry.key();
        let number = (u64::from(self.generation) & GENERATIONS) << INDEX_BITS | index as u64;
        if !self.exhausted {
            kit.poller.add(&socket, Token::door(number).into(), interest)?;
        }
        self.by_id.entry(Arc::clone(&handle.listener.id)).or_default().push(index);
        entry.insert(Door { handle, socket, number, interest, watched: !self.exhausted });
        Ok(())
    }

    pub(crate) fn drop_listener(&mut self, kit: &mut Kit, id: &ListenerId) {
        for index in self.by_id.remove(id).into_iter().flatten() {
            self.slab.remove(index).unwatch(kit);
        }
    }

    pub(crate) fn drop_all(&mut self, kit: &mut Kit) {
        self.by_id.clear();
        self.shut.clear();
        std::mem::take(&mut self.slab).into_iter().for_each(|(_, mut door)| door.unwatch(kit));
    }

    /// Takes the last connections and lets go of all sockets. Of a socket that others wait for too, only one is told
    /// of a connection; it may have been us, so what is there when we stop listening is ours to take.
    pub(crate) fn retire(&mut self, kit: &mut Kit, sessions: &mut Sessions) {
        self.slab.iter_mut().for_each(|(_, door)| door.unwatch(kit));
        for (_, door) in &self.slab {
            for _ in 0..TURN {
                if !matches!(door.take(kit, sessions, &self.process), Taken::One | Taken::Lost) {
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
            let taken =
                if kit.reserve.fill() { door.take(kit, sessions, &self.process) } else { Taken::Exhausted };
            match taken {
                Taken::One | Taken::Lost => {}
                Taken::None => return,
                Taken::Full => {
                    door.unwatch(kit);
                    return self.shut.push(index);
                }
                Taken::Exhausted => return self.exhausted(kit),
                Taken::Dead(error) => {
                    warn!(listener = &*door.handle.listener.id, %error, "cannot accept any more");
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
            if exhausted || process.wait() || door.handle.gate.wait() {
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
    fn take(&self, kit: &mut Kit, sessions: &mut Sessions, process: &Arc<Gate>) -> Taken {
        let Some(places) = self.places(process) else { return Taken::Full };
        match socket::accept(&self.socket) {
            Ok((stream, client)) => {
                kit.reserve.recovered();
                let account = Account::open(Arc::clone(&self.handle), client, places);
                match kit.peers.lighter(sessions.len()) {
                    Some(peer) => peer.hand(Handed { stream, account, spare: kit.reserve.give() }),
                    None => sessions.open(kit, stream, account),
                }
                Taken::One
            }
            Err(error) => match AcceptFailure::from(&error) {
                AcceptFailure::Empty => Taken::None,
                AcceptFailure::Connection => Taken::Lost,
                AcceptFailure::Exhausted => Taken::Exhausted,
                AcceptFailure::Socket => Taken::Dead(error),
            },
        }
    }

    /// A place at this listener and one in the process. `None`: full, and we are told when there is room.
    fn places(&self, process: &Arc<Gate>) -> Option<[Pass; 2]> {
        loop {
            match (self.handle.gate.enter(), process.enter()) {
                (Some(here), Some(there)) => return Some([here, there]),
                (here, there) => {
                    let full = if here.is_none() { &self.handle.gate } else { process };
                    drop((here, there));
                    if full.wait() {
                        self.handle.meters.failed(Failure::Limit);
                        self.handle.service.meters.failed(Failure::Limit);
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

const INDEX_BITS: u32 = 32;
const GENERATIONS: u64 = (1 << 28) - 1;
