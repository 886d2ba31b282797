//! What is wanted, as plain data: the records the store holds. Nothing here talks to the kernel.
//!
//! A record is written whole, as JSON, under `network/<id>` or `sandbox/<id>`; address leases are keys of their own
//! (`lease/<network id>/<address>`) so that a store shared by many nodes can refuse a second owner. What is this node's
//! alone is in its own store, what all nodes see in the cluster's; the model has both.

mod indexed;
mod node;
mod pool;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub(crate) use indexed::{Indexed, Keyed, NetworkKey, PeerKey, SandboxKey, ServiceKey};
pub(crate) use node::{Availability, Lease, LeaseHolder, Member, Node, Peer, Place};
pub(crate) use pool::{AddressPool, PoolAddress, Purpose};
pub(crate) use service::{
    Answer, EastWest, ExternalBackend, Finding, Findings, HealthCheck, HealthProbe, ProxyProtocol,
    PublishMode, Service, ServicePolicy, ServicePort, ServicePublish,
};

/// 64 lower-case hex digits, as Docker's ids. The first 12 are the short id.
pub(crate) type Id = Arc<str>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub id: Id,
    pub name: Arc<str>,
    pub created: SystemTime,
    pub driver: Driver,
    /// IPv4 subnets first, then IPv6.
    pub subnets: Vec<Subnet>,
    /// No route, no masquerade to the outside; sandboxes reach only each other and the gateway.
    pub internal: bool,
    /// The bridge device in the host's namespace.
    pub bridge: Arc<str>,
    /// The bridge was there before us, with these addresses: it and they are left when the network goes.
    pub adopted_bridge: Option<Vec<IpAddr>>,
    pub options: NetworkOptions,
    pub labels: BTreeMap<String, String>,
    /// False on the default network `bridge` only: its sandboxes see names by `--link` alone.
    pub resolves: bool,
    /// The runtime that made it and alone removes it, as `docker`; none: netd's own users do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    Bridge,
    /// A bridge on every node that has endpoints, joined by VXLAN tunnels of this network identifier.
    Overlay {
        vni: u32,
    },
}

/// Whose a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This node's.
    Local,
    /// All nodes'.
    Shared,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subnet {
    pub subnet: IpNetwork,
    pub gateway: IpAddr,
    /// Dynamic addresses come from this part of the subnet only.
    pub range: Option<IpNetwork>,
    /// Never handed out; the names are the user's own notes.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkOptions {
    pub mtu: u32,
    /// Whether sandboxes of this network reach each other.
    pub icc: bool,
    pub masquerade: bool,
    /// Whether sandboxes of other networks are kept from reaching this one through the host.
    pub isolate: bool,
    /// Whether packets may be larger than 64 KiB within the host.
    #[serde(default)]
    pub big_tcp: BigTcp,
    /// As the user wrote them, for `inspect`.
    pub given: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BigTcp {
    /// Where nothing is slower for it.
    #[default]
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub id: Id,
    pub name: Arc<str>,
    pub created: SystemTime,
    pub mode: Mode,
    /// Where its network namespace can be opened: `/run/netns/NAME`, or what the user gave.
    pub netns: PathBuf,
    /// Device and inode of the namespace when it was joined: a path that leads to another namespace now is not ours.
    pub netns_identity: (u64, u64),
    /// False for `--netns PATH`: the namespace is left when the sandbox goes.
    pub netns_is_ours: bool,
    /// The boot in which it was joined, if somebody else has made it: its device and inode mean nothing in the next.
    #[serde(default)]
    pub boot: Arc<str>,
    /// And there its cookie: a later namespace may have the same inode. 0: not known.
    #[serde(default)]
    pub netns_cookie: u64,
    pub hostname: Arc<str>,
    pub endpoints: Vec<Endpoint>,
    pub publishes: Vec<Publish>,
    pub exposes: Vec<PortRange>,
    pub dns: DnsOptions,
    pub extra_hosts: Vec<(String, IpAddr)>,
    pub links: Vec<Link>,
    /// The service it is a backend of, on the service's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Membership>,
    pub labels: BTreeMap<String, String>,
    /// Who made it, for runtimes that share a daemon: `cli`, `cni:<network>`, ...
    pub owner: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Its own namespace on zero or more bridge networks.
    Bridge,
    /// Its own namespace with the loopback device only.
    None,
    /// The host's namespace.
    Host,
    /// The namespace of another sandbox.
    Container(Id),
    /// A container's place on one of Docker's networks: Docker moves the far end of the link into its own namespace,
    /// gives it its addresses and answers its names. The namespace is known from join to leave.
    Docker,
}

/// A sandbox as a backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub service: Id,
    pub weight: u16,
    pub state: EndpointState,
    /// Since when it is in that state.
    #[serde(default)]
    pub since: Option<SystemTime>,
    /// Why it takes no connections, for people to read.
    #[serde(default)]
    pub why: Option<Arc<str>>,
}

