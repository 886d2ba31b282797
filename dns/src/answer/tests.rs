//! hickory-proto reads what this server writes, and writes what it reads.

mod aliases;
mod services;

use std::collections::BTreeSet;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::parse::{Parsed, boil_down, parse};
use crate::reply::datagram_limit;
use crate::table::{Forward, View, ViewZone};

fn index(names: &[(&str, Vec<IpAddr>)]) -> (Index, ViewKey) {
    let of = |(name, addresses): &(&str, Vec<IpAddr>)| crate::table::Name {
        name: (*name).into(),
        primary_for: addresses.clone(),
        addresses: addresses.clone(),
        ..crate::table::Name::default()
    };
    index_of(names.iter().map(of))
}

fn index_of(names: impl IntoIterator<Item = crate::table::Name>) -> (Index, ViewKey) {
    let mut index = Index::default();
    let view = index.put_view(&View {
        id: "v".into(),
        zones: vec![ViewZone { zone: "z".into(), suffix: "shop".into() }],
        names: Vec::new(),
        forward: Forward::Never,
        single_labels_are_local: true,
    });
    for name in names {
        index.put_name(&"z".into(), &name);
    }
    (index, view)
}

/// The answer's bytes, none if the question is to be forwarded.
fn ask(index: &mut Index, view: ViewKey, message: &[u8], limit: Option<usize>) -> Option<Vec<u8>> {
    // What is in the buffer already must not matter.
    let mut out = b"before".to_vec();
    let Parsed::Query(query) = parse(message) else { panic!("a plain query") };
    let limit = limit.unwrap_or_else(|| datagram_limit(&query.heading));
    match answer(index, view, &query, limit, &mut out) {
        Answer::Given(_) => Some(out.split_off(6)),
        Answer::Ask => None,
        Answer::Follow(follow) => panic!("an alias of {:?}", follow.question()),
    }
}

fn question(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    // Parsing as a host name would lose the spelling.
    message.add_query(Question::query(Name::from_ascii(name).expect("a name"), rtype));
    message
}

fn reply(index: &mut Index, view: ViewKey, message: &Message) -> Message {
    let bytes = ask(index, view, &message.to_vec().expect("encodes"), None).expect("a local answer");
    Message::from_vec(&bytes).expect("hickory reads every answer")
}

fn code_of(index: &mut Index, view: ViewKey, name: &str, rtype: RecordType) -> (ResponseCode, usize) {
    let reply = reply(index, view, &question(name, rtype));
    (reply.metadata.response_code, reply.answers.len())
}

#[test]
fn local_names_are_never_forwarded() {
    let (mut index, view) = index(&[("web", vec!["10.0.0.2".parse().unwrap()])]);
    let empty = (ResponseCode::NoError, 0);
    for rtype in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::SRV, RecordType::HTTPS] {
        assert_eq!(code_of(&mut index, view, "web.", rtype), empty, "{rtype}");
    }
    assert_eq!(code_of(&mut index, view, "web.shop.", RecordType::ANY), (ResponseCode::NoError, 1));
    assert_eq!(code_of(&mut index, view, "2.0.0.10.in-addr.arpa.", RecordType::TXT), empty);
    assert_eq!(code_of(&mut index, view, "unheard.", RecordType::A), (ResponseCode::NXDomain, 0));
}

#[test]
fn special_names_stay_here() {
    let (mut index, view) = index(&[]);
    let one = (ResponseCode::NoError, 1);
    assert_eq!(code_of(&mut index, view, "localhost.", RecordType::A), one);
    assert_eq!(code_of(&mut index, view, "a.LOCALHOST.", RecordType::AAAA), one);
    assert_eq!(code_of(&mut index, view, "1.0.0.127.in-addr.arpa.", RecordType::PTR), one);
    assert_eq!(code_of(&mut index, view, "a.invalid.", RecordType::A), (ResponseCode::NXDomain, 0));
    assert_eq!(code_of(&mut index, view, "a.onion.", RecordType::A), (ResponseCode::NXDomain, 0));
    for name in ["www.example.com.", "1.2.0.192.in-addr.arpa.", "notlocalhost.example.", "."] {
        let message = question(name, RecordType::A).to_vec().unwrap();
        assert_eq!(ask(&mut index, view, &message, None), None, "{name} is forwarded");
    }
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let (mut index, view) = index(&[("web", vec!["10.0.0.2".parse().unwrap()])]);
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(reply(&mut index, view, &chaos).metadata.response_code, ResponseCode::Refused);
    assert_eq!(code_of(&mut index, view, "web.", RecordType::AXFR), (ResponseCode::Refused, 0));

    let mut future = question("web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    let answer = reply(&mut index, view, &future);
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert_eq!(answer.edns.expect("EDNS is answered with EDNS").version(), 0);
}

#[test]
fn headers_that_cannot_be_answered_get_what_the_protocol_says() {
    let ok = question("web.", RecordType::A).to_vec().unwrap();
    let with = |at: usize, byte: u8| {
        let mut message = ok.clone();
        message[at] = byte;
        message
    };
    let code = |message: &[u8]| match parse(message) {
        Parsed::Malformed { id: 4711, rcode, .. } => Some(rcode),
        Parsed::Dropped => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&with(2, 0x81)), None, "a response");
    assert_eq!(code(&ok[..11]), None, "no header");
    assert_eq!(code(&with(2, 0x28)), Some(Rcode::NotImp), "an update");
    assert_eq!(code(&with(5, 0)), Some(Rcode::FormErr), "no question");
    assert_eq!(code(&with(5, 2)), Some(Rcode::FormErr), "two questions");
    assert_eq!(code(&ok[..ok.len() - 1]), Some(Rcode::FormErr), "cut off");
}

