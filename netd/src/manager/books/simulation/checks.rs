//! What holds at every moment of the simulation, and what when it has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::cluster::Standing;
use super::super::own;
use super::{Host, World};
use crate::model::{Availability, Id, Lease, Member, Network, Node, Peer, Scope};
use crate::store::{Key, key_of};

impl World {
    pub(super) fn check(&self) {
        self.hosts.iter().for_each(Host::check_settled);
        let mut seen = BTreeMap::new();
        for (network, address, node) in self.serving() {
            if let Some(other) = seen.insert((Arc::clone(&network), address), Arc::clone(&node)) {
                panic!("{address} of {network} is on {other} and on {node}");
            }
        }
        let networks: Vec<Network> = self.records().into_values().collect();
        for (index, one) in networks.iter().enumerate() {
            for other in &networks[index + 1..] {
                assert_ne!(one.name, other.name);
                assert_ne!(one.driver, other.driver);
                assert_ne!(one.subnets[0].subnet, other.subnets[0].subnet);
            }
        }
        let there: BTreeSet<&str> = networks.iter().map(|network| &*network.id).collect();
        for key in self.records::<Peer>().into_keys().chain(self.records::<Lease>().into_keys()) {
            let network = key.split('/').nth(1).expect("a network");
            assert!(there.contains(network), "{key} is on a network that is gone");
        }
        self.check_services();
        let members: Vec<Member> = self.records().into_values().collect();
        let numbers: BTreeSet<u16> = members.iter().map(|member| member.number).collect();
        assert_eq!(numbers.len(), members.len());
    }

    /// Addresses that a process of a member may be serving, with whose they are. Who was removed and has not heard of it
    /// is heard by nobody.
    fn serving(&self) -> Vec<(Id, IpAddr, Id)> {
        let mut serving = Vec::new();
        for host in &self.hosts {
            let Some(member) = self.member(host) else { continue };
            let term = host.term();
            if member.availability == Availability::Removed || term.is_some_and(|term| term != member.term) {
                continue;
            }
            for sandbox in host.sandboxes() {
                for endpoint in &sandbox.endpoints {
                    let network = &endpoint.network;
                    let own = endpoint
                        .addresses()
                        .map(|address| (Arc::clone(network), address, Arc::clone(&host.name)));
                    serving.extend(own);
                }
            }
        }
        serving
    }

    pub(super) fn check_at_rest(&self) {
        self.check();
        let closed = self.sea.entries().into_iter().find(|entry| entry.key.starts_with("closing/"));
        assert!(closed.is_none(), "nobody removes it any more: {closed:?}");
        let (peers, leases) = (self.records::<Peer>(), self.records::<Lease>());
        let nodes: BTreeMap<_, Node> = self.records();
        for host in &self.hosts {
            let is_member = host.standing() == Standing::Member;
            let has = |key: &str| peers.get(key).is_some_and(|peer| peer.node == host.name);
            let mine: BTreeSet<_> = peers.keys().filter(|key| has(key)).cloned().collect();
            let held: BTreeSet<_> = leases
                .iter()
                .filter(|(_, lease)| lease.node == host.name && lease.is_of_sandbox())
                .map(|(key, _)| key)
                .collect();
            assert_eq!(nodes.contains_key(&key_of::<Node>(&host.name)), is_member, "{}", host.name);
            if !is_member {
                assert!(mine.is_empty(), "{} is gone, and {mine:?} are there", host.name);
                let removed =
                    self.member(host).is_some_and(|member| member.availability == Availability::Removed);
                assert!(!removed || held.is_empty(), "{} is removed, and {held:?} are held", host.name);
                continue;
            }
            let wanted: BTreeSet<_> =
                host.sandboxes().iter().flat_map(|sandbox| own::keys(sandbox).collect::<Vec<_>>()).collect();
            let there: BTreeSet<_> = mine.iter().chain(held).cloned().collect();
            assert_eq!(there, wanted, "of {}", host.name);
            let books = host.books.as_ref().expect("it runs");
            let known: BTreeSet<_> =
                books.model().peers.values().map(|peer| key_of::<Peer>(&peer.id)).collect();
            let others: BTreeSet<_> = peers.keys().filter(|key| !has(key)).cloned().collect();
            assert_eq!(known, others, "what {} knows of others", host.name);
            assert_eq!(books.model().leases.values().map(BTreeMap::len).sum::<usize>(), leases.len());
            assert_eq!(books.cluster.as_ref().expect("a cluster").disputed().next(), None);
        }
    }
}

impl Host {
    /// Where nothing is owed, all that is there is what is wanted, whatever of it was looked at.
    fn check_settled(&self) {
        let Some(books) = self.books.as_ref().filter(|books| !books.is_unsettled()) else { return };
        let cluster = books.cluster.as_ref().expect("a cluster");
        if self.standing() != Standing::Member || !cluster.condition().connected {
            return;
        }
        let wanted = own::all(books.model(), &cluster.node).expect("records");
        let own = books.records().own();
        let is_there = |(key, want): &(&Key, &own::Want)| {
            let others = books.records().revision_of(Scope::Shared, key).is_some();
            own.get(*key).map_or(others, |entry| entry.value == want.value)
        };
        let lost: Vec<_> = wanted.iter().filter(|one| !is_there(one)).map(|(key, _)| key).collect();
        let is_left = |key: &&Key| !wanted.contains_key(*key) && !cluster.claimed.contains(*key);
        let left: Vec<_> = own.keys().filter(is_left).collect();
        assert!(lost.is_empty() && left.is_empty(), "{} overlooks {lost:?} and {left:?}", self.name);
    }
}
