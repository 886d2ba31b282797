//! Sandboxes: create, ls, inspect, rm, and their published ports. Field names are Docker's where Docker has the field.

mod inspect;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::network::ListParams;
use crate::value::{
    self, AddHost, Alias, Bandwidth, ExposeSpec, Hostname, Invalid, LinkName, LinkSpec, Mac, MemberSpec,
    NetworkName, PortSpec, PublishBy, Reference, ResolvOption, SandboxName, SearchDomain, string_form,
};
use crate::verb::{Answer, Method, Nothing, Verb};

pub use inspect::{
    Config, EndpointSettings, HostConfig, NetworkSettings, PortBinding, PortMap, Sandbox, State, Status,
};

pub struct Create;

impl Verb for Create {
    const ID: &'static str = "sandbox.create";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/sandboxes";
    const SUMMARY: &'static str =
        "Create a sandbox: a namespace with its networks, names and published ports";
    const ANSWER: Answer = Answer::Json { status: 201 };
    const ERRORS: &'static [Code] =
        &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict, Code::Exhausted];
    type Params = Nothing;
    type Body = CreateSandbox;
    type Response = Sandbox;
}

pub struct List;

impl Verb for List {
    const ID: &'static str = "sandbox.ls";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/sandboxes";
    const SUMMARY: &'static str = "List sandboxes";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = ListParams;
    type Body = Nothing;
    type Response = Vec<Sandbox>;
}

pub struct Inspect;

impl Verb for Inspect {
    const ID: &'static str = "sandbox.inspect";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/sandboxes/{name}";
    const SUMMARY: &'static str = "Show one sandbox";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = SandboxParams;
    type Body = Nothing;
    type Response = Sandbox;
}

pub struct Remove;

impl Verb for Remove {
    const ID: &'static str = "sandbox.rm";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/v1/sandboxes/{name}";
    const SUMMARY: &'static str =
        "Remove a sandbox; with force also one that others share, or whose namespace is gone";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound, Code::Conflict];
    type Params = RemoveParams;
    type Body = Nothing;
    type Response = Nothing;
}

pub struct Check;

impl Verb for Check {
    const ID: &'static str = "sandbox.check";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/sandboxes/{name}/check";
    const SUMMARY: &'static str =
        "Look whether the kernel holds what a sandbox should have; nothing is changed";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = SandboxParams;
    type Body = Nothing;
    type Response = Vec<Fault>;
}

/// For runtimes, which say what goes and not what is there.
pub struct Leave;

impl Verb for Leave {
    const ID: &'static str = "sandbox.leave";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/sandboxes/{name}/leave";
    const SUMMARY: &'static str =
        "Take a sandbox off a network, with its last one the sandbox itself; what is not there is no error";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = SandboxParams;
    type Body = LeaveNetwork;
    type Response = Nothing;
}

pub struct Ports;

impl Verb for Ports {
    const ID: &'static str = "sandbox.ports";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/sandboxes/{name}/ports";
    const SUMMARY: &'static str = "Show the published and exposed ports of a sandbox";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::NotFound];
    type Params = SandboxParams;
    type Body = Nothing;
    type Response = PortMap;
}

pub struct Publish;

impl Verb for Publish {
    const ID: &'static str = "sandbox.publish";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/sandboxes/{name}/publish";
    const SUMMARY: &'static str = "Publish one more port of a running sandbox";
    const ERRORS: &'static [Code] =
        &[Code::Invalid, Code::Forbidden, Code::NotFound, Code::Conflict, Code::Exhausted];
    type Params = SandboxParams;
    type Body = PublishPort;
    type Response = PortMap;
}

pub struct Unpublish;

impl Verb for Unpublish {
    const ID: &'static str = "sandbox.unpublish";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/sandboxes/{name}/unpublish";
    const SUMMARY: &'static str = "Close a published port of a running sandbox";
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::Forbidden, Code::NotFound];
    type Params = SandboxParams;
    type Body = UnpublishPort;
    type Response = PortMap;
}

