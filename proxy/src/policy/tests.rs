//! Shares and disruption, for any number of backends: what an operator expects of each policy.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("backend-{index:04}")).collect()
}

fn candidates<'a>(names: &'a [String], weights: &[u16]) -> Vec<Candidate<'a>> {
    names
        .iter()
        .enumerate()
        .map(|(index, key)| Candidate { key, weight: weights.get(index).copied().unwrap_or(1) })
        .collect()
}

fn client(number: u32) -> SocketAddr {
    let port = u16::try_from(1024 + number % 60_000).unwrap();
    (Ipv4Addr::from_bits(0x0a00_0000 + number / 7), port).into()
}

fn draw(turn: u64, number: u32) -> Draw {
    Draw { turn, client: client(number), by_address: false, random: mix(u64::from(number) + 1) }
}

/// Backends of these loads, some of which are out.
struct Ground<'a> {
    loads: &'a [(u32, u16)],
    out: &'a [usize],
}

impl Field for Ground<'_> {
    fn count(&self) -> usize {
        self.loads.len()
    }

    fn is_out(&self, index: usize) -> bool {
        self.out.contains(&index)
    }

    fn load(&self, index: usize) -> (u32, u16) {
        self.loads[index]
    }
}

fn pick(picker: &Picker, turn: u64, number: u32, count: usize) -> usize {
    let loads = vec![(0, 1); count];
    picker.pick(&draw(turn, number), &Ground { loads: &loads, out: &[] }).unwrap()
}

/// How often each backend is chosen in `draws` choices from as many clients.
fn shares(picker: &Picker, loads: &[(u32, u16)], out: &[usize], draws: u32) -> Vec<u32> {
    let mut shares = vec![0; loads.len()];
    for number in 0..draws {
        let index = picker.pick(&draw(u64::from(number), number), &Ground { loads, out }).unwrap();
        shares[index] += 1;
    }
    shares
}

/// Weights as loads of backends that have nothing to do.
fn idle(weights: &[u16]) -> Vec<(u32, u16)> {
    weights.iter().map(|weight| (0, *weight)).collect()
}

const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::Weighted, Policy::LeastOpen, Policy::SourceHash, Policy::Maglev];

proptest! {
    #[test]
    fn retries_reach_every_backend_once(count in 1usize..40, number: u32, policy in 0usize..5) {
        let names = names(count);
        let picker = Picker::new(POLICIES[policy], &candidates(&names, &[]));
        let mut tried = Vec::new();
        for _ in 0..count {
            let ground = Ground { loads: &vec![(3, 1); count], out: &tried };
            let index = picker.pick(&draw(u64::from(number), number), &ground).unwrap();
            prop_assert!(index < count && !tried.contains(&index));
            tried.push(index);
        }
        let ground = Ground { loads: &vec![(3, 1); count], out: &tried };
        prop_assert_eq!(picker.pick(&draw(0, number), &ground), None);
    }

    #[test]
    fn round_robin_is_exactly_even(count in 1usize..50, rounds in 1u32..20) {
        let draws = rounds * u32::try_from(count).unwrap();
        prop_assert!(shares(&Picker::RoundRobin, &idle(&vec![1; count]), &[], draws).into_iter().all(|share| share == rounds));
    }

    #[test]
    fn weights_are_kept_within_a_few(weights in prop::collection::vec(1u16..1000, 1..20), draws in 1u32..5000) {
        let names = names(weights.len());
        let picker = Picker::new(Policy::Weighted, &candidates(&names, &weights));
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (share, weight) in shares(&picker, &idle(&weights), &[], draws).into_iter().zip(&weights) {
            let exact = f64::from(draws) * f64::from(*weight) / total;
            prop_assert!((f64::from(share) - exact).abs() < 6.0, "{share} instead of {exact}");
        }
    }

    #[test]
    fn maglev_shares_follow_the_weights(weights in prop::collection::vec(1u16..8, 2..30)) {
        let names = names(weights.len());
        let candidates = candidates(&names, &weights);
        let maglev = maglev::Maglev::new(&candidates);
        let share_of = maglev.shares(weights.len());
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (share, weight) in share_of.into_iter().zip(&weights) {
            prop_assert!((share - f64::from(*weight) / total).abs() < 0.015);
        }
    }

    #[test]
    fn hashing_moves_only_the_clients_of_the_one_that_went(count in 2usize..30, gone in 0usize..30) {
        let gone = gone % count;
        let names = names(count);
        let left: Vec<String> = names.iter().filter(|name| **name != names[gone]).cloned().collect();
        for (policy, bound) in [(Policy::SourceHash, 0.0), (Policy::Maglev, 0.06)] {
            let before = Picker::new(policy, &candidates(&names, &[]));
            let after = Picker::new(policy, &candidates(&left, &[]));
            let (mut stayed, mut moved) = (0u32, 0u32);
            for number in 0..2000 {
                let old = &names[pick(&before, 0, number, count)];
                let new = &left[pick(&after, 0, number, count - 1)];
                match (old == &names[gone], old == new) {
                    (true, _) => {}
                    (false, true) => stayed += 1,
                    (false, false) => moved += 1,
                }
            }
            prop_assert!(f64::from(moved) <= bound * f64::from(stayed + moved), "{policy:?}: {moved} of {stayed}");
        }
    }
}

