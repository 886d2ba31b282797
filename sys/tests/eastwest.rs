//! Connections to a service's address that go straight to a backend, as the programs on both sides see it. The address
//! itself is served as well: what is left alone lands there, at the `relay`.

mod lab;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use lab::{machine, run};
use netd_sys::bpf::Transport;
use netd_sys::bpf::eastwest::{Backend, EastWest, Entry, Gone, Service, Vip, cgroup_root};
use netd_sys::netns::Netns;

const SOON: Duration = Duration::from_secs(5);
const VIPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 200)), IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x200))];
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];
const NETWORK: u32 = 4;
const AS_ASKED: u16 = 9000;

/// A namespace on the bridge, with its number as the last part of its addresses.
struct Host {
    netns: Netns,
    number: u16,
}

impl Host {
    fn new(number: u16) -> Self {
        run(&format!(
            "ip netns add n{number} && ip link add v{number} master br0 type veth peer name eth0 netns n{number}
             ip link set v{number} up && ip -n n{number} link set lo up && ip -n n{number} link set eth0 up
             ip -n n{number} addr add 10.9.0.{number}/24 dev eth0
             ip -n n{number} addr add fd09::{number:x}/64 dev eth0 nodad"
        ));
        let netns = Netns::open(Path::new(&format!("/run/netns/n{number}"))).expect("a namespace");
        Self { netns, number }
    }

    fn address(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => Ipv4Addr::new(10, 9, 0, self.number as u8).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, self.number).into(),
        }
    }

    /// Tells whoever asks, by either transport, its name.
    fn serve(&self, port: u16) {
        let name = format!("n{}", self.number);
        let (tcp, udp) = self
            .netns
            .run(|| {
                let at = (Ipv6Addr::UNSPECIFIED, port);
                (TcpListener::bind(at).expect("a port"), UdpSocket::bind(at).expect("a port"))
            })
            .expect("entered");
        serve(name, tcp, udp);
    }

    fn connect(&self, to: SocketAddr) -> TcpStream {
        self.netns.run(|| TcpStream::connect_timeout(&to, SOON)).expect("entered").expect("connected")
    }

    fn udp(&self, address: IpAddr) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind((address, 0))).expect("entered").expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        socket
    }

    /// Who answers there.
    fn asks(&self, to: SocketAddr) -> String {
        let mut name = String::new();
        self.connect(to).read_to_string(&mut name).expect("told");
        name
    }

    fn cookie(&self) -> u64 {
        self.netns.cookie().expect("a cookie")
    }
}

fn serve(name: String, tcp: TcpListener, udp: UdpSocket) {
    let by_datagram = name.clone();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            // Whoever breaks off is missing in the test.
            drop(std::io::Write::write_all(&mut &stream, name.as_bytes()));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            drop(udp.send_to(by_datagram.as_bytes(), from));
        }
    });
}

fn said(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), SocketAddr::new(from.ip(), from.port()))
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn mapped(address: SocketAddr) -> Option<SocketAddr> {
    let IpAddr::V4(v4) = address.ip() else { return None };
    Some(SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()))
}

struct Scene {
    client: Host,
    stranger: Host,
    backends: Vec<Host>,
    east_west: EastWest,
}

