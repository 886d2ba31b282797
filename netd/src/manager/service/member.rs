//! Sandboxes as endpoints of a service: coming, found well or not, and going without a connection cut.

use std::sync::Arc;
use std::time::Duration;

use netd_api::ApiError;
use netd_api::sandbox::{Attachment, CreateSandbox, NetworkMode};

use super::super::network::replace;
use super::super::{World, find, sandbox};
use crate::error::Result;
use crate::model::{
    Answer, EastWest, EndpointState, HealthProbe, Id, Membership, Sandbox, SandboxKey, Scope, Service,
};
use crate::tables::{service_id, service_id_here, usual_target};

/// What connections of a leaving endpoint get where the service says nothing.
const DRAIN: Duration = Duration::from_secs(10);

/// After so long every other node that is connected to the cluster's store has heard of a change.
const HEARD: Duration = Duration::from_secs(1);

/// What a new sandbox is to its service.
pub(crate) fn membership(world: &World, request: &CreateSandbox) -> Result<Option<Membership>> {
    let Some(spec) = &request.service else { return Ok(None) };
    let service = find::service(world.model(), &spec.service)?;
    if request.network_mode != NetworkMode::Bridge {
        let detail = format!("Service cannot be combined with the network mode {}", request.network_mode);
        let remedy = "an endpoint of a service has an address on its network";
        return Err(ApiError::invalid(detail).at("Service").remedy(remedy).into());
    }
    if let Answer::Name(name) = &service.answer {
        let detail = format!("service {} is another name for {name} and has no endpoints", service.name);
        return Err(ApiError::conflict(detail).at("Service").remedy("name another service").into());
    }
    let state = if is_asked(&service) { EndpointState::Starting } else { EndpointState::Ready };
    Ok(Some(Membership { service: Arc::clone(&service.id), weight: spec.weight, state }))
}

/// Whether an endpoint will be asked whether it is well.
fn is_asked(service: &Service) -> bool {
    let port = match service.health.as_ref().map(|check| &check.probe) {
        None => return false,
        Some(HealthProbe::Tcp { port } | HealthProbe::Http { port, .. }) => *port,
    };
    port.unwrap_or_else(|| usual_target(service)) != 0
}

/// The network of its service, unless the request names it.
pub(crate) fn home(
    world: &World,
    membership: Option<&Membership>,
    networks: &[Attachment],
) -> Result<Option<Attachment>> {
    let model = world.model();
    let Some(service) = membership.and_then(|membership| model.services.get(&membership.service)) else {
        return Ok(None);
    };
    for attachment in networks {
        if find::network(model, &attachment.network)?.id == service.network {
            return Ok(None);
        }
    }
    Ok(Some(Attachment::to(service.network.parse()?)))
}

/// How a removal goes on.
pub(crate) enum Removal {
    Done,
    /// Connections of the endpoint get that long; then the removal is to be asked for again, by force.
    Drains {
        sandbox: Id,
        endpoint: Id,
        services: [Arc<str>; 2],
        /// Until others have heard that it takes no more.
        least: Duration,
        limit: Duration,
        /// Its connections pass the data plane by.
        unseen: bool,
    },
}

/// Removes a sandbox, or if it is an endpoint of a service, has it get no new connections first.
pub(crate) fn begin_removal(world: &mut World, wanted: &str, force: bool) -> Result<Removal> {
    let before = sandbox::removable(world, wanted, force)?;
    let model = world.model();
    let service = before.service.as_ref().and_then(|membership| model.services.get(&membership.service));
    let endpoint = service
        .and_then(|service| before.endpoints.iter().find(|endpoint| endpoint.network == service.network));
    let (Some(service), Some(endpoint), false) = (service.cloned(), endpoint.cloned(), force) else {
        return sandbox::remove(world, wanted, force).map(|()| Removal::Done);
    };
    let network = model.networks.get(&service.network);
    let is_shared = network.is_some_and(|network| network.scope() == Scope::Shared);
    set_state(world, &before, EndpointState::Draining)?;
    let about = [("sandbox", &*before.name), ("endpoint", &*endpoint.id)];
    world.tell("service", "drain", &service.id, &service.name, &about);
    Ok(Removal::Drains {
        sandbox: Arc::clone(&before.id),
        endpoint: Arc::clone(&endpoint.id),
        services: [service_id(&service.id), service_id_here(&service.id)],
        least: if is_shared { HEARD } else { Duration::ZERO },
        limit: service.drain.unwrap_or(DRAIN),
        unseen: service.east_west == EastWest::Connect,
    })
}

/// Its connections have ended, or their time is over.
pub(crate) fn finish_removal(world: &mut World, sandbox: &Id) -> Result<()> {
    let model = world.model();
    let Some(before) = model.sandboxes.get(sandbox).cloned() else { return Ok(()) };
    let service = before.service.as_ref().and_then(|membership| model.services.get(&membership.service));
    if let Some(service) = service.cloned() {
        world.tell("service", "drained", &service.id, &service.name, &[("sandbox", &before.name)]);
    }
    sandbox::remove(world, sandbox, true)
}

/// Whether anything has changed.
fn set_state(world: &mut World, before: &Sandbox, state: EndpointState) -> Result<bool> {
    let mut after = before.clone();
    match &mut after.service {
        Some(membership) if membership.state != state => membership.state = state,
        _ => return Ok(false),
    }
    let txn = replace(world, &after)?;
    world.commit(&txn)?;
    Ok(true)
}

/// The service is gone: its sandboxes serve nobody.
pub(super) fn dismiss(world: &mut World, service: &Service) {
    let members = world.model().sandboxes.by(&SandboxKey::Serves(Arc::clone(&service.id)));
    for sandbox in members.cloned().collect::<Vec<_>>() {
        let after = Sandbox { service: None, ..Sandbox::clone(&sandbox) };
        let dismissed = replace(world, &after).and_then(|txn| world.commit(&txn));
        if let Err(error) = dismissed {
            tracing::warn!(sandbox = %sandbox.name, service = %service.name, %error, "cannot take it off its service");
        }
    }
}
