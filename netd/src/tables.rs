//! The one projection from the records to what the data plane serves: names, views, services, listeners. Pure.
//!
//! Every object but a name belongs to one record, a sandbox or a service; a name belongs to all records of a network
//! that carry it. Changes therefore project the records they concern before the first and after the last of them, and send
//! the difference: the work does not grow with the number of records, nor, for one that many of the changes concern (the
//! service of a thousand endpoints that come at once), with their product. [`Projection::whole`] is the same state sent
//! from nothing, for a new data plane.

mod away;
mod client_address;
mod difference;
mod gateway;
mod members;
mod mesh;
mod names;
mod neighbours;
mod part;
mod publish;
mod service;
mod view;

pub(crate) use away::Away;
pub(crate) use gateway::{gateway_endpoint, has_view, has_way_out};
pub(crate) use members::{Member, members, usable};
pub(crate) use mesh::mesh;
pub(crate) use neighbours::{Entry as NeighbourEntry, Known, Mac, Neighbours};
pub(crate) use publish::{funnel_id, listener_id};
pub(crate) use service::{publish_id, service_id, service_id_here, usual_target};
pub(crate) use view::RESOLVER;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netd_dns::table::View;
use netd_proxy::table::{Listener, ListenerId};
use serde::{Deserialize, Serialize};

use crate::model::{
    self, Driver, Id, Model, Network, Peer, PeerKey, Sandbox, SandboxKey, Service, ServiceKey,
};
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

/// The records whose parts a change may make other.
#[derive(Debug, Default)]
struct Concerned {
    sandboxes: BTreeSet<Id>,
    services: BTreeSet<Id>,
    peers: BTreeSet<Id>,
}

/// Some changes on their way in.
#[derive(Debug, Default)]
struct Round {
    concerned: Concerned,
    /// Has what the concerned records were before.
    difference: Difference,
    /// Networks that had names.
    zones: BTreeSet<Id>,
}

impl Concerned {
    fn service(id: Id) -> Self {
        Self { services: BTreeSet::from([id]), ..Self::default() }
    }

    /// Takes in the other, and keeps there what is new here.
    fn take_in(&mut self, other: &mut Self) {
        other.sandboxes.retain(|id| self.sandboxes.insert(Arc::clone(id)));
        other.services.retain(|id| self.services.insert(Arc::clone(id)));
        other.peers.retain(|id| self.peers.insert(Arc::clone(id)));
    }
}

impl Projection {
    pub(crate) fn of(here: Id) -> Self {
        Self { model: Model { here, ..Model::default() }, ..Self::default() }
    }

    /// Takes changes of the records in and tells what changes for the data plane, in an order that never leaves a
    /// listener without its service.
    pub(crate) fn apply(&mut self, changes: &[model::Change]) -> Vec<Change> {
        let mut round = Round::default();
        changes.iter().for_each(|change| self.take(change, &mut round));
        for part in self.parts(&round.concerned) {
            self.names.insert(&part);
            round.difference.put(part);
        }
        let mut steps = round.difference.into_changes(&self.names);
        let has_names = |zone: &Id| self.model.networks.get(zone).is_some_and(|network| network.resolves);
        let ended = round.zones.into_iter().filter(|zone| !has_names(zone));
        steps.extend(ended.map(|zone| Change::Dns(netd_dns::table::Change::DropZone { zone })));
        steps
    }

