//! Questions on their way to upstream servers. Equal questions share one [`Job`]; a job asks the best server first, the
//! next one when the first is late or fails, stands in line where a server has enough to do, and ends with the first usable reply or, at its deadline, without one.
//! Pure: packets leave through a [`Transport`], time is an argument, what is over is collected in [`Forwards::finished`].

mod attempt;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::index::ViewKey;
use crate::parse::{ClientEdns, Heading, Rcode};
use crate::target::{Target, Upstream};
use crate::upstream_reply::{Unfit, UpstreamReply};

pub(crate) use attempt::Attempt;

/// A client is told SERVFAIL after this long; libc gives up on its first try after five seconds.
pub(crate) const DEADLINE: Duration = Duration::from_millis(3500);

pub(crate) type JobId = u64;

/// Which try of which job a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) job: JobId,
    pub(crate) attempt: usize,
}

/// What goes out: everything but the id, which is the socket's matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline<'a> {
    pub(crate) question: &'a [u8],
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    /// With an OPT record, and its DNSSEC OK bit.
    pub(crate) edns: Option<bool>,
}

/// The way to the servers.
pub(crate) trait Transport {
    /// Where a sent question waits for its reply.
    type Slot;

    /// Sends a datagram. An error means that this server cannot be asked at all at the moment.
    fn send(
        &mut self,
        upstream: &Rc<Upstream>,
        ticket: Ticket,
        outline: Outline<'_>,
    ) -> Result<Self::Slot, Unsendable>;

    /// Asks over TCP; the reply comes back through [`Forwards::stream_replied`].
    fn send_stream(
        &mut self,
        upstream: &Rc<Upstream>,
        ticket: Ticket,
        outline: Outline<'_>,
    ) -> Result<(), Unsendable>;

    /// No reply is wanted any more.
    fn forget(&mut self, slot: Self::Slot);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsendable;

/// One client that waits.
#[derive(Debug)]
pub(crate) struct Waiter<C> {
    pub(crate) client: C,
    pub(crate) asked: Asked,
    /// It can take no truncated reply.
    pub(crate) by_stream: bool,
    pub(crate) since: Instant,
}

/// A [`Heading`] that outlives its datagram.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) question: Box<[u8]>,
    pub(crate) edns: Option<ClientEdns>,
    /// Where its name is an alias: the records that lead from it to the name that is asked upstream, and their number.
    pub(crate) links: (Box<[u8]>, u16),
}

impl Asked {
    pub(crate) fn heading(&self) -> Heading<'_> {
        Heading { id: self.id, flags: self.flags, question: &self.question, edns: self.edns }
    }

    pub(crate) fn new(heading: &Heading<'_>, links: (&[u8], u16)) -> Self {
        Self {
            id: heading.id,
            flags: heading.flags,
            question: heading.question.into(),
            edns: heading.edns,
            links: (links.0.into(), links.1),
        }
    }
}

/// A job's end: the reply its waiters get, none for SERVFAIL.
#[derive(Debug)]
pub(crate) struct Finished<C> {
    pub(crate) key: Box<[u8]>,
    pub(crate) waiters: Vec<Waiter<C>>,
    pub(crate) reply: Option<Rc<UpstreamReply>>,
}

/// What makes a new job.
pub(crate) struct Order<'a> {
    /// Equal keys share a job: target, flags and question in lower case.
    pub(crate) key: &'a [u8],
    pub(crate) target: &'a Rc<Target>,
    /// Who asks; not part of what is shared.
    pub(crate) view: ViewKey,
    pub(crate) outline: Outline<'a>,
}

pub(crate) struct Forwards<C, S> {
    jobs: HashMap<JobId, Job<C, S>>,
    by_key: HashMap<Box<[u8]>, JobId>,
    timers: BinaryHeap<Reverse<(Instant, JobId)>>,
    last_id: JobId,
    finished: Vec<Finished<C>>,
    /// Servers that may have room for those in line.
    eased: Vec<Rc<Upstream>>,
}

