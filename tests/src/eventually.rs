//! The one way to wait: ask again until the answer is right or the deadline has passed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Calls `ask` until it succeeds and gives its value; the last failure is the error's cause.
pub fn eventually<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("not within {deadline:?}: {what}"));
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// Checks for the whole of `span` that `ask` goes on succeeding; for what must not happen.
pub fn throughout(span: Duration, what: &str, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        ask().with_context(|| format!("did not hold for {span:?}: {what}"))?;
        std::thread::park_timeout(PAUSE);
    }
    Ok(())
}

const PAUSE: Duration = Duration::from_millis(15);
