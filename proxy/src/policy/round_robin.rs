//! Everybody in turn.

use super::{Draw, Field, instead};

pub(super) fn pick(draw: &Draw, field: &impl Field) -> Option<usize> {
    let turn = draw.turn % u64::try_from(field.count()).ok()?;
    let index = usize::try_from(turn).ok()?;
    if field.is_out(index) { instead(draw.random, field, |_| 1) } else { Some(index) }
}
