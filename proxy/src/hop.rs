//! From one node's data plane to another's. A backend of another node is reached at that node's mesh address: a signed
//! header says whom the client asked for and which backend was chosen, one byte answers, and only then does the client's
//! first byte go. So whatever goes wrong is a failed attempt like any other, and the search goes on.
//!
//! connection  session (dials the mesh) -> header -> | arrivals -> session (its one backend) -> status | -> relay on both
//! datagram    a header before each payload, both ways: see `udp`
//!
//! `wire` is what is said, `mesh` who may say it, `arrivals` the serving side up to the end of the header.

mod arrivals;
mod guest;
mod mesh;
mod meters;
pub(crate) mod wire;

pub(crate) use arrivals::{Arrivals, Come, here};
pub(crate) use guest::Guest;
pub(crate) use mesh::{Mesh, Node};
pub use meters::{HopCounts, Refusal};
pub(crate) use wire::{Header, Status};

#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;

use std::net::SocketAddr;

use crate::account::Account;
use crate::snapshot::BackendHandle;

/// What the node that has `backend` is told of a connection. Empty when it cannot be said.
pub(crate) fn header(
    mesh: Option<&Mesh>,
    account: &Account,
    backend: &BackendHandle,
    asked: SocketAddr,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let [first, second] = backend.addresses(account.client.ip(), account.target_port());
    if let (Some(mesh), Some(address)) = (mesh, first.or(second)) {
        let header = Header {
            service: &account.listener.service.id,
            backend: &backend.id,
            target_port: address.port(),
            client: account.client,
            asked,
            as_client: account.is_as_client(),
            proxy_protocol: account.proxy_protocol(),
            nonce: 0,
            is_datagram: false,
        };
        // False: nothing has been written, which the caller sees.
        let _ = header.write(&mesh.key, &mut bytes);
    }
    bytes
}
