//! What one sandbox adds to the tables.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use netd_dns::table::{View, ZoneId};
use netd_proxy::table::{Listener, ListenerId, Service, ServiceId};

use super::{publish, view};
use crate::model::{Id, Model, Sandbox};

/// A name within a zone.
pub(super) type NameKey = (ZoneId, Arc<str>);

/// What a sandbox contributes to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// When the sandbox was made: the order of the addresses of all holders.
    pub joined: SystemTime,
    pub addresses: Vec<IpAddr>,
    /// It is the name a reverse query for these addresses answers.
    pub primary: bool,
}

#[derive(Debug)]
pub(super) struct Part {
    pub sandbox: Id,
    pub names: BTreeMap<NameKey, Held>,
    pub view: Option<View>,
    pub services: BTreeMap<ServiceId, Service>,
    pub listeners: BTreeMap<ListenerId, Listener>,
}

impl Part {
    pub(super) fn of(sandbox: &Sandbox, model: &Model) -> Self {
        let (services, listeners) = publish::of(sandbox, model);
        Self {
            sandbox: Arc::clone(&sandbox.id),
            names: names(sandbox, model),
            view: view::of(sandbox, model),
            services,
            listeners,
        }
    }
}

fn names(sandbox: &Sandbox, model: &Model) -> BTreeMap<NameKey, Held> {
    let mut names = BTreeMap::new();
    for endpoint in &sandbox.endpoints {
        if !model.networks.get(&endpoint.network).is_some_and(|network| network.resolves) {
            continue;
        }
        let addresses: Vec<IpAddr> = endpoint.addresses().collect();
        for (index, name) in endpoint.names.iter().enumerate() {
            let held = Held { joined: sandbox.created, addresses: addresses.clone(), primary: index == 0 };
            names.entry((Arc::clone(&endpoint.network), Arc::clone(name))).or_insert(held);
        }
    }
    names
}
