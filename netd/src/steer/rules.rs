//! What steering adds to the host's table `inet netd`: where ports are led, and at which nobody is met. Pure. The number
//! of rules is fixed; ports are elements of sets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use netd_sys::bpf::{Steered, Transport};
use netd_sys::datagram::MARK;
use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Field, Hook, IpVersion, Part, Rule, Set, Type, Value, Verdict,
    ct_state,
};

use super::funnel::{KINDS, Kind};
use crate::firewall::vip_set;

/// NF_IP_PRI_MANGLE: where packets are led to sockets; after connection tracking, before any NAT.
const MANGLE: i32 = -150;
/// After the filters of the host, so that what they drop is dropped, and in silence: firewalld's are at 10.
const BEHIND_FILTERS: i32 = 20;
/// NF_IP_PRI_RAW: before connection tracking, which so sees an answer with the port it belongs to.
const RAW: i32 = -300;

/// How the sets of vacant ports begin.
const VACANT: &str = "vacant_";

/// The ports that are, or were, vacant on one address. A set of ports alone is a map of bits to the kernel, so a glance
/// there spares most datagrams the search for port and address. Nothing is taken from it before the table is written anew.
fn vacant_ports(kind: &Kind) -> String {
    format!("{VACANT}{}_ports", name(kind, Reach::EveryAddress))
}

/// A funnel, and where its sockets are.
pub(super) type Place = (Kind, SocketAddr);

/// Datagrams that answer for a steered port leave from it, and not from the funnel's own. The mark is our own, and is
/// gone when anybody else sees the packet.
pub(super) fn answers() -> Chain {
    let parts = vec![Part::Marked(MARK), Part::SetSourcePortFromMark(Transport::Udp), Part::SetMark(0)];
    Chain {
        name: "answers".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Output, priority: RAW, accept: true }),
        rules: vec![Rule::new(parts).comment("from the port that was asked")],
    }
}

/// Packets to this host for a steered port, to the funnel.
pub(super) fn tproxy(places: &[Place]) -> Chain {
    let mut rules = Vec::with_capacity(Reach::ALL.len() * places.len());
    for (kind, to) in places {
        let (address, port) = ends(kind);
        let version = if kind.is_ipv4 { IpVersion::V4 } else { IpVersion::V6 };
        let one = Part::In(vec![address, port], name(kind, Reach::One));
        let ports = Part::In(vec![address], name(kind, Reach::EveryPort));
        let is_tcp_or_udp = Part::Is(Field::Protocol, Value::Protocol(number(kind.transport())));
        let addresses = Part::In(vec![port], name(kind, Reach::EveryAddress));
        // A service's address is no address of the host's, as far as published ports go.
        let no_vip = Part::NotIn(vec![address], vip_set(kind.is_ipv4).into());
        let to = |parts: Vec<Part>| parts.into_iter().chain([Part::ToHost, Part::Tproxy(*to)]).collect();
        rules.push(Rule::new(to(vec![one])).comment("one port of one address"));
        rules.push(Rule::new(to(vec![is_tcp_or_udp, ports])).comment("every port of one address"));
        rules
            .push(Rule::new(to(vec![Part::Version(version), addresses, no_vip])).comment("on every address"));
    }
    Chain {
        name: "steer".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: MANGLE, accept: true }),
        rules,
    }
}

/// What was not led anywhere and is for a service's address: programs of the host are not met there. sk_lookup has its
/// own way to say so.
pub(super) fn unserved(places: &[Place]) -> [Chain; 3] {
    let refused = places.iter().map(|(kind, _)| {
        let (address, port) = ends(kind);
        let parts = vec![
            Part::In(vec![address], vip_set(kind.is_ipv4).into()),
            Part::NotIn(vec![address, port], name(kind, Reach::One)),
            Part::NotIn(vec![address], name(kind, Reach::EveryPort)),
        ];
        (kind, parts, "no port of the service")
    });
    // A program of the host may have bound itself to that very address, and its answers are to it.
    let answered = vec![
        Part::Is(Field::Iifname, Value::Name("lo".into())),
        Part::Connection(ct_state::ESTABLISHED),
        Part::Verdict(Verdict::Accept),
    ];
    let answered = Rule::new(answered).comment("answers to programs of the host");
    refusals("unserved", vec![answered], refused)
}

