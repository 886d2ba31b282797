//! Whose turn it is to come first. Each of n comes first in exactly one of n successive answers, whatever n was before.

/// Counts the answers given for one name and family.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn(u32);

impl Turn {
    /// The place to start at among `among`; the next answer starts one further on.
    pub(crate) fn take(&mut self, among: usize) -> usize {
        let among = u32::try_from(among.max(1)).unwrap_or(u32::MAX);
        let turn = self.0 % among;
        self.0 = (turn + 1) % among;
        turn as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everybody_is_first_equally_often(among in 1_usize..40, rounds in 1_usize..5, before in 0_usize..100, was in 1_usize..40) {
            let mut turn = Turn::default();
            for _ in 0..before {
                turn.take(was);
            }
            let mut first = vec![0; among];
            for _ in 0..among * rounds {
                first[turn.take(among)] += 1;
            }
            prop_assert!(first.iter().all(|count| *count == rounds));
        }
    }
}
