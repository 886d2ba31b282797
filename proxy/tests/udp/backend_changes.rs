//! A flow follows its backend at once.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use netd_proxy::Failure;

use crate::rig::{Echo, Rig, Setup, ask, ask_until_answered, eventually, in_namespace};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_backend_that_starts_late_answers_the_next_datagram() {
    in_namespace(|| {
        let address = nobody();
        let rig = Rig::new(Setup::default(), &[address]);
        let client = rig.local_client();
        for lost in 1..=2 {
            client.send(b"lost").unwrap();
            eventually("the refusal is counted", || rig.counts().failed(Failure::Refused) >= lost);
        }
        let _echo = Echo::at(&address.to_string(), "");
        assert_eq!(ask(&client, b"third"), b"third");
        assert_eq!(rig.counts().accepted, 1, "all in one flow");
    });
}

#[test]
fn a_restarted_backend_goes_on_with_the_flow() {
    in_namespace(|| {
        let echo = Echo::new();
        let address = echo.address;
        let rig = Rig::new(Setup::default(), &[address]);
        let client = rig.local_client();
        assert_eq!(ask(&client, b"before"), b"before");
        drop(echo);
        client.send(b"while it is away").unwrap();
        eventually("the refusal is counted", || rig.counts().failed(Failure::Refused) == 1);
        let _echo = Echo::at(&address.to_string(), "");
        assert_eq!(ask(&client, b"after"), b"after");
        assert_eq!(rig.counts().accepted, 1);
    });
}

#[test]
fn a_dead_backend_hands_its_flows_to_a_living_one() {
    in_namespace(|| {
        let echo = Echo::named("b:");
        let rig = Rig::new(Setup::default(), &[nobody(), echo.address]);
        for _ in 0..10 {
            let client = rig.local_client();
            let began = Instant::now();
            assert_eq!(ask_until_answered(&client, b"x"), b"b:x");
            assert!(began.elapsed() < Duration::from_secs(2));
            assert_eq!(ask(&client, b"y"), b"b:y", "and it stays there");
        }
        assert_eq!(rig.counts().accepted, 10);
        assert!(rig.counts().retries >= 1);
    });
}

#[test]
fn a_server_of_one_family_serves_clients_of_both() {
    in_namespace(|| {
        for (listens, bind) in [("127.0.0.1:0", "[::1]:0"), ("[::1]:0", "127.0.0.1:0")] {
            let echo = Echo::at(listens, "one:");
            let rig = Rig::new(Setup { bind, ..Setup::default() }, &[nobody()]);
            let port = echo.address.port();
            rig.set_two_families(
                SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
                SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0),
            );
            let first = rig.client(rig.address.ip());
            assert_eq!(ask_until_answered(&first, b"x"), b"one:x");
            assert_eq!(ask(&first, b"y"), b"one:y", "and the flow stays there");
            for _ in 0..5 {
                let next = rig.client(rig.address.ip());
                assert_eq!(ask(&next, b"z"), b"one:z", "who comes later loses nothing");
            }
        }
    });
}

#[test]
fn a_server_that_moves_to_the_other_family_is_found_by_the_same_flow() {
    in_namespace(|| {
        let four = Echo::new();
        let port = four.address.port();
        let rig = Rig::new(Setup::default(), &[four.address]);
        let v6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
        rig.set_two_families(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), v6);
        let client = rig.local_client();
        assert_eq!(ask(&client, b"by four"), b"by four");
        drop(four);
        let six = Echo::at(&v6.to_string(), "6:");
        assert_eq!(ask_until_answered(&client, b"x"), b"6:x");
        drop(six);
        let _four = Echo::at(&format!("127.0.0.1:{port}"), "4:");
        assert_eq!(ask_until_answered(&client, b"x"), b"4:x");
    });
}

#[test]
fn a_removed_backend_gets_no_further_datagram() {
    in_namespace(|| {
        let (first, second) = (Echo::named("a:"), Echo::named("b:"));
        let rig = Rig::new(Setup::default(), &[first.address]);
        let clients = (0..20).map(|_| rig.local_client()).collect::<Vec<_>>();
        for client in &clients {
            assert_eq!(ask(client, b"x"), b"a:x");
        }
        rig.set_backends(&[second.address]);
        assert_eq!(rig.counts().open, 0, "the flows ended with the change, not with the next datagram");
        for client in &clients {
            assert_eq!(ask(client, b"y"), b"b:y");
        }
        rig.set_backends(&[first.address, second.address]);
        for client in &clients {
            assert_eq!(ask(client, b"z"), b"b:z", "a backend that comes moves nobody");
        }
        assert_eq!(rig.counts().accepted, 40);
    });
}

