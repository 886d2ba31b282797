//! This node's end of the cluster's store: its watch, what this node claims and is there, and what is owed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::own::{self, Wanted};
use crate::bus::monotonic_ns;
use crate::model::{Availability, Change, Id, Member, Model, Node, Sandbox, SandboxKey, Scope};
use crate::store::{
    Asked, Batch, CommitError, Condition, Key, Revision, SharedStore, StoreError, Txn, Watch, key_of,
};

/// Revisions that were written or served, and of which nobody has been told yet.
const UNTOLD: usize = 1024;

/// What this node is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not known yet: the store has not been reached.
    Apart,
    Member,
    /// Somebody has removed it; it comes back only when it is asked to.
    Removed,
    /// It was removed and asked back, and has not cleaned up in between.
    Stale,
    /// Another daemon that lives has its name.
    NameTaken(Arc<Node>),
}

pub(crate) struct Cluster {
    store: Box<dyn SharedStore>,
    pub(super) watch: Watch,
    /// The next batch of the watch has all there is.
    pub(super) whole: bool,
    /// The record of this node, as it is to be while it lives.
    pub(super) node: Arc<Node>,
    pub(super) standing: Standing,
    /// Taken in the store for a record that is not written yet.
    pub(super) claimed: BTreeSet<Key>,
    /// What this node's records want to be there.
    pub(super) wanted: Wanted,
    pub(super) stale: Stale,
    /// What is there may not be what is wanted.
    pub(super) unsettled: bool,
    pub(super) suspects: Suspects,
    /// A removed node may have left something.
    pub(super) sweeps: bool,
    /// The life of the store's in which all that is there was written.
    pub(super) bound: u64,
    /// Of own endpoints, and held by others: each with who.
    pub(super) disputed: BTreeMap<Key, String>,
    pub(super) settled: Option<Instant>,
    /// For so long after each connection to the store a node that vanishes may be back in a moment.
    grace: Duration,
    /// The connection that was seen last, and until when nodes may be back.
    connection: Option<(u64, Instant)>,
    /// Own commits, and batches by the number under which tables have them.
    written: Vec<(Revision, u64)>,
    taken_in: Vec<(Revision, u64)>,
}

/// What there is to tell of the store since the last time.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    /// What this node wrote, and at which nanosecond of the machine's monotonic clock the store was asked to.
    pub written: Vec<(Revision, u64)>,
    /// What was taken in, and with which revision of the tables.
    pub taken_in: Vec<(Revision, u64)>,
}

/// Keys that may lead to something else than is wanted, or to what is not wanted: all others were looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspects {
    All,
    Of(BTreeSet<Key>),
}

/// What of the wanted has to be made anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stale {
    All,
    Of(BTreeMap<Id, Option<Arc<Sandbox>>>),
}

impl Cluster {
    /// Nodes that vanish within `grace` after a connection was made get as much time to be back.
    pub(crate) fn new(
        mut store: Box<dyn SharedStore>,
        node: Node,
        grace: Duration,
    ) -> Result<Self, StoreError> {
        let watch = store.watch()?;
        Ok(Self {
            store,
            watch,
            whole: true,
            node: Arc::new(node),
            standing: Standing::Apart,
            claimed: BTreeSet::new(),
            wanted: Wanted::new(),
            stale: Stale::All,
            unsettled: true,
            suspects: Suspects::All,
            sweeps: true,
            bound: 0,
            disputed: BTreeMap::new(),
            settled: None,
            grace,
            connection: None,
            written: Vec::new(),
            taken_in: Vec::new(),
        })
    }

    pub(crate) fn condition(&self) -> Condition {
        self.store.condition()
    }

    pub(super) fn ask(&self) -> Asked {
        self.store.ask()
    }

    pub(crate) fn restore(&self) -> Asked {
        self.store.restore()
    }

    /// Whether nodes that seem to be gone may have lost the store as this one did, and be back soon: what ends with a
    /// node's lease says so only while the store could be reached for the length of a lease.
    pub(super) fn doubts(&mut self, now: Instant) -> bool {
        let condition = self.condition();
        if !condition.connected {
            return true;
        }
        match self.connection {
            Some((connection, until)) if connection == condition.reconnects => now < until,
            _ => {
                self.connection = Some((condition.reconnects, now + self.grace));
                !self.grace.is_zero()
            }
        }
    }