/// Whether a backend takes connections. One that is gone has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndpointState {
    /// Not found well yet.
    Starting,
    Ready,
    /// Takes none unless nobody else is left; those it has finish.
    Draining,
    /// Is about to be removed and takes none, for there would be no end to it; those it has finish.
    Leaving,
    /// Found unwell.
    Failing,
}

/// One sandbox's place on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub id: Id,
    pub network: Id,
    /// The device in the sandbox: `eth0`, `eth1`, ...
    pub interface: Arc<str>,
    /// The device in the host's namespace, a port of the bridge; its name begins as [`Network::ports`] says.
    pub host_link: Arc<str>,
    pub mac: [u8; 6],
    pub v4: Option<(Ipv4Addr, u8)>,
    pub v6: Option<(Ipv6Addr, u8)>,
    /// As the user gave them, lower case.
    pub aliases: Vec<Arc<str>>,
    /// All names on this network, lower case: the sandbox's name first, or what was asked for in its place (the PTR
    /// name), then aliases, short id, hostname.
    pub names: Vec<Arc<str>>,
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// Who asked for it: of a sandbox that several networks of a runtime share, each has its own.
    #[serde(default)]
    pub owner: Arc<str>,
}

/// How much traffic an endpoint may cause, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bandwidth {
    /// Towards the sandbox.
    pub ingress: Option<Rate>,
    pub egress: Option<Rate>,
}

/// In bits a second, and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub rate: u64,
    pub burst: u64,
}

/// A published port or range, resolved: host port `first + i` leads to the sandbox's port `target + i`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publish {
    pub protocol: Protocol,
    /// One unless the user named no address: then `0.0.0.0` and `::`.
    pub addresses: Vec<IpAddr>,
    pub first: u16,
    pub target: u16,
    pub count: u16,
    /// The user named no host port; shown in `inspect` only.
    pub ephemeral: bool,
    #[serde(default)]
    pub by: PublishBy,
    #[serde(default)]
    pub client_address: ClientAddress,
}

/// How a host port is made to lead into the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PublishBy {
    /// Sockets on the port.
    #[default]
    Bind,
    /// What arrives for the port is led to sockets elsewhere: a runtime's reservation may keep the port.
    Steer,
}

/// From whom connections through a published port come, as the sandbox sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientAddress {
    /// From the host.
    #[default]
    Host,
    /// From the client, where its answers come back by the host.
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortRange {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DnsOptions {
    /// Asked from the sandbox's namespace; empty: the host's, from the host's namespace.
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// `--link SANDBOX[:ALIAS]`: this sandbox sees that one under one more name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub sandbox: Id,
    pub alias: Arc<str>,
}

/// One change of the records, as the store's watch tells it: what the key led to and what it leads to now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Network { before: Option<Arc<Network>>, after: Option<Arc<Network>> },
    Sandbox { before: Option<Arc<Sandbox>>, after: Option<Arc<Sandbox>> },
    Service { before: Option<Arc<Service>>, after: Option<Arc<Service>> },
    Node { before: Option<Arc<Node>>, after: Option<Arc<Node>> },
    Member { before: Option<Arc<Member>>, after: Option<Arc<Member>> },
    Peer { before: Option<Arc<Peer>>, after: Option<Arc<Peer>> },
    Findings { before: Option<Arc<Findings>>, after: Option<Arc<Findings>> },
}

