//! The table against a plain model of it, with seeds, and its rules one by one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const IDLE: Duration = Duration::from_secs(30);
const ONE: Traffic = Traffic { datagrams: 1, bytes: 10 };

fn key(lane: LaneId, client: u16) -> Key {
    Key {
        lane,
        client: (Ipv4Addr::LOCALHOST, client).into(),
        local: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
    }
}

fn open(table: &mut FlowTable<u64>, key: Key, now: Instant) -> Option<FlowId> {
    loop {
        match table.make_room(key.lane, now) {
            Room::Free => return table.open(key, now, |_| Ok::<_, ()>(0)).ok(),
            Room::GivenUp(_) => {}
            Room::Full => return None,
        }
    }
}

impl<U> FlowTable<U> {
    /// Every statement that has to hold between the parts of the table, over the whole of it.
    fn check(&self) {
        assert!(self.flows.len() <= self.limit);
        assert_eq!(self.index.len(), self.flows.len());
        let mut members = 0;
        for (at, lane) in &self.lanes {
            let id = LaneId(at as u32);
            let mut open = 0;
            for (order, rank) in lane.orders.iter().zip([Rank::Unanswered, Rank::Answered]) {
                let ids = self.links.iter(order).collect::<Vec<_>>();
                assert_eq!(ids.last().copied(), order.last());
                for pair in ids.windows(2) {
                    let [older, younger] = [pair[0], pair[1]].map(|id| self.flows[id as usize].last);
                    assert!(older <= younger, "an order is by last activity");
                }
                for &flow in &ids {
                    let entry = &self.flows[flow as usize];
                    assert_eq!((entry.key.lane, entry.rank()), (id, rank));
                    assert_eq!(self.find(&entry.key), Some(FlowId(flow)));
                }
                if let Some(&oldest) = ids.first() {
                    let wake = order.wake.expect("an order with flows is looked at some time");
                    assert!(wake <= self.flows[oldest as usize].last + lane.idle, "and in time");
                    assert!(self.wakes.iter().any(|&Reverse(entry)| entry == (wake, id, rank)));
                }
                open += ids.len();
            }
            assert_eq!(open, lane.open);
            members += open;
        }
        assert_eq!(members, self.flows.len(), "every flow is in one order");
        assert!(self.wakes.len() <= 8 * self.lanes.len().max(1) + 64, "the queue of looks stays short");
    }
}

/// A flow as the model has it: last activity, answered.
type Model = BTreeMap<(LaneId, u16), (Instant, bool)>;

struct Simulation {
    table: FlowTable<u64>,
    model: Model,
    lanes: Vec<LaneId>,
    now: Instant,
    random: StdRng,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut table = FlowTable::new(48);
        let lanes = (0..4).map(|_| table.open_lane(16, IDLE)).collect();
        Self { table, model: Model::new(), lanes, now: Instant::now(), random: StdRng::seed_from_u64(seed) }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..55 => self.datagram(),
            55..80 => self.reply(),
            80..95 => self.pass(),
            95..97 => self.lose_one(),
            97..99 => self.lose_backends(),
            _ => self.replace_lane(),
        }
        self.table.check();
        assert_eq!(self.table.len(), self.model.len());
    }

    fn any_key(&mut self) -> Key {
        let lane = self.lanes[self.random.random_range(0..self.lanes.len())];
        key(lane, self.random.random_range(1..30))
    }

    fn gone(&mut self, ended: &Ended<u64>) -> (Instant, bool) {
        let at = (ended.flow.key.lane, ended.flow.key.client.port());
        self.model.remove(&at).expect("only what was there ends, once")
    }

    fn datagram(&mut self) {
        let key = self.any_key();
        let at = (key.lane, key.client.port());
        let id = self.table.find(&key).or_else(|| {
            loop {
                match self.table.make_room(key.lane, self.now) {
                    Room::Free => break self.table.open(key, self.now, |_| Ok::<_, ()>(0)).ok(),
                    Room::GivenUp(ended) => {
                        let (last, answered) = self.gone(&ended);
                        let grace = if answered { ANSWERED_GRACE } else { UNANSWERED_GRACE };
                        assert!(self.now - last >= grace, "a busy flow is not given up");
                    }
                    Room::Full => {
                        let mine = self.model.keys().filter(|(lane, _)| *lane == key.lane).count();
                        assert!(mine >= 16 || self.model.len() >= 48, "refused with room left");
                        break None;
                    }
                }
            }
        });
        let Some(id) = id else { return };
        self.table.client_sent(id, ONE, self.now);
        let now = self.now;
        self.model.entry(at).or_insert((now, false)).0 = now;
    }

    fn reply(&mut self) {
        let key = self.any_key();
        let Some(id) = self.table.find(&key) else { return };
        self.table.backend_sent(id, ONE, self.now);
        self.model.insert((key.lane, key.client.port()), (self.now, true));
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(0..4000));
        while let Some(ended) = self.table.expire(self.now) {
            assert_eq!(ended.why, End::Idle);
            let (last, _) = self.gone(&ended);
            assert!(self.now - last >= IDLE);
        }
        assert!(self.model.values().all(|(last, _)| self.now - *last < IDLE), "an idle flow stayed");
        assert!(self.table.next_expiry().is_none_or(|at| at > self.now), "nothing is due twice");
    }

    fn lose_one(&mut self) {
        let key = self.any_key();
        let ended = self.table.find(&key).and_then(|id| self.table.end(id, End::BackendGone));
        if let Some(ended) = ended {
            self.gone(&ended);
            assert_eq!(self.table.find(&key), None, "the next datagram picks again");
        }
    }

    fn lose_backends(&mut self) {
        let lane = self.lanes[self.random.random_range(0..self.lanes.len())];
        let odd = |flow: &Flow<u64>| flow.key.client.port() % 2 == 1;
        for ended in self.table.end_where(lane, End::BackendGone, odd) {
            self.gone(&ended);
        }
        assert!(!self.model.keys().any(|(at, port)| *at == lane && port % 2 == 1));
    }

    fn replace_lane(&mut self) {
        let at = self.random.random_range(0..self.lanes.len());
        for ended in self.table.close_lane(self.lanes[at]) {
            assert_eq!(ended.why, End::ListenerGone);
            self.gone(&ended);
        }
        self.lanes[at] = self.table.open_lane(16, IDLE);
    }
}

