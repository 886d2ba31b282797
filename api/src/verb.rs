//! What a verb is, and the one list of all verbs.
//!
//! A verb has a method, a path template, parameters (from the path and the query string), a body and an answer. The
//! server, the client and the OpenAPI document are made from these declarations.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::{cluster, dns, events, network, node, sandbox, service, stats, system};

/// One operation of the API.
pub trait Verb: Send + Sync + 'static {
    /// Unique and stable; `noun.verb`. Used in OpenAPI and as a label.
    const ID: &'static str;
    const METHOD: Method;
    /// `/v1/networks/{name}`: each part in braces is a field of [`Verb::Params`].
    const PATH: &'static str;
    const SUMMARY: &'static str;
    const ANSWER: Answer = Answer::Json { status: 200 };
    /// What it can fail with, beside `unavailable` and `kernel`, which every verb can.
    const ERRORS: &'static [Code] = &[];

    /// Path and query parameters.
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// [`Nothing`] for verbs without a body.
    type Body: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// With [`Answer::Lines`]: one line.
    type Response: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// The form of a successful answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Json {
        status: u16,
    },
    /// 204, no body.
    Nothing,
    /// A text document; the response type is `String`.
    Text {
        content_type: &'static str,
    },
    /// One JSON object a line (`application/x-ndjson`), until one of the sides ends it.
    Lines,
}

/// No parameters, no body, no answer: an empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A [`Verb`] without its types, for lists.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    pub id: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub summary: &'static str,
    pub answer: Answer,
    pub errors: &'static [Code],
    pub params: fn(&mut SchemaGenerator) -> Schema,
    /// `None` if the verb takes no body.
    pub body: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub response: fn(&mut SchemaGenerator) -> Schema,
}

impl Declaration {
    #[must_use]
    pub fn of<V: Verb>() -> Self {
        Self {
            id: V::ID,
            method: V::METHOD,
            path: V::PATH,
            summary: V::SUMMARY,
            answer: V::ANSWER,
            errors: V::ERRORS,
            params: |schemas| V::Params::json_schema(schemas),
            body: V::METHOD
                .has_body()
                .then_some(|schemas: &mut SchemaGenerator| schemas.subschema_for::<V::Body>()),
            response: |schemas| schemas.subschema_for::<V::Response>(),
        }
    }

    /// The names in braces, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        path_parameters(self.path)
    }
}

impl Method {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    #[must_use]
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put)
    }
}

/// Every verb there is.
#[must_use]
pub fn all() -> Vec<Declaration> {
    vec![
        Declaration::of::<network::Create>(),
        Declaration::of::<network::List>(),
        Declaration::of::<network::Inspect>(),
        Declaration::of::<network::Remove>(),
        Declaration::of::<network::Prune>(),
        Declaration::of::<network::Connect>(),
        Declaration::of::<network::Disconnect>(),
        Declaration::of::<network::Update>(),
        Declaration::of::<network::UpdateEndpoint>(),
        Declaration::of::<sandbox::Create>(),
        Declaration::of::<sandbox::List>(),
        Declaration::of::<sandbox::Inspect>(),
        Declaration::of::<sandbox::Remove>(),
        Declaration::of::<sandbox::Check>(),
        Declaration::of::<sandbox::Leave>(),
        Declaration::of::<sandbox::Ports>(),
        Declaration::of::<sandbox::Publish>(),
        Declaration::of::<sandbox::Unpublish>(),
        Declaration::of::<cluster::Restore>(),
        Declaration::of::<node::List>(),
        Declaration::of::<node::Inspect>(),
        Declaration::of::<node::Drain>(),
        Declaration::of::<node::Activate>(),
        Declaration::of::<node::Remove>(),
        Declaration::of::<service::Create>(),
        Declaration::of::<service::List>(),
        Declaration::of::<service::Inspect>(),
        Declaration::of::<service::Update>(),
        Declaration::of::<service::Remove>(),
        Declaration::of::<service::Drain>(),
        Declaration::of::<stats::Read>(),
        Declaration::of::<dns::Dump>(),
        Declaration::of::<events::Follow>(),
        Declaration::of::<system::Status>(),
        Declaration::of::<system::Doctor>(),
        Declaration::of::<system::Down>(),
        Declaration::of::<system::GetLog>(),
        Declaration::of::<system::SetLog>(),
        Declaration::of::<system::OpenApi>(),
        Declaration::of::<system::Healthz>(),
        Declaration::of::<system::Readyz>(),
        Declaration::of::<system::Metrics>(),
    ]
}

pub(crate) fn path_parameters(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
