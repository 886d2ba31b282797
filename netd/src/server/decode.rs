//! Requests into values; `netd_api::wire` says how, this file says how much and for how long.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Incoming;
use netd_api::wire::{self, MAX_BODY};
use netd_api::{ApiError, Verb};

use crate::error::Result;

/// A client has this long to send its body.
const BODY_TIME: Duration = Duration::from_secs(30);

pub(super) fn params<V: Verb>(path: &[(String, String)], query: Option<&str>) -> Result<V::Params> {
    Ok(wire::params(path.iter().map(|(name, value)| (&**name, &**value)), query)?)
}

pub(super) async fn body<V: Verb>(request: Request<Incoming>) -> Result<V::Body> {
    if !V::METHOD.has_body() {
        return Ok(wire::body(b"{}")?);
    }
    let limited = Limited::new(request.into_body(), MAX_BODY);
    let collected = tokio::time::timeout(BODY_TIME, limited.collect())
        .await
        .map_err(|_| ApiError::invalid(format!("the body did not arrive within {BODY_TIME:?}")))?;
    match collected {
        Ok(collected) => Ok(wire::body(&collected.to_bytes())?),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than {MAX_BODY} bytes");
            Err(ApiError::invalid(detail).remedy("send less").into())
        }
        Err(error) => Err(ApiError::invalid(format!("the body ended early: {error}")).into()),
    }
}
