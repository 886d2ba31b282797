//! Many listeners behind one set of sockets: who answers is told by what the client asked for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use common::{Bed, PATIENCE, Server};
use netd_proxy::table::{Backend, Change, Funnel, Listener, Place, Protocol, Service};
use netd_sys::socket;

/// A funnel on every address of the host, one port.
struct Mouth {
    port: u16,
    protocol: Protocol,
    sockets: Vec<OwnedFd>,
}

impl Mouth {
    fn open(protocol: Protocol) -> Self {
        Self::on(protocol, Ipv4Addr::UNSPECIFIED)
    }

    fn on(protocol: Protocol, address: Ipv4Addr) -> Self {
        let address = SocketAddr::from((address, 0));
        let sockets = match protocol {
            Protocol::Tcp => socket::bind_tcp_for_others(address, 2, 64),
            Protocol::Udp => socket::bind_udp_for_others(address, 2),
        };
        let sockets = sockets.unwrap();
        Self { port: socket::local_address(&sockets[0]).unwrap().port(), protocol, sockets }
    }

    fn put(&mut self, bed: &Bed) {
        let funnel = Funnel { id: "funnel".into(), protocol: self.protocol };
        let sockets = std::mem::take(&mut self.sockets);
        bed.proxy.apply(vec![Change::PutFunnel(funnel)], vec![("funnel".into(), sockets)]).unwrap();
    }

    fn at(&self, last: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), self.port))
    }

    fn listener(&self, address: SocketAddr, service: &str) -> Listener {
        Listener {
            protocol: self.protocol,
            service: service.into(),
            funnel: Some("funnel".into()),
            ..common::listener(address)
        }
    }
}

fn says(word: &'static str) -> Server {
    Server::new(move |mut stream| stream.write_all(word.as_bytes()))
}

fn asked(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut word = String::new();
    stream.read_to_string(&mut word)?;
    Ok(word)
}

/// A second service beside the bed's own.
fn put_second(bed: &Bed, backend: SocketAddr) {
    let second = Service {
        id: "second".into(),
        label: "second".into(),
        backends: vec![common::backend(backend)],
        ..bed.service.clone()
    };
    bed.proxy.apply(vec![Change::PutService(second)], Vec::new()).unwrap();
}

#[test]
fn a_connection_comes_to_the_listener_it_asked_for() {
    let (one, two) = (says("one"), says("two"));
    let bed = Bed::new(&[one.address]);
    put_second(&bed, two.address);
    let mut mouth = Mouth::open(Protocol::Tcp);
    let listener = mouth.listener(mouth.at(1), "s");
    let early = bed.proxy.apply(vec![Change::PutListener(listener.clone())], Vec::new());
    assert!(early.unwrap_err().to_string().contains("funnel"), "before its funnel");
    mouth.put(&bed);
    mouth.put(&bed);
    let second = mouth.listener(mouth.at(2), "second");
    let changes = vec![Change::PutListener(listener), Change::PutListener(second.clone())];
    bed.proxy.apply(changes, Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(1)).unwrap(), "one");
    assert_eq!(asked(mouth.at(2)).unwrap(), "two");
    assert!(asked(mouth.at(3)).is_err(), "nobody is there");

    // Led elsewhere, dropped, and taken over by a listener on every address.
    bed.proxy.apply(vec![Change::PutListener(mouth.listener(mouth.at(1), "second"))], Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(1)).unwrap(), "two");
    bed.proxy.apply(vec![Change::DropListener { listener: second.id }], Vec::new()).unwrap();
    assert!(asked(mouth.at(2)).is_err(), "it was dropped");
    let every = mouth.listener((Ipv4Addr::UNSPECIFIED, mouth.port).into(), "s");
    bed.proxy.apply(vec![Change::PutListener(every)], Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(2)).unwrap(), "one");
    assert_eq!(asked(mouth.at(1)).unwrap(), "two");
    let inventory = bed.proxy.sockets().unwrap();
    assert_eq!(
        inventory.iter().map(|(id, sockets)| (&**id, sockets.len())).collect::<Vec<_>>(),
        [("funnel", 2)]
    );
}

#[test]
fn a_full_listener_refuses_and_does_not_keep_its_neighbours_waiting() {
    let quiet = Server::new(|mut stream| stream.read(&mut [0]).map(|_| ()));
    let word = says("two");
    let bed = Bed::new(&[quiet.address]);
    put_second(&bed, word.address);
    let mut mouth = Mouth::open(Protocol::Tcp);
    mouth.put(&bed);
    let full = Listener { limit: 1, ..mouth.listener(mouth.at(1), "s") };
    let other = mouth.listener(mouth.at(2), "second");
    bed.proxy.apply(vec![Change::PutListener(full), Change::PutListener(other)], Vec::new()).unwrap();
    let inside = TcpStream::connect(mouth.at(1)).unwrap();
    common::eventually("it is inside", || (bed.counts().open == 1).then_some(()));
    assert!(asked(mouth.at(1)).is_err(), "there is no room");
    assert_eq!(asked(mouth.at(2)).unwrap(), "two");
    drop(inside);
    bed.settle();
}

