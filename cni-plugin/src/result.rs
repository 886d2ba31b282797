//! What ADD prints: the attachment in the caller's version, behind what earlier plugins of the chain have made. And
//! the reading of such a result, for CHECK. Pure.

use std::net::IpAddr;

use netd_api::sandbox::EndpointSettings;
use serde_json::{Map, Value, json};

use crate::spec::{Dns, Version};

pub(crate) struct Attached<'a> {
    pub settings: &'a EndpointSettings,
    /// The namespace, as the runtime named it.
    pub netns: &'a str,
    pub mtu: Option<u32>,
    /// Whether the container's default route of that family leads through this network.
    pub way_out: WayOut,
    pub dns: &'a Dns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    pub v4: bool,
    pub v6: bool,
}

/// Where a sandbox on a network with names finds its server.
const SERVER: &str = "127.0.0.11";

impl Attached<'_> {
    /// Members of `before` keep their places: others hold indexes into them.
    pub(crate) fn result(&self, version: Version, before: Option<&Map<String, Value>>) -> Value {
        let mut result = before.cloned().unwrap_or_default();
        result.insert("cniVersion".into(), version.as_str().into());
        if version < Version::V030 {
            self.by_family(&mut result);
        } else {
            self.by_interface(&mut result, version);
        }
        let mut dns = result.remove("dns").and_then(into_object).unwrap_or_default();
        self.add_dns(&mut dns);
        if !dns.is_empty() {
            result.insert("dns".into(), dns.into());
        }
        result.into()
    }

    /// 0.1.0 and 0.2.0: an address a family, with its routes.
    fn by_family(&self, result: &mut Map<String, Value>) {
        for address in self.addresses() {
            let key = if address.v6 { "ip6" } else { "ip4" };
            let mut place = json!({ "ip": address.cidr });
            if let Some(gateway) = address.gateway {
                place["gateway"] = gateway.into();
            }
            if address.way_out {
                place["routes"] = json!([{ "dst": address.everywhere(), "gw": address.gateway }]);
            }
            result.insert(key.into(), place);
        }
    }

    fn by_interface(&self, result: &mut Map<String, Value>, version: Version) {
        let interfaces = list(result, "interfaces");
        let mut host = json!({ "name": self.settings.host_interface });
        let mut own = json!({
            "name": self.settings.interface,
            "mac": self.settings.mac_address,
            "sandbox": self.netns,
        });
        if let Some(mtu) = self.mtu.filter(|_| version >= Version::V110) {
            host["mtu"] = mtu.into();
            own["mtu"] = mtu.into();
        }
        interfaces.push(host);
        let index = interfaces.len();
        interfaces.push(own);
        for address in self.addresses() {
            let mut ip = json!({ "interface": index, "address": address.cidr });
            if version < Version::V100 {
                ip["version"] = if address.v6 { "6" } else { "4" }.into();
            }
            if let Some(gateway) = address.gateway {
                ip["gateway"] = gateway.into();
            }
            list(result, "ips").push(ip);
            if address.way_out {
                let route = json!({ "dst": address.everywhere(), "gw": address.gateway });
                list(result, "routes").push(route);
            }
        }
    }

    fn addresses(&self) -> impl Iterator<Item = Address<'_>> {
        let settings = self.settings;
        let v4 = Address::new(
            &settings.ip_address,
            settings.ip_prefix_len,
            &settings.gateway,
            self.way_out.v4,
            false,
        );
        let v6 = Address::new(
            &settings.global_ipv6_address,
            settings.global_ipv6_prefix_len,
            &settings.ipv6_gateway,
            self.way_out.v6,
            true,
        );
        v4.into_iter().chain(v6)
    }

    /// netd's server comes first, and the servers that were asked for are asked by it. Without names on the network
    /// there is no such server.
    fn add_dns(&self, dns: &mut Map<String, Value>) {
        let servers: Vec<String> = if self.settings.dns_names.is_empty() {
            self.dns.servers.iter().map(ToString::to_string).collect()
        } else {
            vec![SERVER.into()]
        };
        let others = std::mem::take(list(dns, "nameservers"));
        dns.remove("nameservers");
        extend(dns, "nameservers", servers.into_iter().map(Value::from).chain(others));
        extend(dns, "search", texts(&self.dns.search));
        extend(dns, "options", texts(&self.dns.options));
        if let Some(domain) = &self.dns.domain {
            dns.insert("domain".into(), domain.as_str().into());
        }
    }
}

struct Address<'a> {
    cidr: String,
    gateway: Option<&'a str>,
    way_out: bool,
    v6: bool,
}

impl<'a> Address<'a> {
    fn new(ip: &str, prefix: u8, gateway: &'a str, way_out: bool, v6: bool) -> Option<Self> {
        let gateway = Some(gateway).filter(|gateway| !gateway.is_empty());
        let way_out = way_out && gateway.is_some();
        (!ip.is_empty()).then(|| Self { cidr: format!("{ip}/{prefix}"), gateway, way_out, v6 })
    }

    const fn everywhere(&self) -> &'static str {
        if self.v6 { "::/0" } else { "0.0.0.0/0" }
    }
}

/// The addresses that `result` gives the container's device `name`; `None` if it knows no such device. An address
/// without an index is the first device's, as old runtimes leave it out.
pub(crate) fn addresses_of(result: &Map<String, Value>, name: &str) -> Option<Vec<IpAddr>> {
    let interfaces = result.get("interfaces")?.as_array()?;
    let is_own = |interface: &Value| {
        let text = |key: &str| interface.get(key).and_then(Value::as_str).unwrap_or_default();
        text("name") == name && !text("sandbox").is_empty()
    };
    let own = interfaces.iter().position(is_own)?;
    let ips = result.get("ips").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let on_it =
        ips.iter().filter(|ip| ip.get("interface").is_none_or(|index| index.as_u64() == Some(own as u64)));
    let address = |ip: &Value| ip.get("address")?.as_str()?.split('/').next()?.parse().ok();
    Some(on_it.filter_map(address).collect())
}

/// The list of that name, made if it is not there or `null`.
fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = result.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it has just been made one")
}

fn texts<T: ToString>(values: &[T]) -> impl Iterator<Item = Value> {
    values.iter().map(|value| value.to_string().into())
}

fn extend(dns: &mut Map<String, Value>, key: &str, more: impl IntoIterator<Item = Value>) {
    let mut more = more.into_iter().peekable();
    if more.peek().is_none() {
        return;
    }
    let list = list(dns, key);
    for value in more {
        if !list.contains(&value) {
            list.push(value);
        }
    }
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
