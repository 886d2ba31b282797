//! Names of the world: real sockets towards upstream servers that behave in all the ways such servers do.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use netd_dns::table::{Change, Forward, SocketUse};
use netd_dns::{Config, Kind};

use crate::lab::fake::{Fake, counter, encode, nxdomain, reply_to, with_address};
use crate::lab::{Lab, dig, name, ports, put, view};

#[test]
fn unknown_names_are_asked_of_the_host_servers_and_kept() {
    let upstream = Fake::steady([192, 0, 2, 1]);
    let lab = Lab::forwarding(&[upstream.address]);
    let got = lab.dig("www.example.com A");
    assert_eq!((got.status.as_str(), got.flags.trim()), ("NOERROR", "qr rd ra"), "{}", got.whole);
    assert_eq!(got.answers, ["www.example.com. A 192.0.2.1"]);
    assert_eq!(lab.dig("WWW.Example.com A +tcp").answers, ["WWW.Example.com. A 192.0.2.1"]);
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1, "the second answer is a kept one");
    assert!(asked[0].message.edns.as_ref().is_some_and(|edns| edns.options().as_ref().is_empty()));
    let stats = lab.server.stats();
    assert_eq!((stats.answers_of(Kind::Forwarded), stats.answers_of(Kind::Cached)), (1, 1));
    assert_eq!((stats.upstreams[0].server, stats.upstreams[0].asked), (upstream.address, 1));
}

#[test]
fn servers_with_ipv6_addresses_are_asked_too() {
    let upstream =
        Fake::start_at("::1", |asked| vec![encode(&with_address(&asked.message, [192, 0, 2, 6], 60))]);
    let lab = Lab::forwarding(&[upstream.address]);
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.6"]);

    let udp = UdpSocket::bind("[::1]:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let own = Change::PutView(view(Forward::Own { servers: vec![upstream.address] }));
    lab.apply(vec![own], vec![("v".into(), SocketUse::UpstreamUdp6, udp.into())]);
    assert_eq!(lab.dig("other.example A").answers, ["other.example. A 192.0.2.6"]);
}

#[test]
fn ids_and_ports_differ_from_question_to_question() {
    let upstream = Fake::steady([192, 0, 2, 1]);
    let lab = Lab::forwarding(&[upstream.address]);
    (0..12).for_each(|n| drop(lab.dig(&format!("n{n}.example A"))));
    let asked = upstream.asked();
    let distinct = |mut of: Vec<u16>| {
        of.sort_unstable();
        of.dedup();
        of.len()
    };
    assert!(distinct(asked.iter().map(|asked| asked.message.metadata.id).collect()) >= 11);
    assert!(distinct(asked.iter().map(|asked| asked.from.port()).collect()) >= 4);
}

#[test]
fn the_next_server_is_asked_when_the_first_fails() {
    let (bad, good) = (Fake::failing(ResponseCode::ServFail), Fake::steady([192, 0, 2, 2]));
    let lab = Lab::forwarding(&[bad.address, good.address]);
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.2"]);
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 1));
}

#[test]
fn a_dead_server_costs_the_first_question_little_and_later_ones_nothing() {
    let (dead, good) = (Fake::silent(), Fake::steady([192, 0, 2, 2]));
    let lab = Lab::forwarding(&[dead.address, good.address]);
    for n in 0..4 {
        let began = Instant::now();
        let got = lab.dig(&format!("n{n}.example A"));
        assert_eq!(got.answers.len(), 1, "{}", got.whole);
        assert!(began.elapsed() < Duration::from_secs(2), "a dead server is waited for");
    }
    let before = dead.asked().len();
    assert_eq!(lab.dig("after.example A").answers.len(), 1);
    assert!(dead.asked().len() <= before + 1, "it is probed at most");
}

#[test]
fn a_port_where_nobody_listens_is_passed_over_at_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = Fake::steady([192, 0, 2, 2]);
    let lab = Lab::forwarding(&[nobody, good.address]);
    assert_eq!(lab.dig("www.example A +time=1").answers.len(), 1);
    let alone = Lab::forwarding(&[nobody]);
    assert_eq!(alone.dig("www.example A +time=1").status, "SERVFAIL");
}

#[test]
fn when_no_server_answers_the_client_hears_servfail_in_time() {
    let (first, second) = (Fake::silent(), Fake::silent());
    let lab = Lab::forwarding(&[first.address, second.address]);
    let began = Instant::now();
    assert_eq!(lab.dig("www.example A").status, "SERVFAIL");
    assert!(began.elapsed() < Duration::from_secs(5), "libc has given up by then");
    assert_eq!(Lab::forwarding(&[]).dig("www.example A +time=1").status, "SERVFAIL");
}

