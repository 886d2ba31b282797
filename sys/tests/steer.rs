//! Ports that somebody else holds, led to sockets elsewhere: by sk_lookup and by tproxy, as a client sees it.

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use lab::{machine, run};
use netd_sys::bpf::{SkLookup, Steered};
use netd_sys::datagram::{MARK, RecvBatch, SendBatch};
use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Family, Field, Hook, IpVersion, Nft, Part, Rule, Set, Table,
    Transport, Type, Value,
};
use netd_sys::socket;

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// What serves, for one family and transport.
struct Group {
    transport: Transport,
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
}

fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for ip in LOOPBACK {
        for transport in TRANSPORTS {
            let address = SocketAddr::new(ip, 0);
            let sockets = match transport {
                Transport::Tcp => socket::bind_tcp_for_others(address, 2, 64),
                Transport::Udp => socket::bind_udp_for_others(address, 2),
            };
            let sockets = sockets.expect("sockets");
            let address = socket::local_address(&sockets[0]).expect("an address");
            groups.push(Group { transport, address, sockets });
        }
    }
    groups
}

fn by_lookup(groups: &[Group], ports: &[Steered]) -> SkLookup {
    let sockets: Vec<_> = groups.iter().map(|group| (group.transport, group.sockets[0].as_fd())).collect();
    let lookup = SkLookup::attach(&sockets).expect("attached");
    ports.iter().for_each(|port| lookup.put(*port).expect("steered"));
    lookup
}

/// Answers get the port they were sent to; with tproxy also the way in.
fn table(groups: &[Group], ports: &[Steered], tproxy: bool) -> Table {
    let mut sets = Vec::new();
    let mut rules = Vec::new();
    for (group, number) in groups.iter().zip(0..).filter(|_| tproxy) {
        let name = format!("ports{number}");
        let of_group = ports.iter().filter(|port| {
            port.transport == group.transport && port.address.is_ipv4() == group.address.is_ipv4()
        });
        let elements = of_group.map(|port| Element::key(vec![Value::Port(port.port)])).collect();
        let version = if group.address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
        sets.push(Set { name: name.clone(), key: vec![Type::Port], intervals: false, map: false, elements });
        rules.push(Rule::new(vec![
            Part::Version(version),
            Part::In(vec![Field::Port(End::Destination, group.transport)], name),
            Part::ToHost,
            Part::Tproxy(group.address),
        ]));
    }
    let chain = |name: &str, hook, priority, rules| Chain {
        name: name.into(),
        base: Some(Base { kind: ChainKind::Filter, hook, priority, accept: true }),
        rules,
    };
    let answers =
        Rule::new(vec![Part::Marked(MARK), Part::SetSourcePortFromMark(Transport::Udp), Part::SetMark(0)]);
    let chains = vec![
        chain("steer", Hook::Prerouting, -150, rules),
        chain("answers", Hook::Output, -300, vec![answers]),
    ];
    Table { family: Family::Inet, name: "steered".into(), sets, chains }
}

/// Serves one connection or datagram of the group: what came, and to where.
fn serve_tcp(group: &Group) -> SocketAddr {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        for listening in &group.sockets {
            let Ok((mut stream, _)) = socket::accept(listening) else { continue };
            stream.set_nonblocking(false).expect("blocking");
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a byte");
            stream.write_all(&byte).expect("written");
            return stream.local_addr().expect("an address");
        }
        assert!(Instant::now() < end, "nobody connected");
        thread::yield_now();
    }
}

fn serve_udp(group: &Group) -> SocketAddr {
    let end = Instant::now() + Duration::from_secs(5);
    let (mut received, mut out) = (RecvBatch::new(4, 2048), SendBatch::new(4));
    loop {
        for socket in &group.sockets {
            match received.recv(socket.as_fd()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            let datagram = received.datagram(0);
            let local = datagram.local.expect("where it was sent to");
            let mut answers = out.begin();
            // Twice the same size: they leave as one train.
            for _ in 0..2 {
                assert!(answers.push(datagram.source, Some(local), None, datagram.payload, 0));
            }
            let sent = answers.send(socket.as_fd());
            assert!(sent.failures.is_empty(), "{:?}", sent.failures);
            return SocketAddr::new(local.address, local.port);
        }
        assert!(Instant::now() < end, "nothing came");
        thread::yield_now();
    }
}

fn group_of(groups: &[Group], transport: Transport, v4: bool) -> &Group {
    let mine = |group: &&Group| group.transport == transport && group.address.is_ipv4() == v4;
    groups.iter().find(mine).expect("a group")
}

/// The port is held by sockets that never answer; clients reach ours all the same, at addresses of both devices.
fn beside_reservations(tproxy: bool) {
    machine(move || {
        run("ip link add nic type veth peer name far && ip link set nic up && ip link set far up");
        run("ip addr add 192.0.2.7/24 dev nic && ip addr add 2001:db8::7/64 dev nic nodad");
        let _reserved: Vec<TcpListener> =
            ["0.0.0.0:8080"].iter().map(|address| TcpListener::bind(address).expect("reserved")).collect();
        let _reserved6 = socket::bind_tcp("[::]:8080".parse().expect("an address"), 1, 8).expect("reserved");
        let _udp = UdpSocket::bind("0.0.0.0:8080").expect("reserved");
        let _udp6 = socket::bind_udp("[::]:8080".parse().expect("an address"), 1).expect("reserved");

        let groups = groups();
        let ports: Vec<Steered> = ANY
            .into_iter()
            .flat_map(|address| TRANSPORTS.map(|transport| Steered { transport, address, port: 8080 }))
            .collect();
        let _lookup = (!tproxy).then(|| by_lookup(&groups, &ports));
        Nft::open().expect("nftables").create(&table(&groups, &ports, tproxy)).expect("the table");

        for target in ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"] {
            let ip: IpAddr = target.parse().expect("an address");
            let to = SocketAddr::new(ip, 8080);
            thread::scope(|scope| {
                let group = group_of(&groups, Transport::Tcp, ip.is_ipv4());
                let server = scope.spawn(move || serve_tcp(group));
                let mut client = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connected");
                client.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
                client.write_all(b"x").expect("written");
                let mut byte = [0];
                client.read_exact(&mut byte).expect("an answer");
                assert_eq!((server.join().expect("served"), byte), (to, *b"x"));
            });
            thread::scope(|scope| {
                let group = group_of(&groups, Transport::Udp, ip.is_ipv4());
                let server = scope.spawn(move || serve_udp(group));
                let any = if ip.is_ipv4() { ANY[0] } else { ANY[1] };
                let client = UdpSocket::bind((any, 0)).expect("a client");
                client.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
                // Connected: an answer from elsewhere would not come through.
                client.connect(to).expect("connected");
                client.send(b"question").expect("sent");
                let mut buffer = [0; 64];
                for _ in 0..2 {
                    let length = client.recv(&mut buffer).unwrap_or_else(|error| panic!("{to}: {error}"));
                    assert_eq!(&buffer[..length], b"question");
                }
                assert_eq!(server.join().expect("served"), to);
            });
        }
    });
}

