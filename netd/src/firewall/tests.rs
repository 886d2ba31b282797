//! Who reaches whom, packet by packet, by running the rules; and that their number stays.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::testing;

const OUTSIDE: &str = "eth0";

/// A packet as the rules see it.
#[derive(Clone, Copy)]
struct Packet {
    from: &'static str,
    to: &'static str,
    source: &'static str,
    state: u32,
}

const NEW: Packet = Packet { from: OUTSIDE, to: OUTSIDE, source: "192.0.2.1", state: ct_state::NEW };

#[derive(Debug, PartialEq)]
enum Outcome {
    Passed,
    Dropped,
    Masqueraded,
}

/// What becomes of a packet in that chain.
fn run(table: &Table, chain: &str, packet: Packet) -> Outcome {
    let chain = table.chains.iter().find(|it| it.name == chain).unwrap();
    for rule in &chain.rules {
        for part in &rule.parts {
            match part {
                Part::Verdict(Verdict::Accept) => return Outcome::Passed,
                Part::Verdict(Verdict::Drop) => return Outcome::Dropped,
                Part::Masquerade => return Outcome::Masqueraded,
                matching if matches(table, matching, packet) => {}
                _ => break,
            }
        }
    }
    assert!(chain.base.unwrap().accept);
    Outcome::Passed
}

fn matches(table: &Table, part: &Part, packet: Packet) -> bool {
    match part {
        Part::In(fields, set) => contains(table, set, fields, packet),
        Part::NotIn(fields, set) => !contains(table, set, fields, packet),
        Part::IsNot(field, value) => read(*field, packet).as_ref() != Some(value),
        Part::Connection(states) => packet.state & states != 0,
        other => panic!("no such match is expected: {other:?}"),
    }
}

fn contains(table: &Table, set: &str, fields: &[Field], packet: Packet) -> bool {
    let set = table.sets.iter().find(|it| it.name == set).unwrap();
    let Some(key) = fields.iter().map(|field| read(*field, packet)).collect::<Option<Vec<_>>>() else {
        return false;
    };
    set.elements.iter().any(|element| {
        element.key.iter().zip(&key).all(|(held, value)| match (held, value) {
            (Value::Network(network), Value::Address(address)) => network.contains(*address),
            (held, value) => held == value,
        })
    })
}

/// None where the packet has no such field: it is of the other family.
fn read(field: Field, packet: Packet) -> Option<Value> {
    let source: IpAddr = packet.source.parse().unwrap();
    match field {
        Field::Iifname => Some(Value::Name(packet.from.into())),
        Field::Oifname => Some(Value::Name(packet.to.into())),
        Field::Ip4(End::Source) => source.is_ipv4().then_some(Value::Address(source)),
        Field::Ip6(End::Source) => source.is_ipv6().then_some(Value::Address(source)),
        other => panic!("no such field is expected: {other:?}"),
    }
}

const SUBNETS: [(&str, &str); 2] = [("10.0.0.0/24", "10.0.0.1"), ("fd00::/64", "fd00::1")];

/// Networks on the bridges `nd-a`, `nd-b`: one to vary, and a plain one beside it.
fn beside_a_plain_one(vary: impl FnOnce(&mut Network)) -> Table {
    let mut varied = testing::network("a", &SUBNETS);
    vary(&mut varied);
    let plain = testing::network("b", &[("10.0.1.0/24", "10.0.1.1"), ("fd00:1::/64", "fd00:1::1")]);
    let mut model = Model::default();
    for network in [varied, plain] {
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
    }
    render(&model, None)
}

fn forwarded(table: &Table, from: &'static str, to: &'static str, state: u32) -> bool {
    run(table, "forward", Packet { from, to, state, ..NEW }) == Outcome::Passed
}

fn opens(table: &Table, from: &'static str, to: &'static str) -> bool {
    forwarded(table, from, to, ct_state::NEW)
}

#[test]
fn a_network_reaches_the_outside_and_gets_answers_but_no_calls() {
    let table = beside_a_plain_one(|_| {});
    assert!(opens(&table, "nd-a", OUTSIDE));
    assert!(forwarded(&table, OUTSIDE, "nd-a", ct_state::ESTABLISHED));
    assert!(forwarded(&table, OUTSIDE, "nd-a", ct_state::RELATED));
    assert!(!opens(&table, OUTSIDE, "nd-a"));
    assert!(!forwarded(&table, OUTSIDE, "nd-a", ct_state::UNTRACKED));
    assert!(!forwarded(&table, "nd-a", OUTSIDE, ct_state::INVALID));
    assert!(opens(&table, "nd-a", "nd-a"));
}

#[test]
fn what_is_not_ours_is_left_alone_whatever_its_state() {
    let table = beside_a_plain_one(|_| {});
    for state in [ct_state::NEW, ct_state::INVALID, ct_state::UNTRACKED] {
        assert!(forwarded(&table, "eth0", "eth1", state));
    }
}

