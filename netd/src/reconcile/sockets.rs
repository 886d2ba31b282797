//! Our duplicates of the sockets that are served, and which of them the data plane has.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netd_dns::table::Change as Dns;
use netd_proxy::table::{Change as Proxy, MESH_TCP, MESH_UDP};
use netd_sys::KernelError;

use crate::dataplane::{SocketKey, SocketUse, Sockets};
use crate::steer::EAST_WEST;
use crate::tables::Change;

/// Keys of a view's sockets begin with this.
pub(super) const VIEW: &str = "dns/";

pub(super) fn view_key(view: &str) -> SocketKey {
    format!("{VIEW}{view}").into()
}

/// What keeps steering in force; of use as long as there are funnels, and sent along with them.
pub(super) const LINK: &str = "steer/link";

/// What other nodes come to.
pub(super) const MESH: [&str; 2] = [MESH_TCP, MESH_UDP];

#[derive(Default)]
pub(super) struct Held {
    sockets: BTreeMap<SocketKey, Vec<(SocketUse, Vec<OwnedFd>)>>,
    /// What the data plane has been sent, or has told us of.
    sent: BTreeSet<SocketKey>,
}

impl Held {
    pub(super) fn has(&self, key: &str) -> bool {
        self.sockets.contains_key(key)
    }

    /// One of the sockets with this key.
    pub(super) fn one(&self, key: &str) -> Option<BorrowedFd<'_>> {
        self.sockets.get(key)?.first()?.1.first().map(AsFd::as_fd)
    }

    /// Duplicates of all with this key.
    pub(super) fn all(&self, key: &str) -> Option<Result<Vec<OwnedFd>, KernelError>> {
        let held = self.sockets.get(key)?;
        let fds = held.iter().flat_map(|(_, fds)| fds).map(OwnedFd::try_clone).collect::<Result<_, _>>();
        Some(fds.map_err(|error| KernelError::new("duplicate the descriptors of", key, error)))
    }

    pub(super) fn hold(&mut self, key: SocketKey, used: SocketUse, fds: Vec<OwnedFd>) {
        let held = self.sockets.entry(key).or_default();
        match held.iter_mut().find(|(other, _)| *other == used) {
            Some((_, sockets)) => sockets.extend(fds),
            None => held.push((used, fds)),
        }
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.sockets.remove(key);
        self.sent.remove(key);
    }

    /// Another data plane: it has what its inventory says, if it serves already, and nothing else.
    pub(super) fn adopt(&mut self, inventory: Vec<Sockets>, serves: bool) {
        self.sent.clear();
        let known: BTreeSet<SocketKey> = self.sockets.keys().cloned().collect();
        for Sockets { key, used, fds } in inventory {
            if serves {
                self.sent.insert(Arc::clone(&key));
            }
            if !known.contains(&key) {
                self.hold(key, used, fds);
            }
        }
    }

    /// The sockets that must go along with these changes; what they drop is closed.
    pub(super) fn follow(&mut self, changes: &[Change]) -> Vec<Sockets> {
        let mut sockets = Vec::new();
        for change in changes {
            match change {
                Change::Dns(Dns::PutView(view)) => self.send(&view_key(&view.id), &mut sockets),
                Change::Proxy(Proxy::PutListener(listener)) => self.send(&listener.id, &mut sockets),
                Change::Dns(Dns::DropView { view }) => self.forget(&view_key(view)),
                Change::Proxy(Proxy::DropListener { listener }) => self.forget(listener),
                Change::Proxy(Proxy::PutFunnel(funnel)) => {
                    self.send(&funnel.id, &mut sockets);
                    self.send(&LINK.into(), &mut sockets);
                }
                Change::Proxy(Proxy::PutMesh(_)) => {
                    MESH.iter().for_each(|key| self.send(&(*key).into(), &mut sockets));
                }
                Change::Proxy(Proxy::DropMesh) => MESH.iter().for_each(|key| self.forget(key)),
                Change::Dns(_) | Change::Proxy(_) => {}
            }
        }
        self.send(&EAST_WEST, &mut sockets);
        sockets
    }

    /// The same for everything there is: what is not in it is not wanted any more.
    pub(super) fn follow_all(&mut self, changes: &[Change]) -> Vec<Sockets> {
        let mut wanted: BTreeSet<SocketKey> = changes.iter().filter_map(key_of).collect();
        if changes.iter().any(|change| matches!(change, Change::Proxy(Proxy::PutFunnel(_)))) {
            wanted.insert(LINK.into());
        }
        if changes.iter().any(|change| matches!(change, Change::Proxy(Proxy::PutMesh(_)))) {
            wanted.extend(MESH.map(SocketKey::from));
        }
        // What is kept is to be sent with every full set: the data plane lets go of the rest.
        wanted.insert(Arc::clone(&EAST_WEST));
        [LINK, &EAST_WEST].iter().for_each(|key| drop(self.sent.take(*key)));
        self.sockets.retain(|key, _| wanted.contains(key));
        self.sent.retain(|key| wanted.contains(key));
        self.follow(changes)
    }

    fn send(&mut self, key: &SocketKey, sockets: &mut Vec<Sockets>) {
        if self.sent.contains(key) {
            return;
        }
        let Some(held) = self.sockets.get(key) else { return };
        for (used, fds) in held {
            match fds.iter().map(OwnedFd::try_clone).collect() {
                Ok(fds) => sockets.push(Sockets { key: Arc::clone(key), used: *used, fds }),
                Err(error) => {
                    tracing::error!(%key, %error, "cannot duplicate a socket for the data plane");
                    return;
                }
            }
        }
        self.sent.insert(Arc::clone(key));
    }
}

fn key_of(change: &Change) -> Option<SocketKey> {
    match change {
        Change::Dns(Dns::PutView(view)) => Some(view_key(&view.id)),
        Change::Proxy(Proxy::PutListener(listener)) => Some(Arc::clone(&listener.id)),
        Change::Proxy(Proxy::PutFunnel(funnel)) => Some(Arc::clone(&funnel.id)),
        Change::Dns(_) | Change::Proxy(_) => None,
    }
}
