//! What of the tunnels and the mesh comes from nodes that live; all else for their ports is dropped before it is unpacked
//! or answered. Pure. The nodes are elements of sets, the rules are always the same.

use std::net::IpAddr;

use netd_sys::nft::{
    Base, Chain, ChainKind, End, Field, Hook, Part, Rule, Set, Transport, Type, Value, Verdict,
};

use super::{BRIDGES, drop_as, set};
use crate::model::Model;

/// This node's own, as other nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub node: String,
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

/// All addresses of the other nodes that live.
pub(super) fn sets(ends: &Ends, model: &Model) -> [Set; 2] {
    let others = model.nodes.values().filter(|node| *node.name != *ends.node);
    let mut addresses: Vec<IpAddr> =
        others.flat_map(|node| node.addresses.iter().copied().chain([node.vtep, node.mesh.ip()])).collect();
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
    vec![
        port("vxlan", Some(ends.vtep), VXLAN_SANDBOX, VXLAN_STRANGER),
        port("mesh", None, MESH_SANDBOX, MESH_STRANGER),
        Chain {
            name: "underlay".into(),
            base: Some(Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: RAW, accept: true }),
            rules: vec![
                goto(to(Transport::Udp, ends.vxlan_port), "vxlan"),
                goto(to(Transport::Udp, ends.mesh_port), "mesh"),
                goto(to(Transport::Tcp, ends.mesh_port), "mesh"),
            ],
        },
    ]
}

/// What is sent to one of the ports. A sandbox's packets would leave under this node's address and be believed by the
/// other, hence they are dropped on their way out, too; where they go to somebody else they are none of our business.
fn port(name: &str, own: Option<IpAddr>, sandbox: &str, stranger: &str) -> Chain {
    let from_sandbox = || Part::In(vec![Field::Iifname], BRIDGES.into());
    let accept =
        |parts: Vec<Part>| Rule::new(parts.into_iter().chain([Part::Verdict(Verdict::Accept)]).collect());
    let families = [(NODES_V4, Field::Ip4 as fn(End) -> Field, true), (NODES_V6, Field::Ip6, false)];
    let mut rules = vec![drop_as(vec![from_sandbox(), Part::ToHost], sandbox)];
    for (nodes, field, _) in families {
        let to_node = Part::In(vec![field(End::Destination)], nodes.into());
        rules.push(drop_as(vec![from_sandbox(), to_node], sandbox));
    }
    rules.push(accept(vec![from_sandbox()]));
    for (nodes, field, is_ipv4) in families {
        let mut parts = vec![Part::In(vec![field(End::Source)], nodes.into())];
        match own {
            Some(own) if own.is_ipv4() != is_ipv4 => continue,
            Some(own) => parts.push(Part::Is(field(End::Destination), Value::Address(own))),
            None => {}
        }
        rules.push(accept(parts));
    }
    rules.push(drop_as(vec![Part::ToHost], stranger));
    Chain { name: name.into(), base: None, rules }
}
