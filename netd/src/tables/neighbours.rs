//! Where endpoints of other nodes are, network by network: which node has a MAC address, which MAC address has an IP
//! address. A change of a peer touches its own few entries, one of a node those of its peers; the work does not grow
//! with the number of endpoints. Pure.
//!
//! Two peers may claim one address while one goes and the other comes, and two users may choose one MAC address: of
//! several, the one that was made last has it, and when it goes the other does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::{Change, Id, Indexed, Peer, PeerKey};

pub(crate) type Mac = [u8; 6];

/// All that one network's tunnel and bridge are to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The tunnel end of the node that has it.
    pub vteps: BTreeMap<Mac, IpAddr>,
    pub macs: BTreeMap<IpAddr, Mac>,
}

/// One entry that is different now; none: it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Vtep(Mac, Option<IpAddr>),
    Mac(IpAddr, Option<Mac>),
}

#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    peers: Indexed<Peer>,
    vteps: BTreeMap<Id, IpAddr>,
    networks: BTreeMap<Id, BTreeMap<Key, BTreeSet<Claim>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Mac(Mac),
    Address(IpAddr),
}

/// In the order of precedence, the last wins.
type Claim = (SystemTime, Id);

impl Neighbours {
    /// What becomes different on each network.
    pub(crate) fn apply(&mut self, change: &Change) -> BTreeMap<Id, Vec<Entry>> {
        match change {
            Change::Peer { before, after } => {
                let peers: Vec<&Arc<Peer>> = before.iter().chain(after).collect();
                let touched = peers.into_iter().flat_map(|peer| keys(peer)).collect();
                self.differences(touched, |all| {
                    // Not what the change says was there, but what we took in.
                    if let Some(known) = before.as_ref().and_then(|peer| all.peers.remove(&peer.id)) {
                        all.retract(&known);
                    }
                    if let Some(peer) = after {
                        if let Some(known) = all.peers.insert(Arc::clone(&peer.id), Arc::clone(peer)) {
                            all.retract(&known);
                        }
                        all.claim(peer);
                    }
                })
            }
            Change::Node { before, after } => {
                let Some(node) = before.as_ref().or(after.as_ref()).map(|node| Arc::clone(&node.name)) else {
                    return BTreeMap::new();
                };
                let vtep = after.as_ref().map(|node| node.vtep);
                if self.vteps.get(&node).copied() == vtep {
                    return BTreeMap::new();
                }
                let peers = self.peers.by(&PeerKey::Of(Arc::clone(&node)));
                let touched = peers.flat_map(|peer| keys(peer)).collect();
                self.differences(touched, |all| {
                    match vtep {
                        Some(vtep) => all.vteps.insert(node, vtep),
                        None => all.vteps.remove(&node),
                    };
                })
            }
            Change::Network { .. }
            | Change::Sandbox { .. }
            | Change::Service { .. }
            | Change::Findings { .. }
            | Change::Member { .. } => BTreeMap::new(),
        }
    }

    /// Everything of one network, for a tunnel that has just been made or has to be put right.
    pub(crate) fn known(&self, network: &str) -> Known {
        let mut known = Known::default();
        let keys = self.networks.get(network).into_iter().flat_map(BTreeMap::keys);
        for entry in keys.map(|key| self.entry(network, *key)) {
            match entry {
                Entry::Vtep(mac, Some(vtep)) => drop(known.vteps.insert(mac, vtep)),
                Entry::Mac(address, Some(mac)) => drop(known.macs.insert(address, mac)),
                Entry::Vtep(_, None) | Entry::Mac(_, None) => {}
            }
        }
        known
    }

    fn differences(
        &mut self,
        touched: BTreeSet<(Id, Key)>,
        change: impl FnOnce(&mut Self),
    ) -> BTreeMap<Id, Vec<Entry>> {
        let before: Vec<Entry> = touched.iter().map(|(network, key)| self.entry(network, *key)).collect();
        change(self);
        let mut differences: BTreeMap<Id, Vec<Entry>> = BTreeMap::new();
        for ((network, key), before) in touched.into_iter().zip(before) {
            let after = self.entry(&network, key);
            if after != before {
                differences.entry(network).or_default().push(after);
            }
        }
        differences
    }

    /// What the key leads to. A peer whose node does not live leads nowhere.
    fn entry(&self, network: &str, key: Key) -> Entry {
        let claims = self.networks.get(network).and_then(|keys| keys.get(&key));
        let mut held = claims.into_iter().flatten().rev().filter_map(|(_, id)| {
            let peer = self.peers.get(id)?;
            Some((peer.mac, *self.vteps.get(&peer.node)?))
        });
        let holder = held.next();
        match key {
            Key::Mac(mac) => Entry::Vtep(mac, holder.map(|(_, vtep)| vtep)),
            Key::Address(address) => Entry::Mac(address, holder.map(|(mac, _)| mac)),
        }
    }

    fn claim(&mut self, peer: &Peer) {
        for (network, key) in keys(peer) {
            let claims = self.networks.entry(network).or_default().entry(key).or_default();
            claims.insert((peer.joined, Arc::clone(&peer.id)));
        }
    }

    fn retract(&mut self, peer: &Peer) {
        for (network, key) in keys(peer) {
            let Some(all) = self.networks.get_mut(&network) else { continue };
            if let Some(claims) = all.get_mut(&key) {
                claims.remove(&(peer.joined, Arc::clone(&peer.id)));
                if claims.is_empty() {
                    all.remove(&key);
                }
            }
            if all.is_empty() {
                self.networks.remove(&network);
            }
        }
    }
}

