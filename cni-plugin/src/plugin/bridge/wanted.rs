//! A configuration of the reference's bridge: what netd's network is to be, which routes, which resolvers. Pure but for
//! a resolver file that it names.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netd_api::network::CreateNetwork;
use serde_json::Value;

use crate::error::{Code, Failure, Result};
use crate::plugin::chain::{flag, is_set, refuse, text};
use crate::plugin::host_local::resolv_conf;
use crate::result::WayOut;
use crate::spec::{Config, Dns, Node, hash};

pub(in crate::plugin) struct Wanted {
    pub request: CreateNetwork,
    pub bridge: String,
    /// Beside the default routes.
    pub routes: Vec<Route>,
    pub dns: Dns,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Route {
    pub destination: IpNetwork,
    /// Without one, the network's.
    pub gateway: Option<IpAddr>,
    pub metric: Option<u32>,
    pub table: Option<u32>,
    /// As the configuration has it, for the result.
    pub told: Value,
}

/// On a network that this plugin has made: the configuration's name.
pub(super) const LABEL: &str = "cni.bridge";
/// What it was made from.
pub(super) const FINGERPRINT: &str = "cni.configuration";

impl Wanted {
    pub(in crate::plugin) fn read(config: &Config) -> Result<Self> {
        let root = config.root();
        let Some(ipam) = root.member("ipam")?.filter(is_set) else {
            let details = "a container on a netd network has an address: give an ipam of type host-local";
            return Err(Failure::new(Code::UnsupportedField, "unsupported field ipam: none", details));
        };
        refuse_what_netd_does_not_do(&root, &ipam)?;
        let is_default_gateway = flag(&root, "isDefaultGateway")?;
        let is_gateway = is_default_gateway || flag(&root, "isGateway")?;
        let bridge = text(&root, "bridge")?.unwrap_or(DEFAULT_BRIDGE).to_owned();
        let (default, routes) = routes(&ipam, is_default_gateway)?;
        let mut request = config.create_network()?;
        if is_gateway {
            has_default_routes(&request, &default)?;
        }
        request.internal = !is_gateway;
        let options = &mut request.options;
        options.insert("bridge-name".into(), bridge.clone());
        options.insert("masquerade".into(), flag(&root, "ipMasq")?.to_string());
        // The reference leaves this to the plugin firewall.
        options.insert("isolate".into(), "false".into());
        options.insert("icc".into(), (!flag(&root, "portIsolation")?).to_string());
        let text = serde_json::to_string(&request).unwrap_or_default();
        request.labels.insert(LABEL.into(), config.name.clone());
        request.labels.insert(FINGERPRINT.into(), hash(&[&text]));
        Ok(Self { request, bridge, routes, dns: dns(config, &ipam)? })
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.request.labels[FINGERPRINT]
    }
}

/// What is left out here makes no difference with netd: `hairpinMode` and `promiscMode` let a container reach its own
/// published port, which it does; `forceAddress` and `ipMasqBackend` say how, not what.
fn refuse_what_netd_does_not_do(root: &Node<'_>, ipam: &Node<'_>) -> Result<()> {
    if let Some(kind) = ipam.member("type")?
        && kind.text()? != "host-local"
    {
        return Err(kind.unsupported("netd leases the addresses of its networks itself: use host-local"));
    }
    if flag(root, "hairpinMode")? && flag(root, "promiscMode")? {
        let details = "leave one of them out";
        return Err(Failure::new(
            Code::InvalidConfig,
            "hairpinMode and promiscMode exclude each other",
            details,
        ));
    }
    if let Some(vlan) = root.member("vlan")? {
        let number: u16 = vlan.number()?;
        if number > 4094 {
            return Err(vlan.invalid(&"a VLAN has a number of 0 to 4094"));
        }
    }
    let separate = "netd's bridges know no VLANs: use a network for each";
    refuse(root, "vlan", separate)?;
    refuse(root, "vlanTrunk", separate)?;
    refuse(root, "macspoofchk", "netd does not check the senders of frames")?;
    refuse(root, "enabledad", "netd hands out no address twice, and does not wait for a probe")?;
    refuse(root, "disableContainerInterface", "netd's containers are attached with their link up")
}

/// A container of a netd network that leads out has a default route: to leave it out silently would open what somebody
/// meant to keep closed.
fn has_default_routes(request: &CreateNetwork, default: &WayOut) -> Result<()> {
    let has = |v4: bool| {
        let mut subnets = request.ipam.config.iter().filter_map(|one| one.subnet);
        subnets.any(|subnet| subnet.is_ipv4() == v4)
    };
    let missing = match (has(true) && !default.v4, has(false) && !default.v6) {
        (true, _) => "0.0.0.0/0",
        (_, true) => "::/0",
        _ => return Ok(()),
    };
    let details =
        format!("add {{\"dst\": \"{missing}\"}}; for a network that leads nowhere leave isGateway out");
    Err(Failure::new(
        Code::UnsupportedField,
        format!("unsupported field ipam.routes: none to {missing}"),
        details,
    ))
}

fn routes(ipam: &Node<'_>, is_default_gateway: bool) -> Result<(WayOut, Vec<Route>)> {
    let mut default = WayOut { v4: is_default_gateway, v6: is_default_gateway };
    let mut routes = Vec::new();
    let Some(list) = ipam.member("routes")? else { return Ok((default, routes)) };
    for node in list.items()? {
        let dst = node.member("dst")?.ok_or_else(|| node.invalid(&"it has no dst"))?;
        let destination: IpNetwork = dst.parse()?;
        for key in ["mtu", "advmss", "scope"] {
            refuse(&node, key, "netd sets a route's dst, gw, priority and table")?;
        }
        let gateway = node.member("gw")?.filter(is_set).map(|gw| gw.parse()).transpose()?;
        if destination.prefix() == 0 && gateway.is_none() {
            match destination {
                IpNetwork::V4(_) => default.v4 = true,
                IpNetwork::V6(_) => default.v6 = true,
            }
            continue;
        }
        let number = |key: &str| node.member(key)?.filter(is_set).map(|node| node.number()).transpose();
        let (metric, table) = (number("priority")?, number("table")?);
        routes.push(Route { destination, gateway, metric, table, told: node.value().clone() });
    }
    Ok((default, routes))
}

/// The configuration's own `dns` in the place of the file's.
fn dns(config: &Config, ipam: &Node<'_>) -> Result<Dns> {
    match text(ipam, "resolvConf")? {
        Some(path) if config.root().member("dns")?.is_none() => {
            let found = serde_json::json!({ "dns": resolv_conf(path)? });
            Dns::read(&Node::root(&found))
        }
        _ => Dns::read(&config.root()),
    }
}

const DEFAULT_BRIDGE: &str = "cni0";

#[cfg(test)]
mod tests;
