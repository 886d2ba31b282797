//! What the counters say, as plain values for whoever publishes them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::hop::HopCounts;
use crate::metrics::Counts;
use crate::table::{BackendId, BackendState, ListenerId, Protocol, ServiceId};

/// Everything at one moment (counters move while they are read).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub listeners: Vec<ListenerStats>,
    pub services: Vec<ServiceStats>,
    /// None without a cluster.
    pub mesh: Option<MeshStats>,
}

/// Connections from node to node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshStats {
    /// What came to the mesh's sockets from addresses of no node that is heard, and was refused.
    pub strangers: u64,
    pub nodes: Vec<NodeStats>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStats {
    pub node: Arc<str>,
    /// From here to there, and from there to here.
    pub to: HopCounts,
    pub from: HopCounts,
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
    /// Connections and flows that it has now, those that are being made included.
    pub open: u32,
    /// As it counts for balancing.
    pub state: BackendState,
    /// What its checks have found; none without one, or before the first verdict.
    pub well: Option<bool>,
    /// It, or one of its ports, could not be connected to and is passed over for a while.
    pub is_ejected: bool,
    /// `accepted`: those that it was given; of datagrams, what moved is told by the listener only.
    pub counts: Counts,
}
