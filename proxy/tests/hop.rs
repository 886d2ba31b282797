//! What a client notices of backends on other nodes, and what the nodes keep from each other. Two proxies stand for two
//! nodes; a third that is none of ours is played by a plain socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Bed, Noise, PATIENCE, Server, backend, connect, eventually, loopback, read_all, refusing};
use netd_proxy::table::{
    Backend, BackendState, Change, MESH_TCP, Mesh, MeshNode, Place, ProxyProtocol, Token,
};
use netd_proxy::{Failure, HopCounts, NodeStats, Proxy, Refusal};
use netd_sys::socket;

const TOKEN: Token = Token([3; 32]);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn node(mesh: SocketAddr) -> MeshNode {
    MeshNode { name: format!("node {}", mesh.port()).into(), mesh, addresses: vec![HERE] }
}

fn mesh(address: SocketAddr, nodes: &[SocketAddr]) -> Mesh {
    let nodes = nodes.iter().map(|mesh| node(*mesh)).collect();
    Mesh { address, token: TOKEN, nodes, except: Vec::new(), limit: 1000, limit_per_node: 1000 }
}

/// Opens the mesh of a proxy; its address. It takes connections from this host.
fn join(proxy: &Proxy) -> SocketAddr {
    let sockets = socket::bind_tcp(loopback(0), 2, 128).unwrap();
    let address = socket::local_address(&sockets[0]).unwrap();
    let anybody = mesh(address, &[loopback(1)]);
    proxy.apply(vec![Change::PutMesh(anybody)], vec![(MESH_TCP.into(), sockets)]).unwrap();
    address
}

fn put_mesh(proxy: &Proxy, mesh: Mesh) {
    proxy.apply(vec![Change::PutMesh(mesh)], Vec::new()).unwrap();
}

fn on_node(mesh: SocketAddr, address: SocketAddr) -> Backend {
    Backend { place: Place::Node { mesh }, ..backend(address) }
}

fn stats(bed: &Bed) -> NodeStats {
    bed.proxy.stats().mesh.unwrap().nodes.remove(0)
}

/// A node that the clients come to, and one that has the backends.
struct Nodes {
    front: Bed,
    back: Bed,
    mesh: SocketAddr,
}

impl Nodes {
    fn new(behind: &[SocketAddr]) -> Self {
        let back = Bed::new(behind);
        let mesh = join(&back.proxy);
        let mut front = Bed::new(&[]);
        join(&front.proxy);
        put_mesh(&front.proxy, self::mesh(loopback(2), &[mesh]));
        front.service.backends = behind.iter().map(|address| on_node(mesh, *address)).collect();
        front.put_service();
        Self { front, back, mesh }
    }

    fn to(&self) -> HopCounts {
        stats(&self.front).to
    }

    fn from(&self) -> HopCounts {
        stats(&self.back).from
    }
}

/// A node that hears a header and answers with one byte and what follows.
fn node_that_says(answer: &'static [u8]) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let (heard, hears) = mpsc::channel();
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut header = vec![0; 1024];
            let length = stream.read(&mut header).unwrap();
            header.truncate(length);
            if heard.send(header).is_err() || stream.write_all(answer).is_err() {
                return;
            }
            if answer.is_empty() {
                thread::spawn(move || stream.read(&mut [0]));
            }
        }
    });
    (address, hears)
}

