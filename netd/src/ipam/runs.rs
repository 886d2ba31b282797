//! A set of numbers kept as the runs it is made of, so that the next number outside it is one look-up away however
//! full it is.

use std::collections::BTreeMap;

/// Runs by their first number; no two touch or overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(BTreeMap<u128, u128>);

impl Runs {
    pub(super) fn insert(&mut self, first: u128, last: u128) {
        let mut merged = (first, last);
        if let Some((&before, &end)) = self.0.range(..first).next_back()
            && end.checked_add(1).is_none_or(|next| next >= first)
        {
            merged = (before, last.max(end));
        }
        let reach = merged.1.saturating_add(1);
        let swallowed: Vec<u128> = self.0.range(first..=reach).map(|(&start, _)| start).collect();
        for start in swallowed {
            if let Some(end) = self.0.remove(&start) {
                merged.1 = merged.1.max(end);
            }
        }
        self.0.insert(merged.0, merged.1);
    }

    pub(super) fn remove(&mut self, number: u128) {
        let Some((&first, &last)) = self.0.range(..=number).next_back() else { return };
        if last < number {
            return;
        }
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    /// The first number from `from` on that is in no run.
    pub(super) fn next_free(&self, from: u128) -> Option<u128> {
        match self.0.range(..=from).next_back() {
            Some((_, &last)) if last >= from => last.checked_add(1),
            _ => Some(from),
        }
    }

    /// The last number of the first run that has one of these numbers.
    pub(super) fn obstacle(&self, first: u128, last: u128) -> Option<u128> {
        let before = self.0.range(..=first).next_back().filter(|&(_, &end)| end >= first);
        before.or_else(|| self.0.range(first..=last).next()).map(|(_, &end)| end)
    }
}
