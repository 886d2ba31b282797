//! What the data plane's health checks find, written into the records of this node's own endpoints: from there it comes
//! into names and, by way of the cluster's store, to the other nodes.

use std::sync::Arc;

use super::World;
use super::network::replace;
use crate::error::Result;
use crate::model::{EndpointState, Sandbox, SandboxKey};

/// What the proxy calls a service starts with this, and ends with the record's id.
const SERVICE: &str = "service/";

/// Comes again with every new session of the data plane: what is so already costs no commit.
pub(crate) fn note(world: &mut World, service: &str, backend: &str, well: bool) {
    if let Err(error) = write(world, service, backend, well) {
        tracing::error!(service, endpoint = backend, well, %error, "cannot write down what a health check has found");
    }
}

fn write(world: &mut World, service: &str, backend: &str, well: bool) -> Result<()> {
    let Some(service) = service.strip_prefix(SERVICE) else { return Ok(()) };
    let members = world.model().sandboxes.by(&SandboxKey::Serves(service.into()));
    let holds = |sandbox: &&Arc<Sandbox>| sandbox.endpoints.iter().any(|endpoint| *endpoint.id == *backend);
    // A backend outside has no record, one that has gone meanwhile none any more.
    let Some(before) = members.into_iter().find(holds).cloned() else { return Ok(()) };
    let mut after = Sandbox::clone(&before);
    let state = if well { EndpointState::Ready } else { EndpointState::Failing };
    match &mut after.service {
        // It leaves, whatever it answers.
        None => return Ok(()),
        Some(membership) if [EndpointState::Draining, state].contains(&membership.state) => return Ok(()),
        Some(membership) => membership.state = state,
    }
    let txn = replace(world, &after)?;
    world.commit(&txn)?;
    let about = [("service", service), ("health", if well { "well" } else { "unwell" })];
    world.tell("sandbox", "health", &before.id, &before.name, &about);
    Ok(())
}