    fn take(&mut self, change: &model::Change, round: &mut Round) {
        match change {
            model::Change::Network { before, after } => {
                if let Some(network) = before.as_ref().or(after.as_ref()) {
                    self.network(&network.id, after.clone(), round);
                }
            }
            model::Change::Sandbox { before, after } => {
                if let Some(sandbox) = before.as_ref().or(after.as_ref()) {
                    self.sandbox(&sandbox.id, after.clone(), round);
                }
            }
            model::Change::Service { before, after } => {
                if let Some(service) = before.as_ref().or(after.as_ref()) {
                    self.service(&service.id, after.clone(), round);
                }
            }
            model::Change::Node { before, after } => {
                if let Some(node) = before.as_ref().or(after.as_ref()) {
                    let services = self.served_by(&node.name);
                    let concerned = Concerned { services, ..Concerned::default() };
                    let id = Id::clone(&node.name);
                    self.replace(concerned, round, |model| set(&mut model.nodes, id, after.clone()));
                }
            }
            model::Change::Member { before, after } => {
                if let Some(member) = before.as_ref().or(after.as_ref()) {
                    let services = self.served_by(&member.name);
                    let concerned = Concerned { services, ..Concerned::default() };
                    let id = Id::clone(&member.name);
                    self.replace(concerned, round, |model| set(&mut model.members, id, after.clone()));
                }
            }
            model::Change::Peer { before, after } => {
                if let Some(peer) = before.as_ref().or(after.as_ref()) {
                    self.peer(&peer.id, after.clone(), round);
                }
            }
            model::Change::Findings { before, after } => {
                if let Some(findings) = before.as_ref().or(after.as_ref()) {
                    let id = Id::clone(&findings.service);
                    let concerned = Concerned::service(Id::clone(&id));
                    self.replace(concerned, round, |model| set(&mut model.findings, id, after.clone()));
                }
            }
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
        let everything = Concerned {
            sandboxes: self.model.sandboxes.keys().cloned().collect(),
            services: self.model.services.keys().cloned().collect(),
            peers: self.model.peers.keys().cloned().collect(),
        };
        self.parts(&everything).into_iter().for_each(|part| difference.put(part));
        difference.into_changes(&self.names)
    }

    fn network(&mut self, id: &Id, after: Option<Arc<Network>>, round: &mut Round) {
        let before = self.model.networks.get(id);
        if before.is_some_and(|network| network.resolves) {
            round.zones.insert(Arc::clone(id));
        }
        let concerned = if same_for_records(before.map(|network| &**network), after.as_deref()) {
            Concerned::default()
        } else {
            Concerned {
                sandboxes: self.ids_by(&SandboxKey::On(Arc::clone(id))),
                services: self.services_on(id),
                peers: ids(self.model.peers.by(&PeerKey::On(Arc::clone(id))), |peer| &peer.id),
            }
        };
        self.replace(concerned, round, |model| {
            match after {
                Some(network) => model.networks.insert(Arc::clone(id), network),
                None => model.networks.remove(id),
            };
        });
    }

    fn sandbox(&mut self, id: &Id, after: Option<Arc<Sandbox>>, round: &mut Round) {
        let before = self.model.sandboxes.get(id);
        let mut concerned = Concerned {
            sandboxes: self.ids_by(&SandboxKey::LinksTo(Arc::clone(id))),
            ..Concerned::default()
        };
        concerned.sandboxes.insert(Arc::clone(id));
        for sandbox in before.into_iter().chain(&after) {
            concerned.services.extend(sandbox.service.iter().map(|member| Arc::clone(&member.service)));
            for network in self.overlays_of(sandbox) {
                concerned.services.extend(self.services_of_a_visitor(&network, id));
            }
        }
        self.replace(concerned, round, |model| {
            match after {
                Some(sandbox) => model.sandboxes.insert(Arc::clone(id), sandbox),
                None => model.sandboxes.remove(id),
            };
        });
    }

    fn service(&mut self, id: &Id, after: Option<Arc<Service>>, round: &mut Round) {
        self.replace(Concerned::service(Arc::clone(id)), round, |model| {
            match after {
                Some(service) => model.services.insert(Arc::clone(id), service),
                None => model.services.remove(id),
            };
        });
    }

    fn peer(&mut self, id: &Id, after: Option<Arc<Peer>>, round: &mut Round) {
        let before = self.model.peers.get(id);
        let services = before.into_iter().chain(&after).filter_map(|peer| peer.service.clone());
        let concerned = Concerned {
            services: services.collect(),
            peers: BTreeSet::from([Arc::clone(id)]),
            ..Concerned::default()
        };
        self.replace(concerned, round, |model| {
            match after {
                Some(peer) => model.peers.insert(Arc::clone(id), peer),
                None => model.peers.remove(id),
            };
        });
    }

    fn ids_by(&self, key: &SandboxKey) -> BTreeSet<Id> {
        ids(self.model.sandboxes.by(key), |sandbox| &sandbox.id)
    }

    fn services_on(&self, network: &Id) -> BTreeSet<Id> {
        ids(self.model.services.by(&ServiceKey::On(Arc::clone(network))), |service| &service.id)
    }

    fn overlays_of(&self, sandbox: &Sandbox) -> Vec<Id> {
        let is_overlay = |network: &Id| {
            let network = self.model.networks.get(network);
            network.is_some_and(|network| matches!(network.driver, Driver::Overlay { .. }))
        };
        let networks = sandbox.endpoints.iter().map(|endpoint| &endpoint.network);
        networks.filter(|network| is_overlay(network)).cloned().collect()
    }

    /// The services that come to this node, and go, with that sandbox: none while it is not alone on the network.
    fn services_of_a_visitor(&self, network: &Id, sandbox: &Id) -> BTreeSet<Id> {
        let mut on = self.model.sandboxes.by(&SandboxKey::On(Arc::clone(network)));
        if on.any(|other| other.id != *sandbox) { BTreeSet::new() } else { self.services_on(network) }
    }

    /// Services that have an endpoint on that node.
    fn served_by(&self, node: &Id) -> BTreeSet<Id> {
        if *node == self.model.here {
            let sandboxes = self.model.sandboxes.values();
            return sandboxes
                .filter_map(|sandbox| Some(Arc::clone(&sandbox.service.as_ref()?.service)))
                .collect();
        }
        let peers = self.model.peers.by(&PeerKey::Of(Arc::clone(node)));
        peers.filter_map(|peer| peer.service.clone()).collect()
    }

    /// Notes what the records that the change concerns are, those at least that no change before it did, and makes it.
    /// A record is what it was at the beginning as long as none has concerned it.
    fn replace(&mut self, mut concerned: Concerned, round: &mut Round, change: impl FnOnce(&mut Model)) {
        round.concerned.take_in(&mut concerned);
        for part in self.parts(&concerned) {
            self.names.remove(&part);
            round.difference.drop(part);
        }
        change(&mut self.model);
    }

    fn parts(&self, concerned: &Concerned) -> Vec<Part> {
        let model = &self.model;
        let sandboxes = concerned.sandboxes.iter().filter_map(|id| model.sandboxes.get(id));
        let services = concerned.services.iter().filter_map(|id| model.services.get(id));
        let peers = concerned.peers.iter().filter_map(|id| model.peers.get(id));
        sandboxes
            .map(|sandbox| Part::of(sandbox, model))
            .chain(services.map(|service| Part::of_service(service, model)))
            .chain(peers.map(|peer| Part::of_peer(peer, model)))
            .collect()
    }
}

fn ids<'a, T: 'a>(records: impl Iterator<Item = &'a Arc<T>>, id: impl Fn(&T) -> &Id) -> BTreeSet<Id> {
    records.map(|record| Arc::clone(id(record))).collect()
}

fn set<T>(records: &mut BTreeMap<Id, Arc<T>>, id: Id, after: Option<Arc<T>>) {
    match after {
        Some(record) => records.insert(id, record),
        None => records.remove(&id),
    };
}

/// What is served for one sandbox: the listeners and the view that sockets are needed for.
pub(crate) fn served(sandbox: &Sandbox, model: &Model) -> (Option<View>, BTreeMap<ListenerId, Listener>) {
    let part = Part::of(sandbox, model);
    (part.view, part.listeners)
}

/// Whether nothing that the part of a record on it depends on differs.
fn same_for_records(before: Option<&Network>, after: Option<&Network>) -> bool {
    let seen = |network: Option<&Network>| {
        network.map(|network| (Arc::clone(&network.name), network.driver, network.internal, network.resolves))
    };
    seen(before) == seen(after)
}

#[cfg(test)]
mod tests;
