//! Finding a backend that answers: one attempt after another, each with its own time, all before a byte of the client
//! is read. So a backend that refuses or is silent costs a moment, never the connection.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_sys::socket::{self, Connecting};

use crate::account::Account;
use crate::metrics::Failure;
use crate::snapshot::{BackendHandle, Occupied, Pool};
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
    again: Option<(Arc<BackendHandle>, SocketAddr)>,
    /// The other family's address of the backend that was tried last.
    other_family: Option<(Arc<BackendHandle>, SocketAddr)>,
    tried: [u16; ATTEMPTS],
    attempts: usize,
    give_up: Instant,
    last: Failure,
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
    pub(crate) started: Instant,
    /// When to stop waiting; `None` when it has succeeded already.
    pub(crate) until: Option<Instant>,
}

impl Search {
    pub(crate) fn new(account: &Account, now: Instant) -> Self {
        let pool = account.listener.service.pool();
        let give_up = now + pool.connect_timeout.saturating_mul(PATIENCE).min(A_DAY);
        Self {
            pool,
            again: None,
            other_family: None,
            tried: [0; ATTEMPTS],
            attempts: 0,
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
            let Some((backend, address)) = self.candidate(account, kit) else { break };
            match kit.reserve.spending(|| socket::connect(address)) {
                Ok(Connecting { stream, done }) => {
                    let until = (!done).then(|| started + self.pool.connect_timeout.min(A_DAY));
                    return Ok(Attempt { stream, backend: backend.occupy(), started, until });
                }
                Err(error) => {
                    self.failed(&error);
                    if socket::no_descriptors(&error) {
                        self.again = Some((backend, address));
                        return Err(Halt::NoDescriptor);
                    }
                }
            }
        }
        Err(Halt::Failed(self.last))
    }

    /// The other family's address of the backend that has just refused, or the next backend: a program that listens
    /// on IPv4 only is reached from an IPv6 client all the same.
    fn candidate(&mut self, account: &Account, kit: &mut Kit) -> Option<(Arc<BackendHandle>, SocketAddr)> {
        if let Some(next) = self.again.take().or_else(|| self.other_family.take()) {
            return Some(next);
        }
        while self.attempts < ATTEMPTS {
            let tried = &self.tried[..self.attempts];
            let service = &account.listener.service;
            let (index, backend) = service.pick(&self.pool, account.client, tried, kit.random())?;
            if self.attempts > 0 {
                account.retried();
            }
            self.tried[self.attempts] = index;
            self.attempts += 1;
            let [first, second] = backend.addresses(account.client.ip(), account.target());
            self.other_family =
                second.filter(|_| first.is_some()).map(|address| (Arc::clone(backend), address));
            if let Some(address) = first.or(second) {
                return Some((Arc::clone(backend), address));
            }
        }
        None
    }

    /// Remembers why an attempt came to nothing.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        self.last = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::Timeout,
            _ if socket::no_descriptors(error) => Failure::Limit,
            _ => Failure::Unreachable,
        };
    }

    pub(crate) fn timed_out(&mut self) {
        self.last = Failure::Timeout;
        // Silence is of the machine, not of the family: the client has no time to hear it twice.
        self.other_family = None;
    }
}

/// Keeps the sum of now and a configured time representable.
const A_DAY: Duration = Duration::from_secs(86_400);
