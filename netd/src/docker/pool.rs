//! Calls of the IPAM driver.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use netd_api::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::decode;
use crate::error::Result;
use crate::manager::docker::{self, AddressRequest, PoolRequest};
use crate::model::{Id, Purpose};
use crate::server::App;

/// The one address space: this host's.
pub(super) const SPACE: &str = "netd";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    #[serde(default)]
    address_space: String,
    #[serde(default)]
    pool: String,
    #[serde(default)]
    sub_pool: String,
    #[serde(default, deserialize_with = "decode::nullable")]
    options: BTreeMap<String, Value>,
    #[serde(default)]
    v6: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    #[serde(rename = "PoolID")]
    pool: String,
    #[serde(default)]
    address: String,
    #[serde(default, deserialize_with = "decode::nullable")]
    options: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Release {
    #[serde(rename = "PoolID")]
    pool: String,
}

pub(super) fn spaces() -> Value {
    json!({ "LocalDefaultAddressSpace": SPACE, "GlobalDefaultAddressSpace": SPACE })
}

pub(super) async fn request(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let request = pool_request(body)?;
    let pool = app.change(move |world| docker::request_pool(world, &request)).await?;
    Ok(json!({ "PoolID": &*pool.id, "Pool": pool.subnet.to_string(), "Data": {} }))
}

pub(super) fn pool_request(body: &[u8]) -> Result<PoolRequest> {
    let request: Request = decode::request(body)?;
    if ![SPACE, ""].contains(&request.address_space.as_str()) {
        let detail = format!("there is no address space {:?}", request.address_space);
        return Err(ApiError::invalid(detail).at("AddressSpace").remedy(format!("use {SPACE}")).into());
    }
    if let Some(option) = request.options.keys().next() {
        let detail = format!("the IPAM driver has no option {option:?}");
        return Err(ApiError::invalid(detail).at("Options").remedy("leave out --ipam-opt").into());
    }
    let subnet = decode::optional::<IpNetwork>("Pool", &request.pool)?;
    let range = decode::optional::<IpNetwork>("SubPool", &request.sub_pool)?;
    if subnet.is_none() && range.is_some() {
        let error = ApiError::invalid("a range needs the subnet it lies in").at("SubPool");
        return Err(error.remedy("give --subnet too").into());
    }
    Ok(PoolRequest { subnet, range, v6: request.v6 })
}

pub(super) async fn release(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let Release { pool } = decode::request(body)?;
    app.change(move |world| docker::release_pool(world, &pool)).await?;
    Ok(json!({}))
}

pub(super) async fn request_address(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let request = address_request(body)?;
    let address = app.change(move |world| docker::request_address(world, &request)).await?;
    Ok(json!({ "Address": address.to_string(), "Data": {} }))
}

pub(super) fn address_request(body: &[u8]) -> Result<AddressRequest> {
    let Address { pool, address, options } = decode::request(body)?;
    let of_a_gateway = Value::from("com.docker.network.gateway");
    let is_gateway = options.get("RequestAddressType") == Some(&of_a_gateway);
    Ok(AddressRequest {
        pool: Id::from(pool),
        address: decode::address("Address", &address)?,
        purpose: if is_gateway { Purpose::Gateway } else { Purpose::Host },
    })
}

pub(super) async fn release_address(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let Address { pool, address, .. } = decode::request(body)?;
    let Some(address): Option<IpAddr> = decode::address("Address", &address)? else {
        return Err(ApiError::invalid("the address is missing").at("Address").into());
    };
    app.change(move |world| docker::release_address(world, &pool, address)).await?;
    Ok(json!({}))
}
