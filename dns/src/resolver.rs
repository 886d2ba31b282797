//! Everything the serving thread owns, and the way of one query through it: tables, cache, upstream. Single-threaded, so
//! the cells are never contended; no borrow lives across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use netd_sys::datagram::{RecvBatch, SendBatch};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Kind, answer};
use crate::cache::Cache;
use crate::client::{Client, Origin, ViewState, Way};
use crate::forward::{Asked, Finished, Forwards, Order, Outline, Ticket, Transport, Unsendable, Waiter};
use crate::index::Index;
use crate::key::ForwardKey;
use crate::metrics::Metrics;
use crate::outlets::{OutletKey, Outlets, Slot};
use crate::parse::{HEADER, Heading, Parsed, Query, Rcode, boil_down, flag, parse};
use crate::reply::{self, Reply};
use crate::server::Config;
use crate::table::ViewId;
use crate::target::{Place, Target, Upstream};
use crate::throttle::Throttle;
use crate::udp::{SpinCredit, UdpBuffers};
use crate::upstream;
use crate::upstream_reply::UpstreamReply;

pub(crate) struct Resolver {
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) index: RefCell<Index>,
    pub(crate) outlets: RefCell<Outlets>,
    forwards: RefCell<Forwards<Client, Slot>>,
    cache: RefCell<Cache>,
    outgoing: RefCell<Outgoing>,
    pub(crate) udp: RefCell<UdpBuffers>,
    pub(crate) spin: SpinCredit,
    pub(crate) replies: RefCell<RecvBatch>,
    /// The views by where their questions leave from.
    pub(crate) places: RefCell<HashMap<Place, ViewId>>,
    /// Clients that wait for an upstream reply.
    waiting: Cell<usize>,
    /// Open TCP connections.
    pub(crate) connections: Cell<usize>,
    /// TCP exchanges with upstream servers.
    pub(crate) exchanges: Cell<usize>,
    /// Tells the timer that there is an earlier time to wake at.
    pub(crate) sooner: Notify,
    armed: Cell<Option<Instant>>,
    /// Cancelled when the server is to end: nothing new is begun.
    pub(crate) ending: CancellationToken,
    overload: Throttle,
    /// Of failures to receive or to accept.
    pub(crate) trouble: Throttle,
}

/// Buffers for answers that leave outside of a receive batch.
struct Outgoing {
    message: Vec<u8>,
    batch: SendBatch,
}

