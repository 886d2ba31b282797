//! Every name of every zone, with what it leads to by all records that carry it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use netd_dns::table::Name;

use super::part::{Held, NameKey, Owner, Part};

/// Sandboxes and services in the order of joining; the id decides between two of one instant, so that the order is the same
/// however the records were read.
type Holders = BTreeMap<(SystemTime, Owner), Held>;

#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<NameKey, Holders>);

impl Names {
    pub(super) fn insert(&mut self, part: &Part) {
        for (name, held) in &part.names {
            let place = (held.joined, part.owner.clone());
            self.0.entry(name.clone()).or_default().insert(place, held.clone());
        }
    }

    pub(super) fn remove(&mut self, part: &Part) {
        for (name, held) in &part.names {
            if let Some(holders) = self.0.get_mut(name) {
                holders.remove(&(held.joined, part.owner.clone()));
                if holders.is_empty() {
                    self.0.remove(name);
                }
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn of_zone<'a>(&'a self, zone: &'a str) -> impl Iterator<Item = Name> + 'a {
        let first: NameKey = (zone.into(), "".into());
        let in_zone = self.0.range(first..).take_while(move |((other, _), _)| **other == *zone);
        in_zone.filter_map(|(key, _)| self.get(key))
    }

    /// What the name leads to now.
    pub(super) fn get(&self, key: &NameKey) -> Option<Name> {
        let all = self.0.get(key)?;
        let services_only = all.values().any(|held| held.of_service);
        let holders = || all.values().filter(move |held| held.of_service || !services_only);
        let primary = all.values().filter(|held| held.primary);
        Some(Name {
            name: Arc::clone(&key.1),
            addresses: holders().flat_map(|held| held.addresses.iter().copied()).collect(),
            primary_for: primary.flat_map(|held| held.addresses.iter().copied()).collect(),
            srv: holders().flat_map(|held| held.srv.iter().cloned()).collect(),
            alias: holders().find_map(|held| held.alias.clone()),
        })
    }
}
