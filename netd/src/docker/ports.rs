//! Published and exposed ports, as they stand among the options of an endpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netd_api::ApiError;
use netd_api::value::{self, PortSpec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::decode;
use crate::error::Result;
use crate::model::{PortRange, Protocol};

const PUBLISHED: &str = "com.docker.network.portmap";
const EXPOSED: &str = "com.docker.network.endpoint.exposedports";

/// `HostPort` 0 stands for any port, `HostIP` empty for every address.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    proto: u8,
    port: u16,
    #[serde(default, rename = "HostIP")]
    host_ip: String,
    #[serde(default)]
    host_port: u16,
    #[serde(default)]
    host_port_end: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exposed {
    proto: u8,
    port: u16,
}

pub(super) fn published(options: &BTreeMap<String, Value>) -> Result<Vec<PortSpec>> {
    let bindings: Vec<Binding> = list(options, PUBLISHED)?;
    bindings.iter().enumerate().map(|(index, binding)| spec(&at(PUBLISHED, index), binding)).collect()
}

fn spec(field: &str, binding: &Binding) -> Result<PortSpec> {
    let address = decode::optional::<IpAddr>(&format!("{field}.HostIP"), &binding.host_ip)?;
    let host_ports = match (binding.host_port, binding.host_port_end) {
        (0, _) => None,
        (first, 0) => Some(value::PortRange::new(first, first)?),
        (first, last) => Some(value::PortRange::new(first, last)?),
    };
    let container = value::PortRange::new(binding.port, binding.port)?;
    Ok(PortSpec::new(address, host_ports, container, protocol(field, binding.proto)?)?)
}

/// Ports of protocols that are not served may be exposed, which means nothing: images say so.
pub(super) fn exposed(options: &BTreeMap<String, Value>) -> Result<Vec<PortRange>> {
    let exposed: Vec<Exposed> = list(options, EXPOSED)?;
    let mut ranges: Vec<PortRange> = exposed
        .iter()
        .filter_map(|Exposed { proto, port }| {
            let protocol = Protocol::from(protocol(EXPOSED, *proto).ok()?);
            Some(PortRange { protocol, first: *port, last: *port })
        })
        .collect();
    ranges.sort_by_key(|range| (range.protocol, range.first));
    Ok(ranges)
}

/// By their numbers in an IP header.
fn protocol(field: &str, number: u8) -> Result<value::Protocol> {
    match number {
        6 => Ok(value::Protocol::Tcp),
        17 => Ok(value::Protocol::Udp),
        _ => {
            let name = if number == 132 { "sctp".to_owned() } else { format!("protocol {number}") };
            let error = ApiError::invalid(format!("{name} is not served")).at(format!("{field}.Proto"));
            Err(error.remedy("publish tcp or udp ports").into())
        }
    }
}

fn list<T: DeserializeOwned>(options: &BTreeMap<String, Value>, key: &str) -> Result<Vec<T>> {
    let Some(value) = options.get(key).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = format!("Options.{key}{}", decode::path(error.path()));
        ApiError::invalid(format!("the ports cannot be read: {}", error.inner())).at(field).into()
    })
}

fn at(key: &str, index: usize) -> String {
    format!("Options.{key}[{index}]")
}