/// Replay one run with NETD_FLOWS_SEED=<the printed seed>.
#[test]
fn any_history_keeps_the_table_whole() {
    let seeds = match std::env::var("NETD_FLOWS_SEED") {
        Ok(seed) => vec![seed.parse().expect("NETD_FLOWS_SEED is a number")],
        Err(_) => (0..32).map(|_| rand::random::<u64>()).collect(),
    };
    for seed in seeds {
        println!("NETD_FLOWS_SEED={seed}");
        let mut simulation = Simulation::new(seed);
        for _ in 0..1000 {
            simulation.step();
        }
    }
}

#[test]
fn a_client_of_two_local_addresses_has_two_flows() {
    let (mut table, now) = (FlowTable::new(8), Instant::now());
    let lane = table.open_lane(8, IDLE);
    let one = key(lane, 1);
    let other = Key { local: Some(Ipv4Addr::new(127, 0, 0, 2).into()), ..one };
    assert_ne!(open(&mut table, one, now), open(&mut table, other, now));
}

#[test]
fn silence_both_ways_ends_a_flow_and_either_way_keeps_it() {
    let (mut table, start) = (FlowTable::new(8), Instant::now());
    let lane = table.open_lane(8, IDLE);
    let id = open(&mut table, key(lane, 1), start).unwrap();
    let at = |seconds| start + Duration::from_secs(seconds);
    table.client_sent(id, ONE, at(20));
    assert!(table.expire(at(31)).is_none());
    table.backend_sent(id, ONE, at(45));
    assert!(table.expire(at(74)).is_none());
    let ended = table.expire(at(75)).unwrap();
    assert_eq!((ended.why, ended.flow.from_client, ended.flow.from_backend), (End::Idle, ONE, ONE));
    assert!(table.is_empty());
    assert!(table.expire(at(1000)).is_none());
    assert_eq!(table.next_expiry(), None);
}

#[test]
fn a_shorter_idle_time_counts_for_open_flows() {
    let (mut table, start) = (FlowTable::new(8), Instant::now());
    let lane = table.open_lane(8, IDLE);
    open(&mut table, key(lane, 1), start).unwrap();
    table.limit_lane(lane, 8, Duration::from_secs(2));
    assert_eq!(table.next_expiry(), Some(start + Duration::from_secs(2)));
    assert!(table.expire(start + Duration::from_secs(2)).is_some());
}

#[test]
fn a_flood_does_not_push_out_who_is_being_served() {
    let (mut table, start) = (FlowTable::new(64), Instant::now());
    let lane = table.open_lane(32, IDLE);
    let served = key(lane, 1);
    let id = open(&mut table, served, start).unwrap();
    for step in 0..10_000 {
        let now = start + Duration::from_millis(step);
        if step % 100 == 0 {
            table.client_sent(id, ONE, now);
            table.backend_sent(id, ONE, now);
        }
        open(&mut table, key(lane, 2 + step as u16), now);
        assert!(table.len() <= 32);
    }
    assert_eq!(table.find(&served), Some(id));
    table.check();
}

#[test]
fn a_full_table_takes_from_another_lane_and_a_full_lane_does_not() {
    let (mut table, start) = (FlowTable::new(4), Instant::now());
    let (hog, other) = (table.open_lane(4, IDLE), table.open_lane(1, IDLE));
    for client in 1..=4 {
        open(&mut table, key(hog, client), start).unwrap();
    }
    assert_eq!(open(&mut table, key(other, 1), start), None, "all are in use");
    let later = start + UNANSWERED_GRACE;
    assert!(open(&mut table, key(other, 1), later).is_some());
    assert_eq!(open(&mut table, key(other, 2), later), None, "its own limit binds");
    assert_eq!(table.find(&key(hog, 1)), None, "the oldest went");
    table.check();
}
