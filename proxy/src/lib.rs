//! The L4 balancer: takes bound sockets and tables of its own types, knows nothing of containers and networks.
//!
//! A connection: listener -> session -> policy.pick -> connect (retry on the next backend) -> relay -> account.
//! A listener has sockets of its own, or its clients come through a funnel, which tells them apart by what they ask for.
//! A datagram: udp (batch in) -> flows (pure) -> policy.pick for new flows -> udp (batch out).
//! A backend of another node: session -> hop -> that node's data plane, which does the rest (see `hop`).
//! A change: `Proxy::apply` -> control (tables, handles) -> each worker's queue -> acknowledged by all.

mod account;
mod affinity;
mod backend;
mod budget;
mod clock;
mod connect;
mod control;
mod ejection;
mod error;
mod gate;
mod health;
mod hop;
mod kit;
mod listener;
mod metrics;
mod peers;
mod pipe_pool;
mod policy;
mod pool;
mod proxy;
mod proxy_protocol;
mod relay;
mod reserve;
mod routes;
mod session;
mod snapshot;
mod source;
mod spin;
mod stats;
mod trails;
mod worker;

pub mod flows;
/// The doors that bytes of others come in through, as functions of bytes alone, for fuzzing and the property tests.
#[cfg(any(test, fuzzing))]
pub mod hostile {
    pub use crate::health::hostile::answer;
    pub use crate::hop::hostile::{header, headers};
}
pub mod table;
pub mod udp;

pub use error::Error;
pub use health::{Health, Unwell};
pub use hop::{HopCounts, Refusal};
pub use metrics::{CONNECT_BOUNDS, Counts, Failure};
pub use proxy::{Config, Proxy};
pub use stats::{BackendStats, ListenerStats, MeshStats, NodeStats, ServiceStats, Stats};
pub use worker::Drained;
