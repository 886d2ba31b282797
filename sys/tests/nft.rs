//! Tables as `nft list` shows them, and packets that go through them.

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::{machine, run};
use netd_sys::netns::Netns;
use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Family, Field, Hook, Hooked, MaxSegment, Nft, Part, Rule, Set,
    Table, Transport, Type, Value, Verdict, ct_state,
};
use proptest::prelude::*;
use socket2::{Domain, Protocol, Socket, Type as SocketType};

fn name(text: &str) -> Value {
    Value::Name(text.into())
}

fn network(text: &str) -> Value {
    Value::Network(text.parse().expect("network"))
}

fn set(name: &str, key: &[Type], intervals: bool, elements: Vec<Vec<Value>>) -> Set {
    let elements = elements.into_iter().map(Element::key).collect();
    Set { name: name.into(), key: key.to_vec(), intervals, map: false, elements }
}

fn chain(name: &str, base: Option<Base>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), base, rules }
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind, hook, priority, accept: true })
}

fn accept() -> Part {
    Part::Verdict(Verdict::Accept)
}

/// The shape of the host's own table: isolation between bridges and masquerade, all by sets.
fn host_table() -> Table {
    let inner = chain("inner", None, vec![Rule::new(vec![Part::Verdict(Verdict::Return)])]);
    Table {
        family: Family::Inet,
        name: "netd".into(),
        sets: host_sets(),
        chains: vec![inner, forward(), input(), postrouting()],
    }
}

fn host_sets() -> Vec<Set> {
    let mut verdicts = set("ingress", &[Type::Name], false, vec![]);
    verdicts.map = true;
    verdicts.elements = vec![
        Element { key: vec![name("nd-1")], verdict: Some(Verdict::Jump("inner".into())) },
        Element { key: vec![name("nd-2")], verdict: Some(Verdict::Drop) },
    ];
    vec![
        set("bridges", &[Type::Name], false, vec![vec![name("nd-1")], vec![name("nd-2")]]),
        set("pairs", &[Type::Name, Type::Name], false, vec![vec![name("nd-1"), name("nd-1")]]),
        set(
            "subnets",
            &[Type::Ip4],
            true,
            vec![vec![network("10.9.0.0/24")], vec![network("255.255.255.0/24")]],
        ),
        set("subnets6", &[Type::Ip6], true, vec![vec![network("fd09::/64")]]),
        set("guests", &[Type::Name, Type::Ip4], true, vec![vec![name("nd-1"), network("10.9.0.0/24")]]),
        set("ports", &[Type::Protocol, Type::Port], false, vec![vec![Value::Protocol(6), Value::Port(80)]]),
        verdicts,
    ]
}

fn forward() -> Chain {
    let known = Part::Connection(ct_state::ESTABLISHED | ct_state::RELATED);
    let pair = Part::In(vec![Field::Iifname, Field::Oifname], "pairs".into());
    let own = Part::In(vec![Field::Iifname], "bridges".into());
    let guest = Part::In(vec![Field::Iifname, Field::Ip4(End::Source)], "guests".into());
    let rules = vec![
        Rule::new(vec![known, accept()]),
        Rule::new(vec![Part::TcpSyn, Part::SetMaxSegment(MaxSegment::OfRoute)]),
        Rule::new(vec![Part::TcpSyn, Part::SetMaxSegment(MaxSegment::Bytes(1360))]),
        Rule::new(vec![pair, accept()]),
        Rule::new(vec![own, Part::Counter, Part::Verdict(Verdict::Drop)]).comment("between networks"),
        Rule::new(vec![Part::Map(vec![Field::Iifname], "ingress".into())]),
        Rule::new(vec![guest, Part::Verdict(Verdict::Goto("inner".into()))]),
    ];
    chain("forward", base(ChainKind::Filter, Hook::Forward, 0), rules)
}

