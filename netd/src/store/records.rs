//! Records as the store keeps them, and the store's changes as changes of the model.
//!
//! A value is JSON with the version of its form beside the record: `{"v":1,"record":{...}}`. A form that this netd
//! does not know is refused by name rather than read by half.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Batch, Entry, Key, KeyChange, Revision, Value};
use crate::model::{
    AddressPool, Change, Id, Indexed, Keyed, Member, Model, Network, Node, Peer, PoolAddress, Sandbox,
    Service,
};

/// A kind of record with keys of its own.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The keys are `PREFIX/<id>`.
    const PREFIX: &'static str;
    /// The newest form this netd reads, and the one it writes.
    const VERSION: u32;

    fn id(&self) -> &Id;
}

impl Record for Network {
    const PREFIX: &'static str = "network";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

impl Record for Sandbox {
    const PREFIX: &'static str = "sandbox";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

impl Record for Service {
    const PREFIX: &'static str = "service";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

impl Record for Node {
    const PREFIX: &'static str = "node";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.name
    }
}

impl Record for Member {
    const PREFIX: &'static str = "member";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.name
    }
}

impl Record for Peer {
    const PREFIX: &'static str = "endpoint";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

impl Record for AddressPool {
    const PREFIX: &'static str = "pool";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

impl Record for PoolAddress {
    const PREFIX: &'static str = "pool-address";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

/// Who holds an address, under [`lease_key`]: its being there is what refuses a second holder.
#[derive(Serialize)]
struct LeaseRecord {
    sandbox: Id,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(
        "record {key} has form {found}, this netd knows up to {known}: start the newer netd that wrote it"
    )]
    Newer { key: Key, found: u32, known: u32 },
    #[error("cannot read record {key}")]
    Malformed { key: Key, source: serde_json::Error },
    #[error("record {key} is that of {found}")]
    Misplaced { key: Key, found: Id },
    #[error("cannot write record {key}")]
    Unwritable { key: Key, source: serde_json::Error },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    record: T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

pub(crate) fn key_of<R: Record>(id: &str) -> Key {
    format!("{}/{id}", R::PREFIX).into()
}

pub(crate) fn lease_key(network: &str, address: std::net::IpAddr) -> Key {
    format!("lease/{network}/{address}").into()
}

/// Fails only on what JSON cannot hold: a path that is not UTF-8, a time before 1970.
pub(crate) fn encode<R: Record>(record: &R) -> Result<Value, RecordError> {
    serde_json::to_vec(&Versioned { v: R::VERSION, record })
        .map(Into::into)
        .map_err(|source| RecordError::Unwritable { key: key_of::<R>(record.id()), source })
}

/// The value of a lease.
pub(crate) fn encode_lease(sandbox: &Id) -> Value {
    let record = LeaseRecord { sandbox: Arc::clone(sandbox) };
    serde_json::to_vec(&Versioned { v: 1, record }).expect("a lease is one string").into()
}

fn decode<R: Record>(entry: &Entry) -> Result<R, RecordError> {
    let malformed = |source| RecordError::Malformed { key: Arc::clone(&entry.key), source };
    let Version { v } = serde_json::from_slice(&entry.value).map_err(malformed)?;
    if v > R::VERSION {
        return Err(RecordError::Newer { key: Arc::clone(&entry.key), found: v, known: R::VERSION });
    }
    let Versioned::<R> { record, .. } = serde_json::from_slice(&entry.value).map_err(malformed)?;
    if key_of::<R>(record.id()) != entry.key {
        return Err(RecordError::Misplaced { key: Arc::clone(&entry.key), found: Arc::clone(record.id()) });
    }
    Ok(record)
}

/// The model as the watch has told it so far, and at which revision each record is.
#[derive(Debug, Default)]
pub(crate) struct Records {
    model: Model,
    revisions: BTreeMap<Key, Revision>,
    revision: Revision,
}

impl Records {
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Up to where the store has been read.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What a transaction that replaces this record expects.
    pub(crate) fn revision_of(&self, key: &str) -> Option<Revision> {
        self.revisions.get(key).copied()
    }

