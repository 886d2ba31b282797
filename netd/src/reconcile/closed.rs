//! Ports that should be served and that somebody else has: a program of this host, or a sandbox, where a service was
//! published from another node. They are tried again until they are ours; nobody has to restart anything.
//!
//!   open_missing -> `Closed` -> (a second later, watch::ports) -> `reopen` -> the data plane

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use netd_proxy::table::{Change as Proxy, Listener, ListenerId, Protocol as Carried};
use netd_sys::KernelError;
use tokio::sync::Notify;

use super::{Batch, Reconcile, SocketUse, send, steer};
use crate::model::{Model, Protocol};
use crate::tables::Change;

#[derive(Debug, Default)]
pub(super) struct Closed {
    ports: BTreeMap<ListenerId, Listener>,
    /// The way to and from other nodes.
    mesh: bool,
    /// Has somebody try again.
    told: Arc<Notify>,
}

impl Closed {
    /// True if that is new.
    pub(super) fn note(&mut self, listener: &Listener) -> bool {
        self.told.notify_one();
        self.ports.insert(Arc::clone(&listener.id), listener.clone()).is_none()
    }

    /// True if that is new.
    pub(super) fn note_mesh(&mut self, is_closed: bool) -> bool {
        if is_closed {
            self.told.notify_one();
        }
        std::mem::replace(&mut self.mesh, is_closed) != is_closed
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.ports.remove(id);
    }

    /// All that is wanted is about to be tried.
    pub(super) fn forget_ports(&mut self) {
        self.ports.clear();
    }

    /// The data plane is told of a listener when there are sockets for it.
    pub(super) fn keep_back(&self, steps: &mut Vec<Change>) {
        steps.retain(|step| match step {
            Change::Proxy(Proxy::PutListener(listener)) => !self.ports.contains_key(&listener.id),
            _ => true,
        });
    }
}

impl Reconcile {
    /// Notified when a port could not be opened.
    pub(crate) fn closed_ports(&self) -> Arc<Notify> {
        Arc::clone(&self.closed.told)
    }

    /// Tries what somebody else had, and tells whether all of it is open now.
    pub(crate) fn reopen(&mut self, model: &Model, revision: u64) -> bool {
        if self.session.is_none() {
            // A new data plane is sent, and so has opened, everything.
            return false;
        }
        let mut steps = Vec::new();
        for listener in std::mem::take(&mut self.closed.ports).into_values() {
            match bind(&listener, self.workers) {
                Ok(fds) => {
                    tracing::info!(listener = %listener.id, "a port that somebody else had is free, and served now");
                    self.held.hold(Arc::clone(&listener.id), SocketUse::Listener, fds);
                    steps.push(Change::Proxy(Proxy::PutListener(listener)));
                }
                Err(_) => drop(self.closed.ports.insert(Arc::clone(&listener.id), listener)),
            }
        }
        if self.closed.mesh {
            steps.extend(self.follow_mesh(model, &[]));
        }
        if !steps.is_empty() {
            self.put(steps, revision, model);
        }
        self.closed.ports.is_empty() && !self.closed.mesh
    }

    fn put(&mut self, steps: Vec<Change>, revision: u64, model: &Model) {
        let sockets = self.held.follow(&steps);
        let vacant = self.vacancy.follow(&steps, false, |key| self.held.has(key));
        self.follow_transparent(&steps, false, model);
        if let Some(session) = &self.session {
            send(session, Batch { revision, full: false, changes: steps, sockets });
        }
        self.refuse(&vacant, false, model);
    }
}

/// On an address that may come later, too.
pub(super) fn bind(listener: &Listener, workers: usize) -> Result<Vec<OwnedFd>, KernelError> {
    let protocol = match listener.protocol {
        Carried::Tcp => Protocol::Tcp,
        Carried::Udp => Protocol::Udp,
    };
    steer::bind_ahead(protocol, listener.address.ip(), listener.address.port(), workers)
}
