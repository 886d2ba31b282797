//! Which listeners lead to a service that somebody can answer for. A service's backends come and go without its
//! listeners, so both are followed. Pure.
//!
//!   tables -> `follow` -> those that may have changed -> `place`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netd_proxy::table::{BackendState, Change as Proxy, Listener, ListenerId, Service, ServiceId};
use netd_sys::bpf::Steered;

use super::steering::place;
use crate::tables::Change;

#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Services that somebody can answer for.
    served: BTreeSet<ServiceId>,
    /// Where they are, and whom they lead to.
    listeners: BTreeMap<ListenerId, (Steered, ServiceId)>,
    listeners_of: BTreeMap<ServiceId, BTreeSet<ListenerId>>,
}

impl Answered {
    /// Takes in what changes for the data plane; with `full`, what is not put is gone. Only listeners that `counts` says
    /// are kept. Gives those of which something may have changed.
    pub(super) fn follow(
        &mut self,
        changes: &[Change],
        full: bool,
        counts: impl Fn(&Listener) -> bool,
    ) -> BTreeSet<ListenerId> {
        let mut touched = BTreeSet::new();
        if full {
            touched.extend(std::mem::take(self).listeners.into_keys());
        }
        for change in changes {
            let Change::Proxy(change) = change else { continue };
            match change {
                Proxy::PutService(service) => self.serves(&service.id, answers(service), &mut touched),
                Proxy::DropService { service } => self.serves(service, false, &mut touched),
                Proxy::PutListener(listener) => {
                    self.remove(&listener.id);
                    if counts(listener) {
                        let (id, service) = (&listener.id, &listener.service);
                        self.listeners.insert(Arc::clone(id), (place(listener), Arc::clone(service)));
                        self.listeners_of.entry(Arc::clone(service)).or_default().insert(Arc::clone(id));
                    }
                    touched.insert(Arc::clone(&listener.id));
                }
                Proxy::DropListener { listener } => {
                    self.remove(listener);
                    touched.insert(Arc::clone(listener));
                }
                Proxy::PutFunnel(_) | Proxy::DropFunnel { .. } | Proxy::PutMesh(_) | Proxy::DropMesh => {}
            }
        }
        touched
    }

    /// Where the listener is, and whether somebody answers there.
    pub(super) fn place(&self, listener: &str) -> Option<(Steered, bool)> {
        let (place, service) = self.listeners.get(listener)?;
        Some((*place, self.served.contains(service)))
    }

    fn serves(&mut self, service: &ServiceId, served: bool, touched: &mut BTreeSet<ListenerId>) {
        let changed = match served {
            true => self.served.insert(Arc::clone(service)),
            false => self.served.remove(service),
        };
        if changed {
            touched.extend(self.listeners_of.get(service).into_iter().flatten().cloned());
        }
    }

    fn remove(&mut self, listener: &ListenerId) {
        let Some((_, service)) = self.listeners.remove(listener) else { return };
        if let Some(others) = self.listeners_of.get_mut(&service) {
            others.remove(listener);
            if others.is_empty() {
                self.listeners_of.remove(&service);
            }
        }
    }
}

/// As the data plane chooses: those that drain, too, while nobody else is left. For those that leave nobody is let in.
fn answers(service: &Service) -> bool {
    let takes = |state| matches!(state, BackendState::Ready | BackendState::Draining);
    service.backends.iter().any(|backend| takes(backend.state))
}
