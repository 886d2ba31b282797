//! The tables in the form that questions are answered from: names to addresses and addresses to names by zone, and the
//! views over them. The serving thread owns the one [`Index`] and applies [`Change`]s to it between two packets. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;

use crate::entry::Entry;
use crate::name::{DottedName, before_suffix};
use crate::table::{Name, View, ViewId, ZoneId};

/// Where a view is in the index, from [`Index::put_view`] to [`Index::drop_view`].
pub(crate) type ViewKey = usize;

#[derive(Default)]
pub(crate) struct Index {
    zones: Slab<Zone>,
    zone_keys: HashMap<ZoneId, usize>,
    views: Slab<Scope>,
    view_keys: HashMap<ViewId, ViewKey>,
}

/// What one view can see.
struct Scope {
    zones: Vec<Reach>,
    own: Names,
    single_labels_are_local: bool,
}

struct Reach {
    zone: usize,
    suffix: Arc<str>,
}

/// A zone exists while it has been filled or a view looks at it, so a view may come before its zone.
#[derive(Default)]
struct Zone {
    id: Option<ZoneId>,
    names: Names,
    views: usize,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<Box<[u8]>, Entry>,
    by_address: HashMap<IpAddr, Vec<Arc<str>>>,
}

/// What a name leads to, and the suffix of the zone that it is in; none for the view's own names.
pub(crate) struct Found<'a> {
    pub(crate) entry: &'a mut Entry,
    pub(crate) suffix: Option<&'a Arc<str>>,
}

impl Index {
    pub(crate) fn put_name(&mut self, zone: &ZoneId, name: &Name) {
        let key = self.zone(zone);
        self.zones[key].names.put(name);
    }

    pub(crate) fn drop_name(&mut self, zone: &ZoneId, name: &str) {
        let Some(&key) = self.zone_keys.get(zone) else { return };
        self.zones[key].names.drop(name);
        self.forget_if_unused(key);
    }

    pub(crate) fn drop_zone(&mut self, zone: &ZoneId) {
        let Some(&key) = self.zone_keys.get(zone) else { return };
        self.zones[key].names = Names::default();
        self.forget_if_unused(key);
    }

    pub(crate) fn put_view(&mut self, view: &View) -> ViewKey {
        let zones: Vec<Reach> = view
            .zones
            .iter()
            .map(|reach| Reach { zone: self.zone(&reach.zone), suffix: lower(&reach.suffix) })
            .collect();
        for reach in &zones {
            self.zones[reach.zone].views += 1;
        }
        let mut scope =
            Scope { zones, own: Names::default(), single_labels_are_local: view.single_labels_are_local };
        for name in &view.names {
            scope.own.put(name);
        }
        let Some(&key) = self.view_keys.get(&view.id) else {
            let key = self.views.insert(scope);
            self.view_keys.insert(view.id.clone(), key);
            return key;
        };
        let before = std::mem::replace(&mut self.views[key], scope);
        self.release(&before);
        key
    }

    pub(crate) fn drop_view(&mut self, view: &ViewId) -> Option<ViewKey> {
        let key = self.view_keys.remove(view)?;
        let scope = self.views.remove(key);
        self.release(&scope);
        Some(key)
    }

    fn zone(&mut self, id: &ZoneId) -> usize {
        if let Some(&key) = self.zone_keys.get(id) {
            return key;
        }
        let key = self.zones.insert(Zone { id: Some(id.clone()), ..Zone::default() });
        self.zone_keys.insert(id.clone(), key);
        key
    }

    fn release(&mut self, scope: &Scope) {
        for reach in &scope.zones {
            self.zones[reach.zone].views -= 1;
            self.forget_if_unused(reach.zone);
        }
    }

    fn forget_if_unused(&mut self, key: usize) {
        let Some(zone) = self.zones.get(key) else { return };
        if zone.views == 0
            && zone.names.by_name.is_empty()
            && let Some(id) = self.zones.remove(key).id
        {
            self.zone_keys.remove(&id);
        }
    }

    /// The entry that `name` leads to: the view's own names first, then each zone's, then `name.suffix` in each.
    pub(crate) fn find(&mut self, view: ViewKey, name: &DottedName) -> Option<Found<'_>> {
        if name.is_foreign() {
            return None;
        }
        let scope = self.views.get_mut(view)?;
        let name = name.as_bytes();
        // Asked twice because a borrow that is returned early would last for the rest of the function.
        if scope.own.by_name.contains_key(name) {
            let entry = scope.own.by_name.get_mut(name)?;
            return Some(Found { entry, suffix: None });
        }
        let zones = &self.zones;
        let has = |zone: usize, name: &[u8]| zones[zone].names.by_name.contains_key(name);
        let (reach, name) = scope.zones.iter().find(|reach| has(reach.zone, name)).map_or_else(
            || {
                scope.zones.iter().find_map(|reach| {
                    let short = before_suffix(name, reach.suffix.as_bytes())?;
                    has(reach.zone, short).then_some((reach, short))
                })
            },
            |reach| Some((reach, name)),
        )?;
        let entry = self.zones[reach.zone].names.by_name.get_mut(name)?;
        Some(Found { entry, suffix: Some(&reach.suffix) })
    }

    /// The name that `address` has in this view, and the suffix it is in; none for the view's own names.
    pub(crate) fn name_of(&self, view: ViewKey, address: IpAddr) -> Option<(&str, Option<&str>)> {
        let scope = self.views.get(view)?;
        let in_zones = || {
            scope.zones.iter().find_map(|reach| {
                let name = self.zones[reach.zone].names.first_name_of(address)?;
                Some((name, Some(reach.suffix.as_ref())))
            })
        };
        scope.own.first_name_of(address).map(|name| (name, None)).or_else(in_zones)
    }

    pub(crate) fn single_labels_are_local(&self, view: ViewKey) -> bool {
        self.views.get(view).is_some_and(|scope| scope.single_labels_are_local)
    }

    #[cfg(test)]
    pub(crate) fn zone_count(&self) -> usize {
        self.zones.len()
    }
}

impl Names {
    fn put(&mut self, name: &Name) {
        let text = lower(&name.name);
        let key: Box<[u8]> = text.as_bytes().into();
        let mut entry = Entry::of(name);
        if let Some(before) = self.by_name.get(&key) {
            entry.take_turns_of(before);
        }
        self.unlink(&key);
        for address in &entry.primary_for {
            self.by_address.entry(*address).or_default().push(text.clone());
        }
        self.by_name.insert(key, entry);
    }

    fn drop(&mut self, name: &str) {
        let key = name.to_ascii_lowercase();
        self.unlink(key.as_bytes());
        self.by_name.remove(key.as_bytes());
    }

    fn unlink(&mut self, name: &[u8]) {
        let Some(entry) = self.by_name.get(name) else { return };
        for address in &entry.primary_for {
            if let Some(names) = self.by_address.get_mut(address) {
                names.retain(|other| other.as_bytes() != name);
                if names.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    fn first_name_of(&self, address: IpAddr) -> Option<&str> {
        self.by_address.get(&address)?.first().map(AsRef::as_ref)
    }
}

fn lower(name: &Arc<str>) -> Arc<str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.clone()
    }
}

#[cfg(test)]
mod tests;
