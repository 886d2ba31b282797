use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::parse::ClientEdns;

const NAME: &str = "www.example.com.";

fn name(name: &str) -> Name {
    Name::from_str(name).unwrap()
}

fn reply(rtype: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authoritative = true;
    message.metadata.authentic_data = true;
    message.add_query(Query::query(name(NAME), rtype));
    message
}

fn a(ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(NAME), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let zone = name("example.com.");
    Record::from_rdata(zone.clone(), ttl, RData::SOA(SOA::new(zone.clone(), zone, 1, 2, 3, 4, minimum)))
}

fn question(of: &Message) -> Vec<u8> {
    let mut bare = Message::new(0, MessageType::Query, OpCode::Query);
    bare.add_query(of.queries[0].clone());
    bare.to_vec().unwrap().split_off(HEADER)
}

fn read(message: &Message) -> Result<UpstreamReply, Unfit> {
    UpstreamReply::read(&message.to_vec().unwrap(), &question(message))
}

fn heading(question: &[u8], edns: Option<ClientEdns>) -> Heading<'_> {
    Heading { id: 99, flags: flag::RECURSION_DESIRED, question, edns }
}

fn written(reply: &UpstreamReply, heading: &Heading<'_>, limit: usize, age: u32) -> Message {
    let mut out = b"before".to_vec();
    reply.write(&mut out, heading, limit, age);
    assert!(out.len() - 6 <= limit);
    Message::from_vec(&out[6..]).expect("hickory reads it")
}

#[test]
fn a_reply_is_passed_on_under_the_clients_id_and_spelling() {
    let mut original = reply(RecordType::A);
    original.add_answer(a(300, 1));
    original.add_authority(soa(600, 60));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    original.set_edns(edns);
    let question = question(&original);
    let shouted: Vec<u8> = question.to_ascii_uppercase();
    let got = written(&read(&original).unwrap(), &heading(&shouted, None), 512, 0);
    assert_eq!(got.metadata.id, 99);
    assert!(got.metadata.recursion_available && !got.metadata.authoritative);
    assert!(!got.metadata.authentic_data, "the client did not ask whether it is");
    assert_eq!(got.queries[0].name().to_string(), "WWW.EXAMPLE.COM.");
    assert_eq!((&got.answers, &got.authorities), (&original.answers, &original.authorities));
    assert_eq!(got.edns, None, "the client speaks no EDNS");

    let dnssec = ClientEdns { payload: 1232, version: 0, dnssec_ok: true };
    let got = written(&read(&original).unwrap(), &heading(&question, Some(dnssec)), 1232, 0);
    assert!(got.metadata.authentic_data && got.edns.expect("asked for").flags().dnssec_ok);
}

#[test]
fn times_to_live_count_down_in_every_section() {
    let mut original = reply(RecordType::A);
    original.add_answer(a(300, 1)).add_answer(a(20, 2)).add_authority(soa(600, 60));
    let read = read(&original).unwrap();
    assert_eq!(read.lifetime(), Some(20));
    let question = question(&original);
    let got = written(&read, &heading(&question, None), 512, 25);
    let ttls: Vec<u32> = got.all_sections().map(|record| record.ttl).collect();
    assert_eq!(ttls, [275, 0, 575]);
}

#[test]
fn how_long_a_reply_may_be_kept() {
    let lifetime = |message: &Message| read(message).unwrap().lifetime();
    let mut negative = reply(RecordType::A);
    negative.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(lifetime(&negative), None, "no SOA");
    negative.add_authority(soa(600, 60));
    assert_eq!(lifetime(&negative), Some(60));

    let mut nodata = reply(RecordType::AAAA);
    nodata.add_answer(Record::from_rdata(name(NAME), 30, RData::CNAME(CNAME(name("other.example.")))));
    assert_eq!(lifetime(&nodata), None);
    nodata.add_authority(soa(600, 60));
    assert_eq!(lifetime(&nodata), Some(30), "no longer than the alias");

    let mut failure = reply(RecordType::A);
    failure.metadata.response_code = ResponseCode::ServFail;
    failure.add_authority(soa(600, 60));
    assert_eq!(lifetime(&failure), None);

    let mut truncated = reply(RecordType::A);
    truncated.add_answer(a(300, 1));
    truncated.metadata.truncation = true;
    assert_eq!(lifetime(&truncated), None);

    let mut absurd = reply(RecordType::A);
    absurd.add_answer(a(u32::MAX, 1));
    assert_eq!(lifetime(&absurd), None, "RFC 2181: the top bit makes it zero");
}

