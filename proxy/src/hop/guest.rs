//! A connection that another node has sent: what its header asked, kept as long as the connection.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Node;
use super::meters::Refusal;
use super::wire::Status;
use crate::gate::Pass;
use crate::metrics::Failure;
use crate::snapshot::BackendHandle;
use crate::table::ProxyProtocol;

#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) node: Arc<Node>,
    /// The only one that may be tried.
    pub(crate) backend: Arc<BackendHandle>,
    pub(crate) target_port: u16,
    pub(crate) asked: SocketAddr,
    pub(crate) as_client: bool,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Its place among the node's connections.
    pub(crate) _place: Pass,
}

impl Guest {
    /// The backend is connected.
    pub(crate) fn served(&self) {
        self.node.from.opened();
    }

    /// What to tell the node when the backend is not.
    pub(crate) fn failed(&self, failure: Failure) -> Status {
        let status = Status::from(failure);
        if let Some(why) = Refusal::of(status) {
            self.node.from.failed(why);
        }
        status
    }
}
