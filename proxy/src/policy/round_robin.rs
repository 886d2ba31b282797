//! Everybody in turn.

use super::Draw;

pub(super) fn pick(draw: &Draw<'_>, count: usize) -> Option<usize> {
    let turn = draw.turn % u64::try_from(count).ok()?;
    draw.from(usize::try_from(turn).ok()?, count)
}
