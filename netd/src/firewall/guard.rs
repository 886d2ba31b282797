//! The table `bridge netd`: what comes out of a sandbox on an overlay network has to carry the addresses that the
//! sandbox was given. Pure.
//!
//! An overlay reaches from host to host, so a forged address there does harm that its own host's user may not even see;
//! on plain bridge networks addresses of one's own choice go on working, as with Docker. The number of rules is fixed:
//! a port is told by how its name begins, and is an element of three sets. What no element speaks for is dropped, and so
//! is what is too short to be read. What comes by a tunnel has been looked at where it came from.

use std::collections::BTreeMap;

use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Family, Field, Hook, Named, Part, Rule, Set, Table, Transport,
    Type, Value, Verdict,
};

use super::{TABLE, drop_as, set};
use crate::model::{Driver, Endpoint, Model, Network, OVERLAY_PORTS, Sandbox};

/// Ports, each with what it may call itself.
const MACS: &str = "macs";
const ADDRESSES_V4: &str = "addresses4";
const ADDRESSES_V6: &str = "addresses6";

const FORGED_MAC: &str = "forged-mac";
const FORGED_ADDRESS: &str = "forged-address";
const FORGED_ARP: &str = "forged-arp";
const FORGED_NEIGHBOUR: &str = "forged-neighbour";
const ROUTER: &str = "router";
const DHCP_SERVER: &str = "dhcp-server";
const OTHER_PROTOCOL: &str = "other-protocol";

/// Why packets are dropped here; also the comments of the rules.
pub(super) const REASONS: [&str; 7] =
    [FORGED_MAC, FORGED_ADDRESS, FORGED_ARP, FORGED_NEIGHBOUR, ROUTER, DHCP_SERVER, OTHER_PROTOCOL];

/// Before all other tables of bridges.
const FIRST: i32 = -300;
const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// What a device says of its multicast groups before it has an address.
const LISTENER_REPORT: u8 = 143;
/// Neighbour discovery without options.
const BARE: u16 = 24;
/// Kinds 1 and 2, of eight bytes: the link-layer address of who speaks, and of whom it is about.
const OF_SOURCE: u16 = 0x0101;
const OF_TARGET: u16 = 0x0201;
const DHCP: u16 = 67;
const DHCPV6: u16 = 547;

pub(crate) const GUARD: Named<'static> = Named { family: Family::Bridge, name: TABLE };

/// None: there is nothing to guard. `more`: of ports whose record is not written yet, or is written off already.
pub(crate) fn render(model: &Model, more: &Elements) -> Option<Table> {
    if !model.networks.values().any(|network| is_overlay(network)) {
        return None;
    }
    let mut elements = Elements::default();
    model.sandboxes.values().for_each(|sandbox| elements.add(sandbox, model));
    elements.join(more.without(&elements));
    let sets = SETS.map(|(name, kind)| Set {
        elements: elements.0.remove(name).unwrap_or_default(),
        ..set(name, &[Type::Name, kind], Vec::new())
    });
    let chains = vec![ipv4(), arp(), solicitation(), advertisement(), icmpv6(), ipv6(), guard()];
    Some(Table { family: Family::Bridge, name: TABLE.into(), sets: sets.into(), chains })
}

/// What ports may call themselves, by set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Elements(pub BTreeMap<&'static str, Vec<Element>>);

const SETS: [(&str, Type); 3] = [(MACS, Type::Mac), (ADDRESSES_V4, Type::Ip4), (ADDRESSES_V6, Type::Ip6)];

impl Elements {
    pub(crate) fn add(&mut self, sandbox: &Sandbox, model: &Model) {
        let guarded = |endpoint: &&Endpoint| {
            model.networks.get(&endpoint.network).is_some_and(|network| is_overlay(network))
        };
        sandbox.endpoints.iter().filter(guarded).for_each(|endpoint| self.add_endpoint(endpoint));
    }

    /// Of an endpoint on an overlay network.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let mut elements = Self::default();
        elements.add_endpoint(endpoint);
        elements
    }

    fn add_endpoint(&mut self, endpoint: &Endpoint) {
        let mut one = |set, value| {
            let port = Value::Name(endpoint.host_link.to_string());
            self.0.entry(set).or_default().push(Element::key(vec![port, value]));
        };
        one(MACS, Value::Mac(endpoint.mac));
        for address in endpoint.addresses().chain(endpoint.link_local().map(Into::into)) {
            one(if address.is_ipv4() { ADDRESSES_V4 } else { ADDRESSES_V6 }, Value::Address(address));
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        for (set, elements) in other.0 {
            self.0.entry(set).or_default().extend(elements);
        }
    }

    /// What the other does not have.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let known =
            |set, element| other.0.get(set).is_some_and(|known: &Vec<Element>| known.contains(element));
        let left = self.0.iter().map(|(set, elements)| {
            let left: Vec<_> = elements.iter().filter(|element| !known(*set, element)).cloned().collect();
            (*set, left)
        });
        Self(left.filter(|(_, left)| !left.is_empty()).collect())
    }
}

fn is_overlay(network: &Network) -> bool {
    matches!(network.driver, Driver::Overlay { .. })
}

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), base: None, rules }
}

fn port_has(field: Field, set: &str) -> Part {
    Part::In(vec![Field::Iifname, field], set.into())
}

