//! The thread that carries commits into the state file. However many have come since the last time, they wait for the
//! disk together.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::super::{Batch, Revision};
use super::file::StateFile;

/// Commits that wait for the disk at most; then committing waits too.
const QUEUE: usize = 256;
/// Between attempts while the disk refuses.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Flusher {
    queue: Option<SyncSender<Batch>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    flushed: Revision,
    failure: Option<String>,
}

impl Flusher {
    pub(crate) fn start(file: StateFile, flushed: Revision) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        shared.lock().flushed = flushed;
        let thread = {
            let shared = Arc::clone(&shared);
            Builder::new().name("state".into()).spawn(move || run(&file, &batches, &shared))?
        };
        Ok(Self { queue: Some(queue), shared, thread: Some(thread) })
    }

    /// Why the disk refused the last time, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }

    pub(crate) fn push(&self, batch: Batch) {
        // The thread ends only when the queue is closed, so somebody receives.
        let _ = self.queue.as_ref().map(|queue| queue.send(batch));
    }

    /// Waits until the state file has that revision; false if the disk refuses.
    pub(crate) fn wait_for(&self, revision: Revision) -> bool {
        let waits = |progress: &mut Progress| progress.flushed < revision && progress.failure.is_none();
        let progress = self.shared.changed.wait_while(self.shared.lock(), waits);
        progress.unwrap_or_else(PoisonError::into_inner).failure.is_none()
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// What the lock guards is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

fn run(file: &StateFile, batches: &Receiver<Batch>, shared: &Shared) {
    let mut waiting: Vec<Batch> = Vec::new();
    let mut open = true;
    while open {
        let next = if waiting.is_empty() {
            batches.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            batches.recv_timeout(RETRY)
        };
        open = !matches!(next, Err(RecvTimeoutError::Disconnected));
        waiting.extend(next.ok().into_iter().chain(batches.try_iter()));
        let Some(revision) = waiting.last().map(|batch| batch.revision) else { continue };
        match file.apply(&waiting) {
            Ok(()) => {
                waiting.clear();
                shared.note(|progress| *progress = Progress { flushed: revision, failure: None });
            }
            Err(error) => {
                tracing::error!(%error, path = %file.path().display(), "cannot write the state file");
                shared.note(|progress| progress.failure = Some(error.to_string()));
            }
        }
    }
}
