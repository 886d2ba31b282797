//! What the workers read: services and listeners made ready for the data path, off the data path. A worker reaches a
//! service's current backends through one pointer and counts through handles that it holds already; it looks up nothing
//! by name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::metrics::Meters;
use crate::policy::{Candidate, Draw, Picker};
use crate::table::{Backend, BackendId, BackendState, Listener, Place, Service, ServiceId};

/// A service for as long as it exists: its identity, its counters, and the backends of the moment.
#[derive(Debug)]
pub(crate) struct ServiceHandle {
    pub(crate) id: ServiceId,
    pub(crate) label: Arc<str>,
    pub(crate) meters: Arc<Meters>,
    turn: AtomicU64,
    current: ArcSwap<Pool>,
}

impl ServiceHandle {
    pub(crate) fn new(service: &Service) -> Self {
        Self {
            id: Arc::clone(&service.id),
            label: Arc::clone(&service.label),
            meters: Arc::default(),
            turn: AtomicU64::new(0),
            current: ArcSwap::from_pointee(Pool::new(service, &[])),
        }
    }

    /// The same service under another label.
    pub(crate) fn renamed(&self, service: &Service) -> Self {
        Self {
            id: Arc::clone(&self.id),
            label: Arc::clone(&service.label),
            meters: Arc::clone(&self.meters),
            turn: AtomicU64::new(self.turn.load(Ordering::Relaxed)),
            current: ArcSwap::from_pointee(Pool::new(service, &self.current.load().all)),
        }
    }

    /// The backends of the moment. Keep the pool while one connection tries them one after another.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.current.load_full()
    }

    /// Publishes other backends. Those that stay keep their count of open connections.
    pub(crate) fn replace(&self, service: &Service) {
        let next = Pool::new(service, &self.current.load().all);
        self.current.store(Arc::new(next));
    }

    /// Publishes that there is nobody.
    pub(crate) fn empty(&self) {
        self.current.store(Arc::new(self.current.load().emptied()));
    }

    /// Chooses a backend of `pool` for `client`, none of `tried`. All workers take turns together, so that a service
    /// is shared out evenly whichever worker a connection comes to.
    pub(crate) fn pick<'p>(
        &self,
        pool: &'p Pool,
        client: SocketAddr,
        tried: &[u16],
        random: u64,
    ) -> Option<(u16, &'p Arc<BackendHandle>)> {
        // A second attempt takes nobody's turn, and clients of a backend that fails are spread over all others.
        let turn = if tried.is_empty() { self.turn.fetch_add(1, Ordering::Relaxed) } else { random };
        let draw = Draw { turn, client, random, tried };
        let index = pool.picker.pick(&draw, pool.ready.len(), |index| pool.ready[index].load())?;
        Some((u16::try_from(index).ok()?, &pool.ready[index]))
    }
}

/// The backends of a service at one moment; never changed once published.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Those that take new connections, in the order of their ids: the same on every node.
    pub(crate) ready: Box<[Arc<BackendHandle>]>,
    /// Those and the draining ones.
    all: Box<[Arc<BackendHandle>]>,
    picker: Picker,
    pub(crate) connect_timeout: Duration,
    pub(crate) udp_idle: Duration,
}

impl Pool {
    fn new(service: &Service, before: &[Arc<BackendHandle>]) -> Self {
        let mut wanted: Vec<&Backend> = service.backends.iter().collect();
        wanted.sort_by(|left, right| left.id.cmp(&right.id));
        wanted.dedup_by(|left, right| left.id == right.id);
        wanted.truncate(usize::from(u16::MAX));
        let all: Box<[_]> =
            wanted.iter().map(|backend| BackendHandle::carried_over(backend, before)).collect();
        let ready: Box<[_]> = std::iter::zip(&wanted, &all)
            .filter(|(backend, _)| backend.state == BackendState::Ready)
            .map(|(_, handle)| Arc::clone(handle))
            .collect();
        let candidates: Vec<Candidate<'_>> =
            ready.iter().map(|handle| Candidate { key: &handle.id, weight: handle.weight }).collect();
        let picker = Picker::new(service.policy, &candidates);
        Self { picker, ready, all, connect_timeout: service.connect_timeout, udp_idle: service.udp_idle }
    }

