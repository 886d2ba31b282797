//! What has become of a load: how many were answered and by whom, what failed when and how, and how long it took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::talk::Failure;
use super::wire::Answer;

/// One connection or datagram of a load.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was to be opened.
    pub due: Instant,
    /// From then to the last byte, or to the failure.
    pub took: Duration,
    pub outcome: Result<Answer, Failure>,
}

/// Attempts in the order in which they were due.
#[derive(Clone, Debug, Default)]
pub struct Tally(Vec<Attempt>);

impl Tally {
    pub(crate) fn of(mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|attempt| attempt.due);
        Self(attempts)
    }

    /// One of several loads.
    #[must_use]
    pub fn join(tallies: Vec<Self>) -> Self {
        Self::of(tallies.into_iter().flat_map(|tally| tally.0).collect())
    }

    pub fn attempts(&self) -> &[Attempt] {
        &self.0
    }

    /// Those opened from this moment on.
    #[must_use]
    pub fn since(&self, moment: Instant) -> Self {
        Self(self.0.iter().filter(|attempt| attempt.due >= moment).cloned().collect())
    }

    #[must_use]
    pub fn before(&self, moment: Instant) -> Self {
        Self(self.0.iter().filter(|attempt| attempt.due < moment).cloned().collect())
    }

    /// Those that were under way at this moment.
    #[must_use]
    pub fn during(&self, moment: Instant) -> Self {
        let under_way = |attempt: &&Attempt| attempt.due < moment && attempt.due + attempt.took >= moment;
        Self(self.0.iter().filter(under_way).cloned().collect())
    }

    /// Those that ended at this moment or later.
    #[must_use]
    pub fn ended_since(&self, moment: Instant) -> Self {
        Self(self.0.iter().filter(|attempt| attempt.due + attempt.took >= moment).cloned().collect())
    }

    pub fn answered(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.outcome.is_ok()).count()
    }

    pub fn failed(&self) -> usize {
        self.0.len() - self.answered()
    }

    /// How many each server has answered.
    pub fn by(&self) -> BTreeMap<String, usize> {
        let mut by = BTreeMap::new();
        for answer in self.answers() {
            *by.entry(answer.by.clone()).or_default() += 1;
        }
        by
    }

    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.0.iter().filter_map(|attempt| attempt.outcome.as_ref().ok())
    }

    /// How often each thing went wrong.
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        let mut reasons = BTreeMap::new();
        for failure in self.0.iter().filter_map(|attempt| attempt.outcome.as_ref().err()) {
            *reasons.entry(failure.to_string()).or_default() += 1;
        }
        reasons
    }

    /// From `moment` to the opening of the last that failed; none if none did.
    pub fn troubled_for(&self, moment: Instant) -> Option<Duration> {
        let failed = self.0.iter().filter(|attempt| attempt.outcome.is_err() && attempt.due >= moment);
        failed.map(|attempt| attempt.due - moment).max()
    }

    /// The time that this share of the answered took at most; `0.5` for the median.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut times: Vec<_> =
            self.0.iter().filter(|attempt| attempt.outcome.is_ok()).map(|attempt| attempt.took).collect();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        times.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
    }

    /// All that failed were refused by the kernel: nobody was let in and then cut.
    pub fn cut_nobody(&self) -> Result<&Self> {
        let refused = |failure: &Failure| failure.step == "connect" && failure.how == "refused";
        let failures = self.0.iter().filter_map(|attempt| attempt.outcome.as_ref().err());
        let cut: Vec<&Failure> = failures.filter(|failure| !refused(failure)).collect();
        ensure!(cut.is_empty(), "{} were let in and cut: {self}", cut.len());
        Ok(self)
    }

    /// At least `least` attempts, and none that failed.
    pub fn flawless(&self, least: usize) -> Result<&Self> {
        ensure!(self.failed() == 0 && self.0.len() >= least, "wanted {least} and no failure: {self}");
        Ok(self)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, failed) = (self.answered(), self.failed());
        write!(f, "{answered} answered")?;
        for (number, (by, count)) in self.by().iter().enumerate() {
            write!(f, "{} {by} {count}", if number == 0 { " by" } else { "," })?;
        }
        let milliseconds = |share| self.quantile(share).as_secs_f64() * 1e3;
        write!(f, ", p50 {:.1} ms, p99 {:.1} ms; {failed} failed", milliseconds(0.5), milliseconds(0.99))?;
        for (number, (reason, count)) in self.reasons().iter().enumerate() {
            write!(f, "{} {count} x {reason}", if number == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_what_failed_and_for_how_long() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let attempt = |due, good: bool| {
            let answer = Answer { by: "a".into(), client: ([0; 4], 1).into(), told: None };
            let outcome = if good { Ok(answer) } else { Err(Failure::new("connect", "refused")) };
            Attempt { due: at(due), took: Duration::from_millis(15), outcome }
        };
        let tally =
            Tally::of(vec![attempt(20, false), attempt(0, true), attempt(10, true), attempt(30, true)]);
        assert_eq!((tally.answered(), tally.failed()), (3, 1));
        assert_eq!(tally.troubled_for(at(5)), Some(Duration::from_millis(15)));
        assert_eq!(tally.troubled_for(at(25)), None);
        assert_eq!((tally.since(at(10)).answered(), tally.before(at(10)).answered()), (2, 1));
        assert_eq!(tally.during(at(12)).attempts().len(), 2);
        assert!(tally.flawless(1).is_err() && tally.since(at(30)).flawless(1).is_ok());
        assert!(tally.cut_nobody().is_ok());
        let text = "3 answered by a 3, p50 15.0 ms, p99 15.0 ms; 1 failed: 1 x connect: refused";
        assert_eq!(tally.to_string(), text);
    }
}
