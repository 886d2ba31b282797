//! The door that records of the cluster's store come in through: another version of netd, a broken node, or somebody
//! with etcd's password may have written anything. A node with a sound model takes one such record in and loses it again.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::{
    Batch, Entry, Key, KeyChange, MESH_SECRET, Record, Records, Value, encode, key_of, left_key,
};
use super::ID;
use crate::firewall;
use crate::ipam::{Holder, Leases};
use crate::model::{
    Change, Driver, Id, Lease, LeaseHolder, Member, Model, Network, Node, Peer, Place, Service,
};
use crate::tables::{Neighbours, Projection, mesh};
use crate::testing;

const HERE: &str = "here";
pub(super) const NETWORK: &str = "id-app";
const ADDRESS: &str = "10.9.0.77";

/// Reads `bytes` as each kind of record that nodes share, with [`ID`] as its id or the second part of that. What is
/// believed can be written and read again, everything that is derived from records can be derived from it, and nothing
/// of it stays when it goes.
pub fn shared_record(bytes: &[u8]) {
    let mut node = Follower::sound();
    let before = node.projection.whole();
    for key in keys() {
        let put = KeyChange::Put(Entry { key: Arc::clone(&key), value: bytes.into(), revision: 9 });
        node.take_in(vec![put]);
        let believed = !node.records.refused().contains_key(&key);
        if believed {
            node.derive();
        }
        node.take_in(vec![KeyChange::Deleted { key: Arc::clone(&key) }]);
        assert!(!node.records.refused().contains_key(&key), "what is gone is refused no more");
        if believed {
            node.derive();
            assert!(node.projection.whole() == before, "{key} has left something behind");
        }
    }
}

fn keys() -> [Key; 9] {
    [
        key_of::<Network>(ID),
        key_of::<Service>(ID),
        key_of::<Node>(ID),
        key_of::<Member>(ID),
        key_of::<Peer>(&format!("{NETWORK}/{ID}")),
        key_of::<Lease>(&format!("{NETWORK}/{ADDRESS}")),
        MESH_SECRET.into(),
        format!("closing/{NETWORK}").into(),
        left_key("there"),
    ]
}

/// What a node makes of the records that it is told.
struct Follower {
    records: Records,
    projection: Projection,
    neighbours: Neighbours,
    revision: u64,
}

impl Follower {
    /// With a network of the cluster, a sandbox on it, a service, another node and its endpoint.
    fn sound() -> Self {
        let records = Records::of(HERE.into());
        let (projection, neighbours) = (Projection::of(HERE.into()), Neighbours::default());
        let mut node = Self { records, projection, neighbours, revision: 0 };
        let put = |key: Key, value| KeyChange::Put(Entry { key, value, revision: 1 });
        let mut sandbox = testing::sandbox("web");
        sandbox.endpoints.push(testing::endpoint_at(NETWORK, &["10.9.0.2"]));
        let key = key_of::<crate::model::Sandbox>(&sandbox.id);
        let local = Batch { revision: 1, changes: vec![put(key, encode(&sandbox).expect("a sandbox"))] };
        let changes = node.records.apply(&local).expect("a sound record");
        let shared = sound_records().into_iter().map(|(key, value)| put(key, value)).collect();
        node.follow(&changes);
        node.take_in(shared);
        assert!(node.records.refused().is_empty(), "{:?}", node.records.refused());
        node
    }

    fn take_in(&mut self, changes: Vec<KeyChange>) {
        self.revision += 10;
        let changes = self.records.apply_shared(&Batch { revision: self.revision, changes }, false);
        self.follow(&changes);
    }

    fn follow(&mut self, changes: &[Change]) {
        self.projection.apply(changes);
        for change in changes {
            self.neighbours.apply(change);
        }
    }

    fn derive(&self) {
        let model = self.records.model();
        mesh(model, None);
        firewall::render(model, None);
        firewall::guard(model, &firewall::Elements::default());
        for network in model.networks.values() {
            self.neighbours.known(&network.id);
            let mut leases = Leases::shared(network, &model.here);
            for (address, lease) in model.leases.get(&network.id).into_iter().flatten() {
                leases.note(*address, Holder::from(&**lease));
                leases.forget(*address);
            }
        }
        written_again(model);
    }
}

