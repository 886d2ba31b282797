//! How often a connection or flow has been here already. A backend outside may be a listener of this very process, by
//! mistake that of its own service: then what is led there comes back as a new client, and one of them would take every
//! descriptor there is. So the addresses under which we speak to backends outside are remembered, and who comes from one
//! of them is ourselves. A service that leads to another is no mistake; a circle is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::table::Protocol;

/// Services that lead to each other one after another, at most: who comes by more goes in a circle.
const LONGEST: u8 = 4;

/// Those of all workers. Without backends outside nobody waits for the lock.
#[derive(Debug, Default)]
pub(crate) struct Trails {
    count: AtomicUsize,
    known: Mutex<HashMap<(Protocol, SocketAddr), u8>>,
}

/// Forgotten with the connection or flow that has it.
#[derive(Debug)]
pub(crate) struct Trail {
    trails: Arc<Trails>,
    key: (Protocol, SocketAddr),
}

impl Trails {
    /// Through how many services of ours this client has come; `None`: too many.
    ///
    /// A connection can be taken by another worker before its trail is laid, and counts from nothing then. A circle is
    /// found out the next time around.
    pub(crate) fn length(&self, protocol: Protocol, client: SocketAddr) -> Option<u8> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Some(0);
        }
        let length = self.known().get(&(protocol, canonical(client))).copied().unwrap_or(0);
        (length <= LONGEST).then_some(length)
    }

    /// What goes out from `from` is of a client that came through `length` services.
    pub(crate) fn lay(self: &Arc<Self>, protocol: Protocol, from: SocketAddr, length: u8) -> Trail {
        let key = (protocol, canonical(from));
        let mut known = self.known();
        known.insert(key, length.saturating_add(1));
        self.count.store(known.len(), Ordering::Release);
        Trail { trails: Arc::clone(self), key }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(Protocol, SocketAddr), u8>> {
        // A panic in between leaves a map that is whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let mut known = self.trails.known();
        known.remove(&self.key);
        self.trails.count.store(known.len(), Ordering::Release);
    }
}

/// As the other end sees it: an IPv4 client of a socket of both families, without a scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_grows_with_each_service_until_it_is_too_long_and_ends_with_its_connection() {
        let trails = Arc::new(Trails::default());
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(trails.length(Protocol::Tcp, at(1)), Some(0));
        let mut laid = Vec::new();
        for port in 1..=u16::from(LONGEST) {
            let length = trails.length(Protocol::Tcp, at(port - 1)).expect("not too long");
            assert_eq!(u16::from(length), port - 1);
            laid.push(trails.lay(Protocol::Tcp, at(port), length));
        }
        let last = trails.lay(Protocol::Tcp, at(9), LONGEST);
        assert_eq!(trails.length(Protocol::Tcp, at(9)), None);
        assert_eq!(trails.length(Protocol::Udp, at(9)), Some(0), "another protocol's port");
        let mapped = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 9));
        assert_eq!(trails.length(Protocol::Tcp, mapped), None);
        drop(last);
        assert_eq!(trails.length(Protocol::Tcp, at(9)), Some(0));
        drop(laid);
        assert_eq!(trails.count.load(Ordering::Acquire), 0);
    }
}
