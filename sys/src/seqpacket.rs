//! Unix sockets that keep message boundaries and carry descriptors: the link between the control plane and the data
//! plane. A message arrives whole with all its descriptors, or the receive fails and every descriptor that came is
//! closed. Everything here is nonblocking and close-on-exec.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    ControlMessage, MsgFlags, SockType, SockaddrLike as _, UnixAddr, getsockopt, sendmsg, setsockopt, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::error::{Doing as _, KernelError};

/// The kernel's limit of descriptors in one message (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

/// What a privileged sender asks for, past net.core.wmem_max; others get what the kernel gives to everybody.
const SEND_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted; there is one peer.
const BACKLOG: i32 = 8;

/// A listening socket.
#[derive(Debug)]
pub struct Listener(Socket);

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(Socket);

/// What a message brought: its length in the caller's buffer (0: the peer has closed) and its descriptors.
#[derive(Debug)]
pub struct Received {
    pub length: usize,
    pub fds: Vec<OwnedFd>,
}

impl Listener {
    /// Listens at `path` for the owner of this process alone. Takes the path over from whoever had it, in one step:
    /// a client that connects meanwhile reaches the old listener or the new one.
    pub fn bind(path: &Path) -> Result<Self, KernelError> {
        let mut fresh = OsString::from(path);
        fresh.push(OsStr::new(".new"));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(KernelError::new("remove the stale socket", fresh.display(), error));
            }
            _ => {}
        }
        let socket = seqpacket().doing("make the socket", path.display())?;
        // A Unix socket's file takes its mode from the socket itself, so it is never open to others, umask or not.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).doing("restrict the socket", path.display())?;
        let address = SockAddr::unix(&fresh).doing("bind the socket", path.display())?;
        socket.bind(&address).doing("bind the socket", path.display())?;
        socket.listen(BACKLOG).doing("listen on the socket", path.display())?;
        std::fs::rename(&fresh, path).doing("put the socket in place", path.display())?;
        Ok(Self(socket))
    }

    /// Takes a listening socket that was handed to this process, after checking that it is one.
    pub fn inherited(fd: OwnedFd) -> Result<Self, KernelError> {
        let deed = "take over the listening socket";
        let kind = getsockopt(&fd, sockopt::SockType).doing(deed, "that was inherited")?;
        let listening = getsockopt(&fd, sockopt::AcceptConn).doing(deed, "that was inherited")?;
        let family = nix::sys::socket::getsockname::<UnixAddr>(fd.as_raw_fd())
            .doing(deed, "that was inherited")?
            .family();
        if kind != SockType::SeqPacket || !listening || family != Some(nix::sys::socket::AddressFamily::Unix)
        {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a listening Unix SOCK_SEQPACKET socket",
            );
            return Err(KernelError::new(deed, "that was inherited", error));
        }
        let socket = Socket::from(fd);
        socket.set_nonblocking(true).doing(deed, "that was inherited")?;
        socket.set_cloexec(true).doing(deed, "that was inherited")?;
        Ok(Self(socket))
    }

    /// The next connection; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<Connection> {
        let (socket, _) = self.0.accept()?;
        Connection::prepare(socket)
    }
}

impl Connection {
    pub fn connect(path: &Path) -> Result<Self, KernelError> {
        let socket = seqpacket().doing("make the socket", path.display())?;
        let address = SockAddr::unix(path).doing("connect to the socket", path.display())?;
        socket.connect(&address).doing("connect to the socket", path.display())?;
        Self::prepare(socket).doing("prepare the connection to", path.display())
    }

    /// Two ends of one connection.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = Socket::pair(Domain::UNIX, Type::SEQPACKET.nonblocking().cloexec(), None)?;
        Ok((Self::prepare(left)?, Self::prepare(right)?))
    }

    /// The user that the peer ran as when it connected (for the connecting side: when it listened).
    pub fn peer_user(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.0, sockopt::PeerCredentials)?.uid())
    }

    /// Sends one message with at most [`MAX_FDS`] descriptors, whole or not at all; `WouldBlock` when the peer has to
    /// read first.
    pub fn send(&self, message: &[u8], fds: &[impl AsFd]) -> io::Result<()> {
        let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(message)], control, flags, None)?;
        Ok(())
    }

    /// Receives one message into `buffer`. `WouldBlock` when there is none; `InvalidData` when the message or its
    /// descriptors did not fit (a descriptor table that is full looks like that too).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = Control::new();
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zero is a valid msghdr: null pointers with zero lengths (it has private padding on some libcs, so
        // it cannot be written as a literal).
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control.0) as _;
        // SAFETY: header points at `vector`, which covers `buffer`, and at `control`; both outlive the call and are
        // borrowed by nothing else.
        let length = unsafe {
            libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC)
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        // Owned before anything can fail, so that what came with a bad message is closed.
        let fds = control.take(header.msg_controllen);
        if header.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is longer than agreed"));
        }
        if header.msg_flags & libc::MSG_CTRUNC != 0 {
            let text = "not all descriptors of the message could be taken (is the descriptor table full?)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Received { length, fds })
    }

    fn prepare(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        // One message has to fit in the send buffer. Without the privilege the default holds three chunks.
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        Ok(Self(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0.into()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn seqpacket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking().cloexec(), None)
}

/// Room for the one control message of [`MAX_FDS`] descriptors, aligned as a `cmsghdr` has to be.
struct Control([u64; Self::WORDS]);

impl Control {
    /// Header and descriptors, each rounded up to a word.
    const WORDS: usize = size_of::<libc::cmsghdr>().div_ceil(8) + (MAX_FDS * size_of::<RawFd>()).div_ceil(8);

    const fn new() -> Self {
        Self([0; Self::WORDS])
    }

    /// Takes ownership of the descriptors in the first `used` bytes. The only control message there can be is
    /// SCM_RIGHTS: no option that asks for another is ever set on these sockets.
    fn take(&self, used: usize) -> Vec<OwnedFd> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_ne_bytes()).take(used).collect();
        let head = size_of::<libc::cmsghdr>();
        if bytes.len() < head {
            return Vec::new();
        }
        // SAFETY: `self.0` is aligned for a cmsghdr and longer than one, and every bit pattern of its integers is valid.
        let header: libc::cmsghdr = unsafe { self.0.as_ptr().cast::<libc::cmsghdr>().read() };
        if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            return Vec::new();
        }
        let end = header.cmsg_len.min(bytes.len());
        let (numbers, _) = bytes[head..end.max(head)].as_chunks::<{ size_of::<RawFd>() }>();
        numbers
            .iter()
            .map(|number| {
                let fd = RawFd::from_ne_bytes(*number);
                // SAFETY: the kernel has just put this descriptor in our table for us, and nobody else knows of it.
                unsafe { OwnedFd::from_raw_fd(fd) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