fn keys(peer: &Peer) -> impl Iterator<Item = (Id, Key)> {
    let addresses = [peer.v4.map(IpAddr::V4), peer.v6.map(IpAddr::V6)].into_iter().flatten();
    let keys = [Key::Mac(peer.mac)].into_iter().chain(addresses.map(Key::Address));
    keys.map(|key| (Arc::clone(&peer.network), key))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Node;
    use crate::testing;

    fn node(number: u8, vtep: u8) -> Arc<Node> {
        Arc::new(testing::node(&format!("node{number}"), [192, 0, 2, vtep]))
    }

    fn peer(id: u8, network: u8, node: u8, address: u8, mac: u8, joined: u8) -> Arc<Peer> {
        Arc::new(Peer {
            id: format!("peer{id}").into(),
            joined: SystemTime::UNIX_EPOCH + Duration::from_secs(joined.into()),
            mac: [2, 0, 0, 0, 0, mac],
            v4: Some(Ipv4Addr::new(10, 0, 0, address)),
            ..testing::peer(&format!("s{id}"), &format!("node{node}"), &format!("net{network}"))
        })
    }

    #[derive(Default)]
    struct World {
        peers: BTreeMap<Id, Arc<Peer>>,
        nodes: BTreeMap<Id, Arc<Node>>,
        neighbours: Neighbours,
        kernel: BTreeMap<Id, Known>,
    }

    impl World {
        fn apply(&mut self, change: &Change) -> usize {
            let mut entries = 0;
            for (network, differences) in self.neighbours.apply(change) {
                let known = self.kernel.entry(network).or_default();
                entries += differences.len();
                for entry in differences {
                    match entry {
                        Entry::Vtep(mac, Some(vtep)) => drop(known.vteps.insert(mac, vtep)),
                        Entry::Vtep(mac, None) => assert!(known.vteps.remove(&mac).is_some()),
                        Entry::Mac(address, Some(mac)) => drop(known.macs.insert(address, mac)),
                        Entry::Mac(address, None) => assert!(known.macs.remove(&address).is_some()),
                    }
                }
            }
            entries
        }

        fn peer(&mut self, id: &Id, after: Option<Arc<Peer>>) -> usize {
            let before = match &after {
                Some(peer) => self.peers.insert(Arc::clone(id), Arc::clone(peer)),
                None => self.peers.remove(id),
            };
            self.apply(&Change::Peer { before, after })
        }

        fn node(&mut self, id: &Id, after: Option<Arc<Node>>) -> usize {
            let before = match &after {
                Some(node) => self.nodes.insert(Arc::clone(id), Arc::clone(node)),
                None => self.nodes.remove(id),
            };
            self.apply(&Change::Node { before, after })
        }

        /// As the records say, from nothing.
        fn wanted(&self, network: &str) -> Known {
            let mut peers: Vec<_> = self.peers.values().filter(|peer| *peer.network == *network).collect();
            peers.sort_by_key(|peer| (peer.joined, Arc::clone(&peer.id)));
            let mut known = Known::default();
            for peer in peers {
                let Some(node) = self.nodes.get(&peer.node) else { continue };
                known.vteps.insert(peer.mac, node.vtep);
                known.macs.extend(peer.v4.map(|v4| (IpAddr::V4(v4), peer.mac)));
            }
            known
        }
    }

    #[test]
    fn an_address_that_moves_is_never_missing() {
        let mut world = World::default();
        world.node(&"node1".into(), Some(node(1, 1)));
        world.node(&"node2".into(), Some(node(2, 2)));
        assert_eq!(world.peer(&"peer1".into(), Some(peer(1, 1, 1, 5, 5, 1))), 2);
        // The new one is told of before the end of the old one.
        assert_eq!(world.peer(&"peer2".into(), Some(peer(2, 1, 2, 5, 5, 2))), 1, "only the way there");
        assert_eq!(world.peer(&"peer1".into(), None), 0);
        let known = world.neighbours.known("net1");
        assert_eq!(known.vteps[&[2, 0, 0, 0, 0, 5]], IpAddr::from([192, 0, 2, 2]));
        assert_eq!(world.node(&"node2".into(), None), 2, "nobody is at a node that does not live");
        assert_eq!(world.neighbours.known("net1"), Known::default());
    }

    proptest! {
        #[test]
        fn differences_add_up_to_what_the_records_say(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0..5_u8, 0..2_u8, 0..3_u8, 0..4_u8, 0..4_u8), 0..60),
        ) {
            let mut world = World::default();
            for (is_node, stays, id, network, at, address, mac) in steps {
                if is_node {
                    world.node(&format!("node{at}").into(), stays.then(|| node(at, address)));
                } else {
                    let after = stays.then(|| peer(id, network, at, address, mac, id % 2));
                    world.peer(&format!("peer{id}").into(), after);
                }
                for network in ["net0", "net1"] {
                    let wanted = world.wanted(network);
                    prop_assert_eq!(&world.neighbours.known(network), &wanted);
                    prop_assert_eq!(world.kernel.get(network).cloned().unwrap_or_default(), wanted);
                }
            }
            let all: Vec<Id> = world.peers.keys().cloned().collect();
            for id in all {
                world.peer(&id, None);
            }
            prop_assert!(world.neighbours.networks.is_empty(), "nothing is left of what went");
        }
    }
}
