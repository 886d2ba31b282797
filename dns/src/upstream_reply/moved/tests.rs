//! hickory-proto writes what an upstream server sends, names shortened, and reads what the client gets.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use crate::parse::{ClientEdns, HEADER, Heading, flag, rtype};
use crate::reply::{self, Reply};
use crate::upstream_reply::UpstreamReply;

const TARGET: &str = "Pay.Example.com.";
const ASKED: &[u8] = b"\x03pay\x04shop\x00\x00\x01\x00\x01";

fn name(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

fn read(message: &Message) -> UpstreamReply {
    let mut bare = Message::new(0, MessageType::Query, OpCode::Query);
    bare.add_query(message.queries[0].clone());
    let question = bare.to_vec().unwrap().split_off(HEADER);
    UpstreamReply::read(&message.to_vec().unwrap(), &question).unwrap()
}

fn original() -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authentic_data = true;
    message.add_query(Query::query(name(TARGET), RecordType::A));
    message
}

fn written(reply: &UpstreamReply, edns: Option<ClientEdns>, limit: usize, age: u32) -> Message {
    let heading =
        Heading { id: 99, flags: flag::RECURSION_DESIRED | flag::AUTHENTIC_DATA, question: ASKED, edns };
    let mut out = b"before".to_vec();
    let mut begun = Reply::begin(&mut out, &heading, limit);
    let target = b"\x03Pay\x07Example\x03com\x00";
    begun.answer(&reply::QUESTION, rtype::CNAME, target).expect("it fits");
    reply.write_behind(begun, age);
    assert!(out.len() - 6 <= limit);
    Message::from_vec(&out[6..]).expect("hickory reads it")
}

/// Names that share ends with the question and with each other.
fn host() -> impl Strategy<Value = Name> {
    "(a|b|pay|mail)(\\.(a|pay))?\\.(example\\.com|Example\\.COM|com|other)\\.".prop_map(|text| name(&text))
}

fn data() -> impl Strategy<Value = RData> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| RData::A(A::new(a, b, c, d))),
        host().prop_map(|host| RData::CNAME(CNAME(host))),
        (any::<u16>(), host()).prop_map(|(preference, host)| RData::MX(MX::new(preference, host))),
        (any::<[u16; 3]>(), host()).prop_map(|([p, w, port], host)| RData::SRV(SRV::new(p, w, port, host))),
        (host(), host(), any::<[u32; 2]>())
            .prop_map(|(m, r, [serial, minimum])| RData::SOA(SOA::new(m, r, serial, 2, 3, 4, minimum))),
        // Looks like pointers, and is none.
        "[a-z]{0,3}".prop_map(|text| RData::TXT(TXT::from_bytes(vec![&[0xc0, 0x0c, 0xff], text.as_bytes()]))),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record =
        (host(), 0_u32..1_000, data()).prop_map(|(owner, ttl, data)| Record::from_rdata(owner, ttl, data));
    proptest::collection::vec(record, 0..8)
}

proptest! {
    #[test]
    fn every_name_survives_the_move(
        answers in records(),
        authorities in records(),
        additionals in records(),
        age in 0_u32..500,
        missing: bool,
    ) {
        let mut message = original();
        message.insert_answers(answers.clone());
        message.insert_authorities(authorities.clone());
        message.insert_additionals(additionals.clone());
        if missing {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        let got = written(&read(&message), None, 65_535, age);
        let aged = |mut records: Vec<Record>| {
            records.iter_mut().for_each(|record| record.ttl = record.ttl.saturating_sub(age));
            records
        };
        prop_assert_eq!(&got.answers[0].data, &RData::CNAME(CNAME(name(TARGET))));
        prop_assert!(got.answers[0].name == name("pay.shop.") && got.answers[0].ttl <= 5);
        prop_assert_eq!(&got.answers[1..], &aged(answers)[..]);
        prop_assert_eq!(&got.authorities, &aged(authorities));
        prop_assert_eq!(&got.additionals, &aged(additionals));
        prop_assert_eq!(got.metadata.response_code, message.metadata.response_code);
        prop_assert!(!got.metadata.authentic_data && !got.metadata.truncation);
        prop_assert_eq!((got.metadata.id, got.queries[0].name()), (99, &name("pay.shop.")));
    }
}

#[test]
fn it_is_cut_to_size_like_any_other() {
    let mut message = original();
    for last in 0..100 {
        message.add_answer(Record::from_rdata(name(TARGET), 300, RData::A(A::new(192, 0, 2, last))));
    }
    let edns = ClientEdns { payload: 512, version: 0, dnssec_ok: false };
    let got = written(&read(&message), Some(edns), 512, 0);
    assert!(got.metadata.truncation && got.answers.len() > 20 && got.edns.is_some());
    assert_eq!(got.answers[5].name, name(TARGET));
}

#[test]
fn a_pointer_out_of_reach_or_into_nothing_ends_the_answer() {
    let mut message = original();
    message.add_answer(Record::from_rdata(name(TARGET), 300, RData::A(A::new(192, 0, 2, 1))));
    let question = [&b"\x03Pay\x07Example\x03com\x00"[..], &[0, 1, 0, 1]].concat();
    let mut bytes = message.to_vec().unwrap();
    let owner = HEADER + question.len();
    for pointer in [[0xc0, 0x02], [0xc0, 0x1e], [0xff, 0xff]] {
        bytes[owner..owner + 2].copy_from_slice(&pointer);
        let reply = UpstreamReply::read(&bytes, &question).unwrap();
        let got = written(&reply, None, 512, 0);
        assert!(got.metadata.truncation && got.answers.len() == 1, "{pointer:?}");
    }
}
