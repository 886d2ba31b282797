//! Stream and datagram sockets as the proxy needs them: listening sockets that notice a clash, accept and connect
//! without waiting, and a close that resets. Nothing here knows what the bytes mean.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::datagram;
use crate::error::{Doing, KernelError};
use crate::nft::Transport;

/// An idle peer is asked for a sign of life after this long, so that one that is gone is noticed although nobody
/// sends, and a NAT on the way keeps its entry.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(300))
    .with_interval(Duration::from_secs(30))
    .with_retries(8);

/// Listening sockets on `address`, as many as asked for, between which the kernel shares connections out.
///
/// The first bind is exclusive: a socket of somebody else on that port, even one with SO_REUSEPORT, is EADDRINUSE. Port
/// 0 takes a free port, the same for all. What the sockets accept inherits their options.
pub fn bind_tcp(address: SocketAddr, how_many: usize, backlog: i32) -> Result<Vec<OwnedFd>, KernelError> {
    listen_all(bind_all(address, how_many, Type::STREAM, false)?, address, backlog)
}

/// The same, whether the address is one of this host's or not: it may come later, and the sockets are its then.
pub fn bind_tcp_ahead(
    address: SocketAddr,
    how_many: usize,
    backlog: i32,
) -> Result<Vec<OwnedFd>, KernelError> {
    listen_all(bind_all(address, how_many, Type::STREAM, true)?, address, backlog)
}

fn listen_all(sockets: Vec<Socket>, address: SocketAddr, backlog: i32) -> Result<Vec<OwnedFd>, KernelError> {
    for socket in &sockets {
        set_accepted_options(socket).doing("prepare the listening socket on", address)?;
    }
    // Only now: a listening socket that is not yet joined by the others would take the first connections alone.
    for socket in &sockets {
        socket.listen(backlog).doing("listen on tcp", address)?;
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

/// Datagram sockets on `address`, as many as asked for, between which the kernel shares senders out. Clashes and port
/// 0 as with [`bind_tcp`]. They have large buffers and tell the local address that each datagram was sent to.
pub fn bind_udp(address: SocketAddr, how_many: usize) -> Result<Vec<OwnedFd>, KernelError> {
    Ok(bind_all(address, how_many, Type::DGRAM, false)?.into_iter().map(OwnedFd::from).collect())
}

/// The same, as [`bind_tcp_ahead`].
pub fn bind_udp_ahead(address: SocketAddr, how_many: usize) -> Result<Vec<OwnedFd>, KernelError> {
    Ok(bind_all(address, how_many, Type::DGRAM, true)?.into_iter().map(OwnedFd::from).collect())
}

/// Sockets as [`bind_tcp`] makes them, for what is steered to them: the connections are to addresses and ports that the
/// sockets are not bound to.
pub fn bind_tcp_for_others(
    address: SocketAddr,
    how_many: usize,
    backlog: i32,
) -> Result<Vec<OwnedFd>, KernelError> {
    let sockets = bind_tcp(address, how_many, backlog)?;
    for socket in &sockets {
        // nftables' tproxy leads to none without it. What is accepted inherits it.
        transparent(socket.as_fd()).doing("take connections to others on", address)?;
    }
    Ok(sockets)
}

/// Sockets as [`bind_udp`] makes them, for what is steered to them. They tell which port each datagram was sent to.
pub fn bind_udp_for_others(address: SocketAddr, how_many: usize) -> Result<Vec<OwnedFd>, KernelError> {
    let sockets = bind_udp(address, how_many)?;
    for socket in &sockets {
        transparent(socket.as_fd()).doing("take datagrams to others on", address)?;
        datagram::receive_local_port(socket).doing("ask for the port of datagrams on", address)?;
    }
    Ok(sockets)
}

pub(crate) fn transparent(socket: BorrowedFd<'_>) -> io::Result<()> {
    match SockRef::from(&socket).domain()? {
        Domain::IPV6 => datagram::set(socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1),
        _ => datagram::set(socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1),
    }
}

/// Whether a socket of this kind could be bound: `EADDRINUSE` when somebody else has the port. Nothing stays behind.
pub fn probe(address: SocketAddr, transport: Transport) -> Result<(), KernelError> {
    let (kind, deed) = match transport {
        Transport::Tcp => (Type::STREAM, "bind tcp"),
        Transport::Udp => (Type::DGRAM, "bind udp"),
    };
    let tried = || {
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())
    };
    tried().doing(deed, address)
}

fn bind_all(
    address: SocketAddr,
    how_many: usize,
    kind: Type,
    ahead: bool,
) -> Result<Vec<Socket>, KernelError> {
    let deed = if kind == Type::STREAM { "bind tcp" } else { "bind udp" };
    let open = || {
        let socket = open(address, kind)?;
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(ahead)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(ahead)?,
        }
        Ok::<_, io::Error>(socket)
    };
    let first = open().doing(deed, address)?;
    first.bind(&address.into()).doing(deed, address)?;
    let bound = local_address(&first).doing(deed, address)?;
    let mut sockets = vec![first];
    if how_many > 1 {
        // Set after the bind, so that the bind itself was exclusive; the kernel looks at it when others join.
        sockets[0].set_reuse_port(true).doing(deed, address)?;
    }
    for _ in 1..how_many {
        let next = open().doing(deed, address)?;
        next.set_reuse_port(true).doing(deed, address)?;
        next.bind(&bound.into()).doing(deed, address)?;
        sockets.push(next);
    }
    Ok(sockets)
}

