//! Names of the tables, asked for as a user asks: with dig, over real sockets.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use netd_dns::table::{Change, Forward, SocketUse, View, ViewZone};
use netd_dns::{Error, Kind, Server};

use crate::lab::{Lab, SOON, dig, name, ports, put, view};

#[test]
fn names_and_their_forms_resolve_in_any_case() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2", "fd00::2"]), name("c1.net1", &["10.0.0.3"])]);
    for (question, answer) in [
        ("web A", "web. A 10.0.0.2"),
        ("WEB A", "WEB. A 10.0.0.2"),
        ("web.shop AAAA", "web.shop. AAAA fd00::2"),
        ("c1.net1 A", "c1.net1. A 10.0.0.3"),
        ("c1.net1.SHOP A", "c1.net1.SHOP. A 10.0.0.3"),
        ("-x 10.0.0.3", "3.0.0.10.in-addr.arpa. PTR c1.net1.shop."),
        ("web. A +noedns", "web. A 10.0.0.2"),
        ("web A +tcp", "web. A 10.0.0.2"),
        ("localhost A", "localhost. A 127.0.0.1"),
    ] {
        let got = lab.dig(question);
        assert_eq!(
            (got.status.as_str(), got.answers.as_slice()),
            ("NOERROR", &[answer.to_owned()][..]),
            "{question}: {}",
            got.whole
        );
        assert_eq!(got.flags.trim(), "qr rd ra", "{question}: {}", got.whole);
    }
}

#[test]
fn every_question_gets_an_answer_at_once() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2"]), name(&"a".repeat(64), &["10.0.0.9"])]);
    for (question, status) in [
        ("web AAAA", "NOERROR"),
        ("web MX", "NOERROR"),
        ("web.shop TXT", "NOERROR"),
        ("unheard.example A", "SERVFAIL"),
        ("web.shop.google.com A", "SERVFAIL"),
        ("-x 10.9.9.9", "SERVFAIL"),
        ("-x 10.0.0.9", "SERVFAIL"),
        ("version.bind CH TXT", "REFUSED"),
        ("web A +edns=1 +noednsneg", "BADVERS"),
        ("web A +opcode=status", "NOTIMP"),
        ("web A +header-only", "FORMERR"),
        ("web.invalid A", "NXDOMAIN"),
    ] {
        for by in ["", " +tcp"] {
            let got = lab.dig(&format!("{question}{by}"));
            assert_eq!(
                (got.status.as_str(), got.answers.len()),
                (status, 0),
                "{question}{by}: {}",
                got.whole
            );
        }
    }
}

#[test]
fn single_labels_stay_here_where_that_was_asked_for() {
    let local = View { single_labels_are_local: true, ..view(Forward::Never) };
    let lab = Lab::start(Default::default(), local, vec![put("z", name("web", &["10.0.0.2"]))]);
    assert_eq!(lab.dig("unheard A").status, "NXDOMAIN");
    assert_eq!(lab.dig("web A").answers, ["web. A 10.0.0.2"]);
    assert_eq!(lab.dig("un.heard A").status, "SERVFAIL");
}

