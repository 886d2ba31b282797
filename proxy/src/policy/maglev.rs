//! Maglev hashing: a table of places, filled by the backends in turns according to each one's own order of preference.
//! A connection (client address and port) has one place, so every node picks the same backend for it, in constant time
//! however many backends there are; a backend that goes or comes moves little more than its own share.

use super::{Candidate, Draw, Field, hash_address, hash_key, instead, mix};

#[derive(Debug)]
pub(crate) struct Maglev {
    places: Box<[u16]>,
}

/// Primes; the table has at least a hundred places per backend, so that shares are even within one per cent. Few sizes,
/// far apart: a table of another size is another table, and every connection would have another place. The last is
/// enough for as many backends as a pool may have.
pub(super) const SIZES: [u32; 4] = [16_381, 262_139, 1_048_573, 7_340_033];
const PLACES_PER_BACKEND: usize = 100;
const FREE: u16 = u16::MAX;

impl Maglev {
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        if candidates.is_empty() {
            return Self { places: Box::default() };
        }
        let wanted = candidates.len().saturating_mul(PLACES_PER_BACKEND);
        let size = SIZES.into_iter().find(|size| *size as usize >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
        Self { places: fill(candidates, size) }
    }

    pub(super) fn pick(&self, draw: &Draw, field: &impl Field) -> Option<usize> {
        let port = if draw.by_address { 0 } else { draw.client.port() };
        let connection = mix(hash_address(draw.client.ip()) ^ mix(u64::from(port)));
        let start = usize::try_from(connection % u64::try_from(self.places.len().max(1)).ok()?).ok()?;
        let chosen = usize::from(*self.places.get(start)?);
        if !field.is_out(chosen) {
            return Some(chosen);
        }
        // The backend of the next places: clients of one that fails are spread over all others.
        let others = self.places[start..].iter().chain(&self.places[..start]);
        others
            .take(PLACES_PER_BACKEND)
            .map(|place| usize::from(*place))
            .find(|index| !field.is_out(*index))
            .or_else(|| instead(connection, field, |_| 1))
    }
}

/// A backend's walk through the table: a start and a step of its own reach every place, since the size is prime.
struct Walk {
    next: u32,
    step: u32,
    weight: u32,
    credit: u32,
}

impl Walk {
    fn new(candidate: &Candidate<'_>, size: u32) -> Self {
        let below = |hash: u64, bound: u32| (hash % u64::from(bound)) as u32;
        Self {
            next: below(hash_key(candidate.key, 1), size),
            step: below(hash_key(candidate.key, 2), size - 1) + 1,
            weight: u32::from(candidate.weight.max(1)),
            credit: 0,
        }
    }

    fn advance(&mut self, size: u32) -> usize {
        let place = self.next;
        self.next = (self.next + self.step) % size;
        place as usize
    }
}

fn fill(candidates: &[Candidate<'_>], size: u32) -> Box<[u16]> {
    let mut walks: Vec<Walk> = candidates.iter().map(|candidate| Walk::new(candidate, size)).collect();
    let heaviest = walks.iter().map(|walk| walk.weight).max().unwrap_or(1);
    let mut places = vec![FREE; size as usize].into_boxed_slice();
    let mut left = places.len();
    while left > 0 {
        for (index, walk) in walks.iter_mut().enumerate() {
            // A backend of half the weight takes a place in every other round.
            walk.credit += walk.weight;
            if walk.credit < heaviest {
                continue;
            }
            walk.credit -= heaviest;
            if left == 0 {
                break;
            }
            let place = std::iter::repeat_with(|| walk.advance(size))
                .find(|place| places[*place] == FREE)
                .unwrap_or_default();
            places[place] = u16::try_from(index).unwrap_or_default();
            left -= 1;
        }
    }
    places
}

#[cfg(test)]
impl Maglev {
    /// The share of the table that each backend holds.
    pub(super) fn shares(&self, count: usize) -> Vec<f64> {
        let mut held = vec![0u32; count];
        self.places.iter().for_each(|place| held[usize::from(*place)] += 1);
        held.into_iter().map(|held| f64::from(held) / self.places.len() as f64).collect()
    }
}
