//! Clients keep their backends through any sequence of comings and goings, and the table keeps its bound.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);
const LIMIT: usize = 24;

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn name(number: u32) -> BackendId {
    format!("backend-{number}").into()
}

/// What a client can count on: its backend, its open connections, when it was last seen.
struct Known {
    backend: BackendId,
    tickets: Vec<Ticket>,
    last: Instant,
}

/// The rules once more, without a bound and without care for speed.
struct Simulation {
    table: Table,
    known: BTreeMap<u32, Known>,
    now: Instant,
    random: StdRng,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { table: Table::new(LIMIT), known: BTreeMap::new(), now: Instant::now(), random }
    }

    fn step(&mut self) {
        let number = self.random.random_range(0..40);
        match self.random.random_range(0..10) {
            0..5 => self.come(number),
            5..9 => self.go(number),
            _ => self.now += Duration::from_millis(self.random.random_range(0..40_000)),
        }
        assert!(self.table.len() <= LIMIT);
        self.look();
    }

    fn come(&mut self, number: u32) {
        let mine = self.table.find(client(number), self.now, TIMEOUT).cloned();
        let backend = mine.unwrap_or_else(|| name(self.random.random_range(0..5)));
        let oldest = self.known.values().map(|known| known.last).min();
        self.table.put(client(number), &backend, self.now);
        let ticket = self.table.open(client(number)).expect("it has just been put");
        let (now, table) = (self.now, &self.table);
        self.known.retain(|number, known| {
            let stays = table.find(client(*number), now, Duration::MAX).is_some();
            assert!(stays || Some(known.last) == oldest, "client {number} was forgotten before its time");
            stays
        });
        let fresh = || Known { backend: Arc::clone(&backend), tickets: Vec::new(), last: now };
        let known = self.known.entry(number).or_insert_with(fresh);
        (known.backend, known.last) = (backend, now);
        known.tickets.push(ticket);
    }

    fn go(&mut self, number: u32) {
        let Some(known) = self.known.get_mut(&number) else { return };
        let Some(ticket) = known.tickets.pop() else { return };
        self.table.close(ticket, self.now);
        known.last = self.now;
    }

    /// Whom the table tells of, and how long.
    fn look(&self) {
        assert_eq!(self.table.len(), self.known.len());
        for (number, known) in &self.known {
            let keeps = !known.tickets.is_empty() || self.now - known.last < TIMEOUT;
            let told = self.table.find(client(*number), self.now, TIMEOUT);
            assert_eq!(told, keeps.then_some(&known.backend), "client {number}");
        }
    }
}

/// Replay one run with NETD_AFFINITY_SEED=<the printed seed>.
#[test]
fn any_history_keeps_clients_where_they_are() {
    let seeds = match std::env::var("NETD_AFFINITY_SEED") {
        Ok(seed) => vec![seed.parse().expect("NETD_AFFINITY_SEED is a number")],
        Err(_) => (0..48).map(|_| rand::random::<u64>()).collect(),
    };
    for seed in seeds {
        println!("NETD_AFFINITY_SEED={seed}");
        let mut simulation = Simulation::new(seed);
        (0..1500).for_each(|_| simulation.step());
    }
}

#[test]
fn the_time_counts_from_the_end_of_the_last_connection() {
    let (mut table, start) = (Table::new(4), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    table.put(client(1), &name(1), start);
    let (first, second) = (table.open(client(1)).unwrap(), table.open(client(1)).unwrap());
    assert!(table.find(client(1), at(500), TIMEOUT).is_some(), "two are open");
    table.close(first, at(500));
    assert!(table.find(client(1), at(900), TIMEOUT).is_some(), "one is open");
    table.close(second, at(900));
    assert!(table.find(client(1), at(959), TIMEOUT).is_some());
    assert!(table.find(client(1), at(960), TIMEOUT).is_none());
}

#[test]
fn who_came_longest_ago_makes_room_and_its_ticket_harms_nobody() {
    let (mut table, now) = (Table::new(2), Instant::now());
    table.put(client(1), &name(1), now);
    let ticket = table.open(client(1)).unwrap();
    table.put(client(2), &name(2), now);
    table.put(client(3), &name(3), now);
    assert!(table.find(client(1), now, TIMEOUT).is_none());
    let open = table.open(client(3)).unwrap();
    table.close(ticket, now);
    assert!(table.find(client(3), now + TIMEOUT * 2, TIMEOUT).is_some(), "its own connection is open");
    table.close(open, now);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_client_is_led_elsewhere_only_when_its_backend_takes_no_more() {
    let (affinity, now) = (Arc::new(Affinity::default()), Instant::now());
    let ask = |takes: bool, other: u32| {
        let mapped: IpAddr = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
        let own = |backend: &BackendId| takes.then(|| Arc::clone(backend));
        affinity.of(mapped, now, TIMEOUT, own, || Some((name(other), name(other)))).unwrap()
    };
    assert_eq!(ask(true, 1), name(1));
    assert_eq!(ask(true, 2), name(1));
    assert_eq!(ask(false, 3), name(3));
    let hold = affinity.hold(client(1)).unwrap();
    assert_eq!(ask(true, 4), name(3));
    drop(hold);
    assert!(affinity.hold(client(9)).is_none());
}
