//! Which backend takes the next connection. Pure: what a choice depends on (the turn, the client, a random number, how
//! busy the backends are) is handed in. A policy is prepared once per change of the backends, off the data path.

mod least_open;
mod maglev;
mod round_robin;
mod source_hash;
mod weighted;

use std::net::{IpAddr, SocketAddr};

use crate::table::Policy;

/// A backend as policies see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Its lasting name: what hashing policies hash, so that all nodes agree.
    pub(crate) key: &'a str,
    pub(crate) weight: u16,
}

/// What one choice is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw<'a> {
    /// Counts the choices of this service.
    pub(crate) turn: u64,
    pub(crate) client: SocketAddr,
    pub(crate) random: u64,
    /// Indexes that have failed for this connection already.
    pub(crate) tried: &'a [u16],
}

impl Draw<'_> {
    fn is_tried(&self, index: usize) -> bool {
        self.tried.iter().any(|tried| usize::from(*tried) == index)
    }

    /// `index`, or the next one after it that was not tried.
    fn from(&self, index: usize, count: usize) -> Option<usize> {
        (0..count).map(|step| (index + step) % count).find(|index| !self.is_tried(*index))
    }
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

    /// The index of one of `count` backends, none of the tried ones. `load` tells (open connections, weight).
    pub(crate) fn pick(
        &self,
        draw: &Draw<'_>,
        count: usize,
        load: impl Fn(usize) -> (u32, u16),
    ) -> Option<usize> {
        if count == 0 {
            return None;
        }
        match self {
            Self::RoundRobin => round_robin::pick(draw, count),
            Self::Weighted(prepared) => prepared.pick(draw, count),
            Self::LeastOpen => least_open::pick(draw, count, load),
            Self::SourceHash(prepared) => prepared.pick(draw),
            Self::Maglev(prepared) => prepared.pick(draw, count),
        }
    }
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
fn hash_address(address: IpAddr) -> u64 {
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    // Both halves are kept by the casts together.
    mix(mix((bits >> 64) as u64) ^ bits as u64)
}

#[cfg(test)]
mod tests;
