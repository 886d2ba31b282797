//! Says when a log line about some trouble is due again, so that trouble with every packet does not fill the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Throttle {
    last: Cell<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = self.last.get().is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if due {
            self.last.set(Some(now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_comes_at_once_and_the_next_after_a_while() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let due: Vec<u64> = (0..25).filter(|s| throttle.is_due(now + Duration::from_secs(*s))).collect();
        assert_eq!(due, [0, 10, 20]);
    }
}
