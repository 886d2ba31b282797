//! What stands in for the program in a build without the feature `bpf`: it cannot be loaded, and says so.

use std::convert::Infallible;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{Steered, Transport};
use crate::error::KernelError;

/// There is none.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) link: OwnedFd,
    never: Infallible,
}

impl Loaded {
    pub(super) fn attach(_sockets: &[(Transport, BorrowedFd<'_>)]) -> Result<Self, KernelError> {
        Err(absent())
    }

    pub(super) fn put(&self, _port: Steered) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn refuse(&self, _port: Steered) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn remove(&self, _port: Steered) -> Result<(), KernelError> {
        match self.never {}
    }
}

pub(super) fn probe() -> Result<(), KernelError> {
    Err(absent())
}

fn absent() -> KernelError {
    let cause = io::Error::new(io::ErrorKind::Unsupported, "this build is without BPF");
    KernelError::new("load the BPF program", "steer", cause)
}