    pub(super) fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        let asked = monotonic_ns();
        let revision = self.store.commit(txn)?;
        remember(&mut self.written, (revision, asked));
        Ok(revision)
    }

    pub(super) fn begin_watch(&mut self) -> Result<Option<Batch>, StoreError> {
        self.watch = self.store.watch()?;
        self.whole = true;
        Ok(self.watch.try_next().unwrap_or_default())
    }

    pub(super) fn release(&mut self) -> Result<(), StoreError> {
        self.store.release()
    }

    pub(super) fn taken_in(&mut self, revision: Revision, turn: u64) {
        remember(&mut self.taken_in, (revision, turn));
    }

    pub(super) fn untold(&mut self) -> Untold {
        Untold { written: std::mem::take(&mut self.written), taken_in: std::mem::take(&mut self.taken_in) }
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(crate) fn disputed(&self) -> impl Iterator<Item = &str> {
        self.disputed.values().map(|text| &**text)
    }

    /// When everything of this node's was last found to be there.
    pub(crate) fn settled(&self) -> Option<Instant> {
        self.settled
    }

    /// Notes what of the wanted depends on these changes.
    pub(super) fn follow(&mut self, changes: &[Change], model: &Model) {
        for change in changes {
            match change {
                Change::Sandbox { before, after } => {
                    self.follow_sandbox(before.as_ref(), after.as_ref(), model);
                }
                Change::Member { before, after } => {
                    (self.sweeps, self.unsettled) = (true, true);
                    if before.as_ref().or(after.as_ref()).is_some_and(|member| member.name == model.here) {
                        self.want_all();
                    }
                }
                Change::Node { before, after } => {
                    // Who sweeps is one of those that live.
                    let is_removed = |member: &Arc<Member>| member.availability == Availability::Removed;
                    if model.members.values().any(is_removed) {
                        (self.sweeps, self.unsettled) = (true, true);
                    }
                    if before.as_ref().or(after.as_ref()).is_some_and(|node| node.name == model.here) {
                        self.suspect(key_of::<Node>(&model.here));
                        self.unsettled = true;
                    }
                }
                Change::Network { .. }
                | Change::Service { .. }
                | Change::Peer { .. }
                | Change::Findings { .. } => {}
            }
        }
        // Behind the sandboxes' own changes, which know what was before.
        for change in changes {
            let key = match change {
                Change::Network { before: None, after: Some(one) }
                | Change::Network { before: Some(one), after: None } => SandboxKey::On(Id::clone(&one.id)),
                // An endpoint is told as a backend of services that are there.
                Change::Service { before: None, after: Some(one) }
                | Change::Service { before: Some(one), after: None } => {
                    SandboxKey::Serves(Id::clone(&one.id))
                }
                _ => continue,
            };
            model
                .sandboxes
                .by(&key)
                .for_each(|sandbox| self.follow_sandbox(Some(sandbox), Some(sandbox), model));
        }
    }

    /// The key is to be looked at by the next settle, whenever that is.
    pub(super) fn suspect(&mut self, key: Key) {
        if let Suspects::Of(keys) = &mut self.suspects {
            keys.insert(key);
        }
    }

    /// What is disputed now; what was not before goes to the log.
    pub(super) fn dispute(&mut self, disputed: BTreeMap<Key, String>) {
        for (key, by) in disputed.iter().filter(|(key, _)| !self.disputed.contains_key(*key)) {
            tracing::error!(%key, by, "an address of a sandbox here is held by another");
        }
        self.disputed = disputed;
    }

    pub(super) fn want_all(&mut self) {
        (self.stale, self.suspects, self.unsettled) = (Stale::All, Suspects::All, true);
    }

    fn follow_sandbox(&mut self, before: Option<&Arc<Sandbox>>, after: Option<&Arc<Sandbox>>, model: &Model) {
        let shared =
            |network: &Id| model.networks.get(network).is_none_or(|network| network.scope() == Scope::Shared);
        let mut endpoints =
            [before, after].into_iter().flatten().flat_map(|sandbox| sandbox.endpoints.iter());
        if !endpoints.any(|endpoint| shared(&endpoint.network)) {
            return;
        }
        let Some(id) = before.or(after).map(|sandbox| Arc::clone(&sandbox.id)) else { return };
        self.unsettled = true;
        let keys = [before, after].into_iter().flatten().flat_map(|sandbox| own::keys(sandbox));
        keys.for_each(|key| self.suspect(key));
        if let Stale::Of(sandboxes) = &mut self.stale {
            // What the first of several changes found is what is wanted now.
            sandboxes.entry(id).or_insert_with(|| before.cloned());
        }
    }
}

/// Nobody listens for long at times: the oldest go.
fn remember<T>(untold: &mut Vec<T>, one: T) {
    if untold.len() == UNTOLD {
        untold.drain(..UNTOLD / 2);
    }
    untold.push(one);
}

/// Whether connections are kept from the endpoints of that node.
pub(crate) fn drains(model: &Model, node: &str) -> bool {
    model.members.get(node).is_some_and(|member| member.availability == Availability::Drain)
}
