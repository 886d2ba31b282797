//! The less busy of two chosen at random: nearly as even as asking all, without everybody rushing to the one that was
//! just added. Busy is open connections for its weight.

use super::{Draw, Field, below, instead, mix};

pub(super) fn pick(draw: &Draw, field: &impl Field) -> Option<usize> {
    let first = one_of(draw.random, field, None)?;
    let Some(second) = one_of(mix(draw.random), field, Some(first)) else { return Some(first) };
    let cost = |index: usize| {
        let (open, weight) = field.load(index);
        ((u64::from(open) + 1) << 16) / u64::from(weight.max(1))
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

/// One at random, not `but` that one.
fn one_of(random: u64, field: &impl Field, but: Option<usize>) -> Option<usize> {
    let (count, skipped) = (field.count(), usize::from(but.is_some()));
    let spot = below(random, (count - skipped) as u64) as usize;
    // Counted from behind the one that is left out, all others are as likely as each other.
    let index = but.map_or(spot, |but| (but + 1 + spot) % count);
    if index < count && Some(index) != but && !field.is_out(index) {
        return Some(index);
    }
    instead(mix(random ^ 1), &Without { field, but }, |_| 1)
}

struct Without<'f, F> {
    field: &'f F,
    but: Option<usize>,
}

impl<F: Field> Field for Without<'_, F> {
    fn count(&self) -> usize {
        self.field.count()
    }

    fn is_out(&self, index: usize) -> bool {
        Some(index) == self.but || self.field.is_out(index)
    }

    fn load(&self, index: usize) -> (u32, u16) {
        self.field.load(index)
    }
}