#[test]
fn a_name_that_cannot_be_said_is_a_failure_and_not_silence() {
    let long = "a".repeat(64);
    let address: IpAddr = "10.0.0.9".parse().unwrap();
    let (mut index, view) = index(&[(&long, vec![address])]);
    assert_eq!(
        code_of(&mut index, view, "9.0.0.10.in-addr.arpa.", RecordType::PTR),
        (ResponseCode::ServFail, 0)
    );
}

#[test]
fn a_signed_query_is_boiled_down_to_its_question() {
    let mut odd = question("Web.Shop.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(900).set_dnssec_ok(true);
    odd.set_edns(edns);
    let extra = Record::from_rdata(Name::root(), 0, RData::A(A::new(1, 2, 3, 4)));
    odd.add_additional(extra);
    let bytes = odd.to_vec().unwrap();
    assert!(matches!(parse(&bytes), Parsed::Unusual));
    let plain = boil_down(&bytes).expect("hickory reads it");
    let Parsed::Query(query) = parse(&plain) else { panic!("plain now") };
    assert_eq!((query.heading.id, query.name.as_bytes()), (4711, &b"web.shop"[..]));
    let edns = query.heading.edns.expect("kept");
    assert_eq!((edns.payload, edns.dnssec_ok), (900, true));
}

#[test]
fn long_answers_are_cut_to_what_the_client_takes() {
    let many: Vec<IpAddr> = (0..100_u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let (mut index, view) = index(&[("web", many)]);
    let mut message = question("web.", RecordType::A);
    let bytes = ask(&mut index, view, &message.to_vec().unwrap(), None).unwrap();
    assert!(bytes.len() <= 512);
    let cut = Message::from_vec(&bytes).unwrap();
    assert!(cut.metadata.truncation && cut.answers.len() > 20);

    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    let bytes = ask(&mut index, view, &message.to_vec().unwrap(), None).unwrap();
    assert!((1200..=1232).contains(&bytes.len()), "{}", bytes.len());
    assert!(Message::from_vec(&bytes).unwrap().edns.is_some());

    let whole = ask(&mut index, view, &message.to_vec().unwrap(), Some(65_535)).unwrap();
    let whole = Message::from_vec(&whole).unwrap();
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 100));
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9_-]{0,19}"
}

fn edns() -> impl Strategy<Value = Option<Edns>> {
    proptest::option::of((any::<u16>(), any::<bool>()).prop_map(|(payload, dnssec_ok)| {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(dnssec_ok);
        edns
    }))
}

