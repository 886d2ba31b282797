//! The servers of the data plane's process behind one face: a batch goes in, both servers follow it, and whoever is
//! last to serve its part says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::frame::{SocketKey, SocketUse, Sockets};
use super::known::Known;
use super::stats::Stats;
use crate::tables::Change;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub workers: usize,
    pub spin: Duration,
    pub max_connections: u32,
}

pub(crate) struct Plane {
    known: Known,
    revision: Arc<AtomicU64>,
}

impl Plane {
    pub(crate) fn start(_settings: &Settings) -> Result<Self> {
        Ok(Self { known: Known::default(), revision: Arc::default() })
    }

    /// The latest revision that is served in full.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    pub(crate) fn apply(
        &mut self,
        revision: u64,
        full: bool,
        mut changes: Vec<Change>,
        _sockets: Vec<Sockets>,
        served: impl FnOnce(Option<String>) + Send + 'static,
    ) {
        let mut wanted = if full { Known::default() } else { std::mem::take(&mut self.known) };
        changes.iter().for_each(|change| wanted.note(change));
        if full {
            changes.extend(self.known.surplus(&wanted));
        }
        self.known = wanted;
        self.revision.store(revision, Ordering::Relaxed);
        served(None);
    }

    pub(crate) fn supply(&mut self, _sockets: Sockets) {}

    pub(crate) fn on_need(&mut self, _ask: impl Fn(SocketKey, SocketUse) + Send + Sync + 'static) {}

    pub(crate) fn inventory(&self) -> Vec<Sockets> {
        Vec::new()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { revision: self.revision() }
    }

    pub(crate) fn drain(&mut self) {}

    pub(crate) fn is_idle(&self) -> bool {
        true
    }
}
