//! What steering adds to the host's table `inet netd`. Pure. The number of rules is fixed; ports are elements of sets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use netd_sys::bpf::{Steered, Transport};
use netd_sys::datagram::MARK;
use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Field, Hook, IpVersion, Part, Rule, Set, Type, Value,
};

use super::funnel::Kind;

/// NF_IP_PRI_MANGLE: where packets are led to sockets; after connection tracking, before any NAT.
const MANGLE: i32 = -150;
/// NF_IP_PRI_RAW: before connection tracking, which so sees an answer with the port it belongs to.
const RAW: i32 = -300;

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
    let mut rules = Vec::with_capacity(2 * places.len());
    for (kind, to) in places {
        let (address, version) = if kind.is_ipv4 {
            (Field::Ip4(End::Destination), IpVersion::V4)
        } else {
            (Field::Ip6(End::Destination), IpVersion::V6)
        };
        let port = Field::Port(End::Destination, kind.transport());
        let at = Part::In(vec![address, port], name(kind, true));
        let any = Part::In(vec![port], name(kind, false));
        rules.push(Rule::new(vec![at, Part::ToHost, Part::Tproxy(*to)]).comment("on one address"));
        rules.push(
            Rule::new(vec![Part::Version(version), any, Part::ToHost, Part::Tproxy(*to)])
                .comment("on every address"),
        );
    }
    Chain {
        name: "steer".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: MANGLE, accept: true }),
        rules,
    }
}

/// The sets that the chain looks into.
pub(super) fn sets<'a>(places: &[Place], ports: impl IntoIterator<Item = &'a Steered>) -> Vec<Set> {
    let mut elements = by_set(ports);
    let mut sets = Vec::with_capacity(2 * places.len());
    for (kind, _) in places {
        for one_address in [true, false] {
            let name = name(kind, one_address);
            let elements = elements.remove(&name).unwrap_or_default();
            let address = if kind.is_ipv4 { Type::Ip4 } else { Type::Ip6 };
            let key = if one_address { vec![address, Type::Port] } else { vec![Type::Port] };
            sets.push(Set { name, key, intervals: false, map: false, elements });
        }
    }
    sets
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
    let protocol = match port.transport {
        Transport::Tcp => crate::model::Protocol::Tcp,
        Transport::Udp => crate::model::Protocol::Udp,
    };
    name(&Kind { protocol, is_ipv4: port.address.is_ipv4() }, !port.address.is_unspecified())
}

fn element(port: &Steered) -> Element {
    let number = Value::Port(port.port);
    if port.address.is_unspecified() {
        Element::key(vec![number])
    } else {
        Element::key(vec![Value::Address(port.address), number])
    }
}

/// `tcp4_at` or `tcp4`.
fn name(kind: &Kind, one_address: bool) -> String {
    let family = if kind.is_ipv4 { 4 } else { 6 };
    format!("{}{family}{}", kind.protocol.as_str(), if one_address { "_at" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::super::funnel::KINDS;
    use super::*;

    #[test]
    fn ports_are_elements_and_not_rules() {
        let places: Vec<Place> =
            KINDS.into_iter().map(|kind| (kind, "127.0.0.1:1".parse().unwrap())).collect();
        let ports: Vec<Steered> = (1..=1000)
            .map(|port| Steered { transport: Transport::Tcp, address: "0.0.0.0".parse().unwrap(), port })
            .chain([Steered { transport: Transport::Udp, address: "fd00::1".parse().unwrap(), port: 53 }])
            .collect();
        let sets = sets(&places, &ports);
        let sizes: Vec<(&str, usize)> =
            sets.iter().map(|set| (&*set.name, set.elements.len())).filter(|(_, size)| *size > 0).collect();
        assert_eq!(sizes, [("tcp4", 1000), ("udp6_at", 1)]);
        assert_eq!((sets.len(), tproxy(&places).rules.len()), (8, 8));
    }
}
