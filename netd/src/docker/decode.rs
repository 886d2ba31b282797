//! Requests into values. Docker's newer versions add fields, so unknown ones are passed over; what is known has to be
//! right, and the field that is not is named.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use ipnetwork::IpNetwork;
use netd_api::ApiError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::Result;
use crate::model::Id;

/// A thousand published ports are some 80 KiB.
const MAX_BODY: usize = 1024 * 1024;
/// The whole body has to be there within this.
const BODY_TIME: Duration = Duration::from_secs(30);

pub(super) async fn body(request: Request<Incoming>) -> Result<Bytes> {
    let limited = Limited::new(request.into_body(), MAX_BODY);
    let collected = tokio::time::timeout(BODY_TIME, limited.collect())
        .await
        .map_err(|_| ApiError::invalid(format!("the body did not arrive within {BODY_TIME:?}")))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::invalid(format!("the body is larger than {MAX_BODY} bytes")).into())
        }
        Err(error) => Err(ApiError::invalid(format!("the body ended early: {error}")).into()),
    }
}

pub(super) fn request<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let mut from = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let refusal = ApiError::invalid(format!("the request cannot be read: {}", error.inner()));
        match path(error.path()) {
            field if field.is_empty() => refusal,
            field => refusal.at(field),
        }
    })?;
    from.end().map_err(|error| ApiError::invalid(format!("more follows the request: {error}")))?;
    Ok(value)
}

/// Empty where the whole is wrong, or ended before it was known which part.
pub(super) fn path(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    if path == "." || path == "?" { String::new() } else { path }
}

/// Go writes null for an empty list or map.
pub(super) fn nullable<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// Docker's ids of networks and endpoints: 64 hex digits, or 25 letters and digits in a swarm. They become names of
/// devices and files here.
pub(super) fn id(field: &str, text: &str) -> Result<Id> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    if (12..=64).contains(&text.len()) && is_plain {
        return Ok(text.into());
    }
    let shown: String = text.chars().take(80).collect();
    Err(ApiError::invalid(format!("{shown:?} is no id: 12 to 64 lower-case letters and digits"))
        .at(field)
        .into())
}

/// An address that may be absent, which Go writes as an empty text.
pub(super) fn optional<T: FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        ApiError::invalid(format!("{shown:?} cannot be read: {error}")).at(field).into()
    })
}

/// `10.1.0.1/24`, or `10.1.0.1` alone.
pub(super) fn address(field: &str, text: &str) -> Result<Option<IpAddr>> {
    Ok(optional::<IpNetwork>(field, text)?.map(|with_prefix| with_prefix.ip()))
}

/// The options of `docker network create -o`, among what Docker adds of its own.
pub(super) fn driver_options(options: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>> {
    let field = "Options.com.docker.network.generic";
    let Some(generic) = options.get("com.docker.network.generic").filter(|value| !value.is_null()) else {
        return Ok(BTreeMap::new());
    };
    let Some(generic) = generic.as_object() else {
        return Err(ApiError::invalid("the options are no object").at(field).into());
    };
    let text = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        Value::Bool(_) | Value::Number(_) => Ok((key.clone(), value.to_string())),
        _ => Err(ApiError::invalid("an option is one value").at(format!("{field}.{key}")).into()),
    };
    generic.iter().map(text).collect()
}
