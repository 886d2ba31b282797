//! How many may be inside at once, for a listener or for the process. Who finds it shut waits (connections stay in the
//! backlog) and is woken when somebody leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use netd_sys::poll::Waker;

/// A counted entrance. All operations are a few atomics; the wakers are touched only when somebody waits.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: AtomicU32,
    inside: AtomicU32,
    waited_for: AtomicBool,
    wakers: Arc<[Arc<Waker>]>,
}

impl Gate {
    pub(crate) fn new(limit: u32, wakers: Arc<[Arc<Waker>]>) -> Self {
        Self {
            limit: AtomicU32::new(limit),
            inside: AtomicU32::new(0),
            waited_for: AtomicBool::new(false),
            wakers,
        }
    }

    /// A higher limit lets those in who wait.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::SeqCst);
        self.wake_waiting();
    }

    /// One more inside, until the pass is dropped; `None` when it is full.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        if self.inside.fetch_add(1, Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst) {
            self.leave();
            return None;
        }
        Some(Pass { gate: Arc::clone(self) })
    }

    /// Asks to be woken when there is room. False when there is room already.
    pub(crate) fn wait(&self) -> bool {
        self.waited_for.store(true, Ordering::SeqCst);
        self.is_full()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.inside.load(Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst)
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        // The order "leave, then look" against "ask, then look" of wait(): one of the two sees the other.
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        if self.waited_for.load(Ordering::SeqCst)
            && !self.is_full()
            && self.waited_for.swap(false, Ordering::SeqCst)
        {
            self.wakers.iter().for_each(|waker| waker.wake());
        }
    }
}

/// A place inside a gate.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_until_somebody_leaves() {
        let gate = Arc::new(Gate::new(2, Arc::new([])));
        let first = gate.enter();
        let second = gate.enter();
        assert!(first.is_some() && second.is_some() && gate.enter().is_none());
        assert!(gate.wait());
        drop(first);
        assert!(!gate.is_full() && gate.enter().is_some());
    }

    #[test]
    fn a_higher_limit_makes_room_and_a_lower_one_throws_nobody_out() {
        let gate = Arc::new(Gate::new(1, Arc::new([])));
        let _inside = gate.enter();
        assert!(gate.wait());
        gate.set_limit(2);
        let second = gate.enter();
        assert!(second.is_some());
        gate.set_limit(1);
        assert!(gate.is_full());
        drop(second);
        assert!(gate.is_full());
    }
}
