//! What clients notice while the tables change under them: nothing, or what was asked for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Bed, PATIENCE, Server, connect, eventually, listener, loopback, read_all};
use netd_proxy::table::Change;
use netd_proxy::{Config, Drained, Error, Failure, Proxy};
use netd_sys::socket;

#[test]
fn backends_change_under_load_and_no_connection_fails() {
    let servers = [Server::named("a"), Server::named("b"), Server::named("c")];
    let addresses = servers.each_ref().map(|server| server.address);
    let mut bed = Bed::new(&addresses[..1]);
    let address = bed.listen();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(read_all(&mut connect(address)).len(), 1);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..300 {
        let first = round % 3;
        bed.set_backends(&[addresses[first], addresses[(first + round % 2) % 3]]);
    }
    // What apply() has returned from is what the next connection sees.
    bed.set_backends(&addresses[2..]);
    assert_eq!(read_all(&mut connect(address)), b"c");
    stop.store(true, Ordering::Relaxed);
    let answered: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    let counts = bed.settle();
    assert_eq!(counts.accepted, answered + 1);
    assert_eq!(counts.failed.iter().sum::<u64>(), 0, "{counts:?}");
}

#[test]
fn open_connections_outlive_their_listener_and_their_backend() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let mut client = connect(address);
    say(&mut client, b"before");
    bed.drop_listener(address);
    bed.set_backends(&[]);
    let refused = TcpStream::connect_timeout(&address, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    say(&mut client, b"after");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"");
    bed.settle();
}

fn say(client: &mut TcpStream, words: &[u8]) {
    client.write_all(words).unwrap();
    let mut echo = vec![0; words.len()];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(echo, words);
}

#[test]
fn a_replaced_listener_keeps_its_connections_and_its_counts() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let mut client = connect(address);
    say(&mut client, b"one");
    let other = netd_proxy::table::Service { id: "t".into(), ..bed.service.clone() };
    let moved = netd_proxy::table::Listener { service: "t".into(), ..listener(address) };
    let changes = vec![
        Change::PutService(other),
        Change::PutListener(moved),
        Change::DropService { service: "s".into() },
    ];
    bed.proxy.apply(changes.clone(), Vec::new()).unwrap();
    bed.proxy.apply(changes, Vec::new()).unwrap();
    say(&mut client, b"two");
    say(&mut connect(address), b"three");
    let stats = bed.proxy.stats();
    assert_eq!(stats.listeners.len(), 1);
    assert_eq!(stats.listeners[0].counts.accepted, 2);
    assert_eq!(stats.services.iter().map(|service| &*service.service).collect::<Vec<_>>(), ["t"]);
}

#[test]
fn a_service_that_comes_back_serves_its_listeners_again() {
    let server = Server::named("back");
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    bed.proxy.apply(vec![Change::DropService { service: "s".into() }], Vec::new()).unwrap();
    assert!(connect(address).read(&mut [0]).is_err());
    bed.set_backends(&[server.address]);
    assert_eq!(read_all(&mut connect(address)), b"back");
}

#[test]
fn changes_that_do_not_fit_change_nothing() {
    let server = Server::named("here");
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let drop_it = Change::DropListener { listener: listener(address).id };
    let unknown = netd_proxy::table::Listener { service: "nobody".into(), ..listener(loopback(1)) };
    let outcome = bed.proxy.apply(vec![drop_it.clone(), Change::PutListener(unknown)], Vec::new());
    assert!(matches!(outcome, Err(Error::UnknownService { .. })), "{outcome:?}");
    let outcome =
        bed.proxy.apply(vec![drop_it.clone(), Change::PutListener(listener(loopback(1)))], Vec::new());
    assert!(matches!(outcome, Err(Error::NoSocket { .. })), "{outcome:?}");
    assert_eq!(read_all(&mut connect(address)), b"here");
    bed.proxy.apply(vec![drop_it.clone(), drop_it], Vec::new()).unwrap();
    bed.settle();
}

#[test]
fn draining_lets_the_quick_finish_and_cuts_the_slow() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let (mut quick, mut slow) = (connect(address), connect(address));
    say(&mut quick, b"a");
    say(&mut slow, b"b");
    let proxy = &bed.proxy;
    let drained = thread::scope(|scope| {
        let draining = scope.spawn(|| proxy.drain(Duration::from_millis(700)));
        eventually("nobody is accepted any more", || TcpStream::connect(address).err());
        say(&mut quick, b"still served");
        drop(quick);
        draining.join().unwrap()
    });
    assert_eq!(drained.cut, 1);
    assert!(drained.finished >= 1, "the asking connections count too: {drained:?}");
    assert_eq!(slow.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(bed.settle().failed(Failure::Reset), 1);
}

#[test]
fn a_drain_with_nothing_open_is_over_at_once() {
    let bed = Bed::new(&[]);
    let began = Instant::now();
    assert_eq!(bed.proxy.drain(PATIENCE), Drained::default());
    assert!(began.elapsed() < PATIENCE / 4);
}

#[test]
fn another_proxy_takes_the_sockets_over_and_refuses_nobody() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let mut old = connect(address);
    say(&mut old, b"old");
    let next = Proxy::start(&Config { workers: 1, ..Config::default() }).unwrap();
    let sockets = bed.proxy.sockets().unwrap();
    assert_eq!(sockets.iter().map(|(_, sockets)| sockets.len()).sum::<usize>(), 2);
    let changes = vec![Change::PutService(bed.service.clone()), Change::PutListener(listener(address))];
    next.apply(changes, sockets).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| bed.proxy.drain(PATIENCE));
        for _ in 0..50 {
            say(&mut connect(address), b"new");
        }
        say(&mut old, b"old again");
        drop(old);
    });
    assert!(next.stats().listeners[0].counts.accepted > 0);
    assert!(socket::bind_tcp(address, 1, 1).is_err());
}
