//! A cluster in one thread: the books of several nodes on one simulated store, with crashes between any two commits,
//! nodes cut off, leases that end, answers that are lost, nodes removed and asked back. What a seed does is done again by
//! the same seed: `NETD_SEED=17 cargo test -p netd simulation`.

mod checks;
mod services;
mod silence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use netd_api::Code;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Books;
use super::cluster::{Cluster, Standing};
use crate::error::Fault;
use crate::ipam::{Family, Holder};
use crate::model::{
    Availability, Driver, EndpointState, Id, LeaseHolder, Member, Membership, Network, Node, Sandbox, Scope,
    ServiceKey,
};
use crate::store::simulated::Sea;
use crate::store::{Record, Txn, encode, key_of};
use crate::testing;

const NODES: usize = 4;
const STEPS: usize = 260;
const SEEDS: u64 = 60;
const FOR_EVER: Duration = Duration::from_secs(86_400);

struct Host {
    name: Id,
    disk: Sea,
    disk_end: usize,
    end: usize,
    /// None while no process runs.
    books: Option<Books>,
    /// Its disk has failed, or its machine was thrown away.
    is_lost: bool,
    starts: u64,
}

struct World {
    random: StdRng,
    sea: Sea,
    hosts: Vec<Host>,
    /// Nothing, or longer than the simulation takes.
    grace: Duration,
    made: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let sea = Sea::default();
        let hosts = (0..NODES).map(|number| Host::new(&sea, number)).collect();
        let grace = if seed.is_multiple_of(2) { Duration::ZERO } else { FOR_EVER };
        let mut world = Self { random: StdRng::seed_from_u64(seed), sea, hosts, grace, made: 0 };
        (0..NODES).for_each(|host| world.start(host));
        world
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random_below(many) == 0
    }

    fn random_below(&mut self, end: u32) -> u32 {
        self.random.random_range(0..end)
    }

    /// Ends the process of that host at this very place, some of the time.
    fn may_crash(&mut self, host: usize) -> bool {
        let crashes = self.one_in(12);
        if crashes {
            self.hosts[host].books = None;
        }
        crashes
    }

    fn start(&mut self, host: usize) {
        let (sea, now) = (self.sea.clone(), SystemTime::UNIX_EPOCH);
        let host = &mut self.hosts[host];
        if host.is_lost {
            return;
        }
        host.starts += 1;
        let cluster = Cluster::new(sea.open(host.end), host.node(), self.grace).expect("a watch");
        let local = host.disk.open(host.disk_end);
        let books = Books::open(Arc::clone(&host.name), local, Some(cluster), host.starts << 32);
        host.books = Some(books.expect("it opens"));
        host.pursue(now);
    }

    fn step(&mut self) {
        let host = self.random.random_range(0..NODES);
        match self.random.random_range(0..100) {
            0..20 => self.attach(host),
            20..30 => self.detach(host),
            30..40 => self.make_service(host),
            40..45 => self.change_service(host),
            45..52 => self.make_network(host),
            52..55 => self.remove_network(host),
            55..60 => self.hosts[host].books = None,
            60..65 => self.sea.cut(self.hosts[host].end),
            65..69 => self.sea.expire(self.hosts[host].end),
            69..71 => self.sea.lose_answer(self.hosts[host].end),
            71..73 => self.remove_node(host),
            73..75 => self.activate(host),
            75..84 => self.come_back(host),
            84..86 => self.leave(host),
            _ => self.hosts[host].pursue(SystemTime::UNIX_EPOCH),
        }
    }

    fn come_back(&mut self, host: usize) {
        self.sea.heal(self.hosts[host].end);
        if self.hosts[host].books.is_none() {
            self.start(host);
        }
    }

    /// Taken down on purpose.
    fn leave(&mut self, host: usize) {
        let Some(mut books) = self.hosts[host].books.take() else { return };
        let said = books.say_goodbye().is_ok();
        books.release_lease().expect("it goes");
        drop(books);
        let name = Arc::clone(&self.hosts[host].name);
        for other in self.hosts.iter_mut().filter_map(|host| host.books.as_mut()) {
            while other.take_in_shared() {}
            let knows = said && other.condition().is_some_and(|condition| condition.connected);
            assert!(!knows || !other.model().nodes.contains_key(&name), "{name} has left");
        }
    }

    fn attach(&mut self, host: usize) {
        let pick = self.random.random::<u32>() as usize;
        let Some(books) = &self.hosts[host].books else { return };
        let networks: Vec<Arc<Network>> = books.model().networks.values().cloned().collect();
        let Some(network) = (!networks.is_empty()).then(|| Arc::clone(&networks[pick % networks.len()]))
        else {
            return;
        };
        self.made += 1;
        let mut sandbox = testing::sandbox(&format!("s{}", self.made));
        let holder = Holder::sandbox(&sandbox.id, &sandbox.name);
        let as_whom = LeaseHolder::Sandbox(Arc::clone(&sandbox.id));
        let Some(books) = &mut self.hosts[host].books else { return };
        let claimed = books.claim(&network, &holder, &as_whom, |leases| leases.lease(Family::V4, &holder));
        let (address, prefix) = match claimed {
            Ok(assigned) => assigned,
            Err(Fault(error)) => {
                let expected =
                    [Code::Unavailable, Code::Exhausted, Code::Forbidden, Code::Conflict, Code::NotFound];
                assert!(expected.contains(&error.code), "{error}");
                return;
            }
        };
        if self.may_crash(host) {
            return;
        }
        let mut endpoint = testing::endpoint(&network.id, &[(address, prefix)]);
        endpoint.id = format!("e{}", self.made).into();
        sandbox.endpoints.push(endpoint);
        let Some(books) = &self.hosts[host].books else { return };
        let service = books.model().services.by(&ServiceKey::On(Arc::clone(&network.id))).next();
        sandbox.service = service.filter(|_| pick.is_multiple_of(3)).map(|service| Membership {
            service: Arc::clone(&service.id),
            weight: 1,
            state: EndpointState::Ready,
            since: None,
            why: None,
        });
        self.write(host, &sandbox, true);
    }

    fn detach(&mut self, host: usize) {
        let pick = self.random.random::<u32>() as usize;
        let Some(books) = &self.hosts[host].books else { return };
        let sandboxes: Vec<Arc<Sandbox>> = books.model().sandboxes.values().cloned().collect();
        if !sandboxes.is_empty() {
            self.write(host, &sandboxes[pick % sandboxes.len()], false);
        }
    }

    fn write(&mut self, host: usize, sandbox: &Sandbox, stays: bool) {
        let key = key_of::<Sandbox>(&sandbox.id);
        let txn = match stays {
            true => {
                Txn::default().expect_absent(Arc::clone(&key)).put(key, encode(sandbox).expect("a record"))
            }
            false => Txn::default().delete(key),
        };
        let Some(books) = &mut self.hosts[host].books else { return };
        books.commit(Scope::Local, &txn).expect("a local commit");
        if !self.may_crash(host) {
            self.hosts[host].pursue(SystemTime::UNIX_EPOCH);
        }
    }

    fn make_network(&mut self, host: usize) {
        let name = format!("n{}", self.random.random_range(0..6));
        self.made += 1;
        let id: Id = format!("net{}", self.made).into();
        let Some(books) = &mut self.hosts[host].books else { return };
        let _ = books.create_shared("network", |books| {
            let network = plan(books, &name, &id)?;
            let key = key_of::<Network>(&network.id);
            Ok((Txn::default().expect_absent(Arc::clone(&key)).put(key, encode(&network)?), ()))
        });
    }

    fn remove_network(&mut self, host: usize) {
        let pick = self.random.random::<u32>() as usize;
        let crashes = self.one_in(3);
        let Some(books) = &mut self.hosts[host].books else { return };
        let networks: Vec<Arc<Network>> = books.model().networks.values().cloned().collect();
        if networks.is_empty() {
            return;
        }
        let network = &networks[pick % networks.len()];
        match crashes {
            // Between its two commits.
            true => {
                let _ = books.close_network(network);
                self.hosts[host].books = None;
            }
            false => drop(books.remove_shared_network(network)),
        }
    }

    fn remove_node(&mut self, by: usize) {
        let host = self.random.random_range(0..NODES);
        let name = Arc::clone(&self.hosts[host].name);
        let force = self.one_in(2);
        if let Some(books) = &mut self.hosts[by].books {
            let _ = books.remove_member(&name, force);
        }
    }

    fn activate(&mut self, by: usize) {
        let host = self.random.random_range(0..NODES);
        let name = Arc::clone(&self.hosts[host].name);
        if let Some(books) = &mut self.hosts[by].books {
            let _ = books.set_availability(&name, Availability::Active);
        }
    }

    fn member(&self, host: &Host) -> Option<Member> {
        self.records::<Member>().remove(&key_of::<Member>(&host.name))
    }

    fn records<R: Record>(&self) -> BTreeMap<Arc<str>, R> {
        #[derive(serde::Deserialize)]
        struct Versioned<R> {
            record: R,
        }
        let prefix = format!("{}/", R::PREFIX);
        let entries = self.sea.entries().into_iter().filter(|entry| entry.key.starts_with(&prefix));
        entries
            .map(|entry| {
                let Versioned::<R> { record } = serde_json::from_slice(&entry.value).expect("a record");
                (entry.key, record)
            })
            .collect()
    }

    /// All that is not lost comes back, and has as long as it takes.
    fn come_to_rest(&mut self) {
        for host in 0..NODES {
            match self.hosts[host].is_lost {
                true => self.sea.forsake(self.hosts[host].end),
                false => self.come_back(host),
            }
        }
        for _ in 0..20 {
            self.hosts.iter_mut().for_each(|host| host.pursue(SystemTime::UNIX_EPOCH));
        }
        for books in self.hosts.iter_mut().filter_map(|host| host.books.as_mut()) {
            books.believe(Instant::now() + FOR_EVER);
        }
        self.hosts.iter_mut().for_each(|host| host.pursue(SystemTime::UNIX_EPOCH));
        for host in &self.hosts {
            let Some(books) = &host.books else { continue };
            assert!(!books.is_unsettled() || host.standing() != Standing::Member, "{} is settled", host.name);
        }
    }
}

