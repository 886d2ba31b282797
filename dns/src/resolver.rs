//! Everything the serving thread owns, and the way of one query through it: tables, cache, upstream. Single-threaded, so
//! the cells are never contended; no borrow lives across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use netd_sys::datagram::{Local, RecvBatch, SendBatch};
use tokio::sync::{Notify, mpsc};

use crate::answer::{Kind, answer};
use crate::cache::Cache;
use crate::forward::{Asked, Finished, Forwards, Order, Outline, Ticket, Transport, Unsendable, Waiter};
use crate::index::{Index, ViewKey};
use crate::metrics::Metrics;
use crate::name::MAX_WIRE_NAME;
use crate::outlets::{OutletKey, Outlets, Slot};
use crate::parse::{Parsed, Query, Rcode, boil_down, flag, parse};
use crate::readable::Readable;
use crate::reply;
use crate::server::Config;
use crate::table::ViewId;
use crate::target::{Place, Target, Upstream};
use crate::udp::{SpinCredit, UdpBuffers};
use crate::upstream;

/// The longest message TCP can frame.
pub(crate) const MOST_BYTES: usize = u16::MAX as usize;

/// Between two log lines about the same trouble.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

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
    complaint: Cell<Option<Instant>>,
}

/// What the tasks of one view share.
pub(crate) struct ViewState {
    pub(crate) id: ViewId,
    pub(crate) key: ViewKey,
    pub(crate) target: RefCell<Option<Rc<Target>>>,
    pub(crate) connections: Cell<usize>,
    /// Of the waiting clients, those of this view.
    waiting: Cell<usize>,
}

/// Where an answer goes that takes a while.
pub(crate) struct Client {
    pub(crate) view: Rc<ViewState>,
    pub(crate) way: Way,
}

pub(crate) enum Way {
    Datagram { port: Rc<Readable>, to: SocketAddr, from: Option<Local> },
    Stream(mpsc::Sender<Vec<u8>>),
}

/// Buffers for answers that leave outside of a receive batch.
struct Outgoing {
    message: Vec<u8>,
    batch: SendBatch,
}

impl ViewState {
    pub(crate) fn new(id: ViewId, key: ViewKey) -> Self {
        Self { id, key, target: RefCell::new(None), connections: Cell::new(0), waiting: Cell::new(0) }
    }
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
            complaint: Cell::new(None),
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
        let limit = if from.is_stream() { MOST_BYTES } else { reply::datagram_limit(&query.heading) };
        if let Some(kind) = answer(&mut self.index.borrow_mut(), from.view.key, query, limit, out) {
            return Some(kind);
        }
        let target = from.view.target.borrow().clone();
        let Some(target) = target.filter(|target| !target.servers.is_empty()) else {
            reply::empty(out, &query.heading, Rcode::ServFail);
            return Some(Kind::ServFail);
        };
        let key = ForwardKey::of(&target, query);
        if let Some((reply, age)) = self.cache.borrow_mut().get(key.as_bytes(), now) {
            reply.write(out, &query.heading, limit, age);
            return Some(Kind::Cached);
        }
        if !self.has_room(from.view) {
            self.complain(now, from);
            reply::empty(out, &query.heading, Rcode::ServFail);
            return Some(Kind::ServFail);
        }
        let outline = Outline {
            question: key.question(),
            recursion_desired: query.heading.flags & flag::RECURSION_DESIRED != 0,
            checking_disabled: query.heading.flags & flag::CHECKING_DISABLED != 0,
            edns: Some(query.heading.edns.is_some_and(|edns| edns.dnssec_ok)),
        };
        let waiter = Waiter {
            client: from.to_client(),
            asked: Asked::from(&query.heading),
            by_stream: from.is_stream(),
            since: now,
        };
        self.waiting.update(|waiting| waiting + 1);
        from.view.waiting.update(|waiting| waiting + 1);
        let order = Order { key: key.as_bytes(), target: &target, outline };
        self.forwards.borrow_mut().ask(&order, waiter, now, &mut self.transport());
        self.settle(now);
        Some(Kind::Forwarded)
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
        let quiet = |last: Instant| now.saturating_duration_since(last) < COMPLAINT_INTERVAL;
        if !self.complaint.get().is_some_and(quiet) {
            self.complaint.set(Some(now));
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
            let heading = waiter.asked.heading();
            let outgoing = &mut *self.outgoing.borrow_mut();
            outgoing.message.clear();
            let limit = if waiter.by_stream { MOST_BYTES } else { reply::datagram_limit(&heading) };
            match &finished.reply {
                Some(reply) => reply.write(&mut outgoing.message, &heading, limit, 0),
                None => reply::empty(&mut outgoing.message, &heading, Rcode::ServFail),
            }
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

/// Where a query came from.
pub(crate) struct Origin<'a> {
    pub(crate) view: &'a Rc<ViewState>,
    pub(crate) way: OriginWay<'a>,
}

pub(crate) enum OriginWay<'a> {
    Datagram { port: &'a Rc<Readable>, to: SocketAddr, from: Option<Local> },
    Stream(&'a mpsc::Sender<Vec<u8>>),
}

impl Origin<'_> {
    fn is_stream(&self) -> bool {
        matches!(self.way, OriginWay::Stream(_))
    }

    fn to_client(&self) -> Client {
        let way = match self.way {
            OriginWay::Datagram { port, to, from } => Way::Datagram { port: port.clone(), to, from },
            OriginWay::Stream(answers) => Way::Stream(answers.clone()),
        };
        Client { view: self.view.clone(), way }
    }
}

fn refuse(message: &[u8], out: &mut Vec<u8>) -> Option<Kind> {
    let [i0, i1, f0, f1] = *message.first_chunk::<4>()?;
    reply::malformed(out, u16::from_be_bytes([i0, i1]), u16::from_be_bytes([f0, f1]), Rcode::FormErr);
    Some(Kind::FormErr)
}

/// What equal questions have in common: target, flags, and the question in lower case.
struct ForwardKey {
    bytes: [u8; Self::PREFIX + MAX_WIRE_NAME + 4],
    length: usize,
}

impl ForwardKey {
    const PREFIX: usize = 9;

    fn of(target: &Target, query: &Query<'_>) -> Self {
        let mut key = Self { bytes: [0; _], length: Self::PREFIX + query.heading.question.len() };
        let wishes = query.heading.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let dnssec_ok = query.heading.edns.is_some_and(|edns| edns.dnssec_ok);
        key.bytes[..8].copy_from_slice(&target.id.to_be_bytes());
        key.bytes[8] = u8::from(wishes & flag::RECURSION_DESIRED != 0)
            | (u8::from(wishes & flag::CHECKING_DISABLED != 0) << 1)
            | (u8::from(dnssec_ok) << 2);
        let question = &mut key.bytes[Self::PREFIX..key.length];
        question.copy_from_slice(query.heading.question);
        // Lengths of labels are below any letter, type and class are not touched.
        let name = question.len() - 4;
        question[..name].make_ascii_lowercase();
        key
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn question(&self) -> &[u8] {
        &self.bytes[Self::PREFIX..self.length]
    }
}
