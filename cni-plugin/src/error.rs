//! How a call fails: a code of the specification, a message, and the details; and what the daemon's failures become.

use netd_api::client::ClientError;
use serde_json::{Value, json};

use crate::spec::Version;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub code: Code,
    pub message: String,
    pub details: String,
}

/// The specification's codes up to 99, and this plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    /// The runtime need not clean up.
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decoding = 6,
    InvalidConfig = 7,
    InvalidNamespace = 8,
    TryAgain = 11,
    /// An ADD now would fail.
    CannotServe = 50,
    /// The daemon refused: something is in the way, ran out, or the kernel said no.
    Refused = 100,
    /// What CHECK or GC found.
    Wrong = 101,
    Internal = 999,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// What the daemon, or its absence, means for the runtime.
    pub(crate) fn of_daemon(deed: impl Into<String>, error: &ClientError) -> Self {
        use netd_api::Code as Said;
        let code = match error.api().map(|api| api.code) {
            // What was looked up a moment ago has gone in between.
            None | Some(Said::Unavailable | Said::NotFound) => Code::TryAgain,
            Some(Said::Invalid | Said::Forbidden) => Code::InvalidConfig,
            Some(Said::Conflict | Said::Exhausted | Said::Kernel) => Code::Refused,
        };
        Self::new(code, deed, error.to_string())
    }

    /// What the kernel refused to a plugin that does without the daemon.
    pub(crate) fn of_kernel(error: &netd_sys::KernelError) -> Self {
        Self::new(Code::Refused, error.to_string(), error.source.to_string())
    }

    /// The error object, as stdout is to have it.
    pub(crate) fn object(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.as_str(),
            "code": self.code as u32,
            "msg": self.message,
            "details": self.details,
        })
    }
}
