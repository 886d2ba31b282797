//! The headers of a batch: filling them, and the system call that reads them.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::super::arena::Arena;
use super::super::control;
use super::super::name::Name;
use super::super::receive::empty_header;
use super::{Failure, Local, Outgoing, PAUSE_AFTER_REFUSAL, PhantomData, SendBatch};

impl SendBatch {
    /// Room for `capacity` datagrams or trains.
    ///
    /// # Panics
    /// If that is zero.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a batch holds something");
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            headers: Arena::new(vec![empty_header(); capacity].into()),
            names: Arena::new(vec![Name::empty(); capacity].into()),
            controls: Arena::new(vec![[0; _]; capacity].into()),
            vectors: Arena::new(vec![vector; capacity].into()),
            tags: vec![0; capacity].into(),
            firsts: vec![0; capacity].into(),
            segments: vec![None; capacity].into(),
            failures: Vec::with_capacity(capacity),
            pause: 0,
        }
    }

    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Starts an empty batch of payloads that live for `'data`.
    pub fn begin<'data>(&mut self) -> Outgoing<'_, 'data> {
        Outgoing { batch: self, next: 0, filled: 0, used: 0, joint: None, payloads: PhantomData }
    }

    /// Makes message `index` of one vector.
    pub(super) fn fill(
        &mut self,
        index: usize,
        vector: usize,
        (to, from, segment): (Option<SocketAddr>, Option<Local>, Option<u16>),
        (payload, tag): (&[u8], u32),
    ) {
        self.set_vector(vector, payload, tag);
        self.firsts[index] = vector;
        let (name_place, vector_place) = (self.names.at(index), self.vectors.at(vector));
        let header = self.header(index);
        (header.msg_name, header.msg_namelen) = (ptr::null_mut(), 0);
        if let Some(to) = to {
            let (name, len) = Name::new(to);
            // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
            unsafe { name_place.write(name) };
            (header.msg_name, header.msg_namelen) = (name_place.cast(), len);
        }
        (header.msg_iov, header.msg_iovlen) = (vector_place, 1);
        self.set_control(index, from, segment);
    }

    /// Adds a vector, the next behind its last, to message `index`, which so becomes a train.
    pub(super) fn extend(
        &mut self,
        index: usize,
        vector: usize,
        (from, size): (Option<Local>, u16),
        (payload, tag): (&[u8], u32),
    ) {
        self.set_vector(vector, payload, tag);
        self.header(index).msg_iovlen += 1;
        if self.segments[index].is_none() {
            self.set_control(index, from, Some(size));
        }
    }

    /// How many bytes the vectors send.
    pub(super) fn bytes(&self, vectors: Range<usize>) -> usize {
        vectors.map(|vector| self.vector(vector).iov_len).sum()
    }

    pub(super) fn fail(&mut self, vectors: Range<usize>, error: &io::Error) {
        let copy = || error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        for vector in vectors {
            self.failures.push(Failure { tag: self.tags[vector], error: copy() });
        }
    }

    /// One `sendmmsg`: how many of the messages left, at least one.
    pub(super) fn transmit(&mut self, socket: BorrowedFd<'_>, messages: Range<usize>) -> io::Result<usize> {
        let headers = self.headers.at(messages.start);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the headers of the range are filled and lead into this batch's arenas and to payloads that the
        // calling `Outgoing` borrows; `&mut self` keeps every other access out.
        let count =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, messages.len() as libc::c_uint, flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the train `index` datagram by datagram, for a way out that does not take trains. Returns how many of its
    /// vectors left. What has left is cut off the message, so that going on after a full buffer repeats nothing.
    pub(super) fn transmit_singly(
        &mut self,
        socket: BorrowedFd<'_>,
        index: usize,
        vectors: Range<usize>,
        bytes: &mut usize,
    ) -> (usize, io::Result<()>) {
        if vectors.len() > 1 {
            self.pause = PAUSE_AFTER_REFUSAL;
        }
        let segment = self.segments[index].take();
        self.header(index).msg_controllen -= control::SEGMENT_SPACE;
        let first = vectors.start;
        for vector in vectors.clone() {
            let place = self.vectors.at(vector);
            let header = self.header(index);
            (header.msg_iov, header.msg_iovlen) = (place, 1);
            if let Err(error) = self.transmit_pieces(socket, index, vector, segment, bytes) {
                self.firsts[index] = vector;
                self.segments[index] = segment;
                let header = self.header(index);
                header.msg_iovlen = vectors.end - vector;
                header.msg_controllen += control::SEGMENT_SPACE;
                return (vector - first, Err(error));
            }
        }
        (vectors.len(), Ok(()))
    }

    /// Sends one vector of a message in pieces of the segment size.
    fn transmit_pieces(
        &mut self,
        socket: BorrowedFd<'_>,
        index: usize,
        vector: usize,
        segment: Option<u16>,
        bytes: &mut usize,
    ) -> io::Result<()> {
        let mut whole = *self.vector(vector);
        while whole.iov_len > 0 {
            let len = segment.map_or(usize::MAX, usize::from).min(whole.iov_len);
            self.write_vector(vector, libc::iovec { iov_len: len, ..whole });
            let result = self.transmit(socket, index..index + 1);
            if result.is_ok() {
                whole.iov_base = whole.iov_base.cast::<u8>().wrapping_add(len).cast();
                whole.iov_len -= len;
                *bytes += len;
            }
            self.write_vector(vector, whole);
            match result {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn set_vector(&mut self, vector: usize, payload: &[u8], tag: u32) {
        self.tags[vector] = tag;
        // The kernel only reads a payload that it sends.
        let iov_base = payload.as_ptr().cast_mut().cast();
        self.write_vector(vector, libc::iovec { iov_base, iov_len: payload.len() });
    }

    fn set_control(&mut self, index: usize, from: Option<Local>, segment: Option<u16>) {
        self.segments[index] = segment;
        let place = self.controls.at(index);
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        let len = control::write(unsafe { &mut *place }, from, segment);
        let header = self.header(index);
        (header.msg_control, header.msg_controllen) = (place.cast(), len);
    }

    fn header(&mut self, index: usize) -> &mut libc::msghdr {
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        unsafe { &mut (*self.headers.at(index)).msg_hdr }
    }

    fn vector(&self, index: usize) -> &libc::iovec {
        // SAFETY: the arena's element is initialised, and only `&mut self` writes to it.
        unsafe { &*self.vectors.at(index) }
    }

    fn write_vector(&mut self, index: usize, vector: libc::iovec) {
        // SAFETY: the arena's element is initialised and `&mut self` keeps every other access out.
        unsafe { self.vectors.at(index).write(vector) };
    }
}
