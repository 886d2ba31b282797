//! What a node wants to stand in the cluster's store, as it follows from its own records: that it lives, what others
//! must know of its endpoints on overlay networks, and their addresses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::cluster::drains;
use crate::model::{Endpoint, EndpointState, Id, Lease, LeaseHolder, Model, Node, Peer, Sandbox, Scope};
use crate::store::{Key, RecordError, Value, encode, key_of, lease_key};

pub(super) type Wanted = BTreeMap<Key, Want>;

/// What is to stand under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub value: Value,
    /// Keys that have to be this node's for it to be true.
    pub needs: Vec<Key>,
}

pub(super) fn all(model: &Model, node: &Node) -> Result<Wanted, RecordError> {
    let mut wanted = Wanted::new();
    let lives = Want { value: encode(node)?, needs: Vec::new() };
    wanted.insert(key_of::<Node>(&node.name), lives);
    for sandbox in model.sandboxes.values() {
        of_sandbox(sandbox, model, &mut wanted)?;
    }
    Ok(wanted)
}

pub(super) fn of_sandbox(sandbox: &Sandbox, model: &Model, wanted: &mut Wanted) -> Result<(), RecordError> {
    for endpoint in sandbox.endpoints.iter().filter(|endpoint| is_shared(&endpoint.network, model)) {
        let peer = peer(sandbox, endpoint, model);
        let needs = endpoint.addresses().map(|address| lease_key(&endpoint.network, address)).collect();
        wanted.insert(key_of::<Peer>(&peer.id), Want { value: encode(&peer)?, needs });
        let holder = LeaseHolder::Sandbox(Arc::clone(&sandbox.id));
        for address in endpoint.addresses() {
            let lease = lease(&endpoint.network, address, &model.here, holder.clone(), &sandbox.name);
            let want = Want { value: encode(&lease)?, needs: Vec::new() };
            wanted.insert(lease_key(&endpoint.network, address), want);
        }
    }
    Ok(())
}

/// All that may be wanted for the sandbox, whatever its networks are.
pub(super) fn keys(sandbox: &Sandbox) -> impl Iterator<Item = Key> {
    sandbox.endpoints.iter().flat_map(|endpoint| {
        let leases = endpoint.addresses().map(|address| lease_key(&endpoint.network, address));
        [key_of::<Peer>(&peer_id(endpoint))].into_iter().chain(leases)
    })
}

pub(super) fn lease(
    network: &str,
    address: IpAddr,
    node: &Id,
    holder: LeaseHolder,
    name: &Arc<str>,
) -> Lease {
    let id = format!("{network}/{address}").into();
    Lease { id, node: Arc::clone(node), holder, name: Arc::clone(name) }
}

fn is_shared(network: &str, model: &Model) -> bool {
    model.networks.get(network).is_some_and(|network| network.scope() == Scope::Shared)
}

fn peer_id(endpoint: &Endpoint) -> Id {
    format!("{}/{}", endpoint.network, endpoint.id).into()
}

fn peer(sandbox: &Sandbox, endpoint: &Endpoint, model: &Model) -> Peer {
    let serves_here =
        |service: &Id| model.services.get(service).is_some_and(|service| service.network == endpoint.network);
    let membership = sandbox.service.as_ref().filter(|membership| serves_here(&membership.service));
    let state = membership.map_or(EndpointState::Ready, |membership| membership.state);
    Peer {
        id: peer_id(endpoint),
        endpoint: Arc::clone(&endpoint.id),
        network: Arc::clone(&endpoint.network),
        node: Arc::clone(&model.here),
        sandbox: Arc::clone(&sandbox.id),
        sandbox_name: Arc::clone(&sandbox.name),
        joined: sandbox.created,
        mac: endpoint.mac,
        v4: endpoint.v4.map(|(address, _)| address),
        v6: endpoint.v6.map(|(address, _)| address),
        names: endpoint.names.clone(),
        service: membership.map(|membership| Arc::clone(&membership.service)),
        weight: membership.map_or(1, |membership| membership.weight),
        // Whoever is unwell gets nothing, wherever it is.
        state: if drains(model, &model.here) && state == EndpointState::Ready {
            EndpointState::Draining
        } else {
            state
        },
        since: membership.and_then(|membership| membership.since),
        why: membership.and_then(|membership| membership.why.clone()),
    }
}