fn open(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::DGRAM {
        // Before the bind: what arrives in between would not tell where it was sent to.
        datagram::receive_local_address(&socket)?;
        datagram::enlarge_buffers(&socket)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier listener in TIME_WAIT are no clash. (For datagrams it would mean sharing.)
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

fn set_accepted_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    // Urgent data stays where it was in the stream instead of getting lost.
    socket.set_out_of_band_inline(true)
}

/// The address a socket is bound to.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    internet_address(&SockRef::from(&socket.as_fd()).local_addr()?)
}

fn internet_address(address: &SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an internet address"))
}

/// Takes the next connection from a listening socket; never waits.
pub fn accept(listening: impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) =
        SockRef::from(&listening.as_fd()).accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)?;
    Ok((socket.into(), internet_address(&peer)?))
}

/// Why an accept failed, as far as the caller must act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFailure {
    /// Nobody is waiting.
    Empty,
    /// This one connection is gone; the next may be fine.
    Connection,
    /// The process or the machine has no descriptors or memory left: trying again at once cannot help.
    Exhausted,
    /// The socket itself cannot accept.
    Socket,
}

impl From<&io::Error> for AcceptFailure {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Empty,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::Exhausted,
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP) => Self::Socket,
            _ => Self::Connection,
        }
    }
}

/// Whether the process has run out of descriptors (or the machine of files).
pub fn no_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether there is no way to the peer, or none that is allowed.
pub fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EACCES
                | libc::EPERM
        )
    )
}

/// A connection that is made, or on its way.
#[derive(Debug)]
pub struct Connecting {
    pub stream: TcpStream,
    /// False: the socket becomes writable when it is known, and [`TcpStream::take_error`] tells.
    pub done: bool,
}

/// Starts a connection to `address`; never waits.
pub fn connect(address: SocketAddr) -> io::Result<Connecting> {
    begin(open_stream(address)?, address)
}

/// The same from somebody else's address, and port if that can be had: what the peer answers has to be led here. `None`
/// when the kernel will not have it, and nothing has been sent.
pub fn connect_as(source: SocketAddr, address: SocketAddr) -> io::Result<Option<Connecting>> {
    let socket = open_stream(address)?;
    if transparent(socket.as_fd()).is_err() {
        return Ok(None);
    }
    // Another connection may be from there, to somewhere else; a listening socket is still a clash.
    socket.set_reuse_address(true)?;
    if socket.bind(&source.into()).is_ok() {
        match begin(socket, address) {
            // One to the very same place is there already, or is just over.
            Err(error) if is_taken(&error) => {}
            begun => return begun.map(Some),
        }
    }
    // A client on this host has the port itself; and some ports are for the privileged.
    let socket = open_stream(address)?;
    if transparent(socket.as_fd()).is_err() || bind_address(&socket, source.ip()).is_err() {
        return Ok(None);
    }
    begin(socket, address).map(Some)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL))
}

/// Binds to an address, and leaves the port to the connect, which knows which ports go with its peer.
fn bind_address(socket: &Socket, address: IpAddr) -> io::Result<()> {
    datagram::set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    socket.bind(&SocketAddr::new(address, 0).into())
}

fn open_stream(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    set_accepted_options(&socket)?;
    // The acknowledgement that ends the handshake waits for the first bytes and travels with them: see `acknowledge`.
    socket.set_tcp_quickack(false)?;
    Ok(socket)
}

fn begin(socket: Socket, address: SocketAddr) -> io::Result<Connecting> {
    let done = match socket.connect(&address.into()) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
        Err(error) => return Err(error),
    };
    Ok(Connecting { stream: socket.into(), done })
}

/// Ends the handshake of a connection that was made with [`connect`], unless bytes that were sent meanwhile have: a
/// server that speaks first would hear of it only after 200 ms. Again after the first bytes, it has the answer
/// acknowledged at once, as on any new connection: a server that sends one in two pieces, by Nagle's rule, waits for that.
pub fn acknowledge(stream: &TcpStream) {
    // Fails only on a socket that is not one, which the next call tells.
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

/// Sends, when the end of the stream follows at once: both then leave in one segment.
pub fn send_before_end(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(stream).send_with_flags(bytes, libc::MSG_MORE | libc::MSG_NOSIGNAL)
}

/// Closes a connection with a reset: the peer learns that it was cut, not ended.
pub fn reset(stream: TcpStream) {
    // Fails only on a socket that is not one; the drop closes it in any case.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

#[cfg(test)]
mod tests;
