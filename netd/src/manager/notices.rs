//! What is told of services and of the cluster's networks, whatever node has changed them: read off the changes of the
//! records, so that every node tells the same.

use std::sync::Arc;

use super::World;
use crate::model::{Change, Id, Network, Scope, Service};
use crate::tables::members;

/// Of committed changes. What a start finds has not happened just now, and nobody is told of it.
pub(super) fn note(world: &World, changes: &[Change]) {
    if !world.is_up {
        return;
    }
    for change in changes {
        match change {
            Change::Service { before, after } => service(world, before.as_ref(), after.as_ref()),
            Change::Network { before: None, after: Some(network) } => of_all(world, network, "create"),
            Change::Network { before: Some(network), after: None } => of_all(world, network, "destroy"),
            _ => {}
        }
    }
}

fn service(world: &World, before: Option<&Arc<Service>>, after: Option<&Arc<Service>>) {
    let tell = |service: &Service, action, about: &[(&'static str, &str)]| {
        world.tell("service", action, &service.id, &service.name, about);
    };
    match (before, after) {
        (None, Some(service)) => {
            let network = world.model().networks.get(&service.network);
            let network = network.map_or(&*service.network, |network| &*network.name);
            tell(service, "create", &[("network", network)]);
        }
        (Some(service), None) => tell(service, "remove", &[]),
        (Some(before), Some(after)) => {
            let (drained, undrained) = drains(before, after);
            drained.iter().for_each(|endpoint| tell(after, "drain", &[("endpoint", endpoint)]));
            // One that is gone is forgotten some time.
            let members = if undrained.is_empty() { Vec::new() } else { members(after, world.model()) };
            let back = undrained.iter().filter(|id| members.iter().any(|member| member.id == **id));
            back.for_each(|endpoint| tell(after, "undrain", &[("endpoint", endpoint)]));
            let same = Service { draining: after.draining.clone(), ..Service::clone(before) };
            if same != **after {
                tell(after, "update", &[]);
            }
        }
        (None, None) => {}
    }
}

/// The endpoints that drain from now on, and those that do no more.
fn drains(before: &Service, after: &Service) -> (Vec<Id>, Vec<Id>) {
    let new = |of: &Service, than: &Service| {
        of.draining.keys().filter(|id| !than.draining.contains_key(*id)).cloned().collect()
    };
    (new(after, before), new(before, after))
}

/// A node's own are told by who makes them.
fn of_all(world: &World, network: &Network, action: &'static str) {
    if network.scope() == Scope::Shared {
        world.tell("network", action, &network.id, &network.name, &[("type", "overlay")]);
    }
}