/// Keys of `filter` in `ls`.
pub const FILTERS: &[&str] = &["id", "label", "label!", "name", "network"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxParams {
    /// Name, id, or a unique prefix of the id.
    pub name: Reference,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveParams {
    pub name: Reference,
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateSandbox {
    pub name: SandboxName,
    #[serde(default)]
    pub network_mode: NetworkMode,
    /// With the mode `bridge` only; none means the default network.
    #[serde(default)]
    pub networks: Vec<Attachment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    #[serde(default)]
    pub publish: Vec<PortSpec>,
    #[serde(default)]
    pub expose: Vec<ExposeSpec>,
    /// Publish every exposed port that `Publish` does not name.
    #[serde(default)]
    pub publish_all: bool,
    /// How all of these ports are published: `bind` a socket, or `steer` past one that a runtime keeps on the port.
    #[serde(default, skip_serializing_if = "PublishBy::is_default")]
    pub publish_by: PublishBy,
    /// Asked instead of the host's resolvers.
    #[serde(default, deserialize_with = "value::addresses")]
    pub dns: Vec<IpAddr>,
    #[serde(default)]
    pub dns_search: Vec<SearchDomain>,
    #[serde(default)]
    pub dns_options: Vec<ResolvOption>,
    #[serde(default)]
    pub extra_hosts: Vec<AddHost>,
    #[serde(default)]
    pub links: Vec<LinkSpec>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The service it is an endpoint of, `SERVICE[,weight=N]`; it joins the service's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<MemberSpec>,
    /// A namespace that somebody else made and keeps; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Who made it, for runtimes that share a daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Whose network namespace a sandbox has: `bridge` (its own), `host`, `none` (its own, empty) or `container:SANDBOX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    #[default]
    Bridge,
    Host,
    None,
    Container(Reference),
}

/// A sandbox's place on one network, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Attachment {
    pub network: Reference,
    #[serde(default)]
    pub aliases: Vec<Alias>,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PublishPort {
    pub port: PortSpec,
    /// `bind` a socket, or `steer` past one that a runtime keeps on the port.
    #[serde(default, skip_serializing_if = "PublishBy::is_default")]
    pub publish_by: PublishBy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UnpublishPort {
    pub port: PortSpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LeaveNetwork {
    /// By its name alone.
    pub network: NetworkName,
    /// The device that the sandbox has there: with another one it stays.
    pub interface: LinkName,
}

/// Something that a sandbox should have and has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Fault {
    /// Where it is missing; absent if it concerns the whole sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    pub detail: String,
}

impl Attachment {
    #[must_use]
    pub fn to(network: Reference) -> Self {
        Self {
            network,
            aliases: Vec::new(),
            ipv4_address: None,
            ipv6_address: None,
            mac_address: None,
            interface: None,
            dns_name: None,
            bandwidth: None,
        }
    }
}

impl CreateSandbox {
    /// On the default network, with nothing published.
    #[must_use]
    pub fn named(name: SandboxName) -> Self {
        Self {
            name,
            network_mode: NetworkMode::Bridge,
            networks: Vec::new(),
            hostname: None,
            publish: Vec::new(),
            expose: Vec::new(),
            publish_all: false,
            publish_by: PublishBy::Bind,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            extra_hosts: Vec::new(),
            links: Vec::new(),
            labels: BTreeMap::new(),
            service: None,
            netns: None,
            owner: None,
        }
    }
}

impl FromStr for NetworkMode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("container:") {
                Some(sandbox) => sandbox.parse().map(Self::Container),
                None => {
                    let remedy = "use bridge, host, none or container:SANDBOX, and name networks in Networks";
                    Err(Invalid::new("network mode", text, "there is no such mode", remedy))
                }
            },
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::None => f.write_str("none"),
            Self::Container(sandbox) => write!(f, "container:{sandbox}"),
        }
    }
}

string_form!(NetworkMode, "bridge, host, none or container:SANDBOX");
