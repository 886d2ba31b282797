//! The results for programs: facts, every single value, and what the table makes of them.

use serde::Serialize;

use crate::figures::{FIGURES, NETD, Verdict};
use crate::measure::{Results, Summary};
use crate::report::facts::Facts;

#[derive(Serialize)]
struct Report<'a> {
    facts: &'a Facts,
    figures: Vec<Told>,
    results: &'a Results,
}

#[derive(Serialize)]
struct Told {
    row: &'static str,
    figure: &'static str,
    what: &'static str,
    unit: &'static str,
    base: &'static str,
    contenders: Vec<Measured>,
    goals: Vec<Judged>,
}

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    value: Option<Summary>,
    ratio: Option<Summary>,
}

#[derive(Serialize)]
struct Judged {
    goal: String,
    met: Option<bool>,
    /// A share of the goal; what is there where nothing should be.
    short_by: Option<f64>,
}

pub(crate) fn render(facts: &Facts, results: &Results) -> serde_json::Result<String> {
    let measured = FIGURES.iter().filter(|figure| !results.contenders(figure.id).is_empty());
    let figures = measured.map(|figure| Told {
        row: figure.row,
        figure: figure.id,
        what: figure.what,
        unit: figure.unit,
        base: figure.base,
        contenders: results
            .contenders(figure.id)
            .into_iter()
            .map(|name| Measured {
                name,
                value: results.value(figure.id, name),
                ratio: results.ratio(figure.id, name, figure.base),
            })
            .collect(),
        goals: figure
            .goals
            .iter()
            .map(|goal| {
                let verdict = goal.judge(figure.id, results);
                let met = (verdict != Verdict::Unmeasured).then_some(verdict == Verdict::Met);
                let short_by = match verdict {
                    Verdict::Short(by) | Verdict::Over(by) => Some(by),
                    Verdict::Met | Verdict::Unmeasured => None,
                };
                Judged { goal: format!("{NETD} {goal}"), met, short_by }
            })
            .collect(),
    });
    serde_json::to_string_pretty(&Report { facts, figures: figures.collect(), results })
}
