//! `recvmmsg` into memory allocated once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::Local;
use super::arena::Arena;
use super::control::{self, Control};
use super::name::Name;

/// One received datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub payload: &'a [u8],
    /// Who sent it; `None` only from a socket whose family is not IP.
    pub source: Option<SocketAddr>,
    /// Where it was sent to, after [`super::receive_local_address`].
    pub local: Option<Local>,
    /// The size of each datagram of a train but the last, which may be shorter; `None` for a single one.
    pub segment: Option<u16>,
    /// It was longer than the batch has room for; the rest is lost.
    pub truncated: bool,
}

/// Room for a number of datagrams. Untouched room costs address space only.
pub struct RecvBatch {
    headers: Arena<libc::mmsghdr>,
    names: Arena<Name>,
    controls: Arena<Control>,
    vectors: Arena<libc::iovec>,
    payloads: Arena<u8>,
    bytes_each: usize,
    received: usize,
}

// SAFETY: the raw pointers in `headers` and `vectors` lead only into the arenas of the same batch, which move with it.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// # Panics
    /// If either number is zero.
    pub fn new(messages: usize, bytes_each: usize) -> Self {
        assert!(messages > 0 && bytes_each > 0, "a batch holds something");
        let batch = Self {
            headers: Arena::new(vec![empty_header(); messages].into()),
            names: Arena::new(vec![Name::empty(); messages].into()),
            controls: Arena::new(vec![[0; _]; messages].into()),
            vectors: Arena::new(vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; messages].into()),
            payloads: Arena::new(vec![0; messages * bytes_each].into()),
            bytes_each,
            received: 0,
        };
        for index in 0..messages {
            let payload = batch.payloads.at(index * bytes_each);
            let vector = libc::iovec { iov_base: payload.cast(), iov_len: bytes_each };
            // SAFETY: `at` points to an element of the arena.
            unsafe { batch.vectors.at(index).write(vector) };
            let mut header = empty_header();
            header.msg_hdr.msg_name = batch.names.at(index).cast();
            header.msg_hdr.msg_iov = batch.vectors.at(index);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = batch.controls.at(index).cast();
            // SAFETY: as above.
            unsafe { batch.headers.at(index).write(header) };
            batch.reset(index);
        }
        batch
    }

    /// How many datagrams one receive can return.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Replaces what the batch holds by what waits at `socket`, without waiting for more. `WouldBlock` when nothing
    /// does; a connected socket also reports here what came back for a datagram it sent (`ConnectionRefused`).
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.clear();
        self.recv_more(socket)
    }

    /// Forgets what the batch holds.
    pub fn clear(&mut self) {
        for index in 0..self.received {
            self.reset(index);
        }
        self.received = 0;
    }

    /// Like [`Self::recv`], but adds to what the batch holds and returns how much that was: one batch may gather
    /// from many sockets. 0 when it is full.
    pub fn recv_more(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let room = self.capacity() - self.received;
        if room == 0 {
            return Ok(0);
        }
        let headers = self.headers.at(self.received);
        loop {
            // SAFETY: every header points to a name, a control area and a payload of this batch of the stated sizes,
            // and `&mut self` keeps every other access out.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers,
                    room as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if let Ok(count) = usize::try_from(count) {
                self.received += count;
                return Ok(count);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// How many datagrams the batch holds.
    pub fn len(&self) -> usize {
        self.received
    }

    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// The datagram at `index`, in the order of arrival.
    ///
    /// # Panics
    /// If the batch does not hold that many.
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        assert!(index < self.received, "datagram {index} of {}", self.received);
        // SAFETY: the arena's element is initialised, and only `&mut self` writes to it.
        let header = unsafe { &*self.headers.at(index) };
        // SAFETY: as above.
        let name = unsafe { &*self.names.at(index) };
        // SAFETY: the kernel has filled the control area of this header and set its length.
        let told = unsafe { control::read(&header.msg_hdr) };
        let len = (header.msg_len as usize).min(self.bytes_each);
        // SAFETY: the payload area of this index is `bytes_each` long, initialised, and only `&mut self` writes to it.
        let payload = unsafe { std::slice::from_raw_parts(self.payloads.at(index * self.bytes_each), len) };
        Datagram {
            payload,
            source: name.address(header.msg_hdr.msg_namelen),
            local: told.local,
            // The kernel reports the size of a lone datagram too when the option is on.
            segment: told.segment.filter(|&segment| usize::from(segment) < len),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    /// What the batch holds, in the order of arrival.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        (0..self.received).map(|index| self.datagram(index))
    }

    /// Puts back the sizes that a receive has overwritten.
    fn reset(&self, index: usize) {
        let header = self.headers.at(index);
        // SAFETY: the arena's element is initialised, and callers hold the batch alone (`new`, `clear`).
        let header = unsafe { &mut (*header).msg_hdr };
        header.msg_namelen = Name::SPACE;
        header.msg_controllen = control::SPACE;
        header.msg_flags = 0;
    }
}

pub(super) fn empty_header() -> libc::mmsghdr {
    // SAFETY: all zeroes is a header without name, payload and control.
    unsafe { std::mem::zeroed() }
}
