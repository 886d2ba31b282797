//! Floods stay within what the listener may have, and do not push out who is being served.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netd_proxy::udp::Dropped;
use netd_sys::datagram::{Local, SendBatch};

use crate::rig::{Echo, PATIENCE, Rig, Setup, ask, eventually, in_namespace};

#[test]
fn a_flood_of_sources_stays_within_the_limit() {
    in_namespace(|| {
        const LIMIT: u32 = 64;
        let echo = Echo::new();
        let rig = Rig::new(Setup { limit: LIMIT, ..Setup::default() }, &[echo.address]);
        let served = rig.local_client();
        assert_eq!(ask(&served, b"x"), b"x");
        let flood = (0..1000).map(|_| rig.local_client()).collect::<Vec<_>>();
        for client in &flood {
            client.send(b"flood").unwrap();
        }
        eventually("all are handled", || {
            let counts = rig.counts();
            counts.datagrams.to_backend + counts.datagrams.dropped(Dropped::Limit) == 1001
        });
        assert!(rig.counts().open <= u64::from(LIMIT));
        assert!(rig.counts().datagrams.dropped(Dropped::Limit) >= 1000 - u64::from(LIMIT));
        assert_eq!(ask(&served, b"y"), b"y", "who was there first is still served");
    });
}

#[test]
fn quiet_flows_make_place_for_new_ones() {
    in_namespace(|| {
        // The server answers nobody: its flows may be given up after a second.
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let setup = Setup { limit: 4, workers: 1, sockets: 1, ..Setup::default() };
        let rig = Rig::new(setup, &[server.local_addr().unwrap()]);
        let quiet = (0..4).map(|_| rig.local_client()).collect::<Vec<_>>();
        quiet.iter().for_each(|client| _ = client.send(b"once").unwrap());
        eventually("the listener is full", || rig.counts().open == 4);
        let newcomer = rig.local_client();
        eventually("the newcomer gets a place", || {
            newcomer.send(b"again").unwrap();
            rig.counts().accepted == 5
        });
        assert_eq!((rig.counts().open, rig.counts().datagrams.evicted), (4, 1));
    });
}

#[test]
fn a_flow_that_wakes_up_keeps_its_place_against_a_newcomer_of_the_same_moment() {
    in_namespace(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let setup = Setup { limit: 1, workers: 1, sockets: 1, ..Setup::default() };
        let rig = Rig::new(setup, &[server.local_addr().unwrap()]);
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut batch = SendBatch::new(2);
        let mut send = |hosts: &[u8]| {
            let mut out = batch.begin();
            for host in hosts {
                let from = Local { address: Ipv4Addr::new(127, 0, 0, *host).into(), interface: 0, port: 0 };
                let name = std::slice::from_ref(host);
                assert!(out.push(Some(rig.address), Some(from), None, name, 0));
            }
            assert_eq!(out.send(client.as_fd()).messages, hosts.len());
        };
        let mut buffer = [0; 16];
        send(&[2]);
        let (_, first) = server.recv_from(&mut buffer).unwrap();
        // Long enough for the flow to be given up, if nobody used it.
        let quiet_until = Instant::now() + Duration::from_millis(1100);
        eventually("a flow without an answer may be given up", || Instant::now() > quiet_until);
        send(&[2, 3]);
        let (len, second) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], second), (&[2][..], first), "nobody's datagram in another's flow");
        eventually("the newcomer is refused", || rig.counts().datagrams.dropped(Dropped::Limit) == 1);
    });
}

#[test]
fn a_flood_of_datagrams_is_survived_and_counted_or_dropped_by_the_kernel() {
    in_namespace(|| {
        let echo = Echo::new();
        let rig = Rig::new(Setup::default(), &[echo.address]);
        let flood = rig.local_client();
        let bytes = vec![1; 60_000];
        let mut batch = SendBatch::new(64);
        for _ in 0..200 {
            let mut out = batch.begin();
            while out.push(None, None, None, &bytes, 0) {}
            out.send(flood.as_fd());
        }
        let client = rig.local_client();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // Its datagrams wait behind the flood's, or get lost in it; then it is served.
        eventually("another client is served", || {
            client.send(b"x").unwrap();
            client.recv(&mut [0; 8]).is_ok()
        });
    });
}

#[test]
fn a_made_up_source_cannot_set_the_proxy_talking_to_itself() {
    in_namespace(|| {
        let echo = Echo::new();
        let rig = Rig::new(Setup { workers: 1, sockets: 1, ..Setup::default() }, &[echo.address]);
        // Sent through the listening socket itself, which is how a spoofed source looks to the proxy.
        let copy = rig.proxy.sockets().unwrap().remove(0).1.remove(0);
        let mut batch = SendBatch::new(1);
        let mut out = batch.begin();
        assert!(out.push(Some(rig.address), None, None, b"from itself to itself", 0));
        assert_eq!(out.send(copy.as_fd()).messages, 1);
        eventually("it is dropped", || rig.counts().datagrams.dropped(Dropped::Loop) == 1);
        assert_eq!((rig.counts().accepted, rig.counts().datagrams.to_backend), (0, 0));
    });
}

#[test]
fn a_service_that_is_its_own_backend_has_a_few_flows_for_a_client_and_not_all_there_can_be() {
    in_namespace(|| {
        let rig = Rig::new(Setup::default(), &[]);
        rig.set_outside(&[rig.address]);
        rig.local_client().send(b"round").unwrap();
        eventually("it is found out", || rig.counts().datagrams.dropped(Dropped::Loop) > 0);
        assert!(rig.counts().open < 16, "{:?}", rig.counts());
    });
}
