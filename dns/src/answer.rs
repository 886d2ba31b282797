//! What a question gets that this server can answer by itself. Local names are never forwarded, whatever the type;
//! what is left over goes to the view's upstream servers. Pure but for the turn of a name's addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::index::{Entry, Index, ViewKey};
use crate::name::{WireName, reverse_address};
use crate::parse::{CLASS_IN, Query, Rcode, rtype};
use crate::reply::{self, LOCAL_TTL, Reply};

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

/// Appends the answer to `out` if it is this server's to give, at most `limit` bytes long; otherwise the question
/// is to be forwarded.
pub(crate) fn answer(
    index: &mut Index,
    view: ViewKey,
    query: &Query<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Option<Kind> {
    let refuse = |out: &mut Vec<u8>, rcode, kind| {
        reply::empty(out, &query.heading, rcode);
        Some(kind)
    };
    if query.heading.edns.is_some_and(|edns| edns.version != 0) {
        return refuse(out, Rcode::BadVers, Kind::FormErr);
    }
    if query.qclass != CLASS_IN || rtype::META.contains(&query.qtype) {
        return refuse(out, Rcode::Refused, Kind::Refused);
    }
    if query.qtype == rtype::OPT {
        return refuse(out, Rcode::FormErr, Kind::FormErr);
    }
    if let Some(entry) = index.find(view, &query.name) {
        return Some(addresses(entry, query, limit, out));
    }
    if let Some(address) = reverse_address(query.name.as_bytes()).filter(|_| !query.name.is_foreign()) {
        return pointer(index, view, query, address, limit, out);
    }
    if query.name.is_within(b"localhost") {
        let mut entry = Entry::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        return Some(addresses(&mut entry, query, limit, out));
    }
    // RFC 6761 and 7686: these never exist, and asking would tell somebody.
    let never = query.name.is_within(b"invalid") || query.name.is_within(b"onion");
    if never || (query.name.is_single_label() && index.single_labels_are_local(view)) {
        return refuse(out, Rcode::NxDomain, Kind::NxDomain);
    }
    None
}

fn addresses(entry: &mut Entry, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> Kind {
    // RFC 8482: one family is answer enough for ANY.
    let family = match query.qtype {
        rtype::ANY if entry.v4.is_empty() => rtype::AAAA,
        rtype::ANY => rtype::A,
        other => other,
    };
    let mut reply = Reply::begin(out, &query.heading, limit);
    let count = match family {
        rtype::A => entry.v4.len(),
        rtype::AAAA => entry.v6.len(),
        _ => 0,
    };
    if family == rtype::A {
        let (after, first) = entry.v4.split_at(entry.turn_v4.take(count));
        first.iter().chain(after).for_each(|address| reply.answer(family, LOCAL_TTL, &address.octets()));
    } else if family == rtype::AAAA {
        let (after, first) = entry.v6.split_at(entry.turn_v6.take(count));
        first.iter().chain(after).for_each(|address| reply.answer(family, LOCAL_TTL, &address.octets()));
    }
    reply.finish(Rcode::NoError);
    if count > 0 { Kind::Local } else { Kind::NoData }
}

fn pointer(
    index: &Index,
    view: ViewKey,
    query: &Query<'_>,
    address: IpAddr,
    limit: usize,
    out: &mut Vec<u8>,
) -> Option<Kind> {
    let (name, suffix) = match index.name_of(view, address) {
        Some(name) => name,
        None if address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST => ("localhost", None),
        None => return None,
    };
    if !matches!(query.qtype, rtype::PTR | rtype::ANY) {
        reply::empty(out, &query.heading, Rcode::NoError);
        return Some(Kind::NoData);
    }
    let Some(target) = WireName::of([Some(name), suffix].into_iter().flatten()) else {
        reply::empty(out, &query.heading, Rcode::ServFail);
        return Some(Kind::ServFail);
    };
    let mut reply = Reply::begin(out, &query.heading, limit);
    reply.answer(rtype::PTR, LOCAL_TTL, target.as_bytes());
    reply.finish(Rcode::NoError);
    Some(Kind::Local)
}

#[cfg(test)]
mod tests;
