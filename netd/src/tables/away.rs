//! Nodes that are away (`Model::is_away`): their records go with their leases, and so nobody is led to them, but their
//! sandboxes may go on, and what these say to their neighbours on overlay networks has to be answered. So for overlay
//! networks such a node and its endpoints stay where they were until it is back, or is known to be gone. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Change, Id, Model, Node, Peer};

#[derive(Debug, Default)]
pub(crate) struct Away {
    nodes: BTreeMap<Id, Arc<Node>>,
    peers: BTreeMap<Id, Arc<Peer>>,
}

impl Away {
    /// What overlay networks are to follow, of changes that have led to `model`.
    pub(crate) fn follow(&mut self, changes: &[Change], model: &Model) -> Vec<Change> {
        let mut followed = Vec::new();
        for change in changes {
            match change {
                Change::Node { before: Some(node), after: None } if model.is_away(&node.name) => {
                    self.nodes.insert(Id::clone(&node.name), Arc::clone(node));
                }
                Change::Peer { before: Some(peer), after: None } if model.is_away(&peer.node) => {
                    self.peers.insert(Id::clone(&peer.id), Arc::clone(peer));
                }
                Change::Peer { after, .. } => {
                    if let Some(peer) = after {
                        self.peers.remove(&peer.id);
                    }
                    followed.push(change.clone());
                }
                Change::Node { .. } => followed.push(change.clone()),
                _ => {}
            }
        }
        let over: Vec<Id> = self.nodes.keys().filter(|node| !model.is_away(node)).cloned().collect();
        over.iter().for_each(|node| self.end(node, model, &mut followed));
        followed
    }

    /// Back, with all that it has, or gone for good.
    fn end(&mut self, node: &Id, model: &Model, followed: &mut Vec<Change>) {
        let before = self.nodes.remove(node);
        if !model.nodes.contains_key(node) {
            followed.push(Change::Node { before, after: None });
        }
        let (gone, kept) =
            std::mem::take(&mut self.peers).into_iter().partition(|(_, peer)| peer.node == *node);
        self.peers = kept;
        let gone: BTreeMap<Id, Arc<Peer>> = gone;
        followed.extend(gone.into_values().map(|peer| Change::Peer { before: Some(peer), after: None }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{Availability, Member};
    use crate::tables::{Known, Neighbours};
    use crate::testing;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    /// A model, and what overlay networks know by the changes that made it.
    struct Site {
        model: Model,
        away: Away,
        neighbours: Neighbours,
    }

    impl Site {
        fn new() -> Self {
            let model = Model { here: "here".into(), ..Model::default() };
            let mut site = Self { model, away: Away::default(), neighbours: Neighbours::default() };
            site.member(Availability::Active);
            site.arrive();
            site
        }

        fn tell(&mut self, changes: &[Change]) {
            for change in self.away.follow(changes, &self.model) {
                self.neighbours.apply(&change);
            }
        }

        fn member(&mut self, availability: Availability) {
            let (name, joined) = (Id::from("there"), SystemTime::UNIX_EPOCH);
            let member = Member { name, number: 1, term: 0, availability, joined, place: None };
            let after = Some(Arc::new(member));
            let before = self.model.members.insert("there".into(), after.clone().expect("made"));
            self.tell(&[Change::Member { before, after }]);
        }

        fn arrive(&mut self) {
            let (node, peer) = (Arc::new(node()), Arc::new(peer()));
            self.model.nodes.insert("there".into(), Arc::clone(&node));
            self.model.peers.insert("net/peer".into(), Arc::clone(&peer));
            let node = Change::Node { before: None, after: Some(node) };
            self.tell(&[node, Change::Peer { before: None, after: Some(peer) }]);
        }

        /// Its lease ends, and with it all that is bound to that.
        fn vanish(&mut self) {
            let changes = [
                Change::Peer { before: self.model.peers.remove("net/peer"), after: None },
                Change::Node { before: self.model.nodes.remove("there"), after: None },
            ];
            self.tell(&changes);
        }

        fn is_known(&self) -> bool {
            self.neighbours.known("net").vteps.contains_key(&MAC)
        }
    }

    fn node() -> Node {
        testing::node("there", [192, 0, 2, 1])
    }

    fn peer() -> Peer {
        let id = "net/peer".into();
        Peer { id, mac: MAC, v4: Some([10, 0, 0, 9].into()), ..testing::peer("s", "there", "net") }
    }

    #[test]
    fn endpoints_of_a_node_that_is_away_stay_known_until_it_is_back() {
        let mut site = Site::new();
        site.vanish();
        assert!(site.is_known());
        site.arrive();
        assert!(site.is_known());
        site.vanish();
        // Its sandbox has gone meanwhile.
        let node = Arc::new(node());
        site.model.nodes.insert("there".into(), Arc::clone(&node));
        site.tell(&[Change::Node { before: None, after: Some(node) }]);
        assert_eq!(site.neighbours.known("net"), Known::default());
        assert!(site.away.nodes.is_empty() && site.away.peers.is_empty());
    }

    #[test]
    fn nothing_is_known_of_a_node_that_was_removed_or_has_left() {
        let mut site = Site::new();
        site.vanish();
        site.member(Availability::Removed);
        assert_eq!(site.neighbours.known("net"), Known::default());
        assert!(site.away.nodes.is_empty() && site.away.peers.is_empty());

        let mut site = Site::new();
        site.model.left.insert("there".into());
        site.vanish();
        assert_eq!(site.neighbours.known("net"), Known::default());
    }

    #[test]
    fn an_endpoint_that_goes_while_its_node_lives_is_gone() {
        let mut site = Site::new();
        let before = site.model.peers.remove("net/peer");
        site.tell(&[Change::Peer { before, after: None }]);
        assert!(!site.is_known());
    }
}
