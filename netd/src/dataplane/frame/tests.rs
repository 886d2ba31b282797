use std::fs::File;
use std::os::fd::AsRawFd;

use proptest::prelude::*;

use super::*;

fn sockets(count: usize) -> (Sockets, Vec<i32>) {
    let fds: Vec<OwnedFd> = (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect();
    let numbers = fds.iter().map(AsRawFd::as_raw_fd).collect();
    (Sockets { key: "tcp/0.0.0.0:80".into(), used: SocketUse::Listener, fds }, numbers)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (any::<u32>(), ".*").prop_map(|(protocol, build)| Request::Hello { protocol, build }),
        (any::<u64>(), any::<bool>()).prop_map(|(revision, full)| Request::Begin { revision, full }),
        any::<u64>().prop_map(|revision| Request::Commit { revision }),
        ".*".prop_map(|filter| Request::LogFilter { filter }),
        any::<u64>().prop_map(|milliseconds| Request::Drain { milliseconds }),
        ("[a-z]*", "[a-z.]*", any::<[u8; 4]>()).prop_map(|(zone, name, address)| {
            let name = netd_dns::table::Name {
                name: name.into(),
                addresses: vec![address.into()],
                primary_for: vec![address.into()],
                ..Default::default()
            };
            Request::Change {
                change: Change::Dns(netd_dns::table::Change::PutName { zone: zone.into(), name }),
            }
        }),
        any::<u16>().prop_map(|port| {
            let listener = netd_proxy::table::Listener {
                id: format!("tcp/[::]:{port}").into(),
                protocol: netd_proxy::table::Protocol::Tcp,
                address: ([0u16; 8], port).into(),
                service: "s".into(),
                funnel: None,
                target_port: Some(port),
                proxy_protocol: None,
                source: netd_proxy::table::Source::Own,
                limit: 7,
            };
            Request::Change { change: Change::Proxy(netd_proxy::table::Change::PutListener(listener)) }
        }),
        Just(Request::Stop),
    ]
}

proptest! {
    #[test]
    fn what_was_sent_is_what_arrives(requests in proptest::collection::vec(request(), 0..50)) {
        let mut packer = Packer::default();
        for request in &requests {
            packer.push(request).unwrap();
        }
        let arrived: Vec<Request> = packer
            .finish()
            .into_iter()
            .flat_map(|packet| decode::<Request>(&packet.bytes, packet.fds).unwrap())
            .map(|(request, _)| request)
            .collect();
        prop_assert_eq!(arrived, requests);
    }

    #[test]
    fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Request>(&bytes, Vec::new());
        let _ = decode::<Reply>(&bytes, Vec::new());
    }

    /// Bytes that look like a packet but for some of them.
    #[test]
    fn a_damaged_packet_does_no_harm(
        requests in proptest::collection::vec(request(), 1..5),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut packer = Packer::default();
        requests.iter().for_each(|request| packer.push(request).unwrap());
        for mut packet in packer.finish() {
            let place = place.index(packet.bytes.len());
            packet.bytes[place] = byte;
            let _ = decode::<Request>(&packet.bytes, packet.fds);
        }
    }
}

#[test]
fn packets_stay_small_and_descriptors_stay_with_their_message() {
    let mut packer = Packer::default();
    let mut sent = Vec::new();
    for round in 0..300u64 {
        packer.push(&Request::LogFilter { filter: "x".repeat(1000) }).unwrap();
        let (two, numbers) = sockets(2);
        sent.push(numbers);
        packer.push_sockets(two, |key, used, count| Request::Sockets { key, used, count }).unwrap();
        packer.push(&Request::Commit { revision: round }).unwrap();
    }
    let packets = packer.finish();
    assert!(packets.len() > 3);
    let mut arrived = Vec::new();
    for packet in packets {
        assert!(packet.bytes.len() <= CHUNK && packet.fds.len() <= MAX_FDS);
        for (request, fds) in decode::<Request>(&packet.bytes, packet.fds).unwrap() {
            let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            match request {
                Request::Sockets { .. } => arrived.push(numbers),
                _ => assert!(numbers.is_empty()),
            }
        }
    }
    assert_eq!(arrived, sent);
}

#[test]
fn a_listener_of_many_sockets_takes_several_messages() {
    let mut packer = Packer::default();
    let (many, _) = sockets(MAX_FDS + 1);
    packer.push_sockets(many, |key, used, count| Request::Sockets { key, used, count }).unwrap();
    let packets = packer.finish();
    assert_eq!(packets.iter().map(|packet| packet.fds.len()).collect::<Vec<_>>(), [MAX_FDS, 1]);
}

#[test]
fn what_a_newer_peer_says_is_skipped() {
    let text =
        br#"[{"type":"begin","revision":7,"full":true,"new-field":[1]},{"type":"new-message","x":{"y":1}}]"#;
    let messages: Vec<Request> = decode(text, Vec::new()).unwrap().into_iter().map(|(m, _)| m).collect();
    assert_eq!(messages, [Request::Begin { revision: 7, full: true }, Request::Unknown]);
}

#[test]
fn descriptors_that_nobody_speaks_of_are_an_error() {
    let (one, _) = sockets(1);
    assert!(matches!(
        decode::<Request>(br#"[{"type":"stop"}]"#, one.fds),
        Err(FrameError::Descriptors { expected: 0, came: 1 })
    ));
    let huge = br#"[{"type":"sockets","key":"k","used":"Listener","count":18446744073709551615},
        {"type":"sockets","key":"k","used":"Listener","count":18446744073709551615}]"#;
    assert!(matches!(decode::<Request>(huge, Vec::new()), Err(FrameError::Descriptors { .. })));
}

#[test]
fn a_message_that_can_never_arrive_is_refused() {
    let large = |length| Request::LogFilter { filter: "x".repeat(length) };
    let refused = Packer::default().push(&large(MAX_PACKET));
    assert!(matches!(refused, Err(FrameError::TooLong { most: MAX_PACKET, .. })));
    let refused = Packer::to(usize::MAX).push(&large(MAX_MESSAGE));
    let text = refused.expect_err("more than anybody takes").to_string();
    assert!(text.contains(&MAX_MESSAGE.to_string()) && text.contains("log-filter"), "{text}");
}

#[test]
fn what_is_larger_than_a_packet_keeps_its_place_among_the_others() {
    let mut packer = Packer::to(MAX_MESSAGE);
    let large = Request::LogFilter { filter: "x".repeat(3 * MAX_PACKET) };
    let sent =
        [Request::Begin { revision: 1, full: false }, large, Request::Commit { revision: 1 }, Request::Stop];
    sent.iter().for_each(|request| packer.push(request).unwrap());
    let (mut pieces, mut arrived) = (pieces::Pieces::default(), Vec::new());
    for packet in packer.finish() {
        assert!(packet.bytes.len() <= MAX_PACKET);
        if let Some(list) = pieces.join(&packet.bytes, false).unwrap() {
            arrived.extend(
                decode::<Request>(&list, Vec::new()).unwrap().into_iter().map(|(request, _)| request),
            );
        }
    }
    assert_eq!(arrived, sent);
}

#[test]
fn a_peer_that_does_not_say_what_it_takes_takes_one_packet() {
    let text = br#"[{"type":"hello","protocol":1,"build":"old","revision":3}]"#;
    let (hello, _) = decode::<Reply>(text, Vec::new()).unwrap().remove(0);
    assert!(matches!(hello, Reply::Hello { largest: MAX_PACKET, .. }));
}
