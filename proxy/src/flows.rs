//! Which client's datagrams belong together: the flow table, without sockets and without a clock. The shell
//! ([`crate::udp`]) asks for the flow of a datagram, opens one where there is none, reports what it moved, and closes
//! what comes back as [`Ended`]. Time comes in as an argument.
//!
//! All is bounded: flows in all, flows a lane (one listener). A full table gives up a flow that has gone quiet, first
//! one that no backend ever answered; when all are busy the newcomer is refused, so that a flood of made-up sources
//! cannot push out clients that are being served. Expiry costs the same however many flows there are: within a lane
//! the order of last activity is the order of expiry, so only the oldest of each is ever looked at.

pub(crate) mod order;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use slab::Slab;

use order::{Links, Order};

/// How long a flow is safe from being given up for a newcomer after its last datagram, once a backend has answered.
const ANSWERED_GRACE: Duration = Duration::from_secs(5);
/// The same while no backend has.
const UNANSWERED_GRACE: Duration = Duration::from_secs(1);
/// How many other lanes a full table asks for a flow to give up.
const LANES_ASKED: usize = 4;

/// One listener's part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

/// A flow's place in the table. It is used again after the flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(pub u32);

/// What tells one flow from another. The local address is part of it, since a client that speaks to two addresses of
/// this host expects each answer from the one it spoke to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub lane: LaneId,
    pub client: SocketAddr,
    pub local: Option<IpAddr>,
    /// The port that was asked for, of a listener that has them all; else 0.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub datagrams: u64,
    pub bytes: u64,
}

/// One flow. `U` is what the shell keeps with it: its backend and socket.
#[derive(Debug)]
pub struct Flow<U> {
    pub key: Key,
    pub upstream: U,
    pub opened: Instant,
    pub last: Instant,
    pub from_client: Traffic,
    pub from_backend: Traffic,
}

/// Why a flow is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Silence both ways for the service's idle time.
    Idle,
    /// It had gone quiet and a newcomer needed the place.
    Evicted,
    /// Its backend has left the table.
    BackendGone,
    /// Its listener was dropped, or the proxy ends.
    ListenerGone,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::BackendGone => "backend-gone",
            Self::ListenerGone => "listener-gone",
        }
    }
}

#[derive(Debug)]
pub struct Ended<U> {
    pub flow: Flow<U>,
    pub why: End,
}

/// Whether a new flow may be opened.
#[derive(Debug)]
pub enum Room<U> {
    Free,
    /// This one has made place: close it, and ask again.
    GivenUp(Ended<U>),
    /// Every place is taken by a flow in use.
    Full,
}

pub struct FlowTable<U> {
    flows: Slab<Flow<U>>,
    index: HashMap<Key, u32>,
    links: Links,
    lanes: Slab<Lane>,
    limit: usize,
    /// For every order that holds flows, when to look at its oldest.
    wakes: BinaryHeap<Reverse<(Instant, LaneId, Rank)>>,
    asked: usize,
}

struct Lane {
    limit: usize,
    idle: Duration,
    open: usize,
    /// By [`Rank`].
    orders: [Order; 2],
}

/// Flows no backend has answered, and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Unanswered,
    Answered,
}

impl<U> FlowTable<U> {
    /// A table of at most `limit` flows.
    pub fn new(limit: usize) -> Self {
        Self {
            flows: Slab::new(),
            index: HashMap::new(),
            links: Links::default(),
            lanes: Slab::new(),
            limit,
            wakes: BinaryHeap::new(),
            asked: 0,
        }
    }

    /// A new lane of at most `limit` flows, each of which ends after `idle` without a datagram.
    pub fn open_lane(&mut self, limit: usize, idle: Duration) -> LaneId {
        LaneId(self.lanes.insert(Lane { limit, idle, open: 0, orders: Default::default() }) as u32)
    }