fn input() -> Chain {
    let gateway = Value::Address("fd09::1".parse().expect("address"));
    let from_dns = Part::Is(Field::Port(End::Source, Transport::Udp), Value::Port(53));
    let to_ssh = Part::Is(Field::Port(End::Destination, Transport::Tcp), Value::Port(22));
    let inside = Part::Is(Field::Ip6(End::Source), network("fd09::/64"));
    let rules = vec![
        Rule::new(vec![Part::Is(Field::Iifname, name("lo")), accept()]),
        Rule::new(vec![Part::IsNot(Field::Iifname, name("nd-1")), accept()]),
        Rule::new(vec![Part::Is(Field::Protocol, Value::Protocol(17)), from_dns, accept()]),
        Rule::new(vec![to_ssh, accept()]),
        Rule::new(vec![inside, Part::Is(Field::Ip6(End::Destination), gateway), accept()]),
        Rule::new(vec![Part::TcpOpens, Part::Refuse(Transport::Tcp)]),
        Rule::new(vec![Part::Refuse(Transport::Udp)]),
    ];
    let base = Base { kind: ChainKind::Filter, hook: Hook::Input, priority: -10, accept: false };
    chain("input", Some(base), rules)
}

fn postrouting() -> Chain {
    let outside = Part::NotIn(vec![Field::Oifname], "bridges".into());
    let from4 = Part::In(vec![Field::Ip4(End::Source)], "subnets".into());
    let from6 = Part::In(vec![Field::Ip6(End::Source)], "subnets6".into());
    let anywhere = Part::Is(Field::Ip4(End::Destination), network("0.0.0.0/0"));
    let rules = vec![
        Rule::new(vec![from4, outside.clone(), anywhere, Part::Masquerade]),
        Rule::new(vec![from6, outside, Part::Masquerade]),
    ];
    chain("postrouting", base(ChainKind::Nat, Hook::Postrouting, 100), rules)
}

#[test]
fn a_table_reads_back_as_it_was_meant() {
    machine(|| {
        Nft::open().expect("open").replace(&host_table()).expect("replace");
        assert_eq!(run("nft list table inet netd"), include_str!("nft/host.golden"));
    });
}

/// Programs listen, and clients are told that nobody does; what is open goes on.
#[test]
fn what_is_refused_is_told_at_once() {
    machine(|| {
        let ports = |transport| Part::In(vec![Field::Port(End::Destination, transport)], "shut".into());
        let rules = vec![
            Rule::new(vec![Part::TcpOpens, ports(Transport::Tcp), Part::Refuse(Transport::Tcp)]),
            Rule::new(vec![ports(Transport::Udp), Part::Refuse(Transport::Udp)]),
        ];
        let table = Table {
            family: Family::Inet,
            name: "netd".into(),
            sets: vec![set("shut", &[Type::Port], false, vec![])],
            chains: vec![chain("shut", base(ChainKind::Filter, Hook::Input, 20), rules)],
        };
        let mut nft = Nft::open().expect("open");
        nft.replace(&table).expect("replace");
        for ip in ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().expect("address")) {
            let listener = TcpListener::bind((ip, 0)).expect("bind");
            let to = listener.local_addr().expect("address");
            let _datagrams = UdpSocket::bind(to).expect("bind");
            let mut open = TcpStream::connect(to).expect("nothing is refused yet");
            let (mut accepted, _) = listener.accept().expect("accept");
            let port = [Element::key(vec![Value::Port(to.port())])];
            nft.add_elements("netd", "shut", &port).expect("add");

            let begun = Instant::now();
            assert_eq!(TcpStream::connect(to).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
            let client = UdpSocket::bind((ip, 0)).expect("bind");
            client.connect(to).expect("connect");
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            client.send(b"x").expect("send");
            assert_eq!(client.recv(&mut [0]).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
            assert!(begun.elapsed() < Duration::from_secs(1));
            open.write_all(b"y").expect("write");
            accepted.read_exact(&mut [0]).expect("what is open goes on");

            nft.del_elements("netd", "shut", &port).expect("remove");
            TcpStream::connect(to).expect("it is served again");
        }
    });
}

/// 127.0.0.11:53 is answered by sockets on another port, so that port 53 stays free for the container itself.
fn dns_table(port: u16) -> Table {
    let resolver = Value::Address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)));
    let rules = [Transport::Udp, Transport::Tcp].into_iter().flat_map(|transport| {
        let rule = |end, from, to| {
            Rule::new(vec![
                Part::Is(Field::Ip4(end), resolver.clone()),
                Part::Is(Field::Port(end, transport), Value::Port(from)),
                Part::Notrack,
                Part::SetPort(end, transport, to),
            ])
        };
        [rule(End::Destination, 53, port), rule(End::Source, port, 53)]
    });
    let output = chain("output", base(ChainKind::Filter, Hook::Output, -300), rules.collect());
    Table { family: Family::Inet, name: "netd-dns".into(), sets: vec![], chains: vec![output] }
}

