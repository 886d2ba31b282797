//! The less busy of two chosen at random: nearly as even as asking all, without everybody rushing to the one that was
//! just added. Busy is open connections for its weight.

use super::{Draw, mix};

pub(super) fn pick(draw: &Draw<'_>, count: usize, load: impl Fn(usize) -> (u32, u16)) -> Option<usize> {
    let first = draw.from(spot(draw.random, count), count)?;
    let Some(second) = draw.from(spot(mix(draw.random), count - 1) + first + 1, count) else {
        return Some(first);
    };
    let cost = |index: usize| {
        let (open, weight) = load(index);
        ((u64::from(open) + 1) << 16) / u64::from(weight.max(1))
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

/// A random number as a place among `count`.
fn spot(random: u64, count: usize) -> usize {
    // The high half of the product is below `count`, which is a usize.
    ((u128::from(random) * count as u128) >> 64) as usize
}
