//! What the data plane counts, as it goes over the link.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// The revision that is served.
    pub revision: u64,
}
