//! What of a network, and of a sandbox's place on it, changes while both work.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Network, NetworkParams};
use crate::error::Code;
use crate::sandbox::EndpointSettings;
use crate::value::{Alias, Bandwidth, Reference};
use crate::verb::{Method, Verb};

pub struct Update;

impl Verb for Update {
    const ID: &'static str = "network.update";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/networks/{name}/update";
    const SUMMARY: &'static str = "Change options of a network that sandboxes may be on";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::Forbidden, Code::NotFound];
    type Params = NetworkParams;
    type Body = ChangeNetwork;
    type Response = Network;
}

pub struct UpdateEndpoint;

impl Verb for UpdateEndpoint {
    const ID: &'static str = "network.update-endpoint";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/networks/{name}/endpoint";
    const SUMMARY: &'static str =
        "Give a sandbox on a network other names there, or other rates; what is so already stays so";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound, Code::Conflict];
    type Params = NetworkParams;
    type Body = ChangeEndpoint;
    type Response = EndpointSettings;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ChangeNetwork {
    /// `icc`, `isolate` and `masquerade`; the others stay as they were made. See [`super::BridgeOptions`].
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ChangeEndpoint {
    pub sandbox: Reference,
    /// The name in place of the sandbox's own, which reverse queries answer. Taken as an alias, it gives way again.
    #[serde(default, rename = "DNSName", skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<Alias>,
    /// Those that it has already are no error.
    #[serde(default)]
    pub add_aliases: Vec<Alias>,
    /// Those that it does not have are no error.
    #[serde(default)]
    pub remove_aliases: Vec<Alias>,
    /// A rate that is 0 stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

impl ChangeEndpoint {
    /// Nothing changes.
    #[must_use]
    pub const fn of(sandbox: Reference) -> Self {
        Self { sandbox, dns_name: None, add_aliases: Vec::new(), remove_aliases: Vec::new(), bandwidth: None }
    }
}
