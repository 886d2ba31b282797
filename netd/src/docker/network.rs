//! Calls of the noun network.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use netd_api::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{decode, pool};
use crate::error::{Fault, Result};
use crate::ipam::SubnetRequest;
use crate::manager::docker::{self, NewNetwork};
use crate::server::App;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(default, deserialize_with = "decode::nullable")]
    options: BTreeMap<String, Value>,
    #[serde(default, rename = "IPv4Data", deserialize_with = "decode::nullable")]
    v4: Vec<Addresses>,
    #[serde(default, rename = "IPv6Data", deserialize_with = "decode::nullable")]
    v6: Vec<Addresses>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Addresses {
    #[serde(default)]
    address_space: String,
    #[serde(default)]
    pool: String,
    #[serde(default)]
    gateway: String,
    #[serde(default, deserialize_with = "decode::nullable")]
    aux_addresses: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Delete {
    #[serde(rename = "NetworkID")]
    network: String,
}

pub(super) async fn create(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let new = new_network(body)?;
    app.change(move |world| docker::create_network(world, &new)).await?;
    Ok(json!({}))
}

pub(super) async fn delete(app: &Arc<App>, body: &[u8]) -> Result<Value> {
    let Delete { network } = decode::request(body)?;
    let id = decode::id("NetworkID", &network)?;
    app.change(move |world| docker::delete_network(world, &id)).await?;
    Ok(json!({}))
}

/// Networks of a whole swarm are asked of drivers with a global scope, which this is not.
pub(super) fn of_a_swarm() -> Fault {
    ApiError::invalid("netd's networks are networks of one host")
        .remedy("leave out --scope swarm, or take Docker's overlay driver")
        .into()
}

pub(super) fn new_network(body: &[u8]) -> Result<NewNetwork> {
    let create: Create = decode::request(body)?;
    let mut new = NewNetwork {
        id: decode::id("NetworkID", &create.network)?,
        subnets: Vec::new(),
        promised: Vec::new(),
        internal: create.options.get("com.docker.network.internal") == Some(&Value::Bool(true)),
        options: decode::driver_options(&create.options)?,
    };
    let listed = [("IPv4Data", create.v4), ("IPv6Data", create.v6)];
    for (list, index, addresses) in
        listed.into_iter().flat_map(|(list, all)| all.into_iter().enumerate().map(move |(i, a)| (list, i, a)))
    {
        let subnet = subnet(&format!("{list}[{index}]"), &addresses)?;
        if addresses.address_space == pool::SPACE {
            new.promised.push(subnet.subnet);
        }
        new.subnets.push(subnet);
    }
    Ok(new)
}

fn subnet(field: &str, addresses: &Addresses) -> Result<SubnetRequest> {
    let at = |name: &str| format!("{field}.{name}");
    let Some(subnet) = decode::optional::<IpNetwork>(&at("Pool"), &addresses.pool)? else {
        let remedy = "use an IPAM driver that gives addresses: netd, or Docker's default";
        return Err(ApiError::invalid("the subnet is missing").at(at("Pool")).remedy(remedy).into());
    };
    let mut auxiliary = BTreeMap::new();
    for (name, text) in &addresses.aux_addresses {
        let address = decode::address(&at(&format!("AuxAddresses.{name}")), text)?;
        auxiliary.extend(address.map(|address| (name.clone(), address)));
    }
    let gateway = decode::address(&at("Gateway"), &addresses.gateway)?;
    Ok(SubnetRequest { subnet, gateway, range: None, auxiliary })
}
