//! Active health checks: who of the backends that have a check answers it. A thread of its own (`prober`) asks them in
//! turns, one socket each (`probe`), a bounded number at once; it sleeps while there is nothing to ask. What counts as
//! an answer (`answer`), and how many make a verdict (`verdict`), is pure.
//!
//! Backends of other nodes are not asked: their own node does, and its verdict comes with the tables.

pub(crate) mod answer;
mod probe;
pub(crate) mod prober;
mod verdict;

#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::table::{BackendId, Check, Place, Probe, Service, ServiceId};

/// What the checks have found of a backend, told when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub service: ServiceId,
    pub backend: BackendId,
    /// Or why not.
    pub verdict: Result<(), Unwell>,
}

/// What was wrong with the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwell {
    /// Nobody listens there.
    Refused,
    /// There is no way to it, or it broke the connection off.
    Broken,
    /// It took longer than the check allows.
    Late,
    /// Not what was asked for: no HTTP, or the end of it too early.
    Garbled,
    /// HTTP's number for what is neither success nor another place.
    Status(u16),
}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the connection was refused"),
            Self::Broken => f.write_str("there was no connection"),
            Self::Late => f.write_str("there was no answer in time"),
            Self::Garbled => f.write_str("the answer was no HTTP"),
            Self::Status(status) => write!(f, "the answer was status {status}"),
        }
    }
}

/// Whom a check asks, and what. A verdict is of a target: at another address, or asked otherwise, the same backend is
/// unknown again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    addresses: [Option<SocketAddr>; 2],
    path: Option<Arc<str>>,
}

/// A backend to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) backend: BackendId,
    pub(crate) target: Target,
}

/// What the prober has found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) health: Health,
    /// Of whom: the tables may have changed in the meantime.
    pub(crate) target: Target,
}

/// The backends of `service` that are to be asked, and how.
pub(crate) fn watched(service: &Service) -> Option<(&Check, Vec<Watched>)> {
    let check = service.health.as_ref()?;
    let (port, path) = match &check.probe {
        Probe::Tcp { port } => (*port, None),
        Probe::Http { port, path } => (*port, Some(Arc::clone(path))),
    };
    let asked = service.backends.iter().filter(|backend| !matches!(backend.place, Place::Node { .. }));
    let watched = asked.filter_map(|backend| {
        let both = [backend.v4.map(SocketAddr::V4), backend.v6.map(SocketAddr::V6)];
        let addresses = both.map(|address| {
            let mut address = address?;
            address.set_port(port.unwrap_or_else(|| address.port()));
            // A service of every port, and a check of none in particular: there is nobody to ask.
            Some(address).filter(|address| address.port() != 0)
        });
        let target = Target { addresses, path: path.clone() };
        target
            .addresses
            .iter()
            .any(Option::is_some)
            .then(|| Watched { backend: Arc::clone(&backend.id), target })
    });
    let watched: Vec<Watched> = watched.collect();
    (!watched.is_empty()).then_some((check, watched))
}
