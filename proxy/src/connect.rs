//! Finding a backend that answers: one attempt after another, each with its own time, all before a byte of the client
//! is read. So a backend that refuses or is silent costs a moment, never the connection.
//!
//! A backend of another node is tried through that node: an attempt is then a connection to its mesh address, and has
//! succeeded when the node says so.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_sys::socket::{self, Connecting};

use crate::account::Account;
use crate::hop::{Node, Refusal};
use crate::metrics::Failure;
use crate::snapshot::{Ask, BackendHandle, Occupied, Pool};
use crate::source;
use crate::table::{Place, Protocol};
use crate::worker::Kit;

/// No connection tries more backends than this...
const ATTEMPTS: usize = 8;
/// ...nor begins another attempt after this many times the time of one.
const PATIENCE: u32 = 3;

/// The search of one connection for a backend.
#[derive(Debug)]
pub(crate) struct Search {
    pool: Arc<Pool>,
    /// What is to be tried again, because there was no descriptor for it.
    again: Option<Target>,
    /// The other family's address of the backend that was tried last.
    other_family: Option<Target>,
    tried: [u16; ATTEMPTS],
    attempts: usize,
    /// The service has allowed one attempt more.
    granted: bool,
    /// The backend that was tried last.
    current: Option<Arc<BackendHandle>>,
    give_up: Instant,
    last: Failure,
}

/// Where an attempt goes.
#[derive(Clone, Debug)]
struct Target {
    backend: Arc<BackendHandle>,
    address: SocketAddr,
    /// Through whom, if the address is not the backend's own.
    node: Option<Arc<Node>>,
}

/// Why a search has stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Halt {
    /// Nobody is left to try, or no time: the reason of the last attempt.
    Failed(Failure),
    /// The process has no descriptor for the next attempt. Going on later repeats that one.
    NoDescriptor,
}

/// One attempt that is on its way or has succeeded.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) stream: TcpStream,
    pub(crate) backend: Occupied,
    /// The node that is to lead to it.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) started: Instant,
    /// When to stop waiting; `None` when it has succeeded already.
    pub(crate) until: Option<Instant>,
}

impl Search {
    pub(crate) fn new(account: &Account, now: Instant) -> Self {
        let pool = account.listener.service.pool();
        let give_up = now + pool.patience(PATIENCE).min(A_DAY);
        Self {
            pool,
            again: None,
            other_family: None,
            tried: [0; ATTEMPTS],
            attempts: 0,
            granted: false,
            current: None,
            give_up,
            last: Failure::NoBackend,
        }
    }

    /// Starts the next attempt, passing over backends that fail at once.
    pub(crate) fn next(&mut self, account: &Account, kit: &mut Kit) -> Result<Attempt, Halt> {
        loop {
            let started = Instant::now();
            if self.attempts > 0 && started >= self.give_up {
                break;
            }
            let Some(target) = self.candidate(account, kit) else { break };
            match kit.reserve.spending(|| target.connect(account, self.pool.leads_back)) {
                Ok(Connecting { stream, done }) => {
                    let until = (!done).then(|| self.until(started, account, kit));
                    let Target { backend, node, .. } = target;
                    let mut backend = backend.occupy();
                    backend.lay_trail(&kit.trails, Protocol::Tcp, &stream, account.trail);
                    return Ok(Attempt { stream, backend, node, started, until });
                }
                Err(error) => {
                    self.failed(&error, account, kit);
                    if socket::no_descriptors(&error) {
                        self.again = Some(target);
                        return Err(Halt::NoDescriptor);
                    }
                    target.node.inspect(|node| node.failed(Refusal::Away));
                }
            }
        }
        Err(Halt::Failed(self.last))
    }

    /// How long to wait for what begins now.
    pub(crate) fn until(&self, now: Instant, account: &Account, kit: &mut Kit) -> Instant {
        let limit = self.current.as_ref().map_or(A_DAY, |backend| {
            if self.has_another(backend, account, kit) {
                self.pool.quick_timeout(backend)
            } else {
                self.pool.connect_timeout(backend)
            }
        });
        now + limit.min(A_DAY)
    }

    /// Until when to go on waiting for an attempt that began at `started`, although its time is over: it was given little,
    /// because of others who can be tried no more.
    pub(crate) fn extended(&mut self, started: Instant, account: &Account, kit: &mut Kit) -> Option<Instant> {
        let backend = self.current.as_ref()?;
        let whole = started + self.pool.connect_timeout(backend).min(A_DAY);
        if kit.now >= whole {
            return None;
        }
        let goes_on = kit.now < self.give_up
            && self.has_another(backend, account, kit)
            && account.listener.service.may_retry(kit.now);
        self.granted = goes_on;
        (!goes_on).then_some(whole)
    }

