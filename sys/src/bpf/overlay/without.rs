//! What stands in for the programs in a build without the feature `bpf`: they cannot be loaded, and it says so.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use super::{Port, Station};
use crate::error::KernelError;

pub(super) const INWARD: &str = "inward";
pub(super) const OUTWARD: &str = "outward";

/// There are none.
#[derive(Debug)]
pub(super) struct Loaded {
    never: Infallible,
}

impl Loaded {
    pub(super) fn open() -> Result<Self, KernelError> {
        let cause = io::Error::new(io::ErrorKind::Unsupported, "this build is without BPF");
        Err(KernelError::new("load the BPF program", OUTWARD, cause))
    }

    pub(super) fn attach(&self, _program: &str, _link: u32) -> Result<OwnedFd, KernelError> {
        match self.never {}
    }

    pub(super) fn put_port(&self, _link: u32, _port: &Port) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn remove_port(&self, _link: u32) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn put(&self, _network: u32, _mac: [u8; 6], _station: Station) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn remove(&self, _network: u32, _mac: [u8; 6]) -> Result<(), KernelError> {
        match self.never {}
    }

    pub(super) fn stations(&self, _network: u32) -> Result<Vec<[u8; 6]>, KernelError> {
        match self.never {}
    }
}
