//! What was measured: one value a contender, figure and round. Everything told of it later (medians, ratios, spreads) is
//! worked out here, from values of the same round, because this machine's speed drifts from minute to minute.

use std::collections::BTreeMap;

use serde::Serialize;

/// Who is measured, by the name the table and `--only` use.
pub(crate) type Name = &'static str;

/// What is measured; see [`crate::figures::FIGURES`].
pub(crate) type FigureId = &'static str;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) figure: FigureId,
    pub(crate) contender: Name,
    pub(crate) round: usize,
    pub(crate) value: f64,
}

/// A contender that is not here, or a run of it that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Trouble {
    pub(crate) contender: Name,
    pub(crate) what: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) samples: Vec<Sample>,
    pub(crate) troubles: Vec<Trouble>,
}

/// Median, and the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Results {
    pub(crate) fn record(&mut self, figure: FigureId, contender: Name, round: usize, value: f64) {
        self.samples.push(Sample { figure, contender, round, value });
    }

    pub(crate) fn trouble(&mut self, contender: Name, what: impl Into<String>) {
        let trouble = Trouble { contender, what: what.into() };
        if !self.troubles.contains(&trouble) {
            eprintln!("  {contender}: {}", trouble.what);
            self.troubles.push(trouble);
        }
    }

    /// Those measured in `figure`, in the order in which they came.
    pub(crate) fn contenders(&self, figure: FigureId) -> Vec<Name> {
        let mut names = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.figure == figure) {
            if !names.contains(&sample.contender) {
                names.push(sample.contender);
            }
        }
        names
    }

    pub(crate) fn value(&self, figure: FigureId, contender: Name) -> Option<Summary> {
        Summary::of(self.rounds(figure, contender).into_values())
    }

    /// `contender` against `base`, round by round.
    pub(crate) fn ratio(&self, figure: FigureId, contender: Name, base: Name) -> Option<Summary> {
        let bases = self.rounds(figure, base);
        let ours = self.rounds(figure, contender);
        Summary::of(ours.into_iter().filter_map(|(round, value)| {
            let base = bases.get(&round).filter(|base| **base > 0.0)?;
            Some(value / base)
        }))
    }

    fn rounds(&self, figure: FigureId, contender: Name) -> BTreeMap<usize, f64> {
        let of_both =
            self.samples.iter().filter(|sample| sample.figure == figure && sample.contender == contender);
        of_both.map(|sample| (sample.round, sample.value)).collect()
    }
}

impl Summary {
    /// None of no values.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let upper = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[upper]
        } else {
            f64::midpoint(values[upper - 1], values[upper])
        };
        Some(Self { median, least, greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut results = Results::default();
        for (round, (ours, base)) in [(10.0, 20.0), (30.0, 40.0), (9.0, 10.0)].into_iter().enumerate() {
            results.record("bulk-1", "netd", round, ours);
            results.record("bulk-1", "direct", round, base);
        }
        results.record("bulk-1", "netd", 3, 1e9); // the base failed in this round
        let ratio = results.ratio("bulk-1", "netd", "direct");
        assert_eq!(ratio, Some(Summary { median: 0.75, least: 0.5, greatest: 0.9 }));
        assert_eq!(results.ratio("bulk-1", "netd", "haproxy"), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let summary = Summary::of([4.0, 1.0, 2.0, 3.0].into_iter());
        assert_eq!(summary, Some(Summary { median: 2.5, least: 1.0, greatest: 4.0 }));
    }
}
