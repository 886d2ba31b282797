//! A cluster's store without etcd, for simulations: many handles on one content, cut off, ended and brought back by the
//! test. What it keeps to is what [`SharedStore`] promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::watch::Watchers;
use super::{
    Asked, Batch, CommitError, Condition, Entry, Key, KeyChange, LIVING, Revision, SharedStore, Snapshot,
    Store, StoreError, Txn, Watch,
};

/// The content, wherever it is.
#[derive(Clone, Default)]
pub(crate) struct Sea(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
    /// Which key is bound to whose life.
    bound: BTreeMap<Key, (usize, u64)>,
    ends: Vec<End>,
}

/// One node's end of it. It outlives the node's processes, as a lease does.
#[derive(Default)]
struct End {
    connected: bool,
    connections: u64,
    life: u64,
    lives: bool,
    /// What the watch has told.
    told: BTreeMap<Key, Entry>,
    told_revision: Revision,
    watchers: Watchers,
    /// The next commit is done, and its answer lost.
    loses_answer: bool,
}

/// What a process of that node holds.
pub(crate) struct Handle {
    sea: Sea,
    end: usize,
}

impl Sea {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node that has never been there. Connected, its copy empty.
    pub(crate) fn end(&self) -> usize {
        let mut content = self.lock();
        content.ends.push(End::default());
        let end = content.ends.len() - 1;
        content.connect(end);
        end
    }

    /// A process of that node begins; the one before is gone.
    pub(crate) fn open(&self, end: usize) -> Box<Handle> {
        self.lock().ends[end].watchers = Watchers::default();
        Box::new(Handle { sea: self.clone(), end })
    }

    pub(crate) fn cut(&self, end: usize) {
        self.lock().ends[end].connected = false;
    }

    pub(crate) fn heal(&self, end: usize) {
        let mut content = self.lock();
        content.ends[end].loses_answer = false;
        content.connect(end);
    }

    /// The lease of a node that has been out of reach for too long. Nothing happens to one that is not.
    pub(crate) fn expire(&self, end: usize) {
        let mut content = self.lock();
        if !content.ends[end].connected {
            content.expire(end);
        }
    }

    /// A process that holds the lease has ended, and nobody keeps it.
    pub(crate) fn forsake(&self, end: usize) {
        let mut content = self.lock();
        content.ends[end].connected = false;
        content.expire(end);
    }

    pub(crate) fn lose_answer(&self, end: usize) {
        self.lock().ends[end].loses_answer = true;
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.values().cloned().collect()
    }
}

impl Content {
    fn connect(&mut self, end: usize) {
        let end_ = &mut self.ends[end];
        if !end_.lives {
            (end_.life, end_.lives) = (end_.life + 1, true);
        }
        if !end_.connected {
            (end_.connected, end_.connections) = (true, end_.connections + 1);
        }
        self.tell(end);
    }

    fn expire(&mut self, end: usize) {
        self.ends[end].lives = false;
        let gone: Vec<Key> =
            self.bound.iter().filter(|(_, (of, _))| *of == end).map(|(key, _)| Arc::clone(key)).collect();
        let txn = gone.into_iter().fold(Txn::default(), Txn::delete);
        self.write(&txn, None);
    }

    fn write(&mut self, txn: &Txn, by: Option<usize>) -> Revision {
        let deletes = |key: &Key| self.entries.contains_key(key);
        if !txn.writes().any(|(key, value)| value.is_some() || deletes(key)) {
            return self.revision;
        }
        self.revision += 1;
        let revision = self.revision;
        for (key, value) in txn.writes() {
            self.bound.remove(key);
            match value {
                None => drop(self.entries.remove(key)),
                Some(value) => {
                    let entry = Entry { key: Arc::clone(key), value: Arc::clone(value), revision };
                    self.entries.insert(Arc::clone(key), entry);
                    if let Some(end) = by.filter(|_| LIVING.iter().any(|prefix| key.starts_with(prefix))) {
                        self.bound.insert(Arc::clone(key), (end, self.ends[end].life));
                    }
                }
            }
        }
        (0..self.ends.len()).for_each(|end| self.tell(end));
        revision
    }

    /// The way from what was told to what is.
    fn tell(&mut self, end: usize) {
        let end = &mut self.ends[end];
        if !end.connected || end.told_revision == self.revision {
            return;
        }
        let gone: BTreeSet<Key> =
            end.told.keys().filter(|key| !self.entries.contains_key(*key)).cloned().collect();
        let deleted = gone.into_iter().map(|key| KeyChange::Deleted { key });
        let put = self.entries.values().filter(|entry| end.told.get(&entry.key) != Some(*entry));
        let changes = deleted.chain(put.cloned().map(KeyChange::Put)).collect();
        end.told = self.entries.clone();
        end.told_revision = self.revision;
        end.watchers.tell(&Batch { revision: self.revision, changes });
    }
}

fn away() -> CommitError {
    CommitError::Unavailable { endpoints: "simulated".into(), cause: "it is cut off".into() }
}

impl Store for Handle {
    fn load(&self) -> Result<Snapshot, StoreError> {
        let content = self.sea.lock();
        let end = &content.ends[self.end];
        Ok(Snapshot { revision: end.told_revision, entries: end.told.values().cloned().collect() })
    }

    fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        let mut content = self.sea.lock();
        if !content.ends[self.end].connected {
            return Err(away());
        }
        assert!(txn.checks().len() + txn.writes().count() <= 128, "etcd takes no more: {txn:?}");
        for check in txn.checks() {
            let found = content.entries.get(&check.key).map(|entry| entry.revision);
            if found != check.revision {
                let (key, expected) = (Arc::clone(&check.key), check.revision);
                return Err(CommitError::Conflict { key, expected, found });
            }
        }
        let revision = content.write(txn, Some(self.end));
        if std::mem::take(&mut content.ends[self.end].loses_answer) {
            return Err(CommitError::Unclear { cause: "the answer was lost".into() });
        }
        Ok(revision)
    }

    fn watch(&mut self) -> Result<Watch, StoreError> {
        let Snapshot { revision, entries } = self.load()?;
        let changes = entries.into_iter().map(KeyChange::Put).collect();
        Ok(self.sea.lock().ends[self.end].watchers.add(Batch { revision, changes }))
    }
}

impl SharedStore for Handle {
    fn condition(&self) -> Condition {
        let content = self.sea.lock();
        let End { connected, connections: reconnects, life, told_revision: told, .. } =
            content.ends[self.end];
        Condition {
            connected,
            since: SystemTime::UNIX_EPOCH,
            cause: (!connected).then(|| "it is cut off".into()),
            is_foreign: false,
            endpoint: None,
            reconnects,
            told,
            keys: content.ends[self.end].told.len(),
            life,
        }
    }

    fn ask(&self) -> Asked {
        Asked::known(Ok(()))
    }

    fn restore(&self) -> Asked {
        Asked::known(Err("a simulated store loses nothing".into()))
    }

    fn release(&mut self) -> Result<(), StoreError> {
        self.sea.forsake(self.end);
        Ok(())
    }
}
