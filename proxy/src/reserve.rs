//! What to do when the process has no descriptors left: one is held back, so that a connection that was just accepted
//! still gets its backend, and nothing more is accepted until the reserve is whole again. Waiting connections stay in
//! the backlog; a timer asks, at growing intervals, instead of a loop.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use netd_sys::{poll, socket};

/// A worker's reserve of one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    held: Option<OwnedFd>,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Reserve {
    /// Makes the reserve whole if it is not; whether it is now.
    pub(crate) fn fill(&mut self) -> bool {
        if self.held.is_none() {
            self.held = poll::spare_descriptor().ok();
        }
        self.held.is_some()
    }

    /// Does what needs one descriptor, with the reserved one if there is no other. Another thread may be quicker to take
    /// it.
    pub(crate) fn spending<T>(&mut self, mut deed: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match deed() {
            Err(error) if socket::no_descriptors(&error) && self.held.take().is_some() => deed(),
            result => result,
        }
    }

    /// Gives the reserved descriptor up, to go with a connection that another worker will serve.
    pub(crate) fn give(&mut self) -> Option<OwnedFd> {
        self.held.take()
    }

    /// Takes what came with such a connection.
    pub(crate) fn receive(&mut self, spare: Option<OwnedFd>) {
        if self.held.is_none() {
            self.held = spare;
        }
    }

    /// When to look again after running out: later each time until [`Reserve::recovered`].
    pub(crate) fn next_look(&mut self, now: Instant) -> Instant {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        now + self.pause
    }

    pub(crate) fn recovered(&mut self) {
        self.pause = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew() {
        let mut reserve = Reserve::default();
        let now = Instant::now();
        let pauses: Vec<_> = (0..8).map(|_| reserve.next_look(now) - now).collect();
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[7], LONGEST_PAUSE);
        reserve.recovered();
        assert_eq!(reserve.next_look(now) - now, FIRST_PAUSE);
    }

    #[test]
    fn the_reserve_is_spent_once() {
        let mut reserve = Reserve::default();
        assert!(reserve.fill());
        let none_left = || Err::<(), _>(io::Error::from_raw_os_error(24));
        let mut calls = 0;
        let mut count = || {
            calls += 1;
            none_left()
        };
        assert!(reserve.spending(&mut count).is_err());
        assert!(reserve.spending(&mut count).is_err());
        assert_eq!(calls, 3, "a second try only while there is a reserve");
    }
}
