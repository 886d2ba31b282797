//! A service: a name and an address of its own (the VIP) on one network, and who answers there. A service on a bridge
//! network is this node's own; one on an overlay network is the cluster's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{ClientAddress, Id, Protocol, Publish, PublishBy};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub id: Id,
    pub name: Arc<str>,
    pub created: SystemTime,
    pub network: Id,
    pub answer: Answer,
    pub policy: ServicePolicy,
    /// A client keeps its backend for so long after its last connection.
    pub affinity: Option<Duration>,
    pub health: Option<HealthCheck>,
    /// How long connections of a draining backend may go on; none: until they end.
    pub drain: Option<Duration>,
    pub prefer_local: bool,
    /// How clients on the network get to a backend.
    pub east_west: EastWest,
    /// Ports of the VIP; empty: every port leads to the same port of a backend.
    pub ports: Vec<ServicePort>,
    /// Ports of the nodes.
    pub publishes: Vec<ServicePublish>,
    /// Backends that are no sandboxes.
    pub external: Vec<ExternalBackend>,
    /// Endpoints (ids of endpoints, or addresses of external backends) that take no new connections, and since when.
    #[serde(default)]
    pub draining: BTreeMap<Arc<str>, SystemTime>,
    pub labels: BTreeMap<String, String>,
}

/// What its name resolves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    Vip {
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    },
    /// The addresses of its endpoints, in turns.
    Dnsrr,
    /// Another name (ExternalName).
    Name(Arc<str>),
}

impl ServicePublish {
    /// As the table of ports has it.
    pub(crate) fn as_publish(&self) -> Publish {
        Publish {
            protocol: self.protocol,
            addresses: self.addresses.clone(),
            first: self.published,
            target: self.target,
            count: 1,
            ephemeral: false,
            by: PublishBy::Bind,
            client_address: ClientAddress::default(),
        }
    }
}

impl Service {
    /// Its own addresses.
    pub(crate) fn vips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = match self.answer {
            Answer::Vip { v4, v6 } => (v4, v6),
            Answer::Dnsrr | Answer::Name(_) => (None, None),
        };
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServicePolicy {
    #[default]
    RoundRobin,
    Weighted,
    LeastConnections,
    SourceHash,
    Maglev,
}

/// See `proxy::table::Check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    pub probe: HealthProbe,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u16,
    pub fall: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthProbe {
    Tcp { port: Option<u16> },
    Http { port: Option<u16>, path: Arc<str> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EastWest {
    /// Through the proxy, which tries the next backend when one does not answer.
    #[default]
    Relay,
    /// Straight: the kernel puts the backend's address in place of the VIP when a program connects.
    Connect,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServicePort {
    /// For SRV: `_name._tcp.service`.
    pub name: Option<Arc<str>>,
    pub protocol: Protocol,
    pub port: u16,
    pub target: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServicePublish {
    pub protocol: Protocol,
    /// Unspecified ones mean every address of the family.
    pub addresses: Vec<IpAddr>,
    pub published: u16,
    pub target: u16,
    pub mode: PublishMode,
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PublishMode {
    /// On every node, to any backend.
    #[default]
    Ingress,
    /// On nodes that have a backend, to that node's own.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProxyProtocol {
    V1,
    V2,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExternalBackend {
    pub address: SocketAddr,
    pub weight: u16,
}

/// What this node's health checks have found of a service's backends outside, which have no record of their own. Every
/// node asks them itself: each has its own way there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub service: Id,
    pub backends: BTreeMap<Arc<str>, Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub well: bool,
    /// Why not, for people to read.
    pub why: Option<Arc<str>>,
    pub since: SystemTime,
}