fn accept(parts: Vec<Part>) -> Rule {
    Rule::new(parts.into_iter().chain([Part::Verdict(Verdict::Accept)]).collect())
}

fn goto(parts: Vec<Part>, chain: &str) -> Rule {
    Rule::new(parts.into_iter().chain([Part::Verdict(Verdict::Goto(chain.into()))]).collect())
}

fn guard() -> Chain {
    let kind = |number| vec![Part::Is(Field::EtherType, Value::EtherType(number))];
    Chain {
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: FIRST, accept: true }),
        ..chain(
            "guard",
            vec![
                accept(vec![Part::IsNot(Field::Iifname, Value::Prefix(OVERLAY_PORTS.into()))]),
                drop_as(vec![Part::NotIn(vec![Field::Iifname, Field::EtherSource], MACS.into())], FORGED_MAC),
                goto(kind(0x0800), "ipv4"),
                goto(kind(0x86dd), "ipv6"),
                goto(kind(0x0806), "arp"),
                drop_as(vec![], OTHER_PROTOCOL),
            ],
        )
    }
}

fn ipv4() -> Chain {
    let server = Part::Is(Field::Port(End::Source, Transport::Udp), Value::Port(DHCP));
    let rules = vec![
        drop_as(vec![server], DHCP_SERVER),
        accept(vec![port_has(Field::Ip4(End::Source), ADDRESSES_V4)]),
        drop_as(vec![], FORGED_ADDRESS),
    ];
    chain("ipv4", rules)
}

fn arp() -> Chain {
    let own = || vec![Part::ArpForm, port_has(Field::ArpSender, MACS)];
    let with = |part| own().into_iter().chain([part]).collect();
    // From nobody yet: whether somebody has an address.
    let probe = Part::Is(Field::ArpSenderIp4, Value::Address([0, 0, 0, 0].into()));
    let rules = vec![
        accept(with(port_has(Field::ArpSenderIp4, ADDRESSES_V4))),
        accept(with(probe)),
        drop_as(vec![], FORGED_ARP),
    ];
    chain("arp", rules)
}

fn ipv6() -> Chain {
    let server = Part::Is(Field::Port(End::Source, Transport::Udp), Value::Port(DHCPV6));
    let rules = vec![
        goto(vec![Part::Is(Field::Protocol, Value::Protocol(ICMPV6))], "icmpv6"),
        drop_as(vec![server], DHCP_SERVER),
        accept(vec![port_has(Field::Ip6(End::Source), ADDRESSES_V6)]),
        drop_as(vec![], FORGED_ADDRESS),
    ];
    chain("ipv6", rules)
}

fn icmpv6() -> Chain {
    let kind = |number| Part::Is(Field::Icmp6Type, Value::Protocol(number));
    let rules = vec![
        goto(vec![kind(NEIGHBOUR_SOLICITATION)], "solicitation"),
        goto(vec![kind(NEIGHBOUR_ADVERTISEMENT)], "advertisement"),
        drop_as(vec![kind(ROUTER_ADVERTISEMENT)], ROUTER),
        drop_as(vec![kind(REDIRECT)], ROUTER),
        // Every device asks when it comes up, so it is not counted. Nobody advertises here, and the question tells the
        // gateway a MAC address.
        Rule::new(vec![kind(ROUTER_SOLICITATION), Part::Verdict(Verdict::Drop)]),
        accept(vec![from_nobody(), kind(LISTENER_REPORT)]),
        accept(vec![port_has(Field::Ip6(End::Source), ADDRESSES_V6)]),
        drop_as(vec![], FORGED_ADDRESS),
    ];
    chain("icmpv6", rules)
}

fn from_nobody() -> Part {
    Part::Is(Field::Ip6(End::Source), Value::Address(std::net::Ipv6Addr::UNSPECIFIED.into()))
}

/// Of several options of a kind the first one counts, so it is enough to look at that if it is the first of all.
fn tells_own(option: u16) -> Vec<Part> {
    vec![Part::Is(Field::NeighbourOption, Value::Number(option)), port_has(Field::NeighbourMac, MACS)]
}

fn bare() -> Vec<Part> {
    vec![Part::Is(Field::Ip6Length, Value::Number(BARE))]
}

fn solicitation() -> Chain {
    let own = |rest: Vec<Part>| {
        accept([port_has(Field::Ip6(End::Source), ADDRESSES_V6)].into_iter().chain(rest).collect())
    };
    let rules = vec![
        // Whether somebody has an address of its own.
        accept(vec![from_nobody(), port_has(Field::NeighbourTarget, ADDRESSES_V6)]),
        own(tells_own(OF_SOURCE)),
        own(bare()),
        drop_as(vec![], FORGED_NEIGHBOUR),
    ];
    chain("solicitation", rules)
}

fn advertisement() -> Chain {
    let own = |rest: Vec<Part>| {
        let about = port_has(Field::NeighbourTarget, ADDRESSES_V6);
        accept([port_has(Field::Ip6(End::Source), ADDRESSES_V6), about].into_iter().chain(rest).collect())
    };
    let rules = vec![own(tells_own(OF_TARGET)), own(bare()), drop_as(vec![], FORGED_NEIGHBOUR)];
    chain("advertisement", rules)
}
