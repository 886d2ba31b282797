//! The host's table `inet netd`, as the records want it: isolation of networks, masquerade to the outside, and what the
//! ports between nodes take. Pure. Frames within overlay networks are for [`guard`], the table of that name of bridges.
//!
//! The rules are always the same; networks are elements of sets, so a packet meets as many rules on a host with a
//! thousand networks as on one with none. Published ports are sockets and have no rule here; a service's own address is
//! for its network and the host, and for other networks if that one is not isolated. Sandboxes of one network
//! are kept apart (`icc=false`) by their bridge ports, not here: their packets are not forwarded but bridged.

mod guard;
mod services;
mod underlay;
mod vips;

use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Family, Field, Hook, MaxSegment, Part, Rule, Set, Table, Type,
    Value, Verdict, ct_state,
};

use crate::model::{Driver, Model, Network};
pub(crate) use guard::{Elements, GUARD, render as guard};
use services::{VIPS, VIPS_AT_HOME, VIPS_OPEN};
pub(crate) use services::{Vip, change as vip_change, vip_set};
pub(crate) use underlay::Ends;
pub(crate) use vips::VipChange;

pub(crate) const TABLE: &str = "netd";

/// Bridges of ours.
pub(crate) const BRIDGES: &str = "bridges";
/// Each of them twice: what enters and leaves by the same one. With br_netfilter loaded, bridged packets come here.
const SAME: &str = "same_bridge";
/// Nothing is forwarded to or from these.
const INTERNAL: &str = "internal";
/// Other networks do not reach these.
const ISOLATED: &str = "isolated";
/// Subnets that leave the host under its own address.
const MASQUERADE_V4: &str = "masquerade4";
const MASQUERADE_V6: &str = "masquerade6";

/// Bridges whose packets may leave by a tunnel, smaller than others.
const CLAMPED: &str = "clamped";

/// NF_IP_PRI_MANGLE, NF_IP_PRI_FILTER and NF_IP_PRI_NAT_SRC.
const MANGLE: i32 = -150;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// `ends`: of a node of a cluster.
pub(crate) fn render(model: &Model, ends: Option<&Ends>) -> Table {
    let mut table = Table {
        family: Family::Inet,
        name: TABLE.into(),
        sets: sets(model),
        chains: vec![forward(), input(), vips(), postrouting()],
    };
    if let Some(ends) = ends {
        let overlays =
            model.networks.values().filter(|network| matches!(network.driver, Driver::Overlay { .. }));
        table.sets.push(set(CLAMPED, &[Type::Name], overlays.map(|network| vec![name(network)]).collect()));
        table.sets.extend(underlay::sets(model));
        table.chains.extend(underlay::chains(ends));
        table.chains.push(clamp());
    }
    table
}

/// Why packets of overlay networks, and those between nodes, are dropped.
pub(crate) fn reasons() -> impl Iterator<Item = &'static str> {
    guard::REASONS.into_iter().chain(underlay::REASONS)
}

fn sets(model: &Model) -> Vec<Set> {
    let bridges = |wanted: fn(&Network) -> bool| {
        let networks = model.networks.values().filter(move |network| wanted(network));
        networks.map(|network| vec![name(network)]).collect::<Vec<_>>()
    };
    let same = model.networks.values().map(|network| vec![name(network), name(network)]).collect();
    let mut sets = vec![
        set(BRIDGES, &[Type::Name], bridges(|_| true)),
        set(SAME, &[Type::Name, Type::Name], same),
        set(INTERNAL, &[Type::Name], bridges(|network| network.internal)),
        set(ISOLATED, &[Type::Name], bridges(|network| network.options.isolate)),
        Set { intervals: true, ..set(MASQUERADE_V4, &[Type::Ip4], masqueraded(model, true)) },
        Set { intervals: true, ..set(MASQUERADE_V6, &[Type::Ip6], masqueraded(model, false)) },
    ];
    sets.extend(services::sets(model));
    sets
}

fn masqueraded(model: &Model, v4: bool) -> Vec<Vec<Value>> {
    let networks = model.networks.values().filter(|network| network.options.masquerade && !network.internal);
    let subnets = networks.flat_map(|network| &network.subnets).map(|subnet| subnet.subnet);
    subnets.filter(|subnet| subnet.is_ipv4() == v4).map(|subnet| vec![Value::Network(subnet)]).collect()
}

