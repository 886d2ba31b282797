//! A length of time: `500ms`, `10s`, `1m30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Invalid, string_form};

/// At most a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration.min(LONGEST))
    }
}

impl FromStr for Span {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: &str| Invalid::new("length of time", text, cause, "write it as 500ms, 10s or 1m");
        let parsed = humantime::parse_duration(text).map_err(|_| bad("it is none"))?;
        if parsed > LONGEST { Err(bad("it is longer than a day")) } else { Ok(Self(parsed)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One word: what is shown can be given again.
        let text = humantime::format_duration(self.0).to_string();
        f.write_str(&text.replace(' ', ""))
    }
}

string_form!(Span, "A length of time, at most a day: 500ms, 10s, 1m30s");

const LONGEST: Duration = Duration::from_secs(86_400);
