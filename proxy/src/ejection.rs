//! Passive ejection: who fails to connect is passed over for a while, longer each time, and then asked again by one
//! connection. What is ejected is a backend's port that refuses (a service may have other ports that are served), or the
//! whole backend when it is silent or cannot be reached. It is tried all the same when nobody else is left.
//!
//! The rules are pure: a [`Standing`] is one word, every step makes the next from it. The shell is an atomic that all
//! workers share, so nobody waits for anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::Failure;
use crate::table::Protocol;

/// Points in a row that eject. A refusal or "unreachable" is an answer: it ejects at once. Silence may be one lost
/// packet, so it takes two, but of another node, whose data plane is always quick: there it is the machine.
const EJECTED_AT: u64 = 2;
const FIRST_PAUSE: u64 = 1_000;
const LONGEST_PAUSE: u64 = 60_000;

/// What of a backend is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Door(u64);

impl Door {
    /// All of it.
    const WHOLE: Self = Self(0);

    /// Of one port; `None`: that of the backend's own address.
    pub(crate) fn new(protocol: Protocol, port: Option<u16>) -> Self {
        let transport = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
        };
        Self(transport << 16 | u64::from(port.unwrap_or(0)))
    }
}

/// How much a failed attempt counts, and against what. `None`: it is not the backend's fault.
fn weigh(failure: Failure, door: Door, is_remote: bool) -> Option<(Door, u64)> {
    match failure {
        Failure::Refused => Some((door, EJECTED_AT)),
        Failure::Unreachable => Some((Door::WHOLE, EJECTED_AT)),
        Failure::Timeout if is_remote => Some((Door::WHOLE, EJECTED_AT)),
        Failure::Timeout => Some((Door::WHOLE, 1)),
        // Its node has no such backend any more, or no room; the tables will say so, if they can.
        Failure::NoBackend | Failure::Limit if is_remote => Some((Door::WHOLE, EJECTED_AT)),
        Failure::NoBackend | Failure::Limit | Failure::Reset | Failure::Loop => None,
    }
}

/// From the lowest bit: 36 of the moment until which it is out, 17 of the door, 1 that it is being asked again, 3 of
/// points, 6 of how many times in a row it was ejected. Zero: nothing is held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    until: u64,
    door: u64,
    asked: bool,
    points: u64,
    times: u64,
}

impl Standing {
    fn of(word: u64) -> Self {
        Self {
            until: word & 0xf_ffff_ffff,
            door: word >> 36 & 0x1_ffff,
            asked: word >> 53 & 1 == 1,
            points: word >> 54 & 7,
            times: word >> 57 & 63,
        }
    }

    fn word(self) -> u64 {
        self.until.min(0xf_ffff_ffff)
            | (self.door & 0x1_ffff) << 36
            | u64::from(self.asked) << 53
            | self.points.min(7) << 54
            | self.times.min(63) << 57
    }

    fn is_out(self, door: Door, now: u64) -> bool {
        self.door == door.0 && self.times > 0 && now < self.until
    }

    /// The pause is over: whoever claims this is the one who asks again, and others wait until `lease` for the answer.
    fn claimed(self, door: Door, now: u64, lease: u64) -> Option<Self> {
        let is_due = self.door == door.0 && self.times > 0 && now >= self.until;
        is_due.then_some(Self { until: now + lease, asked: true, ..self })
    }

    /// After one more failure, and whether that ejects it. `may`: somebody else is left.
    fn failed(self, door: Door, points: u64, now: u64, random: u64, may: bool) -> (Self, bool) {
        let fresh = Self { until: 0, door: door.0, asked: false, points: 0, times: 0 };
        let before = if self.door == door.0 { self } else { fresh };
        let out =
            |times| Self { until: now + pause(times, random), points: 0, asked: false, times, ..before };
        match before.times {
            // Who tried it as the last resort, or had been trying for long, tells nothing new.
            1.. if !before.asked => (before, false),
            1.. => (out((before.times + 1).min(63)), true),
            0 if before.points + points >= EJECTED_AT && may => (out(1), true),
            0 => (Self { points: before.points + points, ..before }, false),
        }
    }
}

/// Doubles from the first to the longest; a quarter of it is chance, so that not everybody asks at the same moment.
fn pause(times: u64, random: u64) -> u64 {
    let full = FIRST_PAUSE << (times.saturating_sub(1)).min(6);
    let full = full.min(LONGEST_PAUSE);
    full - random % (full / 4)
}

/// What is held against one backend: against the whole of it, and against its last few ports. Ports share places; who
/// comes later takes the place, and an ejection that is forgotten costs one more attempt.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    whole: AtomicU64,
    ports: [AtomicU64; PORTS],
}

const PORTS: usize = 4;

impl Ejection {
    pub(crate) fn is_out(&self, door: Door, now: u64) -> bool {
        self.places(door).any(|(place, door)| {
            let word = place.load(Ordering::Relaxed);
            word != 0 && Standing::of(word).is_out(door, now)
        })
    }

    /// Whether it may be tried: nothing is held against it, or its pause is over and nobody else asks. `lease`: by when
    /// there will have been an answer.
    pub(crate) fn claim(&self, door: Door, now: u64, lease: Duration) -> bool {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_PAUSE);
        self.places(door).all(|(place, door)| {
            let word = place.load(Ordering::Relaxed);
            if word == 0 {
                return true;
            }
            let standing = Standing::of(word);
            match standing.claimed(door, now, lease) {
                None => !standing.is_out(door, now),
                Some(claimed) => {
                    place.compare_exchange(word, claimed.word(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
                }
            }
        })
    }

    /// Notes a failed attempt; true when it is ejected by that. `may` is asked only when it would be.
    pub(crate) fn failed(&self, attempt: Failed, may: impl FnOnce() -> bool) -> bool {
        let Failed { failure, door, is_remote, now, random } = attempt;
        let Some((door, points)) = weigh(failure, door, is_remote) else { return false };
        let place = if door == Door::WHOLE { &self.whole } else { self.port(door) };
        let before = Standing::of(place.load(Ordering::Relaxed));
        let would = before.failed(door, points, now, random, true).1;
        let may = !would || before.times > 0 || may();
        let step = |word| Some(Standing::of(word).failed(door, points, now, random, may).0.word());
        match place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(word) => Standing::of(word).failed(door, points, now, random, may).1,
            Err(_) => false,
        }
    }

    /// It was reached: nothing is held against it any more.
    pub(crate) fn reached(&self, door: Door) {
        for (place, door) in self.places(door) {
            let word = place.load(Ordering::Relaxed);
            if word != 0 && Standing::of(word).door == door.0 {
                // One that has just changed belongs to a later attempt.
                let _ = place.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Whether anything of it is ejected.
    pub(crate) fn is_any_out(&self, now: u64) -> bool {
        std::iter::once(&self.whole).chain(&self.ports).any(|place| {
            let standing = Standing::of(place.load(Ordering::Relaxed));
            standing.times > 0 && now < standing.until
        })
    }

    fn port(&self, door: Door) -> &AtomicU64 {
        // Below the number of places, so it fits.
        &self.ports[(door.0 % PORTS as u64) as usize]
    }

    fn places(&self, door: Door) -> impl Iterator<Item = (&AtomicU64, Door)> {
        [(&self.whole, Door::WHOLE), (self.port(door), door)].into_iter()
    }
}

/// An attempt that came to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) door: Door,
    /// The backend is another node's.
    pub(crate) is_remote: bool,
    pub(crate) now: u64,
    pub(crate) random: u64,
}

#[cfg(test)]
mod tests;
