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

fn draw(turn: u64, number: u32, tried: &[u16]) -> Draw<'_> {
    Draw { turn, client: client(number), random: mix(u64::from(number) + 1), tried }
}

/// How often each backend is chosen in `draws` choices from as many clients.
fn shares(picker: &Picker, count: usize, draws: u32) -> Vec<u32> {
    let mut shares = vec![0; count];
    for number in 0..draws {
        let index = picker.pick(&draw(u64::from(number), number, &[]), count, |_| (0, 1)).unwrap();
        shares[index] += 1;
    }
    shares
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
            let index = picker.pick(&draw(u64::from(number), number, &tried), count, |_| (3, 1)).unwrap();
            let index = u16::try_from(index).unwrap();
            prop_assert!(usize::from(index) < count && !tried.contains(&index));
            tried.push(index);
        }
        prop_assert_eq!(picker.pick(&draw(0, number, &tried), count, |_| (3, 1)), None);
    }

    #[test]
    fn round_robin_is_exactly_even(count in 1usize..50, rounds in 1u32..20) {
        let draws = rounds * u32::try_from(count).unwrap();
        prop_assert!(shares(&Picker::RoundRobin, count, draws).into_iter().all(|share| share == rounds));
    }

    #[test]
    fn weights_are_kept_within_a_few(weights in prop::collection::vec(1u16..1000, 1..20), draws in 1u32..5000) {
        let names = names(weights.len());
        let picker = Picker::new(Policy::Weighted, &candidates(&names, &weights));
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (share, weight) in shares(&picker, weights.len(), draws).into_iter().zip(&weights) {
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
                let old = &names[before.pick(&draw(0, number, &[]), count, |_| (0, 1)).unwrap()];
                let new = &left[after.pick(&draw(0, number, &[]), count - 1, |_| (0, 1)).unwrap()];
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
            picker.pick(&Draw { turn: 0, client, random: 0, tried: &[] }, 4, |_| (0, 1)).unwrap()
        };
        assert_eq!(pick(1000), pick(50_000));
        *clients.entry(pick(1000)).or_default() += 1;
    }
    assert!(clients.values().all(|share| (850..1150).contains(share)), "{clients:?}");
}

#[test]
fn least_open_avoids_the_busy_one() {
    let busy = |index: usize| if index == 2 { (500, 1) } else { (3, 1) };
    let chosen =
        (0..1000).filter(|number| Picker::LeastOpen.pick(&draw(0, *number, &[]), 4, busy) == Some(2));
    assert_eq!(chosen.count(), 0);
    let even = shares(&Picker::LeastOpen, 4, 8000);
    assert!(even.iter().all(|share| (1800..2200).contains(share)), "{even:?}");
}

#[test]
fn nobody_is_chosen_from_nobody() {
    for policy in POLICIES {
        assert_eq!(Picker::new(policy, &[]).pick(&draw(1, 1, &[]), 0, |_| (0, 1)), None);
    }
}

#[test]
fn ten_thousand_backends_fit_the_table() {
    let names = names(10_000);
    let picker = Picker::new(Policy::Maglev, &candidates(&names, &[]));
    assert!(picker.pick(&draw(0, 77, &[]), 10_000, |_| (0, 1)).is_some());
}
