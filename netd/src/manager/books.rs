//! What is written down: this node's own store, the cluster's if there is one, the model that both make, and who holds
//! which address. No kernel and no tables: the simulation of a cluster runs many of these against one store.
//!
//! A commit goes to the store of the record's scope. What it changed comes back by that store's watch, as everybody
//! else's changes do, and waits here for whoever carries it into tables ([`Books::take_fresh`]).

mod claim;
mod cluster;
mod creation;
mod member;
mod own;
mod service;
mod settle;
#[cfg(test)]
mod simulation;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_api::ApiError;

use crate::error::Result;
use crate::ipam::{Holder, Leases};
use crate::model::{Change, Endpoint, Id, Lease, Model, Network, SandboxKey, Scope, ServiceKey};
use crate::store::{
    Asked, Batch, CommitError, Condition, Key, KeyChange, MESH_SECRET, Record as _, Records, Revision, Store,
    StoreError, Txn, Watch,
};
pub(crate) use claim::Assigned;
use cluster::Suspects;
pub(crate) use cluster::{Cluster, Standing, Untold};
pub(crate) use member::{name_taken, out_of_reach};

/// How long a commit waits until its own watch has told it.
const ECHO: Duration = Duration::from_secs(1);
/// Batches of the cluster's that are taken in at a time: requests get their turn in between.
const BATCHES: usize = 64;

pub(crate) struct Books {
    local: Box<dyn Store>,
    watch: Watch,
    cluster: Option<Cluster>,
    records: Records,
    /// By network. Rebuilt from the records at start, kept beside them since.
    leases: BTreeMap<Id, Leases>,
    /// The last of the cluster's that this node was a member in.
    term: Option<u32>,
    /// Taken in, and in no table yet.
    fresh: Vec<Change>,
    advanced: bool,
    /// Grows with every batch of the cluster's that tables may depend on, and from one start to the next.
    turns: u64,
    /// Commits to the cluster's store that were refused because somebody else was faster.
    beaten: u64,
    /// Whether a commit to the cluster's store may be waited for. One that hangs holds up everything else here, so once
    /// requests are served it has to have answered just before.
    may_wait: bool,
    /// Something was refused because it had not.
    unheard: Cell<bool>,
}

impl Books {
    /// `turns` is more than at any start before, where there is a cluster.
    pub(crate) fn open(
        here: Id,
        mut local: Box<dyn Store>,
        cluster: Option<Cluster>,
        turns: u64,
    ) -> Result<Self, StoreError> {
        let watch = local.watch()?;
        let kept = local.load()?.entries.into_iter().find(|entry| *entry.key == *member::TERM);
        let term = kept.and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
        let mut books = Self {
            local,
            watch,
            cluster,
            records: Records::of(here),
            leases: BTreeMap::new(),
            term,
            fresh: Vec::new(),
            advanced: false,
            turns,
            beaten: 0,
            may_wait: true,
            unheard: Cell::new(false),
        };
        books.take_in();
        books.take_in_shared();
        books.rebuild_leases();
        Ok(books)
    }

