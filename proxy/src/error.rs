//! Why a change could not be made.

use std::io;

use crate::table::{FunnelId, ListenerId, ServiceId};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listener {listener} leads to service {service}, which does not exist")]
    UnknownService { listener: ListenerId, service: ServiceId },
    #[error("clients of listener {listener} come through funnel {funnel}, which does not exist")]
    UnknownFunnel { listener: ListenerId, funnel: FunnelId },
    #[error("listener {listener} is new and came without a socket")]
    NoSocket { listener: ListenerId },
    #[error("the mesh is new and came without a socket")]
    NoMeshSocket,
    #[error("cannot wait for connections of listener {listener}")]
    Refused { listener: ListenerId, source: io::Error },
    #[error("the proxy's workers did not answer in time; the change may still happen")]
    Late,
    #[error("a worker of the proxy has ended: restart the data plane")]
    Ended,
}