#[test]
fn a_listener_moves_between_sockets_of_its_own_and_a_funnel() {
    let one = says("one");
    let mut bed = Bed::new(&[one.address]);
    let address = bed.listen();
    let mut mouth = Mouth::open(Protocol::Tcp);
    mouth.put(&bed);
    let listener = Listener { address: mouth.at(1), ..mouth.listener(address, "s") };
    bed.proxy.apply(vec![Change::PutListener(listener.clone())], Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(1)).unwrap(), "one");
    assert!(TcpStream::connect(address).is_err(), "its own sockets are closed");
    let back = Listener { funnel: None, address, ..listener };
    assert!(
        bed.proxy.apply(vec![Change::PutListener(back.clone())], Vec::new()).is_err(),
        "without a socket"
    );
    let sockets = socket::bind_tcp(address, 2, 64).unwrap();
    let id = Arc::clone(&back.id);
    bed.proxy.apply(vec![Change::PutListener(back)], vec![(id, sockets)]).unwrap();
    assert_eq!(asked(address).unwrap(), "one");
    assert!(asked(mouth.at(1)).is_err(), "it is behind the funnel no more");
}

#[test]
fn datagrams_come_to_the_listener_they_were_sent_to() {
    let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
    backend.set_read_timeout(Some(PATIENCE)).unwrap();
    let bed = Bed::new(&[backend.local_addr().unwrap()]);
    let mut mouth = Mouth::open(Protocol::Udp);
    mouth.put(&bed);
    bed.proxy.apply(vec![Change::PutListener(mouth.listener(mouth.at(1), "s"))], Vec::new()).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.send_to(b"to nobody", mouth.at(2)).unwrap();
    client.send_to(b"question", mouth.at(1)).unwrap();
    let mut buffer = [0; 64];
    let (length, flow) = backend.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    // The answer's mark needs a privilege; its port here is the socket's own, as the listener's is.
    backend.send_to(b"answer", flow).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], mouth.at(1)));
    let listener = mouth.listener(mouth.at(1), "s").id;
    bed.proxy.apply(vec![Change::DropListener { listener }], Vec::new()).unwrap();
    assert_eq!(bed.settle().open, 0);
    assert_eq!(bed.proxy.drain(Duration::ZERO).cut, 0);
}

#[test]
fn a_listener_on_every_port_leads_to_the_port_that_was_asked_for() {
    let (one, own) = (says("one"), says("own"));
    let port = one.address.port();
    let bed = Bed::new(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 1))]);
    // Held by the funnel itself, so that the backend's port can be asked for at another address.
    let sockets = socket::bind_tcp_for_others((Ipv4Addr::new(127, 0, 0, 9), port).into(), 2, 64).unwrap();
    let mut mouth = Mouth { port, protocol: Protocol::Tcp, sockets };
    mouth.put(&bed);
    let every =
        Listener { address: (Ipv4Addr::new(127, 0, 0, 9), 0).into(), ..mouth.listener(mouth.at(9), "s") };
    bed.proxy.apply(vec![Change::PutListener(every.clone())], Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(9)).unwrap(), "one");

    // A listener's own target goes before, and a backend that is elsewhere keeps its port.
    let target = Listener { target_port: Some(own.address.port()), ..every.clone() };
    bed.proxy.apply(vec![Change::PutListener(target)], Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(9)).unwrap(), "own");
    let elsewhere = Backend { place: Place::Elsewhere, ..common::backend(own.address) };
    let service = Service { backends: vec![elsewhere], ..bed.service.clone() };
    bed.proxy.apply(vec![Change::PutService(service), Change::PutListener(every)], Vec::new()).unwrap();
    assert_eq!(asked(mouth.at(9)).unwrap(), "own");
}

#[test]
fn datagrams_for_every_port_go_to_the_port_they_were_sent_to() {
    let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
    backend.set_read_timeout(Some(PATIENCE)).unwrap();
    let bed = Bed::new(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 1))]);
    let sockets = socket::bind_udp_for_others(
        (Ipv4Addr::new(127, 0, 0, 9), backend.local_addr().unwrap().port()).into(),
        2,
    );
    let mut mouth = Mouth {
        port: backend.local_addr().unwrap().port(),
        protocol: Protocol::Udp,
        sockets: sockets.unwrap(),
    };
    mouth.put(&bed);
    let every =
        Listener { address: (Ipv4Addr::new(127, 0, 0, 9), 0).into(), ..mouth.listener(mouth.at(9), "s") };
    bed.proxy.apply(vec![Change::PutListener(every)], Vec::new()).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", mouth.at(9)).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = backend.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
}

#[test]
fn datagrams_of_one_client_follow_the_backends_at_once() {
    let mut mouth = Mouth::on(Protocol::Udp, Ipv4Addr::new(127, 0, 0, 7));
    let at = |last| SocketAddr::from((Ipv4Addr::new(127, 9, 9, last), mouth.port));
    let (here, there) = (UdpSocket::bind(at(9)).unwrap(), UdpSocket::bind(at(10)).unwrap());
    let mut bed = Bed::new(&[SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), 1))]);
    mouth.put(&bed);
    let every = mouth.listener((Ipv4Addr::new(127, 0, 0, 7), 0).into(), "s");
    bed.proxy.apply(vec![Change::PutListener(every)], Vec::new()).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for socket in [&client, &here, &there] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let exchange = |server: &UdpSocket| {
        let mut buffer = [0; 8];
        client.send_to(b"ask", mouth.at(7)).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 6);
    };
    exchange(&here);
    // Another backend takes its place: the very next datagram of the same client is led there.
    bed.set_backends(&[SocketAddr::from((Ipv4Addr::new(127, 9, 9, 10), 1))]);
    exchange(&there);
    // Nobody, for a while.
    bed.set_backends(&[]);
    client.send_to(b"lost", mouth.at(7)).unwrap();
    common::eventually("it is dropped", || {
        let counts = bed.counts();
        (counts.failed(netd_proxy::Failure::NoBackend) == 1).then_some(())
    });
    bed.set_backends(&[SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), 1))]);
    exchange(&here);
}
