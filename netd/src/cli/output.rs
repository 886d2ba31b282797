//! What goes to the terminal or into a pipe: tables, JSON, outlines, and complaints on stderr. No colour, no ANSI: what a
//! person reads and what `awk` reads is the same.

mod outline;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::ValueEnum;
use netd_api::value::Timestamp;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// Columns as wide as their widest cell, two spaces between them, nothing after the last.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&title| title.to_owned()).collect()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _infallible = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

pub(super) fn print_line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    Ok(print_line(&serde_json::to_string_pretty(value)?)?)
}

/// As the format says: an outline is the table of a single thing.
pub(super) fn print_one(value: &impl Serialize, format: Format) -> Result<()> {
    match format {
        Format::Json => print_json(value),
        Format::Table => Ok(print(&outline::render(&serde_json::to_string(value)?)?)?),
    }
}

/// One line on stderr, whatever the causes contain.
pub(super) fn complain(error: &anyhow::Error) {
    eprintln!("netd: {}", one_line(&format!("{error:#}")));
}

pub(super) fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Whoever read our output has heard enough (`netd network ls | head -1`): no failure.
pub(super) fn closed(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(broken)
}

/// The first twelve characters.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// How long ago, in the largest unit that fits.
pub(super) fn ago(then: Timestamp, now: SystemTime) -> String {
    let seconds = now.duration_since(then.into()).unwrap_or(Duration::ZERO).as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

#[cfg(test)]
mod tests;
