//! Datagrams that get something before them, or lose it, on their way: copied side by side, and sent together.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use netd_sys::datagram::{Local, MAX_PAYLOAD, SendBatch};

use super::{DatagramMeters, Dropped};

#[derive(Default)]
pub(super) struct Wrapped {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of the bytes are ours.
    own: usize,
}

/// What has become of them.
#[derive(Default)]
pub(super) struct Passed {
    /// Without our own.
    pub(super) bytes: u64,
    pub(super) datagrams: u64,
    /// The peer's host says that nobody listens.
    pub(super) is_refused: bool,
}

/// Enough to make a system call worth while, and to bound the memory.
const FULL: usize = 256 << 10;

impl Wrapped {
    /// One more; false when it is too long for a datagram.
    pub(super) fn push(&mut self, head: &[u8], payload: &[u8]) -> bool {
        if head.len() + payload.len() > MAX_PAYLOAD {
            return false;
        }
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
        self.own = head.len();
        true
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Sends all of them, in order, and forgets them. Those of one call have had heads of one length.
    pub(super) fn send(
        &mut self,
        batch: &mut SendBatch,
        socket: BorrowedFd<'_>,
        to: Option<SocketAddr>,
        from: Option<Local>,
        meters: &DatagramMeters,
    ) -> Passed {
        let mut passed = Passed::default();
        let (mut start, mut next) = (0, 0);
        while next < self.ends.len() {
            let mut out = batch.begin();
            let first = next;
            while let Some(&end) = self.ends.get(next) {
                if !out.push(to, from, None, &self.bytes[start..end], 0) {
                    break;
                }
                (start, next) = (end, next + 1);
            }
            let sent = out.send(socket);
            passed.bytes += sent.bytes.saturating_sub(sent.messages * self.own) as u64;
            passed.datagrams += sent.messages as u64;
            meters.dropped(Dropped::Backlog, sent.waiting);
            for failure in sent.failures {
                passed.is_refused |= failure.error.kind() == io::ErrorKind::ConnectionRefused;
                meters.dropped(Dropped::from(&failure.error), 1);
            }
            if next == first {
                // A batch has room for one; what is left is lost rather than tried for ever.
                break;
            }
        }
        self.clear();
        passed
    }
}
