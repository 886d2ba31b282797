//! Under whose address the data plane connects to sandboxes. Under its client's only where the sandbox's answer takes the
//! way through this host: not to a client on one of the sandbox's own networks, which it would answer straight.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use netd_proxy::table::Source;

use super::gateway::gateway_endpoint;
use crate::ipam::Family;
use crate::model::{ClientAddress, Id, Mode, Model, Publish, Sandbox, SandboxKey, Service};

/// For a published port of a sandbox.
pub(super) fn of(publish: &Publish, sandbox: &Sandbox, model: &Model) -> Source {
    match (publish.client_address, &sandbox.mode) {
        // Docker decides where such a container's default route leads.
        (ClientAddress::Host, _) | (_, Mode::Docker) => Source::Own,
        (ClientAddress::Client, _) => {
            let networks = sandbox.endpoints.iter().map(|endpoint| &endpoint.network);
            Source::Client { except: subnets(networks, model) }
        }
    }
}

/// For a port of the nodes that leads to a service.
pub(super) fn of_service(service: &Service, model: &Model) -> Source {
    if model.networks.get(&service.network).is_none_or(|network| network.internal) {
        return Source::Own;
    }
    let endpoints = backends(service, model).flat_map(|sandbox| &sandbox.endpoints);
    let networks = endpoints.map(|endpoint| &endpoint.network).chain([&service.network]);
    Source::Client { except: subnets(networks, model) }
}

/// Whether what the service's backends of this node answer leaves by the service's network, and so comes by this host:
/// each has its way out there.
pub(super) fn leads_back(service: &Service, model: &Model) -> bool {
    let Some(network) = model.networks.get(&service.network).filter(|network| !network.internal) else {
        return false;
    };
    let has = |family: &Family| {
        network.subnets.iter().any(|subnet| subnet.subnet.is_ipv4() == matches!(family, Family::V4))
    };
    let families: Vec<Family> = [Family::V4, Family::V6].into_iter().filter(has).collect();
    let leaves_by = |sandbox: &Sandbox, family: Family| {
        gateway_endpoint(sandbox, model, family).is_some_and(|endpoint| endpoint.network == network.id)
    };
    backends(service, model).all(|sandbox| {
        sandbox.mode == Mode::Bridge && families.iter().all(|&family| leaves_by(sandbox, family))
    })
}

fn backends<'a>(service: &Service, model: &'a Model) -> impl Iterator<Item = &'a Sandbox> + use<'a> {
    model.sandboxes.by(&SandboxKey::Serves(Arc::clone(&service.id))).map(|sandbox| &**sandbox)
}

/// All subnets of these networks, each once.
pub(super) fn subnets<'a>(networks: impl Iterator<Item = &'a Id>, model: &Model) -> Vec<IpNetwork> {
    let networks = networks.filter_map(|network| model.networks.get(network));
    let mut subnets: Vec<IpNetwork> =
        networks.flat_map(|network| &network.subnets).map(|subnet| subnet.subnet).collect();
    subnets.sort_unstable();
    subnets.dedup();
    subnets
}