struct Job<C, S> {
    key: Box<[u8]>,
    question: Box<[u8]>,
    recursion_desired: bool,
    checking_disabled: bool,
    dnssec_ok: bool,
    target: Rc<Target>,
    /// Who asked first.
    view: ViewKey,
    /// The target's servers, the best first.
    order: Vec<usize>,
    attempts: Vec<Attempt<S>>,
    waiters: Vec<Waiter<C>>,
    deadline: Instant,
    /// Answered; it stays until its deadline to hear which of the servers were only late.
    over: bool,
}

impl<C, S> Default for Forwards<C, S> {
    fn default() -> Self {
        Self {
            jobs: HashMap::new(),
            by_key: HashMap::new(),
            timers: BinaryHeap::new(),
            last_id: 0,
            finished: Vec::new(),
            eased: Vec::new(),
        }
    }
}

impl<C, S> Forwards<C, S> {
    /// Has `waiter` wait for the reply to `order`.
    pub(crate) fn ask<T: Transport<Slot = S>>(
        &mut self,
        order: &Order<'_>,
        waiter: Waiter<C>,
        now: Instant,
        out: &mut T,
    ) {
        if let Some(job) = self.by_key.get(order.key).and_then(|id| self.jobs.get_mut(id)) {
            job.waiters.push(waiter);
            return;
        }
        self.last_id += 1;
        let id = self.last_id;
        let job = Job {
            key: order.key.into(),
            question: order.outline.question.into(),
            recursion_desired: order.outline.recursion_desired,
            checking_disabled: order.outline.checking_disabled,
            dnssec_ok: order.outline.edns == Some(true),
            target: order.target.clone(),
            view: order.view,
            order: order.target.best_first(),
            attempts: Vec::new(),
            waiters: vec![waiter],
            deadline: now + DEADLINE,
            over: false,
        };
        self.by_key.insert(job.key.clone(), id);
        self.jobs.insert(id, job);
        self.advance(id, now, out);
        self.probe(id, now, out);
        self.admit(now, out);
    }

    /// A datagram came in for `ticket`. False if it is none of this job's business: a forgery.
    pub(crate) fn replied<T: Transport<Slot = S>>(
        &mut self,
        ticket: Ticket,
        message: &[u8],
        now: Instant,
        out: &mut T,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(&ticket.job) else { return true };
        let read = UpstreamReply::read(message, &job.question);
        if read == Err(Unfit::Stranger) {
            return false;
        }
        let Some(attempt) = job.attempts.get_mut(ticket.attempt) else { return true };
        let upstream = &job.target.servers[attempt.server];
        attempt.close(upstream, &mut self.eased);
        upstream.pace.borrow_mut().answered(now);
        upstream.health.borrow_mut().answered(now.saturating_duration_since(attempt.sent), now);
        match read {
            Ok(reply) if attempt.had_edns && refuses_edns(&reply) => {
                upstream.health.borrow_mut().refuses_edns(now);
                let server = attempt.server;
                if !self.try_server(ticket.job, server, now, out) {
                    self.failed(ticket.job, now, out);
                }
            }
            Ok(reply) if is_usable(&reply) => self.usable(ticket, reply, now, out),
            _ => {
                upstream.count_failure();
                self.failed(ticket.job, now, out);
            }
        }
        self.admit(now, out);
        true
    }

    /// A TCP exchange is over; `None` if it failed.
    pub(crate) fn stream_replied<T: Transport<Slot = S>>(
        &mut self,
        ticket: Ticket,
        message: Option<&[u8]>,
        now: Instant,
        out: &mut T,
    ) {
        let Some(job) = self.jobs.get_mut(&ticket.job) else { return };
        let Some(attempt) = job.attempts.get_mut(ticket.attempt) else { return };
        attempt.streaming = false;
        let reply = message.and_then(|message| UpstreamReply::read(message, &job.question).ok());
        match reply.filter(|reply| is_usable(reply) && !reply.is_truncated()) {
            Some(reply) => self.finish(ticket.job, Some(Rc::new(reply)), out),
            None => {
                job.target.servers[attempt.server].count_failure();
                self.failed(ticket.job, now, out);
            }
        }
        self.admit(now, out);
    }

