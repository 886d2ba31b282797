//! Sandboxes as endpoints of a service: coming, found well or not, and going without a connection cut.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netd_api::ApiError;
use netd_api::sandbox::{Attachment, CreateSandbox, NetworkMode};

use super::super::network::replace;
use super::super::{World, find, sandbox};
use crate::error::Result;
use crate::model::{
    Answer, EastWest, EndpointState, HealthProbe, Id, Membership, Model, PeerKey, PublishMode, Sandbox,
    SandboxKey, Scope, Service,
};
use crate::tables::{members, service_id, service_id_here, usable, usual_target};

/// What connections of a leaving endpoint get where the service says nothing.
const DRAIN: Duration = Duration::from_secs(10);

/// After so long every other node that is connected to the cluster's store has heard of a change. Nobody says that it has:
/// for every change that would be a write of every node's, which all others are told of in turn.
const HEARD: Duration = Duration::from_secs(1);

/// What those get who come last before the time of a removal is over.
const LAST: Duration = Duration::from_secs(1);

/// The kernel refuses whoever comes to a service from the moment that nobody is left to answer. Who was let in just before
/// has the rest of its handshake to make, and waits to be taken up.
const ENTERED: Duration = Duration::from_millis(20);

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
    let (service, since) = (Arc::clone(&service.id), Some(SystemTime::now()));
    Ok(Some(Membership { service, weight: spec.weight, state, since, why: None }))
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
    /// Its connections end first: see [`Departure`].
    Drains(Departure),
}

/// An endpoint on its way out. First it drains: it gets nothing while anybody else could, and serves on while nobody can.
/// When it has no connection, or when its time is nearly over, it leaves: it gets nothing any more, so that its last
/// connection is the last. Then it is removed.
pub(crate) struct Departure {
    pub sandbox: Id,
    pub endpoint: Id,
    pub services: [Arc<str>; 2],
    /// It drains no more.
    pub leaves: bool,
    /// How long all of it may take from now on.
    pub limit: Duration,
    /// How long before the end of that it leaves at the latest.
    pub last: Duration,
    /// Its connections pass the data plane by.
    pub unseen: bool,
}

/// Removes a sandbox, or if it is an endpoint of a service, has it get no new connections first.
pub(crate) fn begin_removal(world: &mut World, wanted: &str, force: bool) -> Result<Removal> {
    let before = sandbox::removable(world, wanted, force)?;
    let departs = if force { None } else { departs(world.model(), &before) };
    let Some((departure, service)) = departs else {
        return sandbox::remove(world, wanted, force).map(|()| Removal::Done);
    };
    move_on(world, &before, EndpointState::Draining)?;
    let about = [("sandbox", &*before.name), ("endpoint", &*departure.endpoint)];
    world.tell("service", "drain", &service.id, &service.name, &about);
    Ok(Removal::Drains(departure))
}

/// How an endpoint of a service is removed, and which service that is. What was begun before goes on from there: also its
/// time, or a daemon that ends again and again would never come to the end. But whoever has come meanwhile, to one that is
/// the last, gets what those get who come last.
fn departs(model: &Model, before: &Sandbox) -> Option<(Departure, Arc<Service>)> {
    let membership = before.service.as_ref()?;
    let service = model.services.get(&membership.service)?;
    let endpoint = before.endpoints.iter().find(|endpoint| endpoint.network == service.network)?;
    let whole = service.drain.unwrap_or(DRAIN);
    let spent =
        membership.since.filter(|_| rank(membership.state) > 0).and_then(|since| since.elapsed().ok());
    let last = heard(service, model) + LAST;
    let limit = whole.saturating_sub(spent.unwrap_or_default()).max(last.min(whole));
    let departure = Departure {
        sandbox: Arc::clone(&before.id),
        endpoint: Arc::clone(&endpoint.id),
        services: [service_id(&service.id), service_id_here(&service.id)],
        leaves: membership.state == EndpointState::Leaving,
        limit,
        last: last.min(limit / 2),
        unseen: service.east_west == EastWest::Connect,
    };
    Some((departure, Arc::clone(service)))
}

/// Removals that the daemon before this one began and did not come to the end of: they go on where they were.
pub(crate) fn begun_removals(world: &mut World) -> Vec<Removal> {
    let is_leaving = |sandbox: &&Arc<Sandbox>| {
        sandbox.service.as_ref().is_some_and(|membership| rank(membership.state) > 0)
    };
    let leaving: Vec<Arc<Sandbox>> = world.model().sandboxes.values().filter(is_leaving).cloned().collect();
    let mut removals = Vec::new();
    for sandbox in leaving {
        tracing::info!(sandbox = %sandbox.name, "its removal was begun and goes on");
        match departs(world.model(), &sandbox) {
            Some((departure, _)) => removals.push(Removal::Drains(departure)),
            None => {
                if let Err(error) = sandbox::remove(world, &sandbox.id, true) {
                    tracing::error!(sandbox = %sandbox.name, %error, "cannot end its removal");
                }
            }
        }
    }
    removals
}

