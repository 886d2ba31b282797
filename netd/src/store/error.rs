//! Why a store cannot be opened, read or written.

use std::io;
use std::path::PathBuf;

use super::{Key, Revision};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("another netd{} uses the state directory {}; stop it, or give this one its own --state-dir", owner(*pid), directory.display())]
    InUse { directory: PathBuf, pid: Option<u32> },
    #[error("cannot {deed} {}", path.display())]
    Io { deed: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the state file {} is damaged: {cause}; to begin with no networks and sandboxes, put it aside \
         (mv '{}' '{}.damaged') and start again",
        path.display(), path.display(), path.display()
    )]
    Damaged { path: PathBuf, cause: String },
    #[error(
        "the state file {} has format {found}, this netd knows up to {known}: start the newer netd that wrote it",
        path.display()
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("cannot read the state file {}", path.display())]
    Read { path: PathBuf, source: Box<::redb::Error> },
    #[error("etcd at {endpoints} is away: {cause}; what is here goes on, what all nodes share waits for it")]
    Unavailable { endpoints: String, cause: String },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// Somebody else was faster: read again and decide again.
    #[error("record {key} {}", conflict(*expected, *found))]
    Conflict { key: Key, expected: Option<Revision>, found: Option<Revision> },
    /// Nothing is changed; it may go through when there is room again.
    #[error("cannot write the state file {}: {cause}", path.display())]
    Write { path: PathBuf, cause: String },
    /// Nothing is changed.
    #[error("etcd at {endpoints} is away: {cause}; what is here goes on, what all nodes share waits for it")]
    Unavailable { endpoints: String, cause: String },
    /// Nothing is changed, and nobody was asked: it could not have been waited for.
    #[error("etcd has not been heard of just now")]
    Unheard,
    /// Nothing is changed, and trying again changes nothing about it.
    #[error("etcd refuses a change: {cause}")]
    Refused { cause: String },
    /// Nothing is changed.
    #[error("a change of {operations} records at once is more than etcd takes ({limit})")]
    TooMany { operations: usize, limit: usize },
    /// It may be done or not: read again and decide again. A change that checks what it replaces can be tried again
    /// as it is, for it goes through once at most.
    #[error("it is not known whether etcd has taken a change: {cause}; look, and try again if it has not")]
    Unclear { cause: String },
}

fn owner(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn conflict(expected: Option<Revision>, found: Option<Revision>) -> &'static str {
    match (expected, found) {
        (None, _) => "exists already",
        (_, None) => "was removed in the meantime",
        _ => "was changed in the meantime",
    }
}
