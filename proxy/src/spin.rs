//! Whether to look again for a moment before sleeping. Waking another CPU costs far more than a look, so a connection
//! that sends one small message after another is served much faster by a worker that has not gone to sleep. It is worth
//! it only while something does come soon, and while there is little else to do. Pure: times come in as arguments.

use std::time::Duration;

/// How it went of late.
#[derive(Debug)]
pub(crate) struct Spin {
    budget: Duration,
    credit: u32,
}

/// More events than this in one turn: the CPUs are busy, and spinning would take them from the peers.
const LIGHT: usize = 8;
/// Looks that found nothing, in a row, after which it sleeps at once.
const MOST_CREDIT: u32 = 8;
/// A sleep this much longer than the budget would have been spared by spinning: waking up itself takes that long.
const WAKE_UP: Duration = Duration::from_micros(100);

impl Spin {
    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget, credit: 0 }
    }

    /// How long to look before sleeping, after a turn of so many events.
    pub(crate) fn before_sleep(&self, events: usize) -> Option<Duration> {
        (self.credit > 0 && events <= LIGHT && !self.budget.is_zero()).then_some(self.budget)
    }

    /// It looked, and something came or not.
    pub(crate) fn looked(&mut self, came: bool) {
        self.credit = if came { (self.credit + 1).min(MOST_CREDIT) } else { self.credit.saturating_sub(1) };
    }

    /// It slept this long until something came.
    pub(crate) fn slept(&mut self, slept: Duration) {
        if slept <= self.budget + WAKE_UP {
            self.credit = (self.credit + 1).min(MOST_CREDIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_micros(50);

    #[test]
    fn it_starts_when_sleeps_are_short_and_stops_when_nothing_comes() {
        let mut spin = Spin::new(BUDGET);
        assert_eq!(spin.before_sleep(1), None);
        spin.slept(Duration::from_micros(90));
        assert_eq!(spin.before_sleep(1), Some(BUDGET));
        assert_eq!(spin.before_sleep(64), None, "not when there is much to do");
        (0..100).for_each(|_| spin.looked(true));
        let misses = (0..100).take_while(|_| {
            spin.looked(false);
            spin.before_sleep(1).is_some()
        });
        assert!(misses.count() < 8);
        spin.slept(Duration::from_millis(20));
        assert_eq!(spin.before_sleep(1), None, "an idle worker sleeps");
    }

    #[test]
    fn no_budget_no_spinning() {
        let mut spin = Spin::new(Duration::ZERO);
        spin.slept(Duration::ZERO);
        assert_eq!(spin.before_sleep(0), None);
    }
}
