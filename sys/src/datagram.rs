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

pub(crate) use option::set;
pub use option::{
    BUFFER_BYTES, connect, connect_as, enlarge_buffers, receive_local_address, receive_local_port,
    receive_trains, without_checksums_in, without_checksums_out,
};
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
    /// The port it was sent to, after [`receive_local_port`]; else 0. A datagram to send leaves from the port of its
    /// socket; when this is another one, its mark tells nftables of it, see [`mark_of`].
    pub port: u16,
}

/// The mark of a datagram that is to leave from `port` instead of its socket's own: in memory the port as packets have
/// it, then [`MARK`].
pub fn mark_of(port: u16) -> u32 {
    let [high, low] = port.to_be_bytes();
    u32::from_ne_bytes([high, low, MARK[0], MARK[1]])
}

/// What tells such a mark from others'.
pub const MARK: [u8; 2] = *b"nd";

#[cfg(test)]
mod tests;
