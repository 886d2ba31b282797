//! A service as `inspect` and `ls` show it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EastWest, EndpointMode, Mode, Policy, ProxyProtocol};
use crate::value::{Affinity, HealthSpec, Protocol, Span, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    pub name: String,
    pub id: String,
    pub created: Timestamp,
    pub network: String,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(default, rename = "VIP", skip_serializing_if = "Option::is_none")]
    pub vip: Option<Ipv4Addr>,
    #[serde(default, rename = "VIP6", skip_serializing_if = "Option::is_none")]
    pub vip6: Option<Ipv6Addr>,
    /// Ports of the service's address, then those of the nodes. None of the first kind: the address has every port.
    pub ports: Vec<Port>,
    pub endpoint_mode: EndpointMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    pub policy: Policy,
    pub affinity: Affinity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Span>,
    pub prefer_local: bool,
    pub east_west: EastWest,
    pub endpoints: Vec<Endpoint>,
    pub labels: BTreeMap<String, String>,
}

/// A port of the service's address has a `Port`, one of the nodes a `PublishedPort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[schemars(rename = "ServicePort")]
pub struct Port {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub protocol: Protocol,
    pub target_port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_mode: Option<Mode>,
    /// Where it is published: unspecified addresses are all of their family.
    #[serde(default, rename = "HostIPs", skip_serializing_if = "Vec::is_empty")]
    pub host_ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct HealthCheck {
    pub test: HealthSpec,
    pub interval: Span,
    pub timeout: Span,
    pub rise: u16,
    pub fall: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[schemars(rename = "ServiceEndpoint")]
pub struct Endpoint {
    /// Of the sandbox's place on the network; of an external backend its address.
    pub id: String,
    /// Empty for external backends, of which every node tells what it has found itself.
    pub node: String,
    /// Its name; empty for external backends.
    pub sandbox: String,
    /// The first it has; an external backend's with its port.
    pub address: String,
    #[serde(default, rename = "GlobalIPv6Address", skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<Ipv6Addr>,
    pub state: EndpointState,
    /// Since when it is in that state, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it drains, leaves or fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This node could not connect to it, or to one of its ports, and passes it over for a while.
    #[serde(default)]
    pub ejected: bool,
    pub weight: u16,
    /// Connections and UDP flows that this node's data plane has to it; 0 while that does not answer.
    pub active_connections: u32,
    pub health: Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// It has not been found well yet.
    Starting,
    Ready,
    /// It gets no new connections unless nobody else is left.
    Draining,
    /// It is about to be removed and gets no new connections; those it has finish.
    Leaving,
    /// It has been found unwell.
    Failing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "EndpointHealth")]
pub enum Health {
    /// Nobody asks.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

impl EndpointState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Failing => "failing",
        }
    }
}
