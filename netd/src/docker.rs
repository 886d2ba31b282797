//! Docker's network and IPAM plugin: its protocol is one POST with JSON for each call, on a socket where dockerd looks
//! for plugins. Decode, call a manager, encode; what a call means is decided in `manager::docker`.
//!
//! An answer to a call that failed is a text under `Err` (networks) or `Error` (addresses), which the user sees behind
//! "remote: "; it carries both. dockerd repeats a call only when the connection fails, so nothing is answered before
//! the daemon is ready.

mod decode;
mod endpoint;
mod network;
mod pool;
mod ports;

use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use netd_api::ApiError;
use serde_json::{Value, json};

use crate::error::{Fault, Result};
use crate::server::App;
use crate::server::listen::Body;

const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

pub(crate) async fn handle(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let call = request.uri().path().trim_start_matches('/').to_owned();
    if request.method() != Method::POST {
        let error = ApiError::invalid(format!("Docker's plugin protocol has no {}", request.method()));
        return reply(405, &refusal(&error.remedy("POST to /Plugin.Activate to begin")));
    }
    let body = match decode::body(request).await {
        Ok(body) => body,
        Err(Fault(error)) => return reply(400, &refusal(&error)),
    };
    match answer(&app, &call, &body).await {
        Some(Ok(value)) => {
            tracing::debug!(target: "netd::docker", call, "call done");
            reply(200, &value)
        }
        Some(Err(Fault(error))) => {
            tracing::info!(target: "netd::docker", call, %error, "call refused");
            reply(200, &refusal(&error))
        }
        // Also how dockerd finds out that a plugin is older than a method.
        None => reply(404, &refusal(&ApiError::not_found(format!("the plugin has no method {call:?}")))),
    }
}

async fn answer(app: &Arc<App>, call: &str, body: &Bytes) -> Option<Result<Value>> {
    Some(match call {
        "Plugin.Activate" => Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] })),
        "NetworkDriver.GetCapabilities" => Ok(json!({ "Scope": "local", "ConnectivityScope": "local" })),
        "NetworkDriver.AllocateNetwork" => Err(network::of_a_swarm()),
        // What is told of other nodes, and of networks that we never allocated, changes nothing on this one.
        "NetworkDriver.FreeNetwork" | "NetworkDriver.DiscoverNew" | "NetworkDriver.DiscoverDelete" => {
            Ok(json!({}))
        }
        "NetworkDriver.CreateNetwork" => network::create(app, body).await,
        "NetworkDriver.DeleteNetwork" => network::delete(app, body).await,
        "NetworkDriver.CreateEndpoint" => endpoint::create(app, body).await,
        "NetworkDriver.EndpointOperInfo" => endpoint::info(body),
        "NetworkDriver.DeleteEndpoint" => endpoint::delete(app, body).await,
        "NetworkDriver.Join" => endpoint::join(app, body).await,
        "NetworkDriver.Leave" => endpoint::leave(app, body).await,
        "NetworkDriver.ProgramExternalConnectivity" => endpoint::program(app, body).await,
        "NetworkDriver.RevokeExternalConnectivity" => endpoint::revoke(app, body).await,
        "IpamDriver.GetCapabilities" => {
            Ok(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
        }
        "IpamDriver.GetDefaultAddressSpaces" => Ok(pool::spaces()),
        "IpamDriver.RequestPool" => pool::request(app, body).await,
        "IpamDriver.ReleasePool" => pool::release(app, body).await,
        "IpamDriver.RequestAddress" => pool::request_address(app, body).await,
        "IpamDriver.ReleaseAddress" => pool::release_address(app, body).await,
        _ => return None,
    })
}

fn refusal(error: &ApiError) -> Value {
    let text = error.to_string();
    json!({ "Err": text, "Error": text })
}

fn reply(status: u16, value: &Value) -> Response<Body> {
    crate::server::json_as(CONTENT_TYPE, status, value)
}

#[cfg(test)]
mod tests;
