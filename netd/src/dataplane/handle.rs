//! What the rest of the control plane holds of its data plane: settings in, events out, questions in between.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use netd_proxy::table::{BackendId, ServiceId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::frame::{Request, SocketKey, SocketUse, Sockets};
use super::link::{PATIENCE, Session};
use super::stats::Stats;
use super::supervisor::Supervisor;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub run_dir: PathBuf,
    /// What is started with `dataplane` as its first argument; `/proc/self/exe` is this very build, even when the file
    /// has been replaced or deleted.
    pub program: PathBuf,
    /// The rest of its arguments.
    pub arguments: Vec<String>,
    /// Names this build, see [`super::worker::build`].
    pub build: String,
    /// What a replaced data plane's connections get to end by themselves.
    pub drain: Duration,
}

/// What the thread that makes the tables has to know.
pub(crate) enum Event {
    /// A data plane is there. It holds the sockets of the inventory and serves `revision`, or nothing (0). It is owed a
    /// full batch, with the sockets that the inventory lacks.
    Connected { session: Session, revision: u64, inventory: Vec<Sockets> },
    /// One more socket of this kind is wanted, see [`Session::supply`].
    NeedSockets { session: Session, key: SocketKey, used: SocketUse },
    /// What a health check has found of a backend. Comes again for all of them with every new session.
    Health { service: ServiceId, backend: BackendId, well: bool, why: Option<Arc<str>> },
    /// A part of the batch could not be served.
    Refused { revision: u64, error: String },
}

/// The control plane's handle.
#[derive(Clone)]
pub(crate) struct DataPlane(Arc<Shared>);

/// What the handles and the supervisor share.
pub(super) struct Shared {
    /// With when it was made.
    pub(super) session: Mutex<Option<(Session, SystemTime)>>,
    pub(super) filter: Mutex<Option<String>>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) restarts: AtomicU64,
    pub(super) pid: AtomicU64,
    /// Somebody has waited too long.
    pub(super) suspicion: Notify,
    pub(super) stop: CancellationToken,
    pub(super) stopped: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DataPlaneError {
    #[error("the data plane has not taken revision {revision} over within {waited:?}: it may be restarting")]
    NotServed { revision: u64, waited: Duration },
    #[error("the data plane is not there: it may be restarting")]
    Absent,
}

impl DataPlane {
    /// Starts supervising. `events` is called on the runtime's thread and must not block.
    pub(crate) fn start(config: Config, events: impl Fn(Event) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            session: Mutex::default(),
            filter: Mutex::default(),
            applied: watch::Sender::new(0),
            restarts: AtomicU64::new(0),
            pid: AtomicU64::new(0),
            suspicion: Notify::new(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        let supervisor = Supervisor::new(config, Arc::clone(&shared), Box::new(events));
        tokio::spawn(supervisor.run());
        Self(shared)
    }

    /// The latest revision that was served, by this or an earlier session.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.0.applied.subscribe()
    }

    /// Waits until `revision` is served, through a restart of the data plane if need be, `limit` at most.
    pub(crate) async fn served(&self, revision: u64, limit: Duration) -> Result<(), DataPlaneError> {
        let mut applied = self.applied();
        let begun = tokio::time::Instant::now();
        while let Some(left) = limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            let served = applied.wait_for(|applied| *applied >= revision);
            match tokio::time::timeout(PATIENCE.min(left), served).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => break,
                Err(_) => self.0.suspicion.notify_one(),
            }
        }
        Err(DataPlaneError::NotServed { revision, waited: begun.elapsed() })
    }

    pub(crate) async fn stats(&self) -> Result<Stats, DataPlaneError> {
        let answer = self.0.session().ok_or(DataPlaneError::Absent)?.ask_stats();
        let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| DataPlaneError::Absent)?;
        answer.map_err(|_| DataPlaneError::Absent)
    }

    /// Of this data plane and all that come after it.
    pub(crate) fn set_log_filter(&self, filter: &str) {
        *self.0.filter.lock().unwrap_or_else(PoisonError::into_inner) = Some(filter.to_owned());
        if let Some(session) = self.0.session() {
            session.tell(&Request::LogFilter { filter: filter.to_owned() });
        }
    }

    /// How often one had to be started in the place of one that had died.
    pub(crate) fn restarts(&self) -> u64 {
        self.0.restarts.load(Ordering::Relaxed)
    }

    /// Its process, if the control plane started it and it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        u32::try_from(self.0.pid.load(Ordering::Relaxed)).ok().filter(|pid| *pid != 0)
    }

    pub(crate) fn connected_since(&self) -> Option<SystemTime> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, since)| *since)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.0.session().is_some()
    }

    /// Ends the data plane, unless it runs as a unit of its own, and stops supervising.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.stopped.cancelled().await;
    }

    /// Ends it even if somebody else started it.
    pub(crate) async fn end(&self) {
        if let Some(session) = self.0.session() {
            session.tell(&Request::Stop);
        }
        self.stop().await;
    }
}

impl Shared {
    pub(super) fn session(&self) -> Option<Session> {
        self.session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|(session, _)| session.clone())
    }

    pub(super) fn set_session(&self, session: Option<Session>) {
        let now = SystemTime::now();
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session.map(|session| (session, now));
    }
}