/// What is decided here is decided for packets from or to our bridges only; all others go on to other people's rules.
fn forward() -> Chain {
    let (from, to) = (Field::Iifname, Field::Oifname);
    let from_in = |set: &str| Part::In(vec![from], set.into());
    let to_in = |set: &str| Part::In(vec![to], set.into());
    let from_not = |set: &str| Part::NotIn(vec![from], set.into());
    let to_not = |set: &str| Part::NotIn(vec![to], set.into());
    let rule = |parts: Vec<Part>, verdict, comment| {
        let parts = parts.into_iter().chain([Part::Verdict(verdict)]).collect();
        Rule::new(parts).comment(comment)
    };
    use Verdict::{Accept, Drop};
    Chain {
        name: "forward".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: FILTER, accept: true }),
        rules: vec![
            rule(vec![from_not(BRIDGES), to_not(BRIDGES)], Accept, "not ours"),
            rule(vec![Part::In(vec![from, to], SAME.into())], Accept, "within one network"),
            rule(vec![from_in(INTERNAL)], Drop, "out of an internal network"),
            rule(vec![to_in(INTERNAL)], Drop, "into an internal network"),
            rule(
                vec![Part::Connection(ct_state::ESTABLISHED | ct_state::RELATED)],
                Accept,
                "answers, and what belongs to them",
            ),
            rule(vec![Part::Connection(ct_state::INVALID)], Drop, "of no connection"),
            rule(vec![from_not(BRIDGES)], Drop, "from outside straight to a sandbox"),
            rule(vec![to_in(ISOLATED)], Drop, "from another network to an isolated one"),
            rule(vec![], Accept, "to the outside, or to a network that is not isolated"),
        ],
    }
}

/// A connection between an overlay network and the outside is told the smaller of the two sizes at once: what would have
/// to tell it later is often lost on the way.
fn clamp() -> Chain {
    let rule = |field| {
        Rule::new(vec![
            Part::In(vec![field], CLAMPED.into()),
            Part::TcpSyn,
            Part::SetMaxSegment(MaxSegment::OfRoute),
        ])
    };
    Chain {
        name: "clamp".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: MANGLE, accept: true }),
        rules: vec![rule(Field::Iifname), rule(Field::Oifname)],
    }
}

/// To the host: what is for the address of a service comes from where it may.
fn input() -> Chain {
    let to = |field, set: &str| {
        Rule::new(vec![Part::In(vec![field], set.into()), Part::Verdict(Verdict::Goto("vips".into()))])
            .comment("for a service's address")
    };
    Chain {
        name: "input".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Input, priority: FILTER, accept: true }),
        rules: vec![to(Field::Ip4(End::Destination), VIPS[0]), to(Field::Ip6(End::Destination), VIPS[1])],
    }
}

fn vips() -> Chain {
    use Verdict::{Accept, Drop};
    let rule = |parts: Vec<Part>, verdict, comment| {
        let parts = parts.into_iter().chain([Part::Verdict(verdict)]).collect();
        Rule::new(parts).comment(comment)
    };
    let from = Field::Iifname;
    let to = [Field::Ip4(End::Destination), Field::Ip6(End::Destination)];
    let home = |at: usize| vec![Part::In(vec![from, to[at]], VIPS_AT_HOME[at].into())];
    let open =
        |at: usize| vec![Part::In(vec![from], BRIDGES.into()), Part::In(vec![to[at]], VIPS_OPEN[at].into())];
    Chain {
        name: "vips".into(),
        base: None,
        rules: vec![
            rule(vec![Part::Is(from, Value::Name("lo".into()))], Accept, "from the host"),
            rule(home(0), Accept, "from its network"),
            rule(home(1), Accept, "from its network"),
            rule(open(0), Accept, "from a network of ours, to one that is not isolated"),
            rule(open(1), Accept, "from a network of ours, to one that is not isolated"),
            rule(vec![], Drop, "from anywhere else"),
        ],
    }
}

fn postrouting() -> Chain {
    // Over lo go the host's own packets to its own bridge addresses: they keep the address they have.
    let leaves = || {
        [
            Part::NotIn(vec![Field::Oifname], BRIDGES.into()),
            Part::IsNot(Field::Oifname, Value::Name("lo".into())),
            Part::Masquerade,
        ]
    };
    let masquerade = |source: Field, set: &str| {
        let parts = [Part::In(vec![source], set.into())].into_iter().chain(leaves()).collect();
        Rule::new(parts).comment("to the outside under the host's address")
    };
    Chain {
        name: "postrouting".into(),
        base: Some(Base {
            kind: ChainKind::Nat,
            hook: Hook::Postrouting,
            priority: SOURCE_NAT,
            accept: true,
        }),
        rules: vec![
            masquerade(Field::Ip4(End::Source), MASQUERADE_V4),
            masquerade(Field::Ip6(End::Source), MASQUERADE_V6),
        ],
    }
}

/// Counted under its comment.
fn drop_as(parts: Vec<Part>, reason: &str) -> Rule {
    Rule::new(parts.into_iter().chain([Part::Counter, Part::Verdict(Verdict::Drop)]).collect())
        .comment(reason)
}

fn set(name: &str, key: &[Type], keys: Vec<Vec<Value>>) -> Set {
    Set {
        name: name.into(),
        key: key.to_vec(),
        intervals: false,
        map: false,
        elements: keys.into_iter().map(Element::key).collect(),
    }
}

fn name(network: &Network) -> Value {
    Value::Name(network.bridge.to_string())
}

#[cfg(test)]
mod tests;
