//! For programs that show something to a person: what comes next, the commands as typed, and what they print.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::command::{Finished, Process};
use crate::eventually::eventually;
use crate::place::Place;

/// What comes next, as a headline.
pub fn say(text: &str) {
    println!("\n== {text}");
}

/// A command as typed, and what it printed; it must succeed.
pub fn show(place: &Place, line: &str) -> Result<Finished> {
    shown(place, line)?.success()
}

/// The same, however it ends.
pub fn shown(place: &Place, line: &str) -> Result<Finished> {
    println!("{}$ {line}", place.name);
    let finished = place.run(line)?;
    let mut text = String::new();
    for line in finished.stdout.lines().chain(finished.stderr.lines()) {
        let _ = writeln!(text, "  {line}");
    }
    print!("{text}");
    Ok(finished)
}

/// A program that goes on.
pub fn background(place: &Place, line: &str) -> Result<Process> {
    println!("{}$ {line} &", place.name);
    place.start(line)
}

/// Repeats a command until it prints `wanted`, while the program it asks still starts; then shows it.
pub fn wait_for(place: &Place, line: &str, wanted: &str) -> Result<()> {
    eventually(Duration::from_secs(10), line, || {
        let seen = place.look(line)?;
        ensure!(seen.contains(wanted), "it printed {seen:?}");
        Ok(())
    })?;
    show(place, line).map(drop)
}
