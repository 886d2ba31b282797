//! What happened: a stream of one JSON object a line.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::filter::Filter;
use crate::value::Timestamp;
use crate::verb::{Answer, Method, Nothing, Verb};

pub struct Follow;

impl Verb for Follow {
    const ID: &'static str = "events.follow";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/events";
    const SUMMARY: &'static str = "Follow what happens, from `since` on as far as it is remembered";
    const ANSWER: Answer = Answer::Lines;
    const ERRORS: &'static [Code] = &[Code::Invalid];
    type Params = FollowParams;
    type Body = Nothing;
    type Response = Event;
}

/// Keys of `filter`.
pub const FILTERS: &[&str] = &["type", "action", "event", "network", "sandbox", "service", "node", "label"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FollowParams {
    /// Begin with remembered events from this time on; without it only new ones are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// End at this time instead of following.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// May be repeated. Values of one key are alternatives, keys must all hold.
    #[serde(default)]
    pub filter: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub time: Timestamp,
    /// `network`, `sandbox`, `service`, `node`, `store` or `daemon`.
    pub r#type: String,
    /// Docker's words: `create`, `destroy`, `connect`, `disconnect`, ...
    pub action: String,
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}
