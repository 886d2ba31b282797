//! The store of a single host: the records in memory, a journal, and one redb file in the state directory.
//!
//! A wait for the disk costs more than all of an attach, so a commit does not wait for it: it is written to the
//! journal (and outlives this process), and a thread carries it into the redb file a few milliseconds later, many at a
//! time. A power cut may take the commits of those milliseconds, never the consistency of what was before; the
//! namespaces it also takes are rebuilt or forgotten from the records at the next start either way.
//!
//! The redb file is made under another name and renamed when it is complete, so one that is empty or has no format
//! mark was cut by something else, and is refused instead of being taken for a fresh start. Every page's checksum is
//! verified when the file is opened; afterwards nobody else writes it (the directory lock).

mod file;
mod flusher;
mod journal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::lock::DirectoryLock;
use super::watch::Watchers;
use super::{Batch, CommitError, Entry, Key, KeyChange, Revision, Snapshot, Store, StoreError, Txn, Watch};
pub(super) use file::StateFile;
use flusher::Flusher;
pub(super) use journal::Journal;
#[cfg(any(test, fuzzing))]
pub(super) use journal::{encode, entries, sealed};

/// The journal begins anew when it has grown to this and the state file has caught up.
const JOURNAL_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Redb {
    path: PathBuf,
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
    watchers: Watchers,
    journal: Journal,
    flusher: Flusher,
    /// Dropped last: the next owner may open the files only when they are closed.
    _lock: DirectoryLock,
}

impl Redb {
    /// Opens the state of that directory, or makes it. The directory must exist.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = DirectoryLock::acquire(directory)?;
        let (mut journal, mut batches) = Journal::open(directory)?;
        let begins_anew = !StateFile::exists(directory)?;
        let path = StateFile::path_in(directory);
        let failed = |deed| {
            let path = path.clone();
            move |source| StoreError::Io { deed, path, source }
        };
        if begins_anew {
            // What it has belongs to a state file that somebody has put aside.
            journal.clear().map_err(failed("clear the journal of"))?;
            batches.clear();
        }
        let file = StateFile::open(directory)?;
        let missing = missing(file.load()?.revision, batches);
        if !missing.is_empty() {
            tracing::info!(
                commits = missing.len(),
                "taking over what the last daemon had not yet put on the disk"
            );
        }
        file.apply(&missing)
            .map_err(|source| StoreError::Read { path: path.clone(), source: source.into() })?;
        journal.clear().map_err(failed("clear the journal of"))?;
        let Snapshot { revision, entries } = file.load()?;
        let flusher = Flusher::start(file, revision).map_err(failed("start the writer of"))?;
        let entries = entries.into_iter().map(|entry| (Key::clone(&entry.key), entry)).collect();
        Ok(Self { path, entries, revision, watchers: Watchers::default(), journal, flusher, _lock: lock })
    }

    fn refuse(&self, txn: &Txn) -> Result<(), CommitError> {
        for check in txn.checks() {
            let found = self.entries.get(&check.key).map(|entry| entry.revision);
            if found != check.revision {
                let (key, expected) = (Key::clone(&check.key), check.revision);
                return Err(CommitError::Conflict { key, expected, found });
            }
        }
        Ok(())
    }

    fn changes(&self, txn: &Txn, revision: Revision) -> Vec<KeyChange> {
        let change = |(key, value): (&Key, Option<&super::Value>)| match value {
            Some(value) => {
                Some(KeyChange::Put(Entry { key: Key::clone(key), value: value.clone(), revision }))
            }
            None => self.entries.contains_key(key).then(|| KeyChange::Deleted { key: Key::clone(key) }),
        };
        txn.writes().filter_map(change).collect()
    }

    /// Into the journal, unless the disk is known to refuse.
    fn write_down(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let failed = |cause: String| CommitError::Write { path: self.path.clone(), cause };
        let full = self.journal.length() >= JOURNAL_BYTES && self.flusher.wait_for(self.revision);
        if let Some(cause) = self.flusher.failure() {
            return Err(failed(cause));
        }
        if full {
            self.journal.clear().map_err(|error| failed(error.to_string()))?;
        }
        self.journal.append(batch).map_err(|error| failed(error.to_string()))
    }

    fn take_in(&mut self, changes: &[KeyChange]) {
        for change in changes {
            match change {
                KeyChange::Put(entry) => self.entries.insert(Key::clone(&entry.key), entry.clone()),
                KeyChange::Deleted { key } => self.entries.remove(key),
            };
        }
    }
}

impl Store for Redb {
    fn load(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { revision: self.revision, entries: self.entries.values().cloned().collect() })
    }

    fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        self.refuse(txn)?;
        let revision = self.revision + 1;
        let changes = self.changes(txn, revision);
        if changes.is_empty() {
            return Ok(self.revision);
        }
        let batch = Batch { revision, changes };
        self.write_down(&batch)?;
        self.take_in(&batch.changes);
        self.revision = revision;
        self.watchers.tell(&batch);
        self.flusher.push(batch);
        Ok(revision)
    }

    fn watch(&mut self) -> Result<Watch, StoreError> {
        let Snapshot { revision, entries } = self.load()?;
        let changes = entries.into_iter().map(KeyChange::Put).collect();
        Ok(self.watchers.add(Batch { revision, changes }))
    }
}

impl Drop for Redb {
    /// An orderly end leaves all in the state file, so that one restored from a backup later is not carried forward
    /// again by an old journal.
    fn drop(&mut self) {
        if self.flusher.wait_for(self.revision)
            && let Err(error) = self.journal.clear()
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot clear the journal of the state file");
        }
    }
}

/// What the state file at that revision lacks, without a gap.
fn missing(flushed: Revision, journal: Vec<Batch>) -> Vec<Batch> {
    let mut next = flushed;
    let behind = journal.into_iter().skip_while(|batch| batch.revision <= flushed);
    behind
        .take_while(|batch| {
            next += 1;
            batch.revision == next
        })
        .collect()
}
