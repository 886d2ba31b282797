//! The control plane's end of one connection to a data plane. [`Session`] is what other threads hold: they send on it
//! themselves. [`Link`] is what the supervisor holds: it receives, and flushes what a session could not send at once.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netd_sys::seqpacket::Connection;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::{Notify, oneshot};

use super::frame::{FrameError, MAX_PACKET, PROTOCOL, Packer, Packet, Reply, Request, Sockets, decode};
use super::outbox::{Outbox, Pending};
use super::stats::Stats;
use crate::tables::Change;

/// How long a data plane takes for one batch at most; past it, it is stuck and is replaced.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a batch that holds everything.
const PATIENCE_FULL: Duration = Duration::from_secs(20);
/// Pause before trying again when the kernel will carry no more descriptors.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Kernel(#[from] netd_sys::KernelError),
    #[error("the data plane link failed")]
    Io(#[from] io::Error),
    #[error("the data plane closed the link")]
    Closed,
    #[error("the data plane sent what cannot be read")]
    Frame(#[from] FrameError),
    #[error("the data plane speaks protocol {0}, this build speaks {PROTOCOL}")]
    Protocol(u32),
    #[error("the data plane said {0} where its greeting was due")]
    Greeting(&'static str),
    #[error("the data plane did not answer within {0:?}")]
    Timeout(Duration),
}

/// The way to one data plane, for the thread that makes the tables. When the link breaks, what is applied here is lost
/// without an error: an `Event::Connected` with the next session is under way, and everything is sent again on that.
#[derive(Clone)]
pub(crate) struct Session(Arc<Shared>);

/// A step from one revision of the tables to the next.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub revision: u64,
    /// The changes put everything there is to serve; the data plane drops the rest. The first batch of a session is full.
    pub full: bool,
    pub changes: Vec<Change>,
    /// For the views and listeners that the changes put and that have none there yet.
    pub sockets: Vec<Sockets>,
}

struct Shared {
    outbox: Outbox,
    /// Batches that have not been acknowledged, oldest first, and when that is overdue.
    unserved: Mutex<VecDeque<(u64, Instant)>>,
    /// Who asked for figures, and the parts that have come.
    asked: Mutex<HashMap<u64, Asked>>,
    next: AtomicU64,
    /// Bytes of the largest message that the data plane takes.
    largest: AtomicUsize,
}

type Asked = (oneshot::Sender<Stats>, Option<Stats>);

impl Session {
    /// Sends a batch on the caller's own thread, or queues it; never blocks.
    pub(crate) fn apply(&self, batch: Batch) -> Result<(), FrameError> {
        let Batch { revision, full, changes, sockets } = batch;
        let mut packer = Packer::to(self.0.largest.load(Ordering::Relaxed));
        packer.push(&Request::Begin { revision, full })?;
        for sockets in sockets {
            push_sockets(&mut packer, sockets)?;
        }
        for change in changes {
            match packer.push(&Request::Change { change }) {
                // Without it, rather than that nothing is served any more.
                Err(error @ FrameError::TooLong { .. }) => {
                    tracing::error!(%error, "the data plane cannot be told of something");
                }
                pushed => pushed?,
            }
        }
        packer.push(&Request::Commit { revision })?;
        let due = Instant::now() + if full { PATIENCE_FULL } else { PATIENCE };
        self.0.unserved.lock().unwrap_or_else(PoisonError::into_inner).push_back((revision, due));
        self.0.outbox.send(packer.finish());
        Ok(())
    }

    /// Hands over sockets that were asked for by `Event::NeedSockets`.
    pub(crate) fn supply(&self, sockets: Sockets) -> Result<(), FrameError> {
        let mut packer = Packer::default();
        push_sockets(&mut packer, sockets)?;
        self.0.outbox.send(packer.finish());
        Ok(())
    }

    pub(crate) fn tell(&self, request: &Request) {
        match packed(request) {
            Ok(packets) => self.0.outbox.send(packets),
            Err(error) => tracing::error!(%error, "cannot put a request into words"),
        }
    }

    /// Asks for figures; the receiver fails when the link breaks first.
    pub(crate) fn ask_stats(&self) -> oneshot::Receiver<Stats> {
        let (answer, receiver) = oneshot::channel();
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has gone away in the meantime is forgotten, so the map stays as small as its users are many.
        asked.retain(|_, (waiting, _)| !waiting.is_closed());
        asked.insert(id, (answer, None));
        drop(asked);
        self.tell(&Request::Stats { id });
        receiver
    }

    /// Whether a batch should have been acknowledged by now.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        let unserved = self.0.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        unserved.front().is_some_and(|(_, due)| *due <= now)
    }

    pub(super) fn note_served(&self, revision: u64) {
        let mut unserved = self.0.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        while unserved.front().is_some_and(|(oldest, _)| *oldest <= revision) {
            unserved.pop_front();
        }
    }

    pub(super) fn note_stats(&self, id: u64, part: Stats) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get_mut(&id) {
            Some((_, Some(stats))) => stats.join(part),
            Some((_, none)) => *none = Some(part),
            None => {}
        }
    }

    pub(super) fn note_stats_end(&self, id: u64) {
        let waiting = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some((waiting, stats)) = waiting {
            let _ = waiting.send(stats.unwrap_or_default());
        }
    }

    fn end(&self) {
        self.0.outbox.close();
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.0.unserved.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What a data plane said of itself when the connection was made.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub build: String,
    pub pid: u32,
    pub revision: u64,
    pub inventory: Vec<Sockets>,
}

