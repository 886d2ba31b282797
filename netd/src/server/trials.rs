//! Somebody wants to know now what arrives at other nodes: the trials of `watch` are asked for, and waited for as long as is
//! decent. Rounds have numbers, so that one that had begun before does not count for one that was asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// On sound ways a round takes some milliseconds; what takes longer is told as it was found before.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(crate) struct Trials {
    asked: AtomicU64,
    wake: Notify,
    done: watch::Sender<u64>,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self { asked: AtomicU64::new(0), wake: Notify::new(), done: watch::Sender::new(0) }
    }

    /// Whether they have been made within a time that somebody waits.
    pub(crate) async fn make(&self) -> bool {
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut done = self.done.subscribe();
        self.wake.notify_one();
        matches!(tokio::time::timeout(PATIENCE, done.wait_for(|done| *done >= number)).await, Ok(Ok(_)))
    }

    /// Until somebody asks.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// The number of the last question, to be handed to `answer`.
    pub(crate) fn number(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.number() > *self.done.borrow()
    }

    /// What was asked up to here is answered.
    pub(crate) fn answer(&self, number: u64) {
        self.done.send_replace(number);
    }
}
