//! A flood of sources against a process that has few descriptors. In a program of its own: the limit is the process's.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netd_proxy::table::{Backend, BackendState, Change, Listener, Place, Policy, Protocol, Service, Source};
use netd_proxy::udp::Dropped;
use netd_proxy::{Config, Counts, Proxy};
use netd_sys::datagram::{Local, SendBatch};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(10);

fn service(backend: SocketAddr) -> Change {
    let SocketAddr::V4(backend) = backend else { unreachable!("the backend was bound to an IPv4 address") };
    let backend = Backend {
        id: "backend".into(),
        v4: Some(backend),
        v6: None,
        weight: 1,
        state: BackendState::Ready,
        place: Place::Here,
    };
    Change::PutService(Service {
        id: "service".into(),
        label: "service".into(),
        policy: Policy::RoundRobin,
        backends: vec![backend],
        connect_timeout: Duration::from_secs(1),
        udp_idle: Duration::from_secs(60),
        ..Service::default()
    })
}

fn counts(proxy: &Proxy) -> Counts {
    proxy.stats().listeners.remove(0).counts
}

/// Sends one datagram from each of `sources` loopback addresses, through one socket.
fn flood(client: &UdpSocket, to: SocketAddr, sources: u32) {
    let mut batch = SendBatch::new(1);
    for number in 0..sources {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number).into();
        let mut out = batch.begin();
        assert!(out.push(Some(to), Some(Local { address, interface: 0, port: 0 }), None, b"flood", 0));
        assert_eq!(out.send(client.as_fd()).messages, 1);
    }
}

#[test]
fn running_out_of_descriptors_is_counted_and_passes() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let sockets = netd_sys::socket::bind_udp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = netd_sys::socket::local_address(&sockets[0]).unwrap();
    let proxy = Proxy::start(&Config { workers: 1, ..Config::default() }).unwrap();
    let listener = Listener {
        id: "udp/test".into(),
        protocol: Protocol::Udp,
        address,
        service: "service".into(),
        funnel: None,
        target_port: None,
        proxy_protocol: None,
        source: Source::Own,
        limit: 4096,
    };
    let changes = vec![service(server.local_addr().unwrap()), Change::PutListener(listener)];
    proxy.apply(changes, vec![("udp/test".into(), sockets)]).unwrap();
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();

    flood(&client, address, 300);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let datagrams = counts(&proxy).datagrams;
        if datagrams.to_backend + datagrams.dropped(Dropped::Exhausted) == 300 {
            assert!(datagrams.dropped(Dropped::Exhausted) >= 300 - 64);
            break;
        }
        assert!(Instant::now() < deadline, "not all were handled: {datagrams:?}");
        std::thread::yield_now();
    }

    // The server has answered none of them: after a second they make place for somebody who comes again.
    server.set_nonblocking(true).unwrap();
    let mut buffer = [0; 16];
    loop {
        client.send_to(b"newcomer", address).unwrap();
        std::thread::park_timeout(Duration::from_millis(10));
        if std::iter::from_fn(|| server.recv(&mut buffer).ok()).any(|len| len == b"newcomer".len()) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody new is served any more");
    }
}
