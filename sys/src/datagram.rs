//! Datagrams in batches: one system call receives or sends up to a whole batch, into and out of memory allocated once.
//! With `UDP_GRO` the kernel hands over a run of equal datagrams as one payload and their size (a *train*); with
//! `UDP_SEGMENT` it takes one back, so a relay never touches the bytes. Packet information carries the local address
//! a datagram was sent to, which is the one its answer has to come from.
//!
//! [`RecvBatch`] owns the bytes it receives; [`SendBatch`] owns the headers only and borrows every payload.

mod arena;
mod control;
mod name;
mod option;
mod receive;
mod send;

use std::net::IpAddr;

pub use option::{BUFFER_BYTES, connect, enlarge_buffers, receive_local_address, receive_trains};
pub use receive::{Datagram, RecvBatch};
pub use send::{Failure, Outgoing, SendBatch, Sent};

/// The largest UDP payload IPv4 carries, and IPv6 without jumbograms nearly so.
pub const MAX_PAYLOAD: usize = 65_507;

/// Room for everything one receive can return: a train is limited by the IPv6 payload length.
pub const MAX_TRAIN: usize = 65_535;

/// The most datagrams a train may have (`UDP_MAX_SEGMENTS` of the kernels before 6.9, `UDP_GRO_CNT_MAX` of all).
pub const MAX_SEGMENTS: usize = 64;

/// The address on this host that a datagram was sent to, or is to be sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub address: IpAddr,
    /// The interface it came in on. In a datagram to send, 0 leaves the choice to the routing table.
    pub interface: u32,
}

#[cfg(test)]
mod tests;
