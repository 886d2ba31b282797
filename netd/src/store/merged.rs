//! One model of both stores: this node's own, and the one that all nodes of a cluster share.
//!
//! The watches' batches come in here and come out as changes of the model. Each store has revisions of its own, and a
//! transaction that replaces a record expects that of the store which has it. What this node itself has written into the
//! shared store is kept apart: it follows from the node's own records, and the model has it from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::records::{Record, RecordError, decode};
use super::{Batch, Entry, Key, KeyChange, Revision};
use crate::model::{
    AddressPool, Availability, Change, Findings, Id, Indexed, Keyed, Lease, LeaseHolder, Member, Model,
    Network, Node, Peer, PoolAddress, Sandbox, Scope, Service,
};

/// What nodes prove themselves with to each other.
pub(crate) const MESH_SECRET: &str = "secret/mesh";
/// `closing/<network id>`, with the name of the node that removes it.
const CLOSING: &str = "closing";
/// `left/<node>`: it was taken down on purpose, and is not going to be back in a moment.
const LEFT: &str = "left";

#[derive(Debug, Default)]
pub(crate) struct Records {
    model: Model,
    local: Known,
    shared: Known,
    /// This node's own in the shared store.
    own: BTreeMap<Key, Entry>,
    /// In the shared store, in a form that this netd cannot read; what they said before goes on to hold.
    refused: BTreeMap<Key, String>,
    /// Of nodes that seem to be gone: the shared store has them no more, the model still does.
    doubted: BTreeSet<Key>,
}

/// Up to where a store has been read, and at which revision each record is.
#[derive(Debug, Default)]
struct Known {
    revision: Revision,
    revisions: BTreeMap<Key, Revision>,
}

impl Records {
    /// Of the node with that name.
    pub(crate) fn of(here: Id) -> Self {
        Self { model: Model { here, ..Model::default() }, ..Self::default() }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Up to where that store has been read.
    pub(crate) fn revision(&self, scope: Scope) -> Revision {
        self.known(scope).revision
    }

    /// What a transaction that replaces this record expects.
    pub(crate) fn revision_of(&self, scope: Scope, key: &str) -> Option<Revision> {
        self.known(scope).revisions.get(key).copied()
    }

    pub(crate) fn own(&self) -> &BTreeMap<Key, Entry> {
        &self.own
    }

    pub(crate) fn refused(&self) -> &BTreeMap<Key, String> {
        &self.refused
    }

    fn known(&self, scope: Scope) -> &Known {
        match scope {
            Scope::Local => &self.local,
            Scope::Shared => &self.shared,
        }
    }

    /// Takes a batch of the node's own store in, or nothing of it. Keys of kinds this netd does not know are another
    /// version's business.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<Vec<Change>, RecordError> {
        let mut decoded = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            decoded.push(Decoded::local(change)?);
        }
        self.local.follow(batch);
        Ok(decoded.into_iter().filter_map(|change| change.replace(&mut self.model)).collect())
    }

    /// Takes a batch of the shared store in. Other nodes may be newer than this one: what cannot be read is noted, and
    /// the rest is taken.
    ///
    /// With `doubts` it is not believed yet that a node is gone, nor that its endpoints are, unless it was removed or has
    /// left: nodes that all were away come back one after another, and each would forget the others.
    pub(crate) fn apply_shared(&mut self, batch: &Batch, doubts: bool) -> Vec<Change> {
        let missing = if doubts { self.missing(batch) } else { BTreeSet::new() };
        self.shared.follow(batch);
        let mut changes = Vec::new();
        for change in &batch.changes {
            let key = change.key();
            match change {
                KeyChange::Deleted { .. } if self.is_of_any(key, &missing) => {
                    self.doubted.insert(Arc::clone(key));
                }
                _ => {
                    self.doubted.remove(key);
                    changes.extend(self.take_shared(change));
                }
            }
        }
        changes.extend(self.believe_of(|records, node| !records.may_return(node)));
        changes
    }

    /// As [`Self::apply_shared`] for a batch that has all there is: what it lacks is gone.
    pub(crate) fn replace_shared(&mut self, batch: &Batch, doubts: bool) -> Vec<Change> {
        let mut gone: BTreeMap<Key, Revision> = self.shared.revisions.clone();
        for change in &batch.changes {
            if let KeyChange::Put(entry) = change {
                gone.remove(&entry.key);
            }
        }
        let deleted = gone.into_keys().map(|key| KeyChange::Deleted { key });
        let changes = deleted.chain(batch.changes.iter().cloned()).collect();
        self.apply_shared(&Batch { revision: batch.revision, changes }, doubts)
    }

    /// Whether a node is in the shared store, whatever the model still says.
    pub(crate) fn lives(&self, node: &str) -> bool {
        self.revision_of(Scope::Shared, &super::key_of::<Node>(node)).is_some()
    }

    pub(crate) fn doubts(&self) -> bool {
        !self.doubted.is_empty()
    }

    /// What was doubted is so: what is not back by now is gone.
    pub(crate) fn believe(&mut self) -> Vec<Change> {
        self.believe_of(|_, _| true)
    }

    fn believe_of(&mut self, is_believed: impl Fn(&Self, &str) -> bool) -> Vec<Change> {
        let node = |key: &Key| self.node_of(key);
        let believed = |key: &&Key| node(key).is_none_or(|node| is_believed(self, &node));
        let gone: Vec<Key> = self.doubted.iter().filter(believed).cloned().collect();
        let mut changes = Vec::new();
        for key in gone {
            self.doubted.remove(&key);
            changes.extend(self.take_shared(&KeyChange::Deleted { key }));
        }
        changes
    }

    /// Other nodes that this batch lacks and that may be back in a moment, and those of which that is hoped already.
    fn missing(&self, batch: &Batch) -> BTreeSet<Id> {
        let name = |key: &str| {
            key.split_once('/').filter(|(kind, _)| *kind == Node::PREFIX).map(|(_, id)| Id::from(id))
        };
        let deleted = batch.changes.iter().filter_map(|change| match change {
            KeyChange::Deleted { key } => name(key),
            KeyChange::Put(_) => None,
        });
        let doubted = self.doubted.iter().filter_map(|key| name(key));
        deleted.chain(doubted).filter(|node| *node != self.model.here && self.may_return(node)).collect()
    }

    fn may_return(&self, node: &str) -> bool {
        let member = self.model.members.get(node);
        member.is_some_and(|member| member.availability != Availability::Removed)
            && !self.model.left.contains(node)
    }

    /// Whether the key is one of those nodes', or of an endpoint of theirs.
    fn is_of_any(&self, key: &Key, nodes: &BTreeSet<Id>) -> bool {
        !nodes.is_empty() && self.node_of(key).is_some_and(|node| nodes.contains(&node))
    }

    /// Whose record the model has under that key, if it goes with a node.
    fn node_of(&self, key: &Key) -> Option<Id> {
        match key.split_once('/')? {
            (Node::PREFIX, id) => self.model.nodes.get(id).map(|node| Arc::clone(&node.name)),
            (Peer::PREFIX, id) => self.model.peers.get(id).map(|peer| Arc::clone(&peer.node)),
            _ => None,
        }
    }

    fn take_shared(&mut self, change: &KeyChange) -> Option<Change> {
        let key = change.key();
        let decoded = match Decoded::shared(change) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(%error, "a record of the cluster is left alone");
                self.refused.insert(Arc::clone(key), error.to_string());
                return None;
            }
        };
        self.refused.remove(key);
        match change {
            KeyChange::Put(entry) if decoded.is_of(&self.model.here) => {
                self.own.insert(Arc::clone(key), entry.clone())
            }
            _ => self.own.remove(key),
        };
        decoded.replace(&mut self.model)
    }
}

