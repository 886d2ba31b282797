//! One shape for every failure of the kernel: the deed, its object, the errno, and what the kernel itself had to say.

use std::fmt;
use std::io;

/// `cannot <deed> <object>`, with the kernel's own remark where it made one; the errno is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {deed} {object}{}", remark(.note.as_deref()))]
pub struct KernelError {
    /// What was being done, as an infinitive: `create the veth pair`.
    pub deed: &'static str,
    /// To what: a link name, a path, an address.
    pub object: String,
    /// The kernel's extended acknowledgement, where there is one.
    pub note: Option<String>,
    pub source: io::Error,
}

impl KernelError {
    pub fn new(deed: &'static str, object: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        Self { deed, object: object.to_string(), note: None, source: source.into() }
    }

    /// Adds what the kernel said beyond the errno.
    #[must_use]
    pub fn with_note(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
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

fn remark(note: Option<&str>) -> String {
    note.map_or_else(String::new, |note| format!(" ({note})"))
}