proptest! {
    #[test]
    fn every_answer_is_what_hickory_would_say(
        id: u16,
        labels in proptest::collection::vec(label(), 1..4),
        suffixed: bool,
        v4 in proptest::collection::vec(any::<[u8; 4]>(), 0..12),
        v6 in proptest::collection::vec(any::<[u8; 16]>(), 0..12),
        kind in 0_usize..3,
        (desired, checking) in any::<(bool, bool)>(),
        edns in edns(),
    ) {
        let name = labels.join(".");
        let addresses: Vec<IpAddr> =
            v4.iter().map(|a| IpAddr::from(*a)).chain(v6.iter().map(|a| IpAddr::from(*a))).collect();
        let (mut index, view) = index(&[(&name, addresses.clone())]);
        let rtype = [RecordType::A, RecordType::AAAA, RecordType::MX][kind];
        let asked = if suffixed { format!("{name}.SHOP.") } else { format!("{name}.") };
        let mut message = question(&asked, rtype);
        message.metadata.id = id;
        message.metadata.recursion_desired = desired;
        message.metadata.checking_disabled = checking;
        if let Some(edns) = &edns {
            message.set_edns(edns.clone());
        }
        let bytes = ask(&mut index, view, &message.to_vec().unwrap(), Some(65_535)).expect("it is local");
        let got = Message::from_vec(&bytes).expect("hickory reads it");

        let mut want = Message::new(id, MessageType::Response, OpCode::Query);
        want.metadata.recursion_desired = desired;
        want.metadata.checking_disabled = checking;
        want.metadata.recursion_available = true;
        prop_assert_eq!(&got.metadata, &want.metadata);
        prop_assert_eq!(&got.queries, &message.queries);
        prop_assert!(got.queries[0].name().eq_case(message.queries[0].name()));
        prop_assert_eq!(
            got.edns.as_ref().map(|edns| (edns.flags().dnssec_ok, edns.version())),
            edns.map(|edns| (edns.flags().dnssec_ok, 0))
        );
        let expected: BTreeSet<IpAddr> = match rtype {
            RecordType::A => addresses.into_iter().filter(IpAddr::is_ipv4).collect(),
            RecordType::AAAA => addresses.into_iter().filter(IpAddr::is_ipv6).collect(),
            _ => BTreeSet::new(),
        };
        prop_assert_eq!(got.answers.len(), expected.len());
        let records: BTreeSet<IpAddr> = got.answers.iter().map(|record| match &record.data {
            RData::A(A(address)) => (*address).into(),
            RData::AAAA(AAAA(address)) => (*address).into(),
            other => panic!("{other}"),
        }).collect();
        prop_assert_eq!(records, expected);
        for record in &got.answers {
            prop_assert!(record.ttl <= 5 && record.name == *message.queries[0].name());
        }
    }

    #[test]
    fn each_address_comes_first_equally_often(count in 1_usize..20, rounds in 1_usize..4, v6: bool) {
        let addresses: Vec<IpAddr> = (0..count).map(|n| {
            let n = u8::try_from(n).unwrap();
            if v6 { IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]) } else { IpAddr::from([10, 0, 0, n]) }
        }).collect();
        let (mut index, view) = index(&[("web", addresses.clone())]);
        let rtype = if v6 { RecordType::AAAA } else { RecordType::A };
        let message = question("web.", rtype);
        let mut first: Vec<IpAddr> = (0..count * rounds)
            .map(|_| reply(&mut index, view, &message).answers[0].data.ip_addr().expect("an address"))
            .collect();
        first.sort();
        let expected: Vec<IpAddr> = addresses.iter().flat_map(|a| std::iter::repeat_n(*a, rounds)).collect();
        prop_assert_eq!(first, expected);
    }

    #[test]
    fn reverse_names_lead_back(label in "[a-z0-9]{1,20}", address: IpAddr) {
        let (mut index, view) = index(&[(&label, vec![address])]);
        let message = question(&format!("{}", Name::from(address)), RecordType::PTR);
        let got = reply(&mut index, view, &message);
        let expected = RData::PTR(PTR(Name::from_str(&format!("{label}.shop.")).unwrap()));
        prop_assert_eq!(&got.answers[0].data, &expected);
    }

    #[test]
    fn what_is_read_in_place_is_what_hickory_reads(
        labels in proptest::collection::vec(label(), 0..4),
        rtype: u16,
        edns in edns(),
        at: prop::sample::Index,
        change: Option<u8>,
    ) {
        let mut message = question(&format!("{}.", labels.join(".")), RecordType::from(rtype));
        if let Some(edns) = edns {
            message.set_edns(edns);
        }
        let mut bytes = message.to_vec().unwrap();
        if let Some(change) = change {
            *at.get_mut(&mut bytes) ^= change;
        }
        let Parsed::Query(query) = parse(&bytes) else { return Ok(()) };
        let Ok(theirs) = Message::from_vec(&bytes) else { return Ok(()) };
        prop_assert_eq!(query.heading.id, theirs.metadata.id);
        prop_assert_eq!(query.qtype, u16::from(theirs.queries[0].query_type()));
        prop_assert_eq!(query.heading.edns.is_some(), theirs.edns.is_some());
        if !query.name.is_foreign() {
            let text = theirs.queries[0].name().to_lowercase();
            let ours: Vec<&[u8]> = query.name.as_bytes().split(|b| *b == b'.').filter(|l| !l.is_empty()).collect();
            prop_assert_eq!(ours, text.iter().collect::<Vec<_>>());
        }
    }
}
