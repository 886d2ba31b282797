//! What one connection did, kept from accept to close and told once: live in the counters, and as one access event when
//! it ends. The tracker is consumed by the telling, so no connection is told twice or forgotten.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::gate::Pass;
use crate::metrics::Failure;
use crate::snapshot::{ListenerHandle, Occupied};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both sides said that they send no more.
    Closed,
    ResetByClient,
    ResetByBackend,
    /// No backend was reached; the client got a reset.
    Failed(Failure),
    /// Cut by us: the time to finish was over.
    Cut,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ResetByClient => "reset-by-client",
            Self::ResetByBackend => "reset-by-backend",
            Self::Failed(failure) => failure.name(),
            Self::Cut => "cut",
        }
    }
}

/// The account of one connection.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) listener: Arc<ListenerHandle>,
    pub(crate) client: SocketAddr,
    /// The port that the client asked for.
    port: u16,
    started: Instant,
    backend: Option<Occupied>,
    to_backend: u64,
    to_client: u64,
    /// The places it takes at its listener and in the process.
    _places: [Pass; 2],
}

impl Account {
    pub(crate) fn open(
        listener: Arc<ListenerHandle>,
        client: SocketAddr,
        port: u16,
        places: [Pass; 2],
    ) -> Self {
        listener.meters.opened();
        listener.service.meters.opened();
        let started = Instant::now();
        Self { listener, client, port, started, backend: None, to_backend: 0, to_client: 0, _places: places }
    }

    /// The port of a backend that it is led to, if it is not the backend's own.
    pub(crate) fn target(&self) -> Option<u16> {
        self.listener.listener.target(self.port)
    }

    pub(crate) fn retried(&self) {
        self.listener.meters.retried();
        self.listener.service.meters.retried();
    }

    pub(crate) fn connected(&mut self, backend: Occupied, took: Duration) {
        self.listener.meters.connected(took);
        self.listener.service.meters.connected(took);
        self.backend = Some(backend);
    }

    /// How much has been moved each way since the beginning.
    pub(crate) fn moved(&mut self, to_backend: u64, to_client: u64) {
        let (up, down) = (to_backend - self.to_backend, to_client - self.to_client);
        (self.to_backend, self.to_client) = (to_backend, to_client);
        for meters in [&self.listener.meters, &self.listener.service.meters] {
            if up > 0 {
                meters.moved_to_backend(up);
            }
            if down > 0 {
                meters.moved_to_client(down);
            }
        }
    }

    pub(crate) fn close(self, ending: Ending) {
        let failure = match ending {
            Ending::Closed => None,
            Ending::Failed(failure) => Some(failure),
            Ending::ResetByClient | Ending::ResetByBackend | Ending::Cut => Some(Failure::Reset),
        };
        for meters in [&self.listener.meters, &self.listener.service.meters] {
            meters.closed();
            if let Some(failure) = failure {
                meters.failed(failure);
            }
        }
        info!(
            target: "access",
            listener = &*self.listener.listener.id,
            service = &*self.listener.service.label,
            client = %self.client,
            backend = self.backend.as_ref().map_or("", |held| &*held.backend.id),
            seconds = self.started.elapsed().as_secs_f64(),
            to_backend = self.to_backend,
            to_client = self.to_client,
            end = ending.name(),
        );
    }
}