    /// New limits for a lane; flows beyond them leave as newcomers ask for room.
    pub fn limit_lane(&mut self, lane: LaneId, limit: usize, idle: Duration) {
        let Some(entry) = self.lanes.get_mut(lane.0 as usize) else { return };
        (entry.limit, entry.idle) = (limit, idle);
        for rank in [Rank::Unanswered, Rank::Answered] {
            self.schedule(lane, rank);
        }
    }

    /// Ends a lane with all its flows.
    pub fn close_lane(&mut self, lane: LaneId) -> Vec<Ended<U>> {
        let ended = self.end_where(lane, End::ListenerGone, |_| true);
        self.lanes.try_remove(lane.0 as usize);
        ended
    }

    /// Whether the lane, if it is open, has no flow.
    pub fn is_lane_empty(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.0 as usize).is_none_or(|lane| lane.open == 0)
    }

    pub fn find(&self, key: &Key) -> Option<FlowId> {
        self.index.get(key).copied().map(FlowId)
    }

    pub fn flow(&self, id: FlowId) -> Option<&Flow<U>> {
        self.flows.get(id.0 as usize)
    }

    pub fn upstream_mut(&mut self, id: FlowId) -> Option<&mut U> {
        self.flows.get_mut(id.0 as usize).map(|flow| &mut flow.upstream)
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Makes sure that `lane` can take one more flow, at the cost of one that has gone quiet if need be.
    pub fn make_room(&mut self, lane: LaneId, now: Instant) -> Room<U> {
        let Some(entry) = self.lanes.get(lane.0 as usize) else { return Room::Full };
        let lane_full = entry.open >= entry.limit;
        if !lane_full && self.flows.len() < self.limit {
            return Room::Free;
        }
        let mut given_up = self.give_up(lane, now);
        // A full lane pays for itself; a full table may take from others.
        for _ in 0..if lane_full { 0 } else { LANES_ASKED } {
            if given_up.is_some() {
                break;
            }
            self.asked = (self.asked + 1) % self.lanes.capacity().max(1);
            given_up = self.give_up(LaneId(self.asked as u32), now);
        }
        given_up.map_or(Room::Full, Room::GivenUp)
    }

    /// Ends the flow of `lane` that is missed least, if one has gone quiet.
    pub fn give_up(&mut self, lane: LaneId, now: Instant) -> Option<Ended<U>> {
        let entry = self.lanes.get(lane.0 as usize)?;
        let graces = [UNANSWERED_GRACE, ANSWERED_GRACE];
        let quiet = entry.orders.iter().zip(graces).find_map(|(order, grace)| {
            let oldest = order.first()?;
            (self.flows[oldest as usize].last + grace <= now).then_some(FlowId(oldest))
        })?;
        self.end(quiet, End::Evicted)
    }

    /// Opens the flow of `key`, which has none, after [`Self::make_room`] said [`Room::Free`]. `upstream` makes what
    /// the shell keeps with it; when that fails nothing has changed.
    pub fn open<E>(
        &mut self,
        key: Key,
        now: Instant,
        upstream: impl FnOnce(FlowId) -> Result<U, E>,
    ) -> Result<FlowId, E> {
        let vacant = self.flows.vacant_entry();
        let id = vacant.key() as u32;
        vacant.insert(Flow {
            key,
            upstream: upstream(FlowId(id))?,
            opened: now,
            last: now,
            from_client: Traffic::default(),
            from_backend: Traffic::default(),
        });
        self.index.insert(key, id);
        let lane = self.lanes.get_mut(key.lane.0 as usize).expect("a lane that has room is open");
        lane.open += 1;
        self.links.append(&mut lane.orders[Rank::Unanswered as usize], id);
        self.schedule(key.lane, Rank::Unanswered);
        Ok(FlowId(id))
    }

    /// Notes what the client has sent.
    pub fn client_sent(&mut self, id: FlowId, sent: Traffic, now: Instant) {
        let Some(flow) = self.flows.get_mut(id.0 as usize) else { return };
        let rank = flow.rank();
        flow.from_client.add(sent);
        self.moved(id, rank, now);
    }

    /// Notes what the backend has sent.
    pub fn backend_sent(&mut self, id: FlowId, sent: Traffic, now: Instant) {
        let Some(flow) = self.flows.get_mut(id.0 as usize) else { return };
        let rank = flow.rank();
        flow.from_backend.add(sent);
        self.moved(id, rank, now);
    }

    /// Ends one flow.
    pub fn end(&mut self, id: FlowId, why: End) -> Option<Ended<U>> {
        let flow = self.flows.try_remove(id.0 as usize)?;
        self.index.remove(&flow.key);
        if let Some(lane) = self.lanes.get_mut(flow.key.lane.0 as usize) {
            lane.open -= 1;
            self.links.remove(&mut lane.orders[flow.rank() as usize], id.0);
        }
        Some(Ended { flow, why })
    }

    /// Ends the flows of a lane that `gone` says have lost their ground.
    pub fn end_where(&mut self, lane: LaneId, why: End, gone: impl Fn(&Flow<U>) -> bool) -> Vec<Ended<U>> {
        let Some(entry) = self.lanes.get(lane.0 as usize) else { return Vec::new() };
        let members = entry.orders.iter().flat_map(|order| self.links.iter(order));
        let lost = members.filter(|&id| gone(&self.flows[id as usize])).collect::<Vec<_>>();
        lost.into_iter().filter_map(|id| self.end(FlowId(id), why)).collect()
    }

    /// The next flow whose silence has lasted too long, if any; ask until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<Ended<U>> {
        while let Some(&Reverse((at, lane, rank))) = self.wakes.peek() {
            if at > now {
                return None;
            }
            self.wakes.pop();
            let Some(entry) = self.lanes.get_mut(lane.0 as usize) else { continue };
            let (idle, order) = (entry.idle, &mut entry.orders[rank as usize]);
            if order.wake != Some(at) {
                continue;
            }
            order.wake = None;
            let oldest = order.first();
            let ended = oldest
                .filter(|&id| self.flows[id as usize].last + idle <= now)
                .and_then(|id| self.end(FlowId(id), End::Idle));
            self.schedule(lane, rank);
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// When [`Self::expire`] has something to look at again.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.wakes.peek().map(|&Reverse((at, ..))| at)
    }

    /// Puts a flow that was of `rank` at the young end of the order it belongs to now.
    fn moved(&mut self, id: FlowId, rank: Rank, now: Instant) {
        let flow = &mut self.flows[id.0 as usize];
        flow.last = now;
        let (lane, new) = (flow.key.lane, flow.rank());
        let Some(entry) = self.lanes.get_mut(lane.0 as usize) else { return };
        if rank == new && entry.orders[rank as usize].last() == Some(id.0) {
            return;
        }
        self.links.remove(&mut entry.orders[rank as usize], id.0);
        self.links.append(&mut entry.orders[new as usize], id.0);
        if rank != new {
            self.schedule(lane, new);
        }
    }

    /// Has `expire` look at an order no later than its oldest flow is due. Later activity moves the due time on
    /// without a note here; the look then finds nothing and schedules the next.
    fn schedule(&mut self, lane: LaneId, rank: Rank) {
        let Some(entry) = self.lanes.get_mut(lane.0 as usize) else { return };
        let order = &mut entry.orders[rank as usize];
        let Some(oldest) = order.first() else { return };
        let due = self.flows[oldest as usize].last + entry.idle;
        if order.wake.is_none_or(|wake| due < wake) {
            order.wake = Some(due);
            self.wakes.push(Reverse((due, lane, rank)));
        }
    }
}

impl<U> Flow<U> {
    fn rank(&self) -> Rank {
        if self.from_backend.datagrams == 0 { Rank::Unanswered } else { Rank::Answered }
    }
}

impl Traffic {
    /// One datagram, or a train of them.
    pub fn of(payload: &[u8], segment: Option<u16>) -> Self {
        let datagrams = segment.map_or(1, |segment| payload.len().div_ceil(usize::from(segment)));
        Self { datagrams: datagrams as u64, bytes: payload.len() as u64 }
    }

    pub fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests;
