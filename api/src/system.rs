//! The daemon itself: status, doctor, down, log filter, health, readiness, metrics, and this API's description.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::value::Timestamp;
use crate::verb::{Answer, Method, Nothing, Verb};

pub struct Status;

impl Verb for Status {
    const ID: &'static str = "system.status";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/status";
    const SUMMARY: &'static str =
        "Show the daemon, the data plane, the store, the kernel's features and counts";
    type Params = Nothing;
    type Body = Nothing;
    type Response = SystemStatus;
}

pub struct Doctor;

impl Verb for Doctor {
    const ID: &'static str = "system.doctor";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/doctor";
    const SUMMARY: &'static str = "Check what netd needs from this host, with remedies";
    type Params = Nothing;
    type Body = Nothing;
    type Response = Diagnosis;
}

pub struct Down;

impl Verb for Down {
    const ID: &'static str = "system.down";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/down";
    const SUMMARY: &'static str = "Take all ports and names off and stop both processes";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = Nothing;
    type Body = DownRequest;
    type Response = DownReport;
}

pub struct GetLog;

impl Verb for GetLog {
    const ID: &'static str = "system.log.get";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/log";
    const SUMMARY: &'static str = "Show which events are logged";
    type Params = Nothing;
    type Body = Nothing;
    type Response = LogFilter;
}

pub struct SetLog;

impl Verb for SetLog {
    const ID: &'static str = "system.log.set";
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/log";
    const SUMMARY: &'static str = "Change which events are logged, until the daemon ends";
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = Nothing;
    type Body = LogFilter;
    type Response = LogFilter;
}

pub struct OpenApi;

impl Verb for OpenApi {
    const ID: &'static str = "system.openapi";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/openapi.json";
    const SUMMARY: &'static str = "This API, as an OpenAPI 3.1 document";
    type Params = Nothing;
    type Body = Nothing;
    type Response = serde_json::Value;
}

pub struct Healthz;

impl Verb for Healthz {
    const ID: &'static str = "system.healthz";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/healthz";
    const SUMMARY: &'static str = "Answers while the daemon lives";
    type Params = Nothing;
    type Body = Nothing;
    type Response = Health;
}

pub struct Readyz;

impl Verb for Readyz {
    const ID: &'static str = "system.readyz";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/readyz";
    const SUMMARY: &'static str =
        "Answers once the kernel and the data plane hold what the store says; 503 before";
    type Params = Nothing;
    type Body = Nothing;
    type Response = Health;
}

pub struct Metrics;

impl Verb for Metrics {
    const ID: &'static str = "system.metrics";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/metrics";
    const SUMMARY: &'static str = "Metrics for Prometheus";
    const ANSWER: Answer =
        Answer::Text { content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8" };
    type Params = Nothing;
    type Body = Nothing;
    type Response = String;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SystemStatus {
    pub version: String,
    pub node: String,
    pub pid: u32,
    pub started: Timestamp,
    pub ready: bool,
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub netns_dir: PathBuf,
    pub store: StoreStatus,
    /// Where this node is one of many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    pub data_plane: DataPlaneStatus,
    pub features: Vec<Feature>,
    pub counts: Counts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreStatus {
    /// `redb`.
    pub kind: String,
    /// Where it is.
    pub location: String,
    pub revision: u64,
}

/// What this node has with the others of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStatus {
    /// `etcd`.
    pub store: String,
    /// Where it is.
    pub location: String,
    /// While it is not, what was known goes on to be served.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Timestamp,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Whom of it this node speaks to, or spoke to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How often the connection had to be made again.
    pub reconnects: u64,
    pub keys: u64,
    /// Up to where the store has told of changes.
    pub revision: u64,
    /// Up to where the data plane serves them.
    pub served: u64,
    /// `member`, `apart` (not joined yet), `removed`, `name-taken`, or `estranged` (etcd has not got this cluster's
    /// records).
    pub standing: String,
    /// Nodes that belong to the cluster.
    pub members: u64,
    /// Those of them that are alive.
    pub alive: Vec<String>,
    /// How long ago all that this node tells the others was last found to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_seconds_ago: Option<u64>,
    /// What keeps it from being there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataPlaneStatus {
    pub state: DataPlaneState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// The last revision of the store whose tables it has acknowledged.
    pub revision: u64,
    /// How often it was started again.
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataPlaneState {
    Starting,
    Running,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Feature {
    pub name: String,
    pub available: bool,
    /// What it is for, or what is done without it.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    pub networks: u64,
    pub sandboxes: u64,
    pub endpoints: u64,
    pub published_ports: u64,
    pub names: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DownRequest {
    /// Remove all kernel objects and the state as well.
    #[serde(default)]
    pub purge: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DownReport {
    /// What could not be taken down or removed; it all was if this is empty.
    pub errors: Vec<String>,
}

/// What is logged, as `info,netd::manager=debug,access=off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    pub filter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}
