//! Which client belongs to which backend, for services that ask for it: as long as the client has a connection, and for
//! a time after its last one. Bounded: who came longest ago is forgotten first.
//!
//! [`Table`] is pure. [`Affinity`] is the shell that all workers share: parts by client, each under a lock of its own
//! that is held for a lookup and never by the control side.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::flows::order::{Links, Order};
use crate::policy::hash_address;
use crate::table::BackendId;

/// Parts of a service's table, and the clients that each remembers: 65,536 in all, some ten megabytes when it is full.
const PARTS: usize = 16;
const CLIENTS: usize = 4096;

/// The clients of one part, in the order of their last coming or going.
pub(crate) struct Table {
    places: HashMap<IpAddr, u32>,
    clients: Slab<Client>,
    links: Links,
    order: Order,
    limit: usize,
    serial: u64,
}

struct Client {
    address: IpAddr,
    backend: BackendId,
    open: u32,
    last: Instant,
    /// Tells clients that had the same place apart.
    serial: u64,
}

/// A client's connection that keeps its place, see [`Table::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    place: u32,
    serial: u64,
}

impl Table {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            places: HashMap::new(),
            clients: Slab::new(),
            links: Links::default(),
            order: Order::default(),
            limit: limit.max(1),
            serial: 0,
        }
    }

    /// The backend of a client that has a connection, or had its last one less than `timeout` ago.
    pub(crate) fn find(&self, address: IpAddr, now: Instant, timeout: Duration) -> Option<&BackendId> {
        let client = self.clients.get(*self.places.get(&address)? as usize)?;
        let fresh = client.open > 0 || now.saturating_duration_since(client.last) < timeout;
        fresh.then_some(&client.backend)
    }

    /// The client comes, and belongs to `backend` from now on.
    pub(crate) fn put(&mut self, address: IpAddr, backend: &BackendId, now: Instant) {
        if let Some(&place) = self.places.get(&address) {
            let client = &mut self.clients[place as usize];
            if client.backend != *backend {
                client.backend = Arc::clone(backend);
            }
            return self.touch(place, now);
        }
        if self.clients.len() >= self.limit
            && let Some(oldest) = self.order.first()
        {
            self.links.remove(&mut self.order, oldest);
            let gone = self.clients.remove(oldest as usize);
            self.places.remove(&gone.address);
        }
        self.serial += 1;
        let client =
            Client { address, backend: Arc::clone(backend), open: 0, last: now, serial: self.serial };
        // The limit is far below 2^32.
        let place = self.clients.insert(client) as u32;
        self.places.insert(address, place);
        self.links.append(&mut self.order, place);
    }

    /// A connection of the client's is open until its ticket comes back. `None`: the client is not known.
    pub(crate) fn open(&mut self, address: IpAddr) -> Option<Ticket> {
        let place = *self.places.get(&address)?;
        let client = self.clients.get_mut(place as usize)?;
        client.open += 1;
        Some(Ticket { place, serial: client.serial })
    }

    /// The connection has ended.
    pub(crate) fn close(&mut self, ticket: Ticket, now: Instant) {
        let client = self.clients.get_mut(ticket.place as usize);
        let Some(client) = client.filter(|client| client.serial == ticket.serial) else { return };
        client.open = client.open.saturating_sub(1);
        self.touch(ticket.place, now);
    }

    fn touch(&mut self, place: u32, now: Instant) {
        self.clients[place as usize].last = now;
        if self.order.last() != Some(place) {
            self.links.remove(&mut self.order, place);
            self.links.append(&mut self.order, place);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(
            (self.places.len(), self.links.iter(&self.order).count()),
            (self.clients.len(), self.clients.len())
        );
        self.clients.len()
    }
}

/// The table of one service. It takes no memory until the first client comes.
#[derive(Default)]
pub(crate) struct Affinity(OnceLock<Box<[Mutex<Table>; PARTS]>>);

impl Affinity {
    /// The backend of the client: its own if `takes` says that this one can be had, else whom `pick` says.
    pub(crate) fn of<T>(
        &self,
        address: IpAddr,
        now: Instant,
        timeout: Duration,
        takes: impl FnOnce(&BackendId) -> Option<T>,
        pick: impl FnOnce() -> Option<(T, BackendId)>,
    ) -> Option<T> {
        let address = address.to_canonical();
        let mut table = self.part(address);
        if let Some(own) = table.find(address, now, timeout)
            && let Some(own) = takes(own)
        {
            let place = table.places[&address];
            table.touch(place, now);
            return Some(own);
        }
        let (picked, backend) = pick()?;
        table.put(address, &backend, now);
        Some(picked)
    }

    /// Keeps the client's place until the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>, address: IpAddr) -> Option<Hold> {
        let address = address.to_canonical();
        let ticket = self.part(address).open(address)?;
        Some(Hold { affinity: Arc::clone(self), address, ticket })
    }

    fn part(&self, address: IpAddr) -> MutexGuard<'_, Table> {
        let parts = self.0.get_or_init(|| Box::new(std::array::from_fn(|_| Mutex::new(Table::new(CLIENTS)))));
        // Below the number of parts, so it fits.
        let part = &parts[(hash_address(address) % PARTS as u64) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Affinity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Affinity").finish_non_exhaustive()
    }
}

/// An open connection of a client that belongs to a backend.
#[derive(Debug)]
pub(crate) struct Hold {
    affinity: Arc<Affinity>,
    address: IpAddr,
    ticket: Ticket,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.affinity.part(self.address).close(self.ticket, Instant::now());
    }
}

#[cfg(test)]
mod tests;
