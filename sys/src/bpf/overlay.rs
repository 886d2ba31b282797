//! The straight way for packets of overlay networks, past the bridge. It is a shortcut and no more: what it does not
//! take, and everything when nobody holds it any longer, goes by the bridge.

#[cfg(feature = "bpf")]
mod loaded;
#[cfg(not(feature = "bpf"))]
#[path = "overlay/without.rs"]
mod loaded;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use crate::error::KernelError;

/// The programs and what they know of networks. A network is known by its tunnel's index, ports by theirs.
#[derive(Debug)]
pub struct Shortcut {
    loaded: loaded::Loaded,
}

/// Where a MAC address of a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    /// Behind this port, whose other end is in a namespace of its own.
    Here(u32),
    /// On another host; the tunnel knows on which.
    There,
}

/// What a port may send the short way: under these addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub network: u32,
    pub mac: [u8; 6],
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Shortcut {
    /// Fails where the kernel (Linux 6.6) or this build cannot.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { loaded: loaded::Loaded::open()? })
    }

    /// Has packets that come by the tunnel, in the calling thread's namespace, go straight to ports of its network, as
    /// long as what is returned is open.
    pub fn join_tunnel(&self, link: u32) -> Result<OwnedFd, KernelError> {
        self.loaded.attach(loaded::INWARD, link)
    }

    /// Has packets that come by the port go straight to stations of its network, as long as what is returned is open.
    pub fn join_port(&self, link: u32, port: &Port) -> Result<OwnedFd, KernelError> {
        self.loaded.put_port(link, port)?;
        self.loaded.attach(loaded::OUTWARD, link)
    }

    /// One that is not known is no error.
    pub fn remove_port(&self, link: u32) -> Result<(), KernelError> {
        self.loaded.remove_port(link)
    }

    pub fn put(&self, network: u32, mac: [u8; 6], station: Station) -> Result<(), KernelError> {
        self.loaded.put(network, mac, station)
    }

    pub fn remove(&self, network: u32, mac: [u8; 6]) -> Result<(), KernelError> {
        self.loaded.remove(network, mac)
    }

    /// Everybody of the network.
    pub fn stations(&self, network: u32) -> Result<Vec<[u8; 6]>, KernelError> {
        self.loaded.stations(network)
    }
}
