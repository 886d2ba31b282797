//! One backend as workers see it: where it is, what it has, and what is held against it. A change of the tables makes a
//! new handle; what lasts from one to the next is shared between them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netd_sys::socket;

use crate::clock::moment;
use crate::ejection::{Door, Ejection};
use crate::metrics::Meters;
use crate::table::{Backend, BackendId, BackendState, Place, Protocol};
use crate::trails::{Trail, Trails};

/// A backend at one moment of the tables.
#[derive(Debug)]
pub(crate) struct BackendHandle {
    pub(crate) id: BackendId,
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    pub(crate) weight: u16,
    pub(crate) state: BackendState,
    pub(crate) place: Place,
    /// Lives as long as anybody holds it, through all pools that name this backend.
    lasting: Arc<Lasting>,
    /// Of these addresses since they were last found well: the same name at another address has not failed yet.
    ejection: Arc<Ejection>,
}

#[derive(Debug, Default)]
struct Lasting {
    /// Connections and flows.
    open: AtomicU32,
    meters: Meters,
    /// The family of the address that refused a datagram last: 4, 6, or 0. A hint for flows to come.
    shunned: AtomicU8,
    /// The moment it began to drain; 0 when it does not.
    drains_since: AtomicU64,
    /// The moment at which what is open then is cut; 0 when there is none.
    cut_at: AtomicU64,
    /// It is about to be gone: known at once to those who still hold an earlier table.
    leaves: AtomicBool,
}

impl BackendHandle {
    /// The handle of `backend`, with what lasts of it from `before` (in the order of ids). `drain`: how long its
    /// connections may go on from when it begins to drain.
    pub(crate) fn carried_over(
        backend: &Backend,
        before: &[Arc<Self>],
        drain: Option<Duration>,
        now: Instant,
    ) -> Arc<Self> {
        let old =
            before.binary_search_by(|candidate| candidate.id.cmp(&backend.id)).ok().map(|at| &before[at]);
        let (v4, v6) = (backend.v4.map(SocketAddr::V4), backend.v6.map(SocketAddr::V6));
        let same = old.filter(|old| (old.v4, old.v6, old.place) == (v4, v6, backend.place));
        // Whoever asked it has found it well again, after whatever failed there.
        let is_back =
            old.is_some_and(|old| old.state == BackendState::Failing) && backend.state == BackendState::Ready;
        let same = same.filter(|_| !is_back);
        let handle = Self {
            id: Arc::clone(&backend.id),
            v4,
            v6,
            weight: backend.weight.max(1),
            state: backend.state,
            place: backend.place,
            lasting: old.map(|old| Arc::clone(&old.lasting)).unwrap_or_default(),
            ejection: same.map(|old| Arc::clone(&old.ejection)).unwrap_or_default(),
        };
        handle.lasting.drain(backend.state, drain, now);
        handle.lasting.leaves.store(backend.state == BackendState::Leaving, Ordering::Relaxed);
        Arc::new(handle)
    }

    /// Where a client's datagrams are led: to the backend's address of the client's own family where there is one, and
    /// that has not refused the last datagram.
    pub(crate) fn address(&self, client: IpAddr, port: Option<u16>) -> Option<SocketAddr> {
        match self.addresses(client, port) {
            [Some(first), Some(second)] if family(first) == self.lasting.shunned.load(Ordering::Relaxed) => {
                Some(second)
            }
            [first, second] => first.or(second),
        }
    }

    /// The address of the other family than that one, which nobody listens at. Who comes next begins with it.
    pub(crate) fn other_than(&self, refused: SocketAddr, port: Option<u16>) -> Option<SocketAddr> {
        let [_, other] = self.addresses(refused.ip(), port);
        self.lasting.shunned.store(family(refused), Ordering::Relaxed);
        other
    }

    /// The address of the client's own family and that of the other. `port` ([`Listener::target`]) replaces their own.
    ///
    /// [`Listener::target`]: crate::table::Listener::target
    pub(crate) fn addresses(&self, client: IpAddr, port: Option<u16>) -> [Option<SocketAddr>; 2] {
        let both = if client.is_ipv4() { [self.v4, self.v6] } else { [self.v6, self.v4] };
        both.map(|address| {
            let mut address = address?;
            address
                .set_port(port.filter(|_| self.place != Place::Elsewhere).unwrap_or_else(|| address.port()));
            Some(address)
        })
    }

    /// Whether it is where `other` was.
    pub(crate) fn is_at_the_place_of(&self, other: &Self) -> bool {
        (self.v4, self.v6, self.place) == (other.v4, other.v6, other.place)
    }

    pub(crate) fn is_here(&self) -> bool {
        self.place == Place::Here
    }

    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.place, Place::Node { .. })
    }

    pub(crate) fn ejection(&self) -> &Ejection {
        &self.ejection
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.lasting.meters
    }

    /// Whether it is about to be gone, whatever the table of this handle says.
    pub(crate) fn leaves(&self) -> bool {
        self.lasting.leaves.load(Ordering::Relaxed)
    }

    /// When what is open there is cut, if it drains and there is a limit.
    pub(crate) fn cut_at(&self) -> Option<u64> {
        Some(self.lasting.cut_at.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Whether what began at `began` is to be cut by now. What came while it drained did because nobody else was left, and
    /// may have come a moment ago.
    pub(crate) fn is_cut(&self, began: Instant, now: Instant) -> bool {
        let since = self.lasting.drains_since.load(Ordering::Relaxed);
        self.cut_at().is_some_and(|at| moment(began) <= since && at <= moment(now))
    }

    /// Counts a connection (or flow) until the guard is dropped.
    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.lasting.open.fetch_add(1, Ordering::Relaxed);
        Occupied { backend: Arc::clone(self), trail: None }
    }

    /// It was reached through this door.
    pub(crate) fn reached(&self, door: Door) {
        self.ejection.reached(door);
    }

    pub(crate) fn open(&self) -> u32 {
        self.lasting.open.load(Ordering::Relaxed)
    }
}

impl Lasting {
    /// The time of a drain counts from its beginning, however often the tables come again.
    fn drain(&self, state: BackendState, limit: Option<Duration>, now: Instant) {
        let is_new = self.drains_since.load(Ordering::Relaxed) == 0;
        let since = match state {
            BackendState::Draining | BackendState::Leaving if is_new => moment(now).max(1),
            BackendState::Draining | BackendState::Leaving => self.drains_since.load(Ordering::Relaxed),
            BackendState::Starting | BackendState::Ready | BackendState::Failing => 0,
        };
        let cut = limit
            .filter(|_| since > 0)
            .map_or(0, |limit| since.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)));
        self.drains_since.store(since, Ordering::Relaxed);
        self.cut_at.store(cut, Ordering::Relaxed);
    }
}

fn family(address: SocketAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// A connection's hold on its backend.
#[derive(Debug)]
pub(crate) struct Occupied {
    pub(crate) backend: Arc<BackendHandle>,
    /// By which it is known again if it comes back.
    trail: Option<Box<Trail>>,
}

impl Occupied {
    /// Remembers `socket`, if it is connected to a backend outside, as that of a client who came through `length` services.
    pub(crate) fn lay_trail(
        &mut self,
        trails: &Arc<Trails>,
        protocol: Protocol,
        socket: impl AsFd,
        length: u8,
    ) {
        if self.backend.place == Place::Elsewhere {
            let from = socket::local_address(socket).ok();
            self.trail = from.map(|from| Box::new(trails.lay(protocol, from, length)));
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.backend.lasting.open.fetch_sub(1, Ordering::Relaxed);
    }
}
