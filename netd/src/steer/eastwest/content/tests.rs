use std::net::{IpAddr, Ipv4Addr};

use netd_sys::bpf::Transport;
use proptest::prelude::*;

use super::*;

/// The maps as the kernel has them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Maps {
    services: BTreeMap<Vip, (u64, u32, Option<Duration>, u32)>,
    seats: BTreeMap<(u64, u32), Backend>,
    live: BTreeSet<(u64, Backend)>,
}

impl Maps {
    fn take(&mut self, step: Step) {
        match step {
            Step::Put(Entry::Service(vip, service)) => {
                let Service { slot, network, count, affinity } = service;
                self.services.insert(vip, (slot, count, affinity, network));
            }
            Step::Put(Entry::Seat { slot, number, backend }) => {
                self.seats.insert((slot, number), backend);
            }
            Step::Put(Entry::Live { slot, backend }) => {
                self.live.insert((slot, backend));
            }
            Step::Remove(Entry::Service(vip, _)) => {
                self.services.remove(&vip);
            }
            Step::Remove(Entry::Seat { slot, number, .. }) => {
                self.seats.remove(&(slot, number));
            }
            Step::Remove(Entry::Live { slot, backend }) => {
                self.live.remove(&(slot, backend));
            }
            Step::Put(Entry::Member { .. }) | Step::Remove(Entry::Member { .. }) => panic!("{step:?}"),
        }
    }

    /// Whom a program may be given.
    fn offered(&self, vip: Vip) -> Vec<Backend> {
        let Some((slot, count, ..)) = self.services.get(&vip) else { return Vec::new() };
        (0..*count).map(|number| self.seats[&(*slot, number)]).collect()
    }

    fn entries(&self) -> Vec<Entry> {
        let service =
            |(vip, (slot, count, affinity, network)): (&Vip, &(u64, u32, Option<Duration>, u32))| {
                Entry::Service(
                    *vip,
                    Service { slot: *slot, count: *count, affinity: *affinity, network: *network },
                )
            };
        let seat = |(at, backend): (&(u64, u32), &Backend)| Entry::Seat {
            slot: at.0,
            number: at.1,
            backend: *backend,
        };
        let services = self.services.iter().map(service);
        let live = self.live.iter().map(|(slot, backend)| Entry::Live { slot: *slot, backend: *backend });
        services.chain(self.seats.iter().map(seat)).chain(live).collect()
    }
}

fn vip(port: u16) -> Vip {
    Vip { transport: Transport::Tcp, address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200)), port }
}

fn wanted() -> impl Strategy<Value = Option<Wanted>> {
    let backend =
        (1_u8..8).prop_map(|n| Backend { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), port: 80 });
    let seats = proptest::collection::vec(backend, 0..12);
    let wanted = (seats, 1_u32..3, proptest::option::of(Just(Duration::from_secs(9))));
    proptest::option::of(wanted.prop_map(|(seats, network, affinity)| Wanted { network, affinity, seats }))
}

proptest! {
    #[test]
    fn whoever_looks_finds_old_or_new_ones_and_in_the_end_the_new(
        changes in proptest::collection::vec((0_u16..3, wanted()), 1..12),
    ) {
        let (mut content, mut maps) = (Content::default(), Maps::default());
        let mut now: BTreeMap<u16, Wanted> = BTreeMap::new();
        for (port, wanted) in changes {
            let before = maps.offered(vip(port));
            for step in content.lead(vip(port), wanted.clone()) {
                maps.take(step);
                let offered = maps.offered(vip(port));
                let is_known = |backend: &Backend| before.contains(backend) || wanted.as_ref().is_some_and(|wanted| wanted.seats.contains(backend));
                prop_assert!(offered.iter().all(is_known));
                let (_, slots) = maps.services.get(&vip(port)).map_or((0, 0), |(slot, ..)| (1, *slot));
                prop_assert!(offered.iter().all(|backend| maps.live.contains(&(slots, *backend)) || !wanted.as_ref().is_some_and(|wanted| wanted.seats.contains(backend))));
            }
            match wanted.filter(|wanted| !wanted.seats.is_empty()) {
                Some(wanted) => drop(now.insert(port, wanted)),
                None => drop(now.remove(&port)),
            }
        }
        for port in 0..3 {
            let mut offered = maps.offered(vip(port));
            let mut expected = now.get(&port).map(|wanted| wanted.seats.clone()).unwrap_or_default();
            offered.sort();
            expected.sort();
            prop_assert_eq!(offered, expected);
            let facts = maps.services.get(&vip(port)).map(|(_, _, affinity, network)| (*network, *affinity));
            prop_assert_eq!(facts, now.get(&port).map(|wanted| (wanted.network, wanted.affinity)));
        }
        let seats: usize = now.values().map(|wanted| wanted.seats.len()).sum();
        let live: usize = now.values().map(|wanted| wanted.seats.iter().collect::<BTreeSet<_>>().len()).sum();
        prop_assert_eq!((maps.seats.len(), maps.live.len()), (seats, live), "nothing else is left");
    }

    #[test]
    fn what_a_process_leaves_at_any_point_is_taken_over_or_cleared_away(
        changes in proptest::collection::vec((0_u16..3, wanted()), 1..8),
        end in 0_usize..60,
        then in wanted(),
    ) {
        let (mut content, mut maps) = (Content::default(), Maps::default());
        let steps: Vec<Step> =
            changes.into_iter().flat_map(|(port, wanted)| content.lead(vip(port), wanted)).collect();
        steps.into_iter().take(end).for_each(|step| maps.take(step));
        let (mut content, members, steps) = Content::of(&maps.entries());
        prop_assert!(members.is_empty());
        steps.into_iter().for_each(|step| maps.take(step));
        for port in 0..3 {
            content.lead(vip(port), then.clone()).into_iter().for_each(|step| maps.take(step));
        }
        let seats = then.map(|wanted| wanted.seats).unwrap_or_default();
        let shared = seats.iter().collect::<BTreeSet<_>>().len();
        prop_assert_eq!((maps.seats.len(), maps.live.len()), (3 * seats.len(), 3 * shared));
        prop_assert!((0..3).all(|port| maps.offered(vip(port)).len() == seats.len()));
    }

    #[test]
    fn one_more_or_less_moves_one_seat(count in 1_u8..50, which in any::<prop::sample::Index>()) {
        let all: Vec<Backend> = (0..count).map(|n| Backend { address: IpAddr::from([10, 0, 0, n]), port: 0 }).collect();
        let mut fewer = all.clone();
        fewer.remove(which.index(all.len()));
        let wanted = |seats: &[Backend]| Some(Wanted { network: 1, affinity: None, seats: seats.to_vec() });
        let mut content = Content::default();
        content.lead(vip(1), wanted(&all));
        prop_assert!(content.lead(vip(1), wanted(&fewer)).len() <= 4);
        prop_assert!(content.lead(vip(1), wanted(&all)).len() <= 3);
        prop_assert!(content.lead(vip(1), wanted(&all)).is_empty());
    }
}
