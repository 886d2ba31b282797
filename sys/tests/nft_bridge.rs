//! Tables of the family `bridge`: what stands in frames, what was counted, and several sets changed at once.

mod lab;

use lab::{machine, run};
use netd_sys::nft::{
    Base, Chain, ChainKind, Element, End, Family, Field, Hook, Nft, Part, Rule, Set, SetChange, Table,
    Transport, Type, Value, Verdict,
};

fn name(text: &str) -> Value {
    Value::Name(text.into())
}

fn set(name: &str, key: &[Type], elements: Vec<Vec<Value>>) -> Set {
    let elements = elements.into_iter().map(Element::key).collect();
    Set { name: name.into(), key: key.to_vec(), intervals: false, map: false, elements }
}

fn accept() -> Part {
    Part::Verdict(Verdict::Accept)
}

/// Of another family and the same name.
fn other() -> Table {
    Table { name: "netd".into(), ..Table::default() }
}

/// What a port of a bridge may call itself, in every header that says so.
fn bridge_table() -> Table {
    let mac = [2, 0, 0, 0, 0, 1];
    let port = |value| vec![name("nv1"), value];
    let address = |text: &str| Value::Address(text.parse().expect("address"));
    let sets = vec![
        set("macs", &[Type::Name, Type::Mac], vec![port(Value::Mac(mac))]),
        set("addresses4", &[Type::Name, Type::Ip4], vec![port(address("10.9.0.2"))]),
        set("addresses6", &[Type::Name, Type::Ip6], vec![port(address("fd09::2"))]),
        set("types", &[Type::EtherType], vec![vec![Value::EtherType(0x0800)]]),
    ];
    let has = |field, set: &str| Part::In(vec![Field::Iifname, field], set.into());
    let counted = |part, what: &str| Rule::new(vec![part, Part::Counter]).comment(what);
    let rules = vec![
        Rule::new(vec![Part::IsNot(Field::Iifname, Value::Prefix("nv".into())), accept()]),
        counted(has(Field::EtherSource, "macs"), "own-mac"),
        counted(Part::In(vec![Field::EtherType], "types".into()), "ipv4"),
        counted(has(Field::Ip4(End::Source), "addresses4"), "ipv4"),
        counted(Part::Is(Field::Port(End::Source, Transport::Udp), Value::Port(67)), "dhcp"),
        counted(Part::ArpForm, "arp"),
        Rule::new(vec![has(Field::ArpSender, "macs"), has(Field::ArpSenderIp4, "addresses4"), accept()]),
        counted(Part::Is(Field::Icmp6Type, Value::Protocol(134)), "router"),
        counted(Part::Is(Field::Ip6Length, Value::Number(24)), "bare"),
        counted(Part::Is(Field::NeighbourOption, Value::Number(0x0101)), "option"),
        Rule::new(vec![
            has(Field::NeighbourTarget, "addresses6"),
            has(Field::NeighbourMac, "macs"),
            accept(),
        ]),
        Rule::new(vec![Part::Counter]),
    ];
    let base = Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -300, accept: true };
    let chains = vec![Chain { name: "guard".into(), base: Some(base), rules }];
    Table { family: Family::Bridge, name: "netd".into(), sets, chains }
}

#[test]
fn a_table_of_a_bridge_stands_beside_its_namesake_and_counts() {
    machine(|| {
        let mut nft = Nft::open().expect("open");
        nft.replace(&other()).expect("replace");
        let table = bridge_table();
        assert_eq!(nft.counters(&table).expect("none there"), [].into());
        nft.replace(&table).expect("replace");
        nft.replace(&table).expect("and again");
        assert_eq!(run("nft list table bridge netd"), include_str!("nft/bridge.golden"));
        assert!(run("nft list tables").contains("table inet netd"));

        nft.delete("netd").expect("its namesake stays");
        assert_eq!(run("nft list tables").trim(), "table bridge netd");
        run("ip link add nd-1 type bridge; ip link set nd-1 up; ip netns add web");
        run("ip link add nv1 master nd-1 type veth peer name eth0 netns web; ip link set nv1 up");
        run("ip -n web link set eth0 address 02:00:00:00:00:01 up; ip -n web addr add 10.9.0.2/24 dev eth0");
        run("ip addr add 10.9.0.1/24 dev nd-1; ip netns exec web ping -q -c3 -i0.2 -W5 10.9.0.1");
        let counted = nft.counters(&table).expect("counted");
        let of = |reason: &str| counted.get(reason).copied().unwrap_or_default();
        assert!(of("own-mac") >= 4 && of("arp") >= 1, "{counted:?}");
        assert_eq!((of("ipv4"), of("dhcp"), of("option")), (6, 0, 0), "two rules of one name: {counted:?}");

        let element = |mac| Element::key(vec![name("nv2"), Value::Mac(mac)]);
        let (old, new) = ([element([2; 6])], [element([4; 6]), element([6; 6])]);
        nft.change(&table, &[SetChange { set: "macs", add: &old, remove: &[] }]).expect("added");
        let both = SetChange { set: "macs", add: &new, remove: &old };
        let missing = SetChange {
            set: "addresses4",
            add: &[],
            remove: &[Element::key(vec![name("nv9"), Value::Address([1; 4].into())])],
        };
        nft.change(&table, &[both, missing]).expect_err("one is not there, so nothing happens");
        assert!(run("nft list set bridge netd macs").contains("02:02:02:02:02:02"));
        nft.change(&table, &[both]).expect("changed");
        let shown = run("nft list set bridge netd macs");
        assert!(shown.contains("06:06:06:06:06:06") && !shown.contains("02:02:02:02:02:02"), "{shown}");
        nft.delete(&table).expect("deleted");
        assert_eq!(run("nft list tables"), "");
    });
}
