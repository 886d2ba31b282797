//! Why a request was not done. Managers fail with the API's own error; what comes from below is turned into one here.

use std::fmt;

use netd_api::{ApiError, Code};
use netd_sys::KernelError;

use crate::ipam::IpamError;
use crate::store::{CommitError, RecordError, StoreError};

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// A failed request that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Fault(#[from] pub ApiError);

impl From<netd_api::value::Invalid> for Fault {
    fn from(error: netd_api::value::Invalid) -> Self {
        ApiError::invalid(error.to_string()).into()
    }
}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Self {
        ApiError::kernel(Chain(&error).to_string()).into()
    }
}

impl From<IpamError> for Fault {
    fn from(error: IpamError) -> Self {
        let code = match &error {
            IpamError::Invalid(_) => Code::Invalid,
            IpamError::Overlap { .. }
            | IpamError::Routed { .. }
            | IpamError::Promised { .. }
            | IpamError::AddressTaken { .. } => Code::Conflict,
            IpamError::PoolsExhausted { .. }
            | IpamError::AddressesExhausted { .. }
            | IpamError::VipsExhausted { .. } => Code::Exhausted,
        };
        ApiError::new(code, error.to_string()).into()
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        let code = match &error {
            CommitError::Conflict { .. } => Code::Conflict,
            CommitError::Write { .. }
            | CommitError::Unavailable { .. }
            | CommitError::Unheard
            | CommitError::Refused { .. }
            | CommitError::TooMany { .. }
            | CommitError::Unclear { .. } => Code::Unavailable,
        };
        ApiError::new(code, Chain(&error).to_string()).into()
    }
}

impl From<RecordError> for Fault {
    fn from(error: RecordError) -> Self {
        ApiError::invalid(Chain(&error).to_string()).into()
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        ApiError::unavailable(Chain(&error).to_string()).into()
    }
}

/// An error with its causes on one line: `cannot create the bridge nd-1: File exists`.
pub(crate) struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
