//! The store that many nodes share: etcd, v3 API.
//!
//! A thread with a runtime of its own keeps one connection to one member, a mirror of the content that the watch keeps
//! up to date, and the lease of what is bound to this node. Callers hand it a question and wait, with a deadline. The
//! readers' batches come from the mirror, so they are the same whether etcd was there all along, has forgotten a part
//! of its history, or was replaced: always the way from what was told before to what holds now.
//!
//! A commit returns when the watch has told of it, so who commits reads it in its own watch at once.

mod asked;
mod client;
mod commit;
mod copy;
mod driver;
mod lease;
mod mirror;
mod restore;
mod settings;
mod shared;
mod sync;
mod wake;
mod wire;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};

use super::{CommitError, Condition, Key, Revision, SharedStore, Snapshot, Store, StoreError, Txn, Watch};
pub(crate) use asked::Asked;
use asked::Reply;
use copy::Copy;
#[cfg(any(test, fuzzing))]
pub(super) use copy::{decode as decode_copy, encode as encode_copy, framed as framed_copy};
pub(crate) use driver::FOREIGN_REMEDY;
use driver::{Driver, Request, Wish};
use lease::Lease;
pub(crate) use settings::{EtcdSettings, HostPort, Identity, Login, Tls, read as read_small};
use shared::Shared;
pub(crate) use wake::Wake;
use wake::Waker;

/// What is netd's in etcd. The keys of the store come behind it.
const PREFIX: &str = "netd/v1/";
/// Callers that wait at once; there is one, and another that asks how things are.
const QUEUE: usize = 16;
/// The thread answers by the deadline; it may need a moment to be woken.
const GRACE: Duration = Duration::from_millis(500);
/// Some ten thousand records, to a store that was looked for every two seconds.
const RESTORED_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Etcd {
    shared: Arc<Shared>,
    /// None only while it is being dropped.
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    timeout: Duration,
    endpoints: String,
}

impl Etcd {
    /// Never waits for etcd. `directory` holds the copy and the lease's id; the caller has locked it.
    pub(crate) fn open(settings: EtcdSettings, directory: &Path, wake: Wake) -> Result<Self, StoreError> {
        let (copy, mirror) = Copy::open(directory);
        let lease = Lease::open(directory, settings.lease);
        let shared = Arc::new(Shared::new(mirror));
        let (requests, asked) = mpsc::channel(QUEUE);
        let (timeout, endpoints) = (settings.timeout, settings.names());
        let driver = {
            let shared = Arc::clone(&shared);
            move || {
                let driver = Driver { settings, shared, waker: Waker::new(wake), restores: Cell::default() };
                driver::run(&driver, lease, copy, asked);
            }
        };
        let thread = Builder::new().name("etcd".into()).spawn(driver).map_err(|source| StoreError::Io {
            deed: "start the thread that speaks to etcd, for",
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self { shared, requests: Some(requests), thread: Some(thread), timeout, endpoints })
    }

    fn unavailable(&self, cause: String) -> StoreError {
        StoreError::Unavailable { endpoints: self.endpoints.clone(), cause }
    }

    /// As [`Self::wish`] for somebody who does not wait here.
    fn inquire(&self, patience: Duration, wish: impl FnOnce(Reply) -> Wish) -> Asked {
        let (reply, asked) = Asked::within(patience + GRACE);
        let request = Request { deadline: Instant::now() + patience, wish: wish(reply) };
        match self.requests.as_ref().map(|requests| requests.try_send(request)) {
            Some(Ok(())) => asked,
            _ => Asked::known(Err("too many questions are waiting already".into())),
        }
    }

    fn wish<T>(&self, wish: impl FnOnce(SyncSender<T>) -> Wish) -> Result<T, Silence> {
        if let Some(cause) = self.shared.lock().outage() {
            return Err(Silence::NotAsked(cause));
        }
        let (reply, answer) = sync_channel(1);
        let deadline = Instant::now() + self.timeout;
        let request = Request { deadline, wish: wish(reply) };
        match self.requests.as_ref().map(|requests| requests.try_send(request)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => {
                return Err(Silence::NotAsked(format!("{QUEUE} questions are waiting already")));
            }
            Some(Err(TrySendError::Closed(_))) | None => {
                return Err(Silence::NotAsked("the store is closed".into()));
            }
        }
        answer.recv_timeout(self.timeout + GRACE).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::Asked(format!("no answer within {:?}", self.timeout)),
            RecvTimeoutError::Disconnected => Silence::Asked("the connection was lost meanwhile".into()),
        })
    }
}

/// Why there is no answer from the thread.
enum Silence {
    NotAsked(String),
    Asked(String),
}

impl Silence {
    fn into_cause(self) -> String {
        match self {
            Self::NotAsked(cause) | Self::Asked(cause) => cause,
        }
    }
}

impl Store for Etcd {
    /// What etcd holds at this moment, not what the watch has told.
    fn load(&self) -> Result<Snapshot, StoreError> {
        self.wish(Wish::Load).map_err(|silence| self.unavailable(silence.into_cause()))?
    }

    fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        commit::check_size(txn)?;
        let done =
            self.wish(|reply| Wish::Commit(txn.clone(), reply)).map_err(|silence| match silence {
                Silence::NotAsked(cause) => {
                    CommitError::Unavailable { endpoints: self.endpoints.clone(), cause }
                }
                Silence::Asked(cause) => CommitError::Unclear { cause },
            })??;
        if !done.told {
            // Others may have written in between; who waits for that revision must see it come.
            return Ok(self.shared.lock().mirror.revision.min(done.revision));
        }
        self.shared.wait_for(done.revision, self.timeout);
        Ok(done.revision)
    }

    fn watch(&mut self) -> Result<Watch, StoreError> {
        Ok(self.shared.watch())
    }
}

impl SharedStore for Etcd {
    fn release(&mut self) -> Result<(), StoreError> {
        self.wish(Wish::Release).map_err(|silence| self.unavailable(silence.into_cause()))?
    }

    fn condition(&self) -> Condition {
        self.shared.condition()
    }

    fn ask(&self) -> Asked {
        self.inquire(self.timeout, Wish::Answer)
    }

    fn restore(&self) -> Asked {
        self.inquire(RESTORED_WITHIN, Wish::Restore)
    }
}

impl Drop for Etcd {
    /// The lease stays, for the next process of this node.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn prefixed(key: &str) -> Vec<u8> {
    [PREFIX.as_bytes(), key.as_bytes()].concat()
}

fn stripped(key: &[u8]) -> Option<Key> {
    key.strip_prefix(PREFIX.as_bytes()).and_then(|key| str::from_utf8(key).ok()).map(Into::into)
}

/// The first key behind all of ours.
fn after_prefix() -> Vec<u8> {
    let mut end = PREFIX.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// etcd counts with a sign.
fn revision(of: i64) -> Revision {
    Revision::try_from(of).unwrap_or(0)
}

#[cfg(test)]
mod tests;