impl Scene {
    /// Two backends behind the port 80 of both addresses, which is their 8080, and behind all other ports.
    fn new() -> Self {
        run("ip link add br0 type bridge && ip link set br0 up
             ip addr add 10.9.0.200/24 dev br0 && ip addr add fd09::200/64 dev br0 nodad");
        for port in [80, AS_ASKED] {
            let at = (Ipv6Addr::UNSPECIFIED, port);
            serve(
                "relay".into(),
                TcpListener::bind(at).expect("a port"),
                UdpSocket::bind(at).expect("a port"),
            );
        }
        let (client, stranger) = (Host::new(2), Host::new(3));
        let backends = vec![Host::new(11), Host::new(12)];
        for backend in &backends {
            backend.serve(8080);
            backend.serve(AS_ASKED);
        }
        let east_west = EastWest::attach(cgroup_root().expect("cgroups").as_fd()).expect("attached");
        for network in [0, NETWORK] {
            east_west.put(Entry::Member { namespace: client.cookie(), network }).expect("noted");
        }
        let scene = Self { client, stranger, backends, east_west };
        scene.lead(&[0, 1], None);
        scene
    }

    /// Has the services lead to these of the backends.
    fn lead(&self, to: &[usize], affinity: Option<Duration>) {
        for (slot, (vip, port)) in (1..).zip(services()) {
            let at = |index: usize| Backend { address: self.backends[index].address(vip.address), port };
            let gone = (0..self.backends.len()).filter(|index| !to.contains(index));
            gone.for_each(|index| {
                self.east_west.remove(Entry::Live { slot, backend: at(index) }).expect("taken")
            });
            for (number, index) in (0..).zip(to) {
                let backend = at(*index);
                self.east_west.put(Entry::Live { slot, backend }).expect("noted");
                self.east_west.put(Entry::Seat { slot, number, backend }).expect("noted");
            }
            let service = Service { slot, network: NETWORK, count: to.len() as u32, affinity };
            self.east_west.put(Entry::Service(vip, service)).expect("noted");
        }
    }

    fn shares(&self, to: SocketAddr, rounds: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        (0..rounds).for_each(|_| *shares.entry(self.client.asks(to)).or_default() += 1);
        shares
    }
}

fn services() -> impl Iterator<Item = (Vip, u16)> {
    let ports = [(80, 8080), (0, 0)].into_iter();
    ports.flat_map(|(port, target)| {
        VIPS.into_iter().flat_map(move |address| {
            TRANSPORTS.map(move |transport| (Vip { transport, address, port }, target))
        })
    })
}

fn places() -> impl Iterator<Item = SocketAddr> {
    VIPS.into_iter().flat_map(|vip| [80, AS_ASKED].map(|port| SocketAddr::new(vip, port)))
}

#[test]
fn a_connection_goes_straight_and_its_program_sees_the_service() {
    machine(|| {
        let scene = Scene::new();
        for place in places() {
            for to in [Some(place), mapped(place)].into_iter().flatten() {
                let mut stream = scene.client.connect(to);
                assert_eq!(stream.peer_addr().expect("a peer"), to);
                let mut name = String::new();
                stream.read_to_string(&mut name).expect("told");
                assert!(name.starts_with("n1"), "{to}: {name}");
            }
            let shares = scene.shares(place, 100);
            assert!(shares.len() == 2 && shares.values().all(|share| *share > 15), "{place}: {shares:?}");
            scene.lead(&[1], None);
            assert_eq!(scene.shares(place, 20), [("n12".to_owned(), 20)].into());
            scene.lead(&[], None);
            assert_eq!(scene.shares(place, 5), [("relay".to_owned(), 5)].into(), "nobody is left");
            scene.lead(&[0, 1], None);
        }
        let backend = SocketAddr::new(scene.backends[0].address(VIPS[0]), 8080);
        assert_eq!(
            scene.client.connect(backend).peer_addr().expect("a peer"),
            backend,
            "asked for by itself"
        );
    });
}

#[test]
fn datagrams_are_answered_by_the_service() {
    machine(|| {
        let scene = Scene::new();
        for place in places() {
            for to in [Some(place), mapped(place)].into_iter().flatten() {
                let socket = scene.client.udp(unspecified(to.ip()));
                let ask = || {
                    socket.send_to(b"who", to).expect("sent");
                    said(&socket)
                };
                let (first, from) = ask();
                assert!(first.starts_with("n1") && from == to, "{first} at {from} for {to}");
                (0..20).for_each(|_| assert_eq!(ask(), (first.clone(), to), "it stays where it is"));
                let other = usize::from(first == "n11");
                scene.lead(&[other], None);
                assert_eq!(ask(), (format!("n1{}", other + 1), to), "it follows at once");
                scene.lead(&[0, 1], None);

                let connected = scene.client.udp(unspecified(to.ip()));
                connected.connect(to).expect("connected");
                assert_eq!(connected.peer_addr().expect("a peer"), to);
                connected.send(b"who").expect("sent");
                let (name, from) = said(&connected);
                assert!(name.starts_with("n1") && from == to, "{name} at {from}");
            }
        }
    });
}

#[test]
fn one_socket_may_talk_to_many() {
    machine(|| {
        let scene = Scene::new();
        let socket = scene.client.udp(VIPS.map(unspecified)[0]);
        let vip = |port| SocketAddr::new(VIPS[0], port);
        for _ in 0..3 {
            for to in [vip(80), vip(AS_ASKED)] {
                socket.send_to(b"who", to).expect("sent");
                assert_eq!(said(&socket).1, to);
            }
            for backend in &scene.backends {
                let to = SocketAddr::new(backend.address(VIPS[0]), 8080);
                socket.send_to(b"who", to).expect("sent");
                assert_eq!(said(&socket), (format!("n{}", backend.number), to), "by its own name");
            }
        }
    });
}

#[test]
fn a_client_keeps_its_backend_as_long_as_it_is_there() {
    machine(|| {
        let scene = Scene::new();
        scene.lead(&[0, 1], Some(Duration::from_secs(600)));
        for place in places() {
            let first = scene.client.asks(place);
            assert_eq!(scene.shares(place, 20), [(first.clone(), 20)].into());
            for port in [80, AS_ASKED] {
                let to = SocketAddr::new(place.ip(), port);
                assert_eq!(scene.client.asks(to), first, "at any port of the service");
                let socket = scene.client.udp(unspecified(to.ip()));
                socket.connect(to).expect("connected");
                socket.send(b"who").expect("sent");
                assert_eq!(said(&socket).0, first, "by any transport");
            }
            let other = usize::from(first == "n11");
            scene.lead(&[other], Some(Duration::from_secs(600)));
            assert_eq!(scene.shares(place, 5), [(format!("n1{}", other + 1), 5)].into());
            scene.lead(&[0, 1], Some(Duration::from_secs(600)));
        }
        scene.lead(&[0, 1], Some(Duration::from_nanos(1)));
        assert_eq!(scene.shares(SocketAddr::new(VIPS[0], 80), 50).len(), 2, "after its time it is anybody's");
    });
}

#[test]
fn other_namespaces_are_left_alone() {
    machine(|| {
        let scene = Scene::new();
        // One is nobody's, one is on another network, and this machine's own is neither.
        let neighbour = Host::new(4);
        for network in [0, NETWORK + 1] {
            scene.east_west.put(Entry::Member { namespace: neighbour.cookie(), network }).expect("noted");
        }
        for place in places() {
            assert_eq!((scene.stranger.asks(place), neighbour.asks(place)), ("relay".into(), "relay".into()));
            let mut name = String::new();
            TcpStream::connect(place).expect("connected").read_to_string(&mut name).expect("told");
            assert_eq!(name, "relay");
            let socket = scene.stranger.udp(unspecified(place.ip()));
            socket.send_to(b"who", place).expect("sent");
            assert_eq!(said(&socket), ("relay".into(), place));
        }
        scene
            .east_west
            .remove(Entry::Member { namespace: scene.client.cookie(), network: NETWORK })
            .expect("taken");
        assert_eq!(scene.client.asks(SocketAddr::new(VIPS[0], 80)), "relay", "it has left the network");
    });
}

#[test]
fn it_is_in_force_while_somebody_holds_it_and_can_be_taken_over() {
    machine(|| {
        let Scene { client, backends: _backends, stranger: _stranger, east_west } = Scene::new();
        let to = SocketAddr::new(VIPS[0], 80);
        let (stream, socket) = (client.connect(to), client.udp(unspecified(to.ip())));
        socket.send_to(b"who", to).expect("sent");
        let (first, _) = said(&socket);
        let mut known = east_west.entries().expect("read");
        let held: Vec<OwnedFd> =
            east_west.descriptors().map(|fd| fd.try_clone_to_owned().expect("a duplicate")).collect();
        drop(east_west);
        assert!(client.asks(to).starts_with("n1"), "somebody holds it");
        let next = EastWest::adopt(held).expect("taken over");
        let mut still = next.entries().expect("read");
        let text = |entries: &mut Vec<Entry>| {
            let mut text: Vec<String> = entries.drain(..).map(|entry| format!("{entry:?}")).collect();
            text.sort();
            text
        };
        assert_eq!(text(&mut known), text(&mut still));
        socket.send_to(b"who", to).expect("sent");
        assert_eq!(said(&socket), (first, to), "sockets remember");
        assert_eq!(stream.peer_addr().expect("a peer"), to);
        drop(next);
        assert_eq!(client.asks(to), "relay", "nobody holds it any more");
    });
}

/// The first error of a connected socket, after which it may be asked again.
fn is_aborted(socket: &UdpSocket) -> bool {
    let error = socket.take_error().expect("an answer");
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionAborted)
}

