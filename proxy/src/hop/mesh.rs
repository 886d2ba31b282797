//! The nodes that hops lead to and come from, as workers see them. A new one is published when nodes come and go; a node
//! that stays keeps its counters and its places.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipnetwork::IpNetwork;
use netd_sys::poll::Waker;
use tracing::warn;

use super::meters::{HopMeters, Refusal};
use super::wire::Key;
use crate::gate::Gate;
use crate::stats::{MeshStats, NodeStats};
use crate::table;

pub(crate) struct Mesh {
    pub(crate) key: Key,
    by_mesh: HashMap<SocketAddr, Arc<Node>>,
    by_source: HashMap<IpAddr, Arc<Node>>,
    /// Clients under whose address no backend of this node is connected to.
    except: Vec<IpNetwork>,
    /// What came from addresses of no node that is heard.
    strangers: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    /// Hops from here to there, and the other way.
    pub(crate) to: HopMeters,
    pub(crate) from: HopMeters,
    /// How many connections it may have here.
    pub(crate) gate: Arc<Gate>,
    /// Its version or token has been complained about.
    told: AtomicBool,
}

impl Mesh {
    pub(crate) fn new(wanted: &table::Mesh, before: Option<&Self>, wakers: &Arc<[Arc<Waker>]>) -> Self {
        let (mut by_mesh, mut by_source) = (HashMap::new(), HashMap::new());
        for wanted_node in &wanted.nodes {
            let kept =
                before.and_then(|before| before.by_mesh.values().find(|node| node.name == wanted_node.name));
            let node = match kept {
                Some(node) => {
                    node.gate.set_limit(wanted.limit_per_node);
                    node.told.store(false, Ordering::Relaxed);
                    Arc::clone(node)
                }
                None => Arc::new(Node {
                    name: Arc::clone(&wanted_node.name),
                    to: HopMeters::default(),
                    from: HopMeters::default(),
                    gate: Arc::new(Gate::new(wanted.limit_per_node, Arc::clone(wakers))),
                    told: AtomicBool::new(false),
                }),
            };
            for address in &wanted_node.addresses {
                by_source.insert(address.to_canonical(), Arc::clone(&node));
            }
            by_mesh.insert(wanted_node.mesh, node);
        }
        let strangers = before.map(|before| Arc::clone(&before.strangers)).unwrap_or_default();
        Self { key: Key::new(&wanted.token), by_mesh, by_source, except: wanted.except.clone(), strangers }
    }

    /// The node whose mesh address this is, if it lives.
    pub(crate) fn at(&self, mesh: SocketAddr) -> Option<&Arc<Node>> {
        self.by_mesh.get(&mesh)
    }

    /// The node that speaks from this address, if one that lives does.
    pub(crate) fn from(&self, source: IpAddr) -> Option<&Arc<Node>> {
        self.by_source.get(&source.to_canonical())
    }

    pub(crate) fn refuse_stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> MeshStats {
        let nodes = self.by_mesh.values().map(|node| NodeStats {
            node: Arc::clone(&node.name),
            to: node.to.read(),
            from: node.from.read(),
        });
        MeshStats { strangers: self.strangers.load(Ordering::Relaxed), nodes: nodes.collect() }
    }

    /// Whether a backend's answers to this client would come back to this node.
    pub(crate) fn leads_back(&self, client: IpAddr) -> bool {
        !self.except.iter().any(|network| network.contains(client))
    }
}

impl Node {
    /// A hop to it came to nothing.
    pub(crate) fn failed(&self, why: Refusal) {
        self.to.failed(why);
        if matches!(why, Refusal::Version | Refusal::Denied | Refusal::Malformed)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            warn!(
                node = &*self.name,
                reason = why.name(),
                "a node does not understand hops of this one: its netd is of another version, or of another cluster"
            );
        }
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("nodes", &self.by_mesh).finish_non_exhaustive()
    }
}
