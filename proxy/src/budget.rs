//! How many second attempts a service may make. When backends fail under load, each connection's retries would multiply
//! the load on those that are left; a share of the connections keeps that within bounds, and a small constant lets a
//! quiet service retry all of its own. Pure: time and counters are arguments.

/// Retries for each hundred connections...
const PERCENT: u64 = 20;
/// ...and besides, for each second.
const EACH_SECOND: u64 = 10;
/// The two are counted over this many milliseconds, in two halves: as long as clients that all wait for one dead machine
/// take to notice.
const WINDOW: u64 = 10_000;

/// One half of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// Connections of the service when it began.
    accepted: u64,
    retries: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Budget {
    began: u64,
    now: Half,
    before: Half,
}

impl Budget {
    /// Begins the next half at `now` (in milliseconds) if it is time; the service has had `accepted` connections ever.
    /// To be called for every connection that comes at or after the moment that is returned, so that a half without a
    /// call is a half without connections.
    pub(crate) fn roll(&mut self, now: u64, accepted: u64) -> u64 {
        let age = now.saturating_sub(self.began);
        if age >= WINDOW / 2 {
            let fresh = Half { accepted, retries: 0 };
            self.before = if age >= WINDOW { fresh } else { self.now };
            (self.began, self.now) = (now, fresh);
        }
        self.began + WINDOW / 2
    }

    /// Takes one retry. False: there is none left.
    pub(crate) fn take(&mut self, now: u64, accepted: u64) -> bool {
        self.roll(now, accepted);
        let connections = accepted.saturating_sub(self.before.accepted);
        let allowed = EACH_SECOND * WINDOW / 1000 + connections * PERCENT / 100;
        let left = self.now.retries + self.before.retries < allowed;
        self.now.retries += u64::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Steps of (milliseconds, connections, retries asked for by each).
        #[test]
        fn retries_never_storm_and_a_few_are_never_refused(
            steps in prop::collection::vec((1u64..3000, 0u64..200, 0u64..8), 1..400),
        ) {
            let mut budget = Budget::default();
            let (mut now, mut accepted, mut granted) = (0, 0, 0);
            for (pause, connections, each) in steps {
                now += pause;
                accepted += connections;
                granted += (0..connections * each).filter(|_| budget.take(now, accepted)).count() as u64;
                // Two halves may be spent side by side at the most.
                let bound = 2 * EACH_SECOND * (now + WINDOW) / 1000 + 2 * accepted * PERCENT / 100;
                prop_assert!(granted <= bound, "{granted} retries for {accepted} connections in {now} ms");
            }
        }

        #[test]
        fn a_fifth_of_the_connections_may_always_retry_once(steps in prop::collection::vec(1u64..2000, 1..300)) {
            let mut budget = Budget::default();
            let (mut now, mut accepted) = (0, 0);
            for pause in steps {
                now += pause;
                accepted += 5;
                prop_assert!(budget.take(now, accepted));
            }
        }
    }

    #[test]
    fn clients_that_all_wait_for_one_dead_machine_find_another() {
        let mut budget = Budget::default();
        // 2000 connections a second for a while, of which a third come to the dead one within one second.
        let mut due = 0;
        for now in (100_000..200_000).step_by(10) {
            if now >= due {
                due = budget.roll(now, now * 2);
            }
        }
        let retried = (0..666).filter(|_| budget.take(200_000, 400_000)).count();
        assert_eq!(retried, 666);
    }
}
