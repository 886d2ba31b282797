//! The sockets and socket options a datagram relay needs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use socket2::{Domain, SockRef, Socket, Type};

use crate::socket;

const UDP_NO_CHECK6_TX: libc::c_int = 101;
const UDP_NO_CHECK6_RX: libc::c_int = 102;

/// What [`enlarge_buffers`] asks for: a burst of 64 full trains.
pub const BUFFER_BYTES: usize = 4 << 20;

/// Has the kernel hand over runs of equal datagrams as one train (`UDP_GRO`).
pub fn receive_trains(socket: impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Has every received datagram tell the local address it was sent to.
pub fn receive_local_address(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    match SockRef::from(&socket).domain()? {
        Domain::IPV6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
        _ => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
    }
}

/// Has every received datagram tell the local port it was sent to, which need not be the socket's.
pub fn receive_local_port(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    match SockRef::from(&socket).domain()? {
        Domain::IPV6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR, 1),
        _ => set(socket, libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR, 1),
    }
}

/// Has datagrams of IPv6 leave without a checksum.
pub fn without_checksums_out(socket: impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_UDP, UDP_NO_CHECK6_TX, 1)
}

/// Takes datagrams of IPv6 that have none.
pub fn without_checksums_in(socket: impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_UDP, UDP_NO_CHECK6_RX, 1)
}

/// Asks for [`BUFFER_BYTES`] both ways: past the system's limit where this process may, up to it otherwise. Buffers
/// that are larger already stay.
pub fn enlarge_buffers(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let held = SockRef::from(&socket);
    // The kernel doubles what it is asked for, to make up for its own overhead, and reports the double.
    if held.recv_buffer_size()? < 2 * BUFFER_BYTES {
        enlarge(socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    }
    if held.send_buffer_size()? < 2 * BUFFER_BYTES {
        enlarge(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
    }
    Ok(())
}

fn enlarge(socket: BorrowedFd<'_>, forced: i32, asked: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, forced, BUFFER_BYTES as i32)
        .or_else(|_| set(socket, libc::SOL_SOCKET, asked, BUFFER_BYTES as i32))
}

/// A socket that exchanges datagrams with `peer` only, from an address and port of the kernel's choice: trains come
/// in whole, the buffers are large, and what comes back for a dead port is an error of the next call.
pub fn connect(peer: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM.nonblocking(), None)?;
    enlarge_buffers(&socket)?;
    receive_trains(&socket)?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// The same from somebody else's address, and port if that can be had: what the peer answers has to be led here. `None`
/// when the kernel will not have it.
pub fn connect_as(source: SocketAddr, peer: SocketAddr) -> io::Result<Option<OwnedFd>> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM.nonblocking(), None)?;
    if socket::transparent(socket.as_fd()).is_err() {
        return Ok(None);
    }
    // Another flow may be from there, to somewhere else.
    socket.set_reuse_address(true)?;
    // A client on this host has the port itself; and some ports are for the privileged.
    let anywhere = SocketAddr::new(source.ip(), 0);
    if socket.bind(&source.into()).is_err() && socket.bind(&anywhere.into()).is_err() {
        return Ok(None);
    }
    enlarge_buffers(&socket)?;
    receive_trains(&socket)?;
    socket.connect(&peer.into())?;
    Ok(Some(socket.into()))
}

pub(crate) fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the call, and the value is a C int that outlives it.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
