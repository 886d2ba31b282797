//! The tries of one job: which server is next, whether it has room, and what its silence means.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Forwards, Job, JobId, Outline, Ticket, Transport};
use crate::target::Upstream;

/// Tries of one job while nothing comes back: two rounds where there are many servers, six tries where there are few.
const MOST_TURNS: usize = 8;
const LEAST_TURNS: usize = 6;

/// How often somebody in line looks whether that is still the best place to be.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One question to one server.
pub(crate) struct Attempt<S> {
    pub(super) server: usize,
    pub(super) sent: Instant,
    /// When it is late.
    due: Instant,
    /// Where the reply would come in; none once it has, or cannot any more, or the question is still in line.
    slot: Option<S>,
    pub(super) streaming: bool,
    pub(super) had_edns: bool,
    in_line: bool,
    /// It has been late once, for which its server has been blamed.
    late: bool,
}

impl<S> Attempt<S> {
    /// Expects no datagram any more, and tells where the reply would have come in.
    pub(super) fn close(&mut self, upstream: &Rc<Upstream>, eased: &mut Vec<Rc<Upstream>>) -> Option<S> {
        let slot = self.slot.take();
        if slot.is_some() && !self.late {
            ease(upstream, eased);
        }
        slot
    }

    fn is_open(&self) -> bool {
        self.slot.is_some() || self.streaming || self.in_line
    }
}

/// One question less is under way to `upstream`.
fn ease(upstream: &Rc<Upstream>, eased: &mut Vec<Rc<Upstream>>) {
    let mut pace = upstream.pace.borrow_mut();
    pace.leave();
    if pace.has_line() {
        eased.push(upstream.clone());
    }
}

impl<C, S> Forwards<C, S> {
    /// Asks whose turn it is.
    pub(super) fn advance<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let turn = job.next_turn();
        if !turn.is_some_and(|server| self.try_server(id, server, now, out) && self.may_wait(id, server, now))
        {
            self.failed(id, now, out);
        }
    }

    /// A server has failed for good: asks the next one that has not been asked, or waits for what is under way, or ends.
    pub(super) fn failed<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        while let Some(server) = self.jobs.get(&id).and_then(Job::next_unasked) {
            if self.try_server(id, server, now, out) && self.may_wait(id, server, now) {
                return;
            }
        }
        let Some(job) = self.jobs.get(&id) else { return };
        if job.is_hopeful(now) && now < job.deadline {
            let next = if job.stands_in_line() { now + LOOK_AGAIN } else { job.deadline };
            self.timers.push(Reverse((next.min(job.deadline), id)));
        } else {
            self.finish(id, None, out);
        }
    }

    /// Sends to `server`, or stands in line for it, and sets the time by which it is late. False if it cannot be asked.
    pub(super) fn try_server<T: Transport<Slot = S>>(
        &mut self,
        id: JobId,
        server: usize,
        now: Instant,
        out: &mut T,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.over) else { return false };
        let at = job.begin(server, now);
        let pace = &job.target.servers[server].pace;
        if pace.borrow().is_full() {
            pace.borrow_mut().line_up(job.view, id);
            job.attempts[at].in_line = true;
        } else if !job.send(id, at, now, out) {
            return false;
        }
        self.timers.push(Reverse((job.attempts[at].due.min(job.deadline), id)));
        true
    }

    /// Sends what has been in line as far as there is room now.
    pub(super) fn admit<T: Transport<Slot = S>>(&mut self, now: Instant, out: &mut T) {
        while let Some(upstream) = self.eased.pop() {
            loop {
                let Some(id) = upstream.pace.borrow_mut().admit() else { break };
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                let Some(at) = job.place_in_line(&upstream) else { continue };
                job.attempts[at].in_line = false;
                if upstream.is_paused() && job.target.lively() > 0 {
                    self.advance(id, now, out);
                } else if job.send(id, at, now, out) {
                    self.timers.push(Reverse((job.attempts[at].due.min(job.deadline), id)));
                } else {
                    self.failed(id, now, out);
                }
            }
        }
    }

    /// Whether to leave it at `server` for a while. One that refuses is asked, in case it is back, but not waited for.
    fn may_wait(&self, id: JobId, server: usize, now: Instant) -> bool {
        self.jobs.get(&id).is_some_and(|job| !job.target.servers[server].health.borrow().is_refusing(now))
    }

    /// Sends a copy to servers that have been silent for a while, to see whether they are back.
    pub(super) fn probe<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.over) else { return };
        for server in 0..job.target.servers.len() {
            let asked = job.attempts.iter().any(|attempt| attempt.server == server);
            if !asked && job.target.servers[server].health.borrow_mut().probe_due(now) {
                let at = job.begin(server, now);
                job.send(id, at, now, out);
            }
        }
    }

    /// Asks again over TCP where the datagram was too small.
    pub(super) fn stream<T: Transport<Slot = S>>(&mut self, ticket: Ticket, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&ticket.job) else { return };
        let Some(server) = job.attempts.get(ticket.attempt).map(|attempt| attempt.server) else { return };
        let upstream = job.target.servers[server].clone();
        let outline = job.outline(true);
        if out.send_stream(&upstream, ticket, outline).is_ok() {
            job.attempts[ticket.attempt].streaming = true;
        } else {
            self.failed(ticket.job, now, out);
        }
    }
}