/// The endpoint gets no more connections. Gives how long some may come all the same.
pub(crate) fn leave(world: &mut World, sandbox: &Id) -> Result<Duration> {
    let Some(before) = world.model().sandboxes.get(sandbox).cloned() else { return Ok(Duration::ZERO) };
    move_on(world, &before, EndpointState::Leaving)?;
    let model = world.model();
    let service = before.service.as_ref().and_then(|membership| model.services.get(&membership.service));
    Ok(service.map_or(Duration::ZERO, |service| {
        let is_alone = usable(&members(service, model)).next().is_none();
        heard(service, model).max(if is_alone { ENTERED } else { Duration::ZERO })
    }))
}

/// How long it takes until no data plane leads connections there that has not heard of it.
fn heard(service: &Service, model: &Model) -> Duration {
    if is_led_to_by_others(service, model) { HEARD } else { Duration::ZERO }
}

/// Whether data planes of other nodes may lead connections to the service's endpoints: of every node that lives where a
/// port is published on all, else of those with sandboxes on its network. Who gets one meanwhile hears of this first.
fn is_led_to_by_others(service: &Service, model: &Model) -> bool {
    let network = model.networks.get(&service.network);
    let is_shared = network.is_some_and(|network| network.scope() == Scope::Shared);
    let others_live = model.nodes.keys().any(|node| *node != model.here);
    let everywhere = service.publishes.iter().any(|publish| publish.mode == PublishMode::Ingress);
    let mut neighbours = model.peers.by(&PeerKey::On(Id::clone(&service.network)));
    is_shared && others_live && (everywhere || neighbours.next().is_some())
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

/// How far a removal has come.
fn rank(state: EndpointState) -> u8 {
    match state {
        EndpointState::Starting | EndpointState::Ready | EndpointState::Failing => 0,
        EndpointState::Draining => 1,
        EndpointState::Leaving => 2,
    }
}

/// The removal comes so far. It goes on only: somebody may have asked for it a second time.
fn move_on(world: &mut World, before: &Sandbox, state: EndpointState) -> Result<()> {
    let mut after = before.clone();
    match &mut after.service {
        Some(membership) if rank(membership.state) < rank(state) => {
            membership.state = state;
            membership.since = Some(SystemTime::now());
            membership.why = Some("it is being removed".into());
        }
        _ => return Ok(()),
    }
    let txn = replace(world, &after)?;
    world.commit(&txn).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Driver, Protocol, ServicePublish};
    use crate::testing;

    #[test]
    fn others_are_waited_for_where_they_may_lead_somebody_here() {
        let node = |name| Arc::new(testing::node(name, [192, 0, 2, 1]));
        let mut model = Model { here: "a".into(), ..Model::default() };
        let mut network = testing::network("app", &[]);
        network.driver = Driver::Overlay { vni: 4096 };
        let mut service = testing::service("web", &network.id, "10.0.0.9");
        model.networks.insert(Id::clone(&network.id), Arc::new(network.clone()));
        model.nodes.insert("a".into(), node("a"));
        assert!(!is_led_to_by_others(&service, &model), "there are none");
        model.nodes.insert("b".into(), node("b"));
        assert!(!is_led_to_by_others(&service, &model), "nobody there is on the network");
        model.peers.insert("peer".into(), Arc::new(testing::peer("s", "b", &network.id)));
        assert!(is_led_to_by_others(&service, &model));
        model.peers.remove("peer");
        service.publishes.push(ServicePublish {
            protocol: Protocol::Tcp,
            addresses: Vec::new(),
            published: 80,
            target: 80,
            mode: PublishMode::Ingress,
            proxy_protocol: None,
        });
        assert!(is_led_to_by_others(&service, &model), "each takes connections for the port");
        network.driver = Driver::Bridge;
        model.networks.insert(Id::clone(&network.id), Arc::new(network));
        assert!(!is_led_to_by_others(&service, &model), "it is this node's own");
    }

    #[test]
    fn a_removal_goes_on_with_the_time_that_is_left_and_some_for_who_has_come_last() {
        let mut model = Model { here: "a".into(), ..Model::default() };
        let network = testing::network("app", &[]);
        let service = Service {
            drain: Some(Duration::from_secs(60)),
            ..testing::service("web", &network.id, "10.0.0.9")
        };
        model.networks.insert(Id::clone(&network.id), Arc::new(network.clone()));
        model.services.insert(Id::clone(&service.id), Arc::new(service.clone()));
        let going = |state, seconds| {
            let membership = Membership {
                service: Id::clone(&service.id),
                weight: 1,
                state,
                since: Some(SystemTime::now() - Duration::from_secs(seconds)),
                why: None,
            };
            let endpoints = vec![testing::endpoint_at(&network.id, &["10.0.0.2"])];
            let sandbox = Sandbox { service: Some(membership), endpoints, ..testing::sandbox("web1") };
            departs(&model, &sandbox).map(|(departure, _)| departure).expect("it serves")
        };
        let fresh = going(EndpointState::Ready, 1000);
        assert_eq!((fresh.limit, fresh.last, fresh.leaves), (Duration::from_secs(60), LAST, false));
        let begun = going(EndpointState::Draining, 20);
        assert!(begun.limit <= Duration::from_secs(40) && begun.limit > Duration::from_secs(30));
        let late = going(EndpointState::Draining, 1000);
        assert_eq!((late.limit, late.last), (LAST, LAST / 2));
        assert!(going(EndpointState::Leaving, 1).leaves);
    }
}
