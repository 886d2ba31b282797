//! A netlink socket as bytes: one datagram out, datagrams in, cut into messages. Knows sequence numbers, verdicts and
//! the kernel's extended acknowledgements, and nothing of what the messages say. Every wait ends after `PATIENCE`.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::attr::{attributes, text, u32_at};
use crate::error::{Doing, KernelError};

#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    port: u32,
    sequence: u32,
    inbox: Vec<u8>,
}

impl Channel {
    /// A socket in the calling thread's namespace, where it stays.
    pub(crate) fn open(protocol: isize) -> Result<Self, KernelError> {
        Self::prepare(protocol).doing("open a netlink socket for", family(protocol))
    }

    fn prepare(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.set_ext_ack(true)?;
        // An answer need not carry the whole request back.
        socket.set_cap_ack(true)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        setsockopt(&socket, sockopt::SendTimeout, &PATIENCE)?;
        // A lost answer would cost a timeout. Beyond the sysctls' limits with CAP_NET_ADMIN, else as far as they go.
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER))?;
        Ok(Self { socket, port, sequence: 0, inbox: Vec::with_capacity(DATAGRAM) })
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What the kernel calls this socket; it stands in every notification of a change made through it.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// The first of `count` sequence numbers that no earlier request used.
    pub(crate) fn reserve(&mut self, count: usize) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count as u32);
        first
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        let sent = retry(|| self.socket.send_to(bytes, &kernel, 0))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(ErrorKind::WriteZero)) }
    }

    /// The messages of one datagram.
    pub(crate) fn receive(&mut self) -> io::Result<Frames<'_>> {
        self.inbox.clear();
        let Self { socket, inbox, .. } = self;
        let length = retry(|| socket.recv(inbox, libc::MSG_TRUNC))?;
        if length > self.inbox.len() {
            return Err(io::Error::new(ErrorKind::InvalidData, "the kernel's message exceeds the buffer"));
        }
        Ok(Frames::of(&self.inbox))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The messages of a datagram, one by one.
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub(crate) fn of(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let header = NetlinkBuffer::new_checked(self.rest).ok()?;
        let length = header.length() as usize;
        let frame = Frame {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            port: header.port_number(),
            payload: self.rest.get(HEADER..length)?,
        };
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    }
}

/// One message of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port of whoever asked, also in a notification.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Why the kernel did not do it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) note: Option<String>,
}

impl Refusal {
    pub(crate) fn of(self, deed: &'static str, object: &str) -> KernelError {
        KernelError::new(deed, object, io::Error::from_raw_os_error(self.errno)).with_note(self.note)
    }
}

impl Frame<'_> {
    /// What an acknowledgement, or the end of a dump, says; nothing for any other message.
    pub(crate) fn verdict(&self) -> Option<Result<(), Refusal>> {
        let remarks = match self.kind {
            // errno, the request's header, then the request unless the answer is capped.
            NLMSG_ERROR if self.flags & NLM_F_CAPPED != 0 => 4 + HEADER,
            NLMSG_ERROR => 4 + (u32_at(self.payload, 4)? as usize).next_multiple_of(4),
            NLMSG_DONE => 4,
            _ => return None,
        };
        let errno = u32_at(self.payload, 0).unwrap_or(0).cast_signed();
        if errno == 0 {
            return Some(Ok(()));
        }
        let note = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| attributes(self.payload, remarks).find(|(kind, _)| *kind == ACK_MESSAGE))
            .flatten()
            .map(|(_, value)| text(value));
        Some(Err(Refusal { errno: errno.saturating_neg(), note }))
    }
}

/// `EINTR` is nobody's failure, and a timeout of a socket reads better as one.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn family(protocol: isize) -> &'static str {
    match protocol {
        netlink_sys::protocols::NETLINK_NETFILTER => "nftables",
        netlink_sys::protocols::NETLINK_SOCK_DIAG => "sockets",
        _ => "links and routes",
    }
}

/// The kernel answers in microseconds to milliseconds; only its own deadlock takes longer than this.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// Room for some thousands of answers or notifications, each of which the kernel counts with about 1 KiB.
const BUFFER: usize = 4 << 20;

/// The kernel's dumps come in datagrams of at most 32 KiB.
const DATAGRAM: usize = 64 << 10;

const HEADER: usize = 16;
const ACK_MESSAGE: u16 = 1; // NLMSGERR_ATTR_MSG