impl<C, S> Job<C, S> {
    /// Whose turn it is. A datagram to a server that answers, if it got lost, is worth another try before the servers
    /// that do not answer are.
    fn next_turn(&self) -> Option<usize> {
        let most = (2 * self.order.len()).clamp(LEAST_TURNS, MOST_TURNS);
        if self.attempts.len() >= most {
            return None;
        }
        let turn = |&server: &usize| {
            let tries = self.attempts.iter().filter(|attempt| attempt.server == server).count();
            let silent = self.target.servers[server].is_paused();
            (if silent { tries } else { tries / 2 }, silent, tries)
        };
        self.order.iter().copied().filter(|&server| self.is_choice(server)).min_by_key(turn)
    }

    fn next_unasked(&self) -> Option<usize> {
        let asked = |server: usize| self.attempts.iter().any(|attempt| attempt.server == server);
        let mut order = self.order.iter().copied();
        order.find(|&server| !self.over && !asked(server) && self.is_choice(server))
    }

    /// Where a server that answers is stood in line for, those that do not answer are no choice.
    fn is_choice(&self, server: usize) -> bool {
        let servers = &self.target.servers;
        let mut lines = self.attempts.iter().filter(|attempt| attempt.in_line);
        !lines.any(|line| {
            line.server == server || (servers[server].is_paused() && !servers[line.server].is_paused())
        })
    }

    /// A new try at `server`, not sent yet.
    fn begin(&mut self, server: usize, now: Instant) -> usize {
        self.attempts.push(Attempt {
            server,
            sent: now,
            due: now + self.patience(server, now),
            slot: None,
            streaming: false,
            had_edns: false,
            in_line: false,
            late: false,
        });
        self.attempts.len() - 1
    }

    /// Each time the same server is asked it is given twice as long.
    fn patience(&self, server: usize, now: Instant) -> Duration {
        let before =
            self.attempts.iter().filter(|attempt| attempt.server == server && !attempt.in_line).count();
        let patience = self.target.servers[server].health.borrow().hedge_after(now);
        patience.saturating_mul(1 << before.min(4)).min(Duration::from_secs(1))
    }

    fn send<T: Transport<Slot = S>>(&mut self, id: JobId, at: usize, now: Instant, out: &mut T) -> bool {
        let server = self.attempts[at].server;
        let upstream = self.target.servers[server].clone();
        // A second try without EDNS, in case a box on the way swallows what it does not know.
        let again = self.attempts.iter().any(|attempt| attempt.server == server && attempt.had_edns);
        let had_edns = upstream.health.borrow().takes_edns(now) && !again;
        let sent = out.send(&upstream, Ticket { job: id, attempt: at }, self.outline(had_edns));
        match &sent {
            Ok(_) => upstream.pace.borrow_mut().enter(),
            Err(_) => upstream.count_failure(),
        }
        let attempt = &mut self.attempts[at];
        attempt.due += now.saturating_duration_since(attempt.sent);
        attempt.sent = now;
        (attempt.had_edns, attempt.late, attempt.slot) = (had_edns, false, sent.ok());
        attempt.slot.is_some()
    }

    fn outline(&self, edns: bool) -> Outline<'_> {
        Outline {
            question: &self.question,
            recursion_desired: self.recursion_desired,
            checking_disabled: self.checking_disabled,
            edns: edns.then_some(self.dnssec_ok),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.attempts.iter().any(Attempt::is_open)
    }

    /// Whether anything is under way that is worth waiting for.
    pub(super) fn is_hopeful(&self, now: Instant) -> bool {
        let refused = |attempt: &Attempt<S>| {
            attempt.late && self.target.servers[attempt.server].health.borrow().is_refusing(now)
        };
        self.attempts.iter().any(|attempt| attempt.streaming || (attempt.is_open() && !refused(attempt)))
    }

    pub(super) fn stands_in_line(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.in_line)
    }

    pub(super) fn leave_lines(&mut self) {
        self.attempts.iter_mut().for_each(|attempt| attempt.in_line = false);
    }

    fn place_in_line(&self, upstream: &Rc<Upstream>) -> Option<usize> {
        let here = |attempt: &Attempt<S>| {
            attempt.in_line && Rc::ptr_eq(&self.target.servers[attempt.server], upstream)
        };
        self.attempts.iter().position(here)
    }

    /// Whether a try is late that was not before. While the answer is still wanted its server is blamed.
    pub(super) fn note_late(&mut self, now: Instant, eased: &mut Vec<Rc<Upstream>>) -> bool {
        let mut any = false;
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.due <= now) {
            if attempt.late || !attempt.is_open() {
                continue;
            }
            attempt.late = true;
            any = true;
            let upstream = &self.target.servers[attempt.server];
            if attempt.slot.is_some() {
                if !self.over {
                    let mut health = upstream.health.borrow_mut();
                    health.missed(now);
                    if health.is_prompt() {
                        upstream.pace.borrow_mut().lost(now);
                    }
                }
                ease(upstream, eased);
            }
        }
        any
    }

    pub(super) fn count_silent(&self) {
        for attempt in self.attempts.iter().filter(|attempt| attempt.slot.is_some()) {
            self.target.servers[attempt.server].count_failure();
        }
    }
}