#[test]
fn every_address_comes_first_in_its_share_of_answers() {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let lab = Lab::serving(vec![name("web", &addresses)]);
    let mut first = BTreeMap::new();
    for _ in 0..6 {
        let got = lab.dig("web A");
        assert_eq!(got.answers.len(), 3);
        *first.entry(got.answers[0].clone()).or_insert(0) += 1;
    }
    assert!(first.len() == 3 && first.values().all(|count| *count == 2), "{first:?}");
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
    let addresses: Vec<String> = (0..200).map(|n| format!("10.0.1.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let lab = Lab::serving(vec![name("big", &addresses)]);
    let cut = lab.dig("big A +noedns +ignore");
    assert!(cut.flags.contains("tc") && (20..40).contains(&cut.answers.len()), "{}", cut.whole);
    let whole = lab.dig("big A +noedns");
    assert_eq!((whole.answers.len(), whole.flags.contains("tc")), (200, false), "{}", whole.whole);
    assert_eq!(lab.dig("big A +bufsize=4096 +notcp").answers.len(), 200);
}

#[test]
fn changes_are_served_when_they_have_been_applied() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2"])]);
    lab.apply(vec![put("z", name("web", &["10.0.0.7"])), put("z", name("db", &["10.0.0.8"]))], vec![]);
    assert_eq!(lab.dig("web A").answers, ["web. A 10.0.0.7"]);
    lab.apply(vec![Change::DropName { zone: "z".into(), name: "web".into() }], vec![]);
    assert_eq!(lab.dig("web A").status, "SERVFAIL");
    assert_eq!(lab.dig("db.shop A").answers, ["db.shop. A 10.0.0.8"]);
    lab.apply(vec![Change::DropZone { zone: "z".into() }], vec![]);
    assert_eq!(lab.dig("db A").status, "SERVFAIL");
}

#[test]
fn the_socket_decides_what_is_visible() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2"])]);
    let (address, sockets) = ports("other");
    let other = View {
        id: "other".into(),
        zones: vec![ViewZone { zone: "y".into(), suffix: "back".into() }],
        names: vec![name("linked", &["10.7.0.1"])],
        ..view(Forward::Never)
    };
    lab.apply(vec![Change::PutView(other), put("y", name("db", &["10.1.0.2"]))], sockets);
    assert_eq!(dig(address, "db.back A").answers, ["db.back. A 10.1.0.2"]);
    assert_eq!(dig(address, "linked A").answers, ["linked. A 10.7.0.1"]);
    assert_eq!(dig(address, "web A").status, "SERVFAIL");
    assert_eq!(dig(address, "web.shop A").status, "SERVFAIL");
    assert_eq!(lab.dig("db A").status, "SERVFAIL");

    lab.apply(vec![Change::DropView { view: "other".into() }], vec![]);
    assert!(dig(address, "db A +tcp").whole.contains("refused"), "its sockets are closed");
    assert_eq!(lab.dig("web A").answers.len(), 1);
}

#[test]
fn garbage_harms_nobody() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2"])]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..600_usize {
        let garbage: Vec<u8> = (0..length).map(|at| (at * 31 + length * 17) as u8).collect();
        client.send_to(&garbage, lab.address).unwrap();
    }
    assert_eq!(lab.dig("web A").answers.len(), 1);
    let stats = lab.server.stats();
    assert!(stats.dropped > 0 && stats.answers_of(Kind::Local) == 1, "{stats:?}");
}

#[test]
fn sockets_can_be_handed_back_and_served_by_the_next_server() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2"])]);
    let sockets = lab.server.sockets().expect("it runs");
    let mut uses: Vec<SocketUse> = sockets.iter().map(|(_, usage, _)| *usage).collect();
    uses.sort_by_key(|usage| format!("{usage:?}"));
    assert_eq!(uses, [SocketUse::Tcp, SocketUse::Udp]);
    let address = lab.address;
    lab.server.drain(SOON);

    let next = Lab { server: Server::start(Default::default()).unwrap(), address };
    next.apply(vec![Change::PutView(view(Forward::Never)), put("z", name("web", &["10.0.0.3"]))], sockets);
    assert_eq!(next.dig("web A").answers, ["web. A 10.0.0.3"]);
    assert_eq!(next.dig("web A +tcp").answers, ["web. A 10.0.0.3"]);
}

#[test]
fn a_socket_for_an_unknown_view_is_an_error_that_names_it() {
    let lab = Lab::serving(vec![]);
    let (_, sockets) = ports("nobody");
    let (done, outcome) = std::sync::mpsc::channel();
    lab.server.apply(vec![], sockets, move |result| drop(done.send(result))).unwrap();
    let error = outcome.recv_timeout(SOON).unwrap().unwrap_err();
    assert!(matches!(&error, Error::StraySocket { view, .. } if **view == *"nobody"), "{error}");
}
