//! What a change of the backends keeps, and where a client is led.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::table::{Backend, BackendState, Place, Policy, Protocol};

fn backend(id: &str, port: u16, state: BackendState) -> Backend {
    Backend {
        id: id.into(),
        v4: Some(format!("10.0.0.1:{port}").parse().unwrap()),
        v6: Some(format!("[fd00::1]:{port}").parse().unwrap()),
        weight: 1,
        state,
        place: Place::Here,
    }
}

fn service(backends: Vec<Backend>) -> Service {
    Service {
        id: "s".into(),
        label: "s".into(),
        policy: Policy::RoundRobin,
        backends,
        connect_timeout: Duration::from_secs(1),
        udp_idle: Duration::from_secs(1),
        ..Service::default()
    }
}

fn handle_of(backends: Vec<Backend>) -> ServiceHandle {
    ServiceHandle::new(&service(backends), Instant::now())
}

fn ask(client: u32, now: Instant) -> Ask<'static> {
    let client = SocketAddr::from((Ipv4Addr::from_bits(0x0a09_0000 + client), 1));
    let random = crate::policy::hash_address(client.ip());
    Ask { client, door: Door::new(Protocol::Tcp, None), tried: &[], now, random }
}

/// Who is chosen in a few turns.
fn picked(handle: &ServiceHandle) -> Vec<String> {
    picked_at(handle, Instant::now())
}

fn picked_at(handle: &ServiceHandle, now: Instant) -> Vec<String> {
    let pool = handle.pool();
    let pick = |client| handle.pick(&pool, &Ask { random: rand::random(), ..ask(client, now) });
    let mut ids: Vec<String> = (0..40).filter_map(pick).map(|(_, backend)| backend.id.to_string()).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn fail(handle: &ServiceHandle, id: &str, failure: Failure, now: Instant) {
    let pool = handle.pool();
    let backend = pool.find(id).unwrap();
    handle.failed(&pool, backend, failure, &ask(0, now));
}

#[test]
fn a_draining_backend_gets_nothing_new_but_is_kept() {
    let ready = vec![backend("a", 1, BackendState::Ready), backend("b", 2, BackendState::Ready)];
    let handle = handle_of(ready);
    assert_eq!(picked(&handle), ["a", "b"]);
    let held = handle.pool().at(0).occupy();
    let next = vec![backend("b", 2, BackendState::Ready), backend("a", 1, BackendState::Draining)];
    handle.replace(&service(next), Instant::now());
    assert_eq!(picked(&handle), ["b"]);
    assert!(handle.pool().keeps(&held.backend));
    handle.replace(&service(vec![backend("a", 7, BackendState::Ready)]), Instant::now());
    assert!(!handle.pool().keeps(&held.backend), "the same name at another address is another place");
    assert_eq!(handle.pool().at(0).open(), 1, "open connections stay counted");
    drop(held);
    assert_eq!(handle.pool().at(0).open(), 0);
    handle.empty();
    assert!(picked(&handle).is_empty());
}

#[test]
fn who_drains_is_used_when_nobody_else_is_left() {
    for other in [BackendState::Starting, BackendState::Failing] {
        let handle = handle_of(vec![backend("a", 1, BackendState::Draining), backend("b", 2, other)]);
        assert_eq!(picked(&handle), ["a"]);
        let handle = handle_of(vec![backend("b", 2, other)]);
        assert!(picked(&handle).is_empty(), "{other:?}");
    }
    let now = Instant::now();
    let handle =
        handle_of(vec![backend("a", 1, BackendState::Draining), backend("b", 2, BackendState::Ready)]);
    fail(&handle, "b", Failure::Refused, now);
    assert_eq!(picked_at(&handle, now), ["b"], "the last that is ready is not ejected");
}

#[test]
fn who_drains_comes_after_those_that_were_ejected() {
    let all = ["a", "b", "c"].map(|id| backend(id, 1, BackendState::Ready));
    let (handle, now) = (handle_of(all.to_vec()), Instant::now());
    fail(&handle, "b", Failure::Refused, now);
    fail(&handle, "c", Failure::Refused, now);
    assert_eq!(picked_at(&handle, now), ["a"]);
    let [_, b, c] = all;
    handle.replace(&service(vec![backend("a", 1, BackendState::Draining), b, c]), now);
    assert_eq!(picked_at(&handle, now), ["b", "c"], "a goes, and a connection to it would be cut");
    let pool = handle.pool();
    let (last, _) = handle.pick(&pool, &Ask { tried: &[1, 2], ..ask(1, now) }).unwrap();
    assert_eq!(last, 0, "it is still better than nobody");
}

#[test]
fn who_leaves_gets_nothing_while_anybody_else_could_and_then_only_who_was_let_in() {
    use BackendState::{Draining, Failing, Leaving, Ready};
    for other in [Ready, Draining] {
        let handle = handle_of(vec![backend("a", 1, Leaving), backend("b", 2, other)]);
        assert_eq!(picked(&handle), ["b"], "{other:?}");
        let pool = handle.pool();
        let after = handle.pick(&pool, &Ask { tried: &[1], ..ask(1, Instant::now()) });
        assert!(after.is_none(), "not even when {other:?} has failed");
    }
    let handle = handle_of(vec![backend("a", 1, Leaving), backend("b", 2, Failing)]);
    assert_eq!(picked(&handle), ["a"]);
}

#[test]
fn a_search_that_holds_an_earlier_table_does_not_find_who_has_left_since() {
    let both = vec![backend("a", 1, BackendState::Draining), backend("b", 2, BackendState::Ready)];
    let (handle, now) = (handle_of(both.clone()), Instant::now());
    let earlier = handle.pool();
    let second = Ask { tried: &[1], ..ask(1, now) };
    assert_eq!(handle.pick(&earlier, &second).map(|(index, _)| index), Some(0));
    let held = earlier.at(0).occupy();
    let mut table = service(both);
    table.backends[0].state = BackendState::Leaving;
    handle.replace(&table, now);
    assert!(handle.pick(&earlier, &second).is_none());
    assert!(handle.pool().keeps(&held.backend) && handle.pool().at(0).open() == 1, "what it has goes on");
}

#[test]
fn a_failing_backend_keeps_no_flow() {
    let handle = handle_of(vec![backend("a", 1, BackendState::Ready)]);
    let held = handle.pool().at(0).occupy();
    handle.replace(&service(vec![backend("a", 1, BackendState::Failing)]), Instant::now());
    assert!(!handle.pool().keeps(&held.backend));
}

#[test]
fn who_refuses_is_passed_over_until_one_has_asked_again() {
    let all = ["a", "b", "c"].map(|id| backend(id, 1, BackendState::Ready)).to_vec();
    let (handle, start) = (handle_of(all.clone()), Instant::now());
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    fail(&handle, "b", Failure::Refused, start);
    assert_eq!(picked_at(&handle, at(10)), ["a", "c"]);
    handle.replace(&service(all), Instant::now());
    assert_eq!(picked_at(&handle, at(20)), ["a", "c"], "tables that come again change nothing");
    assert_eq!(handle.meters.read().ejections, 1);
    let pool = handle.pool();
    let asked = (0..40).filter_map(|client| handle.pick(&pool, &ask(client, at(1500))));
    assert_eq!(asked.filter(|(_, backend)| &*backend.id == "b").count(), 1);
    pool.at(1).reached(Door::new(Protocol::Tcp, None));
    assert_eq!(picked_at(&handle, at(1500)), ["a", "b", "c"]);
}

#[test]
fn who_is_found_well_again_is_not_passed_over_any_longer() {
    let all = |state| service(vec![backend("a", 1, BackendState::Ready), backend("b", 1, state)]);
    let (handle, now) = (ServiceHandle::new(&all(BackendState::Ready), Instant::now()), Instant::now());
    fail(&handle, "b", Failure::Refused, now);
    handle.replace(&all(BackendState::Failing), now);
    assert_eq!(picked_at(&handle, now), ["a"]);
    handle.replace(&all(BackendState::Ready), now);
    assert_eq!(picked_at(&handle, now), ["a", "b"]);
}

#[test]
fn a_search_goes_through_everybody_before_it_fails() {
    let handle = handle_of(["a", "b", "c"].map(|id| backend(id, 1, BackendState::Ready)).to_vec());
    let now = Instant::now();
    fail(&handle, "a", Failure::Unreachable, now);
    fail(&handle, "c", Failure::Unreachable, now);
    let pool = handle.pool();
    let mut tried = Vec::new();
    while let Some((index, _)) = handle.pick(&pool, &Ask { tried: &tried, ..ask(1, now) }) {
        tried.push(index);
    }
    assert_eq!(tried[0], 1, "who is not ejected goes first");
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2]);
}