impl Resolver {
    pub(crate) fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            index: RefCell::default(),
            outlets: RefCell::new(Outlets::new()),
            forwards: RefCell::default(),
            cache: RefCell::new(Cache::new(config.cache)),
            outgoing: RefCell::new(Outgoing { message: Vec::new(), batch: SendBatch::new(1) }),
            udp: RefCell::new(UdpBuffers::new()),
            spin: SpinCredit::default(),
            replies: RefCell::new(upstream::reply_batch()),
            places: RefCell::default(),
            waiting: Cell::new(0),
            connections: Cell::new(0),
            exchanges: Cell::new(0),
            sooner: Notify::new(),
            armed: Cell::new(None),
            ending: CancellationToken::new(),
            overload: Throttle::default(),
            trouble: Throttle::default(),
            config,
        }
    }

    /// Answers `message` at the end of `out`, or sees to it that its client is answered later.
    pub(crate) fn handle(
        self: &Rc<Self>,
        message: &[u8],
        from: &Origin<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Handled {
        let kind = match parse(message) {
            Parsed::Query(query) => self.resolve(&query, from, now, out),
            Parsed::Unusual => match boil_down(message).as_deref().map(parse) {
                Ok(Parsed::Query(query)) => self.resolve(&query, from, now, out),
                _ => refuse(message, out),
            },
            Parsed::Malformed { id, flags, rcode } => {
                reply::malformed(out, id, flags, rcode);
                Some(if rcode == Rcode::NotImp { Kind::NotImp } else { Kind::FormErr })
            }
            Parsed::Dropped => None,
        };
        match kind {
            Some(Kind::Forwarded) => Handled::Later,
            Some(kind) => {
                self.metrics.answered(kind);
                Handled::Answered
            }
            None => {
                self.metrics.dropped.fetch_add(1, Relaxed);
                Handled::Dropped
            }
        }
    }

    fn resolve(
        self: &Rc<Self>,
        query: &Query<'_>,
        from: &Origin<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Kind> {
        let limit = reply::limit(&query.heading, from.is_stream());
        let start = out.len();
        let followed;
        let (question, links) = match answer(&mut self.index.borrow_mut(), from.view.key, query, limit, out) {
            Answer::Given(kind) => return Some(kind),
            Answer::Ask => (query.heading.question, 0),
            Answer::Follow(follow) => {
                followed = follow;
                (followed.question(), followed.links)
            }
        };
        let target = from.view.target.borrow().clone();
        let Some(target) = target.filter(|target| !target.servers.is_empty()) else {
            return Some(give_up(out, start, &query.heading, limit, links));
        };
        let key = ForwardKey::of(&target, &query.heading, question);
        if let Some((reply, age)) = self.cache.borrow_mut().get(key.as_bytes(), now) {
            if links == 0 {
                reply.write(out, &query.heading, limit, age);
            } else {
                reply.write_behind(Reply::resume(out, start, &query.heading, limit, links), age);
            }
            return Some(Kind::Cached);
        }
        if !self.has_room(from.view) {
            self.complain(now, from);
            return Some(give_up(out, start, &query.heading, limit, links));
        }
        let records = out.get(start + HEADER + query.heading.question.len()..).unwrap_or_default();
        let waiter = Waiter {
            client: from.to_client(),
            asked: Asked::new(&query.heading, (records, links)),
            by_stream: from.is_stream(),
            since: now,
        };
        out.truncate(start);
        self.ask(&target, &key, waiter, from.view, now);
        Some(Kind::Forwarded)
    }

    fn ask(
        self: &Rc<Self>,
        target: &Rc<Target>,
        key: &ForwardKey,
        waiter: Waiter<Client>,
        view: &ViewState,
        now: Instant,
    ) {
        let outline = Outline {
            question: key.question(),
            recursion_desired: waiter.asked.flags & flag::RECURSION_DESIRED != 0,
            checking_disabled: waiter.asked.flags & flag::CHECKING_DISABLED != 0,
            edns: Some(waiter.asked.edns.is_some_and(|edns| edns.dnssec_ok)),
        };
        self.waiting.update(|waiting| waiting + 1);
        view.waiting.update(|waiting| waiting + 1);
        let order = Order { key: key.as_bytes(), target, view: view.key, outline };
        self.forwards.borrow_mut().ask(&order, waiter, now, &mut self.transport());
        self.settle(now);
    }

    /// A view may wait for as many replies as there are places left: one alone gets half of all, a second one half of
    /// the rest, so nobody's flood keeps the others out.
    fn has_room(&self, view: &ViewState) -> bool {
        let free = self.config.in_flight.saturating_sub(self.waiting.get());
        view.waiting.get() < free && self.forwards.borrow().len() < 2 * self.config.in_flight
    }

    /// Counts a question that found no room, and says so once in a while.
    fn complain(&self, now: Instant, from: &Origin<'_>) {
        self.metrics.overloaded.fetch_add(1, Relaxed);
        if self.overload.is_due(now) {
            tracing::warn!(
                view = %from.view.id,
                view_waiting = from.view.waiting.get(),
                waiting = self.waiting.get(),
                "too many DNS questions wait for upstream servers; answering SERVFAIL"
            );
        }
    }

    /// A datagram came in on an upstream socket.
    pub(crate) fn upstream_datagram(
        self: &Rc<Self>,
        outlet: OutletKey,
        source: Option<SocketAddr>,
        message: &[u8],
        now: Instant,
    ) {
        let ticket = self.outlets.borrow().ticket(outlet, source, message);
        let fits = ticket.is_some_and(|ticket| {
            self.forwards.borrow_mut().replied(ticket, message, now, &mut self.transport())
        });
        if fits {
            self.outlets.borrow_mut().settle(outlet, message);
        } else {
            self.metrics.forged.fetch_add(1, Relaxed);
        }
    }

    /// The kernel reports that an upstream socket's server cannot be reached.
    pub(crate) fn upstream_refused(self: &Rc<Self>, outlet: OutletKey, now: Instant) {
        let tickets = self.outlets.borrow_mut().fail(outlet);
        for ticket in tickets {
            self.forwards.borrow_mut().refused(ticket, now, &mut self.transport());
        }
    }

    pub(crate) fn upstream_streamed(self: &Rc<Self>, ticket: Ticket, message: Option<&[u8]>, now: Instant) {
        self.forwards.borrow_mut().stream_replied(ticket, message, now, &mut self.transport());
        self.settle(now);
    }

    /// Does what is due by `now`, and says when to come again.
    pub(crate) fn on_timer(self: &Rc<Self>, now: Instant) -> Option<Instant> {
        self.forwards.borrow_mut().expire(now, &mut self.transport());
        self.settle(now);
        let next = self.forwards.borrow().next_timer();
        self.armed.set(next);
        next
    }

    /// Sends what has been answered, reads on sockets that are new, and wakes the timer if it sleeps too long.
    pub(crate) fn settle(self: &Rc<Self>, now: Instant) {
        loop {
            let refused = self.outlets.borrow_mut().take_refused();
            if refused.is_empty() {
                break;
            }
            for ticket in refused {
                self.forwards.borrow_mut().refused(ticket, now, &mut self.transport());
            }
        }
        let finished = self.forwards.borrow_mut().finished();
        for finished in finished {
            self.deliver(&finished, now);
        }
        if self.outlets.borrow().has_unread() {
            upstream::read_new_outlets(self);
        }
        let next = self.forwards.borrow().next_timer();
        if next.is_some_and(|next| self.armed.get().is_none_or(|armed| next < armed)) {
            self.armed.set(next);
            self.sooner.notify_one();
        }
    }

    fn deliver(&self, finished: &Finished<Client>, now: Instant) {
        if let Some(reply) = &finished.reply
            && !finished.key.is_empty()
        {
            self.cache.borrow_mut().put(&finished.key, reply.clone(), now);
        }
        for waiter in &finished.waiters {
            self.waiting.update(|waiting| waiting - 1);
            waiter.client.view.waiting.update(|waiting| waiting - 1);
            let outgoing = &mut *self.outgoing.borrow_mut();
            outgoing.message.clear();
            write_late(&mut outgoing.message, waiter, finished.reply.as_deref());
            self.metrics.answered(if finished.reply.is_some() { Kind::Forwarded } else { Kind::ServFail });
            self.metrics.took(now.saturating_duration_since(waiter.since), 1);
            match &waiter.client.way {
                Way::Datagram { port, to, from } => {
                    let mut batch = outgoing.batch.begin();
                    // A full buffer or a client that has gone is like a datagram lost on the way.
                    if batch.push(Some(*to), *from, None, &outgoing.message, 0) {
                        batch.send(port.as_fd());
                    }
                }
                // The connection takes no more queries than its channel has room for.
                Way::Stream(answers) => drop(answers.try_send(outgoing.message.clone())),
            }
        }
    }

    /// Whether no client waits for anything.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.get() == 0 && self.connections.get() == 0
    }

    fn transport(self: &Rc<Self>) -> ResolverTransport<'_> {
        ResolverTransport { resolver: self }
    }
}

