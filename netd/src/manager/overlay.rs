//! Overlay networks in this node's kernel. A network has its devices here as long as it has endpoints here: the first
//! attach brings it, with all that is known of other nodes' endpoints; the last detach takes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use netd_api::ApiError;

use super::World;
use crate::driver::{Target, Trial};
use crate::error::{Chain, Result};
use crate::model::{Change, Driver, Id, Model, Network, SandboxKey};
use crate::tables::NeighbourEntry;

/// Least that IPv6 asks of a link.
const IPV6_LEAST: u32 = 1280;

/// Sees to it that the network can be attached to. Nothing to do for other kinds of networks, nor for one that is there.
pub(super) fn present(world: &mut World, network: &Network) -> Result<()> {
    if !is_overlay(network) || world.kernel.has(network) {
        return Ok(());
    }
    make(world, network)
}

/// The same for one that may have been damaged.
pub(super) fn make(world: &mut World, network: &Network) -> Result<()> {
    if world.kernel.underlay().is_none() {
        look_at_underlay(world)?;
    }
    let made = world.kernel.ensure_network(network);
    let known = world.neighbours.known(&network.id);
    let made = made.and_then(|()| world.kernel.sync_neighbours(network, &known));
    let vips = world.model().vips_on(&network.id);
    let made = made.and_then(|()| world.kernel.sync_vips(network, &vips));
    for sandbox in world.books.model().sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))) {
        for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.network == network.id) {
            if let Err(error) = world.kernel.shorten(network, endpoint) {
                tracing::warn!(sandbox = %sandbox.name, error = %Chain(&error), "its packets go by the bridge");
            }
        }
    }
    if made.is_err() && !is_used(world.model(), network) {
        // What of it came about would be there with no endpoint to take it along.
        if let Err(error) = world.kernel.remove_network(network) {
            tracing::warn!(network = %network.name, error = %Chain(&error), "cannot take back half an overlay network");
        }
    }
    Ok(made?)
}

/// After a detach: takes the devices away when the last endpoint has gone.
pub(super) fn absent_if_unused(world: &mut World, network: &Id) -> Result<()> {
    let Some(network) = world.model().networks.get(network).cloned() else { return Ok(()) };
    if !is_overlay(&network) || !world.kernel.has(&network) || is_used(world.model(), &network) {
        return Ok(());
    }
    Ok(world.kernel.remove_network(&network)?)
}

/// Takes committed changes of networks, of other nodes and of their endpoints into the kernel.
pub(super) fn forward(world: &mut World, changes: &[Change]) {
    for change in changes {
        let Change::Network { before: Some(lost), after: None } = change else { continue };
        // Nobody removes one with endpoints on it, but a store that was given an earlier state back has never heard of it,
        // and the next one that is made may get its number. Its endpoints have nobody left to talk to.
        if world.kernel.has(lost)
            && let Err(error) = world.kernel.remove_network(lost)
        {
            tracing::warn!(network = %lost.name, error = %Chain(&error), "cannot take away a network that is gone");
        }
    }
    let mut all: BTreeMap<Id, Vec<NeighbourEntry>> = BTreeMap::new();
    for change in world.away.follow(changes, world.books.model()) {
        for (network, entries) in world.neighbours.apply(&change) {
            all.entry(network).or_default().extend(entries);
        }
    }
    for (network, entries) in all {
        let Some(network) = world.model().networks.get(&network).cloned() else { continue };
        if let Err(error) = world.kernel.follow_neighbours(&network, &entries) {
            tracing::warn!(network = %network.name, error = %Chain(&error), "making the overlay network anew");
            if let Err(error) = make(world, &network) {
                tracing::error!(network = %network.name, %error, "cannot reach endpoints of other nodes");
            }
        }
    }
    if changes.iter().any(|change| matches!(change, Change::Node { .. })) {
        follow_underlay(world);
    }
}

/// Another way to other nodes, or another node: the sizes of packets follow.
pub(super) fn follow_underlay(world: &mut World) {
    if let Err(error) = look_at_underlay(world) {
        tracing::warn!(%error, "cannot look at the ways to other nodes");
        return;
    }
    if let Err(error) = world.kernel.resize_overlays(world.books.model()) {
        tracing::warn!(error = %Chain(&error), "cannot follow the ways to other nodes");
    }
}

/// Nothing while this node or the others are not known by number.
pub(super) fn trial(world: &mut World, anew: bool, now: Instant) -> Result<Option<(u16, Trial)>> {
    let own = world.config.node.clone();
    let model = world.model();
    let number = |node: &str| model.members.get(node).map(|member| member.number);
    let Some(own_number) = number(&own) else { return Ok(None) };
    let others = model.nodes.values().filter(|node| *node.name != *own);
    let targets: Vec<Target> = others
        .filter_map(|node| {
            let number = number(&node.name)?;
            Some(Target { node: Arc::clone(&node.name), number, vtep: node.vtep, since: node.since })
        })
        .collect();
    if targets.is_empty() {
        return Ok(None);
    }
    Ok(world.kernel.trial(own_number, targets, anew, now)?.map(|trial| (own_number, trial)))
}

fn look_at_underlay(world: &mut World) -> Result<()> {
    let own = world.kernel.vtep.map(|vtep| vtep.address);
    let others: Vec<_> = world.model().nodes.values().map(|node| node.vtep).collect();
    let others = others.into_iter().filter(|other| Some(*other) != own);
    Ok(world.kernel.look_at_underlay(others)?)
}

/// The MTU of a new overlay network: what the ways to the other nodes carry, or less if that was asked for.
pub(super) fn mtu(world: &mut World, asked: Option<u32>, has_v6: bool) -> Result<u32> {
    look_at_underlay(world)?;
    let Some(underlay) = world.kernel.underlay() else {
        let detail = "an overlay network needs a cluster to span";
        return Err(ApiError::invalid(detail)
            .at("Driver")
            .remedy("start netd with --store etcd://...")
            .into());
    };
    let fits = underlay.fits();
    let wrong = |detail: String, remedy: String| {
        Err(ApiError::invalid(detail).at("Options.mtu").remedy(remedy).into())
    };
    match asked {
        Some(asked) if asked > fits => wrong(
            format!(
                "packets of {asked} bytes do not fit: {} takes {}, of which the tunnel needs {}",
                underlay.narrowest,
                underlay.mtu,
                underlay.overhead()
            ),
            format!("use at most {fits}, or leave it out"),
        ),
        _ if has_v6 && asked.unwrap_or(fits) < IPV6_LEAST => wrong(
            format!("IPv6 needs an MTU of at least {IPV6_LEAST}, not {}", asked.unwrap_or(fits)),
            "raise it, or leave IPv6 out".into(),
        ),
        _ => Ok(asked.unwrap_or(fits)),
    }
}

pub(super) fn is_overlay(network: &Network) -> bool {
    matches!(network.driver, Driver::Overlay { .. })
}

fn is_used(model: &Model, network: &Network) -> bool {
    model.sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))).next().is_some()
}
