//! What the data plane counts, by service and by port.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::Timestamp;
use crate::verb::{Method, Nothing, Verb};

pub struct Read;

impl Verb for Read {
    const ID: &'static str = "stats.read";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/stats";
    const SUMMARY: &'static str = "Show what was counted since the data plane began, by service and by port";
    type Params = Nothing;
    type Body = Nothing;
    type Response = Stats;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// When it was counted: two answers make a rate.
    pub time: Timestamp,
    /// The sums over all ports of a service, those that are gone included.
    pub services: Vec<Figures>,
    pub ports: Vec<Figures>,
}

/// Counters grow from the data plane's start on; `open` is of the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// A service's name, or `SANDBOX:PORT/PROTO` of a published port.
    pub service: String,
    /// `tcp/0.0.0.0:8080`; port 0 is every port of a service's address. Absent in sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Connections and UDP flows.
    pub open: u64,
    pub accepted: u64,
    /// By reason.
    #[serde(default)]
    pub failed: BTreeMap<String, u64>,
    /// Attempts made on another endpoint after one failed.
    pub retries: u64,
    pub bytes_to_backend: u64,
    pub bytes_to_client: u64,
    pub datagrams_to_backend: u64,
    pub datagrams_to_client: u64,
    /// How long connecting to an endpoint took.
    pub connect: Vec<Bucket>,
    pub connect_seconds: f64,
}

/// Connects that took no longer than this, and longer than the bucket before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// Seconds; the last bucket has no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<f64>,
    pub count: u64,
}