/// Published ports that nobody can answer for, whose sockets stay.
pub(super) fn vacant() -> [Chain; 3] {
    let refused = KINDS.iter().flat_map(|kind| {
        let (address, port) = ends(kind);
        let set = |reach| format!("{VACANT}{}", name(kind, reach));
        let one =
            vec![Part::In(vec![port], vacant_ports(kind)), Part::In(vec![address, port], set(Reach::One))];
        let every = vec![
            Part::In(vec![port], set(Reach::EveryAddress)),
            Part::NotIn(vec![address], vip_set(kind.is_ipv4).into()),
            // Answers to those for whom the data plane connects come in here too, to addresses of others.
            Part::ToHost,
        ];
        [one, every].map(|parts| (kind, parts, "nobody answers for it"))
    });
    refusals("vacant", Vec::new(), refused)
}

/// A chain for what comes to this host, and what it refuses of each protocol: of TCP what opens a connection, for open
/// ones end by themselves. Every packet of the host passes here, hence most of them are through after one glance.
fn refusals<'a>(
    chain: &str,
    before: Vec<Rule>,
    refused: impl Iterator<Item = (&'a Kind, Vec<Part>, &'static str)>,
) -> [Chain; 3] {
    let of = |transport| format!("{chain}_{}", if transport == Transport::Tcp { "tcp" } else { "udp" });
    let goto = |part, transport| Rule::new(vec![part, Part::Verdict(Verdict::Goto(of(transport)))]);
    let is_udp = Part::Is(Field::Protocol, Value::Protocol(number(Transport::Udp)));
    let mut rules = before;
    rules.extend([goto(Part::TcpOpens, Transport::Tcp), goto(is_udp, Transport::Udp)]);
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for (kind, parts, comment) in refused {
        let version = Part::Version(if kind.is_ipv4 { IpVersion::V4 } else { IpVersion::V6 });
        let parts = [version].into_iter().chain(parts).chain([Part::Refuse(kind.transport())]).collect();
        let rules = if kind.transport() == Transport::Tcp { &mut tcp } else { &mut udp };
        rules.push(Rule::new(parts).comment(comment));
    }
    let base = Base { kind: ChainKind::Filter, hook: Hook::Input, priority: BEHIND_FILTERS, accept: true };
    [
        Chain { name: of(Transport::Tcp), base: None, rules: tcp },
        Chain { name: of(Transport::Udp), base: None, rules: udp },
        Chain { name: chain.into(), base: Some(base), rules },
    ]
}

/// The sets that this chain looks into.
pub(super) fn vacant_sets<'a>(ports: impl IntoIterator<Item = &'a Steered>) -> Vec<Set> {
    let mut elements = put_vacant(ports);
    let mut sets = Vec::new();
    for kind in &KINDS {
        let reaches = [Reach::One, Reach::EveryAddress]
            .map(|reach| (format!("{VACANT}{}", name(kind, reach)), key(kind, reach)));
        for (name, key) in reaches.into_iter().chain([(vacant_ports(kind), vec![Type::Port])]) {
            let elements = elements.remove(&name).unwrap_or_default();
            sets.push(Set { name, key, intervals: false, map: false, elements });
        }
    }
    sets
}

/// What ports that become vacant add to those sets.
pub(super) fn put_vacant<'a>(ports: impl IntoIterator<Item = &'a Steered>) -> BTreeMap<String, Vec<Element>> {
    let ports: Vec<&Steered> = ports.into_iter().collect();
    let mut sets = removed_vacant(ports.iter().copied());
    let on_one_address = ports.iter().filter(|port| !port.address.is_unspecified());
    let known: BTreeSet<_> = on_one_address.map(|port| (vacant_ports(&kind_of(port)), port.port)).collect();
    for (set, port) in known {
        sets.entry(set).or_default().push(Element::key(vec![Value::Port(port)]));
    }
    sets
}

/// What ports that are vacant no more take from them.
pub(super) fn removed_vacant<'a>(
    ports: impl IntoIterator<Item = &'a Steered>,
) -> BTreeMap<String, Vec<Element>> {
    by_set(ports).into_iter().map(|(name, elements)| (format!("{VACANT}{name}"), elements)).collect()
}