/// The receiving half, and the owner of the connection.
pub(crate) struct Link {
    connection: AsyncFd<Arc<Connection>>,
    session: Session,
    wake: Arc<Notify>,
    buffer: Vec<u8>,
    received: VecDeque<(Reply, Vec<OwnedFd>)>,
}

impl Link {
    /// Connects and exchanges greetings, within `limit`.
    pub(crate) async fn connect(
        path: &Path,
        build: &str,
        limit: Duration,
    ) -> Result<(Self, Greeting), LinkError> {
        let connection = Connection::connect(path)?;
        let greeting = tokio::time::timeout(limit, Self::greet(connection, build));
        greeting.await.unwrap_or(Err(LinkError::Timeout(limit)))
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The next message; sends meanwhile what waits to be sent. May be cancelled without losing anything.
    pub(crate) async fn next(&mut self) -> Result<(Reply, Vec<OwnedFd>), LinkError> {
        loop {
            if let Some(message) = self.received.pop_front() {
                return Ok(message);
            }
            let interest = match self.session.0.outbox.flush() {
                Pending::Nothing => Interest::READABLE,
                Pending::Room => Interest::READABLE | Interest::WRITABLE,
                Pending::Broken => return Err(LinkError::Closed),
                Pending::Descriptors => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            tokio::select! {
                ready = self.connection.ready(interest) => {
                    let mut ready = ready?;
                    if ready.ready().is_writable() {
                        ready.clear_ready_matching(Ready::WRITABLE);
                    }
                    match ready.get_inner().recv(&mut self.buffer) {
                        Ok(received) if received.length == 0 => return Err(LinkError::Closed),
                        Ok(received) => self.received = decode(&self.buffer[..received.length], received.fds)?.into(),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            ready.clear_ready_matching(Ready::READABLE);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                () = self.wake.notified() => {}
            }
        }
    }

    async fn greet(connection: Connection, build: &str) -> Result<(Self, Greeting), LinkError> {
        let mut link = Self::new(connection)?;
        link.session.tell(&Request::Hello { protocol: PROTOCOL, build: build.to_owned() });
        let (build, pid, revision) = match link.next().await?.0 {
            Reply::Hello { protocol: PROTOCOL, build, pid, revision, largest } => {
                link.session.0.largest.store(largest, Ordering::Relaxed);
                (build, pid, revision)
            }
            Reply::Hello { protocol, .. } => return Err(LinkError::Protocol(protocol)),
            _ => return Err(LinkError::Greeting("something else")),
        };
        let mut inventory = Vec::new();
        loop {
            match link.next().await? {
                (Reply::Inventory { key, used, .. }, fds) => inventory.push(Sockets { key, used, fds }),
                (Reply::InventoryEnd, _) => return Ok((link, Greeting { build, pid, revision, inventory })),
                (Reply::Unknown, _) => {}
                _ => return Err(LinkError::Greeting("something else than its inventory")),
            }
        }
    }

    fn new(connection: Connection) -> io::Result<Self> {
        let connection = Arc::new(connection);
        let wake = Arc::new(Notify::new());
        let outbox = Outbox::new(Arc::clone(&connection), {
            let wake = Arc::clone(&wake);
            move || wake.notify_one()
        });
        let shared = Shared {
            outbox,
            unserved: Mutex::default(),
            asked: Mutex::default(),
            next: AtomicU64::default(),
            largest: AtomicUsize::new(MAX_PACKET),
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe; a Connection has one descriptor for life, as it asks"
        )]
        let connection = AsyncFd::new(connection)?;
        Ok(Self {
            connection,
            session: Session(Arc::new(shared)),
            wake,
            buffer: vec![0; MAX_PACKET],
            received: VecDeque::new(),
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.session.end();
    }
}

fn push_sockets(packer: &mut Packer, sockets: Sockets) -> Result<(), FrameError> {
    packer.push_sockets(sockets, |key, used, count| Request::Sockets { key, used, count })
}

fn packed(request: &Request) -> Result<Vec<Packet>, FrameError> {
    let mut packer = Packer::default();
    packer.push(request)?;
    Ok(packer.finish())
}
