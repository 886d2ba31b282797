//! What one connection did, kept from accept to close and told once: live in the counters, and as one access event when
//! it ends. The tracker is consumed by the telling, so no connection is told twice or forgotten.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::affinity::Hold;
use crate::ejection::Door;
use crate::gate::Pass;
use crate::hop::Guest;
use crate::metrics::Failure;
use crate::snapshot::{ListenerHandle, Occupied};
use crate::source;
use crate::table::{Protocol, ProxyProtocol};

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
    /// What it asked for, where that had to be known to find the listener.
    asked: Option<SocketAddr>,
    /// What another node's header said, if one has sent the connection.
    pub(crate) guest: Option<Box<Guest>>,
    /// Services of ours that it came through before this one.
    pub(crate) trail: u8,
    started: Instant,
    backend: Option<Occupied>,
    /// Keeps the client's backend for it.
    hold: Option<Hold>,
    to_backend: u64,
    to_client: u64,
    /// The places it takes at its listener and in the process.
    _places: [Pass; 2],
}

impl Account {
    pub(crate) fn open(
        listener: Arc<ListenerHandle>,
        client: SocketAddr,
        asked: Option<SocketAddr>,
        places: [Pass; 2],
    ) -> Self {
        listener.meters.opened();
        listener.service.meters.opened();
        let started = Instant::now();
        listener.service.note_connection(started);
        Self {
            listener,
            client,
            asked,
            guest: None,
            trail: 0,
            started,
            backend: None,
            hold: None,
            to_backend: 0,
            to_client: 0,
            _places: places,
        }
    }

    pub(crate) fn of_guest(
        listener: Arc<ListenerHandle>,
        client: SocketAddr,
        places: [Pass; 2],
        guest: Guest,
    ) -> Self {
        let asked = Some(guest.asked);
        Self { guest: Some(Box::new(guest)), ..Self::open(listener, client, asked, places) }
    }

    /// What the client asked for; of an unconnected socket (its client has gone) what the listener is bound to.
    pub(crate) fn asked(&self, client: &TcpStream) -> SocketAddr {
        let bound = self.listener.listener.address;
        self.asked.unwrap_or_else(|| client.local_addr().unwrap_or(bound))
    }

    /// The port of the backend, if it is not that of the backend's address.
    pub(crate) fn target_port(&self) -> Option<u16> {
        match &self.guest {
            Some(guest) => Some(guest.target_port),
            None => self.listener.listener.target(self.asked.map_or(0, |asked| asked.port())),
        }
    }

    /// The header that the backend gets, if it is to be told of its client.
    pub(crate) fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        match &self.guest {
            Some(guest) => guest.proxy_protocol,
            None => self.listener.listener.proxy_protocol,
        }
    }

    /// Whether the backend is to see the client's address.
    pub(crate) fn is_as_client(&self) -> bool {
        match &self.guest {
            Some(guest) => guest.as_client,
            None => source::is_clients(&self.listener.listener.source, self.client),
        }
    }

    /// What of a backend this connection wants.
    pub(crate) fn door(&self) -> Door {
        Door::new(Protocol::Tcp, self.target_port())
    }

    pub(crate) fn retried(&self) {
        self.listener.meters.retried();
        self.listener.service.meters.retried();
    }

    /// The backend does not see its client's address, though it was to.
    pub(crate) fn lost_address(&self) {
        self.listener.meters.lost_address();
        self.listener.service.meters.lost_address();
    }

    pub(crate) fn denied(&self) {
        self.listener.meters.denied();
        self.listener.service.meters.denied();
    }

    pub(crate) fn connected(&mut self, backend: Occupied, took: Duration) {
        for meters in [&*self.listener.meters, &*self.listener.service.meters, backend.backend.meters()] {
            meters.connected(took);
        }
        backend.backend.meters().opened();
        backend.backend.reached(self.door());
        self.hold = self.listener.service.hold(self.client);
        self.backend = Some(backend);
    }

    /// How much has been moved each way since the beginning.
    pub(crate) fn moved(&mut self, to_backend: u64, to_client: u64) {
        let (up, down) = (to_backend - self.to_backend, to_client - self.to_client);
        (self.to_backend, self.to_client) = (to_backend, to_client);
        let backend = self.backend.as_ref().map(|held| held.backend.meters());
        for meters in [&*self.listener.meters, &*self.listener.service.meters].into_iter().chain(backend) {
            if up > 0 {
                meters.moved_to_backend(up);
            }
            if down > 0 {
                meters.moved_to_client(down);
            }
        }
    }

    /// Whether its backend drains, and the time that this connection had is over.
    pub(crate) fn is_cut(&self, now: Instant) -> bool {
        self.backend.as_ref().is_some_and(|held| held.backend.is_cut(self.started, now))
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
        if let (Some(held), Some(failure)) = (&self.backend, failure) {
            held.backend.meters().failed(failure);
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