struct ResolverTransport<'a> {
    resolver: &'a Rc<Resolver>,
}

impl Transport for ResolverTransport<'_> {
    type Slot = Slot;

    fn send(
        &mut self,
        upstream: &Rc<Upstream>,
        ticket: Ticket,
        outline: Outline<'_>,
    ) -> Result<Slot, Unsendable> {
        self.resolver.outlets.borrow_mut().send(upstream, ticket, outline)
    }

    fn send_stream(
        &mut self,
        upstream: &Rc<Upstream>,
        ticket: Ticket,
        outline: Outline<'_>,
    ) -> Result<(), Unsendable> {
        upstream::start_exchange(self.resolver, upstream, ticket, outline)
    }

    fn forget(&mut self, slot: Slot) {
        self.resolver.outlets.borrow_mut().forget(&slot);
    }
}

/// What became of a query for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// The answer is at the end of the buffer.
    Answered,
    /// The client will be answered when an upstream server has been, or not.
    Later,
    /// Nothing that deserves an answer.
    Dropped,
}

/// SERVFAIL behind the aliases that have led there.
fn give_up(out: &mut Vec<u8>, start: usize, asked: &Heading<'_>, limit: usize, links: u16) -> Kind {
    if links == 0 {
        reply::empty(out, asked, Rcode::ServFail);
    } else {
        Reply::resume(out, start, asked, limit, links).finish(Rcode::ServFail);
    }
    Kind::ServFail
}

/// The answer for somebody who has waited.
fn write_late(out: &mut Vec<u8>, waiter: &Waiter<Client>, reply: Option<&UpstreamReply>) {
    let heading = waiter.asked.heading();
    let limit = reply::limit(&heading, waiter.by_stream);
    let (records, links) = &waiter.asked.links;
    match reply {
        Some(reply) if *links == 0 => reply.write(out, &heading, limit, 0),
        reply => {
            out.extend_from_slice(&[0; HEADER]);
            out.extend_from_slice(heading.question);
            out.extend_from_slice(records);
            let begun = Reply::resume(out, 0, &heading, limit, *links);
            match reply {
                Some(reply) => reply.write_behind(begun, 0),
                None => begun.finish(Rcode::ServFail),
            }
        }
    }
}

fn refuse(message: &[u8], out: &mut Vec<u8>) -> Option<Kind> {
    let [i0, i1, f0, f1] = *message.first_chunk::<4>()?;
    reply::malformed(out, u16::from_be_bytes([i0, i1]), u16::from_be_bytes([f0, f1]), Rcode::FormErr);
    Some(Kind::FormErr)
}