#[test]
fn without_a_backend_datagrams_are_counted_and_the_next_backend_serves() {
    in_namespace(|| {
        let rig = Rig::new(Setup::default(), &[]);
        let client = rig.local_client();
        client.send(b"x").unwrap();
        eventually("the drop is counted", || {
            rig.counts().datagrams.dropped(netd_proxy::udp::Dropped::NoBackend) == 1
        });
        let echo = Echo::new();
        rig.set_backends(&[echo.address]);
        assert_eq!(ask(&client, b"y"), b"y");
    });
}

#[test]
fn a_dropped_listener_leaves_no_flow_and_no_port() {
    in_namespace(|| {
        let echo = Echo::new();
        let rig = Rig::new(Setup::default(), &[echo.address]);
        let client = rig.local_client();
        assert_eq!(ask(&client, b"x"), b"x");
        rig.drop_listener();
        assert!(rig.proxy.stats().listeners.is_empty());
        assert_eq!(rig.proxy.stats().services[0].backends[0].open, 0);
        client.send(b"y").unwrap();
        let refused = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        UdpSocket::bind(rig.address).expect("the port is free again");
    });
}

#[test]
fn draining_lets_the_last_answers_through() {
    in_namespace(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let rig = Rig::new(Setup::default(), &[server.local_addr().unwrap()]);
        let client = rig.local_client();
        client.send(b"question").unwrap();
        let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| rig.proxy.drain(Duration::from_secs(30)));
            let mut buffer = [0; 16];
            // Answers find their way until the flow has been silent for a while.
            server.send_to(b"answer", from).unwrap();
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"answer");
            assert_eq!(drain.join().unwrap(), netd_proxy::Drained { finished: 1, cut: 0 });
        });
    });
}

#[test]
fn a_draining_backend_keeps_its_flows_until_its_time_is_over() {
    in_namespace(|| {
        let (old, new) = (Echo::named("old:"), Echo::named("new:"));
        let rig = Rig::new(Setup::default(), &[old.address]);
        let (first, second) = (rig.local_client(), rig.local_client());
        assert_eq!(ask(&first, b"x"), b"old:x");
        rig.drain_first(&[old.address, new.address], Duration::from_millis(500));
        assert_eq!(ask(&second, b"x"), b"new:x", "a new flow");
        assert_eq!(ask(&first, b"y"), b"old:y", "goes on");
        eventually("the flow is cut", || rig.counts().open == 1);
        assert_eq!(ask(&first, b"z"), b"new:z", "and its next datagram finds another backend");
    });
}

#[test]
fn a_leaving_backend_answers_what_it_was_asked_and_is_asked_no_more() {
    in_namespace(|| {
        let (old, new) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Echo::named("new:"));
        let address = old.local_addr().unwrap();
        let rig = Rig::new(Setup::default(), &[address]);
        let client = rig.local_client();
        client.send(b"question").unwrap();
        let (_, from) = old.recv_from(&mut [0; 16]).unwrap();
        rig.send_off_first(&[address]);
        rig.send_off_first(&[address, new.address]);
        old.send_to(b"answer", from).unwrap();
        let mut buffer = [0; 16];
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"answer");
        assert_eq!(ask(&client, b"next"), b"new:next");
        assert_eq!(rig.counts().open, 1, "the flow has moved");
    });
}

#[test]
fn an_unwell_backend_loses_its_flows_at_once() {
    in_namespace(|| {
        let (sick, well) = (Echo::named("sick:"), Echo::named("well:"));
        let rig = Rig::new(Setup::default(), &[sick.address]);
        let client = rig.local_client();
        assert_eq!(ask(&client, b"x"), b"sick:x");
        rig.fail_first(&[sick.address, well.address]);
        assert_eq!(ask(&client, b"y"), b"well:y");
    });
}

#[test]
fn a_flow_passes_over_one_that_has_refused_others() {
    in_namespace(|| {
        let echo = Echo::named("b:");
        let rig = Rig::new(Setup::default(), &[nobody(), echo.address]);
        let first = rig.local_client();
        assert_eq!(ask_until_answered(&first, b"x"), b"b:x");
        eventually("the refusal has come", || {
            let client = rig.local_client();
            ask_until_answered(&client, b"x");
            rig.counts().failed(Failure::Refused) >= 1
        });
        for _ in 0..20 {
            assert_eq!(ask(&rig.local_client(), b"y"), b"b:y", "nothing is lost any more");
        }
    });
}
