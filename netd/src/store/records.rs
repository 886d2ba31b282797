//! Records as a store keeps them: their keys and values.
//!
//! A value is JSON with the version of its form beside the record: `{"v":1,"record":{...}}`. A form that this netd
//! does not know is refused by name rather than read by half.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Entry, Key, Value};
use crate::model::{
    AddressPool, Findings, Id, Lease, Member, Network, Node, Peer, PoolAddress, Sandbox, Service,
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

/// In the cluster's store; a node's own has the sandbox alone, see [`encode_lease`].
impl Record for Lease {
    const PREFIX: &'static str = "lease";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.id
    }
}

impl Record for Findings {
    const PREFIX: &'static str = "findings";
    const VERSION: u32 = 1;

    fn id(&self) -> &Id {
        &self.service
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
    #[error("record {key} cannot be in the store of a cluster: {why}")]
    Foreign { key: Key, why: &'static str },
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

pub(super) fn decode<R: Record>(entry: &Entry) -> Result<R, RecordError> {
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
