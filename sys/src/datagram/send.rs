//! `sendmmsg` out of borrowed payloads.
//!
//! One bad message must not cost the others theirs: the kernel stops at the first that fails, so [`Outgoing::send`]
//! notes it and goes on behind it. Single datagrams of one size that follow each other to one peer leave as a train:
//! they pass the network stack once.

mod message;

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::arena::Arena;
use super::control::Control;
use super::name::Name;
use super::{Local, MAX_PAYLOAD, MAX_SEGMENTS};

/// Datagrams up to this size are joined: what fits an Ethernet frame. Larger ones would have to be fragmented, which
/// trains cannot be.
const JOINED_UP_TO: usize = 1472;
/// After a way out has refused a joined train, so many datagrams leave one by one before the next try.
const PAUSE_AFTER_REFUSAL: u32 = 4096;

/// Headers for a number of datagrams to send. The payloads come in with [`SendBatch::begin`] and stay the caller's.
pub struct SendBatch {
    headers: Arena<libc::mmsghdr>,
    names: Arena<Name>,
    controls: Arena<Control>,
    /// One for every datagram or train pushed; those of one message lie side by side.
    vectors: Arena<libc::iovec>,
    /// By vector: what it was pushed with.
    tags: Box<[u32]>,
    /// By message: its first vector.
    firsts: Box<[usize]>,
    /// By message: the segment size its control data ends with.
    segments: Box<[Option<u16>]>,
    failures: Vec<Failure>,
    /// How many datagrams to push before any are joined again.
    pause: u32,
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
    /// How many vectors they and those before them have.
    used: usize,
    /// The last message, while it may take more datagrams.
    joint: Option<Joint>,
    payloads: PhantomData<&'data [u8]>,
}

/// What the last message of a batch consists of so far: single datagrams of one size.
#[derive(Clone, Copy)]
struct Joint {
    to: Option<SocketAddr>,
    from: Option<Local>,
    size: u16,
    count: usize,
}

/// A datagram (or train) that the kernel refused for a reason of its own.
#[derive(Debug)]
pub struct Failure {
    /// What it was pushed with.
    pub tag: u32,
    pub error: io::Error,
}

/// What became of a batch in one [`Outgoing::send`]. A train longer than the kernel takes counts as often as it was cut.
#[derive(Debug)]
pub struct Sent<'a> {
    /// Payload bytes that left.
    pub bytes: usize,
    /// Datagrams (or trains) that left.
    pub messages: usize,
    /// Those that were refused one by one, in order.
    pub failures: &'a [Failure],
    /// Those that found the socket's buffer full. They are still in the batch: sending again goes on with them.
    pub waiting: usize,
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
        if self.used + places > self.batch.capacity() {
            return false;
        }
        if segment.is_none() && self.join(to, from, payload, tag) {
            return true;
        }
        for place in 0..places {
            let start = place.saturating_mul(piece);
            let end = start.saturating_add(piece).min(payload.len());
            let payload = &payload[start..end];
            let segment = segment.filter(|&segment| usize::from(segment) < payload.len());
            self.batch.fill(self.filled, self.used, (to, from, segment), (payload, tag));
            self.filled += 1;
            self.used += 1;
        }
        self.batch.pause = self.batch.pause.saturating_sub(1);
        let joinable = segment.is_none() && !payload.is_empty() && self.batch.pause == 0;
        self.joint = (joinable && payload.len() <= JOINED_UP_TO).then_some(Joint {
            to,
            from,
            size: payload.len() as u16,
            count: 1,
        });
        true
    }

    /// Adds a single datagram to the last message, if that goes to the same peer and the size allows it.
    fn join(&mut self, to: Option<SocketAddr>, from: Option<Local>, payload: &'data [u8], tag: u32) -> bool {
        let Some(joint) = self.joint.as_mut().filter(|joint| joint.takes(to, from, payload)) else {
            return false;
        };
        joint.count += 1;
        self.batch.extend(self.filled - 1, self.used, (joint.from, joint.size), (payload, tag));
        self.used += 1;
        if payload.len() < usize::from(joint.size) {
            // Only the last datagram of a train may be shorter.
            self.joint = None;
        }
        true
    }

    /// Sends all that waits, in order, without blocking. Afterwards the batch holds only what found the socket's
    /// buffer full.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Sent<'_> {
        self.joint = None;
        self.batch.failures.clear();
        let (mut messages, mut bytes) = (0, 0);
        while self.next < self.filled {
            let first = self.batch.firsts[self.next];
            match self.batch.transmit(socket, self.next..self.filled) {
                Ok(count) => {
                    self.next += count;
                    let end = self.first_vector(self.next);
                    bytes += self.batch.bytes(first..end);
                    messages += end - first;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.batch.segments[self.next].is_some() && refuses_train(&error) => {
                    let vectors = first..self.first_vector(self.next + 1);
                    let left = self.batch.transmit_singly(socket, self.next, vectors, &mut bytes);
                    messages += left.0;
                    match left.1 {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => self.refuse(&error),
                        Ok(()) => self.next += 1,
                    }
                }
                Err(error) => self.refuse(&error),
            }
        }
        let waiting = self.used - self.first_vector(self.next);
        if waiting == 0 {
            (self.next, self.filled, self.used) = (0, 0, 0);
        }
        Sent { bytes, messages, failures: &self.batch.failures, waiting }
    }

    /// The first vector of a message, or the end of them all.
    fn first_vector(&self, message: usize) -> usize {
        if message < self.filled { self.batch.firsts[message] } else { self.used }
    }

    /// Gives the next message up.
    fn refuse(&mut self, error: &io::Error) {
        let vectors = self.batch.firsts[self.next]..self.first_vector(self.next + 1);
        self.batch.fail(vectors, error);
        self.next += 1;
    }
}

impl Joint {
    fn takes(&self, to: Option<SocketAddr>, from: Option<Local>, payload: &[u8]) -> bool {
        let size = usize::from(self.size);
        (self.to, self.from) == (to, from)
            && !payload.is_empty()
            && payload.len() <= size
            && self.count < MAX_SEGMENTS
            && (self.count + 1) * size <= MAX_PAYLOAD
    }
}

/// What the kernel says when a device, a route or a size does not go with `UDP_SEGMENT`.
fn refuses_train(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