    pub(crate) fn model(&self) -> &Model {
        self.records.model()
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// One number for both stores: whatever either of them tells that tables may depend on raises it.
    pub(crate) fn revision(&self) -> Revision {
        self.records.revision(Scope::Local) + self.turns
    }

    /// What has come since the last time, if anything has been taken in at all.
    pub(super) fn take_fresh(&mut self) -> Option<Vec<Change>> {
        std::mem::take(&mut self.advanced).then(|| std::mem::take(&mut self.fresh))
    }

    pub(super) fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// From now on; forgets what was refused before.
    pub(super) fn set_may_wait(&mut self, may_wait: bool) {
        self.may_wait = may_wait;
        self.unheard.set(false);
    }

    /// Whether something was refused that is to be tried again when the cluster's store has answered.
    pub(super) fn is_unheard(&self) -> bool {
        self.unheard.get()
    }

    pub(super) fn ask(&self) -> Option<Asked> {
        self.cluster.as_ref().map(Cluster::ask)
    }

    /// Grows whenever another node was faster: what failed meanwhile may go well the next time.
    pub(super) fn beaten(&self) -> u64 {
        self.beaten
    }

    /// A transaction that goes through only while that record is as it is known here.
    pub(super) fn revise(&self, scope: Scope, key: &Key) -> Txn {
        match self.records.revision_of(scope, key) {
            Some(revision) => Txn::default().expect(Arc::clone(key), revision),
            None => Txn::default().expect_absent(Arc::clone(key)),
        }
    }

    pub(super) fn commit(&mut self, scope: Scope, txn: &Txn) -> Result<Revision, CommitError> {
        match scope {
            Scope::Local => self.commit_local(txn),
            Scope::Shared => self.commit_shared(txn),
        }
    }

    fn commit_local(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        let revision = self.local.commit(txn)?;
        // What was claimed for a record stands in it now, or is nobody's.
        if let Some(cluster) = &mut self.cluster {
            let claimed = std::mem::take(&mut cluster.claimed);
            claimed.into_iter().for_each(|key| cluster.suspect(key));
        }
        self.take_in();
        Ok(revision)
    }

    /// What was just made is in the model when this returns.
    fn commit_shared(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        if !self.may_wait {
            self.unheard.set(true);
            return Err(CommitError::Unheard);
        }
        let Some(cluster) = &mut self.cluster else {
            return Err(CommitError::Refused { cause: "this daemon has none".into() });
        };
        match cluster.commit(txn) {
            Ok(revision) => {
                self.await_shared(revision);
                Ok(revision)
            }
            Err(CommitError::Conflict { key, expected, found }) => {
                self.beaten += 1;
                // Whoever tries again is to know what was in the way.
                match found {
                    Some(found) => self.await_shared(found),
                    None => drop(self.take_in_shared()),
                }
                Err(CommitError::Conflict { key, expected, found })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in what the node's own watch has.
    fn take_in(&mut self) {
        loop {
            match self.watch.try_next() {
                Ok(None) => return,
                Ok(Some(batch)) => match self.records.apply(&batch) {
                    Ok(changes) => self.note(changes),
                    Err(error) => {
                        tracing::error!(%error, revision = batch.revision, "a record cannot be read");
                    }
                },
                Err(closed) => {
                    tracing::warn!(%closed, "beginning a new watch");
                    match self.local.watch() {
                        Ok(watch) => self.watch = watch,
                        Err(error) => {
                            tracing::error!(%error, "cannot watch the store");
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Waits so long for the cluster's watch to tell something, and takes that in.
    pub(super) fn look_out(&mut self, limit: Duration) {
        if let Some(batch) = self.next_shared(limit) {
            self.note_shared(&batch);
        }
    }

    /// Takes in some of what the cluster's watch has, and says whether there may be more.
    pub(super) fn take_in_shared(&mut self) -> bool {
        self.believe(Instant::now());
        for _ in 0..BATCHES {
            match self.next_shared(Duration::ZERO) {
                Some(batch) => self.note_shared(&batch),
                None => return false,
            }
        }
        true
    }

    fn await_shared(&mut self, revision: Revision) {
        let deadline = Instant::now() + ECHO;
        while self.records.revision(Scope::Shared) < revision {
            match self.next_shared(deadline.saturating_duration_since(Instant::now())) {
                Some(batch) => self.note_shared(&batch),
                None if Instant::now() >= deadline => {
                    tracing::warn!(revision, "the watch of the cluster's store lags behind");
                    return;
                }
                None => {}
            }
        }
    }

    fn next_shared(&mut self, limit: Duration) -> Option<Batch> {
        let cluster = self.cluster.as_mut()?;
        let next = if limit.is_zero() { cluster.watch.try_next() } else { cluster.watch.next_within(limit) };
        match next {
            Ok(batch) => batch,
            Err(closed) => {
                tracing::warn!(%closed, "beginning a new watch of the cluster's store");
                match cluster.begin_watch() {
                    Ok(first) => first,
                    Err(error) => {
                        tracing::error!(%error, "cannot watch the cluster's store");
                        None
                    }
                }
            }
        }
    }

    fn note_shared(&mut self, batch: &Batch) {
        let mut ours = self.own_among(batch);
        let whole = self.cluster.as_mut().is_some_and(|cluster| std::mem::take(&mut cluster.whole));
        let doubts = self.cluster.as_mut().is_some_and(|cluster| cluster.doubts(Instant::now()));
        let changes = match whole {
            true => self.records.replace_shared(batch, doubts),
            false => self.records.apply_shared(batch, doubts),
        };
        // An address that is taken, or what this node has told itself, is in nobody's table: nobody is woken for it.
        let is_silent = changes.is_empty() && !whole && !is_secret(batch);
        self.turns += u64::from(!is_silent);
        ours.extend(self.own_among(batch));
        self.follow_networks(&changes);
        if whole {
            self.rebuild_leases();
        } else {
            batch.changes.iter().for_each(|change| self.follow_lease(change.key()));
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.taken_in(batch.revision, self.records.revision(Scope::Local) + self.turns);
            cluster.unsettled |= whole || !ours.is_empty();
            ours.into_iter().for_each(|key| cluster.suspect(key));
            if whole {
                cluster.suspects = Suspects::All;
            }
        }
        if !is_silent {
            self.note(changes);
        }
    }

    /// Keys of the batch that are this node's, or that it wants and others hold.
    fn own_among(&self, batch: &Batch) -> Vec<Key> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let concerns_us =
            |key: &&Key| self.records.own().contains_key(*key) || cluster.disputed.contains_key(*key);
        batch.changes.iter().map(KeyChange::key).filter(concerns_us).cloned().collect()
    }

    /// Nodes that were not back in time are gone.
    fn believe(&mut self, now: Instant) {
        let doubts = self.cluster.as_mut().is_some_and(|cluster| cluster.doubts(now));
        if !doubts && self.records.doubts() {
            let gone = self.records.believe();
            self.turns += 1;
            self.note(gone);
        }
    }

    fn note(&mut self, changes: Vec<Change>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.follow(&changes, self.records.model());
        }
        self.fresh.extend(changes);
        self.advanced = true;
    }

    pub(super) fn leases_of(&mut self, network: &Id) -> Result<&mut Leases> {
        self.leases
            .get_mut(network)
            .ok_or_else(|| ApiError::not_found(format!("network {network} is gone")).into())
    }

    pub(super) fn leases(&self, network: &str) -> Option<&Leases> {
        self.leases.get(network)
    }

    /// The addresses of an endpoint that is no more. Those of the cluster's networks are free once its store says so.
    pub(super) fn release(&mut self, endpoint: &Endpoint, sandbox: &str) {
        let networks = &self.records.model().networks;
        if networks.get(&endpoint.network).is_none_or(|network| network.scope() == Scope::Shared) {
            return;
        }
        if let Some(leases) = self.leases.get_mut(&endpoint.network) {
            for address in endpoint.addresses() {
                leases.release(address, sandbox);
            }
        }
    }

    pub(super) fn begin_leases(&mut self, network: &Network) {
        self.leases.insert(Arc::clone(&network.id), Leases::new(network));
    }

    pub(super) fn end_leases(&mut self, network: &str) {
        self.leases.remove(network);
    }

    /// The tables that live beside the records.
    fn rebuild_leases(&mut self) {
        let model = self.records.model();
        let on = |network| model.sandboxes.by(&SandboxKey::On(network)).map(|sandbox| &**sandbox);
        let table = |id: &Id, network: &Network| match network.scope() {
            Scope::Local => {
                let services = model.services.by(&ServiceKey::On(Arc::clone(id))).map(|service| &**service);
                Leases::rebuild(network, on(Arc::clone(id)), services)
            }
            Scope::Shared => shared_leases(network, model),
        };
        self.leases =
            model.networks.iter().map(|(id, network)| (Arc::clone(id), table(id, network))).collect();
    }

    /// Tables of the cluster's networks come and go with what the watch tells.
    fn follow_networks(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Network { before: None, after: Some(network) } => {
                    let table = shared_leases(network, self.records.model());
                    self.leases.insert(Arc::clone(&network.id), table);
                }
                Change::Network { before: Some(network), after: None } => self.end_leases(&network.id),
                _ => {}
            }
        }
    }

    fn follow_lease(&mut self, key: &str) {
        let Some((Lease::PREFIX, id)) = key.split_once('/') else { return };
        let Some((network, address)) = id.rsplit_once('/') else { return };
        let (Some(table), Ok(address)) = (self.leases.get_mut(network), address.parse()) else { return };
        match self.records.model().leases.get(network).and_then(|leases| leases.get(&address)) {
            Some(lease) => table.note(address, Holder::from(&**lease)),
            None => table.forget(address),
        }
    }

    pub(super) fn untold(&mut self) -> Untold {
        self.cluster.as_mut().map(Cluster::untold).unwrap_or_default()
    }

    /// Whether the cluster's store has that node, whatever the tables still say.
    pub(super) fn lives(&self, node: &str) -> bool {
        self.records.lives(node)
    }

    /// Has the cluster's store forget at once what is bound to this node's life.
    pub(super) fn release_lease(&mut self) -> Result<(), StoreError> {
        self.cluster.as_mut().map_or(Ok(()), Cluster::release)
    }

    pub(super) fn condition(&self) -> Option<Condition> {
        self.cluster.as_ref().map(Cluster::condition)
    }
}

/// No record of the model, and the way to other nodes depends on it.
fn is_secret(batch: &Batch) -> bool {
    batch.changes.iter().any(|change| **change.key() == *MESH_SECRET)
}

fn shared_leases(network: &Network, model: &Model) -> Leases {
    // Where the search begins differs from node to node, so that two rarely try the same address.
    let mut table = Leases::shared(network, &model.here);
    for (address, lease) in model.leases.get(&network.id).into_iter().flatten() {
        table.note(*address, Holder::from(&**lease));
    }
    table
}
