//! In proportion to weights, spread out: no backend gets its share in one run. The n-th choice is the fractional part
//! of n times the golden ratio, laid over the weights side by side; that sequence leaves no gap anywhere, so after any
//! number of choices every backend is within a few of its exact share. No state but the turn.

use super::{Candidate, Draw, Field, below, instead};

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

    pub(super) fn pick(&self, draw: &Draw, field: &impl Field) -> Option<usize> {
        let point = below(draw.turn.wrapping_mul(STEP), *self.ends.last()?);
        let index = self.ends.partition_point(|end| *end <= point);
        if field.is_out(index) {
            return instead(draw.random, field, |index| u64::from(field.load(index).1.max(1)));
        }
        Some(index)
    }
}
