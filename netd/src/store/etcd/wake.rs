//! Wakes the store's owner, who may be too busy to listen: then it is tried again. Wakes that wait together are one.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// Called on the store's thread after a watch was given a batch, and when the condition has changed; so it must not
/// wait for anybody, least of all for who waits for a commit. False: not now, it is called again in a moment.
pub(crate) type Wake = Arc<dyn Fn() -> bool + Send + Sync>;

const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Waker {
    wake: Wake,
    owed: Cell<bool>,
    late: Notify,
}

impl Waker {
    pub(super) fn new(wake: Wake) -> Self {
        Self { wake, owed: Cell::new(false), late: Notify::new() }
    }

    /// Never waits.
    pub(super) fn wake(&self) {
        self.owed.set(!(self.wake)());
        if self.owed.get() {
            self.late.notify_one();
        }
    }

    /// Goes on trying who did not hear.
    pub(super) async fn insist(&self) {
        loop {
            self.late.notified().await;
            while self.owed.get() {
                sleep(AGAIN).await;
                self.owed.set(!(self.wake)());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn an_owner_that_was_busy_is_woken_once_it_listens() {
        let (calls, heard) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let wake: Wake = {
            let (calls, heard) = (Arc::clone(&calls), Arc::clone(&heard));
            Arc::new(move || {
                let listens = calls.fetch_add(1, Ordering::Relaxed) >= 4;
                heard.fetch_add(u32::from(listens), Ordering::Relaxed);
                listens
            })
        };
        let waker = Waker::new(wake);
        waker.wake();
        waker.wake();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let waited = tokio::time::timeout(Duration::from_millis(500), waker.insist()).await;
            assert!(waited.is_err(), "it goes on for ever");
        });
        assert_eq!((calls.load(Ordering::Relaxed), heard.load(Ordering::Relaxed)), (5, 1));
    }
}
