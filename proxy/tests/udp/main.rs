//! What a client of a UDP listener notices, over real sockets. Every test has a network namespace of its own, so that
//! addresses and ports are its own too and nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backend_changes;
mod bounds;
mod exchange;
mod hop;
mod rig;
