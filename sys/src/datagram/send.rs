//! `sendmmsg` out of borrowed payloads.
//!
//! One bad message must not cost the others theirs: the kernel stops at the first that fails, so [`Outgoing::send`]
//! notes it and goes on behind it.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::arena::Arena;
use super::control::{self, Control};
use super::name::Name;
use super::receive::empty_header;
use super::{Local, MAX_PAYLOAD, MAX_SEGMENTS};

/// Headers for a number of datagrams to send. The payloads come in with [`SendBatch::begin`] and stay the caller's.
pub struct SendBatch {
    headers: Arena<libc::mmsghdr>,
    names: Arena<Name>,
    controls: Arena<Control>,
    vectors: Arena<libc::iovec>,
    segments: Box<[Option<u16>]>,
    tags: Box<[u32]>,
    failures: Vec<Failure>,
}

// SAFETY: the raw pointers in `headers` lead into the arenas of the same batch, which move with it; those to payloads
// are used by an `Outgoing` only, which borrows the payloads for as long as it lives.
unsafe impl Send for SendBatch {}

/// A batch being filled and sent. Dropping it forgets what is unsent.
pub struct Outgoing<'batch, 'data> {
    batch: &'batch mut SendBatch,
    /// Messages from `next` to `filled` wait to be sent.
    next: usize,
    filled: usize,
    payloads: PhantomData<&'data [u8]>,
}

/// A message that the kernel refused for a reason of its own.
#[derive(Debug)]
pub struct Failure {
    /// What the message was pushed with.
    pub tag: u32,
    pub error: io::Error,
}

/// What became of the messages of one [`Outgoing::send`].
#[derive(Debug)]
pub struct Sent<'a> {
    /// Payload bytes that left.
    pub bytes: usize,
    /// Messages that left.
    pub messages: usize,
    /// Messages that were refused one by one, in order.
    pub failures: &'a [Failure],
    /// Messages that found the socket's buffer full. They are still in the batch: sending again goes on with them.
    pub waiting: usize,
}

impl SendBatch {
    /// # Panics
    /// If `messages` is zero.
    pub fn new(messages: usize) -> Self {
        assert!(messages > 0, "a batch holds something");
        let batch = Self {
            headers: Arena::new(vec![empty_header(); messages].into()),
            names: Arena::new(vec![Name::empty(); messages].into()),
            controls: Arena::new(vec![[0; _]; messages].into()),
            vectors: Arena::new(vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; messages].into()),
            segments: vec![None; messages].into(),
            tags: vec![0; messages].into(),
            failures: Vec::with_capacity(messages),
        };
        for index in 0..messages {
            let mut header = empty_header();
            header.msg_hdr.msg_iov = batch.vectors.at(index);
            header.msg_hdr.msg_iovlen = 1;
            // SAFETY: `at` points to an element of the arena.
            unsafe { batch.headers.at(index).write(header) };
        }
        batch
    }

    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Starts an empty batch of payloads that live for `'data`.
    pub fn begin<'data>(&mut self) -> Outgoing<'_, 'data> {
        Outgoing { batch: self, next: 0, filled: 0, payloads: PhantomData }
    }
}

impl<'data> Outgoing<'_, 'data> {
    pub fn is_empty(&self) -> bool {
        self.next == self.filled
    }

    /// Adds one datagram, or with `segment` a train of datagrams of that size whose last may be shorter. `to` is
    /// `None` on a connected socket; `from` picks the source address; `tag` comes back in a [`Failure`]. False, and
    /// nothing added, when the batch has no room: a train longer than the kernel takes needs more than one place.
    #[must_use = "without room the datagram is not in the batch"]
    pub fn push(
        &mut self,
        to: Option<SocketAddr>,
        from: Option<Local>,
        segment: Option<u16>,
        payload: &'data [u8],
        tag: u32,
    ) -> bool {
        let segment = segment.filter(|&segment| segment > 0 && usize::from(segment) < payload.len());
        let piece = segment.map_or(usize::MAX, |segment| {
            let segment = usize::from(segment);
            segment * (MAX_PAYLOAD / segment).clamp(1, MAX_SEGMENTS)
        });
        // An empty datagram is a datagram too.
        let places = payload.len().div_ceil(piece).max(1);
        if self.filled + places > self.batch.capacity() {
            return false;
        }
        for place in 0..places {
            let start = place.saturating_mul(piece);
            let end = start.saturating_add(piece).min(payload.len());
            let payload = &payload[start..end];
            let segment = segment.filter(|&segment| usize::from(segment) < payload.len());
            self.batch.fill(self.filled, to, from, segment, payload, tag);
            self.filled += 1;
        }
        true
    }

    /// Sends all that waits, in order, without blocking. Afterwards the batch holds only what found the socket's
    /// buffer full.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Sent<'_> {
        self.batch.failures.clear();
        let (mut messages, mut bytes) = (0, 0);
        while self.next < self.filled {
            match self.batch.transmit(socket, self.next..self.filled) {
                Ok(count) => {
                    bytes +=
                        (self.next..self.next + count).map(|index| self.batch.len_of(index)).sum::<usize>();
                    messages += count;
                    self.next += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.batch.segments[self.next].is_some() && refuses_train(&error) => {
                    match self.batch.transmit_singly(socket, self.next, &mut bytes) {
                        Ok(()) => messages += 1,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => self.batch.fail(self.next, error),
                    }
                    self.next += 1;
                }
                Err(error) => {
                    self.batch.fail(self.next, error);
                    self.next += 1;
                }
            }
        }
        let waiting = self.filled - self.next;
        if waiting == 0 {
            (self.next, self.filled) = (0, 0);
        }
        Sent { bytes, messages, failures: &self.batch.failures, waiting }
    }
}

