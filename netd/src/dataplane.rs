//! The data plane seen from both sides: the process that serves names and ports, the link to it, and its supervisor.
//!
//! `handle` is what the control plane holds; its `supervisor` starts or adopts the process, and `link` is one connection
//! to it. `worker` is the process itself, `plane` the servers in it. `frame` and `outbox` are what the two sides share.
//!
//! change -> Session::apply -> frame -> worker -> plane -> dns, proxy -> Applied -> DataPlane::served

mod confine;
mod frame;
mod handle;
mod known;
mod ledger;
mod link;
mod outbox;
mod pieces;
mod plane;
mod process;
pub(crate) mod stats;
mod supervisor;
mod worker;

pub(crate) use frame::{SocketKey, SocketUse, Sockets};
pub(crate) use handle::{Config, DataPlane, Event};
pub(crate) use link::{Batch, Session};
pub(crate) use stats::Stats;
pub(crate) use worker::{Options, build, run};

#[cfg(test)]
mod tests;
