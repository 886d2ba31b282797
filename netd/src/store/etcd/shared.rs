//! What the store's thread and its callers both look at: the mirror, its readers, and how the connection is.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::super::watch::{Watch, Watchers};
use super::super::{Batch, KeyChange, Revision};
use super::mirror::Mirror;
use super::sync::Loaded;

/// How it is with etcd.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub connected: bool,
    /// Whom we speak to, or spoke to last.
    pub endpoint: Option<String>,
    /// Since when it is as it is.
    pub since: SystemTime,
    /// When etcd last proved to be there.
    pub heard: Option<Instant>,
    pub last_error: Option<String>,
    /// Up to where the watch has told.
    pub revision: Revision,
    pub keys: usize,
    /// Connections made after the first.
    pub reconnects: u64,
    /// What leased keys are bound to.
    pub lease: Option<i64>,
}

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
    health: Health,
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
        let health = Health {
            connected: false,
            endpoint: None,
            since: SystemTime::now(),
            heard: None,
            last_error: None,
            revision: 0,
            keys: 0,
            reconnects: 0,
            lease: None,
        };
        let (watchers, phase) = (Watchers::default(), Phase::Trying);
        let state = State { mirror, watchers, phase, heard_from: false, health };
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

    /// A new reader. Where etcd has not been heard of yet it begins with the copy, or with nothing.
    pub(super) fn watch(&self, patience: Duration) -> Watch {
        let waits = |state: &mut State| !state.heard_from && state.phase == Phase::Trying;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let first = state.mirror.everything();
        state.watchers.add(first)
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        let (revision, keys) = (state.mirror.revision, state.mirror.entries.len());
        Health { revision, keys, ..state.health.clone() }
    }
}

impl State {
    /// Why nobody can be asked at the moment, if so.
    pub(super) fn outage(&self) -> Option<String> {
        let cause = || self.health.last_error.clone().unwrap_or_else(|| "no answer yet".into());
        match self.phase {
            Phase::Trying | Phase::Connected => None,
            Phase::Away => Some(cause()),
            Phase::Closed => Some("the store is closed".into()),
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.health.last_error.as_deref()
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

    pub(super) fn heard(&mut self) {
        self.health.heard = Some(Instant::now());
    }

    pub(super) fn connected(&mut self, endpoint: &str, lease: i64) {
        self.health.reconnects += u64::from(self.heard_from);
        self.heard_from = true;
        self.turn(Phase::Connected);
        self.health.endpoint = Some(endpoint.to_owned());
        self.health.lease = Some(lease);
        self.heard();
    }

    /// The connection is gone, or was not to be had; others may be. Returns whether there was one.
    pub(super) fn trying(&mut self, cause: String) -> bool {
        self.health.last_error = Some(cause);
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
            self.health.since = SystemTime::now();
        }
        self.phase = phase;
        self.health.connected = phase == Phase::Connected;
    }
}
