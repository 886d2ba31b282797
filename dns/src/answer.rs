//! What a question gets that this server can answer by itself. Local names are never forwarded, whatever the type; an alias
//! is followed through the tables as far as it goes. What is left over goes to the view's upstream servers. Pure but for
//! the turns of a name's records.

mod records;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::entry::Entry;
use crate::index::{Index, ViewKey};
use crate::name::{DottedName, WireName, reverse_address};
use crate::parse::{CLASS_IN, Query, Rcode, rtype};
use crate::reply::{self, Reply};

/// Aliases that are followed for one question; more of them are taken for a circle.
const MOST_LINKS: u16 = 8;

/// How a query was dealt with; what the counters are by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From the tables, with records.
    Local,
    /// From the tables: the name is known, not with this type.
    NoData,
    NxDomain,
    ServFail,
    Refused,
    FormErr,
    NotImp,
    /// By an upstream server.
    Forwarded,
    /// From the cache of upstream answers.
    Cached,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "on the stack only")]
pub(crate) enum Answer {
    /// It is at the end of the buffer.
    Given(Kind),
    /// The question is to be forwarded.
    Ask,
    /// An answer is begun at the end of the buffer, and this is to be asked to go on with it.
    Follow(Follow),
}

/// The question that a chain of aliases ends in.
#[derive(Debug)]
pub(crate) struct Follow {
    question: [u8; WireName::MOST + 4],
    length: usize,
    /// The aliases, as answers that are in the buffer.
    pub(crate) links: u16,
}

impl Follow {
    fn new(target: &WireName, qtype: u16, links: u16) -> Self {
        let mut question = [0; _];
        let (name, length) = (target.as_bytes(), target.as_bytes().len() + 4);
        question[..name.len()].copy_from_slice(name);
        question[name.len()..][..2].copy_from_slice(&qtype.to_be_bytes());
        question[name.len() + 2..length].copy_from_slice(&CLASS_IN.to_be_bytes());
        Self { question, length, links }
    }

    pub(crate) fn question(&self) -> &[u8] {
        &self.question[..self.length]
    }
}

/// Appends the answer to `out`, at most `limit` bytes long, as far as it is this server's to give.
pub(crate) fn answer(
    index: &mut Index,
    view: ViewKey,
    query: &Query<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Answer {
    if let Some((rcode, kind)) = refusal(query) {
        reply::empty(out, &query.heading, rcode);
        return Answer::Given(kind);
    }
    let start = out.len();
    let mut reply = Reply::begin(out, &query.heading, limit);
    let mut owner = reply::QUESTION;
    let mut step = take_step(index, view, &query.name, query.qtype, &mut reply, &owner);
    let mut followed: Option<WireName> = None;
    for links in 0..=MOST_LINKS {
        let alias = match (step, &followed) {
            (Step::Done(rcode, kind), _) => {
                reply.finish(rcode);
                return Answer::Given(kind);
            }
            (Step::Elsewhere, None) => {
                out.truncate(start);
                return Answer::Ask;
            }
            // Whatever the name has was asked for, and the alias is all that this one has.
            (Step::Elsewhere, Some(_)) if query.qtype == rtype::ANY => {
                reply.finish(Rcode::NoError);
                return Answer::Given(Kind::Local);
            }
            (Step::Elsewhere, Some(target)) => {
                return Answer::Follow(Follow::new(target, query.qtype, links));
            }
            (Step::Alias(_), _) if links == MOST_LINKS => break,
            (Step::Alias(alias), _) => alias,
        };
        let Some(target) = WireName::of([alias.as_ref()]) else { break };
        let place = reply.answer(&owner, rtype::CNAME, target.as_bytes());
        let Some(pointer) = place.filter(|_| query.qtype != rtype::CNAME).and_then(reply::pointer) else {
            reply.finish(Rcode::NoError);
            return Answer::Given(Kind::Local);
        };
        owner = pointer;
        step = take_step(index, view, &target.dotted(), query.qtype, &mut reply, &owner);
        followed = Some(target);
    }
    // A circle, or a name that cannot be said.
    reply.finish(Rcode::ServFail);
    Answer::Given(Kind::ServFail)
}

/// What is not served at all.
fn refusal(query: &Query<'_>) -> Option<(Rcode, Kind)> {
    if query.heading.edns.is_some_and(|edns| edns.version != 0) {
        Some((Rcode::BadVers, Kind::FormErr))
    } else if query.qclass != CLASS_IN || rtype::META.contains(&query.qtype) {
        Some((Rcode::Refused, Kind::Refused))
    } else if query.qtype == rtype::OPT {
        Some((Rcode::FormErr, Kind::FormErr))
    } else {
        None
    }
}

/// What a name turned out to be.
enum Step {
    Done(Rcode, Kind),
    Alias(Arc<str>),
    Elsewhere,
}

impl Step {
    fn known(with_records: bool) -> Self {
        Self::Done(Rcode::NoError, if with_records { Kind::Local } else { Kind::NoData })
    }
}

/// Adds to `reply` what the tables have for `name`, which stands at `owner`.
fn take_step(
    index: &mut Index,
    view: ViewKey,
    name: &DottedName,
    qtype: u16,
    reply: &mut Reply<'_, '_>,
    owner: &[u8],
) -> Step {
    if let Some(found) = index.find(view, name) {
        if let Some(alias) = &found.entry.alias {
            return Step::Alias(Arc::clone(alias));
        }
        let wanted = records::wanted(found.entry, qtype);
        if wanted != rtype::SRV {
            return Step::known(records::addresses(found.entry, wanted, reply, owner));
        }
        let Some(places) = found.entry.srv.clone() else { return Step::known(false) };
        let first = found.entry.turn_srv.take(places.len());
        let suffix = found.suffix.cloned();
        records::services(index, view, (&places, first, suffix.as_deref()), reply, owner);
        return Step::known(true);
    }
    if let Some(address) = reverse_address(name.as_bytes()).filter(|_| !name.is_foreign()) {
        return pointer(index, view, qtype, address, reply, owner);
    }
    if name.is_within(b"localhost") {
        let mut entry = Entry::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        let wanted = records::wanted(&entry, qtype);
        return Step::known(records::addresses(&mut entry, wanted, reply, owner));
    }
    // RFC 6761 and 7686: these never exist, and asking would tell somebody.
    let never = name.is_within(b"invalid") || name.is_within(b"onion");
    if never || (name.is_single_label() && index.single_labels_are_local(view)) {
        return Step::Done(Rcode::NxDomain, Kind::NxDomain);
    }
    Step::Elsewhere
}

fn pointer(
    index: &Index,
    view: ViewKey,
    qtype: u16,
    address: IpAddr,
    reply: &mut Reply<'_, '_>,
    owner: &[u8],
) -> Step {
    let (name, suffix) = match index.name_of(view, address) {
        Some(name) => name,
        None if address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST => ("localhost", None),
        None => return Step::Elsewhere,
    };
    if !matches!(qtype, rtype::PTR | rtype::ANY) {
        return Step::known(false);
    }
    let Some(target) = WireName::of([Some(name), suffix].into_iter().flatten()) else {
        return Step::Done(Rcode::ServFail, Kind::ServFail);
    };
    reply.answer(owner, rtype::PTR, target.as_bytes());
    Step::known(true)
}

#[cfg(test)]
mod tests;
