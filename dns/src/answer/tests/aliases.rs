//! Names that stand for others, as far as the tables lead.

use hickory_proto::rr::rdata::CNAME;

use super::*;
use crate::table::Name as Entry;

fn alias(name: &str, of: &str) -> Entry {
    Entry { name: name.into(), alias: Some(of.into()), ..Entry::default() }
}

fn web() -> Entry {
    Entry { name: "web".into(), addresses: vec!["10.0.0.2".parse().unwrap()], ..Entry::default() }
}

fn records(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect()
}

/// The question that is left for an upstream server, and what the client has been told by then.
fn followed(index: &mut Index, view: ViewKey, message: &Message) -> (Vec<u8>, Vec<String>) {
    let bytes = message.to_vec().unwrap();
    let Parsed::Query(query) = parse(&bytes) else { panic!("a plain query") };
    let mut out = b"before".to_vec();
    let Answer::Follow(follow) = answer(index, view, &query, 512, &mut out) else {
        panic!("not to be followed")
    };
    Reply::resume(&mut out, 6, &query.heading, 512, follow.links).finish(Rcode::ServFail);
    let told = Message::from_vec(&out[6..]).unwrap();
    assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
    (follow.question().to_vec(), records(&told))
}

#[test]
fn an_alias_is_followed_through_the_tables() {
    let (mut index, view) = index_of([alias("www", "Front.shop"), alias("front", "web."), web()]);
    let chain = ["WWW.shop. Front.shop.", "Front.shop. web.", "web. 10.0.0.2"];
    for rtype in [RecordType::A, RecordType::ANY] {
        let got = reply(&mut index, view, &question("WWW.shop.", rtype));
        assert_eq!(
            (got.metadata.response_code, records(&got)),
            (ResponseCode::NoError, chain.map(Into::into).into())
        );
        assert!(got.answers.iter().all(|record| record.ttl <= 5));
        assert!(got.answers[0].name.eq_case(&Name::from_ascii("WWW.shop.").unwrap()));
    }
    for rtype in [RecordType::AAAA, RecordType::MX, RecordType::SRV] {
        let got = reply(&mut index, view, &question("www.", rtype));
        assert_eq!((got.metadata.response_code, got.answers.len()), (ResponseCode::NoError, 2), "{rtype}");
    }
    let only = reply(&mut index, view, &question("www.", RecordType::CNAME));
    let expected = RData::CNAME(CNAME(Name::from_ascii("Front.shop.").unwrap()));
    assert_eq!((only.answers.len(), &only.answers[0].data), (1, &expected));
    assert_eq!(code_of(&mut index, view, "web.", RecordType::CNAME), (ResponseCode::NoError, 0));
}

#[test]
fn what_an_alias_fails_with_is_told_behind_the_alias() {
    let unsayable = alias("odd", &"x".repeat(64));
    let (mut index, view) = index_of([
        alias("gone", "a.invalid"),
        alias("short", "nobody"),
        alias("self", "localhost"),
        unsayable,
    ]);
    assert_eq!(code_of(&mut index, view, "gone.", RecordType::A), (ResponseCode::NXDomain, 1));
    assert_eq!(code_of(&mut index, view, "short.", RecordType::A), (ResponseCode::NXDomain, 1));
    assert_eq!(code_of(&mut index, view, "self.", RecordType::A), (ResponseCode::NoError, 2));
    assert_eq!(code_of(&mut index, view, "odd.", RecordType::A), (ResponseCode::ServFail, 0));
}

#[test]
fn circles_and_long_chains_end() {
    let chain = |length: usize| {
        let links = (0..length).map(|n| alias(&format!("n{n}"), &format!("n{}", n + 1)));
        let end = Entry { name: format!("n{length}").into(), ..web() };
        index_of(links.chain([end]))
    };
    let (mut index, view) = chain(8);
    assert_eq!(code_of(&mut index, view, "n0.", RecordType::A), (ResponseCode::NoError, 9));
    let (mut index, view) = chain(9);
    assert_eq!(code_of(&mut index, view, "n0.", RecordType::A), (ResponseCode::ServFail, 8));
    let (mut index, view) = index_of([alias("a", "b"), alias("b", "a")]);
    assert_eq!(code_of(&mut index, view, "a.", RecordType::A), (ResponseCode::ServFail, 8));
}

#[test]
fn what_the_tables_do_not_have_is_asked_for_elsewhere() {
    let (mut index, view) = index_of([alias("pay", "Pay.Example.com"), alias("cash", "pay.shop")]);
    let (asked, told) = followed(&mut index, view, &question("cash.", RecordType::AAAA));
    assert_eq!(asked, b"\x03Pay\x07Example\x03com\x00\x00\x1c\x00\x01");
    assert_eq!(told, ["cash. pay.shop.", "pay.shop. Pay.Example.com."]);
    // Of everything that it has, the alias is all that this server has.
    assert_eq!(code_of(&mut index, view, "pay.", RecordType::ANY), (ResponseCode::NoError, 1));
}

#[test]
fn a_chain_that_is_too_long_for_a_datagram_is_cut_and_whole_over_tcp() {
    let long = |n: usize| format!("{n}.{}.{}.example", "x".repeat(60), "y".repeat(60));
    let links = (0..6).map(|n| alias(&long(n), &long(n + 1)));
    let end = Entry { name: long(6).into(), ..web() };
    let (mut index, view) = index_of(links.chain([end]));
    let message = question(&format!("{}.", long(0)), RecordType::A);
    let cut = reply(&mut index, view, &message);
    assert!(cut.metadata.truncation && (1..6).contains(&cut.answers.len()), "{}", cut.answers.len());
    let whole = ask(&mut index, view, &message.to_vec().unwrap(), Some(65_535)).unwrap();
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 7);
}
