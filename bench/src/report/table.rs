//! Each figure beside its row of the goals, as text.

use std::fmt::Write as _;

use crate::figures::{FIGURES, Figure, NETD, Verdict};
use crate::measure::{Name, Results, Summary};

/// One line a figure that was measured, then what could not be measured and why.
pub(crate) fn render(results: &Results) -> String {
    let mut rows =
        vec![["row", "what", "netd (min-max)", "ratio (min-max)", "others", "goal", ""].map(String::from)];
    for figure in FIGURES {
        if !results.contenders(figure.id).is_empty() {
            rows.push(row(figure, results));
        }
    }
    let mut text = align(&rows);
    if !results.troubles.is_empty() {
        text.push_str("\nnot measured, or gone wrong:\n");
    }
    for trouble in &results.troubles {
        // The whole of it is in the JSON.
        let line: String = trouble.what.lines().next().unwrap_or_default().chars().take(200).collect();
        let _ = writeln!(text, "  {}: {line}", trouble.contender);
    }
    text
}

fn row(figure: &Figure, results: &Results) -> [String; 7] {
    let told = |summary: Summary, unit: &str| {
        let Summary { median, least, greatest } = summary;
        let spread = format!("{}-{}", number(least), number(greatest));
        format!("{}{}{unit} ({spread})", number(median), if unit.is_empty() { "" } else { " " })
    };
    let ours =
        results.value(figure.id, NETD).map_or_else(|| "-".into(), |summary| told(summary, figure.unit));
    let ratio =
        results.ratio(figure.id, NETD, figure.base).map_or_else(|| "-".into(), |summary| told(summary, ""));
    let others = results.contenders(figure.id).into_iter().filter(|name| *name != NETD);
    let others: Vec<_> = others.filter_map(|name| other(figure, results, name)).collect();
    let goals: Vec<_> = figure.goals.iter().map(ToString::to_string).collect();
    let verdicts: Vec<_> = figure.goals.iter().map(|goal| verdict(goal.judge(figure.id, results))).collect();
    [
        figure.row.into(),
        figure.what.into(),
        ours,
        ratio,
        others.join(", "),
        goals.join(", "),
        verdicts.join(", "),
    ]
}

/// The base by its value, the rest by their ratio to it.
fn other(figure: &Figure, results: &Results, name: Name) -> Option<String> {
    let value = results.value(figure.id, name)?.median;
    match results.ratio(figure.id, name, figure.base) {
        Some(ratio) if name != figure.base => Some(format!("{name} {}", number(ratio.median))),
        _ => Some(format!("{name} {} {}", number(value), figure.unit).trim_end().into()),
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Met => "met".into(),
        Verdict::Short(by) if by >= 1.0 => format!("short: {} times the goal", number(by + 1.0)),
        Verdict::Short(by) => format!("short by {:.0} %", (by * 100.0).max(1.0)),
        Verdict::Over(by) => format!("short by {}", number(by)),
        Verdict::Unmeasured => "not measured".into(),
    }
}

/// Three digits that count, thousands as `k`.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 10_000.0 => format!("{:.1}k", value / 1000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn align(rows: &[[String; 7]]) -> String {
    let mut widths = [0; 7];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_beside_its_goal() {
        let mut results = Results::default();
        for (name, value) in [("netd", 18.0), ("direct", 20.0), ("docker-proxy", 9.0)] {
            results.record("bulk-1", name, 1, value);
        }
        results.trouble("haproxy", "haproxy is missing; install the package haproxy");
        let text = render(&results);
        let row = text.lines().find(|line| line.starts_with("P1")).unwrap();
        for wanted in
            ["18.0 Gbit/s", "0.90", "direct 20.0 Gbit/s, docker-proxy 0.45", ">= 0.9 x direct", "met, met"]
        {
            assert!(row.contains(wanted), "{wanted} in {row}");
        }
        assert!(text.contains("install the package haproxy"));
    }
}