impl Known {
    fn follow(&mut self, batch: &Batch) {
        for change in &batch.changes {
            match change {
                KeyChange::Put(entry) => self.revisions.insert(Arc::clone(&entry.key), entry.revision),
                KeyChange::Deleted { key } => self.revisions.remove(key),
            };
        }
        self.revision = batch.revision;
    }
}

enum Decoded {
    Network(Id, Option<Arc<Network>>),
    Sandbox(Id, Option<Arc<Sandbox>>),
    Service(Id, Option<Arc<Service>>),
    Node(Id, Option<Arc<Node>>),
    Member(Id, Option<Arc<Member>>),
    Peer(Id, Option<Arc<Peer>>),
    Lease(Id, Option<Arc<Lease>>),
    Findings(Id, Option<Arc<Findings>>),
    Pool(Id, Option<Arc<AddressPool>>),
    PoolAddress(Id, Option<Arc<PoolAddress>>),
    MeshSecret(Option<Arc<str>>),
    /// A network that the node with that name is about to remove.
    Closing(Option<Id>),
    Left(Id, bool),
    Other,
}

/// What a change's key led to, if it is there still.
fn record<R: Record>(change: &KeyChange) -> Result<Option<Arc<R>>, RecordError> {
    match change {
        KeyChange::Put(entry) => decode(entry).map(|record| Some(Arc::new(record))),
        KeyChange::Deleted { .. } => Ok(None),
    }
}

impl Decoded {
    fn local(change: &KeyChange) -> Result<Self, RecordError> {
        Ok(match change.key().split_once('/') {
            Some((Network::PREFIX, id)) => Self::Network(id.into(), record(change)?),
            Some((Sandbox::PREFIX, id)) => Self::Sandbox(id.into(), record(change)?),
            Some((Service::PREFIX, id)) => Self::Service(id.into(), record(change)?),
            Some((Findings::PREFIX, id)) => Self::Findings(id.into(), record(change)?),
            Some((AddressPool::PREFIX, id)) => Self::Pool(id.into(), record(change)?),
            Some((PoolAddress::PREFIX, id)) => Self::PoolAddress(id.into(), record(change)?),
            _ => Self::Other,
        })
    }

