//! Committed changes on their way to whoever builds tables from them.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use super::{Key, Revision, Value};

/// Batches that wait for a slow reader before its watch is closed. One takes the size of what was committed.
const BACKLOG: usize = 4096;

/// A key as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub key: Key,
    pub value: Value,
    /// Of the commit that wrote it last.
    pub revision: Revision,
}

/// All that one commit changed, or for the first batch of a watch all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub revision: Revision,
    pub changes: Vec<KeyChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyChange {
    Put(Entry),
    Deleted { key: Key },
}

impl KeyChange {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key } => key,
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Watch(Receiver<Batch>);

impl Watch {
    /// The next batch if there is one by now; an error when the watch is closed.
    pub(crate) fn try_next(&self) -> Result<Option<Batch>, Closed> {
        match self.0.try_recv() {
            Ok(batch) => Ok(Some(batch)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }

    /// The next batch, if it comes within that time.
    pub(crate) fn next_within(&self, limit: Duration) -> Result<Option<Batch>, Closed> {
        match self.0.recv_timeout(limit) {
            Ok(batch) => Ok(Some(batch)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch of the store is closed: the reader was too slow, or the store is gone")]
pub(crate) struct Closed;

/// The writer's ends.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<SyncSender<Batch>>);

impl Watchers {
    pub(super) fn add(&mut self, first: Batch) -> Watch {
        let (sender, receiver) = mpsc::sync_channel(BACKLOG);
        // The channel is empty and its receiver is in scope, so this cannot fail.
        if sender.try_send(first).is_ok() {
            self.0.push(sender);
        }
        Watch(receiver)
    }

    /// Never waits: the committer may be the reader.
    pub(super) fn tell(&mut self, batch: &Batch) {
        self.0.retain(|sender| match sender.try_send(batch.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        });
    }
}
