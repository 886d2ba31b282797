//! What services need of names: SRV records, aliases, and names with thousands of addresses, as `dig` shows them.

use std::net::Ipv4Addr;
use std::sync::mpsc::{TryRecvError, channel};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name as WireName;
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{RData, Record};
use netd_dns::Kind;
use netd_dns::table::{Change, Forward, Name, Srv};

use crate::lab::fake::{Fake, encode, nxdomain, reply_to, with_address};
use crate::lab::{Lab, SOON, name, put, view};

fn alias(name: &str, of: &str) -> Name {
    Name { name: name.into(), alias: Some(of.into()), ..Name::default() }
}

fn crowd(name: &str) -> Name {
    let addresses = (0..5_000).map(|n| Ipv4Addr::from(0x0a01_0000 + n).into()).collect();
    Name { name: name.into(), addresses, ..Name::default() }
}

/// A lab over `names` that asks `upstream` for all others.
fn lab(upstream: &Fake, names: Vec<Name>) -> Lab {
    let lab = Lab::forwarding(&[upstream.address]);
    lab.apply(names.into_iter().map(|name| put("z", name)).collect(), vec![]);
    lab
}

#[test]
fn services_are_found_by_name_and_protocol() {
    let srv = |weight, target: &str| Srv { priority: 0, weight, port: 9200, target: target.into() };
    let records = vec![srv(3, "search-1"), srv(1, "far.example.com.")];
    let lab = Lab::serving(vec![
        Name { name: "_http._tcp.search".into(), srv: records, ..Name::default() },
        name("search-1", &["10.0.0.7"]),
    ]);
    for by in ["", " +tcp", " +noedns"] {
        let mut got = lab.dig(&format!("_http._TCP.Search.shop SRV{by}"));
        got.answers.sort();
        let expected = ["far.example.com.", "search-1.shop."]
            .map(|target| (if target.starts_with('f') { 1 } else { 3 }, target))
            .map(|(weight, target)| format!("_http._TCP.Search.shop. SRV 0 {weight} 9200 {target}"));
        assert_eq!(got.answers, expected, "{}", got.whole);
        assert!(got.whole.contains("search-1.shop.\t\t5\tIN\tA\t10.0.0.7"), "{}", got.whole);
    }
    assert_eq!(lab.dig("search-1 SRV").status, "NOERROR");
}

#[test]
fn an_alias_of_a_name_outside_is_asked_for_once_and_kept() {
    let upstream = Fake::steady([192, 0, 2, 9]);
    let lab = lab(&upstream, vec![alias("pay", "Pay.example.com"), alias("cash", "pay.shop")]);
    let expected = ["pay. CNAME Pay.example.com.", "Pay.example.com. A 192.0.2.9"];
    assert_eq!(lab.dig("pay A").answers, expected);
    assert_eq!(lab.dig("pay A +tcp").answers, expected, "from the cache");
    assert_eq!(
        lab.dig("cash A").answers,
        [&["cash. CNAME pay.shop.", "pay.shop. CNAME Pay.example.com."], &expected[1..]].concat()
    );
    assert_eq!(lab.dig("pay.example.com A").answers, ["pay.example.com. A 192.0.2.9"]);
    assert_eq!(lab.dig("pay CNAME").answers, expected[..1]);
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1, "all of them share one question");
    assert_eq!(asked[0].message.queries[0].name().to_string(), "pay.example.com.");
    let stats = lab.server.stats();
    assert_eq!((stats.answers_of(Kind::Forwarded), stats.answers_of(Kind::Cached)), (1, 3));
    let whole = lab.dig("pay A").whole;
    assert!(whole.contains("\t5\tIN\tCNAME\t"), "nobody keeps an alias for long: {whole}");
}

#[test]
fn what_the_other_name_fails_with_is_told_with_the_alias() {
    let upstream = Fake::start(|asked| {
        let question = &asked.message.queries[0];
        let mut reply = match question.name().to_string().as_str() {
            "gone.example." => nxdomain(&asked.message, 60),
            "far.example." => {
                let mut reply = reply_to(&asked.message);
                let near: WireName = "near.far.example.".parse().unwrap();
                reply.add_answer(Record::from_rdata(
                    question.name().clone(),
                    60,
                    RData::CNAME(CNAME(near.clone())),
                ));
                reply.add_answer(Record::from_rdata(near, 60, RData::A(A::new(192, 0, 2, 3))));
                reply
            }
            "long.example." if !asked.by_tcp => {
                let mut reply = reply_to(&asked.message);
                reply.metadata.truncation = true;
                reply
            }
            "long.example." => with_address(&asked.message, [192, 0, 2, 4], 60),
            _ => reply_to(&asked.message),
        };
        if question.name().to_string() == "broken.example." {
            reply.metadata.response_code = ResponseCode::ServFail;
        }
        vec![encode(&reply)]
    });
    let names = ["gone", "far", "long", "broken"].map(|name| alias(name, &format!("{name}.example")));
    let lab = lab(&upstream, names.to_vec());
    for _ in 0..2 {
        for (name, status, records) in [
            ("gone", "NXDOMAIN", 1),
            ("broken", "SERVFAIL", 1),
            ("far", "NOERROR", 3),
            ("long", "NOERROR", 2),
        ] {
            let got = lab.dig(&format!("{name} A"));
            assert_eq!((got.status.as_str(), got.answers.len()), (status, records), "{}", got.whole);
            assert_eq!(got.answers[0], format!("{name}. CNAME {name}.example."));
        }
    }
    assert_eq!(lab.dig("far A").answers[2], "near.far.example. A 192.0.2.3");
    assert!(lab.dig("gone A").whole.contains("SOA\texample. example. 1 2 3 4 60"));
    lab.apply(vec![Change::PutView(view(Forward::Never))], vec![]);
    let nowhere = lab.dig("far A");
    assert_eq!((nowhere.status.as_str(), nowhere.answers.len()), ("SERVFAIL", 1), "{}", nowhere.whole);
}

#[test]
fn thousands_of_addresses_are_cut_for_datagrams_and_whole_over_tcp() {
    let many = Name { addresses: crowd("tasks").addresses[..4_000].to_vec(), ..crowd("tasks.search") };
    let lab = Lab::serving(vec![many]);
    let cut = lab.dig("tasks.search A +ignore +bufsize=1232");
    assert!(cut.flags.contains("tc") && cut.answers.len() > 70, "{}", cut.whole);
    assert_eq!(lab.dig("tasks.search A").answers.len(), 4_000, "dig asks again over TCP");
}

#[test]
fn a_long_batch_of_large_names_does_not_keep_questions_waiting() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2"])]);
    let changes = (0..2_000).map(|n| put("z", crowd(&format!("n{n}")))).collect();
    let (done, applied) = channel();
    lab.server.apply(changes, vec![], move |outcome| drop(done.send(outcome))).unwrap();
    assert_eq!(lab.dig("web A").answers, ["web. A 10.0.0.2"]);
    assert_eq!(
        applied.try_recv().unwrap_err(),
        TryRecvError::Empty,
        "the answer came before the end of the batch"
    );
    applied.recv_timeout(6 * SOON).unwrap().unwrap();
    assert_eq!(lab.dig("n1999 A +ignore").status, "NOERROR");
}
