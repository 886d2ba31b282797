//! Datagrams come back, all of them, whole, from where they were sent to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use netd_sys::datagram::{self, MAX_TRAIN, RecvBatch, SendBatch};
use netd_sys::poll::{Events, Interest, Poller};

use crate::rig::{Echo, PATIENCE, Rig, Setup, ask, in_namespace};

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + seed) as u8).collect()
}

#[test]
fn every_size_comes_back_whole_on_every_kind_of_address() {
    in_namespace(|| {
        let listeners: [(&'static str, &str, &str); 6] = [
            ("0.0.0.0:0", "127.0.0.1", "127.0.0.1:0"),
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.1:0"),
            ("127.0.0.7:0", "127.0.0.7", "127.0.0.1:0"),
            ("[::]:0", "::1", "[::1]:0"),
            ("[::1]:0", "::1", "[::1]:0"),
            // A client of one family, a backend of the other.
            ("[fd00::2]:0", "fd00::2", "127.0.0.1:0"),
        ];
        for (bind, host, backend) in listeners {
            let echo = Echo::at(backend, "");
            let rig = Rig::new(Setup { bind, ..Setup::default() }, &[echo.address]);
            let client = rig.client(host.parse().unwrap());
            for size in [0, 1, 512, 1472, 9000, 65_507] {
                let bytes = pattern(size, size);
                assert!(ask(&client, &bytes) == bytes, "{size} bytes through {bind}");
            }
            assert_eq!(rig.counts().datagrams.to_backend, 6);
            assert_eq!(rig.counts().datagrams.to_client, 6);
            assert_eq!((rig.counts().accepted, rig.counts().open), (1, 1));
        }
    });
}

#[test]
fn each_answer_comes_from_the_address_that_was_asked() {
    in_namespace(|| {
        for (bind, any, hosts) in [
            ("0.0.0.0:0", "0.0.0.0:0", ["127.0.0.2", "127.0.0.3"]),
            ("[::]:0", "[::]:0", ["fd00::1", "fd00::2"]),
        ] {
            let echo = Echo::new();
            let rig = Rig::new(Setup { bind, ..Setup::default() }, &[echo.address]);
            let client = UdpSocket::bind(any).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let port = rig.address.port();
            for host in hosts.iter().cycle().take(8) {
                let host: IpAddr = host.parse().unwrap();
                client.send_to(host.to_string().as_bytes(), (host, port)).unwrap();
                let mut buffer = [0; 64];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!(from, SocketAddr::new(host, port));
                assert_eq!(buffer[..len], *host.to_string().as_bytes());
            }
            assert_eq!(rig.counts().open, 2, "one socket, two addresses, two flows");
        }
    });
}

#[test]
fn trains_come_back_byte_for_byte() {
    in_namespace(|| {
        const SEGMENT: usize = 1400;
        const TRAIN: usize = 44 * SEGMENT;
        let echo = Echo::new();
        let rig = Rig::new(Setup::default(), &[echo.address]);
        let client = rig.local_client();
        datagram::enlarge_buffers(&client).unwrap();
        let (mut batch, mut buffer) = (SendBatch::new(1), [0; 2 * SEGMENT]);
        for round in 0..200 {
            // The last datagram of every other train is shorter.
            let bytes = pattern(TRAIN - round % 2 * 100, round);
            let mut out = batch.begin();
            assert!(out.push(None, None, Some(SEGMENT as u16), &bytes, 0));
            assert_eq!(out.send(client.as_fd()).messages, 1);
            let mut got = Vec::with_capacity(TRAIN);
            while got.len() < bytes.len() {
                let len = client.recv(&mut buffer).expect("no datagram is lost");
                got.extend_from_slice(&buffer[..len]);
            }
            assert!(got == bytes, "train {round}");
        }
        assert_eq!(rig.counts().datagrams.to_client, 200 * 44);
        assert_eq!(rig.counts().bytes_to_client, 100 * (2 * TRAIN as u64 - 100));
    });
}

/// Keeps `outstanding` datagrams of each of `flows` on their way until each flow has had `total` answers; any loss is
/// an error.
fn exchange(rig: &Rig, flows: usize, outstanding: usize, total: u64) {
    let clients = (0..flows).map(|_| rig.local_client()).collect::<Vec<_>>();
    let poller = Poller::new().unwrap();
    for (number, client) in clients.iter().enumerate() {
        client.set_nonblocking(true).unwrap();
        poller.add(client, number as u64, Interest::READ).unwrap();
    }
    let mut sent = vec![0u64; flows];
    let mut answered = vec![0u64; flows];
    let send = |flow: usize, sent: &mut u64| {
        clients[flow].send(&[flow as u64, *sent].map(u64::to_be_bytes).concat()).unwrap();
        *sent += 1;
    };
    for (flow, sent) in sent.iter_mut().enumerate() {
        (0..outstanding).for_each(|_| send(flow, sent));
    }
    let (mut events, mut batch) = (Events::with_capacity(64), RecvBatch::new(64, MAX_TRAIN));
    while answered.iter().any(|&answered| answered < total) {
        poller.wait(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "datagrams got lost: {answered:?} of {sent:?}");
        for event in events.iter() {
            let flow = event.token as usize;
            batch.recv(clients[flow].as_fd()).unwrap();
            for datagram in batch.iter() {
                let expected = [flow as u64, answered[flow]].map(u64::to_be_bytes).concat();
                assert_eq!(datagram.payload, expected, "in order, and to the right client");
                answered[flow] += 1;
                if sent[flow] < total {
                    send(flow, &mut sent[flow]);
                }
            }
        }
    }
}

#[test]
fn no_datagram_is_lost_or_mixed_up() {
    in_namespace(|| {
        // Fewer sockets than workers: one worker serves the listener.
        for (workers, sockets) in [(2, 2), (2, 1), (1, 1)] {
            let echo = Echo::new();
            let rig = Rig::new(Setup { workers, sockets, ..Setup::default() }, &[echo.address]);
            exchange(&rig, 64, 1, 100);
            exchange(&rig, 16, 32, 1000);
            let counts = rig.counts();
            let total = 64 * 100 + 16 * 1000;
            assert_eq!((counts.datagrams.to_backend, counts.datagrams.to_client), (total, total));
            assert_eq!(counts.datagrams.dropped.iter().sum::<u64>(), 0);
        }
    });
}

#[test]
fn a_thousand_flows_at_once() {
    in_namespace(|| {
        let echo = Echo::new();
        let rig = Rig::new(Setup::default(), &[echo.address]);
        let clients = (0..1000).map(|_| rig.local_client()).collect::<Vec<_>>();
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate() {
                let bytes = format!("{number} {round}").into_bytes();
                assert_eq!(ask(client, &bytes), bytes);
            }
        }
        assert_eq!((rig.counts().accepted, rig.counts().open), (1000, 1000));
    });
}

#[test]
fn a_one_sided_client_keeps_its_port_until_it_has_been_idle() {
    in_namespace(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let idle = Duration::from_millis(300);
        let rig = Rig::new(Setup { idle, ..Setup::default() }, &[server.local_addr().unwrap()]);
        let client = rig.local_client();
        let port_of = |bytes: &[u8]| {
            client.send(bytes).unwrap();
            server.recv_from(&mut [0; 8]).unwrap().1.port()
        };
        let first = port_of(b"a");
        for _ in 0..50 {
            assert_eq!(port_of(b"b"), first);
        }
        crate::rig::eventually("the flow ends", || rig.counts().open == 0);
        assert_eq!(rig.counts().datagrams.expired, 1);
        assert_ne!(port_of(b"c"), first);
    });
}