impl SendBatch {
    fn fill(
        &mut self,
        index: usize,
        to: Option<SocketAddr>,
        from: Option<Local>,
        segment: Option<u16>,
        payload: &[u8],
        tag: u32,
    ) {
        self.segments[index] = segment;
        self.tags[index] = tag;
        // The kernel only reads a payload that it sends.
        let vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        unsafe { self.vectors.at(index).write(vector) };
        let (name_place, control_place) = (self.names.at(index), self.controls.at(index));
        let header = self.header(index);
        (header.msg_name, header.msg_namelen) = (ptr::null_mut(), 0);
        if let Some(to) = to {
            let (name, len) = Name::new(to);
            // SAFETY: as above.
            unsafe { name_place.write(name) };
            (header.msg_name, header.msg_namelen) = (name_place.cast(), len);
        }
        header.msg_control = control_place.cast();
        // SAFETY: as above.
        let control = unsafe { &mut *control_place };
        header.msg_controllen = control::write(control, from, segment);
    }

    fn header(&mut self, index: usize) -> &mut libc::msghdr {
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        unsafe { &mut (*self.headers.at(index)).msg_hdr }
    }

    /// Has the message at `index` send `len` bytes of the payload `whole` from `start` on.
    fn point(&mut self, index: usize, whole: &libc::iovec, start: usize, len: usize) {
        let iov_base = whole.iov_base.cast::<u8>().wrapping_add(start).cast();
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        unsafe { self.vectors.at(index).write(libc::iovec { iov_base, iov_len: len }) };
    }

    fn len_of(&self, index: usize) -> usize {
        // SAFETY: the arena's element is initialised, and only `&mut self` writes to it.
        unsafe { (*self.vectors.at(index)).iov_len }
    }

    /// One `sendmmsg`: how many of the messages left, at least one.
    fn transmit(&mut self, socket: BorrowedFd<'_>, range: std::ops::Range<usize>) -> io::Result<usize> {
        let headers = self.headers.at(range.start);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the headers of the range are filled and lead into this batch's arenas and to payloads that the
        // calling `Outgoing` borrows; `&mut self` keeps every other access out.
        let count =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, range.len() as libc::c_uint, flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the train at `index` datagram by datagram, for a way out that does not take trains. What has left is cut
    /// off the message, so that going on after a full buffer repeats nothing.
    fn transmit_singly(&mut self, socket: BorrowedFd<'_>, index: usize, bytes: &mut usize) -> io::Result<()> {
        let segment = self.segments[index].take().map_or(usize::MAX, usize::from);
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        let whole = unsafe { *self.vectors.at(index) };
        self.header(index).msg_controllen -= control::SEGMENT_SPACE;
        let mut sent = 0;
        while sent < whole.iov_len {
            let len = segment.min(whole.iov_len - sent);
            self.point(index, &whole, sent, len);
            match self.transmit(socket, index..index + 1) {
                Ok(_) => (sent, *bytes) = (sent + len, *bytes + len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.point(index, &whole, sent, whole.iov_len - sent);
                    self.segments[index] = u16::try_from(segment).ok();
                    self.header(index).msg_controllen += control::SEGMENT_SPACE;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, index: usize, error: io::Error) {
        self.failures.push(Failure { tag: self.tags[index], error });
    }
}

/// What the kernel says when a device, a route or a size does not go with `UDP_SEGMENT`.
fn refuses_train(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