#[test]
fn another_nodes_backends_serve_while_this_ones_cannot() {
    let node = Place::Node { mesh: "10.7.7.7:6383".parse().unwrap() };
    let far = Backend { place: node, ..backend("far", 1, BackendState::Ready) };
    let near = |state| vec![backend("a", 1, state), backend("b", 1, state), far.clone()];
    let local = |backends| Service { prefer_local: true, ..service(backends) };
    let now = Instant::now();
    let handle = ServiceHandle::new(&local(near(BackendState::Ready)), now);
    assert_eq!(picked_at(&handle, now), ["a", "b"]);
    fail(&handle, "a", Failure::Refused, now);
    assert_eq!(picked_at(&handle, now), ["b"]);
    fail(&handle, "b", Failure::Refused, now);
    assert_eq!(picked_at(&handle, now), ["far"]);
    let handle = ServiceHandle::new(&local(near(BackendState::Draining)), now);
    assert_eq!(picked_at(&handle, now), ["far"]);
    let (index, timeout) = (handle.pool().index_of("far").unwrap(), Duration::from_secs(5));
    assert_eq!(handle.pool().at(index).open(), 0);
    let long = Service { connect_timeout: timeout, ..service(near(BackendState::Ready)) };
    handle.replace(&long, now);
    let pool = handle.pool();
    let limits = ["a", "far"].map(|id| pool.connect_timeout(pool.find(id).unwrap()));
    assert_eq!(limits, [timeout, QUICK]);
    let outside = Backend { place: Place::Elsewhere, ..backend("out", 1, BackendState::Ready) };
    handle.replace(&Service { backends: vec![near(BackendState::Ready)[0].clone(), outside], ..long }, now);
    let pool = handle.pool();
    let limits = ["a", "out"].map(|id| pool.quick_timeout(pool.find(id).unwrap()));
    assert_eq!(limits, [QUICK, timeout]);
}

