//! A sandbox as `inspect` and `ls` show it, in Docker's shape.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{Bandwidth, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Sandbox {
    pub id: String,
    pub name: String,
    pub created: Timestamp,
    pub state: State,
    /// Bind these over /etc/resolv.conf and /etc/hosts; absent if the sandbox uses the host's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolv_conf_path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_path: Option<PathBuf>,
    pub config: Config,
    pub host_config: HostConfig,
    pub network_settings: NetworkSettings,
    /// What was done otherwise than asked; in the answer to create only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    /// The namespace is gone, or its path leads to another one.
    Dead,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    pub hostname: String,
    /// Keys as `80/tcp`; the values are empty objects.
    pub exposed_ports: BTreeMap<String, BTreeMap<String, String>>,
    /// Of which it is an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Who made it: `cli`, `cni:<network>`, ...
    pub owner: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// The first network's name, `host`, `none` or `container:<id>`.
    pub network_mode: String,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// `SANDBOX:ALIAS`.
    pub links: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// The sandbox whose namespace it is: its own id, but for `container:` mode.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// Path of the network namespace.
    pub sandbox_key: PathBuf,
    pub ports: PortMap,
    /// By network name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// By container port, as `80/tcp`. An exposed port that is not published has no bindings.
pub type PortMap = BTreeMap<String, Vec<PortBinding>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// A sandbox's place on one network. Text that does not apply is empty, as with Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointSettings {
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    pub mac_address: String,
    /// As the user gave them.
    pub aliases: Vec<String>,
    /// All that resolve to it on this network.
    #[serde(rename = "DNSNames")]
    pub dns_names: Vec<String>,
    /// The device in the sandbox.
    pub interface: String,
    /// The device in the host's namespace.
    pub host_interface: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Who asked for it: `cli`, `cni:<network>`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
}
