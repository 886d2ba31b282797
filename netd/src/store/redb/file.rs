//! The redb file itself: made, opened, verified, read whole, written.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::super::{Batch, Entry, KeyChange, Revision, Snapshot, StoreError};

const FILE: &str = "state.redb";
const RECORDS: TableDefinition<'_, &str, (Revision, &[u8])> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const REVISION: &str = "revision";
const KNOWN_FORMAT: u64 = 1;
/// The records of some thousand sandboxes; redb's own default would be a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    database: Database,
}

impl StateFile {
    pub(crate) fn path_in(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    pub(crate) fn exists(directory: &Path) -> Result<bool, StoreError> {
        exists(&Self::path_in(directory))
    }

    /// Makes the file if it is not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = Self::path_in(directory);
        if !exists(&path)? {
            create(&path)?;
        }
        let database = open_verified(&path)?;
        check_format(&database, &path)?;
        Ok(Self { path, database })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn load(&self) -> Result<Snapshot, StoreError> {
        self.read().map_err(|source| read_failed(&self.path, source))
    }

    /// Writes the batches in one transaction and returns when they are on the disk.
    pub(crate) fn apply(&self, batches: &[Batch]) -> Result<(), redb::Error> {
        let Some(last) = batches.last() else { return Ok(()) };
        let write = self.database.begin_write()?;
        {
            let mut records = write.open_table(RECORDS)?;
            for change in batches.iter().flat_map(|batch| &batch.changes) {
                match change {
                    KeyChange::Put(Entry { key, value, revision }) => {
                        records.insert(&**key, (*revision, &**value))?;
                    }
                    KeyChange::Deleted { key } => {
                        records.remove(&**key)?;
                    }
                }
            }
            write.open_table(META)?.insert(REVISION, last.revision)?;
        }
        Ok(write.commit()?)
    }

    fn read(&self) -> Result<Snapshot, redb::Error> {
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
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    match builder.open(path) {
        Ok(database) => Ok(database),
        Err(DatabaseError::Storage(StorageError::Io(source)))
            if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            Err(StoreError::Io { deed: "open the state file", path: path.to_owned(), source })
        }
        Err(error) => Err(StoreError::Damaged { path: path.to_owned(), cause: error.to_string() }),
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
