//! Answers in wire form, appended to a buffer that the caller keeps: nothing is allocated once it has grown. Every
//! answer repeats the question as the client wrote it, case included, and points to it instead of naming it again.

use crate::parse::{HEADER, Heading, Rcode, flag, rtype};

/// Seconds that a client may keep a local answer: short, so that a name never leads to what has gone.
pub(crate) const LOCAL_TTL: u32 = 5;

/// The largest query this server reads in one datagram, as told to clients that speak EDNS.
pub(crate) const OWN_PAYLOAD: u16 = 1232;

/// What every client can take in a datagram.
pub(crate) const MINIMAL_PAYLOAD: usize = 512;

/// What no datagram exceeds, whatever the client says: there is TCP for more.
const MOST_PAYLOAD: usize = 4096;

pub(crate) const OPT_BYTES: usize = 11;

/// One answer under construction, at the end of a buffer.
pub(crate) struct Reply<'b, 'q> {
    out: &'b mut Vec<u8>,
    query: &'q Heading<'q>,
    start: usize,
    /// Where the records have to end.
    end: usize,
    answers: u16,
    truncated: bool,
}

impl<'b, 'q> Reply<'b, 'q> {
    /// Starts an answer of at most `limit` bytes.
    pub(crate) fn begin(out: &'b mut Vec<u8>, query: &'q Heading<'q>, limit: usize) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(query.question);
        let opt = if query.edns.is_some() { OPT_BYTES } else { 0 };
        Self {
            out,
            query,
            start,
            end: start.saturating_add(limit).saturating_sub(opt),
            answers: 0,
            truncated: false,
        }
    }

    /// Adds an answer for the question's own name, or notes that it did not fit.
    pub(crate) fn answer(&mut self, rtype: u16, ttl: u32, data: &[u8]) {
        let size = 12 + data.len();
        if self.truncated || self.out.len() + size > self.end {
            self.truncated = true;
            return;
        }
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&[0xc0, 0x0c]);
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&[0, 1]);
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(data);
        self.answers += 1;
    }

    /// Completes header and OPT record.
    pub(crate) fn finish(self, rcode: Rcode) {
        let mut flags = response_flags(self.query.flags) | (rcode.bits() & flag::RCODE);
        if self.truncated {
            flags |= flag::TRUNCATED;
        }
        let additional = if let Some(edns) = self.query.edns {
            push_opt(self.out, u8::try_from(rcode.bits() >> 4).unwrap_or(0), edns.dnssec_ok);
            1
        } else {
            0
        };
        put_header(&mut self.out[self.start..], self.query.id, flags, [1, self.answers, 0, additional]);
    }
}

/// An answer without records.
pub(crate) fn empty(out: &mut Vec<u8>, query: &Heading<'_>, rcode: Rcode) {
    Reply::begin(out, query, usize::MAX).finish(rcode);
}

/// The answer to what could not be read beyond its header.
pub(crate) fn malformed(out: &mut Vec<u8>, id: u16, flags: u16, rcode: Rcode) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let flags = response_flags(flags) | (flags & flag::OPCODE) | rcode.bits();
    put_header(&mut out[start..], id, flags, [0; 4]);
}

pub(crate) fn put_header(message: &mut [u8], id: u16, flags: u16, counts: [u16; 4]) {
    let [q, an, ns, ar] = counts;
    for (place, word) in message.chunks_exact_mut(2).zip([id, flags, q, an, ns, ar]) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// `high` is the upper part of an extended response code.
pub(crate) fn push_opt(out: &mut Vec<u8>, high: u8, dnssec_ok: bool) {
    let [p0, p1] = OWN_PAYLOAD.to_be_bytes();
    let [t0, t1] = rtype::OPT.to_be_bytes();
    out.extend_from_slice(&[0, t0, t1, p0, p1, high, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
}

/// Of the question's flags, those that an answer repeats, and those that every answer of this server has.
pub(crate) fn response_flags(query: u16) -> u16 {
    flag::RESPONSE | flag::RECURSION_AVAILABLE | (query & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED))
}

/// How long a datagram to this client may be.
pub(crate) fn datagram_limit(query: &Heading<'_>) -> usize {
    query.edns.map_or(MINIMAL_PAYLOAD, |edns| usize::from(edns.payload).clamp(MINIMAL_PAYLOAD, MOST_PAYLOAD))
}