#[test]
fn source_hash_keeps_a_client_whatever_its_port_and_spreads_clients() {
    let names = names(4);
    let picker = Picker::new(Policy::SourceHash, &candidates(&names, &[]));
    let mut clients: HashMap<usize, u32> = HashMap::new();
    for host in 0..4000u32 {
        let pick = |port: u16| {
            let client = (Ipv4Addr::from_bits(0xc0a8_0000 + host), port).into();
            let draw = Draw { turn: 0, client, by_address: false, random: 0 };
            picker.pick(&draw, &Ground { loads: &[(0, 1); 4], out: &[] }).unwrap()
        };
        assert_eq!(pick(1000), pick(50_000));
        *clients.entry(pick(1000)).or_default() += 1;
    }
    assert!(clients.values().all(|share| (850..1150).contains(share)), "{clients:?}");
}

#[test]
fn maglev_by_address_keeps_a_client_whatever_its_port() {
    let names = names(10);
    let picker = Picker::new(Policy::Maglev, &candidates(&names, &[]));
    let pick = |port: u16, by_address| {
        let draw = Draw { turn: 0, client: ([10, 0, 0, 9], port).into(), by_address, random: 0 };
        picker.pick(&draw, &Ground { loads: &[(0, 1); 10], out: &[] }).unwrap()
    };
    let chosen = |by_address| {
        let mut chosen: Vec<usize> = (1..500).map(|port| pick(port, by_address)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen.len()
    };
    assert_eq!((chosen(true), chosen(false)), (1, 10));
}

#[test]
fn maglev_moves_at_most_twelve_in_a_hundred_when_one_of_ten_goes() {
    let names = names(10);
    for gone in 0..10 {
        let left: Vec<String> = names.iter().filter(|name| **name != names[gone]).cloned().collect();
        let before = Picker::new(Policy::Maglev, &candidates(&names, &[]));
        let after = Picker::new(Policy::Maglev, &candidates(&left, &[]));
        let moved = |number: &u32| names[pick(&before, 0, *number, 10)] != left[pick(&after, 0, *number, 9)];
        let moved = (0..10_000).filter(moved).count();
        assert!(moved <= 1200, "{moved} of 10000");
    }
}

#[test]
fn maglev_tables_are_primes_of_a_hundred_places_for_each_backend() {
    for size in maglev::SIZES {
        let is_prime =
            size > 1 && (2..).take_while(|factor| factor * factor <= size).all(|factor| size % factor != 0);
        assert!(is_prime, "{size}");
    }
    assert!(maglev::SIZES[3] >= 100 * u32::from(u16::MAX));
}

#[test]
fn weights_are_within_two_in_a_hundred_in_any_thousand_choices() {
    let weights = [1, 2, 3, 5, 10];
    let names = names(weights.len());
    let picker = Picker::new(Policy::Weighted, &candidates(&names, &weights));
    for start in [0, 777, 1 << 40] {
        let mut shares = [0u32; 5];
        let mut longest = (0, 0);
        for turn in start..start + 1050 {
            let index = pick(&picker, turn, 0, weights.len());
            shares[index] += 1;
            longest = if longest.0 == index { (index, longest.1 + 1) } else { (index, 1) };
            assert!(longest.1 <= 2, "nobody gets its share in one run");
        }
        for (share, weight) in shares.into_iter().zip(weights) {
            let exact = 50.0 * f64::from(weight);
            assert!((f64::from(share) - exact).abs() <= 0.02 * 1050.0, "{share} instead of {exact}");
        }
    }
}

#[test]
fn the_share_of_one_who_is_out_is_spread_over_all_others() {
    for (policy, weights, expected) in [
        (Policy::RoundRobin, [1u16, 1, 1, 1], [0.0, 1.0, 1.0, 1.0]),
        (Policy::Weighted, [4, 1, 1, 2], [0.0, 1.0, 1.0, 2.0]),
        (Policy::LeastOpen, [1, 1, 1, 1], [0.0, 1.0, 1.0, 1.0]),
        (Policy::SourceHash, [1, 1, 1, 1], [0.0, 1.0, 1.0, 1.0]),
        (Policy::Maglev, [1, 1, 1, 1], [0.0, 1.0, 1.0, 1.0]),
    ] {
        let names = names(weights.len());
        let picker = Picker::new(policy, &candidates(&names, &weights));
        let total: f64 = expected.iter().sum();
        for (share, expected) in shares(&picker, &idle(&weights), &[0], 14_000).into_iter().zip(expected) {
            let exact = 14_000.0 * expected / total;
            assert!((f64::from(share) - exact).abs() <= 700.0, "{policy:?}: {share} instead of {exact}");
        }
    }
}

#[test]
fn least_open_avoids_the_busy_one() {
    let busy = [(3, 1), (3, 1), (500, 1), (3, 1)];
    assert_eq!(shares(&Picker::LeastOpen, &busy, &[], 1000)[2], 0);
    let even = shares(&Picker::LeastOpen, &[(0, 1); 4], &[], 8000);
    assert!(even.iter().all(|share| (1800..2200).contains(share)), "{even:?}");
    assert_eq!(shares(&Picker::LeastOpen, &busy, &[0, 1, 3], 9)[2], 9, "when nobody else is left");
}

/// Connections to one backend last ten times as long as those to the others. Taking turns would pile them up there.
#[test]
fn least_open_evens_out_skewed_durations() {
    let mut ends: Vec<Vec<u32>> = vec![Vec::new(); 5];
    let mut highest = [0; 5];
    for now in 0..20_000 {
        ends.iter_mut().for_each(|ends| ends.retain(|end| *end > now));
        let loads: Vec<(u32, u16)> = ends.iter().map(|ends| (ends.len() as u32, 1)).collect();
        let chosen = Picker::LeastOpen.pick(&draw(0, now), &Ground { loads: &loads, out: &[] }).unwrap();
        ends[chosen].push(now + if chosen == 0 { 1000 } else { 100 });
        if now > 5000 {
            highest.iter_mut().zip(&ends).for_each(|(most, ends)| *most = ends.len().max(*most));
        }
    }
    let others = highest[1..].iter().max().unwrap();
    assert!(highest[0] <= 2 * others, "{highest:?}");
}

#[test]
fn nobody_is_chosen_from_nobody() {
    for policy in POLICIES {
        let nobody = Ground { loads: &[], out: &[] };
        assert_eq!(Picker::new(policy, &[]).pick(&draw(1, 1), &nobody), None);
    }
}

#[test]
fn ten_thousand_backends_fit_the_table() {
    let names = names(10_000);
    let picker = Picker::new(Policy::Maglev, &candidates(&names, &[]));
    assert!(pick(&picker, 0, 77, 10_000) < 10_000);
}
