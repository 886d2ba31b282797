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

/// The longest message TCP can frame.
pub(crate) const MOST_BYTES: usize = u16::MAX as usize;

pub(crate) const OPT_BYTES: usize = 11;

/// The farthest place in a message that a name can point to.
const MOST_POINTER: usize = 0x3fff;

/// The question's name, as the owner of a record.
pub(crate) const QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// The name that stands at `place` of the message, as the owner of a record; none if it is out of reach.
pub(crate) fn pointer(place: usize) -> Option<[u8; 2]> {
    let place = u16::try_from(place).ok().filter(|place| usize::from(*place) <= MOST_POINTER)?;
    Some((0xc000 | place).to_be_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// One answer under construction, at the end of a buffer.
pub(crate) struct Reply<'b, 'q> {
    out: &'b mut Vec<u8>,
    query: &'q Heading<'q>,
    start: usize,
    /// Where the records have to end.
    end: usize,
    counts: [u16; 3],
    truncated: bool,
    by_stream: bool,
}

impl<'b, 'q> Reply<'b, 'q> {
    /// Starts an answer of at most `limit` bytes.
    pub(crate) fn begin(out: &'b mut Vec<u8>, query: &'q Heading<'q>, limit: usize) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(query.question);
        Self::resume(out, start, query, limit, 0)
    }

    /// Goes on with an answer that somebody else has begun at `start`, and given so many records.
    pub(crate) fn resume(
        out: &'b mut Vec<u8>,
        start: usize,
        query: &'q Heading<'q>,
        limit: usize,
        answers: u16,
    ) -> Self {
        let opt = if query.edns.is_some() { OPT_BYTES } else { 0 };
        let end = start.saturating_add(limit).saturating_sub(opt);
        let by_stream = limit >= MOST_BYTES;
        Self { out, query, start, end, counts: [answers, 0, 0], truncated: false, by_stream }
    }

    /// Adds a record to the answers, and says where in the message its data is; none if it does not fit, which is noted.
    pub(crate) fn answer(&mut self, owner: &[u8], rtype: u16, data: &[u8]) -> Option<usize> {
        let place = self.record(Section::Answer, owner, rtype, data);
        self.truncated |= place.is_none();
        place
    }

    /// Adds a record that the client can do without. False if it does not fit.
    pub(crate) fn additional(&mut self, owner: &[u8], rtype: u16, data: &[u8]) -> bool {
        self.record(Section::Additional, owner, rtype, data).is_some()
    }

    fn record(&mut self, section: Section, owner: &[u8], rtype: u16, data: &[u8]) -> Option<usize> {
        if self.truncated || owner.len() + 10 + data.len() > self.room() {
            return None;
        }
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(owner);
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&[0, 1]);
        self.out.extend_from_slice(&LOCAL_TTL.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        let place = self.len();
        self.out.extend_from_slice(data);
        self.counts[section as usize] += 1;
        Some(place)
    }

    /// Adds a record in wire form; `finish` completes it and may refuse it. What does not fit or is refused is noted as
    /// missing, unless the client can do without.
    pub(crate) fn raw(
        &mut self,
        section: Section,
        record: &[u8],
        finish: impl FnOnce(&mut [u8], usize) -> Option<()>,
    ) -> bool {
        let place = self.len();
        let fits = !self.truncated && record.len() <= self.room();
        if fits {
            self.out.extend_from_slice(record);
            if finish(&mut self.out[self.start..], place).is_some() {
                self.counts[section as usize] += 1;
                return true;
            }
            self.out.truncate(self.start + place);
        }
        self.truncated |= section != Section::Additional;
        false
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Bytes that records may still take.
    pub(crate) fn room(&self) -> usize {
        self.end.saturating_sub(self.out.len())
    }

    /// There is more than this answer has.
    pub(crate) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Completes header and OPT record.
    pub(crate) fn finish(self, rcode: Rcode) {
        self.finish_with(rcode.bits());
    }

    pub(crate) fn finish_with(self, rcode: u16) {
        let mut flags = response_flags(self.query.flags) | (rcode & flag::RCODE);
        // Over TCP nobody could ask for more, and there are clients that take the flag for a failure then.
        if self.truncated && !self.by_stream {
            flags |= flag::TRUNCATED;
        }
        let [answers, authorities, mut additionals] = self.counts;
        if let Some(edns) = self.query.edns {
            push_opt(self.out, u8::try_from(rcode >> 4).unwrap_or(0), edns.dnssec_ok);
            additionals += 1;
        }
        let counts = [1, answers, authorities, additionals];
        put_header(&mut self.out[self.start..], self.query.id, flags, counts);
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

/// How long an answer to this client may be.
pub(crate) fn limit(query: &Heading<'_>, by_stream: bool) -> usize {
    if by_stream { MOST_BYTES } else { datagram_limit(query) }
}
