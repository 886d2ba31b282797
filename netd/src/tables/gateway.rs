//! What follows from the networks a sandbox is on: its way out, its way in, whether it is served names.

use crate::ipam::Family;
use crate::model::{Endpoint, Mode, Model, Network, Sandbox};

/// The endpoint that has the default route of that family and receives what is published: the first, in the order of
/// joining, on a network that is not internal and has that family. Joining one network more does not move it.
pub(crate) fn gateway_endpoint<'a>(
    sandbox: &'a Sandbox,
    model: &Model,
    family: Family,
) -> Option<&'a Endpoint> {
    sandbox.endpoints.iter().find(|endpoint| {
        let has_family = match family {
            Family::V4 => endpoint.v4.is_some(),
            Family::V6 => endpoint.v6.is_some(),
        };
        has_family && network(endpoint, model).is_some_and(|network| !network.internal)
    })
}

/// Whether the sandbox is on a network that is not internal.
pub(crate) fn has_way_out(sandbox: &Sandbox, model: &Model) -> bool {
    sandbox.endpoints.iter().filter_map(|endpoint| network(endpoint, model)).any(|network| !network.internal)
}

/// Whether the sandbox is served names at 127.0.0.11: it has its own namespace and a network that resolves.
pub(crate) fn has_view(sandbox: &Sandbox, model: &Model) -> bool {
    let mut networks = sandbox.endpoints.iter().filter_map(|endpoint| network(endpoint, model));
    sandbox.mode == Mode::Bridge && networks.any(|network| network.resolves)
}

fn network<'a>(endpoint: &Endpoint, model: &'a Model) -> Option<&'a Network> {
    model.networks.get(&endpoint.network).map(|network| &**network)
}