    /// Takes a batch in, or nothing of it. Keys of kinds this netd does not know are another version's business.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<Vec<Change>, RecordError> {
        let mut decoded = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            decoded.push(Decoded::of(change)?);
        }
        for change in &batch.changes {
            match change {
                KeyChange::Put(entry) => self.revisions.insert(Arc::clone(&entry.key), entry.revision),
                KeyChange::Deleted { key } => self.revisions.remove(key),
            };
        }
        self.revision = batch.revision;
        Ok(decoded.into_iter().filter_map(|change| change.replace(&mut self.model)).collect())
    }
}

enum Decoded {
    Network(Id, Option<Arc<Network>>),
    Sandbox(Id, Option<Arc<Sandbox>>),
    Service(Id, Option<Arc<Service>>),
    Node(Id, Option<Arc<Node>>),
    Member(Id, Option<Arc<Member>>),
    Peer(Id, Option<Arc<Peer>>),
    Pool(Id, Option<Arc<AddressPool>>),
    PoolAddress(Id, Option<Arc<PoolAddress>>),
    Other,
}

impl Decoded {
    fn of(change: &KeyChange) -> Result<Self, RecordError> {
        let (key, entry) = match change {
            KeyChange::Put(entry) => (&entry.key, Some(entry)),
            KeyChange::Deleted { key } => (key, None),
        };
        Ok(match key.split_once('/') {
            Some((Network::PREFIX, id)) => {
                Self::Network(id.into(), entry.map(decode).transpose()?.map(Arc::new))
            }
            Some((Sandbox::PREFIX, id)) => {
                Self::Sandbox(id.into(), entry.map(decode).transpose()?.map(Arc::new))
            }
            Some((Service::PREFIX, id)) => {
                Self::Service(id.into(), entry.map(decode).transpose()?.map(Arc::new))
            }
            Some((Node::PREFIX, id)) => Self::Node(id.into(), entry.map(decode).transpose()?.map(Arc::new)),
            Some((Member::PREFIX, id)) => {
                Self::Member(id.into(), entry.map(decode).transpose()?.map(Arc::new))
            }
            Some((Peer::PREFIX, id)) => Self::Peer(id.into(), entry.map(decode).transpose()?.map(Arc::new)),
            Some((AddressPool::PREFIX, id)) => {
                Self::Pool(id.into(), entry.map(decode).transpose()?.map(Arc::new))
            }
            Some((PoolAddress::PREFIX, id)) => {
                Self::PoolAddress(id.into(), entry.map(decode).transpose()?.map(Arc::new))
            }
            _ => Self::Other,
        })
    }

    /// Makes the model say it, and tells what it said before. No table depends on a pool.
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
                let before = set(&mut model.peers, id, after.clone());
                (before != after).then_some(Change::Peer { before, after })
            }
            Self::Pool(id, after) => {
                match after {
                    Some(pool) => model.pools.insert(id, pool),
                    None => model.pools.remove(&id),
                };
                None
            }
            Self::PoolAddress(id, after) => {
                set_pool_address(model, &id, after);
                None
            }
            Self::Other => None,
        }
    }
}

fn set_pool_address(model: &mut Model, id: &str, after: Option<Arc<PoolAddress>>) {
    let Some((pool, address)) = id.rsplit_once('/') else { return };
    let Ok(address) = address.parse() else { return };
    match after {
        Some(record) => {
            model.pool_addresses.entry(pool.into()).or_default().insert(address, record);
        }
        None => {
            if let Some(given) = model.pool_addresses.get_mut(pool) {
                given.remove(&address);
                if given.is_empty() {
                    model.pool_addresses.remove(pool);
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