/// Every record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    /// This node's name.
    pub here: Id,
    pub networks: Indexed<Network>,
    pub sandboxes: Indexed<Sandbox>,
    pub services: Indexed<Service>,
    /// Nodes that live, this one among them.
    pub nodes: BTreeMap<Id, Arc<Node>>,
    pub members: BTreeMap<Id, Arc<Member>>,
    /// Nodes that were taken down on purpose, and are not going to be back in a moment.
    pub left: BTreeSet<Id>,
    /// Endpoints of other nodes.
    pub peers: Indexed<Peer>,
    /// Of backends outside, by service.
    pub findings: BTreeMap<Id, Arc<Findings>>,
    /// Addresses of overlay networks that are held, by network.
    pub leases: BTreeMap<Id, BTreeMap<IpAddr, Arc<Lease>>>,
    /// What nodes show each other where they take connections for their backends.
    pub mesh_secret: Option<Arc<str>>,
    /// What Docker's own allocation of addresses was given, by subnet.
    pub pools: BTreeMap<Id, Arc<AddressPool>>,
    /// The addresses of each pool that were given out.
    pub pool_addresses: BTreeMap<Id, BTreeMap<IpAddr, Arc<PoolAddress>>>,
}

impl Network {
    pub(crate) const fn scope(&self) -> Scope {
        match self.driver {
            Driver::Bridge => Scope::Local,
            Driver::Overlay { .. } => Scope::Shared,
        }
    }
}

impl Model {
    /// Whether the network has its bridge on this node: an overlay only while a sandbox here is on it.
    pub(crate) fn is_here(&self, network: &Id) -> bool {
        match self.networks.get(network).map(|network| network.driver) {
            Some(Driver::Bridge) => true,
            Some(Driver::Overlay { .. }) => {
                self.sandboxes.by(&SandboxKey::On(Arc::clone(network))).next().is_some()
            }
            None => false,
        }
    }

    /// Whether the node is gone as far as anybody can tell, and may yet do its work: its daemon may be away, or its way to
    /// the cluster's store, while its sandboxes and its data plane go on. Nobody is led there, but what comes from there
    /// is heard, until somebody removes it.
    pub(crate) fn is_away(&self, node: &str) -> bool {
        let is_member = |member: &Arc<Member>| member.availability != Availability::Removed;
        !self.nodes.contains_key(node)
            && !self.left.contains(node)
            && self.members.get(node).is_some_and(is_member)
    }

    /// The other nodes that are heard: those that are away, and those that live, which have an address that both claim.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (&Id, Place)> {
        let alive = self.nodes.values().map(|node| (&node.name, node.place()));
        let away = self.members.values().filter(|member| self.is_away(&member.name));
        let away = away.filter_map(|member| Some((&member.name, member.place.clone()?)));
        away.chain(alive).filter(|(name, _)| **name != self.here)
    }

    /// The addresses of the services on that network.
    pub(crate) fn vips_on(&self, network: &Id) -> Vec<IpAddr> {
        self.services.by(&ServiceKey::On(Arc::clone(network))).flat_map(|service| service.vips()).collect()
    }
}

impl Sandbox {
    pub(crate) fn has_v6(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.v6.is_some())
    }
}

impl Network {
    /// The device of an overlay network's tunnel.
    pub(crate) fn tunnel(&self) -> String {
        tunnel_of(&self.id)
    }

    pub(crate) fn ports(&self) -> &'static str {
        match self.driver {
            Driver::Bridge => PORTS,
            Driver::Overlay { .. } => OVERLAY_PORTS,
        }
    }
}

/// How the devices of endpoints are called in the host's namespace.
pub(crate) const PORTS: &str = "nv";
/// Those on overlay networks, by which the firewall tells them.
pub(crate) const OVERLAY_PORTS: &str = "no";

/// The same where there is but the network's id.
pub(crate) fn tunnel_of(network: &str) -> String {
    format!("nx{}", network.get(..12).unwrap_or(network))
}

/// What a device with this MAC address has for its link alone: RFC 4291, appendix A.
pub(crate) fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

impl Endpoint {
    /// The address that its device has for its link alone. None without IPv6.
    pub(crate) fn link_local(&self) -> Option<Ipv6Addr> {
        self.v6.map(|_| link_local(self.mac))
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(|(address, _)| IpAddr::V4(address));
        v4.into_iter().chain(self.v6.map(|(address, _)| IpAddr::V6(address)))
    }
}

impl Publish {
    /// Every host port with the sandbox's port it leads to. Whoever makes a record keeps both within 65535.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        let (first, target) = (self.first, self.target);
        (0..self.count).filter_map(move |step| Some((first.checked_add(step)?, target.checked_add(step)?)))
    }
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
