//! In proportion to weights, spread out: no backend gets its share in one run. The n-th choice is the fractional part
//! of n times the golden ratio, laid over the weights side by side; that sequence leaves no gap anywhere, so after any
//! number of choices every backend is within a few of its exact share. No state but the turn.

use super::{Candidate, Draw};

#[derive(Debug)]
pub(crate) struct Weighted {
    /// The sum of the weights up to and including each backend.
    ends: Box<[u64]>,
}

/// 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Weighted {
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        let ends = candidates
            .iter()
            .scan(0, |sum, candidate| {
                *sum += u64::from(candidate.weight.max(1));
                Some(*sum)
            })
            .collect();
        Self { ends }
    }

    pub(super) fn pick(&self, draw: &Draw<'_>, count: usize) -> Option<usize> {
        let total = u128::from(*self.ends.last()?);
        let fraction = u128::from(draw.turn.wrapping_mul(STEP));
        let point = u64::try_from((fraction * total) >> 64).ok()?;
        draw.from(self.ends.partition_point(|end| *end <= point), count)
    }
}
