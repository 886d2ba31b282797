//! What stands in for the programs in a build without the feature `bpf`: they cannot be loaded, and it says so.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{Entry, Gone};
use crate::error::KernelError;
use crate::netns::Netns;

/// There are none.
#[derive(Debug)]
pub(super) struct Loaded {
    never: Infallible,
}

impl Loaded {
    pub(super) fn attach(_cgroup: BorrowedFd<'_>) -> Result<Self, KernelError> {
        Err(absent())
    }

    pub(super) fn adopt(_descriptors: Vec<OwnedFd>) -> Result<Self, KernelError> {
        Err(absent())
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let _ = self.never;
        std::iter::empty()
    }

    pub(super) fn put(&self, _entry: Entry) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn remove(&self, _entry: Entry) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn connections(&self) -> Result<Connections, KernelError> {
        match self.never {}
    }

    pub(super) fn entries(&self) -> Result<Vec<Entry>, KernelError> {
        match self.never {}
    }
}

/// There are none.
#[derive(Debug)]
pub(super) struct Connections {
    never: Infallible,
}

impl Connections {
    pub(super) fn has(&self, _namespace: u64, _backend: IpAddr) -> Result<bool, KernelError> {
        match self.never {}
    }

    pub(super) fn end(&self, _netns: &Netns, _gone: &[Gone]) -> Result<usize, KernelError> {
        match self.never {}
    }
}

pub(super) fn probe() -> Result<(), KernelError> {
    Err(absent())
}

pub(super) fn build() -> u64 {
    0
}

fn absent() -> KernelError {
    let cause = io::Error::new(io::ErrorKind::Unsupported, "this build is without BPF");
    KernelError::new("load the BPF program", "eastwest", cause)
}
