//! The way to and from other nodes' data planes: its sockets among those that are held, its steps among the others. And
//! what leads answers back to connections under their clients' addresses.

use netd_proxy::table::{Change as Proxy, MESH_TCP, MESH_UDP, Mesh};

use super::{Reconcile, steer};
use crate::dataplane::SocketUse;
use crate::error::Chain;
use crate::model::{self, Model, Protocol};
use crate::tables::{self, Change};

impl Reconcile {
    /// Takes in what has changed of the nodes, and tells what that changes for the data plane.
    pub(super) fn follow_mesh(&mut self, model: &Model, changes: &[model::Change]) -> Vec<Change> {
        let concerns = |change: &model::Change| {
            matches!(
                change,
                model::Change::Node { .. } | model::Change::Member { .. } | model::Change::Network { .. }
            )
        };
        if self.mesh.is_some() == model.mesh_secret.is_some() && !changes.iter().any(concerns) {
            return Vec::new();
        }
        let wanted = tables::mesh(model, self.mesh.as_ref());
        if wanted == self.mesh {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.mesh, wanted);
        let mut steps = Vec::new();
        let address = |mesh: &Option<Mesh>| mesh.as_ref().map(|mesh| mesh.address);
        if before.is_some() && address(&before) != address(&self.mesh) {
            sockets().for_each(|(key, _)| self.held.forget(key));
            steps.push(Change::Proxy(Proxy::DropMesh));
        }
        // Until there is a data plane, nobody knows which sockets one that runs already holds.
        if self.session.is_some() {
            steps.extend(self.put_mesh());
        }
        steps
    }

    /// The whole of it, for a new data plane.
    pub(super) fn put_mesh(&mut self) -> Option<Change> {
        let mesh = self.mesh.clone()?;
        for (key, protocol) in sockets().filter(|(key, _)| !self.held.has(key)).collect::<Vec<_>>() {
            match steer::bind_ahead(protocol, mesh.address.ip(), mesh.address.port(), self.workers) {
                Ok(fds) => self.held.hold(key.into(), SocketUse::Listener, fds),
                Err(error) => {
                    if self.closed.note_mesh(true) {
                        tracing::error!(
                            error = %Chain(&error),
                            "other nodes cannot reach the backends of this one, nor this one theirs: free the port, or \
                             set cluster.mesh-port to another one on every node"
                        );
                    }
                    self.mesh = None;
                    return None;
                }
            }
        }
        self.closed.note_mesh(false);
        Some(Change::Proxy(Proxy::PutMesh(mesh)))
    }

    /// Answers have to find back before anything is asked.
    pub(super) fn follow_transparent(&mut self, changes: &[Change], full: bool, model: &Model) {
        // Until there is a data plane, the kernel is left as an earlier daemon has left it.
        if self.transparent.follow(changes, full) && self.session.is_some() {
            self.transparent.lead();
            self.write_firewall(model);
        }
    }

    /// Puts back what leads packets in the kernel.
    pub(crate) fn lead_answers(&self) {
        self.transparent.lead();
    }
}

fn sockets() -> impl Iterator<Item = (&'static str, Protocol)> {
    [(MESH_TCP, Protocol::Tcp), (MESH_UDP, Protocol::Udp)].into_iter()
}