    /// Whether somebody is left to be tried after this one.
    fn has_another(&self, backend: &BackendHandle, account: &Account, kit: &mut Kit) -> bool {
        self.attempts < ATTEMPTS
            && self.pool.has_another(backend, &ask(account, &self.tried[..self.attempts], kit))
    }

    /// The other family's address of the backend that has just refused, or the next backend: a program that listens
    /// on IPv4 only is reached from an IPv6 client all the same.
    fn candidate(&mut self, account: &Account, kit: &mut Kit) -> Option<Target> {
        if let Some(next) = self.again.take().or_else(|| self.other_family.take()) {
            return Some(next);
        }
        while self.attempts < ATTEMPTS {
            let backend = self.pick(account, kit)?;
            match backend.place {
                // A guest never comes here: it is led to a backend of this node.
                Place::Node { mesh } => {
                    match kit.mesh.as_ref().and_then(|table| table.at(mesh)).cloned() {
                        Some(node) => return Some(Target { backend, address: mesh, node: Some(node) }),
                        // The node has died; its backends will have gone in a moment.
                        None => {
                            self.last = Failure::Unreachable;
                            self.blame(account, kit);
                        }
                    }
                }
                Place::Here | Place::Elsewhere => {
                    let [first, second] = backend.addresses(account.client.ip(), account.target_port());
                    let target = |address| Target { backend: Arc::clone(&backend), address, node: None };
                    self.other_family = second.filter(|_| first.is_some()).map(target);
                    if let Some(address) = first.or(second) {
                        return Some(target(address));
                    }
                }
            }
        }
        None
    }

    fn pick(&mut self, account: &Account, kit: &mut Kit) -> Option<Arc<BackendHandle>> {
        if let Some(guest) = &account.guest {
            self.attempts = ATTEMPTS;
            self.current = Some(Arc::clone(&guest.backend));
            return self.current.clone();
        }
        let service = &account.listener.service;
        let tried = &self.tried[..self.attempts];
        let (index, backend) = service.pick(&self.pool, &ask(account, tried, kit))?;
        let backend = Arc::clone(backend);
        if self.attempts > 0 {
            if !std::mem::take(&mut self.granted) && !service.may_retry(kit.now) {
                account.denied();
                return None;
            }
            account.retried();
        }
        self.tried[self.attempts] = index;
        self.attempts += 1;
        self.current = Some(Arc::clone(&backend));
        Some(backend)
    }

    /// The node that was asked says that there will be no backend.
    pub(crate) fn refused(&mut self, why: Refusal, account: &Account, kit: &mut Kit) {
        self.last = why.failure();
        self.blame(account, kit);
    }

    /// Remembers why an attempt came to nothing.
    pub(crate) fn failed(&mut self, error: &io::Error, account: &Account, kit: &mut Kit) {
        self.last = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::Timeout,
            _ if socket::no_descriptors(error) => Failure::Limit,
            _ => Failure::Unreachable,
        };
        if self.last != Failure::Limit {
            self.blame(account, kit);
        }
    }

    pub(crate) fn timed_out(&mut self, account: &Account, kit: &mut Kit) {
        self.last = Failure::Timeout;
        // Silence is of the machine, not of the family: the client has no time to hear it twice.
        self.other_family = None;
        self.blame(account, kit);
    }

    /// Holds the failure against the backend that was tried, when it has no other address to be tried.
    fn blame(&self, account: &Account, kit: &mut Kit) {
        if let Some(backend) = self.current.as_ref().filter(|_| self.other_family.is_none()) {
            account.listener.service.failed(&self.pool, backend, self.last, &ask(account, &[], kit));
        }
    }
}

fn ask<'t>(account: &Account, tried: &'t [u16], kit: &mut Kit) -> Ask<'t> {
    Ask { client: account.client, door: account.door(), tried, now: kit.now, random: kit.random() }
}

impl Target {
    fn connect(&self, account: &Account, leads_back: bool) -> io::Result<Connecting> {
        let wanted = self.node.is_none() && self.backend.is_here() && leads_back && account.is_as_client();
        let source = source::towards(account.client, self.address).filter(|_| wanted);
        if let Some(source) = source {
            if let Some(connecting) = socket::connect_as(source, self.address)? {
                return Ok(connecting);
            }
            account.lost_address();
        }
        socket::connect(self.address)
    }
}

/// Keeps the sum of now and a configured time representable.
const A_DAY: Duration = Duration::from_secs(86_400);