#[test]
fn sk_lookup_leads_past_reservations() {
    beside_reservations(false);
}

#[test]
fn tproxy_leads_past_reservations() {
    beside_reservations(true);
}

#[test]
fn what_is_not_steered_is_left_alone_and_the_link_ends_it_all() {
    machine(|| {
        let server = TcpListener::bind("127.0.0.1:8080").expect("a server");
        let other = TcpListener::bind("127.0.0.1:8081").expect("a server");
        let groups = groups();
        let port = |address: &str, port| Steered {
            transport: Transport::Tcp,
            address: address.parse().expect("an address"),
            port,
        };
        let lookup = by_lookup(&groups, &[port("127.0.0.1", 8080), port("127.0.0.2", 8081)]);
        let reaches = |target: &str, listener: &TcpListener| {
            let _client = TcpStream::connect(target).expect("connected");
            listener.set_nonblocking(true).expect("an option");
            let tcp = group_of(&groups, Transport::Tcp, true);
            let end = Instant::now() + Duration::from_secs(5);
            loop {
                if listener.accept().is_ok() {
                    return true;
                }
                if tcp.sockets.iter().any(|socket| socket::accept(socket).is_ok()) {
                    return false;
                }
                assert!(Instant::now() < end, "the connection has come to nobody");
            }
        };
        assert!(!reaches("127.0.0.1:8080", &server), "a port that is steered");
        assert!(reaches("127.0.0.1:8081", &other), "of another address");
        lookup.remove(port("127.0.0.1", 8080)).expect("removed");
        lookup.remove(port("127.0.0.1", 8080)).expect("removed twice");
        assert!(reaches("127.0.0.1:8080", &server), "a port that is not steered any more");

        lookup.put(port("0.0.0.0", 8080)).expect("steered");
        let kept = lookup.link().try_clone_to_owned().expect("a duplicate");
        drop(lookup);
        assert!(!reaches("127.0.0.1:8080", &server), "somebody holds the link");
        drop(kept);
        // The kernel takes the program out of force as it closes the last descriptor.
        assert!(reaches("127.0.0.1:8080", &server), "nobody holds the link");
    });
}

#[test]
fn an_address_is_steered_on_every_port_or_refused_on_all_others() {
    machine(|| {
        run("ip addr add 192.0.2.9/32 dev lo");
        // Servers of the host's own on every address: they are not to be met at this one.
        let _tcp = TcpListener::bind("0.0.0.0:8080").expect("a server");
        let _other = TcpListener::bind("0.0.0.0:8081").expect("a server");
        let _udp = UdpSocket::bind("0.0.0.0:8080").expect("a server");
        let groups = groups();
        let every =
            |transport| Steered { transport, address: "192.0.2.9".parse().expect("an address"), port: 0 };
        let lookup =
            by_lookup(&groups, &[Steered { transport: Transport::Tcp, address: ANY[0], port: 8081 }]);
        TRANSPORTS.into_iter().for_each(|transport| lookup.refuse(every(transport)).expect("refused"));
        for port in [8080, 8081, 8082] {
            let refused = TcpStream::connect(("192.0.2.9", port)).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{port}");
        }
        let client = UdpSocket::bind("0.0.0.0:0").expect("a client");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        client.connect("192.0.2.9:8080").expect("connected");
        client.send(b"question").expect("sent");
        assert_eq!(client.recv(&mut [0; 8]).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
        assert!(TcpStream::connect("127.0.0.1:8080").is_ok(), "another address of the host");

        let one = Steered { port: 8080, ..every(Transport::Tcp) };
        lookup.put(one).expect("steered");
        let tcp = group_of(&groups, Transport::Tcp, true);
        let meets = |port: u16| {
            let _client = TcpStream::connect(("192.0.2.9", port)).expect("connected");
            let end = Instant::now() + Duration::from_secs(5);
            while !tcp.sockets.iter().any(|socket| socket::accept(socket).is_ok()) {
                assert!(Instant::now() < end, "the connection to {port} has come to nobody");
            }
        };
        meets(8080);
        assert!(TcpStream::connect("192.0.2.9:8082").is_err(), "the rest is refused still");
        lookup.put(every(Transport::Tcp)).expect("steered");
        meets(8082);
        meets(22);
        lookup.remove(one).expect("removed");
        meets(8080);
    });
}