fn echo_udp(socket: UdpSocket, mark: u8) {
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = [&[mark], &buffer[..length]].concat();
            socket.send_to(&answer, from).expect("answer");
        }
    });
}

fn echo_tcp(listener: TcpListener, mark: u8) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut said = Vec::new();
            stream.read_to_end(&mut said).expect("read");
            stream.write_all(&[&[mark], said.as_slice()].concat()).expect("answer");
        }
    });
}

fn ask_udp(to: SocketAddr, said: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    socket.connect(to).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    socket.send(said).expect("send");
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).expect("an answer from the port that was asked");
    buffer[..length].to_vec()
}

fn ask_tcp(to: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    stream.write_all(said).expect("write");
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("read");
    heard
}

#[test]
fn the_resolver_and_a_containers_own_server_share_port_53() {
    machine(|| {
        let udp = UdpSocket::bind("127.0.0.11:0").expect("bind");
        let port = udp.local_addr().expect("address").port();
        let tcp = TcpListener::bind(("127.0.0.11", port)).expect("bind");
        Nft::open().expect("open").replace(&dns_table(port)).expect("replace");
        assert_eq!(
            run("nft list table inet netd-dns"),
            include_str!("nft/dns.golden").replace("PORT", &port.to_string())
        );

        echo_udp(udp, b'r');
        echo_tcp(tcp, b'r');
        echo_udp(UdpSocket::bind("0.0.0.0:53").expect("the container's own"), b'o');
        echo_tcp(TcpListener::bind("0.0.0.0:53").expect("the container's own"), b'o');
        // Connection tracking on, as in a container with rules of its own, which drops what it cannot place.
        run("nft add table inet own");
        run("nft 'add chain inet own in { type filter hook input priority 0; }'");
        run("nft add rule inet own in ct state invalid drop");

        let resolver = SocketAddr::from(([127, 0, 0, 11], 53));
        let own = SocketAddr::from(([127, 0, 0, 1], 53));
        for said in [&b""[..], b"x", b"name?", &[7; 1000]] {
            assert_eq!(ask_udp(resolver, said), [b"r", said].concat());
            assert_eq!(ask_tcp(resolver, said), [b"r", said].concat());
            assert_eq!(ask_udp(own, said), [b"o", said].concat());
            assert_eq!(ask_tcp(own, said), [b"o", said].concat());
        }
        assert_eq!(counter("Udp:", "InErrors") + counter("Tcp:", "InErrs"), 0);
    });
}

