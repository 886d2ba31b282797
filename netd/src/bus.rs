//! What happened, for `netd events`: a short memory and any number of listeners. A listener that does not keep up
//! loses the oldest events and is told so; it never slows the engine down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

/// Events remembered for `--since`.
const MEMORY: usize = 4096;
/// Events a slow listener may lag behind.
const LAG: usize = 1024;

/// One thing that happened to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub time: SystemTime,
    /// `network`, `sandbox`, `service`, `node`, `store` or `daemon`.
    pub kind: &'static str,
    /// `create`, `remove`, `connect`, ...
    pub action: &'static str,
    pub id: Arc<str>,
    pub name: String,
    pub attributes: BTreeMap<&'static str, String>,
}

/// Of the clock that all processes of a machine share and nobody sets.
pub(crate) fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

#[derive(Clone)]
pub(crate) struct Bus {
    past: Arc<Mutex<VecDeque<Event>>>,
    live: broadcast::Sender<Event>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self { past: Arc::default(), live: broadcast::channel(LAG).0 }
    }

    pub(crate) fn publish(&self, event: Event) {
        // How far the cluster's store is served is told with every change of it, and of use only at that moment.
        let is_fleeting = matches!(event.action, "served" | "committed");
        if !is_fleeting {
            tracing::info!(target: "netd::event", kind = event.kind, action = event.action, id = %event.id,
            attributes = ?event.attributes);
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_fleeting {
            if past.len() == MEMORY {
                past.pop_front();
            }
            past.push_back(event.clone());
        }
        // Sent under the lock, so that a new listener sees each event once: in the past or live.
        let _ = self.live.send(event);
    }

    /// The remembered events from `since` on (none without it), and what comes after them.
    pub(crate) fn listen(&self, since: Option<SystemTime>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = match since {
            Some(since) => past.iter().filter(|event| event.time >= since).cloned().collect(),
            None => Vec::new(),
        };
        (remembered, self.live.subscribe())
    }
}
