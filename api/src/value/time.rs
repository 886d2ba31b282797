//! A point in time: RFC 3339 in UTC; in requests seconds since 1970 as well.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Invalid, string_form};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(SystemTime);

impl From<SystemTime> for Timestamp {
    /// A clock before 1970 or after 9999 has no RFC 3339 form and is brought to the nearest that has one.
    fn from(time: SystemTime) -> Self {
        Self(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        let parsed = match seconds {
            Some(since) if since <= LAST => Some(UNIX_EPOCH + since),
            Some(_) => None,
            None => humantime::parse_rfc3339_weak(text).ok(),
        };
        parsed.map(Self::from).ok_or_else(|| {
            let remedy = "write it as 2026-01-31T08:00:00Z, or as seconds since 1970";
            Invalid::new("time", text, "it is not one", remedy)
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_nanos(self.0).fmt(f)
    }
}

string_form!(Timestamp, "RFC 3339 in UTC; in requests seconds since 1970 as well");

/// 9999-12-31T23:59:59Z.
const LAST: Duration = Duration::from_secs(253_402_300_799);