    /// The kernel says that nobody listens where `ticket` went.
    pub(crate) fn refused<T: Transport<Slot = S>>(&mut self, ticket: Ticket, now: Instant, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&ticket.job) else { return };
        let Some(attempt) = job.attempts.get_mut(ticket.attempt) else { return };
        let upstream = &job.target.servers[attempt.server];
        attempt.close(upstream, &mut self.eased);
        upstream.health.borrow_mut().refused(now);
        upstream.count_failure();
        self.failed(ticket.job, now, out);
        self.admit(now, out);
    }

    /// When [`Self::expire`] has something to do next.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Asks the next server where one is late, and ends what is past its deadline.
    pub(crate) fn expire<T: Transport<Slot = S>>(&mut self, now: Instant, out: &mut T) {
        while let Some(&Reverse((at, id))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if now >= job.deadline {
                job.count_silent();
                self.finish(id, None, out);
                self.remove(id, out);
            } else {
                let late = job.note_late(now, &mut self.eased);
                if job.over {
                    continue;
                }
                if !job.is_hopeful(now) {
                    self.failed(id, now, out);
                } else if late || job.stands_in_line() {
                    self.advance(id, now, out);
                }
            }
        }
        self.admit(now, out);
    }

    /// What has ended since this was last called.
    pub(crate) fn finished(&mut self) -> Vec<Finished<C>> {
        std::mem::take(&mut self.finished)
    }

    /// Jobs under way, the answered ones that still listen included.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// A usable reply, or a truncated one that some waiters can do nothing with.
    fn usable<T: Transport<Slot = S>>(
        &mut self,
        ticket: Ticket,
        reply: UpstreamReply,
        now: Instant,
        out: &mut T,
    ) {
        let Some(job) = self.jobs.get_mut(&ticket.job) else { return };
        if job.over || !reply.is_truncated() {
            self.finish(ticket.job, Some(Rc::new(reply)), out);
            return;
        }
        let reply = Rc::new(reply);
        let (streams, datagrams): (Vec<_>, Vec<_>) =
            std::mem::take(&mut job.waiters).into_iter().partition(|waiter| waiter.by_stream);
        job.waiters = streams;
        if job.waiters.is_empty() {
            job.waiters = datagrams;
            self.finish(ticket.job, Some(reply), out);
            return;
        }
        self.finished.push(Finished { key: Box::default(), waiters: datagrams, reply: Some(reply) });
        self.stream(ticket, now, out);
    }

    fn finish<T: Transport<Slot = S>>(&mut self, id: JobId, reply: Option<Rc<UpstreamReply>>, out: &mut T) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.over {
            job.over = true;
            job.leave_lines();
            let key = std::mem::take(&mut job.key);
            self.by_key.remove(&key);
            let waiters = std::mem::take(&mut job.waiters);
            self.finished.push(Finished { key, waiters, reply });
            if job.is_waiting() {
                self.timers.push(Reverse((job.deadline, id)));
            }
        }
        if !self.jobs[&id].is_waiting() {
            self.remove(id, out);
        }
    }

    fn remove<T: Transport<Slot = S>>(&mut self, id: JobId, out: &mut T) {
        let Some(job) = self.jobs.remove(&id) else { return };
        for mut attempt in job.attempts {
            let upstream = &job.target.servers[attempt.server];
            if let Some(slot) = attempt.close(upstream, &mut self.eased) {
                out.forget(slot);
            }
        }
    }
}

fn is_usable(reply: &UpstreamReply) -> bool {
    [Rcode::NoError.bits(), Rcode::NxDomain.bits()].contains(&reply.rcode())
}

/// Old servers do not know the OPT record and say so, mostly without one of their own.
fn refuses_edns(reply: &UpstreamReply) -> bool {
    !reply.has_edns() && [Rcode::FormErr.bits(), Rcode::NotImp.bits()].contains(&reply.rcode())
}

#[cfg(test)]
mod tests;
