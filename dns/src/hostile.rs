//! The two doors that bytes from strangers come in through, as functions of bytes alone: what clients send, and what
//! upstream servers send. Fuzzing and the property tests walk the same way in.

use std::net::IpAddr;

use crate::answer::answer;
use crate::index::Index;
use crate::parse::{ClientEdns, Heading, Parsed, Rcode, boil_down, flag, parse};
use crate::reply;
use crate::table::{Forward, Name, View, ViewZone};
use crate::upstream_reply::UpstreamReply;

/// Treats `message` as a client's query and checks what is said in reply.
pub fn query(message: &[u8]) {
    let (mut index, mut out) = (Index::default(), Vec::new());
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
    let name =
        Name { name: "a".into(), addresses: vec![address], primary_for: vec![address], ..Name::default() };
    index.put_name(&"z".into(), &name);
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
            if answer(&mut index, view, &query, limit, &mut out).is_none() {
                reply::empty(&mut out, &query.heading, Rcode::ServFail);
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

    proptest! {
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
