//! What a client notices of backends that fail before they answer, and of limits.

mod common;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Bed, PATIENCE, Server, backend, connect, eventually, loopback, read_all, refusing, silent};
use netd_proxy::Failure;
use netd_proxy::table::{BackendState, Policy, ProxyProtocol};

fn is_reset(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 8]), Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn a_refusing_backend_is_a_reset_at_once() {
    let mut bed = Bed::new(&[refusing()]);
    let address = bed.listen();
    let began = Instant::now();
    assert!(is_reset(&mut connect(address)));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(bed.settle().failed(Failure::Refused), 1);
}

#[test]
fn no_backend_is_a_reset_at_once() {
    let server = Server::named("gone");
    let mut bed = Bed::new(&[]);
    let address = bed.listen();
    assert!(is_reset(&mut connect(address)));
    bed.service.backends = vec![backend(server.address)];
    bed.service.backends[0].state = BackendState::Failing;
    bed.put_service();
    assert!(is_reset(&mut connect(address)));
    assert_eq!(bed.settle().failed(Failure::NoBackend), 2);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn every_client_gets_the_backend_that_answers_with_all_it_said() {
    let echo = Server::echo();
    let mut bed = Bed::new(&[refusing(), refusing(), echo.address, refusing()]);
    let address = bed.listen();
    for round in 0..40u8 {
        let mut client = connect(address);
        client.write_all(&[round; 5000]).unwrap();
        let mut answer = [0; 5000];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [round; 5000]);
    }
    let counts = bed.settle();
    assert!(counts.retries >= 3 && counts.ejections >= 3, "{counts:?}");
    assert_eq!(counts.failed.iter().sum::<u64>(), 0);
    assert_eq!(counts.connect.iter().sum::<u64>(), 40);
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    let server = Server::named("220 ready");
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(read_all(&mut connect(address)), b"220 ready");
    }
    // The kernel would hold the end of each handshake back for 200 ms.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_first_answer_in_two_pieces_is_not_held_up() {
    let server = Server::new(|mut stream| {
        stream.set_nodelay(false)?;
        stream.read_exact(&mut [0; 8])?;
        stream.write_all(b"head ")?;
        stream.write_all(b"body")
    });
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let began = Instant::now();
    for round in 0..100 {
        let mut client = connect(address);
        if round % 2 == 0 {
            eventually("the backend is connected", || (server.accepted() > round).then_some(()));
        }
        client.write_all(b"question").unwrap();
        assert_eq!(read_all(&mut client), b"head body");
    }
    // The second piece waits until the first is acknowledged, which the kernel would put off for 40 ms.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_program_that_listens_on_one_family_serves_the_other() {
    let server = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V6(listening) = server.local_addr().unwrap() else {
        unreachable!("it was bound to IPv6")
    };
    let answering = thread::spawn(move || server.accept().unwrap().0.write_all(b"here").unwrap());
    let mut bed = Bed::new(&[refusing()]);
    bed.service.backends[0].v6 = Some(listening);
    bed.put_service();
    let address = bed.listen();
    assert_eq!(read_all(&mut connect(address)), b"here");
    answering.join().unwrap();
    let counts = bed.settle();
    assert_eq!((counts.failed.iter().sum::<u64>(), counts.retries), (0, 0), "{counts:?}");
}

#[test]
fn a_backend_of_this_node_that_is_silent_costs_a_second_while_there_is_another() {
    let (echo, (_silent, blocked, _filling)) = (Server::echo(), silent());
    let mut bed = Bed::new(&[blocked, echo.address]);
    let address = bed.listen();
    let began = Instant::now();
    for _ in 0..2 {
        let mut client = connect(address);
        client.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 1);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let counts = bed.settle();
    assert_eq!((counts.retries, counts.failed.iter().sum::<u64>()), (1, 0), "{counts:?}");
}

#[test]
fn the_only_backend_gets_the_whole_time() {
    let (silent, blocked, filling) = silent();
    let mut bed = Bed::new(&[blocked]);
    let mut client = connect(bed.listen());
    // Longer than it would be waited for if there were another.
    eventually("its time goes on", || (bed.counts().open == 1).then_some(()));
    let began = Instant::now();
    client.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "{:?}", began.elapsed());
    // Room is made for it, and the kernel asks again within the time.
    let waiting: Vec<_> = filling.iter().flatten().map(|_| silent.accept().unwrap().0).collect();
    let served = silent.accept().unwrap().0;
    (&served).write_all(b"y").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 1);
    drop((waiting, filling));
}

