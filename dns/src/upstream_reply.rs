//! What an upstream server sent back: checked against the question, taken apart as far as passing it on, cutting it to
//! size and keeping it for a while requires. Everything in here is hostile. Pure.

mod moved;

use crate::parse::{HEADER, Heading, Rcode, flag, rtype};
use crate::reply::{self, Section, put_header};

/// A well-formed reply to the question that was asked, without its OPT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamReply {
    bytes: Box<[u8]>,
    /// Where the first record starts: behind the question.
    body: usize,
    records: Box<[Record]>,
    flags: u16,
    rcode: u16,
    lifetime: Option<u32>,
    positive: bool,
    edns: bool,
}

/// Where one record is in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    section: Section,
    ttl_at: u16,
    end: u16,
}

/// Why something that came in is no reply to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Another question, or no reply: a forgery, or a reply to somebody else.
    Stranger,
    /// The right question with a body that cannot be followed.
    Broken,
}

impl UpstreamReply {
    /// Reads a reply to `question` (wire form). The caller has matched its id and where it came from.
    pub(crate) fn read(message: &[u8], question: &[u8]) -> Result<Self, Unfit> {
        let header = message.first_chunk::<HEADER>().ok_or(Unfit::Stranger)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        let body = HEADER + question.len();
        let echoed = message.get(HEADER..body).is_some_and(|echo| echo.eq_ignore_ascii_case(question));
        if flags & flag::RESPONSE == 0 || flags & flag::OPCODE != 0 {
            return Err(Unfit::Stranger);
        }
        if word(4) == 0 && message.len() == HEADER && flags & flag::RCODE != 0 {
            return Ok(Self::bare(flags, question));
        }
        if word(4) != 1 || !echoed {
            return Err(Unfit::Stranger);
        }
        let mut walk = Walk::new(message, question);
        let counts =
            [(Section::Answer, word(6)), (Section::Authority, word(8)), (Section::Additional, word(10))];
        let complete = walk.all(body, counts);
        if !complete && flags & flag::TRUNCATED == 0 {
            return Err(Unfit::Broken);
        }
        let rcode = (flags & flag::RCODE) | (u16::from(walk.high_rcode) << 4);
        let cacheable = complete && flags & flag::TRUNCATED == 0 && flags & flag::RECURSION_DESIRED != 0;
        Ok(Self {
            lifetime: if cacheable { walk.lifetime(rcode) } else { None },
            bytes: message[..walk.end].into(),
            body,
            positive: walk.answered,
            edns: walk.edns,
            records: walk.records.into(),
            flags,
            rcode,
        })
    }

    /// Some servers refuse with nothing but a header.
    fn bare(flags: u16, question: &[u8]) -> Self {
        let bytes: Box<[u8]> = [&[0; HEADER][..], question].concat().into();
        let (body, rcode) = (bytes.len(), flags & flag::RCODE);
        Self {
            bytes,
            body,
            records: Box::default(),
            flags,
            rcode,
            lifetime: None,
            positive: false,
            edns: false,
        }
    }

    pub(crate) fn rcode(&self) -> u16 {
        self.rcode
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.flags & flag::TRUNCATED != 0
    }

    /// Whether the server said anything about EDNS.
    pub(crate) fn has_edns(&self) -> bool {
        self.edns
    }

    /// Seconds that it may be kept, if at all.
    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.lifetime
    }

    /// Whether it brings what was asked for, not only that it is not there.
    pub(crate) fn is_positive(&self) -> bool {
        self.positive
    }

    /// Memory it takes, about.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + size_of_val::<[Record]>(&self.records)
    }

    /// Appends this reply as the answer to `asked`, `age` seconds after it came in, at most `limit` bytes long.
    pub(crate) fn write(&self, out: &mut Vec<u8>, asked: &Heading<'_>, limit: usize, age: u32) {
        let start = out.len();
        let room = limit.saturating_sub(if asked.edns.is_some() { reply::OPT_BYTES } else { 0 });
        let fitting = self.records.iter().take_while(|record| usize::from(record.end) <= room).count();
        let kept = &self.records[..fitting];
        let end = kept.last().map_or(HEADER + asked.question.len(), |record| usize::from(record.end));
        out.extend_from_slice(&self.bytes[..end.min(self.bytes.len())]);
        let message = &mut out[start..];
        message[HEADER..HEADER + asked.question.len()].copy_from_slice(asked.question);
        for record in kept {
            age_ttl(message, usize::from(record.ttl_at), age);
        }
        let count = |section| kept.iter().filter(|record| record.section == section).count() as u16;
        let cut = self.records[fitting..].iter().any(|record| record.section != Section::Additional);
        let mut flags = reply::response_flags(asked.flags) | (self.rcode & flag::RCODE);
        if cut || self.is_truncated() {
            flags |= flag::TRUNCATED;
        }
        let wants_proof = asked.edns.is_some_and(|edns| edns.dnssec_ok);
        if wants_proof || asked.flags & flag::AUTHENTIC_DATA != 0 {
            flags |= self.flags & flag::AUTHENTIC_DATA;
        }
        let opt = u16::from(asked.edns.is_some());
        let counts = [1, count(Section::Answer), count(Section::Authority), count(Section::Additional) + opt];
        put_header(message, asked.id, flags, counts);
        if let Some(edns) = asked.edns {
            reply::push_opt(out, u8::try_from(self.rcode >> 4).unwrap_or(0), edns.dnssec_ok);
        }
    }
}