impl Host {
    fn new(sea: &Sea, number: usize) -> Self {
        let disk = Sea::default();
        let disk_end = disk.end();
        let name = format!("node{number}").into();
        Self { name, disk, disk_end, end: sea.end(), books: None, is_lost: false, starts: 0 }
    }

    fn node(&self) -> Node {
        Node {
            identity: format!("of {}", self.name).into(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(self.starts),
            ..testing::node(&self.name, [192, 0, 2, 1])
        }
    }

    /// What the daemon does whenever something has come.
    fn pursue(&mut self, now: SystemTime) {
        let Some(books) = &mut self.books else { return };
        while books.take_in_shared() {}
        if !books.is_unsettled() {
            return;
        }
        match books.join(now) {
            Ok(standing @ (Standing::Removed | Standing::Stale)) => {
                self.clean();
                let books = self.books.as_mut().expect("it runs");
                if books.settle().is_ok() && standing == Standing::Stale {
                    books.begin_term().expect("a local commit");
                    let _ = books.join(now).map(|_| books.settle());
                }
            }
            Ok(_) => drop(books.settle()),
            Err(_) => {}
        }
    }

    fn clean(&mut self) {
        let Some(books) = &mut self.books else { return };
        for id in books.model().sandboxes.keys().cloned().collect::<Vec<_>>() {
            books
                .commit(Scope::Local, &Txn::default().delete(key_of::<Sandbox>(&id)))
                .expect("a local commit");
        }
    }

    fn standing(&self) -> Standing {
        let cluster = self.books.as_ref().and_then(|books| books.cluster.as_ref());
        cluster.map_or(Standing::Apart, |cluster| cluster.standing().clone())
    }

    fn term(&self) -> Option<u32> {
        let kept = self.disk.entries().into_iter().find(|entry| *entry.key == *super::member::TERM)?;
        std::str::from_utf8(&kept.value).ok()?.parse().ok()
    }

    /// As its disk has them.
    fn sandboxes(&self) -> Vec<Sandbox> {
        if self.is_lost {
            return Vec::new();
        }
        #[derive(serde::Deserialize)]
        struct Versioned {
            record: Sandbox,
        }
        let entries = self.disk.entries().into_iter().filter(|entry| entry.key.starts_with("sandbox/"));
        entries
            .map(|entry| serde_json::from_slice::<Versioned>(&entry.value).expect("a record").record)
            .collect()
    }
}

/// A network of that name with a subnet and a number that no other has: refused where the name is taken.
fn plan(books: &Books, name: &str, id: &Id) -> Result<Network, Fault> {
    let networks = || books.model().networks.values();
    if networks().any(|network| *network.name == *name) {
        return Err(netd_api::ApiError::conflict("the name is taken").into());
    }
    let taken = |number: &u32| networks().any(|network| network.driver == Driver::Overlay { vni: *number });
    let vni = (4096..).find(|number| !taken(number)).expect("a number");
    let third = vni - 4096;
    let mut network = testing::network(name, &[(&format!("10.0.{third}.0/28"), &format!("10.0.{third}.1"))]);
    (network.id, network.driver) = (Arc::clone(id), Driver::Overlay { vni });
    Ok(network)
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    if world.one_in(2) {
        world.hosts[0].books = None;
        world.hosts[0].is_lost = true;
    }
    world.come_to_rest();
    world.check_at_rest();
    if world.hosts[0].is_lost {
        let name = Arc::clone(&world.hosts[0].name);
        let by = world.hosts.iter_mut().find(|host| host.standing() == Standing::Member);
        if let Some(books) = by.and_then(|host| host.books.as_mut())
            && books.member(&name).is_ok()
        {
            books.remove_member(&name, false).expect("it is dead");
            world.come_to_rest();
            world.check_at_rest();
        }
    }
}

#[test]
fn no_address_is_given_twice_and_every_node_converges() {
    let seeds = match std::env::var("NETD_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "NETD_SEED={seed} shows it again");
    }
}
