//! Queries off the wire. Nearly all are one plain question with at most an OPT record behind it; those are read in
//! place, without allocation. What is shaped in any other way is decoded by hickory-proto, boiled down to that plain
//! form and read again, so everything behind this file sees one kind of query. Pure.

use hickory_proto::op::{Edns, Message, Query as Question};

use crate::name::{DottedName, Unreadable};

pub(crate) const HEADER: usize = 12;

/// The header's second 16 bits.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC_DATA: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Record and query types that this server treats by name.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    /// TKEY, TSIG, IXFR, AXFR: not for a forwarder.
    pub(crate) const META: std::ops::RangeInclusive<u16> = 249..=252;
    pub(crate) const ANY: u16 = 255;
}

pub(crate) const CLASS_IN: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

impl Rcode {
    pub(crate) const fn bits(self) -> u16 {
        self as u16
    }
}

/// What a datagram or a TCP message turned out to be.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly always a query, and on the stack only")]
pub(crate) enum Parsed<'a> {
    Query(Query<'a>),
    /// Answered with this code, without the question, which may be unreadable.
    Malformed {
        id: u16,
        flags: u16,
        rcode: Rcode,
    },
    /// A response, or too short to have an id: answering could only feed a loop.
    Dropped,
    /// Legal perhaps, but not plain: see [`boil_down`].
    Unusual,
}

/// One question as it came in.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) heading: Heading<'a>,
    pub(crate) name: DottedName,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
}

/// What an answer repeats of its query, or is shaped by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heading<'a> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name, type and class as the client wrote them.
    pub(crate) question: &'a [u8],
    pub(crate) edns: Option<ClientEdns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

pub(crate) fn parse(message: &[u8]) -> Parsed<'_> {
    let Some(header) = message.first_chunk::<HEADER>() else { return Parsed::Dropped };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (id, flags) = (word(0), word(2));
    if flags & flag::RESPONSE != 0 {
        return Parsed::Dropped;
    }
    let malformed = |rcode| Parsed::Malformed { id, flags, rcode };
    if flags & flag::OPCODE != 0 {
        return malformed(Rcode::NotImp);
    }
    if word(4) != 1 {
        return malformed(Rcode::FormErr);
    }
    if word(6) != 0 || word(8) != 0 || word(10) > 1 {
        return Parsed::Unusual;
    }
    let body = &message[HEADER..];
    let (name, used) = match DottedName::read(body) {
        Ok(read) => read,
        Err(Unreadable::Broken) => return malformed(Rcode::FormErr),
        Err(Unreadable::Unusual) => return Parsed::Unusual,
    };
    let Some(&[t0, t1, c0, c1]) = body.get(used..used + 4) else { return malformed(Rcode::FormErr) };
    let (question, rest) = body.split_at(used + 4);
    let edns = if word(10) == 0 {
        None
    } else {
        match read_opt(rest) {
            Some(edns) => Some(edns),
            None => return Parsed::Unusual,
        }
    };
    let (qtype, qclass) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
    Parsed::Query(Query { heading: Heading { id, flags, question, edns }, name, qtype, qclass })
}

/// An OPT record that ends the message, its options well formed.
fn read_opt(record: &[u8]) -> Option<ClientEdns> {
    let &[0, 0, 41, p0, p1, _, version, f0, _, l0, l1] = record.first_chunk::<11>()? else { return None };
    let mut options = record.get(11..)?;
    if options.len() != usize::from(u16::from_be_bytes([l0, l1])) {
        return None;
    }
    while !options.is_empty() {
        let &[_, _, n0, n1] = options.first_chunk::<4>()?;
        options = options.get(4 + usize::from(u16::from_be_bytes([n0, n1]))..)?;
    }
    Some(ClientEdns { payload: u16::from_be_bytes([p0, p1]), version, dnssec_ok: f0 & 0x80 != 0 })
}

/// The plain form of an unusual query, or the code to refuse it with.
pub(crate) fn boil_down(message: &[u8]) -> Result<Vec<u8>, Rcode> {
    let decoded = Message::from_vec(message).map_err(|_| Rcode::FormErr)?;
    let [question] = decoded.queries.as_slice() else { return Err(Rcode::FormErr) };
    let mut plain =
        Message::new(decoded.metadata.id, decoded.metadata.message_type, decoded.metadata.op_code);
    plain.metadata.recursion_desired = decoded.metadata.recursion_desired;
    plain.metadata.authentic_data = decoded.metadata.authentic_data;
    plain.metadata.checking_disabled = decoded.metadata.checking_disabled;
    let mut copy = Question::query(question.name().clone(), question.query_type());
    copy.set_query_class(question.query_class());
    plain.add_query(copy);
    if let Some(edns) = &decoded.edns {
        let mut bare = Edns::new();
        bare.set_max_payload(edns.max_payload())
            .set_version(edns.version())
            .set_dnssec_ok(edns.flags().dnssec_ok);
        plain.set_edns(bare);
    }
    plain.to_vec().map_err(|_| Rcode::FormErr)
}
