//! Live changes that move nothing: the options of a network that rules and bridge ports carry, and the names of a
//! sandbox on one network. What is so already costs no commit.

use std::sync::Arc;

use netd_api::ApiError;
use netd_api::network::{BridgeOptions, ChangeEndpoint, ChangeNetwork, OverlayOptions};

use super::network::replace;
use super::wire::{self, Owner};
use super::{World, find};
use crate::error::{Chain, Result};
use crate::model::{BigTcp, Driver, Endpoint, Network, Sandbox, SandboxKey};
use crate::store::{Record as _, encode, key_of};

pub(crate) fn network(world: &mut World, wanted: &str, request: &ChangeNetwork) -> Result<Arc<Network>> {
    if matches!(wanted, "host" | "none") {
        let detail = format!("{wanted} is a pre-defined network and has no options");
        return Err(ApiError::forbidden(detail).into());
    }
    let before = find::network(world.model(), wanted)?;
    let after = changed(&before, request)?;
    if after == *before {
        return Ok(before);
    }
    if after.options.icc != before.options.icc {
        keep_apart(world, &before, !after.options.icc)?;
    }
    let key = key_of::<Network>(after.id());
    let txn = world.books.revise(after.scope(), &key).put(key, encode(&after)?);
    if let Err(error) = world.commit_to(after.scope(), &txn) {
        if after.options.icc != before.options.icc
            && let Err(error) = keep_apart(world, &before, !before.options.icc)
        {
            tracing::warn!(network = %before.name, %error, "cannot put its ports back as they were");
        }
        return Err(error);
    }
    // Sizes that lag behind are slow, not broken.
    if after.options.big_tcp != before.options.big_tcp
        && let Err(error) = world.follow_ways_out()
    {
        tracing::warn!(network = %before.name, %error, "cannot give its links their new size");
    }
    world.tell("network", "update", &after.id, &after.name, &[]);
    Ok(Arc::new(after))
}

/// The network with what is asked for. Its driver has to know the option, as at its creation.
fn changed(before: &Network, request: &ChangeNetwork) -> Result<Network> {
    let mut after = Network::clone(before);
    let options = &mut after.options;
    let (icc, isolate, masquerade, fixed) = match before.driver {
        Driver::Bridge => {
            let asked = BridgeOptions::try_from(&request.options)?;
            options.big_tcp = asked.big_tcp.map_or(options.big_tcp, BigTcp::from);
            let fixed = [("mtu", asked.mtu.is_some()), ("bridge-name", asked.bridge_name.is_some())];
            (asked.icc, asked.isolate, asked.masquerade, fixed)
        }
        Driver::Overlay { .. } => {
            let asked = OverlayOptions::try_from(&request.options)?;
            let fixed = [("mtu", asked.mtu.is_some()), ("vni", asked.vni.is_some())];
            (asked.icc, asked.isolate, asked.masquerade, fixed)
        }
    };
    if let Some((key, _)) = fixed.into_iter().find(|(_, given)| *given) {
        let detail = format!("{key} cannot be changed while the network {} exists", before.name);
        let remedy = "remove the network and create it again with that option";
        return Err(ApiError::invalid(detail).at(format!("Options.{key}")).remedy(remedy).into());
    }
    options.icc = icc.unwrap_or(options.icc);
    options.isolate = isolate.unwrap_or(options.isolate);
    options.masquerade = masquerade.unwrap_or(options.masquerade);
    options.given.extend(request.options.clone());
    Ok(after)
}

/// All ports of the network or none. Those that come later get it when they are made.
fn keep_apart(world: &mut World, network: &Network, apart: bool) -> Result<()> {
    let on = world.model().sandboxes.by(&SandboxKey::On(Arc::clone(&network.id)));
    let endpoints = on.flat_map(|sandbox| &sandbox.endpoints);
    let ports: Vec<Arc<str>> = endpoints
        .filter(|endpoint| endpoint.network == network.id)
        .map(|endpoint| Arc::clone(&endpoint.host_link))
        .collect();
    world.kernel.keep_apart(network, &ports, apart).map_err(|error| {
        if let Err(again) = world.kernel.keep_apart(network, &ports, !apart) {
            tracing::warn!(network = %network.name, error = %Chain(&again), "cannot put its ports back");
        }
        error.into()
    })
}

/// The sandbox as it is now, and which of its endpoints was meant.
pub(crate) fn endpoint(
    world: &mut World,
    wanted: &str,
    request: &ChangeEndpoint,
) -> Result<(Arc<Sandbox>, Endpoint)> {
    let before = find::sandbox(world.model(), &request.sandbox)?;
    let network = find::network(world.model(), wanted)?;
    let mut after = Sandbox::clone(&before);
    let Some(endpoint) = after.endpoints.iter_mut().find(|endpoint| endpoint.network == network.id) else {
        let detail = format!("sandbox {} is not on network {}", before.name, network.name);
        let remedy = format!("`netd network connect {} {}`", network.name, before.name);
        return Err(ApiError::conflict(detail).remedy(remedy).into());
    };
    rename(&before, &network, endpoint, request)?;
    let rates = wire::bandwidth(&network, request.bandwidth)?;
    endpoint.bandwidth.ingress = rates.ingress.or(endpoint.bandwidth.ingress);
    endpoint.bandwidth.egress = rates.egress.or(endpoint.bandwidth.egress);
    let endpoint = endpoint.clone();
    if after == *before {
        return Ok((before, endpoint));
    }
    // What a failure leaves of new rates goes when the endpoint does, or by the next request for rates.
    world.kernel.shape(&endpoint)?;
    let txn = replace(world, &after)?;
    world.commit(&txn)?;
    world.tell("network", "update-endpoint", &network.id, &network.name, &[("container", &after.id)]);
    Ok((Arc::new(after), endpoint))
}

fn rename(
    sandbox: &Sandbox,
    network: &Network,
    endpoint: &mut Endpoint,
    request: &ChangeEndpoint,
) -> Result<()> {
    let gives_names = !request.add_aliases.is_empty() || request.dns_name.is_some();
    if !network.resolves && gives_names {
        let detail = format!("the default network {:?} has no aliases", network.name);
        let remedy = "create a network (`netd network create`) and use that";
        return Err(ApiError::invalid(detail).at("AddAliases").remedy(remedy).into());
    }
    let gone = |alias: &str| request.remove_aliases.iter().any(|other| **other == *alias);
    endpoint.aliases.retain(|alias| !gone(alias));
    for alias in &request.add_aliases {
        let alias: Arc<str> = Arc::from(&**alias);
        if !endpoint.aliases.contains(&alias) {
            endpoint.aliases.push(alias);
        }
    }
    let first: Arc<str> = match (&request.dns_name, endpoint.names.first()) {
        (Some(name), _) => Arc::from(&**name),
        (None, Some(name)) if !gone(name) => Arc::clone(name),
        (None, _) => Arc::clone(&sandbox.name),
    };
    let owner = Owner { id: &sandbox.id, name: &sandbox.name, hostname: &sandbox.hostname };
    endpoint.names = wire::names(&first, &owner, endpoint.aliases.iter().map(|alias| &**alias));
    if endpoint.names.len() <= MOST_NAMES {
        return Ok(());
    }
    let detail = format!("{} would have {} names on {}", sandbox.name, endpoint.names.len(), network.name);
    Err(ApiError::invalid(detail).at("AddAliases").remedy(format!("leave it at {MOST_NAMES}")).into())
}

/// Requests can be repeated, so their own bound is none.
const MOST_NAMES: usize = 1024;
