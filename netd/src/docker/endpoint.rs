//! Calls of the noun endpoint: made, joined to a container, published, left, deleted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use netd_api::ApiError;
use netd_api::value::{Mac, PortSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{decode, ports};
use crate::error::Result;
use crate::manager::docker::{self, Joined, NewEndpoint};
use crate::model::Id;
use crate::server::App;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Call {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    #[serde(default, deserialize_with = "decode::nullable")]
    interface: Interface,
    #[serde(default)]
    sandbox_key: PathBuf,
    #[serde(default, deserialize_with = "decode::nullable")]
    options: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    #[serde(default)]
    address: String,
    #[serde(default, rename = "AddressIPv6")]
    address_v6: String,
    #[serde(default)]
    mac_address: String,
}

impl Call {
    fn read(body: &[u8]) -> Result<(Self, Id, Id)> {
        let call: Self = decode::request(body)?;
        let (network, endpoint) =
            (decode::id("NetworkID", &call.network)?, decode::id("EndpointID", &call.endpoint)?);
        Ok((call, network, endpoint))
    }
}

pub(super) async fn create(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let new = new_endpoint(body)?;
    let chosen = new.mac;
    let octets = app.change(move |world| docker::create_endpoint(world, &new)).await?;
    // Only what the request left open may be filled in.
    Ok(match chosen {
        Some(_) => json!({}),
        None => json!({ "Interface": { "MacAddress": Mac::new(octets)?.to_string() } }),
    })
}

pub(super) fn new_endpoint(body: &[u8]) -> Result<NewEndpoint> {
    let (call, network, id) = Call::read(body)?;
    let Interface { address, address_v6, mac_address } = &call.interface;
    let v4 = match decode::optional::<IpNetwork>("Interface.Address", address)? {
        Some(IpNetwork::V4(v4)) => Some((v4.ip(), v4.prefix())),
        Some(IpNetwork::V6(_)) => {
            return Err(ApiError::invalid("it is an IPv6 address").at("Interface.Address").into());
        }
        None => None,
    };
    let v6 = match decode::optional::<IpNetwork>("Interface.AddressIPv6", address_v6)? {
        Some(IpNetwork::V6(v6)) => Some((v6.ip(), v6.prefix())),
        Some(IpNetwork::V4(_)) => {
            return Err(ApiError::invalid("it is an IPv4 address").at("Interface.AddressIPv6").into());
        }
        None => None,
    };
    let mac = decode::optional::<Mac>("Interface.MacAddress", mac_address)?;
    Ok(NewEndpoint { id, network, v4, v6, mac, exposes: ports::exposed(&call.options)? })
}

/// Docker takes nothing from the answer that its user would see: `netd sandbox inspect` tells of ports and devices.
pub(super) fn info(body: &[u8]) -> Result<Value> {
    Call::read(body)?;
    Ok(json!({ "Value": {} }))
}

pub(super) async fn delete(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let (_, _, endpoint) = Call::read(body)?;
    app.change(move |world| docker::delete_endpoint(world, &endpoint)).await?;
    Ok(json!({}))
}

pub(super) async fn join(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let (call, network, endpoint) = Call::read(body)?;
    if !call.sandbox_key.is_absolute() {
        return Err(ApiError::invalid("it is no absolute path").at("SandboxKey").into());
    }
    let joined = app.change(move |world| docker::join(world, &network, &endpoint, &call.sandbox_key)).await?;
    Ok(joined_as_json(&joined))
}

/// Without a gateway Docker would give the container a way out through a network of its own.
pub(super) fn joined_as_json(joined: &Joined) -> Value {
    let gateway = |v4: bool| {
        let found = joined.gateways.iter().find(|gateway| gateway.is_ipv4() == v4);
        found.map(IpAddr::to_string).unwrap_or_default()
    };
    json!({
        "InterfaceName": { "SrcName": joined.device, "DstPrefix": "eth" },
        "Gateway": gateway(true),
        "GatewayIPv6": gateway(false),
        "StaticRoutes": [],
        "DisableGatewayService": true,
    })
}

pub(super) async fn leave(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let (_, _, endpoint) = Call::read(body)?;
    app.change(move |world| docker::leave(world, &endpoint)).await?;
    Ok(json!({}))
}

pub(super) async fn program(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let (call, _, endpoint) = Call::read(body)?;
    let specs: Vec<PortSpec> = ports::published(&call.options)?;
    app.change(move |world| docker::program(world, &endpoint, &specs)).await?;
    Ok(json!({}))
}

pub(super) async fn revoke(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let (_, _, endpoint) = Call::read(body)?;
    app.change(move |world| docker::revoke(world, &endpoint)).await?;
    Ok(json!({}))
}
