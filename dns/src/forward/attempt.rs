//! The tries of one job: which server is next, and what its silence means.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::{Forwards, Job, JobId, Outline, Ticket, Transport};

/// Tries of one job while nothing comes back: two rounds where there are many servers, four tries where there is one.
const MOST_TURNS: usize = 8;
const LEAST_TURNS: usize = 4;

/// One question to one server.
pub(crate) struct Attempt<S> {
    pub(super) server: usize,
    pub(super) sent: Instant,
    /// Where the reply would come in; none once it has, or cannot any more.
    pub(super) slot: Option<S>,
    pub(super) streaming: bool,
    pub(super) had_edns: bool,
    /// Its server has been blamed for being late once.
    pub(super) late: bool,
}

impl<C, S> Forwards<C, S> {
    /// Asks whose turn it is.
    pub(super) fn advance<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let sent = job.turns.next().is_some_and(|server| self.try_server(id, server, now, out));
        if !sent {
            self.failed(id, now, out);
        }
    }

    /// A server has failed for good: asks the next one that has not been asked, or waits for what is under way, or ends.
    pub(super) fn failed<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        while let Some(server) = self.jobs.get(&id).and_then(Job::next_unasked) {
            if self.try_server(id, server, now, out) {
                return;
            }
        }
        let Some(job) = self.jobs.get(&id) else { return };
        if job.is_waiting() && now < job.deadline {
            self.timers.push(Reverse((job.deadline, id)));
        } else {
            self.finish(id, None, out);
        }
    }

    /// Sends to `server` and sets the time by which it is late. False if it cannot be asked.
    pub(super) fn try_server<T: Transport<Slot = S>>(
        &mut self,
        id: JobId,
        server: usize,
        now: Instant,
        out: &mut T,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        if job.over || !job.send(id, server, now, out) {
            return false;
        }
        let patience = job.target.servers[server].health.borrow().hedge_after();
        // Each time the same server is asked it is given twice as long.
        let before = job.attempts.iter().filter(|attempt| attempt.server == server).count() - 1;
        let patience = patience.saturating_mul(1 << before.min(4)).min(Duration::from_secs(1));
        self.timers.push(Reverse(((now + patience).min(job.deadline), id)));
        true
    }

    /// Sends a copy to servers that have been silent for a while, to see whether they are back.
    pub(super) fn probe<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.over) else { return };
        for server in 0..job.target.servers.len() {
            let asked = job.attempts.iter().any(|attempt| attempt.server == server);
            if !asked && job.target.servers[server].health.borrow_mut().probe_due(now) {
                job.send(id, server, now, out);
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

/// Whom to ask, one after the other, of the servers in `order`, of which the first `lively` are not known to be silent:
/// a datagram to one of those that got lost is worth another try before the others are.
pub(super) fn turns(order: &[usize], lively: usize) -> Vec<usize> {
    let (lively, silent) = order.split_at(if lively == 0 { order.len() } else { lively.min(order.len()) });
    let round = lively.iter().chain(lively).chain(silent).copied();
    round.cycle().take((2 * order.len()).clamp(LEAST_TURNS, MOST_TURNS)).collect()
}

impl<C, S> Job<C, S> {
    fn next_unasked(&self) -> Option<usize> {
        let asked = |server: usize| self.attempts.iter().any(|attempt| attempt.server == server);
        self.order.iter().copied().find(|&server| !self.over && !asked(server))
    }

    fn send<T: Transport<Slot = S>>(&mut self, id: JobId, server: usize, now: Instant, out: &mut T) -> bool {
        let upstream = self.target.servers[server].clone();
        // A second try without EDNS, in case a box on the way swallows what it does not know.
        let again = self.attempts.iter().any(|attempt| attempt.server == server && attempt.had_edns);
        let had_edns = upstream.health.borrow().takes_edns(now) && !again;
        let ticket = Ticket { job: id, attempt: self.attempts.len() };
        let sent = out.send(&upstream, ticket, self.outline(had_edns));
        if sent.is_err() {
            upstream.count_failure();
        }
        let sendable = sent.is_ok();
        self.attempts.push(Attempt {
            server,
            sent: now,
            slot: sent.ok(),
            streaming: false,
            had_edns,
            late: false,
        });
        sendable
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
        self.attempts.iter().any(|attempt| attempt.slot.is_some() || attempt.streaming)
    }

    /// Blames the servers that should have answered by now.
    pub(super) fn note_late(&mut self, now: Instant) {
        for attempt in &mut self.attempts {
            if attempt.slot.is_some() && !attempt.late {
                attempt.late = true;
                self.target.servers[attempt.server].health.borrow_mut().missed(now);
            }
        }
    }

    pub(super) fn count_silent(&self) {
        for attempt in self.attempts.iter().filter(|attempt| attempt.slot.is_some()) {
            self.target.servers[attempt.server].count_failure();
        }
    }
}
