//! The tries of one job: which server is next, and what its silence means.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::{Forwards, Job, JobId, LEAST_TURNS, MOST_TURNS, Outline, Ticket, Transport};

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
    /// Asks the next server, or the one after if it cannot be asked; ends the job when nobody is left to wait for.
    pub(super) fn advance<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        while let Some(job) = self.jobs.get_mut(&id) {
            let Some(server) = job.next_server() else { break };
            if self.try_server(id, server, now, out) {
                return;
            }
        }
        self.rest(id, now, out);
    }

    /// Nothing more to send: waits for what is under way, or ends.
    fn rest<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.is_waiting() && now < job.deadline {
            self.timers.push(Reverse((job.deadline, id)));
        } else {
            self.finish(id, None, out);
        }
    }

    /// One server has failed for good: the next one in the first round; after that only what is under way counts.
    pub(super) fn failed<T: Transport<Slot = S>>(&mut self, id: JobId, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.over {
            if !job.is_waiting() {
                self.remove(id, out);
            }
        } else if job.turns < job.order.len() {
            self.advance(id, now, out);
        } else if !job.is_waiting() {
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
        // Every round waits twice as long as the one before.
        let round = job.turns.saturating_sub(1) / job.order.len().max(1);
        let patience = patience.saturating_mul(1 << round.min(4)).min(Duration::from_secs(1));
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

impl<C, S> Job<C, S> {
    /// Round after round in order of preference.
    fn next_server(&mut self) -> Option<usize> {
        let most = (2 * self.order.len()).clamp(LEAST_TURNS, MOST_TURNS);
        if self.turns >= most {
            return None;
        }
        let server = self.order.get(self.turns % self.order.len().max(1)).copied();
        self.turns += 1;
        server
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