#[test]
fn the_time_of_a_drain_counts_from_its_beginning() {
    let (ready, draining) = (backend("a", 1, BackendState::Ready), backend("a", 1, BackendState::Draining));
    let limited = |backend| Service { drain: Some(Duration::from_secs(10)), ..service(vec![backend]) };
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let handle = ServiceHandle::new(&limited(ready.clone()), start);
    let held = handle.pool().at(0).occupy();
    assert!(!held.backend.is_cut(start, at(1000)));
    handle.replace(&limited(draining.clone()), at(5));
    handle.replace(&limited(draining), at(12));
    assert!(!held.backend.is_cut(start, at(14)) && held.backend.is_cut(start, at(16)));
    for later in [6, 14, 16] {
        assert!(!held.backend.is_cut(at(later), at(30)), "who came later had no other backend");
    }
    handle.replace(&limited(ready), at(17));
    assert!(!held.backend.is_cut(start, at(30)));
}

#[test]
fn a_client_is_led_to_its_own_family_where_there_is_one() {
    let handle = handle_of(vec![
        backend("a", 1, BackendState::Ready),
        Backend { v6: None, ..backend("b", 2, BackendState::Ready) },
    ]);
    let pool = handle.pool();
    let six: IpAddr = Ipv6Addr::LOCALHOST.into();
    assert_eq!(pool.at(0).address(six, None), "[fd00::1]:1".parse().ok());
    assert_eq!(pool.at(1).address(six, Some(80)), "10.0.0.1:80".parse().ok());
}

const STATES: [BackendState; 5] = [
    BackendState::Starting,
    BackendState::Ready,
    BackendState::Draining,
    BackendState::Failing,
    BackendState::Leaving,
];

proptest! {
    /// Through any sequence of tables a client stays where it is for as long as its backend is ready, and is never led to
    /// one that takes nothing while another does.
    #[test]
    fn affinity_survives_every_change_that_is_not_its_own(
        changes in prop::collection::vec(prop::collection::vec((0usize..8, 0usize..5), 0..8), 1..12),
        policy in 0usize..3,
    ) {
        let policy = [Policy::RoundRobin, Policy::LeastOpen, Policy::Weighted][policy];
        let start = Instant::now();
        let table = |states: &[(usize, usize)]| Service {
            policy,
            affinity: Some(Duration::from_secs(60)),
            ..service(states.iter().map(|(id, state)| backend(&format!("b{id}"), 1, STATES[*state])).collect())
        };
        let handle = ServiceHandle::new(&table(&[]), start);
        let mut own: Vec<Option<String>> = vec![None; 20];
        for (round, change) in changes.iter().enumerate() {
            let now = start + Duration::from_secs(round as u64);
            handle.replace(&table(change), now);
            let pool = handle.pool();
            for (client, own) in own.iter_mut().enumerate() {
                let chosen = handle.pick(&pool, &ask(client as u32, now));
                let best = [BackendState::Ready, BackendState::Draining, BackendState::Leaving];
                let best = best.into_iter().find(|state| pool.members().iter().any(|one| one.state == *state));
                prop_assert_eq!(chosen.map(|(_, backend)| backend.state), best);
                let Some((_, chosen)) = chosen else { continue };
                let stays = own.as_ref().and_then(|own| pool.index_of(own));
                if let Some(stays) = stays.filter(|stays| Some(pool.at(*stays).state) == best) {
                    prop_assert_eq!(&*chosen.id, &*pool.at(stays).id);
                }
                *own = Some(chosen.id.to_string());
            }
        }
    }

    /// Two nodes with the same table choose the same backend for the same client, in whatever order the table came.
    #[test]
    fn nodes_agree(ids in prop::collection::btree_set(0u32..100, 1..20), clients in prop::collection::vec(any::<u32>(), 1..50)) {
        for policy in [Policy::SourceHash, Policy::Maglev] {
            let table = |reversed: bool| {
                let mut all: Vec<_> =
                    ids.iter().map(|id| backend(&format!("b{id}"), 1, BackendState::Ready)).collect();
                if reversed {
                    all.reverse();
                }
                Service { policy, ..service(all) }
            };
            let now = Instant::now();
            let (one, other) = (ServiceHandle::new(&table(false), now), ServiceHandle::new(&table(true), now));
            for client in &clients {
                let ask = Ask { client: (Ipv4Addr::from_bits(*client), 5).into(), ..ask(0, now) };
                let chosen = [&one, &other].map(|node| {
                    node.pick(&node.pool(), &Ask { random: rand::random(), ..ask }).unwrap().1.id.to_string()
                });
                prop_assert_eq!(&chosen[0], &chosen[1]);
            }
        }
    }
}
