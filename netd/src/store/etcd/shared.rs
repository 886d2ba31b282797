//! What the store's thread and its callers both look at: the mirror, its readers, and how the connection is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::super::watch::{Watch, Watchers};
use super::super::{Batch, Condition, KeyChange, Revision};
use super::mirror::Mirror;
use super::sync::Loaded;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The mirror has changed.
    pub dirty: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub mirror: Mirror,
    watchers: Watchers,
    phase: Phase,
    /// The mirror has been etcd's own since this process began.
    heard_from: bool,
    endpoint: Option<Arc<str>>,
    since: SystemTime,
    last_error: Option<Arc<str>>,
    is_foreign: bool,
    reconnects: u64,
    lease: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Members are being tried; who asks now may wait for one to answer.
    Trying,
    Connected,
    /// All have been tried, none answered.
    Away,
    /// The store's thread has ended.
    Closed,
}

impl Shared {
    /// Begins with what the copy on the disk says.
    pub(super) fn new(mirror: Mirror) -> Self {
        let state = State {
            mirror,
            watchers: Watchers::default(),
            phase: Phase::Trying,
            heard_from: false,
            endpoint: None,
            since: SystemTime::now(),
            last_error: None,
            is_foreign: false,
            reconnects: 0,
            lease: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), dirty: Notify::new() }
    }

    /// What the lock guards is whole between any two statements, so a panic elsewhere does not spoil it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = state.mirror.revision;
        change(&mut state);
        if state.mirror.revision != before {
            self.dirty.notify_one();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Until the mirror has that revision, for as long as it can be expected to.
    pub(super) fn wait_for(&self, revision: Revision, patience: Duration) {
        let waits = |state: &mut State| state.mirror.revision < revision && state.phase == Phase::Connected;
        let _ = self.changed.wait_timeout_while(self.lock(), patience, waits);
    }

    /// A new reader. Where etcd has not been heard of yet it begins with the copy, or with nothing: what has changed since
    /// is told as the change that it is.
    pub(super) fn watch(&self) -> Watch {
        let mut state = self.lock();
        let first = state.mirror.everything();
        state.watchers.add(first)
    }

    pub(super) fn condition(&self) -> Condition {
        let state = self.lock();
        let connected = state.phase == Phase::Connected;
        Condition {
            connected,
            since: state.since,
            cause: state.last_error.clone().filter(|_| !connected),
            is_foreign: state.is_foreign && !connected,
            endpoint: state.endpoint.clone(),
            reconnects: state.reconnects,
            told: state.mirror.revision,
            keys: state.mirror.entries.len(),
            life: u64::try_from(state.lease).unwrap_or(0),
        }
    }
}

impl State {
    /// Why nobody can be asked at the moment, if so.
    pub(super) fn outage(&self) -> Option<String> {
        let cause = || self.last_error.as_deref().unwrap_or("no answer yet").to_owned();
        match self.phase {
            Phase::Trying | Phase::Connected => None,
            Phase::Away => Some(cause()),
            Phase::Closed => Some("the store is closed".into()),
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Takes over what was loaded; the readers are told the difference. Returns whether there was any.
    pub(super) fn replace(&mut self, loaded: Loaded) -> bool {
        let Loaded { cluster, revision, entries } = loaded;
        let batch = self.mirror.replace(cluster, revision, entries);
        self.tell(batch)
    }

    pub(super) fn apply(&mut self, revision: Revision, changes: Vec<KeyChange>) -> bool {
        let batch = self.mirror.apply(revision, changes);
        self.tell(batch)
    }

    fn tell(&mut self, batch: Option<Batch>) -> bool {
        let Some(batch) = batch else { return false };
        self.watchers.tell(&batch);
        true
    }

    pub(super) fn connected(&mut self, endpoint: &str, lease: i64) {
        self.reconnects += u64::from(self.heard_from);
        self.heard_from = true;
        self.turn(Phase::Connected);
        (self.endpoint, self.lease) = (Some(endpoint.into()), lease);
    }

    /// The connection is gone, or was not to be had; others may be. Returns whether there was one.
    pub(super) fn trying(&mut self, cause: String, is_foreign: bool) -> bool {
        (self.last_error, self.is_foreign) = (Some(cause.into()), is_foreign);
        let connected = self.phase == Phase::Connected;
        if connected {
            self.turn(Phase::Trying);
        }
        connected
    }

    /// Returns whether this is news.
    pub(super) fn away(&mut self) -> bool {
        let news = self.phase != Phase::Away;
        self.turn(Phase::Away);
        news
    }

    pub(super) fn closed(&mut self) {
        self.turn(Phase::Closed);
    }

    fn turn(&mut self, phase: Phase) {
        if (self.phase == Phase::Connected) != (phase == Phase::Connected) {
            self.since = SystemTime::now();
        }
        self.phase = phase;
    }
}