#[test]
fn a_backend_that_is_silent_costs_its_time_and_not_the_connection() {
    // A full backlog: the kernel drops what else would connect.
    let (_silent, blocked, _filling) = silent();
    let mut bed = Bed::new(&[]);
    bed.service.connect_timeout = Duration::from_millis(150);
    bed.set_backends(&[blocked]);
    let address = bed.listen();
    let began = Instant::now();
    assert!(is_reset(&mut connect(address)));
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!(bed.settle().failed(Failure::Timeout), 1);
    let echo = Server::named("here");
    bed.set_backends(&[blocked, echo.address]);
    for _ in 0..4 {
        assert_eq!(read_all(&mut connect(address)), b"here");
    }
    let counts = bed.settle();
    assert!(counts.retries >= 1 && counts.ejections == 1, "the second silence in a row: {counts:?}");
}

#[test]
fn two_backends_are_evenly_used() {
    let servers = [Server::named("a"), Server::named("b")];
    let mut bed = Bed::new(&servers.each_ref().map(|server| server.address));
    let address = bed.listen();
    for _ in 0..100 {
        read_all(&mut connect(address));
    }
    assert_eq!(servers.each_ref().map(Server::accepted), [50, 50]);
}

#[test]
fn least_open_goes_where_nobody_waits() {
    let holding = Server::new(|mut stream| stream.read(&mut [0]).map(|_| ()));
    let other = Server::new(|mut stream| stream.read(&mut [0]).map(|_| ()));
    let mut bed = Bed::new(&[]);
    bed.service.policy = Policy::LeastOpen;
    bed.set_backends(&[holding.address]);
    let address = bed.listen();
    let held: Vec<_> = (0..20).map(|_| connect(address)).collect();
    eventually("all are connected", || (holding.accepted() == 20).then_some(()));
    bed.set_backends(&[holding.address, other.address]);
    let more: Vec<_> = (0..20).map(|_| connect(address)).collect();
    eventually("all are connected", || (other.accepted() == 20).then_some(()));
    drop((held, more));
    bed.settle();
}

#[test]
fn more_than_the_limit_wait_and_are_served_later() {
    let (go, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let server = Server::new(move |mut stream| {
        waits.lock().unwrap().recv().map_err(io::Error::other)?;
        stream.write_all(b"done")
    });
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen_as(None, 3);
    let clients: Vec<_> = (0..12)
        .map(|_| {
            let mut client = connect(address);
            thread::spawn(move || assert_eq!(read_all(&mut client), b"done"))
        })
        .collect();
    for served in 0..clients.len() {
        let expected = (served + 3).min(clients.len());
        eventually("the next ones are let in", || (server.accepted() == expected).then_some(()));
        assert!(bed.counts().open <= 3);
        go.send(()).unwrap();
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    let counts = bed.settle();
    assert_eq!(counts.accepted, 12);
    assert!(counts.failed(Failure::Limit) > 0);
}

#[test]
fn a_backend_learns_the_client_from_the_header() {
    let (told, tells) = mpsc::channel();
    let server = Server::new(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        told.send(all).map_err(io::Error::other)
    });
    let mut bed = Bed::new(&[server.address]);
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let address = bed.listen_as(Some(version), 100);
        let mut client = connect(address);
        let from = client.local_addr().unwrap();
        client.write_all(b"GET /").unwrap();
        drop(client);
        let heard = tells.recv_timeout(PATIENCE).unwrap();
        let expected = match version {
            ProxyProtocol::V1 => {
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), address.port()).into_bytes()
            }
            ProxyProtocol::V2 => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                header.extend(from.port().to_be_bytes());
                header.extend(address.port().to_be_bytes());
                header
            }
        };
        assert_eq!(heard, [&expected[..], b"GET /"].concat());
    }
    assert_eq!(bed.settle().bytes_to_backend, 10, "the header is not the client's");
}

#[test]
fn a_listeners_port_replaces_the_backends() {
    let server = Server::named("right");
    let mut bed = Bed::new(&[(Ipv4Addr::LOCALHOST, 1).into()]);
    let sockets = netd_sys::socket::bind_tcp(loopback(0), 1, 16).unwrap();
    let address = netd_sys::socket::local_address(&sockets[0]).unwrap();
    let listener =
        netd_proxy::table::Listener { target_port: Some(server.address.port()), ..common::listener(address) };
    let id = listener.id.clone();
    let change = netd_proxy::table::Change::PutListener(listener);
    bed.proxy.apply(vec![change], vec![(id, sockets)]).unwrap();
    assert_eq!(read_all(&mut connect(address)), b"right");
    bed.set_backends(&[]);
    drop(TcpListener::bind(loopback(0)));
}
