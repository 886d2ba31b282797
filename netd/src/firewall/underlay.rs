//! What of the tunnels and the mesh comes from nodes that live, or are away; all else for their ports is dropped before it
//! is unpacked or answered. Pure. The nodes are elements of sets, the rules are always the same.

use std::net::IpAddr;

use netd_sys::nft::{
    Base, Chain, ChainKind, End, Field, Hook, Part, Rule, Set, Transport, Type, Value, Verdict,
};

use super::{BRIDGES, drop_as, set};
use crate::model::Model;

/// This node's own, as other nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub vtep: IpAddr,
    pub vxlan_port: u16,
    pub mesh_port: u16,
}

const NODES_V4: &str = "nodes4";
const NODES_V6: &str = "nodes6";
/// NF_IP_PRI_RAW: connection tracking keeps nothing of what is dropped.
const RAW: i32 = -300;

const VXLAN_STRANGER: &str = "vxlan-from-no-node";
const VXLAN_SANDBOX: &str = "vxlan-from-sandbox";
const MESH_STRANGER: &str = "mesh-from-no-node";
const MESH_SANDBOX: &str = "mesh-from-sandbox";

pub(super) const REASONS: [&str; 4] = [VXLAN_STRANGER, VXLAN_SANDBOX, MESH_STRANGER, MESH_SANDBOX];

/// All addresses of the other nodes that live, or may.
pub(super) fn sets(model: &Model) -> [Set; 2] {
    let mut addresses: Vec<IpAddr> = model.heard().flat_map(|(_, place)| place.addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let of = |v4| {
        let some = addresses.iter().filter(move |address| address.is_ipv4() == v4);
        some.map(|address| vec![Value::Address(*address)]).collect()
    };
    [set(NODES_V4, &[Type::Ip4], of(true)), set(NODES_V6, &[Type::Ip6], of(false))]
}

pub(super) fn chains(ends: &Ends) -> Vec<Chain> {
    let to = |transport, port| Part::Is(Field::Port(End::Destination, transport), Value::Port(port));
    let goto = |part, chain: &str| Rule::new(vec![part, Part::Verdict(Verdict::Goto(chain.into()))]);
    let raw = |name: &str, hook, rules| Chain {
        name: name.into(),
        base: Some(Base { kind: ChainKind::Filter, hook, priority: RAW, accept: true }),
        rules,
    };
    let (nodes, address) = of_family(ends.vtep);
    let to_node = Part::In(vec![address(End::Destination)], nodes.into());
    vec![
        from_sandbox("vxlan-sandbox", VXLAN_SANDBOX),
        from_sandbox("mesh-sandbox", MESH_SANDBOX),
        vxlan(ends.vtep),
        mesh(),
        raw(
            "underlay",
            Hook::Prerouting,
            vec![
                goto(to(Transport::Udp, ends.vxlan_port), "vxlan"),
                goto(to(Transport::Udp, ends.mesh_port), "mesh"),
                goto(to(Transport::Tcp, ends.mesh_port), "mesh"),
            ],
        ),
        raw(
            "tunnelled",
            Hook::Output,
            vec![
                Rule::new(vec![to(Transport::Udp, ends.vxlan_port), to_node, Part::Notrack])
                    .comment("to a node that is heard"),
            ],
        ),
    ]
}

type Address = fn(End) -> Field;
const FAMILIES: [(&str, Address); 2] = [(NODES_V4, Field::Ip4), (NODES_V6, Field::Ip6)];

fn of_family(address: IpAddr) -> (&'static str, Address) {
    FAMILIES[usize::from(address.is_ipv6())]
}

/// Connection tracking is for who would change or judge connections, and here every flow inside would be two more of
/// them: a tunnel's source port is the hash of the flow, and no answer comes to it.
fn vxlan(own: IpAddr) -> Chain {
    let (nodes, address) = of_family(own);
    let from_node = vec![
        Part::In(vec![address(End::Source)], nodes.into()),
        Part::Is(address(End::Destination), Value::Address(own)),
        Part::Notrack,
        Part::Verdict(Verdict::Accept),
    ];
    let rules = vec![
        sandboxes_go_to("vxlan-sandbox"),
        Rule::new(from_node),
        drop_as(vec![Part::ToHost], VXLAN_STRANGER),
    ];
    Chain { name: "vxlan".into(), base: None, rules }
}

fn mesh() -> Chain {
    let mut rules = vec![sandboxes_go_to("mesh-sandbox")];
    rules.extend(FAMILIES.map(|(nodes, address)| {
        Rule::new(vec![Part::In(vec![address(End::Source)], nodes.into()), Part::Verdict(Verdict::Accept)])
    }));
    rules.push(drop_as(vec![Part::ToHost], MESH_STRANGER));
    Chain { name: "mesh".into(), base: None, rules }
}

fn sandboxes_go_to(chain: &str) -> Rule {
    Rule::new(vec![
        Part::In(vec![Field::Iifname], BRIDGES.into()),
        Part::Verdict(Verdict::Goto(chain.into())),
    ])
}

/// A sandbox's packets would leave under this node's address and be believed by the other, hence they are dropped on
/// their way out, too; where they go to somebody else they are none of our business.
fn from_sandbox(name: &str, reason: &str) -> Chain {
    let mut rules = vec![drop_as(vec![Part::ToHost], reason)];
    rules.extend(FAMILIES.map(|(nodes, address)| {
        drop_as(vec![Part::In(vec![address(End::Destination)], nodes.into())], reason)
    }));
    Chain { name: name.into(), base: None, rules }
}