fn ends(kind: &Kind) -> (Field, Field) {
    let address = if kind.is_ipv4 { Field::Ip4(End::Destination) } else { Field::Ip6(End::Destination) };
    (address, Field::Port(End::Destination, kind.transport()))
}

/// The sets that the chain `steer` looks into.
pub(super) fn sets<'a>(places: &[Place], ports: impl IntoIterator<Item = &'a Steered>) -> Vec<Set> {
    let mut elements = by_set(ports);
    let mut sets = Vec::new();
    for (kind, _) in places {
        for reach in Reach::ALL {
            let name = name(kind, reach);
            let elements = elements.remove(&name).unwrap_or_default();
            sets.push(Set { name, key: key(kind, reach), intervals: false, map: false, elements });
        }
    }
    sets
}

fn key(kind: &Kind, reach: Reach) -> Vec<Type> {
    let address = if kind.is_ipv4 { Type::Ip4 } else { Type::Ip6 };
    match reach {
        Reach::One => vec![address, Type::Port],
        Reach::EveryPort => vec![address],
        Reach::EveryAddress => vec![Type::Port],
    }
}

/// The ports as elements of the sets that they belong to.
pub(super) fn by_set<'a>(ports: impl IntoIterator<Item = &'a Steered>) -> BTreeMap<String, Vec<Element>> {
    let mut sets: BTreeMap<String, Vec<Element>> = BTreeMap::new();
    for port in ports {
        sets.entry(set_of(port)).or_default().push(element(port));
    }
    sets
}

fn set_of(port: &Steered) -> String {
    name(&kind_of(port), Reach::of(port))
}

fn kind_of(port: &Steered) -> Kind {
    let protocol = match port.transport {
        Transport::Tcp => crate::model::Protocol::Tcp,
        Transport::Udp => crate::model::Protocol::Udp,
    };
    Kind { protocol, is_ipv4: port.address.is_ipv4() }
}

fn element(port: &Steered) -> Element {
    let (address, number) = (Value::Address(port.address), Value::Port(port.port));
    Element::key(match Reach::of(port) {
        Reach::One => vec![address, number],
        Reach::EveryPort => vec![address],
        Reach::EveryAddress => vec![number],
    })
}

/// How much a steered port stands for. Who stands for less goes before.
#[derive(Clone, Copy)]
enum Reach {
    One,
    EveryPort,
    EveryAddress,
}

impl Reach {
    const ALL: [Self; 3] = [Self::One, Self::EveryPort, Self::EveryAddress];

    fn of(port: &Steered) -> Self {
        match (port.address.is_unspecified(), port.port) {
            (true, _) => Self::EveryAddress,
            (false, 0) => Self::EveryPort,
            (false, _) => Self::One,
        }
    }
}

/// `tcp4_at`, `tcp4_on` or `tcp4`.
fn name(kind: &Kind, reach: Reach) -> String {
    let family = if kind.is_ipv4 { 4 } else { 6 };
    let end = match reach {
        Reach::One => "_at",
        Reach::EveryPort => "_on",
        Reach::EveryAddress => "",
    };
    format!("{}{family}{end}", kind.protocol.as_str())
}

/// As IANA numbers them.
fn number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_elements_and_not_rules() {
        let places: Vec<Place> =
            KINDS.into_iter().map(|kind| (kind, "127.0.0.1:1".parse().unwrap())).collect();
        let ports: Vec<Steered> = (1..=1000)
            .map(|port| Steered { transport: Transport::Tcp, address: "0.0.0.0".parse().unwrap(), port })
            .chain([53, 0].map(|port| Steered {
                transport: Transport::Udp,
                address: "fd00::1".parse().unwrap(),
                port,
            }))
            .collect();
        let sets = sets(&places, &ports);
        let sizes: Vec<(&str, usize)> =
            sets.iter().map(|set| (&*set.name, set.elements.len())).filter(|(_, size)| *size > 0).collect();
        assert_eq!(sizes, [("tcp4", 1000), ("udp6_at", 1), ("udp6_on", 1)]);
        assert_eq!((sets.len(), tproxy(&places).rules.len()), (12, 12));
        assert_eq!((vacant_sets(&ports).len(), vacant().map(|chain| chain.rules.len())), (12, [4, 4, 2]));
    }
}
