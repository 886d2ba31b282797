//! Which backend takes the next connection. Pure: what a choice depends on (the turn, the client, a random number, how
//! busy the backends are, who is out of the question) is handed in. A policy is prepared once per change of the
//! backends, off the data path.

mod least_open;
mod maglev;
mod round_robin;
mod source_hash;
mod weighted;

use std::net::{IpAddr, SocketAddr};

use crate::table::Policy;

/// A backend as policies see it when they are prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Its lasting name: what hashing policies hash, so that all nodes agree.
    pub(crate) key: &'a str,
    pub(crate) weight: u16,
}

/// What one choice is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    /// Counts the choices of this service.
    pub(crate) turn: u64,
    pub(crate) client: SocketAddr,
    /// All connections of a client's address are alike, whatever port they come from.
    pub(crate) by_address: bool,
    pub(crate) random: u64,
}

/// The backends as they are at the moment of a choice, by their index.
pub(crate) trait Field {
    fn count(&self) -> usize;

    /// It is not to be chosen: it has been tried for this connection, or is ejected.
    fn is_out(&self, index: usize) -> bool;

    /// Connections and flows open, and weight.
    fn load(&self, index: usize) -> (u32, u16);
}

/// A prepared policy.
#[derive(Debug)]
pub(crate) enum Picker {
    RoundRobin,
    Weighted(weighted::Weighted),
    LeastOpen,
    SourceHash(source_hash::SourceHash),
    Maglev(maglev::Maglev),
}

impl Picker {
    pub(crate) fn new(policy: Policy, candidates: &[Candidate<'_>]) -> Self {
        match policy {
            Policy::RoundRobin => Self::RoundRobin,
            Policy::Weighted => Self::Weighted(weighted::Weighted::new(candidates)),
            Policy::LeastOpen => Self::LeastOpen,
            Policy::SourceHash => Self::SourceHash(source_hash::SourceHash::new(candidates)),
            Policy::Maglev => Self::Maglev(maglev::Maglev::new(candidates)),
        }
    }

    /// The index of one who is not out; `None` when everybody is.
    pub(crate) fn pick(&self, draw: &Draw, field: &impl Field) -> Option<usize> {
        if field.count() == 0 {
            return None;
        }
        match self {
            Self::RoundRobin => round_robin::pick(draw, field),
            Self::Weighted(prepared) => prepared.pick(draw, field),
            Self::LeastOpen => least_open::pick(draw, field),
            Self::SourceHash(prepared) => prepared.pick(draw, field),
            Self::Maglev(prepared) => prepared.pick(draw, field),
        }
    }
}

/// Somebody at random in the place of one who is out, so that the share of the one is spread over all others and does
/// not double that of its neighbour.
fn instead(random: u64, field: &impl Field, weight: impl Fn(usize) -> u64) -> Option<usize> {
    let left = || (0..field.count()).filter(|index| !field.is_out(*index));
    let total: u64 = left().map(&weight).sum();
    let mut point = below(random, total);
    let mut last = None;
    for index in left() {
        last = Some(index);
        let share = weight(index);
        if point < share {
            break;
        }
        point -= share;
    }
    // Who is out may change between the two walks: then it is the last one that was met.
    last
}

/// A random number as one below `bound`.
fn below(random: u64, bound: u64) -> u64 {
    // The high half of the product is below `bound`.
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Mixes all bits of `value` into all bits of the result (the finisher of splitmix64): the same on every machine.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A hash of a name: the same on every machine and in every release, because nodes must agree.
fn hash_key(key: &str, seed: u64) -> u64 {
    let fnv = key.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    mix(fnv)
}

/// A hash of an address. An IPv4 client hashes alike whether it came in as such or mapped into IPv6.
pub(crate) fn hash_address(address: IpAddr) -> u64 {
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    // Both halves are kept by the casts together.
    mix(mix((bits >> 64) as u64) ^ bits as u64)
}

#[cfg(test)]
mod tests;
