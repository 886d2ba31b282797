//! Records by id, and by whatever else a request or a change asks for them: no question makes anybody walk all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::{Id, Mode, Network, Peer, Sandbox, Service};

/// What else a record is found by. Several records may have a key in common.
pub(crate) trait Keyed {
    type Key: Ord;

    fn keys(&self) -> impl Iterator<Item = Self::Key>;
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SandboxKey {
    Name(Arc<str>),
    /// Device and inode of its namespace.
    Netns(u64, u64),
    /// It shares the namespace of that sandbox.
    Shares(Id),
    /// It is on that network.
    On(Id),
    /// It has a link to that sandbox.
    LinksTo(Id),
    /// It is a backend of that service.
    Serves(Id),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NetworkKey {
    Name(Arc<str>),
    Bridge(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServiceKey {
    Name(Arc<str>),
    /// It is on that network.
    On(Id),
    /// It has that address.
    Vip(IpAddr),
    /// It publishes that port, in whatever protocol.
    Publishes(u16),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PeerKey {
    /// It is on that network.
    On(Id),
    /// It is a backend of that service.
    Serves(Id),
    /// It belongs to that node.
    Of(Id),
}

impl Keyed for Sandbox {
    type Key = SandboxKey;

    fn keys(&self) -> impl Iterator<Item = SandboxKey> {
        let (device, inode) = self.netns_identity;
        let shares = match &self.mode {
            Mode::Container(owner) => Some(SandboxKey::Shares(Arc::clone(owner))),
            Mode::Bridge | Mode::None | Mode::Host | Mode::Docker => None,
        };
        let own = [SandboxKey::Name(Arc::clone(&self.name)), SandboxKey::Netns(device, inode)];
        let on = self.endpoints.iter().map(|endpoint| SandboxKey::On(Arc::clone(&endpoint.network)));
        let links = self.links.iter().map(|link| SandboxKey::LinksTo(Arc::clone(&link.sandbox)));
        let serves =
            self.service.iter().map(|membership| SandboxKey::Serves(Arc::clone(&membership.service)));
        own.into_iter().chain(shares).chain(on).chain(links).chain(serves)
    }
}

impl Keyed for Network {
    type Key = NetworkKey;

    fn keys(&self) -> impl Iterator<Item = NetworkKey> {
        let keys = [NetworkKey::Name(Arc::clone(&self.name)), NetworkKey::Bridge(Arc::clone(&self.bridge))];
        keys.into_iter()
    }
}

impl Keyed for Service {
    type Key = ServiceKey;

    fn keys(&self) -> impl Iterator<Item = ServiceKey> {
        let own = [ServiceKey::Name(Arc::clone(&self.name)), ServiceKey::On(Arc::clone(&self.network))];
        let ports = self.publishes.iter().map(|publish| ServiceKey::Publishes(publish.published));
        own.into_iter().chain(self.vips().map(ServiceKey::Vip)).chain(ports)
    }
}

impl Keyed for Peer {
    type Key = PeerKey;

    fn keys(&self) -> impl Iterator<Item = PeerKey> {
        let serves = self.service.iter().map(|service| PeerKey::Serves(Arc::clone(service)));
        [PeerKey::On(Arc::clone(&self.network)), PeerKey::Of(Arc::clone(&self.node))]
            .into_iter()
            .chain(serves)
    }
}

/// Read as the map from ids that it is; changed only through the two methods that keep the index.
#[derive(Clone, Debug)]
pub(crate) struct Indexed<T: Keyed> {
    records: BTreeMap<Id, Arc<T>>,
    index: BTreeMap<T::Key, BTreeSet<Id>>,
}

impl<T: Keyed> Indexed<T> {
    pub(crate) fn insert(&mut self, id: Id, record: Arc<T>) -> Option<Arc<T>> {
        let before = self.remove(&id);
        for key in record.keys() {
            self.index.entry(key).or_default().insert(Arc::clone(&id));
        }
        self.records.insert(id, record);
        before
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        let before = self.records.remove(id)?;
        for key in before.keys() {
            if let Some(ids) = self.index.get_mut(&key) {
                ids.remove(id);
                if ids.is_empty() {
                    self.index.remove(&key);
                }
            }
        }
        Some(before)
    }

    /// All that have the key, in the order of their ids.
    pub(crate) fn by<'a>(&'a self, key: &T::Key) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        self.index.get(key).into_iter().flatten().filter_map(|id| self.records.get(id))
    }
}

impl<T: Keyed> Default for Indexed<T> {
    fn default() -> Self {
        Self { records: BTreeMap::new(), index: BTreeMap::new() }
    }
}

impl<T: Keyed + PartialEq> PartialEq for Indexed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.records == other.records
    }
}

impl<T: Keyed> Deref for Indexed<T> {
    type Target = BTreeMap<Id, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn sandbox(id: u8, name: u8, network: u8) -> Sandbox {
        let mut sandbox = testing::sandbox(&format!("n{name}"));
        sandbox.id = format!("id{id}").into();
        sandbox.endpoints.push(testing::endpoint_at(&format!("net{network}"), &["10.0.0.2"]));
        sandbox
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_walk_finds(steps in prop::collection::vec((0..6_u8, any::<bool>(), 0..4_u8, 0..3_u8), 0..40)) {
            let mut indexed = Indexed::default();
            for (id, stays, name, network) in steps {
                let record = Arc::new(sandbox(id, name, network));
                if stays {
                    indexed.insert(Arc::clone(&record.id), record);
                } else {
                    indexed.remove(&record.id);
                }
                for wanted in 0..4_u8 {
                    for key in [SandboxKey::Name(format!("n{wanted}").into()), SandboxKey::On(format!("net{wanted}").into())] {
                        let found: Vec<_> = indexed.by(&key).collect();
                        let walked: Vec<_> =
                            indexed.values().filter(|record| record.keys().any(|held| held == key)).collect();
                        prop_assert_eq!(found, walked);
                    }
                }
            }
            let all: Vec<Id> = indexed.keys().cloned().collect();
            all.iter().for_each(|id| drop(indexed.remove(id)));
            prop_assert!(indexed.index.is_empty(), "nothing is left of what went");
        }
    }
}
