//! A steady load of new connections that checks every byte: opened at a fixed rate whatever becomes of those before (an
//! open loop, with a bound on those in flight), each with a seed of its own, answered by `lab_echo` with its name, the
//! client's address as it saw it, and the same bytes.
//!
//! offer -> workers (threads that live in the client's namespace) -> attempts -> tally.

pub mod talk;
pub mod tally;
pub mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::eventually::eventually;
use crate::place::{PATIENCE, Place};
pub use talk::{Failure, Talk};
pub use tally::{Attempt, Tally};
pub use wire::Answer;

/// What to ask of an address.
#[derive(Clone, Debug)]
pub struct Offer {
    pub to: SocketAddr,
    pub way: Way,
    /// New connections (or datagrams) a second.
    pub rate: u32,
    /// Most at one time. When all of them wait, the next is late; its time counts from when it was due.
    pub in_flight: u32,
    /// Bytes there and back.
    pub length: u32,
    /// How long one may take before it has failed.
    pub patience: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A connection each.
    Tcp,
    /// A connection each; the server takes so many milliseconds to answer.
    Slow(u32),
    /// A connection each; a page that has to be there as a whole, and its `server-name` header tells who answered.
    Http(String),
    /// A datagram each, from a port of its own.
    UdpNew,
    /// Datagrams of one flow, from this port; one at a time.
    UdpFixed(u16),
}

impl Offer {
    pub fn tcp(to: SocketAddr, rate: u32) -> Self {
        let patience = Duration::from_secs(5);
        Self { to, way: Way::Tcp, rate, in_flight: 64, length: 2000, patience }
    }

    pub fn slow(to: SocketAddr, rate: u32, delay: u32) -> Self {
        Self { way: Way::Slow(delay), ..Self::tcp(to, rate) }
    }

    pub fn http(to: SocketAddr, path: &str, rate: u32) -> Self {
        Self { way: Way::Http(path.into()), ..Self::tcp(to, rate) }
    }

    /// A datagram has nobody who would send it again: what is not back soon is lost.
    pub fn udp(to: SocketAddr, rate: u32) -> Self {
        Self { way: Way::UdpNew, length: 600, patience: Duration::from_millis(300), ..Self::tcp(to, rate) }
    }

    pub fn udp_fixed(to: SocketAddr, port: u16, rate: u32) -> Self {
        Self { way: Way::UdpFixed(port), in_flight: 1, ..Self::udp(to, rate) }
    }
}

/// A load that goes on.
pub struct Steady {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    offer: Offer,
    started: Instant,
    stop: AtomicBool,
    next: AtomicU32,
    attempts: Mutex<Vec<Attempt>>,
}

impl Steady {
    /// Begins to open connections from `place`.
    pub fn start(place: &Place, offer: Offer) -> Result<Self> {
        let count = offer.in_flight;
        let shared = Arc::new(Shared {
            offer,
            started: Instant::now(),
            stop: AtomicBool::new(false),
            next: AtomicU32::new(0),
            attempts: Mutex::default(),
        });
        let worker = |_| {
            let shared = Arc::clone(&shared);
            place.spawn(move || shared.work())
        };
        Ok(Self { workers: (0..count).map(worker).collect::<Result<_>>()?, shared })
    }

    /// What has come of it so far.
    pub fn so_far(&self) -> Tally {
        self.shared.tally()
    }

    /// Waits until so many more have been answered or have failed.
    pub fn more(&self, count: usize) -> Result<()> {
        let wanted = self.shared.done() + count;
        let span = Duration::from_secs(1) * u32::try_from(count)? / self.shared.offer.rate;
        eventually(span * 2 + 2 * PATIENCE, "the load goes on", || {
            let done = self.shared.done();
            ensure!(done >= wanted, "{done} of {wanted} are done");
            Ok(())
        })
    }

    /// Opens no more, waits for those in flight, and tells all.
    pub fn finish(self) -> Result<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker
                .join()
                .map_err(|_| anyhow!("a worker of the load panicked"))?
                .context("a load's worker")?;
        }
        Ok(self.shared.tally())
    }
}

impl Shared {
    fn work(&self) -> Result<()> {
        let fixed = match self.offer.way {
            Way::UdpFixed(port) => Some(self.bound(port)?),
            _ => None,
        };
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.started + Duration::from_secs(1) * number / self.offer.rate;
            while let Some(early) =
                due.checked_duration_since(Instant::now()).filter(|early| !early.is_zero())
            {
                std::thread::park_timeout(early);
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            // One of a flow waits for the one before it: it is not late, the flow is slow.
            let due = if fixed.is_some() { Instant::now() } else { due };
            let outcome = self.attempt(u64::from(number), fixed.as_ref());
            let attempt = Attempt { due, took: due.elapsed(), outcome };
            self.attempts().push(attempt);
        }
        Ok(())
    }

    fn attempt(&self, seed: u64, fixed: Option<&UdpSocket>) -> Result<Answer, Failure> {
        let Offer { to, length, patience, .. } = self.offer;
        match &self.offer.way {
            Way::Tcp => Talk::open(to, None, patience)?.say_and_close(seed, length),
            Way::Slow(delay) => {
                let mut talk = Talk::open(to, None, patience)?;
                let answer = talk.say_slowly(seed, length, *delay)?;
                talk.close().map(|()| answer)
            }
            Way::Http(path) => talk::fetch(to, path, patience),
            Way::UdpNew => {
                let socket = self.bound(0).map_err(|error| Failure::at("bind", &error))?;
                talk::datagram(&socket, seed, length, patience)
            }
            Way::UdpFixed(_) => {
                let socket = fixed.ok_or_else(|| Failure::new("bind", "no socket"))?;
                talk::datagram(socket, seed, length, patience)
            }
        }
    }

    fn bound(&self, port: u16) -> io::Result<UdpSocket> {
        let any: IpAddr = match self.offer.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, port))?;
        socket.connect(self.offer.to)?;
        Ok(socket)
    }

    fn tally(&self) -> Tally {
        Tally::of(self.attempts().clone())
    }

    fn done(&self) -> usize {
        self.attempts().len()
    }

    fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
