//! What the tables say at one moment, prepared for the data path, off the data path. A worker reaches a
//! service's current backends through one pointer and counts through handles that it holds already; it looks up nothing
//! by name.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::affinity::{Affinity, Hold};
pub(crate) use crate::backend::{BackendHandle, Occupied};
use crate::budget::Budget;
use crate::clock::moment;
use crate::ejection::{Door, Failed};
use crate::metrics::{Failure, Meters};
pub(crate) use crate::pool::Pool;
use crate::table::{Listener, Service, ServiceId};

/// A service for as long as it exists: its identity, its counters, and the backends of the moment.
#[derive(Debug)]
pub(crate) struct ServiceHandle {
    pub(crate) id: ServiceId,
    pub(crate) label: Arc<str>,
    pub(crate) meters: Arc<Meters>,
    lasting: Arc<Lasting>,
    current: ArcSwap<Pool>,
}

/// What goes on when the service is renamed.
#[derive(Debug, Default)]
struct Lasting {
    turn: AtomicU64,
    affinity: Arc<Affinity>,
    /// Of workers alone, for a moment, when an attempt has failed.
    budget: Mutex<Budget>,
    /// When the budget has to hear of a connection.
    budget_due: AtomicU64,
    /// One at a time, so that two do not eject the last two.
    ejecting: AtomicBool,
}

/// For whom a backend is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'t> {
    pub(crate) client: SocketAddr,
    /// Which door of the backend it wants.
    pub(crate) door: Door,
    /// Indexes into the pool of those that have failed it already.
    pub(crate) tried: &'t [u16],
    pub(crate) now: Instant,
    pub(crate) random: u64,
}

impl ServiceHandle {
    pub(crate) fn new(service: &Service, now: Instant) -> Self {
        Self {
            id: Arc::clone(&service.id),
            label: Arc::clone(&service.label),
            meters: Arc::default(),
            lasting: Arc::default(),
            current: ArcSwap::from_pointee(Pool::new(service, &[], now)),
        }
    }

    /// The same service under another label.
    pub(crate) fn renamed(&self, service: &Service, now: Instant) -> Self {
        Self {
            id: Arc::clone(&self.id),
            label: Arc::clone(&service.label),
            meters: Arc::clone(&self.meters),
            lasting: Arc::clone(&self.lasting),
            current: ArcSwap::from_pointee(Pool::new(service, self.current.load().members(), now)),
        }
    }

    /// The backends of the moment. Keep the pool while one connection tries them one after another.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.current.load_full()
    }

    /// Publishes other backends. Those that stay keep what lasts of them.
    pub(crate) fn replace(&self, service: &Service, now: Instant) {
        let next = Pool::new(service, self.current.load().members(), now);
        self.current.store(Arc::new(next));
    }

    /// Publishes that there is nobody.
    pub(crate) fn empty(&self) {
        self.current.store(Arc::new(self.current.load().emptied()));
    }

    /// Chooses a backend of `pool`, none of those that were tried. All workers take turns together, so that a service
    /// is shared out evenly whichever worker a connection comes to.
    pub(crate) fn pick<'p>(&self, pool: &'p Pool, ask: &Ask<'_>) -> Option<(u16, &'p Arc<BackendHandle>)> {
        let choose = || {
            // A second attempt takes nobody's turn, and clients of a backend that fails are spread over all others.
            let is_first = ask.tried.is_empty();
            let turn = if is_first { self.lasting.turn.fetch_add(1, Ordering::Relaxed) } else { ask.random };
            pool.choose(ask, turn)
        };
        let index = match pool.affinity() {
            None => choose()?,
            Some(timeout) => self.lasting.affinity.of(
                ask.client.ip(),
                ask.now,
                timeout,
                |own| pool.index_of(own).filter(|index| pool.would_take(*index, ask)),
                || choose().map(|index| (index, Arc::clone(&pool.at(index).id))),
            )?,
        };
        Some((index, pool.at(index)))
    }

    /// Keeps the client's backend for it until the hold is dropped, where clients have backends of their own.
    pub(crate) fn hold(&self, client: SocketAddr) -> Option<Hold> {
        self.current.load().affinity().and_then(|_| self.lasting.affinity.hold(client.ip()))
    }

    /// Tells the budget of a connection, when it has to hear of one.
    pub(crate) fn note_connection(&self, now: Instant) {
        let now = moment(now);
        if now >= self.lasting.budget_due.load(Ordering::Relaxed) {
            let due = self.budget(|budget| budget.roll(now, self.meters.accepted()));
            self.lasting.budget_due.store(due, Ordering::Relaxed);
        }
    }

    /// Whether a connection may make another attempt.
    pub(crate) fn may_retry(&self, now: Instant) -> bool {
        self.budget(|budget| budget.take(moment(now), self.meters.accepted()))
    }

    /// An attempt at a backend has failed: it may be passed over for a while, if somebody else is left.
    pub(crate) fn failed(&self, pool: &Pool, backend: &BackendHandle, failure: Failure, ask: &Ask<'_>) {
        backend.meters().failed(failure);
        if self.lasting.ejecting.swap(true, Ordering::Acquire) {
            // Another worker is at it; the next failure will be noted.
            return;
        }
        let (now, random) = (moment(ask.now), ask.random);
        let failed = Failed { failure, door: ask.door, is_remote: backend.is_remote(), now, random };
        if backend.ejection().failed(failed, || pool.has_another(backend, ask)) {
            backend.meters().ejected();
            self.meters.ejected();
        }
        self.lasting.ejecting.store(false, Ordering::Release);
    }

    fn budget<T>(&self, ask: impl FnOnce(&mut Budget) -> T) -> T {
        ask(&mut self.lasting.budget.lock().unwrap_or_else(PoisonError::into_inner))
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

/// No backend of another node is waited for longer than this: its data plane answers at once or not at all. Nor is one of
/// this node while there is another: it is dead, or has as many waiting as it takes.
pub(crate) const QUICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
