//! What a user of a published port notices: clashes, and that every socket gets its share.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use super::*;

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn errno<T>(result: Result<T, KernelError>) -> Option<i32> {
    result.err().and_then(|error| error.errno())
}

#[test]
fn a_foreign_listener_is_a_clash_even_with_reuse_port() {
    let foreign = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    foreign.set_reuse_port(true).unwrap();
    foreign.set_reuse_address(true).unwrap();
    foreign.bind(&loopback(0).into()).unwrap();
    foreign.listen(8).unwrap();
    let taken = local_address(&foreign).unwrap();
    assert_eq!(errno(bind_tcp(taken, 2, 8)), Some(libc::EADDRINUSE));
    let everywhere = (Ipv4Addr::UNSPECIFIED, taken.port()).into();
    assert_eq!(errno(bind_tcp(everywhere, 2, 8)), Some(libc::EADDRINUSE));
    drop(foreign);
    assert_eq!(bind_tcp(taken, 2, 8).unwrap().len(), 2);
}

#[test]
fn a_foreign_datagram_socket_is_a_clash_even_with_reuse_port() {
    let foreign = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    foreign.set_reuse_port(true).unwrap();
    foreign.set_reuse_address(true).unwrap();
    foreign.bind(&loopback(0).into()).unwrap();
    let taken = local_address(&foreign).unwrap();
    assert_eq!(errno(bind_udp(taken, 3)), Some(libc::EADDRINUSE));
    drop(foreign);
    assert_eq!(bind_udp(taken, 3).unwrap().len(), 3);
}

#[test]
fn every_listening_socket_receives_connections() {
    let sockets = bind_tcp(loopback(0), 3, 128).unwrap();
    let address = local_address(&sockets[0]).unwrap();
    let clients: Vec<_> = (0..96).map(|_| TcpStream::connect(address).unwrap()).collect();
    let taken: Vec<usize> =
        sockets.iter().map(|socket| std::iter::from_fn(|| accept(socket).ok()).count()).collect();
    assert_eq!(taken.iter().sum::<usize>(), clients.len());
    assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
    assert_eq!(AcceptFailure::from(&accept(&sockets[0]).unwrap_err()), AcceptFailure::Empty);
}

#[test]
fn every_datagram_socket_receives_senders() {
    let sockets: Vec<UdpSocket> =
        bind_udp(loopback(0), 2).unwrap().into_iter().map(UdpSocket::from).collect();
    let address = sockets[0].local_addr().unwrap();
    for _ in 0..64 {
        UdpSocket::bind(loopback(0)).unwrap().send_to(b"x", address).unwrap();
    }
    let counts: Vec<usize> = sockets
        .iter()
        .map(|socket| std::iter::from_fn(|| socket.recv_from(&mut [0; 8]).ok()).count())
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 64);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn both_families_can_have_the_same_port() {
    let first = bind_tcp((Ipv4Addr::UNSPECIFIED, 0).into(), 2, 8).unwrap();
    let port = local_address(&first[0]).unwrap().port();
    bind_tcp((Ipv6Addr::UNSPECIFIED, port).into(), 2, 8).unwrap();
}

#[test]
fn an_accepted_connection_has_the_listeners_options() {
    let sockets = bind_tcp(loopback(0), 1, 8).unwrap();
    let _client = TcpStream::connect(local_address(&sockets[0]).unwrap()).unwrap();
    let (accepted, _) = accept(&sockets[0]).unwrap();
    assert!(accepted.nodelay().unwrap());
    assert!(SockRef::from(&accepted).keepalive().unwrap());
    assert_eq!((&accepted).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_reset_is_seen_as_one() {
    let sockets = bind_tcp(loopback(0), 1, 8).unwrap();
    let mut client = TcpStream::connect(local_address(&sockets[0]).unwrap()).unwrap();
    client.write_all(b"unread").unwrap();
    reset(accept(&sockets[0]).unwrap().0);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
