//! What the data plane's health checks find, written into the records of this node's own endpoints, and of backends
//! outside into one a service: from there it comes into names, ports and, of endpoints, by way of the cluster's store to
//! the other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::World;
use super::network::replace;
use crate::error::Result;
use crate::model::{
    EndpointState, Finding, Findings, Id, Membership, Model, Sandbox, SandboxKey, Scope, Service,
};
use crate::store::{Txn, encode, key_of};

/// What the proxy calls a service starts with this, and ends with the record's id.
const SERVICE: &str = "service/";

/// Comes again with every new session of the data plane: what is so already costs no commit.
pub(crate) fn note(world: &mut World, service: &str, backend: &str, well: bool, why: Option<&Arc<str>>) {
    let Some(id) = service.strip_prefix(SERVICE) else { return };
    let written = match endpoint(world.model(), id, backend) {
        Some(before) => of_endpoint(world, &before, id, well, why),
        None => of_outside(world, id, backend, well, why),
    };
    if let Err(error) = written {
        tracing::error!(service, endpoint = backend, well, %error, "cannot write down what a health check has found");
    }
}

fn endpoint(model: &Model, service: &str, id: &str) -> Option<Arc<Sandbox>> {
    let mut members = model.sandboxes.by(&SandboxKey::Serves(service.into()));
    members.find(|sandbox| sandbox.endpoints.iter().any(|endpoint| *endpoint.id == *id)).cloned()
}

fn of_endpoint(
    world: &mut World,
    before: &Sandbox,
    service: &str,
    well: bool,
    why: Option<&Arc<str>>,
) -> Result<()> {
    let mut after = before.clone();
    let state = if well { EndpointState::Ready } else { EndpointState::Failing };
    match &mut after.service {
        None => return Ok(()),
        // It is being removed, whatever it answers.
        Some(Membership { state: EndpointState::Draining | EndpointState::Leaving, .. }) => return Ok(()),
        Some(membership) if membership.state == state => return Ok(()),
        Some(membership) => {
            membership.state = state;
            membership.since = Some(SystemTime::now());
            membership.why = why.cloned();
        }
    }
    let txn = replace(world, &after)?;
    world.commit(&txn)?;
    let about = [("service", service), ("health", word(well)), ("reason", why.map_or("", |why| &**why))];
    world.tell("sandbox", "health", &before.id, &before.name, &about);
    Ok(())
}

/// One that has gone meanwhile, as a sandbox or from the service's backends, is no news.
fn of_outside(
    world: &mut World,
    service: &str,
    backend: &str,
    well: bool,
    why: Option<&Arc<str>>,
) -> Result<()> {
    let Some(service) = world.model().services.get(service).cloned() else { return Ok(()) };
    if !outside(&service).any(|known| known == backend) {
        return Ok(());
    }
    let before = world.model().findings.get(&service.id);
    let mut backends = before.map(|before| before.backends.clone()).unwrap_or_default();
    if backends.get(backend).is_some_and(|known| known.well == well) {
        return Ok(());
    }
    let finding = Finding { well, why: why.cloned(), since: SystemTime::now() };
    backends.insert(backend.into(), finding);
    write(world, &service.id, backends)?;
    let about = [("endpoint", backend), ("health", word(well)), ("reason", why.map_or("", |why| &**why))];
    world.tell("service", "health", &service.id, &service.name, &about);
    Ok(())
}

/// Forgets what was found of backends that a service has no more, or asks no more.
pub(super) fn forget(world: &mut World, id: &Id, service: Option<&Service>) {
    let Some(before) = world.model().findings.get(id).cloned() else { return };
    let asked: Vec<String> =
        service.filter(|service| service.health.is_some()).into_iter().flat_map(outside).collect();
    let mut backends = before.backends.clone();
    backends.retain(|backend, _| asked.iter().any(|known| **known == **backend));
    if backends.len() == before.backends.len() {
        return;
    }
    if let Err(error) = write(world, id, backends) {
        tracing::warn!(service = %id, %error, "cannot forget what health checks have found of gone backends");
    }
}

/// Those of services that went while this daemon did not run.
pub(super) fn forget_gone(world: &mut World) {
    for id in world.model().findings.keys().cloned().collect::<Vec<_>>() {
        let service = world.model().services.get(&id).cloned();
        forget(world, &id, service.as_deref());
    }
}

fn write(world: &mut World, service: &Id, backends: BTreeMap<Arc<str>, Finding>) -> Result<()> {
    let key = key_of::<Findings>(service);
    let txn = if backends.is_empty() {
        Txn::default().delete(key)
    } else {
        let findings = Findings { service: Arc::clone(service), backends };
        world.books.revise(Scope::Local, &key).put(key, encode(&findings)?)
    };
    world.commit(&txn).map(drop)
}

/// As the proxy calls them.
fn outside(service: &Service) -> impl Iterator<Item = String> {
    service.external.iter().map(|backend| backend.address.to_string())
}

fn word(well: bool) -> &'static str {
    if well { "well" } else { "unwell" }
}
