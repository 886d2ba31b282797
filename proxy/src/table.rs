//! What is balanced to what, as plain data. The control side sends [`Change`]s; the proxy builds the next immutable
//! snapshot from them off the data path and publishes it with one pointer.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub type ServiceId = Arc<str>;
pub type ListenerId = Arc<str>;
pub type BackendId = Arc<str>;
pub type FunnelId = Arc<str>;

/// One step from the table that is served to the table that is wanted. Applying a `Put` twice, or a `Drop` of what is
/// not there, changes nothing. A listener names a service that came before it, in this batch or an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    PutService(Service),
    DropService {
        service: ServiceId,
    },
    /// Makes or replaces a listener. Its sockets arrive beside the change the first time, see [`crate::Proxy::apply`];
    /// replacing keeps the sockets and the open connections.
    PutListener(Listener),
    /// Stops accepting and closes the sockets; open TCP connections go on, UDP flows end.
    DropListener {
        listener: ListenerId,
    },
    /// Makes a funnel; its sockets arrive beside the change, as a listener's do. One that is there stays as it is.
    PutFunnel(Funnel),
    /// Closes a funnel's sockets. Listeners that clients reach through it are to be dropped before.
    DropFunnel {
        funnel: FunnelId,
    },
    /// Makes the way to and from other nodes, or replaces what is known of them. Its sockets arrive beside it the first
    /// time, under [`MESH_TCP`] and [`MESH_UDP`].
    PutMesh(Mesh),
    /// Closes the mesh's sockets; backends of other nodes cannot be reached any more. Open connections go on.
    DropMesh,
}

/// Under which the mesh's sockets come, and its connections are counted.
pub const MESH_TCP: &str = "mesh/tcp";
pub const MESH_UDP: &str = "mesh/udp";

/// The other nodes whose data planes this one sends connections to, and takes them from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// Where the sockets are bound: shown to people.
    pub address: SocketAddr,
    pub token: Token,
    /// Those that live, this one not among them.
    pub nodes: Vec<MeshNode>,
    /// No backend of this node is connected to under the address of a client in these networks: its answer would take
    /// another way.
    #[serde(default)]
    pub except: Vec<IpNetwork>,
    /// Connections (or flows) that may come from others at once: in all, and from each.
    pub limit: u32,
    pub limit_per_node: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshNode {
    /// How metrics call it.
    pub name: Arc<str>,
    /// Where its data plane listens: what [`Place::Node`] of its backends says.
    pub mesh: SocketAddr,
    /// What it speaks from.
    pub addresses: Vec<IpAddr>,
}

/// What all nodes of a cluster know and nobody else does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Sockets through which the clients of many listeners come: somebody leads them here, whatever address and port they ask
/// for, and that is what tells the listeners apart. What asks for none of them is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funnel {
    pub id: FunnelId,
    pub protocol: Protocol,
}

/// Sockets that clients reach, and the service that answers there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    pub id: ListenerId,
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub service: ServiceId,
    /// Clients come through this funnel, which is there before; the listener has no sockets of its own. Its address may
    /// be unspecified: every address that no other listener of the funnel has. Its port may be 0: every port of the
    /// address that no other listener of the funnel has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funnel: Option<FunnelId>,
    /// Replaces the port of the backends' addresses: a service of many ports has one backend list. Without it, a
    /// listener on every port leads to the port that the client asked for. Backends that are [`Place::Elsewhere`] keep
    /// their own port.
    pub target_port: Option<u16>,
    /// Whether connections through this listener start with a PROXY protocol header towards the backend.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Under whose address backends are connected to.
    #[serde(default)]
    pub source: Source,
    /// At most this many connections (or UDP flows) at once; more wait in the backlog (or are dropped).
    pub limit: u32,
}

/// Whose address a backend sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// That of the host.
    #[default]
    Own,
    /// The client's, except of clients in these networks, whose answers would not come back this way, and of loopback.
    Client { except: Vec<IpNetwork> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyProtocol {
    V1,
    V2,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    /// How metrics and access events call it.
    pub label: Arc<str>,
    pub policy: Policy,
    pub backends: Vec<Backend>,
    /// For one attempt; a failed attempt goes on to the next backend.
    pub connect_timeout: Duration,
    /// A UDP flow ends after this much silence in both directions.
    pub udp_idle: Duration,
    /// A client keeps its backend for this long after its last connection, while that takes connections.
    #[serde(default)]
    pub affinity: Option<Duration>,
    /// Backends of this node are chosen while there are any.
    #[serde(default)]
    pub prefer_local: bool,
    /// How backends that are [`Place::Here`] or [`Place::Elsewhere`] are asked whether they are well.
    #[serde(default)]
    pub health: Option<Check>,
    /// How long connections to a draining backend may go on; none: until they end by themselves.
    #[serde(default)]
    pub drain: Option<Duration>,
    /// Whatever its backends of this node answer, and to whom, comes back by this node: they may be connected to under
    /// their clients' addresses.
    #[serde(default)]
    pub leads_back: bool,
}

/// An active health check. A backend is well after `rise` good answers in a row, unwell after `fall` bad ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub probe: Probe,
    /// Between the beginnings of two probes of one backend.
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u16,
    pub fall: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// It accepts; on this port, or on that of the backend's address.
    Tcp { port: Option<u16> },
    /// It answers `GET path` with a status from 200 to 399.
    Http { port: Option<u16>, path: Arc<str> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    #[default]
    RoundRobin,
    Weighted,
    LeastOpen,
    SourceHash,
    Maglev,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub id: BackendId,
    /// At least one of the two. A client is led to the address of its own family where there is one.
    pub v4: Option<SocketAddrV4>,
    pub v6: Option<SocketAddrV6>,
    /// From 1 to 65535; used by [`Policy::Weighted`], [`Policy::LeastOpen`] and [`Policy::Maglev`].
    pub weight: u16,
    pub state: BackendState,
    #[serde(default)]
    pub place: Place,
}

/// Where a backend is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On this node: its address is connected to.
    #[default]
    Here,
    /// On another node: that node's data plane, at this address, connects to it.
    Node { mesh: SocketAddr },
    /// On no node: its address is connected to.
    Elsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendState {
    /// Has not been found well yet: takes none.
    Starting,
    /// Takes new connections.
    Ready,
    /// Takes none unless no other is left; old ones finish.
    Draining,
    /// It is about to be gone: takes none while anybody else could, and while nobody could only who was let in before the
    /// doors were shut. Old ones finish, and other nodes, which may not have heard yet, are served.
    Leaving,
    /// Whoever checks it has found it unwell: takes none.
    Failing,
}

impl Listener {
    /// The port of a backend's address in the place of its own, for a client that asked for this one.
    pub(crate) fn target(&self, asked: u16) -> Option<u16> {
        self.target_port.or_else(|| (self.address.port() == 0).then_some(asked))
    }
}
