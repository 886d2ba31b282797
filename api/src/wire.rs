//! Requests on the wire: parameters to and from paths and query strings, bodies to and from JSON.
//!
//! The client encodes and the server decodes with the same types, so both halves live here. Everything decoded is
//! hostile: the server bounds sizes ([`MAX_BODY`]), serde bounds depth, and a refusal names the field.

mod percent;
mod strict;
mod text;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;
use crate::verb::{Verb, path_parameters};

/// Bodies of requests beyond this are refused.
pub const MAX_BODY: usize = 1 << 20;

/// Path and query of a request for `V`.
pub fn target<V: Verb>(params: &V::Params) -> Result<String, ApiError> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(params) else {
        return Err(ApiError::invalid("the parameters are not an object"));
    };
    let mut target = V::PATH.to_owned();
    for name in path_parameters(V::PATH) {
        let value = fields.remove(name).as_ref().and_then(scalar).unwrap_or_default();
        if value.is_empty() {
            return Err(ApiError::invalid("it is empty").at(name));
        }
        target = target.replace(&format!("{{{name}}}"), &percent::encode(&value));
    }
    let mut separator = '?';
    for (name, value) in &fields {
        let values = match value {
            Value::Array(values) => values.iter().filter_map(scalar).collect(),
            _ => Vec::from_iter(scalar(value)),
        };
        for value in values {
            target.push(separator);
            separator = '&';
            target.extend([percent::encode(name).as_str(), "=", &percent::encode(&value)]);
        }
    }
    Ok(target)
}

/// Parameters from the parts of the path that the template names, still percent-encoded, and the query string.
pub fn params<'a, P: DeserializeOwned>(
    path: impl IntoIterator<Item = (&'a str, &'a str)>,
    query: Option<&'a str>,
) -> Result<P, ApiError> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut fields = text::Fields::default();
    for (name, value) in path.into_iter().chain(pairs) {
        let decode = |text| {
            percent::decode(text)
                .ok_or_else(|| ApiError::invalid(format!("{text:?} is not well encoded")).at(name))
        };
        fields.add(decode(name)?, decode(value)?);
    }
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(fields.into_deserializer(), &mut track);
    P::deserialize(deserializer).map_err(|error| refusal(&track.path(), &error))
}

/// A body; an empty one counts as an object without members.
pub fn body<B: DeserializeOwned>(bytes: &[u8]) -> Result<B, ApiError> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value =
        B::deserialize(strict::Strict(deserializer)).map_err(|error| refusal(&track.path(), &error))?;
    json.end().map_err(|error| ApiError::invalid(format!("something follows the JSON body: {error}")))?;
    Ok(value)
}

/// A body as it is sent.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| ApiError::invalid(format!("it has no JSON form: {error}")))
}

fn refusal(path: &serde_path_to_error::Path, error: &impl ToString) -> ApiError {
    let refusal = ApiError::invalid(error.to_string());
    match path.to_string() {
        root if root == "." => refusal,
        field => refusal.at(field),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
