//! What can go wrong between this server and its owner. What goes wrong with a query is answered to its client.

use std::io;

use crate::table::{SocketUse, ViewId};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the DNS thread")]
    Start(#[source] io::Error),
    #[error("the DNS thread has ended")]
    Stopped,
    #[error("a {usage:?} socket came for view {view}, which is in no table")]
    StraySocket { view: ViewId, usage: SocketUse },
    #[error("cannot serve a {usage:?} socket of view {view}")]
    Socket { view: ViewId, usage: SocketUse, source: io::Error },
}
