//! One shape for every failure of the kernel: the deed, its object, the errno.

use std::fmt;
use std::io;

/// `cannot <deed> <object>: <errno text>`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {deed} {object}")]
pub struct KernelError {
    /// What was being done, as an infinitive: `create the veth pair`.
    pub deed: &'static str,
    /// To what: a link name, a path, an address.
    pub object: String,
    pub source: io::Error,
}

impl KernelError {
    pub fn new(deed: &'static str, object: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        Self { deed, object: object.to_string(), source: source.into() }
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// `.doing("bind", address)` on anything that fails with an errno.
pub trait Doing<T> {
    fn doing(self, deed: &'static str, object: impl fmt::Display) -> Result<T, KernelError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, deed: &'static str, object: impl fmt::Display) -> Result<T, KernelError> {
        self.map_err(|source| KernelError::new(deed, object, source))
    }
}
