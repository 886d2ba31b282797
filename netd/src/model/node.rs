//! The other machines of a cluster, and what this one must know of their sandboxes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{EndpointState, Id};

/// A node that lives: its record goes with its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Its name is its id.
    pub name: Id,
    /// Where other nodes reach its tunnels.
    pub vtep: IpAddr,
    /// All addresses that its packets to other nodes may come from.
    pub addresses: Vec<IpAddr>,
    /// Where its data plane takes connections for its backends.
    pub mesh: SocketAddr,
    pub vxlan_port: u16,
    pub version: Arc<str>,
    /// Chosen by chance at the first start with a state directory: two daemons of one name are told apart by it.
    pub identity: Arc<str>,
    /// Since when it lives.
    pub since: SystemTime,
}

impl Node {
    pub(crate) fn place(&self) -> Place {
        let mut addresses = self.addresses.clone();
        addresses.extend([self.vtep, self.mesh.ip()]);
        addresses.sort_unstable();
        addresses.dedup();
        Place { addresses, mesh: self.mesh }
    }
}

/// A node that belongs to the cluster, whether it lives or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub name: Id,
    /// From 1; of two members never the same.
    pub number: u16,
    /// How often it was taken in again after it had been removed. A node that still holds to an earlier term has lost
    /// its addresses in between.
    pub term: u32,
    pub availability: Availability,
    pub joined: SystemTime,
    /// As it was told when the node last lived; records that are older do not say.
    #[serde(default)]
    pub place: Option<Place>,
}

/// Where a node is on the network between the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// All that its packets come from.
    pub addresses: Vec<IpAddr>,
    pub mesh: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Availability {
    Active,
    /// Its endpoints take no new connections.
    Drain,
    /// It is no member any more; when it comes back it cleans up.
    Removed,
}

/// An endpoint of a sandbox on another node: what names, balancing and the overlay need of it. Goes with its node's
/// lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// `<network id>/<endpoint id>`, as its key.
    pub id: Id,
    pub endpoint: Id,
    pub network: Id,
    pub node: Id,
    pub sandbox: Id,
    pub sandbox_name: Arc<str>,
    /// When the sandbox was made: the order of addresses in answers.
    pub joined: SystemTime,
    pub mac: [u8; 6],
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// All names on the network, the PTR name first.
    pub names: Vec<Arc<str>>,
    pub service: Option<Id>,
    pub weight: u16,
    pub state: EndpointState,
    /// Of that state, see `Membership`.
    #[serde(default)]
    pub since: Option<SystemTime>,
    #[serde(default)]
    pub why: Option<Arc<str>>,
}

/// Who holds an address of an overlay network. Not bound to a life: the address of a node that is away is given to
/// nobody else before that node, or somebody with `node rm`, gives it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// `<network id>/<address>`, as its key.
    pub id: Id,
    /// Who took it; a sandbox is on that node.
    pub node: Id,
    pub holder: LeaseHolder,
    /// The holder's, for a person to read.
    pub name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LeaseHolder {
    Sandbox(Id),
    /// Goes with the service, whatever becomes of the node.
    Service(Id),
}

impl Lease {
    pub(crate) const fn is_of_sandbox(&self) -> bool {
        matches!(self.holder, LeaseHolder::Sandbox(_))
    }
}
