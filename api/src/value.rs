//! Values that cannot be wrong: parsed at the edge, by the command line and by the server alike, each with an error
//! that names the kind, the value, the cause and the remedy. In JSON every one of them is a string.

mod address;
mod bandwidth;
mod dns;
mod label;
mod mac;
mod name;
mod port;
mod service;
mod span;
mod subnet;
mod time;

#[cfg(test)]
mod tests;

pub use address::{AddHost, list as addresses, map as address_map, option_any, option_v4, option_v6};
pub use bandwidth::Bandwidth;
pub use dns::{Alias, Hostname, ResolvOption, SearchDomain};
pub use label::Label;
pub use mac::Mac;
pub use name::{LinkName, LinkSpec, NetworkName, Reference, SandboxName};
pub use port::{ExposeSpec, PortRange, PortSpec, Protocol, PublishBy};
pub use service::{
    Affinity, BackendSpec, DrainSpec, HealthSpec, MemberSpec, PortName, ServiceName, ServicePortSpec,
};
pub use span::Span;
pub use subnet::Subnet;
pub use time::Timestamp;

/// A value that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {cause}; {remedy}")]
pub struct Invalid {
    pub what: &'static str,
    pub value: String,
    pub cause: String,
    pub remedy: String,
}

impl Invalid {
    /// Of a long value only the beginning is kept: it goes into messages and logs.
    pub(crate) fn new(
        what: &'static str,
        value: &str,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let shown = match value.char_indices().nth(SHOWN) {
            None => value.to_owned(),
            Some((end, _)) => format!("{}...", &value[..end]),
        };
        Self { what, value: shown, cause: cause.into(), remedy: remedy.into() }
    }
}

const SHOWN: usize = 80;

/// Serde and JSON schema of a type through its `FromStr` and `Display`.
macro_rules! string_form {
    ($type:ty, $description:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description })
            }
        }
    };
}
pub(crate) use string_form;
