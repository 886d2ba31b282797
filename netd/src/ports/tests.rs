//! What a user notices when host ports are given out.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{ClientAddress, PublishBy};
use crate::testing;

fn owner(name: &str) -> Owner {
    Owner { id: format!("id-{name}").into(), kind: "sandbox", name: name.into() }
}

fn publish(protocol: Protocol, addresses: &[&str], first: u16, count: u16) -> Publish {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Publish {
        protocol,
        addresses,
        first,
        target: 80,
        count,
        ephemeral: false,
        by: PublishBy::Bind,
        client_address: ClientAddress::Host,
    }
}

const ANY: [&str; 2] = ["0.0.0.0", "::"];

#[test]
fn a_clash_names_the_owner_and_what_it_holds() {
    let mut ports = Ports::default();
    ports.claim(&owner("web"), &publish(Protocol::Tcp, &ANY, 8080, 1)).unwrap();
    let clash = ports.claim(&owner("shop"), &publish(Protocol::Tcp, &ANY, 8079, 3)).unwrap_err();
    assert_eq!(clash.to_string(), "host port 8080 is published already by sandbox web (tcp/0.0.0.0:8080)");
    assert_eq!(clash.owner, owner("web"));
}

#[test]
fn the_unspecified_address_clashes_with_every_other_of_its_family_in_both_orders() {
    for (first, second, clash) in [
        ("0.0.0.0", "127.0.0.1", true),
        ("127.0.0.1", "0.0.0.0", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.1.2", "127.0.1.3", false),
        ("::", "::1", true),
        ("::1", "::", true),
        ("0.0.0.0", "::", false),
        ("::", "127.0.0.1", false),
    ] {
        let mut ports = Ports::default();
        ports.claim(&owner("a"), &publish(Protocol::Udp, &[first], 53, 1)).unwrap();
        let result = ports.claim(&owner("b"), &publish(Protocol::Udp, &[second], 53, 1));
        assert_eq!(result.is_err(), clash, "{first} then {second}");
    }
}

#[test]
fn tcp_and_udp_are_apart() {
    let mut ports = Ports::default();
    ports.claim(&owner("a"), &publish(Protocol::Tcp, &ANY, 8000, 81)).unwrap();
    ports.claim(&owner("b"), &publish(Protocol::Udp, &ANY, 8000, 81)).unwrap();
}

#[test]
fn a_range_gives_its_first_free_port_until_it_is_full() {
    let mut ports = Ports::default();
    let addresses = publish(Protocol::Tcp, &ANY, 0, 1).addresses;
    for (name, wanted) in [("a", Some(9090)), ("b", Some(9091)), ("c", Some(9092)), ("d", None)] {
        let free = ports.free(Protocol::Tcp, &addresses, 9090..=9092, 1).next();
        assert_eq!(free, wanted);
        if let Some(port) = free {
            ports.claim(&owner(name), &publish(Protocol::Tcp, &ANY, port, 1)).unwrap();
        }
    }
    ports.release("id-b", &publish(Protocol::Tcp, &ANY, 9091, 1));
    assert_eq!(ports.free(Protocol::Tcp, &addresses, 9090..=9092, 1).next(), Some(9091));
}

#[test]
fn a_run_of_ports_fits_into_the_range_up_to_the_last_port() {
    let ports = Ports::default();
    let any = publish(Protocol::Tcp, &ANY, 0, 1).addresses;
    assert_eq!(ports.free(Protocol::Tcp, &any, 65_533..=65_535, 2).collect::<Vec<_>>(), [65_533, 65_534]);
    assert_eq!(ports.free(Protocol::Tcp, &any, 65_533..=65_535, 4).next(), None);
}

#[test]
fn one_number_serves_both_families() {
    let mut ports = Ports::default();
    ports.claim(&owner("a"), &publish(Protocol::Tcp, &["::1"], 9090, 1)).unwrap();
    let any = publish(Protocol::Tcp, &ANY, 0, 1).addresses;
    assert_eq!(ports.free(Protocol::Tcp, &any, 9090..=9092, 1).next(), Some(9091));
}

#[test]
fn ephemeral_ports_walk_forward_and_come_round() {
    let mut ports = Ports::default();
    let any = publish(Protocol::Tcp, &ANY, 0, 1).addresses;
    let take = |ports: &mut Ports| {
        let port = ports.ephemeral(Protocol::Tcp, &any, 1).next().unwrap();
        let taken = Publish { ephemeral: true, ..publish(Protocol::Tcp, &ANY, port, 1) };
        ports.claim(&owner("a"), &taken).unwrap();
        taken
    };
    assert_eq!(take(&mut ports).first, 49152);
    let second = take(&mut ports);
    ports.release("id-a", &second);
    assert_eq!(take(&mut ports).first, 49154, "the port just given up rests");
    let last = Publish { ephemeral: true, ..publish(Protocol::Tcp, &ANY, 65_535, 1) };
    ports.claim(&owner("a"), &last).unwrap();
    assert_eq!(take(&mut ports).first, 49153);
    let all: Vec<u16> = ports.ephemeral(Protocol::Tcp, &any, 1).collect();
    assert_eq!(all.len(), usize::from(65_535 - 49_152_u16) + 1 - 4, "every free one once");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn only_the_owner_gives_a_port_back() {
    let mut ports = Ports::default();
    let taken = publish(Protocol::Tcp, &ANY, 80, 1);
    ports.claim(&owner("a"), &taken).unwrap();
    ports.release("id-b", &taken);
    assert!(ports.claim(&owner("b"), &taken).is_err());
    ports.release("id-a", &taken);
    ports.release("id-a", &taken);
    ports.claim(&owner("b"), &taken).unwrap();
}

#[test]
fn the_table_is_rebuilt_from_the_records() {
    let mut sandbox = testing::sandbox("web");
    sandbox.publishes = vec![
        publish(Protocol::Tcp, &ANY, 8080, 2),
        Publish { ephemeral: true, ..publish(Protocol::Tcp, &ANY, 50_000, 1) },
    ];
    let mut model = Model::default();
    model.sandboxes.insert(Arc::clone(&sandbox.id), Arc::new(sandbox));
    let mut ports = Ports::rebuild(&model);
    let clash = ports.claim(&owner("b"), &publish(Protocol::Tcp, &["::1"], 8081, 1)).unwrap_err();
    assert_eq!(&*clash.owner.name, "web");
    let any = publish(Protocol::Tcp, &ANY, 0, 1).addresses;
    assert_eq!(ports.ephemeral(Protocol::Tcp, &any, 1).next(), Some(50_001));
}

proptest! {
    #[test]
    fn what_is_held_never_overlaps(
        steps in proptest::collection::vec((0_usize..4, 1_u16..12, 1_u16..4, any::<bool>()), 0..60),
    ) {
        const ADDRESSES: [&[&str]; 4] = [&["0.0.0.0"], &["127.0.0.1"], &["10.0.0.1", "::1"], &["0.0.0.0", "::"]];
        let mut ports = Ports::default();
        let mut held: Vec<Publish> = Vec::new();
        for (addresses, first, count, release) in steps {
            let wanted = publish(Protocol::Tcp, ADDRESSES[addresses], first, count);
            if release && !held.is_empty() {
                let gone = held.swap_remove(usize::from(first) % held.len());
                ports.release("id-a", &gone);
                continue;
            }
            let overlaps = held.iter().any(|other| {
                let ports = wanted.pairs().any(|(port, _)| other.pairs().any(|(held, _)| held == port));
                ports && wanted.addresses.iter().any(|&new| other.addresses.iter().any(|&old| clashes(new, old)))
            });
            prop_assert_eq!(ports.claim(&owner("a"), &wanted).is_err(), overlaps, "{:?} on {:?}", wanted, held);
            if !overlaps {
                held.push(wanted);
            }
        }
    }
}
