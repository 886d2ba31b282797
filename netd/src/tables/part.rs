//! What one record adds to the tables: a sandbox, a service, or an endpoint of another node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use netd_dns::table::{Srv, View, ZoneId};
use netd_proxy::table::{Listener, ListenerId, Service, ServiceId};

use super::{publish, service, view};
use crate::model::{self, Id, Model, Peer, Sandbox};

/// A name within a zone.
pub(super) type NameKey = (ZoneId, Arc<str>);

/// Whose names they are, which orders them, and by which record: while an endpoint of a sandbox goes and another comes,
/// both carry its names, and the one that goes takes its own with it only.
pub(super) type Owner = (Id, Id);

/// What a record contributes to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// When the sandbox or service was made: the order of the addresses of all holders.
    pub joined: SystemTime,
    pub addresses: Vec<IpAddr>,
    /// It is the name a reverse query for these addresses answers.
    pub primary: bool,
    /// A service's name is the service's alone, whatever sandboxes are called.
    pub of_service: bool,
    pub srv: Vec<Srv>,
    pub alias: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub owner: Owner,
    pub names: BTreeMap<NameKey, Held>,
    pub view: Option<View>,
    pub services: BTreeMap<ServiceId, Service>,
    pub listeners: BTreeMap<ListenerId, Listener>,
}

impl Held {
    pub(super) fn new(joined: SystemTime, addresses: Vec<IpAddr>) -> Self {
        Self { joined, addresses, primary: false, of_service: false, srv: Vec::new(), alias: None }
    }
}

impl Part {
    pub(super) fn empty(owner: Id) -> Self {
        Self {
            owner: (Arc::clone(&owner), owner),
            names: BTreeMap::new(),
            view: None,
            services: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    pub(super) fn of(sandbox: &Sandbox, model: &Model) -> Self {
        let (services, listeners) = publish::of(sandbox, model);
        let mut names = BTreeMap::new();
        for endpoint in &sandbox.endpoints {
            let addresses: Vec<IpAddr> = endpoint.addresses().collect();
            name_all(&mut names, model, &endpoint.network, &endpoint.names, sandbox.created, &addresses);
        }
        let view = view::of(sandbox, model);
        Self { names, view, services, listeners, ..Self::empty(Arc::clone(&sandbox.id)) }
    }

    pub(super) fn of_service(service: &model::Service, model: &Model) -> Self {
        service::of(service, model)
    }

    pub(super) fn of_peer(peer: &Peer, model: &Model) -> Self {
        // The sandbox's id has the same place among the holders of a name on every node.
        let mut part = Self::empty(Arc::clone(&peer.sandbox));
        part.owner.1 = Arc::clone(&peer.id);
        let addresses: Vec<IpAddr> =
            peer.v4.map(IpAddr::V4).into_iter().chain(peer.v6.map(IpAddr::V6)).collect();
        name_all(&mut part.names, model, &peer.network, &peer.names, peer.joined, &addresses);
        part
    }
}

fn name_all(
    all: &mut BTreeMap<NameKey, Held>,
    model: &Model,
    network: &Id,
    names: &[Arc<str>],
    joined: SystemTime,
    addresses: &[IpAddr],
) {
    if !model.networks.get(network).is_some_and(|network| network.resolves) {
        return;
    }
    for (index, name) in names.iter().enumerate() {
        let held = Held { primary: index == 0, ..Held::new(joined, addresses.to_vec()) };
        all.entry((Arc::clone(network), Arc::clone(name))).or_insert(held);
    }
}
