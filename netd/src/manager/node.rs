//! Nodes of the cluster: what can be done to one, and how they are shown.

use std::net::SocketAddr;
use std::sync::Arc;

use netd_api::ApiError;
use netd_api::node::{self as api, NodeState};

use super::World;
use crate::error::Result;
use crate::model::{Availability, Id, Member, Model, PeerKey, Scope};

/// A node that was removed is drained by nobody: it is taken back first.
pub(crate) fn set_availability(world: &mut World, name: &str, wanted: Availability) -> Result<()> {
    let before = world.books.member(name)?.availability;
    if before == Availability::Removed && wanted == Availability::Drain {
        let detail = format!("node {name} is removed");
        return Err(ApiError::conflict(detail).remedy(format!("`netd node activate {name}` first")).into());
    }
    let result = world.books.set_availability(name, wanted);
    world.carry();
    world.pursue();
    result.map(|_| ())
}

pub(crate) fn remove(world: &mut World, name: &str, force: bool) -> Result<()> {
    let result = world.books.remove_member(name, force);
    world.carry();
    world.pursue();
    result
}

/// All that belong to the cluster, or did.
pub(crate) fn nodes(world: &World) -> Vec<api::Node> {
    world.model().members.values().map(|member| shown(world, member)).collect()
}

pub(crate) fn node(world: &World, name: &str) -> Result<api::Node> {
    world.books.member(name).map(|member| shown(world, &member))
}

fn shown(world: &World, member: &Member) -> api::Node {
    let model = world.model();
    let alive = model.nodes.get(&member.name);
    let state = match (member.availability, world.books.lives(&member.name)) {
        (Availability::Removed, _) => NodeState::Removed,
        (_, false) => NodeState::Down,
        (_, true) => NodeState::Ready,
    };
    let availability = match member.availability {
        Availability::Active => api::Availability::Active,
        Availability::Drain => api::Availability::Drain,
        Availability::Removed => api::Availability::Removed,
    };
    let gone = world.gone_since.get(&member.name).filter(|_| alive.is_none());
    api::Node {
        name: member.name.to_string(),
        number: member.number,
        state,
        availability,
        here: member.name == model.here,
        joined: member.joined.into(),
        since: alive.map(|node| node.since.into()),
        unreachable_since: gone.map(|since| (*since).into()),
        version: alive.map(|node| node.version.to_string()),
        address: alive.map(|node| node.mesh.ip()),
        addresses: alive.map(|node| node.addresses.clone()).unwrap_or_default(),
        vtep: alive.map(|node| SocketAddr::new(node.vtep, node.vxlan_port)),
        mesh: alive.map(|node| node.mesh),
        endpoints: u64::try_from(endpoints(model, &member.name)).unwrap_or(u64::MAX),
    }
}

fn endpoints(model: &Model, name: &Id) -> usize {
    if *name != model.here {
        return model.peers.by(&PeerKey::Of(Arc::clone(name))).count();
    }
    let networks = model.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints);
    let shared =
        |network: &Id| model.networks.get(network).is_some_and(|network| network.scope() == Scope::Shared);
    networks.filter(|endpoint| shared(&endpoint.network)).count()
}
