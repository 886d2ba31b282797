//! A flow through another node: two proxies stand for two nodes.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use netd_proxy::table::{Change, MESH_TCP, MESH_UDP, Mesh, MeshNode, Token};
use netd_proxy::udp::Dropped;
use netd_proxy::{NodeStats, Proxy, Refusal};
use netd_sys::socket;

use crate::rig::{Echo, Rig, Setup, ask, ask_until_answered, eventually, in_namespace};

fn mesh(token: u8, at: SocketAddr) -> Mesh {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let node = MeshNode { name: "other".into(), mesh: at, addresses: vec![here] };
    let (address, limit) = (SocketAddr::new(here, 6383), 1000);
    Mesh {
        address,
        token: Token([token; 32]),
        nodes: vec![node],
        except: Vec::new(),
        limit,
        limit_per_node: limit,
    }
}

/// Opens the mesh of a proxy for `peer`; where.
fn join(proxy: &Proxy, peer: SocketAddr) -> SocketAddr {
    let tcp = socket::bind_tcp("127.0.0.1:0".parse().unwrap(), 2, 16).unwrap();
    let udp = socket::bind_udp("127.0.0.1:0".parse().unwrap(), 2).unwrap();
    let address = socket::local_address(&udp[0]).unwrap();
    let sockets = vec![(MESH_TCP.into(), tcp), (MESH_UDP.into(), udp)];
    proxy.apply(vec![Change::PutMesh(mesh(3, peer))], sockets).unwrap();
    address
}

fn node(rig: &Rig) -> NodeStats {
    rig.proxy.stats().mesh.unwrap().nodes.remove(0)
}

/// A node that clients come to, and one that has the first of these backends; the others are the first node's own.
fn nodes(backends: &[SocketAddr]) -> (Rig, Rig) {
    let back = Rig::new(Setup::default(), &backends[..1]);
    let at = join(&back.proxy, "127.0.0.1:1".parse().unwrap());
    let front = Rig::new(Setup::default(), &[]);
    join(&front.proxy, at);
    front.set_first_on_node(at, backends);
    (front, back)
}

fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn datagrams_of_every_size_go_through_another_node_and_back() {
    in_namespace(|| {
        let echo = Echo::new();
        let (front, back) = nodes(&[echo.address]);
        let clients: Vec<UdpSocket> = (0..5).map(|_| front.local_client()).collect();
        for length in [0, 1, 1200, 1472, 1473, 9000, 60_000] {
            for (seed, client) in clients.iter().enumerate() {
                let bytes: Vec<u8> = (0..length).map(|at| (at * 31 + seed) as u8).collect();
                assert!(ask(client, &bytes) == bytes, "{length}");
            }
        }
        assert_eq!((node(&front).to.opened, node(&back).from.opened), (5, 5));
        for rig in [&front, &back] {
            let services = rig.proxy.stats().services;
            let counts = &services[0].counts;
            assert_eq!((counts.accepted, counts.bytes_to_backend), (5, counts.bytes_to_client));
            assert_eq!(counts.bytes_to_backend, 5 * (1 + 1200 + 1472 + 1473 + 9000 + 60_000));
        }
    });
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    in_namespace(|| {
        let echo = Echo::new();
        let (front, _back) = nodes(&[echo.address]);
        let client = front.local_client();
        netd_sys::datagram::enlarge_buffers(&client).unwrap();
        for round in 0..20_u8 {
            for number in 0..50_u8 {
                client.send(&[[round, number]; 300].concat()).unwrap();
            }
            for number in 0..50_u8 {
                let mut back = [0; 1000];
                assert_eq!(client.recv(&mut back).unwrap(), 600);
                assert_eq!(back[..2], [round, number]);
            }
        }
    });
}

#[test]
fn what_is_too_long_with_a_header_is_dropped_and_counted() {
    in_namespace(|| {
        let echo = Echo::new();
        let (front, _back) = nodes(&[echo.address]);
        let client = front.local_client();
        client.send(&vec![1; 65_507]).unwrap();
        eventually("it is counted", || front.counts().datagrams.dropped(Dropped::TooLong) == 1);
        assert_eq!(ask(&client, b"next"), b"next");
    });
}

#[test]
fn a_backend_that_refuses_over_there_costs_a_datagram_and_not_the_client() {
    in_namespace(|| {
        let here = Echo::named("here:");
        let (front, back) = nodes(&[nobody(), here.address]);
        for _ in 0..6 {
            assert_eq!(ask_until_answered(&front.local_client(), b"x"), b"here:x");
        }
        assert!(node(&front).to.failed(Refusal::Refused) >= 1);
        assert!(node(&back).from.failed(Refusal::Refused) >= 1);
    });
}

#[test]
fn a_node_that_is_gone_and_one_without_the_backend_are_left() {
    in_namespace(|| {
        let here = Echo::named("here:");
        let (front, back) = nodes(&[nobody(), here.address]);
        back.set_backends(&[]);
        assert_eq!(ask_until_answered(&front.local_client(), b"x"), b"here:x");
        assert_eq!(ask_until_answered(&front.local_client(), b"x"), b"here:x");
        eventually("the node has said so", || node(&front).to.failed(Refusal::NoBackend) >= 1);

        let dead = nobody();
        front.proxy.apply(vec![Change::PutMesh(mesh(3, dead))], Vec::new()).unwrap();
        front.set_first_on_node(dead, &[nobody(), here.address]);
        for _ in 0..4 {
            assert_eq!(ask_until_answered(&front.local_client(), b"y"), b"here:y");
        }
    });
}

#[test]
fn another_clusters_node_gets_no_answer() {
    in_namespace(|| {
        let echo = Echo::new();
        let (front, back) = nodes(&[echo.address]);
        let at = socket::local_address(
            &back
                .proxy
                .sockets()
                .unwrap()
                .into_iter()
                .find_map(|(id, sockets)| (&*id == MESH_UDP).then_some(sockets))
                .unwrap()[0],
        )
        .unwrap();
        front.proxy.apply(vec![Change::PutMesh(mesh(4, at))], Vec::new()).unwrap();
        let client = front.local_client();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        client.send(b"x").unwrap();
        eventually("it is denied", || node(&back).from.failed(Refusal::Denied) == 1);
        let silence = client.recv(&mut [0; 9]).unwrap_err().kind();
        assert!(matches!(silence, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
        assert_eq!(node(&back).from.opened, 0);
    });
}
