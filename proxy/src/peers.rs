//! Handing a connection that was just accepted to a worker with fewer of them. The kernel shares connections out by a
//! hash: among many that is even, but of a few long ones most may come to one thread, while another has nothing to do.

use std::mem;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use netd_sys::poll::Waker;

use crate::account::Account;

/// All workers, seen from one of them.
#[derive(Debug)]
pub(crate) struct Peers {
    me: usize,
    all: Arc<[Peer]>,
}

/// What workers know of each other. Alone on its cache line: every turn of every worker writes its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Peer {
    /// How many connections it has; [`CLOSED`] when it takes no more.
    open: AtomicUsize,
    /// Accepted elsewhere, to be served here. Held only to push or to take all.
    handed: Mutex<Vec<Handed>>,
    waker: Arc<Waker>,
}

/// A connection on its way to another worker. It brings the descriptor that its backend will need: the worker that it
/// comes to may have none left.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) stream: TcpStream,
    pub(crate) account: Account,
    pub(crate) spare: Option<OwnedFd>,
}

const CLOSED: usize = usize::MAX;
/// Among more connections than this the hash is even enough, and handing over costs a wake-up.
const FEW: usize = 16;

impl Peer {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self { open: AtomicUsize::new(0), handed: Mutex::default(), waker }
    }

    pub(crate) fn hand(&self, connection: Handed) {
        // Counted at once: the peer itself counts it only when it has woken.
        self.open.fetch_add(1, Ordering::Relaxed);
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        self.waker.wake();
    }
}

impl Peers {
    pub(crate) fn new(me: usize, all: Arc<[Peer]>) -> Self {
        Self { me, all }
    }

    /// Tells the others how many connections this worker has.
    pub(crate) fn publish(&self, open: usize) {
        self.all[self.me].open.store(open, Ordering::Relaxed);
    }

    /// Tells the others that this worker takes no more.
    pub(crate) fn close(&self) {
        self.publish(CLOSED);
    }

    /// A worker that has fewer connections than the `open` ones here, by more than one.
    pub(crate) fn lighter(&self, open: usize) -> Option<&Peer> {
        if !(2..=FEW).contains(&open) {
            return None;
        }
        let load = |peer: &&Peer| peer.open.load(Ordering::Relaxed);
        self.all.iter().min_by_key(load).filter(|peer| load(peer) < open - 1)
    }

    /// What others have handed to this worker.
    pub(crate) fn handed(&self) -> Vec<Handed> {
        mem::take(&mut self.all[self.me].handed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use netd_sys::poll::Poller;

    use super::*;
    use crate::gate::Gate;
    use crate::snapshot::{ListenerHandle, ServiceHandle};
    use crate::table::{Listener, Policy, Protocol, Service, Source};

    fn connection() -> Handed {
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listening.local_addr().unwrap();
        let service = Service {
            id: "s".into(),
            label: "s".into(),
            policy: Policy::RoundRobin,
            backends: Vec::new(),
            connect_timeout: std::time::Duration::ZERO,
            udp_idle: std::time::Duration::ZERO,
            ..Service::default()
        };
        let listener = Listener {
            id: "l".into(),
            protocol: Protocol::Tcp,
            address,
            service: "s".into(),
            funnel: None,
            target_port: None,
            proxy_protocol: None,
            source: Source::Own,
            limit: 9,
        };
        let gate = Arc::new(Gate::new(9, Arc::new([])));
        let places = [gate.enter().unwrap(), gate.enter().unwrap()];
        let service = Arc::new(ServiceHandle::new(&service, std::time::Instant::now()));
        let handle = Arc::new(ListenerHandle { listener, service, meters: Arc::default(), gate });
        let stream = TcpStream::connect(address).unwrap();
        Handed { stream, account: Account::open(handle, address, None, places), spare: None }
    }

    #[test]
    fn a_few_are_shared_out_and_a_closed_worker_gets_none() {
        let poller = Poller::new().unwrap();
        let waker = Arc::new(Waker::new(&poller, 0).unwrap());
        let all: Arc<[Peer]> = (0..2).map(|_| Peer::new(Arc::clone(&waker))).collect();
        let (first, second) = (Peers::new(0, Arc::clone(&all)), Peers::new(1, all));
        let is_handed = |open| {
            first.publish(open);
            first.lighter(open).map(|peer| peer.hand(connection())).is_some()
        };
        assert!(!is_handed(0) && !is_handed(1), "as many there as here, or one less");
        assert!(is_handed(2), "there is nobody there");
        assert!(!is_handed(2), "the one on its way counts");
        assert!(is_handed(3));
        assert_eq!(second.handed().len(), 2);
        assert!(!is_handed(FEW + 1), "many are even enough");
        second.close();
        assert!(!is_handed(9));
        assert!(first.handed().is_empty() && second.handed().is_empty());
    }
}