#[test]
fn isolation_keeps_other_networks_out_and_lets_its_own_calls_go() {
    let table = beside_a_plain_one(|_| {});
    assert!(!opens(&table, "nd-a", "nd-b"));
    assert!(!opens(&table, "nd-b", "nd-a"));
    let open = beside_a_plain_one(|network| network.options.isolate = false);
    assert!(opens(&open, "nd-b", "nd-a"));
    assert!(forwarded(&open, "nd-a", "nd-b", ct_state::ESTABLISHED), "it answers");
    assert!(!opens(&open, "nd-a", "nd-b"), "the other one is isolated still");
    assert!(!opens(&open, OUTSIDE, "nd-a"), "open to networks, not to the outside");
}

#[test]
fn an_internal_network_forwards_nothing_in_any_state() {
    for isolate in [true, false] {
        let table = beside_a_plain_one(|network| {
            network.internal = true;
            network.options.isolate = isolate;
        });
        for state in [ct_state::NEW, ct_state::ESTABLISHED, ct_state::RELATED, ct_state::INVALID] {
            for other in [OUTSIDE, "nd-b"] {
                assert!(!forwarded(&table, "nd-a", other, state));
                assert!(!forwarded(&table, other, "nd-a", state));
            }
        }
        assert!(opens(&table, "nd-a", "nd-a"));
        assert!(opens(&table, "nd-b", OUTSIDE));
    }
}

#[test]
fn sources_are_hidden_on_the_way_out_only_and_only_where_asked() {
    let leaving = |table: &Table, source, to| {
        run(table, "postrouting", Packet { from: "nd-a", to, source, ..NEW }) == Outcome::Masqueraded
    };
    let table = beside_a_plain_one(|_| {});
    for source in ["10.0.0.2", "fd00::2", "10.0.1.2", "fd00:1::2"] {
        assert!(leaving(&table, source, OUTSIDE), "{source}");
        assert!(!leaving(&table, source, "nd-b"), "{source} keeps its address towards networks");
        assert!(!leaving(&table, source, "lo"), "{source} keeps its address on the host itself");
    }
    assert!(!leaving(&table, "192.0.2.9", OUTSIDE), "the host's own address");
    let routed = beside_a_plain_one(|network| network.options.masquerade = false);
    let internal = beside_a_plain_one(|network| network.internal = true);
    for table in [routed, internal] {
        assert!(!leaving(&table, "10.0.0.2", OUTSIDE));
        assert!(!leaving(&table, "fd00::2", OUTSIDE));
        assert!(leaving(&table, "10.0.1.2", OUTSIDE), "the other network's are");
    }
}

#[test]
fn networks_are_elements_and_the_rules_stay_the_same() {
    let none = render(&Model::default(), None);
    let two = beside_a_plain_one(|_| {});
    assert_eq!(none.chains, two.chains);
    assert_eq!(none.sets.iter().map(|set| set.elements.len()).sum::<usize>(), 0);
    let of_networks = two.sets.iter().filter(|set| !set.name.starts_with("vip"));
    let sizes: Vec<_> = of_networks.map(|set| (&*set.name, set.elements.len())).collect();
    assert_eq!(
        sizes,
        [
            ("bridges", 2),
            ("same_bridge", 2),
            ("internal", 0),
            ("isolated", 2),
            ("masquerade4", 2),
            ("masquerade6", 2),
        ]
    );
}

#[test]
fn a_services_address_is_for_its_network_the_host_and_who_is_let_in() {
    let mut model = Model::default();
    for (name, isolate) in [("a", true), ("b", false)] {
        let mut network = testing::network(name, &[]);
        network.options.isolate = isolate;
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
        let address = format!("10.0.{}.250", u8::from(isolate));
        let service = testing::service(name, &format!("id-{name}"), &address);
        model.services.insert(Arc::clone(&service.id), Arc::new(service));
    }
    let table = render(&model, None);
    let reaches = |from: &'static str, address: &str| {
        let chain = table.chains.iter().find(|chain| chain.name == "vips").unwrap();
        let holds = |part: &Part| match part {
            Part::Is(Field::Iifname, Value::Name(name)) => name == from,
            Part::In(fields, set) => {
                let key = fields.iter().map(|field| match field {
                    Field::Iifname => Value::Name(from.into()),
                    _ => Value::Address(address.parse().unwrap()),
                });
                let key: Vec<Value> = key.collect();
                let set = table.sets.iter().find(|it| it.name == *set).unwrap();
                set.elements.iter().any(|element| element.key == key)
            }
            other => panic!("no such match is expected: {other:?}"),
        };
        let verdict = chain.rules.iter().find_map(|rule| {
            let (last, matches) = rule.parts.split_last().unwrap();
            matches.iter().all(holds).then_some(last)
        });
        verdict == Some(&Part::Verdict(Verdict::Accept))
    };
    for (from, to_isolated, to_open) in
        [("lo", true, true), ("nd-a", true, true), ("nd-b", false, true), (OUTSIDE, false, false)]
    {
        assert_eq!(reaches(from, "10.0.1.250"), to_isolated, "{from}");
        assert_eq!(reaches(from, "10.0.0.250"), to_open, "{from}");
    }
}
