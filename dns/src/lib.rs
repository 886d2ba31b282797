//! The embedded DNS server: local names answered at once from tables, other names forwarded, cached and shared.
//!
//! The socket that a query comes in on decides whose view of the names it gets. One thread owns all tables and sockets
//! ([`Server`]); the path of a query is `udp` or `tcp` -> `parse` -> `answer` (over `index`), or else `cache` ->
//! `forward` -> `outlets` -> `upstream_reply`. This crate knows names, addresses and sockets, nothing of where they are from.

mod answer;
mod cache;
mod client;
mod entry;
mod error;
mod forward;
mod health;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod index;
mod key;
mod metrics;
mod name;
mod outlets;
mod pace;
mod parse;
mod readable;
mod reply;
mod resolver;
mod rotate;
mod server;
pub mod table;
mod target;
mod tcp;
mod thread;
mod throttle;
mod udp;
mod upstream;
mod upstream_reply;

pub use answer::Kind;
pub use cache::Limits as CacheLimits;
pub use error::Error;
pub use metrics::{BUCKETS_MICROS, Stats, UpstreamStats};
pub use server::{Config, OnWant, Server, ViewSocket};
pub use tcp::TcpLimits;
