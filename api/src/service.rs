//! Services: create, ls, inspect, update, rm, drain. Field names are Docker's where Docker has the field.

mod inspect;
mod publish;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::filter::Filter;
use crate::value::{
    self, Affinity, Alias, BackendSpec, DrainSpec, HealthSpec, Reference, ServiceName, ServicePortSpec, Span,
};
use crate::verb::{Answer, Method, Nothing, Verb};

pub use inspect::{Endpoint, EndpointState, Health, HealthCheck, Port, Service};
pub use publish::{Mode, ProxyProtocol, PublishSpec};

pub struct Create;

impl Verb for Create {
    const ID: &'static str = "service.create";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/services";
    const SUMMARY: &'static str = "Create a service";
    const ANSWER: Answer = Answer::Json { status: 201 };
    const ERRORS: &'static [Code] =
        &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict, Code::Exhausted];
    type Params = Nothing;
    type Body = CreateService;
    type Response = Service;
}

pub struct List;

impl Verb for List {
    const ID: &'static str = "service.ls";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/services";
    const SUMMARY: &'static str = "List services";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = ListParams;
    type Body = Nothing;
    type Response = Vec<Service>;
}

pub struct Inspect;

impl Verb for Inspect {
    const ID: &'static str = "service.inspect";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/services/{name}";
    const SUMMARY: &'static str = "Show one service with its endpoints";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = ServiceParams;
    type Body = Nothing;
    type Response = Service;
}

pub struct Update;

impl Verb for Update {
    const ID: &'static str = "service.update";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/services/{name}/update";
    const SUMMARY: &'static str = "Change a service while it serves: all of it or nothing";
    const ERRORS: &'static [Code] =
        &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict, Code::Exhausted];
    type Params = ServiceParams;
    type Body = UpdateService;
    type Response = Service;
}

pub struct Remove;

impl Verb for Remove {
    const ID: &'static str = "service.rm";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/v1/services/{name}";
    const SUMMARY: &'static str = "Remove a service; its sandboxes stay";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = ServiceParams;
    type Body = Nothing;
    type Response = Nothing;
}

pub struct Drain;

impl Verb for Drain {
    const ID: &'static str = "service.drain";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/services/{name}/drain";
    const SUMMARY: &'static str = "Give an endpoint no new connections, or give it some again";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = ServiceParams;
    type Body = DrainEndpoint;
    type Response = Service;
}

/// Keys of `filter` in `ls`.
pub const FILTERS: &[&str] = &["id", "label", "label!", "mode", "name", "network"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceParams {
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
pub struct CreateService {
    pub name: ServiceName,
    pub network: Reference,
    /// `vip`: the name leads to an address of the service's own; `dnsrr`: to its endpoints, in turns.
    #[serde(default)]
    pub endpoint_mode: EndpointMode,
    /// The name is another name for this one; there are no endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<Alias>,
    /// This address, not any. It need not lie in the part of the subnet that is kept for services.
    #[serde(
        default,
        rename = "VIP",
        deserialize_with = "value::option_v4",
        skip_serializing_if = "Option::is_none"
    )]
    pub vip: Option<Ipv4Addr>,
    #[serde(
        default,
        rename = "VIP6",
        deserialize_with = "value::option_v6",
        skip_serializing_if = "Option::is_none"
    )]
    pub vip6: Option<Ipv6Addr>,
    /// Ports of the service's address; none: every port leads to the same port of an endpoint.
    #[serde(default)]
    pub ports: Vec<ServicePortSpec>,
    /// Ports of the nodes.
    #[serde(default)]
    pub publish: Vec<PublishSpec>,
    #[serde(default)]
    pub policy: Policy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(default, skip_serializing_if = "HealthWish::is_empty")]
    pub health: HealthWish,
    /// How long connections of an endpoint that is drained may go on; without it, until they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
    /// Endpoints on the client's own node are chosen while there are any.
    #[serde(default)]
    pub prefer_local: bool,
    #[serde(default)]
    pub east_west: EastWest,
    /// Endpoints that are no sandboxes.
    #[serde(default)]
    pub backends: Vec<BackendSpec>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// How endpoints are asked whether they are well. What is not said stays as it is, or is as usual: every 5 seconds, 2
/// seconds to answer, well after one good answer, unwell after two bad ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct HealthWish {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<HealthSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Good answers in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u16>,
    /// Bad answers in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u16>,
}

/// What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateService {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_mode: Option<EndpointMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<Alias>,
    #[serde(
        default,
        rename = "VIP",
        deserialize_with = "value::option_v4",
        skip_serializing_if = "Option::is_none"
    )]
    pub vip: Option<Ipv4Addr>,
    #[serde(
        default,
        rename = "VIP6",
        deserialize_with = "value::option_v6",
        skip_serializing_if = "Option::is_none"
    )]
    pub vip6: Option<Ipv6Addr>,
    /// One that is there already is no error.
    #[serde(default)]
    pub ports_add: Vec<ServicePortSpec>,
    #[serde(default)]
    pub ports_remove: Vec<ServicePortSpec>,
    /// One that is there already is no error.
    #[serde(default)]
    pub publish_add: Vec<PublishSpec>,
    /// All that lead to the target port, of the published port if one is named.
    #[serde(default)]
    pub publish_remove: Vec<PublishSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(default, skip_serializing_if = "HealthWish::is_empty")]
    pub health: HealthWish,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_local: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub east_west: Option<EastWest>,
    /// One that is there already gets this weight.
    #[serde(default)]
    pub backends_add: Vec<BackendSpec>,
    #[serde(default)]
    pub backends_remove: Vec<BackendSpec>,
    #[serde(default)]
    pub labels_add: BTreeMap<String, String>,
    #[serde(default)]
    pub labels_remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DrainEndpoint {
    /// A sandbox's name or id, an endpoint's id or the beginning of it, or an external backend's `IP:PORT`.
    pub endpoint: String,
    /// Give it new connections again.
    #[serde(default)]
    pub undo: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointMode {
    #[default]
    Vip,
    Dnsrr,
    /// In answers only: asked for by `ExternalName`.
    ExternalName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    #[default]
    RoundRobin,
    Weighted,
    LeastConnections,
    SourceHash,
    Maglev,
}

/// How clients on the network get to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EastWest {
    /// Through the proxy, which tries the next endpoint when one does not answer.
    #[default]
    Relay,
    /// Straight: the kernel puts an endpoint's address in place of the service's when a program connects.
    Connect,
}

impl HealthWish {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CreateService {
    /// On this network, with an address of its own and nothing published.
    #[must_use]
    pub fn named(name: ServiceName, network: Reference) -> Self {
        Self {
            name,
            network,
            endpoint_mode: EndpointMode::Vip,
            external_name: None,
            vip: None,
            vip6: None,
            ports: Vec::new(),
            publish: Vec::new(),
            policy: Policy::RoundRobin,
            affinity: None,
            health: HealthWish::default(),
            drain: None,
            prefer_local: false,
            east_west: EastWest::Relay,
            backends: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

impl Policy {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Weighted => "weighted",
            Self::LeastConnections => "least-connections",
            Self::SourceHash => "source-hash",
            Self::Maglev => "maglev",
        }
    }
}
