//! From a container's id to the names that it has with netd.

use netd_api::value::SandboxName;
use sha2::{Digest as _, Sha256};

use super::Environment;
use crate::error::{Code, Failure, Result};

impl Environment {
    /// The first twelve characters, as people know containers by.
    pub(super) fn short(&self) -> &str {
        short(&self.container)
    }
}

/// One sandbox a container, whatever networks it is on: a DEL needs no memory to find it again.
pub(crate) fn sandbox_name(container: &str) -> Result<SandboxName> {
    let name = format!("cni-{}-{}", short(container), hash(&[container]));
    name.parse().map_err(|error: netd_api::value::Invalid| {
        Failure::new(Code::InvalidEnvironment, "invalid container id", error.to_string())
    })
}

/// 16 hex digits of all parts together.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}