#[test]
fn what_was_led_to_a_backend_that_is_gone_is_ended_and_nothing_else() {
    machine(|| {
        let scene = Scene::new();
        let connections = scene.east_west.connections().expect("duplicates");
        for place in places() {
            let (backend, other) =
                (scene.backends[0].address(place.ip()), scene.backends[1].address(place.ip()));
            assert!(!connections.has(scene.stranger.cookie(), backend).expect("read"), "never been there");
            for to in [Some(place), mapped(place)].into_iter().flatten() {
                let connected = |to: SocketAddr| {
                    let socket = scene.client.udp(unspecified(to.ip()));
                    socket.connect(to).expect("connected");
                    socket
                };
                scene.lead(&[1], None);
                let (elsewhere, stream_elsewhere) = (connected(to), scene.client.connect(to));
                scene.lead(&[0], None);
                let (led, stream) = (connected(to), scene.client.connect(to));
                let loose = scene.client.udp(unspecified(to.ip()));
                loose.send_to(b"who", to).expect("sent");
                assert_eq!(said(&loose).0, "n11");
                let itself = connected(SocketAddr::new(backend, 8080));
                let stream_itself = scene.client.connect(SocketAddr::new(backend, 8080));

                assert!(connections.has(scene.client.cookie(), backend).expect("read"), "it has been there");
                let gone = TRANSPORTS.map(|transport| Gone { transport, vip: place.ip(), backend });
                let end = |gone: &[Gone]| connections.end(&scene.client.netns, gone).expect("ended");
                assert_eq!((end(&gone[1..]), is_aborted(&led)), (1, true), "{to}");
                assert_eq!((end(&gone), end(&gone)), (1, 0), "{to}");
                let error = stream.take_error().expect("an answer").expect("an error");
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{to}");

                led.connect(to).expect("it can be used again");
                loose.send_to(b"who", to).expect("sent");
                assert_eq!(said(&loose), ("n11".into(), to), "no partner, no end");
                for socket in [&elsewhere, &itself, &led] {
                    socket.send(b"who").expect("sent");
                    said(socket);
                }
                for stream in [&stream_elsewhere, &stream_itself] {
                    assert!(stream.take_error().expect("an answer").is_none(), "{to} of {other}");
                }
                assert_eq!(end(&[Gone { vip: other, ..gone[1] }]), 0, "led by another service");
                assert_eq!(end(&gone[1..]), 1, "the one that was used again");
            }
        }
    });
}
