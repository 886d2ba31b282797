//! A port caught by binding it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use netd_sys::{KernelError, socket};
use nix::libc;

use crate::model::Protocol;

/// Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// From this many ports in one publish on, each port has one socket that all workers share, instead of one a worker:
/// descriptors are what a range costs.
const SHARED_FROM: u16 = 16;

/// The sockets of one port on one address. `EADDRINUSE` when somebody else has it.
pub(crate) fn bind(
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    ports_in_publish: u16,
    workers: usize,
) -> Result<Vec<OwnedFd>, KernelError> {
    let address = SocketAddr::new(address, port);
    let how_many = if ports_in_publish < SHARED_FROM { workers } else { 1 };
    match protocol {
        Protocol::Tcp => socket::bind_tcp(address, how_many, BACKLOG),
        Protocol::Udp => socket::bind_udp(address, how_many),
    }
}

/// The same for one port on an address that may not be there yet, or be another node's: it is served from when it comes.
pub(crate) fn bind_ahead(
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    workers: usize,
) -> Result<Vec<OwnedFd>, KernelError> {
    let address = SocketAddr::new(address, port);
    match protocol {
        Protocol::Tcp => socket::bind_tcp_ahead(address, workers, BACKLOG),
        Protocol::Udp => socket::bind_udp_ahead(address, workers),
    }
}

pub(crate) fn is_clash(error: &KernelError) -> bool {
    error.errno() == Some(libc::EADDRINUSE)
}
