//! From what was projected before and after to the changes in between, in an order that is always safe to apply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netd_dns::table::{Change as Dns, View, ViewId};
use netd_proxy::table::{Change as Proxy, Listener, ListenerId, Service, ServiceId};

use super::Change;
use super::names::Names;
use super::part::{Held, NameKey, Owner, Part};

#[derive(Debug, Default)]
pub(super) struct Difference {
    names: Objects<(NameKey, Owner), Held>,
    views: Objects<ViewId, View>,
    services: Objects<ServiceId, Service>,
    listeners: Objects<ListenerId, Listener>,
}

#[derive(Debug)]
struct Objects<K, V> {
    before: BTreeMap<K, V>,
    after: BTreeMap<K, V>,
}

impl<K, V> Default for Objects<K, V> {
    fn default() -> Self {
        Self { before: BTreeMap::new(), after: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq> Objects<K, V> {
    fn dropped(&self) -> impl Iterator<Item = K> {
        self.before.keys().filter(|key| !self.after.contains_key(key)).cloned()
    }

    fn changed(&self) -> impl Iterator<Item = &K> {
        let put = self.after.iter().filter(|&(key, value)| self.before.get(key) != Some(value));
        put.map(|(key, _)| key).chain(self.before.keys().filter(|key| !self.after.contains_key(key)))
    }

    fn put(&mut self) -> impl Iterator<Item = V> {
        let before = std::mem::take(&mut self.before);
        let after = std::mem::take(&mut self.after);
        after.into_iter().filter(move |(key, value)| before.get(key) != Some(value)).map(|(_, value)| value)
    }
}

impl Difference {
    /// This was there before.
    pub(super) fn drop(&mut self, part: Part) {
        self.names.before.extend(holdings(&part.owner, part.names));
        self.views.before.extend(part.view.map(|view| (Arc::clone(&view.id), view)));
        self.services.before.extend(part.services);
        self.listeners.before.extend(part.listeners);
    }

    /// This is there now.
    pub(super) fn put(&mut self, part: Part) {
        self.names.after.extend(holdings(&part.owner, part.names));
        self.views.after.extend(part.view.map(|view| (Arc::clone(&view.id), view)));
        self.services.after.extend(part.services);
        self.listeners.after.extend(part.listeners);
    }

    /// Names before the views that see them; listeners only between their services' coming and going.
    pub(super) fn into_changes(mut self, names: &Names) -> Vec<Change> {
        let mut changes = Vec::new();
        changes
            .extend(self.listeners.dropped().map(|listener| Change::Proxy(Proxy::DropListener { listener })));
        changes.extend(self.views.dropped().map(|view| Change::Dns(Dns::DropView { view })));
        let dropped_services: Vec<ServiceId> = self.services.dropped().collect();
        let changed: BTreeSet<&NameKey> = self.names.changed().map(|(name, _)| name).collect();
        changes.extend(changed.into_iter().map(|key| Change::Dns(name_change(key, names))));
        changes.extend(self.views.put().map(|view| Change::Dns(Dns::PutView(view))));
        changes.extend(self.services.put().map(|service| Change::Proxy(Proxy::PutService(service))));
        changes.extend(self.listeners.put().map(|listener| Change::Proxy(Proxy::PutListener(listener))));
        let dropped = dropped_services.into_iter();
        changes.extend(dropped.map(|service| Change::Proxy(Proxy::DropService { service })));
        changes
    }
}

fn holdings(owner: &Owner, names: BTreeMap<NameKey, Held>) -> impl Iterator<Item = ((NameKey, Owner), Held)> {
    names.into_iter().map(|(name, held)| ((name, owner.clone()), held))
}

fn name_change(key: &NameKey, names: &Names) -> Dns {
    let zone = Arc::clone(&key.0);
    match names.get(key) {
        Some(name) => Dns::PutName { zone, name },
        None => Dns::DropName { zone, name: Arc::clone(&key.1) },
    }
}