/// The header that a node would send for a client of `bed`'s service.
fn overheard(bed: &mut Bed, address: SocketAddr) -> Vec<u8> {
    let (node, hears) = node_that_says(b"\x04");
    put_mesh(&bed.proxy, mesh(loopback(2), &[node]));
    bed.service.backends = vec![on_node(node, address)];
    bed.put_service();
    let listener = bed.listen();
    let _client = connect(listener);
    hears.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn bytes_go_both_ways_through_another_node_unharmed() {
    let echo = Server::echo();
    let mut nodes = Nodes::new(&[echo.address]);
    let address = nodes.front.listen();
    let clients: Vec<_> = (0..8)
        .map(|seed| {
            thread::spawn(move || {
                let sent = Noise::bytes(seed, 3 << 20);
                let mut client = connect(address);
                let mut writer = client.try_clone().unwrap();
                let writing = {
                    let sent = sent.clone();
                    thread::spawn(move || {
                        writer.write_all(&sent).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    })
                };
                assert!(read_all(&mut client) == sent);
                writing.join().unwrap();
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    for bed in [&nodes.front, &nodes.back] {
        let counts = bed.settle();
        assert_eq!(
            (counts.accepted, counts.bytes_to_backend, counts.bytes_to_client),
            (8, 24 << 20, 24 << 20)
        );
        assert_eq!(counts.failed.iter().sum::<u64>(), 0);
    }
    assert_eq!((nodes.to().opened, nodes.from().opened), (8, 8));
}

#[test]
fn a_server_that_speaks_first_is_heard_through_another_node() {
    let server = Server::named("220 ready");
    let mut nodes = Nodes::new(&[server.address]);
    let address = nodes.front.listen();
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(read_all(&mut connect(address)), b"220 ready");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_backend_that_refuses_over_there_costs_the_client_nothing() {
    let here = Server::named("here");
    let mut nodes = Nodes::new(&[refusing()]);
    nodes.front.service.backends.push(backend(here.address));
    nodes.front.put_service();
    let address = nodes.front.listen();
    for _ in 0..10 {
        assert_eq!(read_all(&mut connect(address)), b"here");
    }
    let counts = nodes.front.settle();
    assert_eq!(counts.failed.iter().sum::<u64>(), 0);
    // After the first refusal it is passed over, and asked again once a while.
    assert!((1..=5).contains(&counts.retries), "{counts:?}");
    assert_eq!(nodes.to().failed(Refusal::Refused), counts.retries);
    assert_eq!(nodes.back.settle().failed(Failure::Refused), counts.retries);
}

#[test]
fn one_that_leaves_over_there_serves_nodes_that_have_not_heard_of_it() {
    let (server, other) = (Server::named("leaving"), Server::named("staying"));
    let mut nodes = Nodes::new(&[server.address, other.address]);
    nodes.front.service.backends.truncate(1);
    nodes.front.put_service();
    let address = nodes.front.listen();
    nodes.back.service.backends[0].state = BackendState::Leaving;
    nodes.back.put_service();
    for _ in 0..4 {
        assert_eq!(read_all(&mut connect(address)), b"leaving");
    }
    nodes.front.service.backends.push(on_node(nodes.mesh, other.address));
    nodes.front.service.backends[0].state = BackendState::Leaving;
    nodes.front.put_service();
    for _ in 0..4 {
        assert_eq!(read_all(&mut connect(address)), b"staying");
    }
}

#[test]
fn the_backend_over_there_learns_the_client_and_what_it_asked_for() {
    let (told, tells) = mpsc::channel();
    let server = Server::new(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        told.send(all).map_err(io::Error::other)
    });
    let mut nodes = Nodes::new(&[server.address]);
    let address = nodes.front.listen_as(Some(ProxyProtocol::V1), 100);
    let mut client = connect(address);
    let from = client.local_addr().unwrap();
    client.write_all(b"GET /").unwrap();
    drop(client);
    let heard = String::from_utf8(tells.recv_timeout(PATIENCE).unwrap()).unwrap();
    assert_eq!(heard, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nGET /", from.port(), address.port()));
}

#[test]
fn nothing_but_a_nodes_own_backends_can_be_asked_for() {
    let server = Server::named("not for others");
    let mut nodes = Nodes::new(&[server.address]);
    let address = nodes.front.listen();
    for place in [Place::Elsewhere, Place::Node { mesh: nodes.mesh }] {
        nodes.back.service.backends = vec![Backend { place, ..backend(server.address) }];
        nodes.back.put_service();
        assert!(connect(address).read(&mut [0]).is_err());
    }
    nodes.back.proxy.apply(vec![Change::DropService { service: "s".into() }], Vec::new()).unwrap();
    assert!(connect(address).read(&mut [0]).is_err());
    assert_eq!(nodes.to().failed(Refusal::NoBackend), 3);
    assert_eq!(nodes.front.settle().failed(Failure::NoBackend), 3);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn another_clusters_node_is_denied_and_a_strangers_address_not_even_answered() {
    let server = Server::named("secret");
    let mut nodes = Nodes::new(&[server.address]);
    let address = nodes.front.listen();
    let other = Mesh { token: Token([4; 32]), ..mesh(loopback(2), &[nodes.mesh]) };
    put_mesh(&nodes.front.proxy, other);
    assert!(connect(address).read(&mut [0]).is_err());
    assert_eq!((nodes.to().failed(Refusal::Denied), nodes.from().failed(Refusal::Denied)), (1, 1));

    let elsewhere = MeshNode { addresses: vec!["192.0.2.1".parse().unwrap()], ..node(loopback(1)) };
    put_mesh(&nodes.back.proxy, Mesh { nodes: vec![elsewhere], ..mesh(nodes.mesh, &[]) });
    assert!(connect(address).read(&mut [0]).is_err());
    assert_eq!(nodes.back.proxy.stats().mesh.unwrap().strangers, 1);
    assert_eq!(nodes.to().failed(Refusal::Away), 1);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn what_a_node_answers_decides_whether_the_next_backend_is_tried() {
    let here = Server::named("here");
    let answers: [(&'static [u8], Refusal); 6] = [
        (b"\x01", Refusal::Refused),
        (b"\x05", Refusal::Limit),
        (b"\x06", Refusal::Version),
        (b"\x07", Refusal::Denied),
        (b"\xff", Refusal::Unreachable),
        (b"", Refusal::Away),
    ];
    for (answer, why) in answers {
        let (node, _hears) = node_that_says(answer);
        let mut bed = Bed::new(&[]);
        bed.service.connect_timeout = Duration::from_millis(300);
        join(&bed.proxy);
        put_mesh(&bed.proxy, mesh(loopback(2), &[node]));
        bed.service.backends = vec![on_node(node, loopback(9)), backend(here.address)];
        bed.put_service();
        let address = bed.listen();
        for _ in 0..2 {
            assert_eq!(read_all(&mut connect(address)), b"here", "{why:?}");
        }
        assert_eq!(stats(&bed).to.failed(why), 1, "{why:?}");
    }
}

#[test]
fn bytes_right_behind_the_answer_are_the_backends() {
    let (node, _hears) = node_that_says(b"\x00220 ready");
    let mut bed = Bed::new(&[]);
    join(&bed.proxy);
    put_mesh(&bed.proxy, mesh(loopback(2), &[node]));
    bed.service.backends = vec![on_node(node, loopback(9))];
    bed.put_service();
    let address = bed.listen();
    assert_eq!(read_all(&mut connect(address)), b"220 ready");
}

#[test]
fn a_node_that_is_gone_is_passed_over_at_once() {
    let here = Server::named("here");
    let mut bed = Bed::new(&[]);
    join(&bed.proxy);
    let dead = refusing();
    bed.service.backends = vec![on_node(dead, loopback(9)), backend(here.address)];
    bed.put_service();
    let address = bed.listen();
    // Not in the table: nobody is asked.
    assert_eq!(read_all(&mut connect(address)), b"here");
    put_mesh(&bed.proxy, mesh(loopback(2), &[dead]));
    for _ in 0..2 {
        assert_eq!(read_all(&mut connect(address)), b"here");
    }
    assert_eq!(stats(&bed).to.failed(Refusal::Away), 1);
}

#[test]
fn a_header_may_come_in_pieces_and_nothing_may_come_behind_it() {
    let server = Server::named("whole");
    let nodes = Nodes::new(&[server.address]);
    let mut other = Bed::new(&[]);
    join(&other.proxy);
    let header = overheard(&mut other, server.address);
    let mut caller = connect(nodes.mesh);
    for byte in &header {
        caller.write_all(&[*byte]).unwrap();
        thread::yield_now();
    }
    assert_eq!(read_all(&mut caller), b"\0whole");

    let mut caller = connect(nodes.mesh);
    caller.write_all(&[&header[..], b"GET"].concat()).unwrap();
    assert_eq!(read_all(&mut caller), b"\x08");

    let mut caller = connect(nodes.mesh);
    caller.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_all(&mut caller), b"\x08");

    let mut newer = header;
    newer[3] += 1;
    let mut caller = connect(nodes.mesh);
    caller.write_all(&newer).unwrap();
    assert_eq!(read_all(&mut caller), b"\x06");
    assert_eq!(server.accepted(), 1);
}

#[test]
fn whoever_does_not_say_what_it_wants_is_cut_off() {
    let nodes = Nodes::new(&[]);
    let began = Instant::now();
    let mut silent = connect(nodes.mesh);
    silent.write_all(b"nd").unwrap();
    assert!(silent.read(&mut [0]).is_err());
    assert!((4..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(nodes.from().failed(Refusal::Malformed), 1);
}

#[test]
fn a_node_has_its_share_of_connections_and_no_more() {
    let holding = Server::new(|mut stream| stream.read(&mut [0]).map(|_| ()));
    let mut nodes = Nodes::new(&[holding.address]);
    put_mesh(&nodes.back.proxy, Mesh { limit_per_node: 2, ..mesh(nodes.mesh, &[loopback(1)]) });
    let address = nodes.front.listen();
    let held: Vec<TcpStream> = (0..2).map(|_| connect(address)).collect();
    eventually("both are through", || (nodes.to().opened == 2).then_some(()));
    assert!(connect(address).read(&mut [0]).is_err());
    assert_eq!(nodes.to().failed(Refusal::Limit), 1);
    drop(held);
    nodes.back.settle();
    let _third = connect(address);
    eventually("there is room again", || (nodes.to().opened == 3).then_some(()));
}

#[test]
fn open_connections_outlive_the_mesh_and_new_ones_need_it() {
    let echo = Server::echo();
    let mut nodes = Nodes::new(&[echo.address]);
    let address = nodes.front.listen();
    let mut client = connect(address);
    let mut say = |word: &[u8; 5]| {
        client.write_all(word).unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *word);
    };
    say(b"first");
    for bed in [&nodes.front, &nodes.back] {
        bed.proxy.apply(vec![Change::DropMesh], Vec::new()).unwrap();
    }
    say(b"later");
    assert!(connect(address).read(&mut [0]).is_err());
    assert!(TcpStream::connect(nodes.mesh).is_err());
}
