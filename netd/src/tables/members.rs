//! Who answers for a service: this node's sandboxes, those of other nodes, and addresses outside. Each with the state
//! that follows from all that is known of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use netd_proxy::table::Place;

use crate::model::{
    Availability, EndpointState, Id, Membership, Model, Peer, PeerKey, Sandbox, SandboxKey, Service,
};

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Of the sandbox's endpoint; of an external backend its address.
    pub id: Arc<str>,
    /// Where it is, for people; none: on no node.
    pub node: Option<Id>,
    /// The sandbox's name on the network.
    pub name: Option<Arc<str>>,
    /// The sandbox's own name, for people.
    pub sandbox: Option<Arc<str>>,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Its own, which no listener replaces.
    pub port: Option<u16>,
    pub weight: u16,
    pub state: EndpointState,
    /// Since when, as far as that is written down.
    pub since: Option<SystemTime>,
    /// Why it is not ready, for people.
    pub why: Option<Arc<str>>,
    pub place: Place,
}

/// A state with its circumstances.
struct Standing {
    state: EndpointState,
    since: Option<SystemTime>,
    why: Option<Arc<str>>,
}

impl Member {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// All of them: here in the order of the sandboxes' ids, then other nodes', then external ones.
pub(crate) fn members(service: &Service, model: &Model) -> Vec<Member> {
    let here = model.sandboxes.by(&SandboxKey::Serves(Arc::clone(&service.id)));
    let there = model.peers.by(&PeerKey::Serves(Arc::clone(&service.id)));
    let outside = service.external.iter().map(|backend| {
        let id: Arc<str> = backend.address.to_string().into();
        let ip = backend.address.ip();
        let Standing { state, since, why } = settled(service, &id, found(service, &id, model), false);
        Member {
            state,
            since,
            why,
            id,
            node: None,
            name: None,
            sandbox: None,
            v4: if let IpAddr::V4(v4) = ip { Some(v4) } else { None },
            v6: if let IpAddr::V6(v6) = ip { Some(v6) } else { None },
            port: Some(backend.address.port()),
            weight: backend.weight,
            place: Place::Elsewhere,
        }
    });
    here.filter_map(|sandbox| local(service, sandbox, model))
        .chain(there.filter_map(|peer| remote(service, peer, model)))
        .chain(outside)
        .collect()
}

/// Those to whom new connections may be led: the ready ones, or while there are none, those that drain. To one that leaves
/// none may.
pub(crate) fn usable(members: &[Member]) -> impl Iterator<Item = &Member> {
    let is = |wanted| move |member: &&Member| member.state == wanted;
    let wanted = match members.iter().any(|member| member.state == EndpointState::Ready) {
        true => EndpointState::Ready,
        false => EndpointState::Draining,
    };
    members.iter().filter(is(wanted))
}

fn local(service: &Service, sandbox: &Sandbox, model: &Model) -> Option<Member> {
    let membership = sandbox.service.as_ref()?;
    let endpoint = sandbox.endpoints.iter().find(|endpoint| endpoint.network == service.network)?;
    let Membership { state, since, why, .. } = membership.clone();
    let node_drains = drains(model, &model.here);
    let standing = settled(service, &endpoint.id, Standing { state, since, why }, node_drains);
    Some(Member {
        id: Arc::clone(&endpoint.id),
        node: Some(Arc::clone(&model.here)),
        name: endpoint.names.first().cloned(),
        sandbox: Some(Arc::clone(&sandbox.name)),
        v4: endpoint.v4.map(|(address, _)| address),
        v6: endpoint.v6.map(|(address, _)| address),
        port: None,
        weight: membership.weight,
        state: standing.state,
        since: standing.since,
        why: standing.why,
        place: Place::Here,
    })
}

/// A node that lives is where its endpoints can be reached.
fn remote(service: &Service, peer: &Peer, model: &Model) -> Option<Member> {
    let node = model.nodes.get(&peer.node)?;
    let standing = Standing { state: peer.state, since: peer.since, why: peer.why.clone() };
    let standing = settled(service, &peer.endpoint, standing, drains(model, &peer.node));
    (peer.network == service.network).then(|| Member {
        id: Arc::clone(&peer.endpoint),
        node: Some(Arc::clone(&peer.node)),
        name: peer.names.first().cloned(),
        sandbox: Some(Arc::clone(&peer.sandbox_name)),
        v4: peer.v4,
        v6: peer.v6,
        port: None,
        weight: peer.weight,
        state: standing.state,
        since: standing.since,
        why: standing.why,
        place: Place::Node { mesh: node.mesh },
    })
}

fn drains(model: &Model, node: &str) -> bool {
    model.members.get(node).is_some_and(|member| member.availability != Availability::Active)
}

/// What this node's checks say of a backend outside. One that was not asked yet counts as ready: there would be nobody
/// to answer after a change of the check.
fn found(service: &Service, id: &str, model: &Model) -> Standing {
    let findings = model.findings.get(&service.id);
    match findings.and_then(|findings| findings.backends.get(id)) {
        Some(found) => Standing {
            state: if found.well { EndpointState::Ready } else { EndpointState::Failing },
            since: Some(found.since),
            why: found.why.clone(),
        },
        None => Standing { state: EndpointState::Ready, since: None, why: None },
    }
}

/// What is not well gets nothing, whether it drains or not. Of a service that asks nobody, nobody is unwell, whatever was
/// found while it did.
fn settled(service: &Service, id: &str, known: Standing, node_drains: bool) -> Standing {
    let known = match known.state {
        EndpointState::Starting | EndpointState::Failing if service.health.is_none() => {
            Standing { state: EndpointState::Ready, since: None, why: None }
        }
        _ => known,
    };
    let drains = |since, why: &str| Standing { state: EndpointState::Draining, since, why: Some(why.into()) };
    match (known.state, service.draining.get(id)) {
        (EndpointState::Ready, Some(since)) => drains(Some(*since), "it was asked to drain"),
        (EndpointState::Ready, None) if node_drains => drains(None, "its node drains"),
        _ => known,
    }
}
