//! How many answers make a verdict. Pure.

use crate::table::Check;

/// What is known of one target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    well: Option<bool>,
    /// Answers in a row that were like the last one.
    row: u16,
    last: bool,
}

impl Verdict {
    /// Notes an answer; a verdict that is not what it was before is returned.
    pub(super) fn note(&mut self, good: bool, check: &Check) -> Option<bool> {
        self.row = if good == self.last { self.row.saturating_add(1) } else { 1 };
        self.last = good;
        let enough = if good { check.rise } else { check.fall };
        let changes = self.row >= enough.max(1) && self.well != Some(good);
        changes.then(|| *self.well.insert(good))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::table::Probe;

    fn check(rise: u16, fall: u16) -> Check {
        let second = Duration::from_secs(1);
        Check { probe: Probe::Tcp { port: None }, interval: second, timeout: second, rise, fall }
    }

    #[test]
    fn it_takes_as_many_in_a_row_as_the_check_says() {
        let (mut verdict, check) = (Verdict::default(), check(2, 3));
        let told: Vec<Option<bool>> =
            [true, false, true, true, true, false, false, true, false, false, false, false, true, true]
                .map(|good| verdict.note(good, &check))
                .into();
        let mut expected = vec![None; 14];
        expected[3] = Some(true);
        expected[10] = Some(false);
        expected[13] = Some(true);
        assert_eq!(told, expected);
    }

    proptest! {
        #[test]
        fn verdicts_alternate_and_rest_on_a_whole_row(
            answers in prop::collection::vec(any::<bool>(), 0..200),
            rise in 0u16..5,
            fall in 0u16..5,
        ) {
            let (mut verdict, check) = (Verdict::default(), check(rise, fall));
            let mut before = None;
            for (at, good) in answers.iter().enumerate() {
                let Some(well) = verdict.note(*good, &check) else { continue };
                prop_assert_ne!(before.replace(well), Some(well));
                let row = usize::from(if well { rise } else { fall }.max(1));
                prop_assert!(at + 1 >= row && answers[at + 1 - row..=at].iter().all(|answer| *answer == well));
            }
        }
    }
}