#[test]
fn nxdomain_comes_with_its_soa_and_is_kept() {
    let upstream = Fake::start(|asked| vec![encode(&nxdomain(&asked.message, 60))]);
    let lab = Lab::forwarding(&[upstream.address]);
    for _ in 0..2 {
        let got = lab.dig("no.example A");
        assert_eq!(got.status, "NXDOMAIN");
        assert!(got.whole.contains("SOA\texample. example. 1 2 3 4 60"), "{}", got.whole);
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn an_answer_is_kept_no_longer_than_it_says() {
    let count = counter();
    let upstream = Fake::start(move |asked| {
        let last = u8::try_from(count()).expect("few");
        vec![encode(&with_address(&asked.message, [192, 0, 2, last], 0))]
    });
    let lab = Lab::forwarding(&[upstream.address]);
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.0"]);
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.1"]);
}

#[test]
fn a_lie_is_not_believed() {
    let upstream = Fake::start(|asked| {
        let lie = with_address(&asked.message, [6, 6, 6, 6], 60);
        let mut other_id = lie.clone();
        other_id.metadata.id ^= 1;
        let mut other_name = lie;
        other_name.queries[0].set_name("evil.example.".parse().unwrap());
        let truth = with_address(&asked.message, [192, 0, 2, 1], 60);
        vec![encode(&other_id), encode(&other_name), vec![0; 5], encode(&truth)]
    });
    let lab = Lab::forwarding(&[upstream.address]);
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.1"]);
    assert_eq!(lab.server.stats().forged, 3);
}

fn with_many(asked: &hickory_proto::op::Message, count: u8) -> hickory_proto::op::Message {
    let mut reply = reply_to(asked);
    for last in 0..count {
        let name = asked.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, last))));
    }
    reply
}

#[test]
fn a_reply_longer_than_asked_for_still_serves() {
    let upstream = Fake::start(|asked| vec![encode(&with_many(&asked.message, 250))]);
    let lab = Lab::forwarding(&[upstream.address]);
    let cut = lab.dig("big.example A +noedns +ignore");
    assert!(cut.status == "NOERROR" && cut.flags.contains("tc") && cut.answers.len() > 20, "{}", cut.whole);
    assert_eq!(lab.dig("big.example A +noedns").answers.len(), 250, "by TCP");
    let roomy = lab.dig("big.example A +bufsize=4096 +notcp +ignore").answers.len();
    assert!((150..250).contains(&roomy), "{roomy}");
}

#[test]
fn a_truncated_reply_is_fetched_by_tcp_for_a_client_on_tcp() {
    let upstream = Fake::start(|asked| {
        let mut reply = with_many(&asked.message, if asked.by_tcp { 100 } else { 1 });
        reply.metadata.truncation = !asked.by_tcp;
        vec![encode(&reply)]
    });
    let lab = Lab::forwarding(&[upstream.address]);
    let cut = lab.dig("big.example A +ignore");
    assert!(cut.flags.contains("tc"), "{}", cut.whole);
    // dig follows the TC bit to TCP by itself.
    let whole = lab.dig("big.example A");
    assert_eq!((whole.answers.len(), whole.flags.contains("tc")), (100, false), "{}", whole.whole);
    assert!(upstream.asked().iter().any(|asked| asked.by_tcp));
}

#[test]
fn an_old_server_that_refuses_edns_is_asked_without() {
    let upstream = Fake::start(|asked| {
        let mut reply = with_address(&asked.message, [192, 0, 2, 1], 60);
        if reply.edns.take().is_some() {
            reply.answers.clear();
            reply.metadata.response_code = ResponseCode::FormErr;
        }
        vec![encode(&reply)]
    });
    let lab = Lab::forwarding(&[upstream.address]);
    let got = lab.dig("www.example A");
    assert_eq!(got.answers, ["www.example. A 192.0.2.1"]);
    assert!(got.whole.contains("EDNS: version: 0"), "the client spoke EDNS: {}", got.whole);
}

#[test]
fn the_clients_wishes_reach_the_server_and_its_options_do_not() {
    let upstream = Fake::start(|asked| {
        let mut reply = with_address(&asked.message, [192, 0, 2, 1], 60);
        reply.metadata.authentic_data = true;
        vec![encode(&reply)]
    });
    let lab = Lab::forwarding(&[upstream.address]);
    assert!(!lab.dig("a.example A +noadflag").flags.contains("ad"));
    assert!(lab.dig("b.example A +adflag").flags.contains("ad"));
    let got = lab.dig("c.example A +dnssec +cdflag +subnet=192.0.2.0/24 +cookie=0011223344556677");
    assert!(got.flags.contains("cd") && got.whole.contains("flags: do"), "{}", got.whole);
    let asked = &upstream.asked()[2].message;
    let edns = asked.edns.as_ref().expect("EDNS");
    assert!(edns.flags().dnssec_ok && edns.options().as_ref().is_empty() && asked.metadata.checking_disabled);
}

#[test]
fn host_servers_change_under_way() {
    let (old, new) = (Fake::steady([192, 0, 2, 1]), Fake::steady([192, 0, 2, 2]));
    let lab = Lab::forwarding(&[old.address]);
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.1"]);
    lab.apply(vec![Change::PutHostServers { servers: vec![new.address] }], vec![]);
    assert_eq!(
        lab.dig("www.example A").answers,
        ["www.example. A 192.0.2.2"],
        "the kept answer is the old server's"
    );
}

