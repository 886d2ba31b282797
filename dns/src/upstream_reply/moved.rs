//! An upstream answer as the end of a chain of aliases. Its records stand at other places than in the message that they
//! came in, so the names in them that point to earlier ones are told the new places. Pure.

use super::{UpstreamReply, age_ttl};
use crate::parse::HEADER;
use crate::reply::{Reply, pointer};

/// From where to where in a message names have moved.
#[derive(Clone, Copy)]
struct Move {
    /// The question's name is what the last alias leads to.
    name: usize,
    name_length: usize,
    body: usize,
    records: usize,
}

impl UpstreamReply {
    /// Completes `reply`, which so far ends with the alias that this is the answer for.
    pub(crate) fn write_behind(&self, mut reply: Reply<'_, '_>, age: u32) {
        // What is asked of a server is a name, a type and a class.
        let name_length = self.body - HEADER - 4;
        let moved =
            Move { name: reply.len() - name_length, name_length, body: self.body, records: reply.len() };
        let mut from = self.body;
        for record in &self.records {
            let end = usize::from(record.end);
            let ttl = usize::from(record.ttl_at) - from;
            let complete = |message: &mut [u8], at: usize| {
                age_ttl(message, at + ttl, age);
                moved.record(message, at)
            };
            if !reply.raw(record.section, &self.bytes[from..end], complete) {
                break;
            }
            from = end;
        }
        if self.is_truncated() {
            reply.truncate();
        }
        reply.finish_with(self.rcode);
    }
}

impl Move {
    /// Names in the record `at`; none if one cannot be followed, or would point too far.
    fn record(&self, message: &mut [u8], at: usize) -> Option<()> {
        let fixed = self.name(message, at)?;
        let [t0, t1, ..] = *message.get(fixed..)?.first_chunk::<10>()?;
        let (before, names) = names_in(u16::from_be_bytes([t0, t1]));
        let mut at = fixed + 10 + before;
        for _ in 0..names {
            at = self.name(message, at)?;
        }
        Some(())
    }

    /// The place behind the name.
    fn name(&self, message: &mut [u8], mut at: usize) -> Option<usize> {
        loop {
            match *message.get(at)? {
                0 => return Some(at + 1),
                label @ 1..=63 => at += 1 + usize::from(label),
                0xc0.. => {
                    let place = message.get_mut(at..)?.first_chunk_mut::<2>()?;
                    let old = usize::from(u16::from_be_bytes(*place) & 0x3fff);
                    *place = pointer(self.place(old)?)?;
                    return Some(at + 2);
                }
                _ => return None,
            }
        }
    }

    fn place(&self, old: usize) -> Option<usize> {
        if old >= self.body {
            return Some(old - self.body + self.records);
        }
        let in_name = old.checked_sub(HEADER).filter(|at| *at < self.name_length)?;
        Some(self.name + in_name)
    }
}

/// For a type whose data has names that may be shortened: the bytes before the first one, and their number. RFC 3597 has
/// the list, and those that servers shorten although they should not.
fn names_in(rtype: u16) -> (usize, usize) {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2..=5 | 7..=9 | 12 | 39 => (0, 1),
        // SOA, MINFO, RP
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => (2, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests;
