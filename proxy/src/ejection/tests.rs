//! What any history of attempts leaves held against a backend.

use proptest::prelude::*;

use super::*;

const WEB: Door = Door(80);
const OTHER: Door = Door(81);
const LEASE: Duration = Duration::from_secs(2);

fn attempt(failure: Failure, now: u64) -> Failed {
    Failed { failure, door: WEB, is_remote: false, now, random: now.wrapping_mul(0x9e37_79b9) }
}

#[test]
fn a_refusal_ejects_its_port_at_once_and_no_other() {
    let ejection = Ejection::default();
    assert!(ejection.failed(attempt(Failure::Refused, 10), || true));
    assert!(ejection.is_out(WEB, 11) && !ejection.is_out(OTHER, 11));
    assert!(!ejection.claim(WEB, 11, LEASE) && ejection.claim(OTHER, 11, LEASE));
    ejection.reached(OTHER);
    assert!(ejection.is_out(WEB, 11), "another port tells nothing of this one");
    ejection.reached(WEB);
    assert!(!ejection.is_out(WEB, 11) && !ejection.is_any_out(11));
}

#[test]
fn silence_takes_two_here_and_one_of_another_node() {
    let ejection = Ejection::default();
    assert!(!ejection.failed(attempt(Failure::Timeout, 10), || true));
    assert!(!ejection.is_out(WEB, 10));
    assert!(ejection.failed(attempt(Failure::Timeout, 20), || true));
    assert!(ejection.is_out(OTHER, 20), "silence is of all ports");
    for failure in [Failure::Timeout, Failure::NoBackend, Failure::Limit] {
        let remote = Ejection::default();
        assert!(remote.failed(Failed { is_remote: true, ..attempt(failure, 10) }, || true));
    }
}

#[test]
fn silences_in_a_row_only() {
    let ejection = Ejection::default();
    for now in 0..50 {
        assert!(!ejection.failed(attempt(Failure::Timeout, now), || true));
        ejection.reached(WEB);
    }
}

#[test]
fn what_is_not_the_backends_fault_is_not_held_against_it() {
    let ejection = Ejection::default();
    for failure in [Failure::NoBackend, Failure::Limit, Failure::Reset] {
        assert!(!ejection.failed(attempt(failure, 1), || true));
    }
    assert!(ejection.claim(WEB, 1, LEASE));
}

#[test]
fn the_last_one_is_not_ejected() {
    let ejection = Ejection::default();
    for now in 0..9 {
        assert!(!ejection.failed(attempt(Failure::Refused, now), || false));
    }
    assert!(!ejection.is_out(WEB, 9));
    assert!(ejection.failed(attempt(Failure::Refused, 9), || true), "as soon as there is another");
}

#[test]
fn one_asks_again_when_the_pause_is_over() {
    let ejection = Ejection::default();
    ejection.failed(attempt(Failure::Refused, 0), || true);
    assert!(!ejection.claim(WEB, FIRST_PAUSE / 2, LEASE));
    assert!(ejection.claim(WEB, FIRST_PAUSE, LEASE));
    assert!(!ejection.claim(WEB, FIRST_PAUSE, LEASE), "one alone");
    assert!(ejection.claim(WEB, FIRST_PAUSE + 2_000, LEASE), "whose answer never came");
}

proptest! {
    #[test]
    fn a_standing_is_its_word(until in 0u64..1 << 36, door in 0u64..1 << 17, asked: bool, points in 0u64..8, times in 0u64..64) {
        let standing = Standing { until, door, asked, points, times };
        prop_assert_eq!(Standing::of(standing.word()), standing);
    }

    /// Pauses double to the longest, however many attempts fail beside the one that asks again, and end.
    #[test]
    fn pauses_grow_within_their_bounds(beside in prop::collection::vec(0usize..20, 1..12), random: u64) {
        let ejection = Ejection::default();
        let fail = |now| ejection.failed(Failed { random, ..attempt(Failure::Refused, now) }, || true);
        let mut now = 5;
        prop_assert!(fail(now));
        for (round, others) in beside.into_iter().enumerate() {
            for _ in 0..others {
                prop_assert!(!fail(now), "only the one that asks again lengthens the pause");
            }
            let full = (FIRST_PAUSE << round.min(6)).min(LONGEST_PAUSE);
            prop_assert!(ejection.is_out(WEB, now + full * 3 / 4 - 1));
            prop_assert!(!ejection.is_out(WEB, now + full));
            now += full;
            prop_assert!(ejection.claim(WEB, now, LEASE));
            prop_assert!(fail(now));
        }
        now += LONGEST_PAUSE;
        prop_assert!(ejection.claim(WEB, now, LEASE));
        ejection.reached(WEB);
        prop_assert!(!ejection.is_any_out(now) && ejection.claim(WEB, now, LEASE));
    }
}
