//! How many questions one server is asked at a time. A socket's receive buffer holds a few hundred datagrams: of ten
//! thousand questions sent at once the rest would be lost, and each loss costs its client a timeout. So there is a window
//! of questions under way; the others stand in line. The window is doubled for as long as that brings more answers in
//! the same time, and halved when answers fail to come. Pure; time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::index::ViewKey;

const LEAST: usize = 96;
const MOST: usize = 1 << 14;

/// Twice the window is worth it if it brought so many times the answers; much less is chance.
const WORTH: f64 = 1.5;

/// Losses come in bursts; one burst is one reason to slow down.
const LOSS_SPAN: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Pace<T> {
    window: usize,
    /// How far the window may grow since answers last failed to come.
    most: usize,
    under_way: usize,
    /// Those in line by the view they are from; one of each is admitted in turn, so nobody's crowd is before all others.
    lines: HashMap<ViewKey, VecDeque<T>>,
    turns: VecDeque<ViewKey>,
    /// Since when the answers of this round are counted, while there is always somebody in line.
    round: Option<(Instant, usize)>,
    /// Answers a second that the present window was worth.
    best: f64,
    slowed: Option<Instant>,
}

impl<T> Default for Pace<T> {
    fn default() -> Self {
        Self {
            window: LEAST,
            most: MOST,
            under_way: 0,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            round: None,
            best: 0.0,
            slowed: None,
        }
    }
}

impl<T> Pace<T> {
    pub(crate) fn is_full(&self) -> bool {
        self.under_way >= self.window
    }

    pub(crate) fn enter(&mut self) {
        self.under_way += 1;
    }

    /// Nothing is expected of a question any more.
    pub(crate) fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(crate) fn line_up(&mut self, from: ViewKey, who: T) {
        let line = self.lines.entry(from).or_default();
        if line.is_empty() {
            self.turns.push_back(from);
        }
        line.push_back(who);
    }

    pub(crate) fn has_line(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Who may ask now.
    pub(crate) fn admit(&mut self) -> Option<T> {
        if self.is_full() {
            return None;
        }
        let view = self.turns.pop_front()?;
        let line = self.lines.get_mut(&view)?;
        let who = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&view);
        } else {
            self.turns.push_back(view);
        }
        who
    }

    pub(crate) fn answered(&mut self, now: Instant) {
        if !self.has_line() {
            self.round = None;
            return;
        }
        let Some((since, count)) = &mut self.round else {
            self.round = Some((now, 0));
            return;
        };
        *count += 1;
        if *count < self.window {
            return;
        }
        let rate = *count as f64 / now.saturating_duration_since(*since).as_secs_f64().max(1e-6);
        if rate > self.best * WORTH {
            self.best = rate;
            self.window = (self.window * 2).min(self.most);
        }
        self.most = (self.most + self.most / 16).min(MOST);
        self.round = None;
    }

    pub(crate) fn lost(&mut self, now: Instant) {
        if self.slowed.is_none_or(|at| now.saturating_duration_since(at) >= LOSS_SPAN) {
            self.slowed = Some(now);
            self.most = (self.window / 2).max(LEAST);
            self.window = self.most;
            (self.best, self.round) = (0.0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves a long line of questions for `rounds` windows; each batch takes `time(window)`.
    fn serve(pace: &mut Pace<u32>, rounds: usize, now: &mut Instant, time: impl Fn(usize) -> Duration) {
        (0..1 << 17).for_each(|who| pace.line_up(0, who));
        for _ in 0..rounds {
            while pace.admit().is_some() {
                pace.enter();
            }
            *now += time(pace.under_way);
            for _ in 0..pace.under_way {
                pace.leave();
                pace.answered(*now);
            }
        }
    }

    #[test]
    fn a_distant_server_is_given_ever_more() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        serve(&mut pace, 20, &mut now, |_| Duration::from_millis(100));
        assert!(pace.window >= 4096, "{}", pace.window);
    }

    #[test]
    fn a_busy_server_is_given_no_more_than_helps() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        serve(&mut pace, 100, &mut now, |count| Duration::from_micros(30) * count as u32);
        assert!(pace.window <= 2 * LEAST, "{}", pace.window);
    }

    #[test]
    fn one_does_not_stand_behind_the_crowd_of_another() {
        let mut pace = Pace::default();
        (0..1000).for_each(|who| pace.line_up(1, who));
        pace.line_up(2, 5000);
        assert!((0..2).any(|_| pace.admit() == Some(5000)));
        assert_eq!((0..2000).filter_map(|_| pace.admit()).last(), Some(999));
        assert!(!pace.has_line() && pace.lines.is_empty());
    }

    #[test]
    fn a_burst_of_losses_slows_down_once_and_never_stops_anybody() {
        let (mut pace, now) = (Pace::<u32> { window: 1024, ..Pace::default() }, Instant::now());
        (0..50).for_each(|_| pace.lost(now));
        assert_eq!(pace.window, 512);
        (1..50).for_each(|burst| pace.lost(now + LOSS_SPAN * burst));
        assert_eq!(pace.window, LEAST);
    }
}
