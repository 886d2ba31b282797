//! What the counters say, as plain values for whoever publishes them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::Counts;
use crate::table::{BackendId, ListenerId, Protocol, ServiceId};

/// Everything at one moment (counters move while they are read).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub listeners: Vec<ListenerStats>,
    pub services: Vec<ServiceStats>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ListenerStats {
    pub listener: ListenerId,
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub service: ServiceId,
    pub counts: Counts,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceStats {
    pub service: ServiceId,
    pub label: Arc<str>,
    /// The sum over all its listeners, those that are gone included.
    pub counts: Counts,
    pub backends: Vec<BackendStats>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BackendStats {
    pub backend: BackendId,
    /// Connections and flows that it has now.
    pub open: u32,
}
