//! The L4 balancer: takes bound sockets and tables of its own types, knows nothing of containers and networks.
//! Listener -> session -> policy.pick -> connect (retry on the next backend) -> relay -> account; a pure flow table for UDP.

mod gate;
mod metrics;
mod policy;
mod snapshot;
mod worker;

pub mod flows;
pub mod table;
pub mod udp;

pub use metrics::{CONNECT_BOUNDS, Counts, Failure};
