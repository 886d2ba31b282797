//! Which of its networks a sandbox reaches the outside through, and is reached from the outside through.

use crate::ipam::Family;
use crate::model::{Endpoint, Model, Network, Sandbox};

/// The endpoint that has the default route of that family and receives what is published: the first, in the order of
/// joining, on a network that is not internal and has that family. Joining one network more does not move it.
pub fn gateway_endpoint<'a>(sandbox: &'a Sandbox, model: &Model, family: Family) -> Option<&'a Endpoint> {
    sandbox.endpoints.iter().find(|endpoint| {
        let has_family = match family {
            Family::V4 => endpoint.v4.is_some(),
            Family::V6 => endpoint.v6.is_some(),
        };
        has_family && network(endpoint, model).is_some_and(|network| !network.internal)
    })
}

/// Whether the sandbox is on a network that is not internal.
pub fn has_way_out(sandbox: &Sandbox, model: &Model) -> bool {
    sandbox.endpoints.iter().filter_map(|endpoint| network(endpoint, model)).any(|network| !network.internal)
}

fn network<'a>(endpoint: &Endpoint, model: &'a Model) -> Option<&'a Network> {
    model.networks.get(&endpoint.network).map(|network| &**network)
}