#[test]
fn a_long_reply_is_cut_between_records() {
    let mut original = reply(RecordType::A);
    original.add_answers((0..100).map(|last| a(300, last)));
    original.add_additional(a(300, 200));
    let read = read(&original).unwrap();
    let question = question(&original);
    let cut = written(&read, &heading(&question, None), 512, 0);
    assert!(cut.metadata.truncation && cut.answers.len() == 29, "{}", cut.answers.len());
    let whole = written(&read, &heading(&question, None), 65_535, 0);
    assert_eq!((whole.metadata.truncation, whole.answers.len(), whole.additionals.len()), (false, 100, 1));
    let without_extras = written(&read, &heading(&question, None), HEADER + question.len() + 1600, 0);
    assert_eq!((without_extras.metadata.truncation, without_extras.answers.len()), (false, 100));
}

#[test]
fn strangers_are_told_from_broken_servers() {
    let mut message = reply(RecordType::A);
    message.add_answer(a(300, 1));
    let (bytes, question) = (message.to_vec().unwrap(), question(&message));
    let other = [&b"\x05other\x00"[..], &question[question.len() - 4..]].concat();
    assert_eq!(UpstreamReply::read(&bytes, &other), Err(Unfit::Stranger));
    let mut query = bytes.clone();
    query[2] &= 0x7f;
    assert_eq!(UpstreamReply::read(&query, &question), Err(Unfit::Stranger));
    assert_eq!(UpstreamReply::read(&bytes[..bytes.len() - 1], &question), Err(Unfit::Broken));
    let header_only = [&bytes[..3], &[0x82, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(UpstreamReply::read(&header_only, &question).unwrap().rcode(), 2);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        counts in any::<[u8; 3]>(),
        flags: u8,
        limit in 64_usize..600,
        age: u32,
        edns: bool,
    ) {
        let question = question(&reply(RecordType::A));
        let header = [0, 7, 0x80 | (flags & 7), flags & 0xf0, 0, 1, 0, counts[0] % 9, 0, counts[1] % 9, 0, counts[2] % 9];
        let message = [&header[..], &question, &body].concat();
        let Ok(reply) = UpstreamReply::read(&message, &question) else { return Ok(()) };
        let edns = edns.then_some(ClientEdns { payload: 512, version: 0, dnssec_ok: false });
        let mut out = Vec::new();
        reply.write(&mut out, &heading(&question, edns), limit, age);
        prop_assert!(out.len() <= limit);
        prop_assert_eq!(&out[HEADER..HEADER + question.len()], &question[..]);
        // What is passed on can be walked to its end.
        prop_assert!(UpstreamReply::read(&out, &question).is_ok());
    }

    #[test]
    fn changed_replies_are_survived(at: prop::sample::Index, change: u8, cut: prop::sample::Index) {
        let mut message = reply(RecordType::A);
        message.add_answer(a(300, 1)).add_authority(soa(600, 60)).set_edns(Edns::new());
        let question = question(&message);
        let mut bytes = message.to_vec().unwrap();
        *at.get_mut(&mut bytes) ^= change;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(reply) = UpstreamReply::read(bytes, &question) {
                let mut out = Vec::new();
                reply.write(&mut out, &heading(&question, None), 512, 1);
                prop_assert!(out.len() <= 512);
            }
        }
    }
}
