//! Moments: milliseconds since this process first asked, so that they fit into an atomic beside other things.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn moment(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(*EPOCH).as_millis()).unwrap_or(u64::MAX)
}

/// The first instant of that moment; none when it is too far away ever to come.
pub(crate) fn instant(moment: u64) -> Option<Instant> {
    EPOCH.checked_add(Duration::from_millis(moment))
}
