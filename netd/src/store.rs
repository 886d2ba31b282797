//! Where the records are kept: keys and values with compare-and-put and a watch, whatever holds them.
//!
//! The contract is the part of etcd v3 that netd needs, so that a store shared by many nodes fits behind it: one
//! revision for the whole store that every commit raises, the revision of its last change for every key, transactions
//! that check key revisions and then write, and a watch that begins with everything there is. Managers commit; only
//! what the watch tells changes a table.

mod bytes;
mod error;
mod etcd;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod lock;
mod merged;
mod records;
mod redb;
mod txn;
mod watch;

pub(crate) use error::{CommitError, StoreError};
pub(crate) use etcd::{
    Asked, Etcd, EtcdSettings, FOREIGN_REMEDY, HostPort, Identity, Login, Tls, Wake, read_small,
};
pub(crate) use merged::{MESH_SECRET, Records, left_key};
pub(crate) use records::{Record, RecordError, encode, encode_lease, key_of, lease_key};
pub(crate) use redb::Redb;
pub(crate) use txn::Txn;
pub(crate) use watch::{Batch, Entry, KeyChange, Watch};

use std::sync::Arc;
use std::time::SystemTime;

/// Rises by one with every commit that writes; 0 is the empty store.
pub(crate) type Revision = u64;
/// `network/<id>`, `sandbox/<id>`, `lease/<network id>/<address>`.
pub(crate) type Key = Arc<str>;
pub(crate) type Value = Arc<[u8]>;

pub(crate) trait Store: Send {
    /// Everything, as of one revision, in the order of the keys.
    fn load(&self) -> Result<Snapshot, StoreError>;

    /// Writes all of the transaction or nothing; what is written outlives this process. Returns the revision that has it; a transaction that
    /// writes nothing only checks, and returns the revision it checked.
    fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError>;

    /// Everything that is known as the first batch, then every commit. A reader that lags too far behind finds the watch
    /// closed and begins a new one.
    fn watch(&mut self) -> Result<Watch, StoreError>;
}

/// A store that the nodes of a cluster share, some way off.
///
/// What a node writes under [`LIVING`] goes when the node does. While the store is out of reach its watch has told what
/// a copy on this node's disk says; once it is back, the watch tells the difference as one more batch.
pub(crate) trait SharedStore: Store {
    fn condition(&self) -> Condition;

    /// Asks it for a sign of life and does not wait. A commit right behind the answer is not held up by a store that
    /// hangs.
    fn ask(&self) -> Asked;

    /// Has an empty store in the place of the one that was known get the content that was known last, but for what is
    /// bound to the life of nodes: they write that themselves. Does not wait.
    fn restore(&self) -> Asked;

    /// Ends this node's life at once, and with it what is bound to it. Nothing can be written afterwards.
    fn release(&mut self) -> Result<(), StoreError>;
}

/// Prefixes of keys that are bound to the life of the node that wrote them.
pub(crate) const LIVING: [&str; 3] = ["node/", "endpoint/", "closing/"];

/// Which cluster's content a shared store has: written by its first node, the same for good. A store without it, or with
/// another one, is not where this node's copy has come from.
pub(crate) const CLUSTER: &str = "cluster/id";

/// How a shared store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Commits can go through, and the watch has told all that was there when it became so.
    pub connected: bool,
    /// Since when it is one or the other.
    pub since: SystemTime,
    /// Why it is out of reach.
    pub cause: Option<Arc<str>>,
    /// It can be reached, and what it has is not this cluster's: it was lost, or is another's.
    pub is_foreign: bool,
    /// Which of its members is spoken to, or was last.
    pub endpoint: Option<Arc<str>>,
    /// Times that the connection had to be made again.
    pub reconnects: u64,
    /// Up to where the watch has told.
    pub told: Revision,
    pub keys: usize,
    /// Which life of this node what it writes is bound to; another number after every one that ended, 0 before the
    /// first. What an earlier one wrote goes unless it is written again.
    pub life: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