    fn shared(change: &KeyChange) -> Result<Self, RecordError> {
        let key = change.key();
        if **key == *MESH_SECRET {
            return Ok(Self::MeshSecret(text(change)?));
        }
        Ok(match key.split_once('/') {
            Some((Network::PREFIX, id)) => {
                let network: Option<Arc<Network>> = record(change)?;
                if network.as_ref().is_some_and(|network| network.scope() == Scope::Local) {
                    let why = "it is a network of one node";
                    return Err(RecordError::Foreign { key: Arc::clone(key), why });
                }
                Self::Network(id.into(), network)
            }
            Some((Service::PREFIX, id)) => Self::Service(id.into(), record(change)?),
            Some((Node::PREFIX, id)) => Self::Node(id.into(), record(change)?),
            Some((Member::PREFIX, id)) => Self::Member(id.into(), record(change)?),
            Some((Peer::PREFIX, id)) => Self::Peer(id.into(), record(change)?),
            Some((Lease::PREFIX, id)) => Self::Lease(id.into(), record(change)?),
            Some((CLOSING, _)) => Self::Closing(text(change)?),
            Some((LEFT, node)) => Self::Left(node.into(), matches!(change, KeyChange::Put(_))),
            _ => Self::Other,
        })
    }

    /// Whether it is a record that follows from the own ones of that node.
    fn is_of(&self, here: &Id) -> bool {
        match self {
            Self::Node(id, Some(_)) => id == here,
            Self::Closing(Some(node)) | Self::Left(node, true) => node == here,
            Self::Peer(_, Some(peer)) => peer.node == *here,
            Self::Lease(_, Some(lease)) => {
                lease.node == *here && matches!(lease.holder, LeaseHolder::Sandbox(_))
            }
            _ => false,
        }
    }

    /// Makes the model say it, and tells what it said before. No table depends on a pool or a lease.
    fn replace(self, model: &mut Model) -> Option<Change> {
        match self {
            Self::Network(id, after) => {
                let before = set(&mut model.networks, id, after.clone());
                (before != after).then_some(Change::Network { before, after })
            }
            Self::Sandbox(id, after) => {
                let before = set(&mut model.sandboxes, id, after.clone());
                (before != after).then_some(Change::Sandbox { before, after })
            }
            Self::Service(id, after) => {
                let before = set(&mut model.services, id, after.clone());
                (before != after).then_some(Change::Service { before, after })
            }
            Self::Node(id, after) => {
                let before = set_plain(&mut model.nodes, id, after.clone());
                (before != after).then_some(Change::Node { before, after })
            }
            Self::Member(id, after) => {
                let before = set_plain(&mut model.members, id, after.clone());
                (before != after).then_some(Change::Member { before, after })
            }
            Self::Peer(id, after) => {
                let after = after.filter(|peer| peer.node != model.here);
                let before = set(&mut model.peers, id, after.clone());
                (before != after).then_some(Change::Peer { before, after })
            }
            Self::Findings(id, after) => {
                let before = set_plain(&mut model.findings, id, after.clone());
                (before != after).then_some(Change::Findings { before, after })
            }
            other => {
                other.set_silently(model);
                None
            }
        }
    }

    fn set_silently(self, model: &mut Model) {
        match self {
            Self::Pool(id, after) => {
                set_plain(&mut model.pools, id, after);
            }
            Self::PoolAddress(id, after) => set_address(&mut model.pool_addresses, &id, after),
            Self::Lease(id, after) => set_address(&mut model.leases, &id, after),
            Self::MeshSecret(after) => model.mesh_secret = after,
            Self::Left(node, true) => drop(model.left.insert(node)),
            Self::Left(node, false) => drop(model.left.remove(&node)),
            _ => {}
        }
    }
}

/// What says of a node that it was taken down on purpose.
pub(crate) fn left_key(node: &str) -> Key {
    format!("{LEFT}/{node}").into()
}

fn text(change: &KeyChange) -> Result<Option<Arc<str>>, RecordError> {
    let KeyChange::Put(Entry { key, value, .. }) = change else { return Ok(None) };
    let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty());
    let why = "it is no text";
    text.map(|text| Some(text.into())).ok_or_else(|| RecordError::Foreign { key: Arc::clone(key), why })
}

/// `<what has addresses>/<address>`.
fn set_address<T>(given: &mut BTreeMap<Id, BTreeMap<IpAddr, Arc<T>>>, id: &str, after: Option<Arc<T>>) {
    let Some((of, address)) = id.rsplit_once('/') else { return };
    let Ok(address) = address.parse() else { return };
    match after {
        Some(record) => {
            given.entry(of.into()).or_default().insert(address, record);
        }
        None => {
            if let Some(addresses) = given.get_mut(of) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    given.remove(of);
                }
            }
        }
    }
}

fn set_plain<T>(records: &mut BTreeMap<Id, Arc<T>>, id: Id, after: Option<Arc<T>>) -> Option<Arc<T>> {
    match after {
        Some(record) => records.insert(id, record),
        None => records.remove(&id),
    }
}

fn set<T: Keyed>(records: &mut Indexed<T>, id: Id, after: Option<Arc<T>>) -> Option<Arc<T>> {
    match after {
        Some(record) => records.insert(id, record),
        None => records.remove(&id),
    }
}
