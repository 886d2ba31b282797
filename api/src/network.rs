//! Networks: create, ls, inspect, rm, prune, connect, disconnect. Field names are Docker's where Docker has the field.

mod options;
mod update;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::filter::Filter;
use crate::sandbox::EndpointSettings;
use crate::value::{self, Alias, Bandwidth, LinkName, Mac, NetworkName, Reference, Subnet, Timestamp};
use crate::verb::{Answer, Method, Nothing, Verb};

pub use options::{BridgeOptions, OverlayOptions, Switch};
pub use update::{ChangeEndpoint, ChangeNetwork, Update, UpdateEndpoint};

pub struct Create;

impl Verb for Create {
    const ID: &'static str = "network.create";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/networks";
    const SUMMARY: &'static str = "Create a network";
    const ANSWER: Answer = Answer::Json { status: 201 };
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::Forbidden, Code::Conflict, Code::Exhausted];
    type Params = Nothing;
    type Body = CreateNetwork;
    type Response = Network;
}

pub struct List;

impl Verb for List {
    const ID: &'static str = "network.ls";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/networks";
    const SUMMARY: &'static str = "List networks, without their sandboxes";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = ListParams;
    type Body = Nothing;
    type Response = Vec<Network>;
}

pub struct Inspect;

impl Verb for Inspect {
    const ID: &'static str = "network.inspect";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/networks/{name}";
    const SUMMARY: &'static str = "Show one network with its sandboxes";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = NetworkParams;
    type Body = Nothing;
    type Response = Network;
}

pub struct Remove;

impl Verb for Remove {
    const ID: &'static str = "network.rm";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/v1/networks/{name}";
    const SUMMARY: &'static str = "Remove a network that no sandbox is on";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict];
    type Params = NetworkParams;
    type Body = Nothing;
    type Response = Nothing;
}

pub struct Prune;

impl Verb for Prune {
    const ID: &'static str = "network.prune";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/networks/prune";
    const SUMMARY: &'static str = "Remove all networks that no sandbox is on";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = ListParams;
    type Body = Nothing;
    type Response = Pruned;
}

pub struct Connect;

impl Verb for Connect {
    const ID: &'static str = "network.connect";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/networks/{name}/connect";
    const SUMMARY: &'static str = "Put a sandbox on one more network";
    const ERRORS: &'static [Code] =
        &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict, Code::Exhausted];
    type Params = NetworkParams;
    type Body = ConnectSandbox;
    type Response = EndpointSettings;
}

pub struct Disconnect;

impl Verb for Disconnect {
    const ID: &'static str = "network.disconnect";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/networks/{name}/disconnect";
    const SUMMARY: &'static str = "Take a sandbox off a network";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict];
    type Params = NetworkParams;
    type Body = DisconnectSandbox;
    type Response = Nothing;
}

/// Keys of `filter` in `ls`; `prune` takes `label` and `label!`.
pub const FILTERS: &[&str] = &["driver", "id", "label", "label!", "name", "scope", "type", "dangling"];
pub const PRUNE_FILTERS: &[&str] = &["label", "label!"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkParams {
    /// Name, id, or a unique prefix of the id.
    pub name: Reference,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// May be repeated. Values of one key are alternatives, keys must all hold.
    #[serde(default)]
    pub filter: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateNetwork {
    pub name: NetworkName,
    #[serde(default)]
    pub driver: Driver,
    /// An IPv6 subnet too; without one in `IPAM` a unique local one is chosen.
    #[serde(default, rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(default, rename = "IPAM")]
    pub ipam: CreateIpam,
    /// No way out, and no way in from outside.
    #[serde(default)]
    pub internal: bool,
    /// See [`BridgeOptions`] and [`OverlayOptions`].
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of this host.
    #[default]
    Bridge,
    /// One network on all nodes of the cluster.
    Overlay,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateIpam {
    /// At most one per family; without an IPv4 one a free subnet is chosen.
    #[serde(default)]
    pub config: Vec<CreateSubnet>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateSubnet {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// Dynamic addresses come from this part of the subnet only.
    #[serde(default, rename = "IPRange", skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Subnet>,
    #[serde(default, deserialize_with = "value::option_any", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Never handed out.
    #[serde(default, deserialize_with = "value::address_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ConnectSandbox {
    pub sandbox: Reference,
    #[serde(
        default,
        rename = "IPv4Address",
        deserialize_with = "value::option_v4",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_address: Option<Ipv4Addr>,
    #[serde(
        default,
        rename = "IPv6Address",
        deserialize_with = "value::option_v6",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_address: Option<Ipv6Addr>,
    #[serde(default)]
    pub aliases: Vec<Alias>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<Mac>,
    /// The device in the sandbox; without one the first free `ethN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<LinkName>,
    /// The name in place of the sandbox's own: the one that is registered and that reverse queries answer.
    #[serde(default, rename = "DNSName", skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<Alias>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Who asks for it, for runtimes that share a daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DisconnectSandbox {
    pub sandbox: Reference,
}

/// A network as `inspect` and `ls` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    pub name: String,
    pub id: String,
    pub created: Timestamp,
    /// `local`, or `global`: all nodes of the cluster have it.
    pub scope: String,
    /// `bridge` or `overlay`; `host` and `null` for the networks `host` and `none`.
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    /// Sandboxes on it, by id; empty in lists.
    #[serde(default)]
    pub containers: BTreeMap<String, NetworkContainer>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The device in the host's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<LinkName>,
    #[serde(default, rename = "MTU", skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The runtime that made it and alone removes it, as `docker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// `default`.
    pub driver: String,
    pub config: Vec<IpamConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct IpamConfig {
    pub subnet: Subnet,
    #[serde(default, rename = "IPRange", skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Subnet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkContainer {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    /// With prefix length, `10.1.0.2/16`; empty if it has none.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
    /// Where it is, on a network of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Pruned {
    /// Names.
    pub networks_deleted: Vec<String>,
}
