//! The one projection from the records to what the data plane serves: names, views, services, listeners. Pure.
//!
//! Every object but a name belongs to one sandbox; a name belongs to all sandboxes of a network that carry it. A change
//! therefore projects the sandboxes it concerns before and after, and sends the difference: the work does not grow
//! with the number of sandboxes. [`Projection::whole`] is the same state sent from nothing, for a new data plane.

mod difference;
mod gateway;
mod names;
mod neighbours;
mod part;
mod publish;
mod view;

pub(crate) use gateway::{gateway_endpoint, has_view, has_way_out};
pub(crate) use neighbours::{Entry as NeighbourEntry, Known, Mac, Neighbours};
pub(crate) use publish::{funnel_id, listener_id};
pub(crate) use view::RESOLVER;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netd_dns::table::View;
use netd_proxy::table::{Listener, ListenerId};
use serde::{Deserialize, Serialize};

use crate::model::{self, Id, Model, Network, Sandbox, SandboxKey};
use difference::Difference;
use names::Names;
use part::Part;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change {
    Dns(netd_dns::table::Change),
    Proxy(netd_proxy::table::Change),
}

#[derive(Debug, Default)]
pub(crate) struct Projection {
    model: Model,
    names: Names,
}

impl Projection {
    /// Takes one change of the records in and tells what changes for the data plane, in an order that never leaves a
    /// listener without its service.
    pub(crate) fn apply(&mut self, change: &model::Change) -> Vec<Change> {
        match change {
            model::Change::Network { before, after } => {
                let Some(id) = before.as_ref().or(after.as_ref()).map(|network| Arc::clone(&network.id))
                else {
                    return Vec::new();
                };
                self.network(&id, after.clone())
            }
            model::Change::Sandbox { before, after } => {
                let Some(id) = before.as_ref().or(after.as_ref()).map(|sandbox| Arc::clone(&sandbox.id))
                else {
                    return Vec::new();
                };
                self.sandbox(&id, after.clone())
            }
            model::Change::Service { .. }
            | model::Change::Node { .. }
            | model::Change::Member { .. }
            | model::Change::Peer { .. } => Vec::new(),
        }
    }

    /// How many names resolve, over all zones.
    pub(crate) fn name_count(&self) -> usize {
        self.names.count()
    }

    /// What the zone's names lead to.
    pub(crate) fn names_of<'a>(&'a self, zone: &'a str) -> impl Iterator<Item = netd_dns::table::Name> + 'a {
        self.names.of_zone(zone)
    }

    /// Everything, from nothing.
    pub(crate) fn whole(&self) -> Vec<Change> {
        let mut difference = Difference::default();
        for sandbox in self.model.sandboxes.values() {
            difference.put(Part::of(sandbox, &self.model));
        }
        difference.into_changes(&self.names)
    }

    fn network(&mut self, id: &Id, after: Option<Arc<Network>>) -> Vec<Change> {
        let before = self.model.networks.get(id);
        let zone_ends = before.is_some_and(|network| network.resolves)
            && !after.as_ref().is_some_and(|network| network.resolves);
        let concerned = if same_for_sandboxes(before.map(|network| &**network), after.as_deref()) {
            BTreeSet::new()
        } else {
            self.ids_by(&SandboxKey::On(Arc::clone(id)))
        };
        let mut changes = self.replace(&concerned, |projection| {
            match after {
                Some(network) => projection.model.networks.insert(Arc::clone(id), network),
                None => projection.model.networks.remove(id),
            };
        });
        if zone_ends {
            changes.push(Change::Dns(netd_dns::table::Change::DropZone { zone: Arc::clone(id) }));
        }
        changes
    }

    fn sandbox(&mut self, id: &Id, after: Option<Arc<Sandbox>>) -> Vec<Change> {
        let mut concerned = self.ids_by(&SandboxKey::LinksTo(Arc::clone(id)));
        concerned.insert(Arc::clone(id));
        self.replace(&concerned, |projection| {
            match after {
                Some(sandbox) => projection.model.sandboxes.insert(Arc::clone(id), sandbox),
                None => projection.model.sandboxes.remove(id),
            };
        })
    }

    fn ids_by(&self, key: &SandboxKey) -> BTreeSet<Id> {
        self.model.sandboxes.by(key).map(|sandbox| Arc::clone(&sandbox.id)).collect()
    }

    /// Projects the concerned sandboxes, makes the change, projects them again, and sends the difference.
    fn replace(&mut self, concerned: &BTreeSet<Id>, change: impl FnOnce(&mut Self)) -> Vec<Change> {
        let mut difference = Difference::default();
        for part in self.parts(concerned) {
            self.names.remove(&part);
            difference.drop(part);
        }
        change(self);
        for part in self.parts(concerned) {
            self.names.insert(&part);
            difference.put(part);
        }
        difference.into_changes(&self.names)
    }

    fn parts(&self, concerned: &BTreeSet<Id>) -> Vec<Part> {
        let sandboxes = concerned.iter().filter_map(|id| self.model.sandboxes.get(id));
        sandboxes.map(|sandbox| Part::of(sandbox, &self.model)).collect()
    }
}

/// What is served for one sandbox: the listeners and the view that sockets are needed for.
pub(crate) fn served(sandbox: &Sandbox, model: &Model) -> (Option<View>, BTreeMap<ListenerId, Listener>) {
    let part = Part::of(sandbox, model);
    (part.view, part.listeners)
}

/// Whether nothing that a sandbox's part depends on differs.
fn same_for_sandboxes(before: Option<&Network>, after: Option<&Network>) -> bool {
    let seen = |network: Option<&Network>| {
        network.map(|network| (Arc::clone(&network.name), network.internal, network.resolves))
    };
    seen(before) == seen(after)
}

#[cfg(test)]
mod tests;
