//! The store of a single host: one redb file in the state directory.
//!
//! The file is made under another name and renamed when it is complete, so a state file that is empty or has no
//! format mark was cut by something else, and is refused instead of being taken for a fresh start. Every page's
//! checksum is verified when the file is opened; afterwards nobody else writes it (the directory lock).

use std::fs::{self, File};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition};

use super::lock::DirectoryLock;
use super::watch::Watchers;
use super::{
    Batch, Check, CommitError, Entry, Key, KeyChange, Revision, Snapshot, Store, StoreError, Txn, Watch,
};

const FILE: &str = "state.redb";
const RECORDS: TableDefinition<'_, &str, (Revision, &[u8])> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const REVISION: &str = "revision";
const KNOWN_FORMAT: u64 = 1;
/// The records of some thousand sandboxes; redb's own default would be a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Redb {
    path: PathBuf,
    database: Database,
    watchers: Watchers,
    /// Dropped last: the next owner may open the file only when it is closed.
    _lock: DirectoryLock,
}

impl Redb {
    /// Opens the state file of that directory, or makes it. The directory must exist.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = DirectoryLock::acquire(directory)?;
        let path = directory.join(FILE);
        if !exists(&path)? {
            create(&path)?;
        }
        let database = open_verified(&path)?;
        check_format(&database, &path)?;
        Ok(Self { path, database, watchers: Watchers::default(), _lock: lock })
    }

    fn snapshot(&self) -> Result<Snapshot, redb::Error> {
        let read = self.database.begin_read()?;
        let revision = revision_in(&read.open_table(META)?)?;
        let mut entries = Vec::new();
        for record in read.open_table(RECORDS)?.iter()? {
            let (key, value) = record?;
            let (revision, bytes) = value.value();
            entries.push(Entry { key: key.value().into(), value: bytes.into(), revision });
        }
        Ok(Snapshot { revision, entries })
    }

    fn write(&self, txn: &Txn) -> Result<Result<Batch, Refused>, redb::Error> {
        let write = self.database.begin_write()?;
        let batch = {
            let mut records = write.open_table(RECORDS)?;
            let mut meta = write.open_table(META)?;
            let current = revision_in(&meta)?;
            if let Some(refused) = first_refused(txn.checks(), &records)? {
                return Ok(Err(refused));
            }
            let changes = apply(txn, current + 1, &mut records)?;
            let revision = if changes.is_empty() { current } else { current + 1 };
            meta.insert(REVISION, revision)?;
            Batch { revision, changes }
        };
        if batch.changes.is_empty() {
            write.abort()?;
        } else {
            write.commit()?;
        }
        Ok(Ok(batch))
    }
}

impl Store for Redb {
    fn load(&self) -> Result<Snapshot, StoreError> {
        self.snapshot().map_err(|source| read_failed(&self.path, source))
    }

    fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        match self.write(txn) {
            Ok(Ok(batch)) => {
                if !batch.changes.is_empty() {
                    self.watchers.tell(&batch);
                }
                Ok(batch.revision)
            }
            Ok(Err(Refused { check, found })) => {
                Err(CommitError::Conflict { key: check.key, expected: check.revision, found })
            }
            Err(source) => Err(CommitError::Write { path: self.path.clone(), source: source.into() }),
        }
    }

    fn watch(&mut self) -> Result<Watch, StoreError> {
        let Snapshot { revision, entries } = self.load()?;
        let changes = entries.into_iter().map(KeyChange::Put).collect();
        Ok(self.watchers.add(Batch { revision, changes }))
    }
}

/// A check that failed, and what the key is at.
struct Refused {
    check: Check,
    found: Option<Revision>,
}

fn first_refused(
    checks: &[Check],
    records: &impl ReadableTable<&'static str, (Revision, &'static [u8])>,
) -> Result<Option<Refused>, redb::Error> {
    for check in checks {
        let found = records.get(&*check.key)?.map(|value| value.value().0);
        if found != check.revision {
            return Ok(Some(Refused { check: check.clone(), found }));
        }
    }
    Ok(None)
}

fn apply(
    txn: &Txn,
    revision: Revision,
    records: &mut Table<'_, &'static str, (Revision, &'static [u8])>,
) -> Result<Vec<KeyChange>, redb::Error> {
    let mut changes = Vec::new();
    for (key, value) in txn.writes() {
        let key = Key::clone(key);
        match value {
            Some(value) => {
                records.insert(&*key, (revision, &**value))?;
                changes.push(KeyChange::Put(Entry { key, value: value.clone(), revision }));
            }
            None => {
                if records.remove(&*key)?.is_some() {
                    changes.push(KeyChange::Deleted { key });
                }
            }
        }
    }
    Ok(changes)
}

fn revision_in(meta: &impl ReadableTable<&'static str, u64>) -> Result<Revision, redb::Error> {
    Ok(meta.get(REVISION)?.map(|value| value.value()).unwrap_or_default())
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|source| StoreError::Io { deed: "look for", path: path.to_owned(), source })
}

/// Makes the file complete before it has its name, so that a crash leaves none or a whole one.
fn create(path: &Path) -> Result<(), StoreError> {
    let unfinished = path.with_extension("new");
    let failed = |deed| {
        let path = unfinished.clone();
        move |source| StoreError::Io { deed, path, source }
    };
    if exists(&unfinished)? {
        fs::remove_file(&unfinished).map_err(failed("remove the unfinished state file"))?;
    }
    fresh(&unfinished).map_err(|source| read_failed(&unfinished, source))?;
    fs::rename(&unfinished, path).map_err(failed("rename"))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("make the name durable of"))
}

fn fresh(path: &Path) -> Result<(), redb::Error> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    let write = database.begin_write()?;
    write.open_table(RECORDS)?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert(FORMAT, KNOWN_FORMAT)?;
        meta.insert(REVISION, 0)?;
    }
    write.commit()?;
    Ok(database.close()?)
}

fn open_verified(path: &Path) -> Result<Database, StoreError> {
    let damaged = |cause: String| StoreError::Damaged { path: path.to_owned(), cause };
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    // redb asserts what it wrote itself, also before the checksums have been looked at; a file that another hand has
    // written can fail those assertions.
    match panic::catch_unwind(AssertUnwindSafe(|| builder.open(path))) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::Storage(StorageError::Io(source))))
            if source.kind() != std::io::ErrorKind::InvalidData
                && source.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            Err(StoreError::Io { deed: "open the state file", path: path.to_owned(), source })
        }
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("its structure is broken".into())),
    }
}

fn check_format(database: &Database, path: &Path) -> Result<(), StoreError> {
    let format = || -> Result<Option<u64>, redb::Error> {
        let read = database.begin_read()?;
        read.open_table(RECORDS)?;
        Ok(read.open_table(META)?.get(FORMAT)?.map(|value| value.value()))
    };
    let damaged = |cause: String| StoreError::Damaged { path: path.to_owned(), cause };
    match format() {
        Ok(Some(KNOWN_FORMAT)) => Ok(()),
        Ok(Some(found)) if found > KNOWN_FORMAT => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: KNOWN_FORMAT })
        }
        Ok(_) => Err(damaged("it has no mark of its format".into())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

fn read_failed(path: &Path, source: redb::Error) -> StoreError {
    StoreError::Read { path: path.to_owned(), source: source.into() }
}
