//! The two doors that bytes from strangers come in through, as functions of bytes alone: what clients send, and what
//! upstream servers send. Fuzzing and the property tests walk the same way in.

use std::net::IpAddr;

use crate::answer::{Answer, answer};
use crate::index::{Index, ViewKey};
use crate::parse::{ClientEdns, Heading, Parsed, Rcode, boil_down, flag, parse, rtype};
use crate::reply::{self, Reply};
use crate::table::{Forward, Name, Srv, View, ViewZone};
use crate::upstream_reply::UpstreamReply;

/// A name of every sort, each a letter long, so that strangers hit upon them.
fn table() -> (Index, ViewKey) {
    let mut index = Index::default();
    let zones = vec![ViewZone { zone: "z".into(), suffix: "b".into() }];
    let view = View {
        id: "v".into(),
        zones,
        names: Vec::new(),
        forward: Forward::Never,
        single_labels_are_local: true,
    };
    let view = index.put_view(&view);
    let address = IpAddr::from([10, 0, 0, 1]);
    let empty = |name: &str| Name { name: name.into(), ..Name::default() };
    let alias = |name, of: &str| Name { alias: Some(of.into()), ..empty(name) };
    let srv = |port, target: &str| Srv { priority: 1, weight: 2, port, target: target.into() };
    let many = (0..60).map(|n| IpAddr::from([10, 0, 1, n])).collect();
    let names = [
        Name { addresses: vec![address], primary_for: vec![address], ..empty("a") },
        Name { addresses: many, ..empty("m") },
        Name { srv: vec![srv(80, "a"), srv(81, "a"), srv(82, "q."), srv(83, "m")], ..empty("s") },
        empty("n"),
        alias("c", "a.b"),
        alias("d", "D"),
        alias("e", "x.y"),
        alias("f", "e"),
        alias("g", "un..sayable"),
    ];
    for name in names {
        index.put_name(&"z".into(), &name);
    }
    (index, view)
}

/// Treats `message` as a client's query and checks what is said in reply.
pub fn query(message: &[u8]) {
    let ((mut index, view), mut out) = (table(), Vec::new());
    let plain;
    let parsed = match parse(message) {
        Parsed::Unusual => match boil_down(message) {
            Ok(boiled) => {
                plain = boiled;
                parse(&plain)
            }
            Err(_) => return,
        },
        parsed => parsed,
    };
    match parsed {
        Parsed::Query(query) => {
            let limit = reply::datagram_limit(&query.heading);
            match answer(&mut index, view, &query, limit, &mut out) {
                Answer::Given(_) => {}
                Answer::Ask => reply::empty(&mut out, &query.heading, Rcode::ServFail),
                Answer::Follow(follow) => {
                    Reply::resume(&mut out, 0, &query.heading, limit, follow.links).finish(Rcode::ServFail);
                }
            }
            assert!(out.len() <= limit, "{} bytes for {limit}", out.len());
            assert!(UpstreamReply::read(&out, query.heading.question).is_ok(), "unreadable: {out:?}");
        }
        Parsed::Malformed { id, flags, rcode } => reply::malformed(&mut out, id, flags, rcode),
        Parsed::Unusual => panic!("boiled down and still unusual"),
        Parsed::Dropped => {}
    }
}

/// Treats `message` as an upstream server's reply, the question as its own, and checks what a client would get.
pub fn upstream_reply(message: &[u8]) {
    // The first bytes choose the client.
    let Some((&[limit, edns, age], message)) = message.split_first_chunk() else { return };
    let question = b"\x03www\x07example\x00\x00\x01\x00\x01";
    let message =
        [message.get(..12).unwrap_or_default(), question, message.get(12..).unwrap_or_default()].concat();
    let Ok(reply) = UpstreamReply::read(&message, question) else { return };
    let edns = (edns & 1 == 1).then_some(ClientEdns { payload: 512, version: 0, dnssec_ok: edns & 2 == 2 });
    let heading = Heading { id: 1, flags: flag::RECURSION_DESIRED, question, edns };
    let (limit, mut out) = (64 + 8 * usize::from(limit), Vec::new());
    reply.write(&mut out, &heading, limit, age.into());
    assert!(out.len() <= limit, "{} bytes for {limit}", out.len());
    assert!(UpstreamReply::read(&out, question).is_ok(), "unreadable: {out:?}");
    end_of_aliases(&reply, question, heading, limit);
}

/// Checks what a client gets that has asked for an alias of what the server was asked for.
fn end_of_aliases(reply: &UpstreamReply, question: &[u8], heading: Heading<'_>, limit: usize) {
    let heading = Heading { question: b"\x01e\x00\x00\x01\x00\x01", ..heading };
    let mut out = Vec::new();
    let mut begun = Reply::begin(&mut out, &heading, limit);
    let Some((name, _)) = question.split_last_chunk::<4>() else { return };
    if begun.answer(&reply::QUESTION, rtype::CNAME, name).is_none() {
        return;
    }
    reply.write_behind(begun, 1);
    assert!(out.len() <= limit, "{} bytes for {limit}", out.len());
    assert!(UpstreamReply::read(&out, heading.question).is_ok(), "unreadable: {out:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// A header that mostly passes, so that what follows is looked at.
    fn message(response: bool) -> impl Strategy<Value = Vec<u8>> {
        let header = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<bool>());
        (header, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
            move |((start, counts, odd), body)| {
                let flags = if odd { start[2] } else { start[2] & 0x03 } | if response { 0x80 } else { 0 };
                let [q, an, ns, ar] = counts.map(|count| if odd { count % 4 } else { 0 });
                let header =
                    [start[0], start[1], flags, start[3], 0, if odd { q } else { 1 }, 0, an, 0, ns, 0, ar];
                [&header[..], &body].concat()
            },
        )
    }

    /// Names of the table with any type: most of what is asked at random is not there.
    fn known() -> impl Strategy<Value = Vec<u8>> {
        let rtype = prop_oneof![Just(1_u8), Just(5), Just(12), Just(28), Just(33), Just(255), any::<u8>()];
        ("[a-gmns]", any::<bool>(), rtype, any::<Option<u16>>()).prop_map(
            |(name, suffixed, rtype, payload)| {
                let suffix: &[u8] = if suffixed { b"\x01B" } else { b"" };
                let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some()), 1];
                message.extend([name.as_bytes(), suffix, &[0, 0, rtype, 0, 1]].concat());
                if let Some(payload) = payload {
                    let [p0, p1] = payload.to_be_bytes();
                    message.extend([0, 0, 41, p0, p1, 0, 0, 0, 0, 0, 0]);
                }
                message
            },
        )
    }

    proptest! {
        #[test]
        fn no_question_for_a_known_name_does_harm(message in known()) {
            super::query(&message);
        }

        #[test]
        fn no_query_does_harm(message in message(false), raw: Vec<u8>) {
            super::query(&message);
            super::query(&raw);
        }

        #[test]
        fn no_upstream_reply_does_harm(client: [u8; 3], message in message(true), raw: Vec<u8>) {
            super::upstream_reply(&[&client[..], &message].concat());
            super::upstream_reply(&raw);
        }
    }
}
