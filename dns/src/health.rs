//! What is remembered about one upstream server: how fast it is, whether it answers at all, whether it takes EDNS.
//! Pure; time is an argument.

use std::time::{Duration, Instant};

/// Misses in a row, with no answer in between, before a server is asked last.
const PATIENCE: u32 = 3;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest wait before another server is asked as well.
const MOST_PATIENCE: Duration = Duration::from_millis(400);

const REFUSAL_TIME: Duration = Duration::from_secs(10);
const REFUSED_AFTER: Duration = Duration::from_millis(100);

/// A refusal of EDNS may have been an accident or a forgery: it is not held against a server for ever.
const PLAIN_TIME: Duration = Duration::from_secs(600);

/// Servers whose answers differ by less are as good as each other: the order they were listed in decides.
const NOTICEABLE_MILLIS: u128 = 128;

#[derive(Debug, Default)]
pub(crate) struct Health {
    smoothed: Option<Duration>,
    answered_at: Option<Instant>,
    misses: u32,
    /// While this is set the server is asked last; once it is past, a copy of some question probes it.
    pause_until: Option<Instant>,
    pauses: u32,
    /// It refused EDNS; until then it is asked without.
    plain_until: Option<Instant>,
    /// Until then its silence is taken for a refusal: hosts send few refusals a second.
    refusing_until: Option<Instant>,
}

/// How good a choice a server is; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    paused: bool,
    /// Many questions are under way, and it has not answered one yet: it may be dead.
    dubious: bool,
    slowness: u128,
}

impl Health {
    pub(crate) fn answered(&mut self, after: Duration, now: Instant) {
        self.smoothed = Some(self.smoothed.map_or(after, |before| (before * 7 + after) / 8));
        self.answered_at = Some(now);
        self.misses = 0;
        self.pause_until = None;
        self.pauses = 0;
        self.refusing_until = None;
    }

    /// The time after which another server would have been asked has passed without an answer.
    pub(crate) fn missed(&mut self, now: Instant) {
        self.misses = self.misses.saturating_add(1);
        let lately = self.answered_at.is_some_and(|at| now.saturating_duration_since(at) < FIRST_PAUSE);
        if self.misses >= PATIENCE && !lately {
            self.pause(now);
        }
    }

    /// The kernel says that nobody is there.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.misses = self.misses.saturating_add(PATIENCE);
        self.refusing_until = Some(now + REFUSAL_TIME);
        self.pause(now);
    }

    pub(crate) fn refuses_edns(&mut self, now: Instant) {
        self.plain_until = Some(now + PLAIN_TIME);
    }

    pub(crate) fn takes_edns(&self, now: Instant) -> bool {
        self.plain_until.is_none_or(|until| until <= now)
    }

    /// `full`: it has as many questions as it is given at a time.
    pub(crate) fn rank(&self, full: bool) -> Rank {
        let slowness = self.smoothed.map_or(0, |smoothed| smoothed.as_millis() / NOTICEABLE_MILLIS);
        Rank { paused: self.is_paused(), dubious: full && self.smoothed.is_none(), slowness }
    }

    /// Whether an answer that is late is most likely lost, not only slow.
    pub(crate) fn is_prompt(&self) -> bool {
        self.smoothed.is_some_and(|smoothed| smoothed * 3 < MOST_PATIENCE)
    }

    pub(crate) fn is_refusing(&self, now: Instant) -> bool {
        self.refusing_until.is_some_and(|until| until > now)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause_until.is_some()
    }

    /// Whether it is time to see if a paused server is back. Saying yes starts the next pause.
    pub(crate) fn probe_due(&mut self, now: Instant) -> bool {
        let due = self.pause_until.is_some_and(|until| until <= now);
        if due {
            self.pause(now);
        }
        due
    }

    /// How long to wait for this server before another is asked as well.
    pub(crate) fn hedge_after(&self, now: Instant) -> Duration {
        if self.is_refusing(now) {
            return REFUSED_AFTER;
        }
        let usual = self.smoothed.map_or(Duration::from_millis(200), |smoothed| smoothed * 3);
        usual.clamp(Duration::from_millis(150), MOST_PATIENCE)
    }

    fn pause(&mut self, now: Instant) {
        // Ten thousand questions that time out together are one reason to pause, not ten thousand.
        if self.pause_until.is_some_and(|until| until > now) {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(5)).min(LONGEST_PAUSE);
        self.pauses = self.pauses.saturating_add(1);
        self.pause_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_server_is_asked_last_until_it_answers() {
        let (mut health, now) = (Health::default(), Instant::now());
        let fresh = health.rank(false);
        for _ in 0..PATIENCE {
            assert_eq!(health.rank(false), fresh);
            health.missed(now);
        }
        assert!(health.rank(false) > fresh);
        health.answered(Duration::from_millis(1), now);
        assert_eq!(health.rank(false), fresh);
    }

    #[test]
    fn a_paused_server_is_probed_ever_more_rarely() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.refused(now);
        let mut gaps = Vec::new();
        for _ in 0..7 {
            let before = now;
            while !health.probe_due(now) {
                now += SECOND / 2;
            }
            gaps.push((now - before).as_secs());
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_slow_server_that_still_answers_is_not_paused() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.answered(Duration::from_millis(900), now);
        for _ in 0..100 {
            health.missed(now + SECOND / 2);
        }
        assert!(!health.rank(false).paused);
        health.missed(now + SECOND);
        assert!(health.rank(false).paused);
    }

    #[test]
    fn the_listed_order_decides_unless_the_difference_is_felt() {
        let (mut near, mut far, now) = (Health::default(), Health::default(), Instant::now());
        near.answered(Duration::from_millis(2), now);
        far.answered(Duration::from_millis(100), now);
        assert_eq!(near.rank(false), far.rank(false));
        far.answered(Duration::from_secs(2), now);
        assert!(near.rank(false) < far.rank(false));
    }

    #[test]
    fn the_wait_for_a_server_is_bounded_both_ways() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.answered(Duration::from_micros(50), now);
        assert_eq!(health.hedge_after(now), Duration::from_millis(150));
        for _ in 0..50 {
            health.answered(Duration::from_secs(2), now);
        }
        assert_eq!(health.hedge_after(now), Duration::from_millis(400));
    }
}
