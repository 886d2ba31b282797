//! What clients notice of backends that drain, fail, or are their own: over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Bed, PATIENCE, Server, backend, connect, eventually, read_all, refusing};
use netd_proxy::table::{BackendState, Policy};

fn say(client: &mut TcpStream, words: &[u8]) {
    client.write_all(words).unwrap();
    let mut echo = vec![0; words.len()];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(echo, words);
}

fn states(bed: &mut Bed, states: &[BackendState]) {
    for (backend, state) in bed.service.backends.iter_mut().zip(states) {
        backend.state = *state;
    }
    bed.put_service();
}

#[test]
fn a_drain_moves_the_new_and_cuts_the_old_on_both_sides_when_its_time_is_over() {
    let (told, tell) = std::sync::mpsc::channel();
    let old = Server::new(move |mut stream| {
        let mut buffer = [0; 64];
        loop {
            match stream.read(&mut buffer) {
                Ok(filled @ 1..) => stream.write_all(&buffer[..filled])?,
                end => {
                    told.send(end.map_err(|error| error.kind())).unwrap();
                    return Ok(());
                }
            }
        }
    });
    let new = Server::named("new");
    let mut bed = Bed::new(&[old.address]);
    bed.service.drain = Some(Duration::from_millis(600));
    bed.put_service();
    let address = bed.listen();
    let mut client = connect(address);
    say(&mut client, b"before");
    bed.service.backends.push(backend(new.address));
    let began = Instant::now();
    states(&mut bed, &[BackendState::Draining, BackendState::Ready]);
    for _ in 0..10 {
        assert_eq!(read_all(&mut connect(address)), b"new");
    }
    say(&mut client, b"while it drains");
    // The tables come again, as they do from a new control plane: the time is not prolonged by that.
    bed.put_service();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(600) && took < PATIENCE / 4, "{took:?}");
    assert_eq!(tell.recv_timeout(PATIENCE).unwrap(), Err(ErrorKind::ConnectionReset));
    bed.settle();
}

#[test]
fn who_drains_serves_on_when_nobody_else_is_left() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    bed.service.drain = Some(Duration::from_millis(50));
    bed.put_service();
    let address = bed.listen();
    let mut first = connect(address);
    say(&mut first, b"first");
    states(&mut bed, &[BackendState::Draining]);
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut second = connect(address);
    say(&mut second, b"second");
    bed.put_service();
    say(&mut second, b"who came after the time of the drain is not cut by it");
}

#[test]
fn a_failing_backend_keeps_what_it_has_and_gets_nothing_new() {
    let (echo, other) = (Server::echo(), Server::named("other"));
    let mut bed = Bed::new(&[echo.address]);
    let address = bed.listen();
    let mut client = connect(address);
    say(&mut client, b"before");
    bed.service.backends.push(backend(other.address));
    states(&mut bed, &[BackendState::Failing, BackendState::Ready]);
    for _ in 0..6 {
        assert_eq!(read_all(&mut connect(address)), b"other");
    }
    say(&mut client, b"it goes on");
}

#[test]
fn one_that_refuses_costs_a_few_attempts_and_comes_back() {
    let (good, late) = (Server::named("good"), refusing());
    let mut bed = Bed::new(&[good.address, late]);
    let address = bed.listen();
    for _ in 0..200 {
        assert_eq!(read_all(&mut connect(address)), b"good");
    }
    let counts = bed.settle();
    assert!(counts.retries < 50 && counts.ejections >= 1, "{counts:?}");
    let stats = || bed.proxy.stats().services.remove(0).backends;
    let of = |address: SocketAddr| {
        stats().into_iter().find(|backend| *backend.backend == *address.to_string()).unwrap()
    };
    assert_eq!(of(good.address).counts.accepted, 200);
    assert_eq!((of(late).is_ejected, of(good.address).is_ejected), (true, false));
    let _listening = std::net::TcpListener::bind(late).unwrap();
    eventually("it is asked again and found well", || {
        drop(TcpStream::connect(address).unwrap());
        (!of(late).is_ejected && of(late).counts.accepted > 0).then_some(())
    });
}

#[test]
fn a_client_keeps_its_backend_until_that_takes_no_more() {
    let servers = [Server::named("a"), Server::named("b"), Server::named("c")];
    let mut bed = Bed::new(&servers.each_ref().map(|server| server.address));
    bed.service.affinity = Some(PATIENCE);
    bed.service.policy = Policy::RoundRobin;
    bed.put_service();
    let address = bed.listen();
    let from = |last: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        read_all(&mut socket.into())
    };
    let first: Vec<_> = (1..=9).map(from).collect();
    for name in [b"a", b"b", b"c"] {
        assert!(first.iter().any(|answer| answer == name), "clients are spread out: {first:?}");
    }
    assert_eq!((1..=9).map(from).collect::<Vec<_>>(), first);
    // Another backend comes: nobody moves. One goes: its own move, and stay where they have moved to.
    let other = Server::named("d");
    bed.service.backends.push(backend(other.address));
    bed.put_service();
    assert_eq!((1..=9).map(from).collect::<Vec<_>>(), first);
    bed.service.backends[0].state = BackendState::Draining;
    bed.put_service();
    let moved: Vec<_> = (1..=9).map(from).collect();
    for (before, after) in first.iter().zip(&moved) {
        assert!(if before == b"a" { after != b"a" } else { after == before }, "{first:?} {moved:?}");
    }
    bed.service.backends[0].state = BackendState::Ready;
    bed.put_service();
    assert_eq!((1..=9).map(from).collect::<Vec<_>>(), moved);
}
