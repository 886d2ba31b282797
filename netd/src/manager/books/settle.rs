//! Brings what stands in the cluster's store under this node's name to what its own records say: one function for a
//! change just made, a crash between two commits, a lost lease, a node that comes back. What is there and not wanted
//! goes, addresses of sandboxes that are no more among it; what is wanted and held by another node is told, not taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::Books;
use super::cluster::{Cluster, Stale, Standing, Suspects};
use super::own::{self, Want};
use crate::model::{Member, Model, Scope};
use crate::store::{CommitError, Key, LIVING, RecordError, Revision, Txn, Value, key_of};

/// Writes of one transaction: etcd takes 128 operations.
const WRITES: usize = 48;
/// Somebody else may change the same keys meanwhile; what is left after so many is left to the next time.
const ROUNDS: usize = 8;

/// Why it could not be done now. It is owed, and tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsettled {
    #[error("this node is not a member of the cluster now")]
    NoMember,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("its records in the cluster's store keep changing")]
    Restless,
}

/// One key that is not as it is wanted: what is to be there, and what is.
type Difference = (Key, Option<Value>, Option<Revision>);

struct Differing {
    put: Vec<Difference>,
    gone: Vec<Difference>,
    /// Of the wanted what another node holds, with who.
    disputed: BTreeMap<Key, String>,
}