/// What was read says the same when it is written.
fn written_again(model: &Model) {
    fn same<R: Record + PartialEq + std::fmt::Debug>(record: &Arc<R>) {
        let value = encode(&**record).expect("what was read can be written");
        let entry = Entry { key: key_of::<R>(record.id()), value, revision: 1 };
        assert_eq!(super::super::records::decode::<R>(&entry).expect("and read again"), **record);
    }
    model.networks.get(ID).into_iter().for_each(same);
    model.services.get(ID).into_iter().for_each(same);
    model.nodes.get(ID).into_iter().for_each(same);
    model.members.get(ID).into_iter().for_each(same);
    model.peers.get(&*format!("{NETWORK}/{ID}")).into_iter().for_each(same);
    let leases = model.leases.get(NETWORK);
    leases.and_then(|leases| leases.get(&ADDRESS.parse::<IpAddr>().ok()?)).into_iter().for_each(same);
}

/// One of each kind, under the ids that are tried, in the order of [`keys`].
pub(super) fn tried() -> [Value; 9] {
    fn of<R: Record>(record: &R) -> Value {
        encode(record).expect("a sound record")
    }
    [
        of(&Network { id: ID.into(), ..network("back") }),
        of(&Service { id: ID.into(), ..service("front") }),
        of(&node(ID)),
        of(&member(ID, 3)),
        of(&peer(ID)),
        of(&lease(ADDRESS)),
        b"0b".repeat(32).into(),
        b"there"[..].into(),
        b"down"[..].into(),
    ]
}

pub(super) fn sound_records() -> Vec<(Key, Value)> {
    fn of<R: Record>(record: &R) -> (Key, Value) {
        (key_of::<R>(record.id()), encode(record).expect("a sound record"))
    }
    let mut records: Vec<_> = [HERE, "there"].into_iter().map(|name| of(&node(name))).collect();
    records.extend([(HERE, 1), ("there", 2)].map(|(name, number)| of(&member(name, number))));
    records.extend([of(&network("app")), of(&service("shop")), of(&peer("there")), of(&lease("10.9.0.3"))]);
    records.push((MESH_SECRET.into(), "0a".repeat(32).into_bytes().into()));
    records
}

fn network(name: &str) -> Network {
    let subnets = [("10.9.0.0/24", "10.9.0.1"), ("fd00::/120", "fd00::1")];
    Network { driver: Driver::Overlay { vni: 4097 }, ..testing::network(name, &subnets) }
}

fn service(name: &str) -> Service {
    testing::service(name, NETWORK, "10.9.0.250")
}

fn node(name: &str) -> Node {
    testing::node(name, [192, 0, 2, name.len() as u8])
}

fn member(name: &str, number: u16) -> Member {
    let address = IpAddr::from([192, 0, 2, 7]);
    let place = Some(Place { addresses: vec![address], mesh: (address, 6383).into() });
    Member { place, ..testing::member(name, number) }
}

fn peer(endpoint: &str) -> Peer {
    Peer {
        id: format!("{NETWORK}/{endpoint}").into(),
        endpoint: endpoint.into(),
        v4: "10.9.0.3".parse().ok(),
        v6: "fd00::3".parse().ok(),
        names: vec!["db".into(), "store".into()],
        service: Some("id-shop".into()),
        ..testing::peer("db", "there", NETWORK)
    }
}

fn lease(address: &str) -> Lease {
    let holder = LeaseHolder::Sandbox(Id::from("id-db"));
    Lease { id: format!("{NETWORK}/{address}").into(), node: "there".into(), holder, name: "db".into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sound;
    use super::super::tests::near_any;
    use super::*;

    #[test]
    fn what_the_door_is_tried_with_passes_it() {
        for (key, value) in keys().into_iter().zip(tried()) {
            let mut node = Follower::sound();
            node.take_in(vec![KeyChange::Put(Entry { key, value, revision: 9 })]);
            assert!(node.records.refused().is_empty(), "{:?}", node.records.refused());
        }
    }

    proptest! {
        #[test]
        fn no_record_of_others_does_harm(near in near_any(sound::shared_records), raw: Vec<u8>) {
            shared_record(&near);
            shared_record(&raw);
        }
    }
}
