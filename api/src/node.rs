//! Nodes of a cluster: ls, inspect, drain, activate, rm.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::filter::Filter;
use crate::value::{Reference, Timestamp};
use crate::verb::{Answer, Method, Nothing, Verb};

pub struct List;

impl Verb for List {
    const ID: &'static str = "node.ls";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/nodes";
    const SUMMARY: &'static str = "List the nodes of the cluster, as this one knows them";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = ListParams;
    type Body = Nothing;
    type Response = Vec<Node>;
}

pub struct Inspect;

impl Verb for Inspect {
    const ID: &'static str = "node.inspect";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/nodes/{name}";
    const SUMMARY: &'static str = "Show one node";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = NodeParams;
    type Body = Nothing;
    type Response = Node;
}

pub struct Drain;

impl Verb for Drain {
    const ID: &'static str = "node.drain";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/nodes/{name}/drain";
    const SUMMARY: &'static str = "Lead no new connections to a node's endpoints";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound, Code::Conflict];
    type Params = NodeParams;
    type Body = Nothing;
    type Response = Nothing;
}

pub struct Activate;

impl Verb for Activate {
    const ID: &'static str = "node.activate";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/nodes/{name}/activate";
    const SUMMARY: &'static str = "Take a drained or removed node back";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound, Code::Conflict];
    type Params = NodeParams;
    type Body = Nothing;
    type Response = Nothing;
}

pub struct Remove;

impl Verb for Remove {
    const ID: &'static str = "node.rm";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/v1/nodes/{name}";
    const SUMMARY: &'static str = "Take a node out of the cluster, with its endpoints and addresses";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound, Code::Conflict];
    type Params = RemoveParams;
    type Body = Nothing;
    type Response = Nothing;
}

/// Keys of `filter` in `ls`.
pub const FILTERS: &[&str] = &["name", "state", "availability"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// May be repeated. Values of one key are alternatives, keys must all hold.
    #[serde(default)]
    pub filter: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeParams {
    pub name: Reference,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveParams {
    pub name: Reference,
    /// Although it is alive: its sandboxes leave all networks of the cluster.
    #[serde(default)]
    pub force: bool,
}

/// A node as `inspect` and `ls` show it. What only a node that lives tells is missing of one that does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    pub name: String,
    /// Of two nodes never the same.
    pub number: u16,
    pub state: NodeState,
    pub availability: Availability,
    /// Whether it is the one that answers.
    pub here: bool,
    pub joined: Timestamp,
    /// Since when its daemon runs, by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Since when it does not answer, as far as this node has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where other nodes reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// All its packets to other nodes come from one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Where its tunnels end.
    #[serde(default, rename = "VTEP", skip_serializing_if = "Option::is_none")]
    pub vtep: Option<SocketAddr>,
    /// Where it takes connections for its backends from other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<SocketAddr>,
    /// Places of its sandboxes on networks of the cluster.
    pub endpoints: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Ready,
    /// Its lease has ended: the machine is gone, its daemon, or its way to the cluster's store.
    Down,
    Removed,
}

/// What somebody wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    Active,
    /// Its endpoints get no new connections.
    Drain,
    Removed,
}

impl Availability {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drain => "drain",
            Self::Removed => "removed",
        }
    }
}

impl NodeState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Down => "down",
            Self::Removed => "removed",
        }
    }
}