impl Books {
    /// Whether something is owed that could be done now.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| {
            let condition = cluster.condition();
            condition.connected && (cluster.unsettled || cluster.bound != condition.life)
        })
    }

    /// Joins the cluster if that is still to be done, and writes what differs.
    pub(crate) fn settle(&mut self) -> Result<(), Unsettled> {
        for _ in 0..ROUNDS {
            while self.take_in_shared() {}
            self.refresh_wanted()?;
            let Some(cluster) = &self.cluster else { return Ok(()) };
            let life = cluster.condition().life;
            let rewrite = cluster.bound != life;
            if self.own_guard().is_none() {
                return Err(Unsettled::NoMember);
            }
            let differences = self.differences(rewrite);
            match self.write(&differences) {
                Ok(true) if differences.is_empty() => {
                    self.note_settled();
                    return self.sweep().map_err(|error| self.still_owes(error));
                }
                Ok(true) => self.note_bound(life),
                Ok(false) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Unsettled::Restless)
    }

    fn note_settled(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.unsettled = false;
            cluster.suspects = Suspects::Of(BTreeSet::new());
            cluster.settled = Some(Instant::now());
        }
    }

    fn still_owes(&mut self, error: CommitError) -> Unsettled {
        if let Some(cluster) = &mut self.cluster {
            cluster.unsettled = true;
        }
        error.into()
    }

    fn note_bound(&mut self, life: u64) {
        if let Some(cluster) = &mut self.cluster {
            cluster.bound = life;
        }
    }

    /// Goes through only while this node is a member.
    pub(super) fn member_guard(&self) -> Option<Txn> {
        let cluster = self.cluster.as_ref()?;
        self.own_guard().filter(|_| cluster.standing == Standing::Member)
    }

    /// Goes through only while this node is what it was when it wrote, or wrote off, its own records.
    fn own_guard(&self) -> Option<Txn> {
        let cluster = self.cluster.as_ref()?;
        if matches!(cluster.standing, Standing::Apart | Standing::NameTaken(_)) {
            return None;
        }
        let key = key_of::<Member>(&self.model().here);
        let revision = self.records.revision_of(Scope::Shared, &key)?;
        Some(Txn::default().expect(key, revision))
    }

    fn refresh_wanted(&mut self) -> Result<(), RecordError> {
        let model = self.records.model();
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        if cluster.standing != Standing::Member {
            // Who is no member has nothing there.
            cluster.wanted.clear();
            (cluster.stale, cluster.suspects) = (Stale::All, Suspects::All);
            return Ok(());
        }
        match &cluster.stale {
            Stale::All => {
                cluster.wanted = own::all(model, &cluster.node)?;
                cluster.suspects = Suspects::All;
            }
            Stale::Of(sandboxes) => {
                for (id, before) in sandboxes {
                    for key in before.iter().flat_map(|before| own::keys(before)) {
                        cluster.wanted.remove(&key);
                    }
                    if let Some(sandbox) = model.sandboxes.get(id) {
                        own::of_sandbox(sandbox, model, &mut cluster.wanted)?;
                    }
                }
            }
        }
        cluster.stale = Stale::Of(BTreeMap::new());
        Ok(())
    }

    /// What differs. Only what is suspect is looked at, unless another node holds something of the wanted, or this node has
    /// a new life: what is bound to its life is written again then as it is.
    fn differences(&mut self, rewrite: bool) -> Vec<Difference> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let found = match &cluster.suspects {
            Suspects::Of(keys) if !rewrite && cluster.disputed.is_empty() => {
                Some(self.differing(cluster, keys.iter().collect(), rewrite))
            }
            Suspects::Of(_) | Suspects::All => None,
        };
        // What needs an address that is another's is not there to be found among the suspects.
        let Differing { put, gone, disputed } = match found.filter(|found| found.disputed.is_empty()) {
            Some(found) => found,
            None => self.differing(cluster, self.all_keys(cluster), rewrite),
        };
        if let Some(cluster) = &mut self.cluster {
            cluster.dispute(disputed);
        }
        put.into_iter().chain(gone).collect()
    }

    fn all_keys<'a>(&'a self, cluster: &'a Cluster) -> BTreeSet<&'a Key> {
        cluster.wanted.keys().chain(self.records.own().keys()).collect()
    }

    /// Of these keys.
    fn differing(&self, cluster: &Cluster, keys: BTreeSet<&Key>, rewrite: bool) -> Differing {
        let own = self.records.own();
        let known = |key: &Key| self.records.revision_of(Scope::Shared, key);
        let others = |key: &Key| !own.contains_key(key) && known(key).is_some();
        let disputed: BTreeMap<Key, String> = keys
            .iter()
            .filter(|key| cluster.wanted.contains_key(**key) && others(key))
            .map(|key| (Arc::clone(key), holder(key, self.model())))
            .collect();
        let is_ours = |key: &Key, want: &Want| {
            !disputed.contains_key(key) && !want.needs.iter().any(|key| disputed.contains_key(key))
        };
        let is_there = |key: &Key, want: &Want| {
            let lives = LIVING.iter().any(|prefix| key.starts_with(prefix));
            !(rewrite && lives) && own.get(key).is_some_and(|entry| entry.value == want.value)
        };
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for key in keys {
            let want = cluster.wanted.get(key).filter(|want| is_ours(key, want));
            match (want, own.get(key)) {
                (Some(want), _) if is_there(key, want) => {}
                (Some(want), _) => put.push((Arc::clone(key), Some(Arc::clone(&want.value)), known(key))),
                (None, Some(entry)) if !cluster.claimed.contains(key) => {
                    gone.push((Arc::clone(key), None, Some(entry.revision)));
                }
                (None, _) => {}
            }
        }
        Differing { put, gone, disputed }
    }

    /// Whether all of it was written: not after this node has ceased to be a member.
    fn write(&mut self, differences: &[Difference]) -> Result<bool, CommitError> {
        for part in differences.chunks(WRITES) {
            let Some(mut txn) = self.own_guard() else { return Ok(false) };
            for (key, value, revision) in part {
                txn = match revision {
                    Some(revision) => txn.expect(Arc::clone(key), *revision),
                    None => txn.expect_absent(Arc::clone(key)),
                };
                txn = match value {
                    Some(value) => txn.put(Arc::clone(key), Arc::clone(value)),
                    None => txn.delete(Arc::clone(key)),
                };
            }
            self.commit_shared(&txn)?;
        }
        Ok(true)
    }
}

/// Who has what this node wants, for a person to read.
fn holder(key: &str, model: &Model) -> String {
    let lease = key.split_once('/').and_then(|(_, id)| {
        let (network, address) = id.rsplit_once('/')?;
        let lease = model.leases.get(network)?.get(&address.parse().ok()?)?;
        let network = model.networks.get(network).map_or(network, |network| &network.name);
        Some(format!("{address} of network {network} is held by {} on node {}", lease.name, lease.node))
    });
    lease.unwrap_or_else(|| format!("{key} is another node's"))
}