    fn emptied(&self) -> Self {
        Self {
            ready: Box::default(),
            all: Box::default(),
            picker: Picker::RoundRobin,
            connect_timeout: self.connect_timeout,
            udp_idle: self.udp_idle,
        }
    }

    /// All backends and how many connections and flows each has.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&BackendId, u32)> {
        self.all.iter().map(|backend| (&backend.id, backend.load().0))
    }

    /// The backend of that name, whatever its state is.
    pub(crate) fn find(&self, id: &str) -> Option<&Arc<BackendHandle>> {
        self.all.binary_search_by(|candidate| (*candidate.id).cmp(id)).ok().map(|at| &self.all[at])
    }

    /// Whether this backend may go on with what it has: it is ready or draining, at the same addresses.
    pub(crate) fn keeps(&self, backend: &Arc<BackendHandle>) -> bool {
        self.find(&backend.id)
            .is_some_and(|found| (found.v4, found.v6, found.place) == (backend.v4, backend.v6, backend.place))
    }
}

/// One backend. Its count of open connections lives as long as anybody holds it, through all pools that name it.
#[derive(Debug)]
pub(crate) struct BackendHandle {
    pub(crate) id: BackendId,
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    weight: u16,
    pub(crate) place: Place,
    open: Arc<AtomicU32>,
    /// The family of the address that refused a datagram last: 4, 6, or 0. A hint for flows to come.
    shunned: Arc<AtomicU8>,
}

impl BackendHandle {
    fn carried_over(backend: &Backend, before: &[Arc<Self>]) -> Arc<Self> {
        let old = before
            .binary_search_by(|candidate| candidate.id.cmp(&backend.id))
            .map(|at| (Arc::clone(&before[at].open), Arc::clone(&before[at].shunned)));
        let (open, shunned) = old.unwrap_or_default();
        Arc::new(Self {
            id: Arc::clone(&backend.id),
            v4: backend.v4.map(SocketAddr::V4),
            v6: backend.v6.map(SocketAddr::V6),
            weight: backend.weight.max(1),
            place: backend.place,
            open,
            shunned,
        })
    }

    pub(crate) fn is_here(&self) -> bool {
        self.place == Place::Here
    }

    /// Where a client's datagrams are led: to the backend's address of the client's own family where there is one, and
    /// that has not refused the last datagram.
    pub(crate) fn address(&self, client: IpAddr, port: Option<u16>) -> Option<SocketAddr> {
        match self.addresses(client, port) {
            [Some(first), Some(second)] if family(first) == self.shunned.load(Ordering::Relaxed) => {
                Some(second)
            }
            [first, second] => first.or(second),
        }
    }

    /// The address of the other family than that one, which nobody listens at. Who comes next begins with it.
    pub(crate) fn other_than(&self, refused: SocketAddr, port: Option<u16>) -> Option<SocketAddr> {
        let [_, other] = self.addresses(refused.ip(), port);
        self.shunned.store(family(refused), Ordering::Relaxed);
        other
    }

    /// The address of the client's own family and that of the other. `port` ([`Listener::target`]) replaces their own.
    pub(crate) fn addresses(&self, client: IpAddr, port: Option<u16>) -> [Option<SocketAddr>; 2] {
        let both = if client.is_ipv4() { [self.v4, self.v6] } else { [self.v6, self.v4] };
        both.map(|address| {
            let mut address = address?;
            address
                .set_port(port.filter(|_| self.place != Place::Elsewhere).unwrap_or_else(|| address.port()));
            Some(address)
        })
    }

    /// Counts a connection (or flow) until the guard is dropped.
    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.open.fetch_add(1, Ordering::Relaxed);
        Occupied { backend: Arc::clone(self) }
    }

    fn load(&self) -> (u32, u16) {
        (self.open.load(Ordering::Relaxed), self.weight)
    }
}

fn family(address: SocketAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// A connection's hold on its backend.
#[derive(Debug)]
pub(crate) struct Occupied {
    pub(crate) backend: Arc<BackendHandle>,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.backend.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listener as workers see it. Replacing a listener makes a new one with the same counters and the same gate.
#[derive(Debug)]
pub(crate) struct ListenerHandle {
    pub(crate) listener: Listener,
    pub(crate) service: Arc<ServiceHandle>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) gate: Arc<crate::gate::Gate>,
}

#[cfg(test)]
mod tests;
