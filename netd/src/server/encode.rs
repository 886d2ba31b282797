//! Values into responses.

use std::convert::Infallible;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use netd_api::{ApiError, Problem};
use serde::Serialize;

use super::listen::Body;
use crate::error::Result;

pub(super) fn json(status: u16, value: &impl Serialize) -> Result<Response<Body>> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| ApiError::kernel(error.to_string()))?;
    bytes.push(b'\n');
    Ok(with(status, "application/json", full(bytes)))
}

/// For protocols that call their JSON by another name.
pub(crate) fn json_as(content_type: &'static str, status: u16, value: &serde_json::Value) -> Response<Body> {
    with(status, content_type, full(value.to_string().into_bytes()))
}

pub(super) fn nothing() -> Response<Body> {
    let mut response = Response::new(BoxBody::new(Empty::new()));
    *response.status_mut() = hyper::StatusCode::NO_CONTENT;
    response
}

pub(super) fn text(content_type: &'static str, text: String) -> Response<Body> {
    with(200, content_type, full(text.into_bytes()))
}

pub(super) fn problem(error: ApiError) -> Response<Body> {
    let problem = error.problem();
    let bytes = serde_json::to_vec(&problem).unwrap_or_default();
    with(problem.status, Problem::CONTENT_TYPE, full(bytes))
}

pub(super) fn with(status: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn full(bytes: Vec<u8>) -> BoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(bytes)).boxed()
}