fn age_ttl(message: &mut [u8], at: usize, age: u32) {
    if let Some(place) = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *place = u32::from_be_bytes(*place).saturating_sub(age).to_be_bytes();
    }
}

/// A walk over the records of a message.
struct Walk<'a> {
    message: &'a [u8],
    qtype: u16,
    records: Vec<Record>,
    end: usize,
    edns: bool,
    high_rcode: u8,
    /// The shortest time to live among the answers, and whether one is of the type that was asked for.
    answer_ttl: Option<u32>,
    answered: bool,
    negative_ttl: Option<u32>,
}

impl<'a> Walk<'a> {
    fn new(message: &'a [u8], question: &[u8]) -> Self {
        let qtype = question.last_chunk::<4>().map_or(0, |[t0, t1, ..]| u16::from_be_bytes([*t0, *t1]));
        Self {
            message,
            qtype,
            records: Vec::new(),
            end: HEADER + question.len(),
            edns: false,
            high_rcode: 0,
            answer_ttl: None,
            answered: false,
            negative_ttl: None,
        }
    }

    /// False if the message ends before its records do.
    fn all(&mut self, from: usize, counts: [(Section, u16); 3]) -> bool {
        let mut at = from;
        for (section, count) in counts {
            for _ in 0..count {
                let Some(end) = self.one(section, at) else { return false };
                at = end;
            }
        }
        true
    }

    fn one(&mut self, section: Section, at: usize) -> Option<usize> {
        let fixed = skip_name(self.message, at)?;
        let [t0, t1, _, _, ttl @ .., l0, l1] = *self.message.get(fixed..)?.first_chunk::<10>()?;
        let rtype = u16::from_be_bytes([t0, t1]);
        let data = fixed + 10;
        let end = data + usize::from(u16::from_be_bytes([l0, l1]));
        let data = self.message.get(data..end)?;
        if rtype == rtype::OPT && section == Section::Additional {
            (self.edns, self.high_rcode) = (true, ttl[0]);
            return Some(end);
        }
        // Behind the OPT record only signatures of this message can follow, and it is not the same message any more.
        if self.edns {
            return Some(end);
        }
        // RFC 2181: a time to live with the top bit set is none.
        let ttl = Some(u32::from_be_bytes(ttl)).filter(|ttl| ttl >> 31 == 0).unwrap_or(0);
        match section {
            Section::Answer => {
                self.answered |= rtype == self.qtype || self.qtype == rtype::ANY;
                self.answer_ttl = Some(self.answer_ttl.map_or(ttl, |least| least.min(ttl)));
            }
            Section::Authority if rtype == rtype::SOA => {
                let minimum = data.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
                self.negative_ttl = minimum.map(|minimum| minimum.min(ttl));
            }
            _ => {}
        }
        let ttl_at = u16::try_from(fixed + 4).ok()?;
        self.records.push(Record { section, ttl_at, end: u16::try_from(end).ok()? });
        self.end = end;
        Some(end)
    }

    fn lifetime(&self, rcode: u16) -> Option<u32> {
        let positive = rcode == Rcode::NoError.bits() && self.answered;
        let negative = rcode == Rcode::NxDomain.bits() || rcode == Rcode::NoError.bits();
        let lifetime = if positive {
            self.answer_ttl
        } else if negative {
            // A chain of aliases that ends in nothing lasts no longer than its links.
            self.negative_ttl.map(|ttl| self.answer_ttl.unwrap_or(u32::MAX).min(ttl))
        } else {
            None
        };
        lifetime.filter(|ttl| *ttl > 0)
    }
}

/// Where the name that starts `at` ends. Its pointers are not followed: nothing here needs the name.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            label @ 1..=63 => at += 1 + usize::from(label),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