/// What the kernel itself sends over `lo` has no checksum yet; only a packet that brings one shows whether the rewrite
/// keeps it right.
#[test]
fn a_rewritten_packet_keeps_a_right_checksum() {
    machine(|| {
        let _udp = UdpSocket::bind("127.0.0.11:4000").expect("bind");
        let _tcp = TcpListener::bind("127.0.0.11:4000").expect("bind");
        Nft::open().expect("open").replace(&dns_table(4000)).expect("replace");
        let syn = [0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
        for (number, checksum_at, rest, protocol) in
            [(17, 6, &[0, 13, 0, 0, b'n', b'a', b'm', b'e', b'?'][..], "Udp:"), (6, 16, &syn[..], "Tcp:")]
        {
            let before = counter(protocol, "InCsumErrors");
            let mut segment = [&4444_u16.to_be_bytes()[..], &53_u16.to_be_bytes(), rest].concat();
            let sum = checksum(number, &segment);
            segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
            send_raw(number, &segment);
            assert_eq!(counter(protocol, "InCsumErrors"), before, "{protocol} right");
            segment[checksum_at] ^= 1;
            send_raw(number, &segment);
            assert_eq!(
                counter(protocol, "InCsumErrors"),
                before + 1,
                "{protocol} wrong: the kernel does look"
            );
        }
    });
}

/// On `lo` the packet has been received, or refused, when the call returns.
fn send_raw(protocol: i32, segment: &[u8]) {
    let socket =
        Socket::new(Domain::IPV4, SocketType::RAW, Some(Protocol::from(protocol))).expect("raw socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    socket.send_to(segment, &SocketAddr::from(([127, 0, 0, 11], 0)).into()).expect("send");
}

/// From 127.0.0.1 to 127.0.0.11.
fn checksum(protocol: i32, segment: &[u8]) -> u16 {
    let pseudo = [127, 0, 0, 1, 127, 0, 0, 11, 0, protocol as u8, 0, segment.len() as u8];
    let mut all = [&pseudo[..], segment].concat();
    all.resize(all.len().next_multiple_of(2), 0);
    let sum: u32 = all.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Of this namespace.
fn counter(protocol: &str, field: &str) -> u64 {
    let snmp = run("cat /proc/net/snmp");
    let mut lines = snmp.lines().filter(|line| line.starts_with(protocol));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let column = names.split(' ').position(|name| name == field).expect("field");
    values.split(' ').nth(column).expect("value").parse().expect("number")
}

#[test]
fn elements_come_and_go_in_one_transaction() {
    machine(|| {
        let mut nft = Nft::open().expect("open");
        nft.replace(&host_table()).expect("replace");
        let many: Vec<Element> = (0..5000).map(|n| Element::key(vec![name(&format!("nd-{n:x}"))])).collect();
        nft.add_elements("netd", "bridges", &many).expect("add");
        nft.add_elements("netd", "bridges", &many).expect("again is no error");
        assert_eq!(run("nft list set inet netd bridges | grep -o nd- | wc -l").trim(), "5000");
        nft.del_elements("netd", "bridges", &many[10..]).expect("remove");
        assert_eq!(run("nft list set inet netd bridges | grep -o nd- | wc -l").trim(), "10");

        let gone = nft.del_elements("netd", "bridges", &many[9..11]).expect_err("the second is not there");
        assert_eq!(gone.errno(), Some(libc::ENOENT));
        assert_eq!(gone.to_string(), "cannot remove from the set bridges of table netd");
        assert!(run("nft list set inet netd bridges").contains("\"nd-9\""), "so the first stayed");

        let net = [Element::key(vec![network("10.10.0.0/16")])];
        nft.add_elements("netd", "subnets", &net).expect("add");
        assert!(run("nft list set inet netd subnets").contains("10.10.0.0/16"));
        nft.del_elements("netd", "subnets", &net).expect("remove");
        assert!(!run("nft list set inet netd subnets").contains("10.10.0.0/16"));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Neighbouring networks share the number where one ends and the next begins.
    #[test]
    fn a_set_of_networks_holds_exactly_these(
        slots in prop::sample::subsequence((0..64_u8).collect::<Vec<_>>(), 0..64).prop_shuffle(),
        keep in 0..64_usize,
    ) {
        machine(|| {
            // The last of the 64 ends with the address space.
            let subnets: Vec<String> = slots.iter().map(|slot| format!("255.255.255.{}/30", slot * 4)).collect();
            let keys = |some: &[String]| some.iter().map(|it| Element::key(vec![network(it)])).collect::<Vec<_>>();
            let (stay, go) = subnets.split_at(keep.min(subnets.len()));
            let mut nft = Nft::open().expect("open");
            let empty = set("subnets", &[Type::Ip4], true, vec![]);
            let filled = Set { elements: keys(stay), ..empty };
            nft.replace(&Table { family: Family::Inet, name: "netd".into(), sets: vec![filled], chains: vec![] }).expect("replace");
            for some in go.chunks(3) {
                nft.add_elements("netd", "subnets", &keys(some)).expect("add");
            }
            assert_eq!(listed(), sorted(&subnets));
            for some in go.rchunks(5) {
                nft.del_elements("netd", "subnets", &keys(some)).expect("remove");
            }
            assert_eq!(listed(), sorted(stay));
        });
    }
}

fn listed() -> Vec<String> {
    let words = run("nft list set inet netd subnets");
    let words = words.split(|c: char| c.is_whitespace() || c == ',').filter(|word| word.contains('/'));
    sorted(&words.map(str::to_owned).collect::<Vec<_>>())
}

fn sorted(some: &[String]) -> Vec<String> {
    let mut some = some.to_vec();
    some.sort();
    some
}

#[test]
fn a_table_is_replaced_whole_or_not_at_all() {
    machine(|| {
        let mut nft = Nft::open().expect("open");
        nft.delete("netd").expect("none there is no error");
        assert!(!nft.exists("netd").expect("asked"));
        nft.replace(&host_table()).expect("replace");
        let before = run("nft list table inet netd");

        let mut broken = host_table();
        broken.chains[1].rules.push(Rule::new(vec![Part::Verdict(Verdict::Jump("nowhere".into()))]));
        let error = nft.replace(&broken).expect_err("no such chain");
        assert_eq!(error.to_string(), "cannot add the rule number 8 of chain forward of table netd");
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert_eq!(run("nft list table inet netd"), before);

        let mut odd = host_table();
        odd.chains[2].rules[0].parts[0] = Part::Is(Field::Ip4(End::Source), name("lo"));
        let error = nft.replace(&odd).expect_err("a name is no address");
        assert!(error.source.to_string().contains("is no value of"), "{}", error.source);

        run("nft add rule inet netd forward drop");
        nft.replace(&host_table()).expect("heals");
        assert_eq!(run("nft list table inet netd"), before);
        run("nft add table inet other; nft add table ip old");
        assert_eq!(nft.tables().expect("list"), ["netd", "other"]);
        nft.delete("netd").expect("delete");
        assert_eq!(nft.tables().expect("list"), ["other"]);
    });
}

#[test]
fn a_table_lands_in_the_namespace_it_is_meant_for() {
    machine(|| {
        let web = Netns::create_at(Path::new("/run/netns/web")).expect("netns");
        Nft::open_in(&web).expect("open").replace(&dns_table(5353)).expect("replace");
        assert_eq!(run("nft list tables"), "");
        assert_eq!(run("ip netns exec web nft list tables").trim(), "table inet netd-dns");
    });
}

#[test]
fn the_chains_of_others_are_seen_with_the_links_they_let_in() {
    machine(|| {
        let mut nft = Nft::open().expect("open");
        assert_eq!(nft.hooked().expect("chains"), []);
        run("nft add table ip filter");
        run("nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
        run("nft add chain ip filter DOCKER-USER");
        run("nft 'add rule ip filter DOCKER-USER iifname \"nd-*\" counter accept'");
        run("nft 'add rule ip filter DOCKER-USER iifname netd0 tcp dport 80 accept'");
        for other in ["iifname netd1 drop", "iifname != netd2 accept", "oifname netd3 accept", "accept"] {
            run(&format!("nft 'add rule ip filter DOCKER-USER {other}'"));
        }
        run("nft add table bridge b");
        run("nft 'add chain bridge b in { type filter hook input priority -200; }'");
        let base = |family, table: &str, chain: &str, hook, priority, accept| Hooked {
            family,
            table: table.into(),
            chain: chain.into(),
            kind: "filter".into(),
            hook,
            priority,
            accept,
        };
        let mut hooked = nft.hooked().expect("chains");
        hooked.sort_by_key(|chain| chain.family);
        assert_eq!(
            hooked,
            [
                base(Family::Ip, "filter", "FORWARD", Hook::Forward, 0, false),
                base(Family::Bridge, "b", "in", Hook::Input, -200, true),
            ]
        );
        let passages = nft.passages().expect("rules");
        let links: Vec<_> = passages.iter().map(|passage| (&*passage.link, passage.is_prefix)).collect();
        assert_eq!(links, [("nd-", true), ("netd0", false)]);
        assert!(passages[0].covers("nd-1") && !passages[1].covers("netd01") && passages[1].covers("netd0"));
    });
}
