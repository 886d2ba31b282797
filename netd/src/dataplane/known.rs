//! Which objects the servers hold, by key: a full set of tables drops what it does not mention.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use netd_dns::table::{Change as Dns, ViewId, ZoneId};
use netd_proxy::table::{Change as Proxy, FunnelId, Listener, ListenerId, ServiceId};

use crate::tables::Change;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    zones: HashSet<ZoneId>,
    names: HashSet<(ZoneId, Arc<str>)>,
    views: HashSet<ViewId>,
    services: HashSet<ServiceId>,
    listeners: HashSet<ListenerId>,
    funnels: HashSet<FunnelId>,
    mesh: bool,
}

impl Known {
    /// Follows one change.
    pub(crate) fn note(&mut self, change: &Change) {
        match change {
            Change::Dns(change) => self.note_dns(change),
            Change::Proxy(change) => self.note_proxy(change),
        }
    }

    /// The changes that drop what is here and not in `wanted`; users before what they use.
    pub(crate) fn surplus(&self, wanted: &Self) -> Vec<Change> {
        let listeners = missing(&self.listeners, &wanted.listeners)
            .map(|listener| Change::Proxy(Proxy::DropListener { listener }));
        let funnels =
            missing(&self.funnels, &wanted.funnels).map(|funnel| Change::Proxy(Proxy::DropFunnel { funnel }));
        let services = missing(&self.services, &wanted.services)
            .map(|service| Change::Proxy(Proxy::DropService { service }));
        let views = missing(&self.views, &wanted.views).map(|view| Change::Dns(Dns::DropView { view }));
        let names = missing(&self.names, &wanted.names)
            .filter(|(zone, _)| wanted.zones.contains(zone))
            .map(|(zone, name)| Change::Dns(Dns::DropName { zone, name }));
        let zones = missing(&self.zones, &wanted.zones).map(|zone| Change::Dns(Dns::DropZone { zone }));
        let mesh = (self.mesh && !wanted.mesh).then_some(Change::Proxy(Proxy::DropMesh));
        listeners.chain(funnels).chain(mesh).chain(services).chain(views).chain(names).chain(zones).collect()
    }

    pub(crate) fn has_mesh(&self) -> bool {
        self.mesh
    }

    pub(crate) fn has_funnel(&self, id: &str) -> bool {
        self.funnels.contains(id)
    }

    /// What keeps `listener` from being served after the changes noted so far.
    pub(crate) fn lack(&self, listener: &Listener, has_socket: bool) -> Option<String> {
        if !self.services.contains(&listener.service) {
            return Some(format!(
                "listener {} leads to service {}, which is not there",
                listener.id, listener.service
            ));
        }
        if let Some(funnel) = &listener.funnel {
            let lack =
                || format!("clients of listener {} come through {funnel}, which is not there", listener.id);
            return (!self.funnels.contains(funnel)).then(lack);
        }
        let is_open = has_socket || self.listeners.contains(&listener.id);
        (!is_open).then(|| format!("listener {} is new and came without a socket", listener.id))
    }

    fn note_dns(&mut self, change: &Dns) {
        match change {
            Dns::PutName { zone, name } => {
                self.zones.insert(Arc::clone(zone));
                self.names.insert((Arc::clone(zone), Arc::clone(&name.name)));
            }
            Dns::DropName { zone, name } => {
                self.names.remove(&(Arc::clone(zone), Arc::clone(name)));
            }
            Dns::DropZone { zone } => {
                self.zones.remove(zone);
                self.names.retain(|(of, _)| of != zone);
            }
            Dns::PutView(view) => {
                self.views.insert(Arc::clone(&view.id));
            }
            Dns::DropView { view } => {
                self.views.remove(view);
            }
            Dns::PutHostServers { .. } => {}
        }
    }

    fn note_proxy(&mut self, change: &Proxy) {
        match change {
            Proxy::PutService(service) => {
                self.services.insert(Arc::clone(&service.id));
            }
            Proxy::DropService { service } => {
                self.services.remove(service);
            }
            Proxy::PutListener(listener) => {
                self.listeners.insert(Arc::clone(&listener.id));
            }
            Proxy::DropListener { listener } => {
                self.listeners.remove(listener);
            }
            Proxy::PutFunnel(funnel) => {
                self.funnels.insert(Arc::clone(&funnel.id));
            }
            Proxy::DropFunnel { funnel } => {
                self.funnels.remove(funnel);
            }
            Proxy::PutMesh(_) => self.mesh = true,
            Proxy::DropMesh => self.mesh = false,
        }
    }
}

fn missing<'a, T: Clone + Eq + Hash>(
    here: &'a HashSet<T>,
    wanted: &'a HashSet<T>,
) -> impl Iterator<Item = T> + use<'a, T> {
    here.difference(wanted).cloned()
}

#[cfg(test)]
mod tests;