#[test]
fn leaving_and_joining_networks_switches_forwarding() {
    let upstream = Fake::steady([192, 0, 2, 1]);
    let lab = Lab::forwarding(&[upstream.address]);
    assert_eq!(lab.dig("www.example A").status, "NOERROR");
    lab.apply(vec![Change::PutView(view(Forward::Never))], vec![]);
    assert_eq!(lab.dig("www.example A").status, "SERVFAIL");
    lab.apply(vec![Change::PutView(view(Forward::Host))], vec![]);
    assert_eq!(lab.dig("www.example A").status, "NOERROR");
}

fn own(servers: &[SocketAddr]) -> Change {
    Change::PutView(view(Forward::Own { servers: servers.to_vec() }))
}

#[test]
fn a_views_own_servers_are_asked_through_its_own_sockets() {
    let upstream = Fake::start(|asked| {
        let mut reply = with_many(&asked.message, if asked.by_tcp { 60 } else { 1 });
        reply.metadata.truncation =
            !asked.by_tcp && asked.message.queries[0].name().to_string().starts_with("big");
        vec![encode(&reply)]
    });
    let (wanted, wants) = std::sync::mpsc::channel();
    let on_want = Box::new(move |view: &netd_dns::table::ViewId, usage: SocketUse| {
        drop(wanted.send((view.clone(), usage)));
    });
    let config = Config { on_want: Some(on_want), ..Config::default() };
    let lab = Lab::start(config, view(Forward::Never), vec![]);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    udp.set_nonblocking(true).unwrap();
    let tcp = unconnected();
    lab.apply(
        vec![own(&["127.0.0.11:53".parse().unwrap(), upstream.address])],
        vec![("v".into(), SocketUse::UpstreamUdp4, udp.into()), ("v".into(), SocketUse::UpstreamTcp4, tcp)],
    );
    assert_eq!(lab.dig("www.example A").answers, ["www.example. A 192.0.2.0"]);
    assert!(upstream.asked().iter().all(|asked| asked.from.port() == port));
    assert_eq!(lab.dig("big.example A +tcp").answers.len(), 60);
    assert_eq!(wants.try_recv().expect("the last socket is used up"), ("v".into(), SocketUse::UpstreamTcp4));
    assert_eq!(lab.dig("big2.example A +tcp").status, "SERVFAIL", "no socket is left");

    // Asking ourselves would go round in circles.
    lab.apply(vec![own(&["127.0.0.11:53".parse().unwrap()])], vec![]);
    assert_eq!(lab.dig("other.example A +time=1").status, "SERVFAIL");
}

/// A TCP socket that is not connected yet.
fn unconnected() -> std::os::fd::OwnedFd {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket").into()
}

#[test]
fn one_view_cannot_take_all_the_room() {
    let silent = Fake::silent();
    let config = Config { in_flight: 40, ..Config::default() };
    let changes =
        vec![put("z", name("web", &["10.0.0.2"])), Change::PutHostServers { servers: vec![silent.address] }];
    let lab = Lab::start(config, view(Forward::Host), changes);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..60_u16 {
        let mut query = hickory_proto::op::Message::query();
        query.metadata.id = number;
        query.add_query(hickory_proto::op::Query::query(
            format!("n{number}.example.").parse().unwrap(),
            hickory_proto::rr::RecordType::A,
        ));
        client.send_to(&encode(&query), lab.address).unwrap();
    }
    // Those beyond the view's half hear so at once, long before the others hear of their server's silence.
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    for _ in 0..40 {
        let mut answer = [0; 512];
        let length = client.recv(&mut answer).expect("a refusal at once");
        let answer = hickory_proto::op::Message::from_vec(&answer[..length]).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(lab.server.stats().overloaded, 40);
    assert_eq!(lab.dig("web A").answers.len(), 1, "local names do not suffer");

    let good = Fake::steady([192, 0, 2, 1]);
    let (address, mut sockets) = ports("other");
    let own = Forward::Own { servers: vec![good.address] };
    let other = netd_dns::table::View { id: "other".into(), ..view(own) };
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    sockets.push(("other".into(), SocketUse::UpstreamUdp4, udp.into()));
    lab.apply(vec![Change::PutView(other)], sockets);
    assert_eq!(dig(address, "www.example A").answers.len(), 1, "another view has room");
}

#[test]
fn ending_waits_for_those_who_wait() {
    let upstream = Fake::start(|asked| vec![encode(&with_address(&asked.message, [192, 0, 2, 1], 60))]);
    // Its first try is lost, so the answer takes a while.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = Fake::silent();
    let lab = Lab::forwarding(&[silent.address, hole, upstream.address]);
    let address = lab.address;
    let client = std::thread::spawn(move || dig(address, "www.example A"));
    let deadline = Instant::now() + crate::lab::SOON;
    while silent.asked().is_empty() {
        assert!(Instant::now() < deadline, "the question never came through");
        std::thread::yield_now();
    }
    lab.server.drain(crate::lab::SOON);
    assert_eq!(client.join().unwrap().answers.len(), 1);
}
