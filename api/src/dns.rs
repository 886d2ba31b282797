//! What names lead to, as the data plane was told.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::value::Reference;
use crate::verb::{Method, Nothing, Verb};

pub struct Dump;

impl Verb for Dump {
    const ID: &'static str = "dns.dump";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/dns";
    const SUMMARY: &'static str = "Show every name that a sandbox, or each sandbox, can see";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = DumpParams;
    type Body = Nothing;
    type Response = Vec<View>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DumpParams {
    /// Without it: all sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Reference>,
}

/// What one sandbox sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct View {
    pub sandbox: String,
    pub sandbox_id: String,
    /// In the order in which they are searched.
    pub names: Vec<Name>,
    /// Where other names are asked; empty: nowhere.
    #[serde(default)]
    pub forward: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Name {
    /// Also answered as `name.network`.
    pub name: String,
    /// `None` for a link, which is this sandbox's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// Of these addresses it is the name that a reverse query finds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reverse: Vec<IpAddr>,
    /// SRV records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub srv: Vec<Srv>,
    /// The name it stands for (CNAME), in this view or outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// As it is answered: with the network's name behind it.
    pub target: String,
}
