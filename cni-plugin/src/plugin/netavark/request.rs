//! What netavark says at setup and teardown, read into an attachment. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use netd_api::network::{CreateIpam, CreateNetwork, CreateSubnet, Driver};
use netd_api::value::{Alias, LinkName, PortRange, PortSpec, Protocol, Subnet};
use serde_json::{Value, json};

use super::default_socket;
use crate::error::{Code, Failure, Result};
use crate::plugin::chain::{flag, is_set, text};
use crate::spec::{Config, Dns, Environment, Node, Wishes};

pub(crate) struct Request {
    pub socket: PathBuf,
    pub network: CreateNetwork,
    pub interface: LinkName,
    pub wishes: Wishes,
    pub has_names: bool,
}

/// On a network that this plugin has made: its name.
pub(super) const LABEL: &str = "netavark.network";
/// What podman gives every container to search in.
pub(super) const DOMAIN: &str = "dns.podman";

impl Request {
    pub(crate) fn read(given: &Value) -> Result<Self> {
        let root = Node::root(given);
        let network = needed(&root, "network")?;
        let options = root.member("network_options")?;
        let has_names = flag(&network, "dns_enabled")?;
        let mut wishes = Wishes { ports: ports(&root)?, dns: servers(&network)?, ..Wishes::default() };
        if has_names {
            let mut names = names(&root, options.as_ref())?.into_iter();
            wishes.name = names.next();
            wishes.aliases = names.collect();
        }
        if let Some(options) = &options {
            addresses(&mut wishes, options)?;
            let mac = options.member("static_mac")?.filter(is_set);
            wishes.mac = mac.map(|mac| mac.parse()).transpose()?;
        }
        Ok(Self {
            socket: socket(given)?,
            network: create(&network)?,
            interface: interface(options.as_ref())?,
            wishes,
            has_names,
        })
    }
}

/// The container as a CNI runtime would name it.
pub(crate) fn environment(given: &Value, netns: &str) -> Result<Environment> {
    let root = Node::root(given);
    Ok(Environment {
        container: needed(&root, "container_id")?.text()?.to_owned(),
        netns: netns.into(),
        interface: interface(root.member("network_options")?.as_ref())?.to_string(),
        ..Environment::default()
    })
}

/// The network as a CNI configuration would: the same container on the same network, by whatever way it came.
pub(crate) fn as_config(given: &Value) -> Result<Config> {
    let name = needed(&needed(&Node::root(given), "network")?, "name")?.text()?;
    let config = json!({ "cniVersion": "1.1.0", "name": name, "network": name, "socket": socket(given)? });
    Config::read(config.to_string().as_bytes())
}

/// The option `socket` of the network, or where clients find the daemon.
pub(super) fn socket(given: &Value) -> Result<PathBuf> {
    let option = Node::root(given).at(&["network", "options", "socket"])?;
    option.map_or_else(|| Ok(default_socket()), |node| Ok(node.text()?.into()))
}

/// The network's definition as netd's daemon is asked for it.
pub(super) fn create(network: &Node<'_>) -> Result<CreateNetwork> {
    let name = needed(network, "name")?;
    let (mut config, mut options) = (Vec::new(), BTreeMap::new());
    for subnet in items(network, "subnets")? {
        config.push(one_subnet(&subnet)?);
    }
    if let Some(route) = items(network, "routes")?.first() {
        return Err(route.unsupported("netd's networks have a default route and no others"));
    }
    if let Some(device) = text(network, "network_interface")? {
        options.insert("bridge-name".into(), device.to_owned());
    }
    if let Some(given) = network.member("options")? {
        for (key, value) in given.object()? {
            let value = value.as_str().unwrap_or_default();
            match key.as_str() {
                "mtu" => drop(options.insert("mtu".into(), value.to_owned())),
                "isolate" if value == "strict" => drop(options.insert(key.clone(), "true".into())),
                "isolate" | "icc" | "masquerade" => drop(options.insert(key.clone(), value.to_owned())),
                "socket" => {}
                _ => {
                    let remedy = "use mtu, isolate, icc, masquerade or socket";
                    return Err(given.member(key)?.unwrap_or(given).unsupported(remedy));
                }
            }
        }
    }
    let driver = network.at(&["ipam_options", "driver"])?.filter(is_set);
    if let Some(driver) = driver
        && !matches!(driver.text()?, "host-local" | "none")
    {
        return Err(driver.unsupported("use host-local, or none to have netd lease the addresses"));
    }
    let name: netd_api::value::NetworkName = name.parse()?;
    let labels = BTreeMap::from([(LABEL.to_owned(), name.to_string())]);
    let has_v6 = config.iter().any(|one: &CreateSubnet| one.subnet.is_some_and(|subnet| subnet.is_ipv6()));
    Ok(CreateNetwork {
        name,
        driver: Driver::Bridge,
        enable_ipv6: has_v6 || flag(network, "ipv6_enabled")?,
        ipam: CreateIpam { config },
        internal: flag(network, "internal")?,
        options,
        labels,
    })
}

/// podman leases from `lease_range` itself.
fn one_subnet(node: &Node<'_>) -> Result<CreateSubnet> {
    let subnet: Subnet = needed(node, "subnet")?.parse()?;
    let gateway: Option<IpAddr> =
        node.member("gateway")?.filter(is_set).map(|one| one.parse()).transpose()?;
    Ok(CreateSubnet { subnet: Some(subnet), gateway, ..CreateSubnet::default() })
}

fn interface(options: Option<&Node<'_>>) -> Result<LinkName> {
    let name = options.map(|options| options.member("interface_name")).transpose()?.flatten();
    name.filter(is_set).map_or_else(
        || {
            Err(Failure::new(
                Code::InvalidConfig,
                "network_options.interface_name is missing",
                "netavark sends it",
            ))
        },
        |name| name.parse(),
    )
}

/// The container's own name first, which reverse queries answer; each in the domain that is searched, too.
fn names(root: &Node<'_>, options: Option<&Node<'_>>) -> Result<Vec<Alias>> {
    let mut bare: Vec<String> = text(root, "container_name")?.map(str::to_owned).into_iter().collect();
    if let Some(options) = options {
        for alias in items(options, "aliases")? {
            bare.push(alias.text()?.to_owned());
        }
    }
    let within = bare.iter().map(|name| format!("{name}.{DOMAIN}")).collect::<Vec<_>>();
    // podman takes names that no DNS knows; they are left out, as its own resolver does.
    let mut names: Vec<Alias> = Vec::new();
    for name in bare.iter().chain(&within).filter_map(|name| name.parse().ok()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn addresses(wishes: &mut Wishes, options: &Node<'_>) -> Result<()> {
    for node in items(options, "static_ips")? {
        let is_first = match node.parse::<IpAddr>()? {
            IpAddr::V4(v4) => *wishes.v4.get_or_insert(v4) == v4,
            IpAddr::V6(v6) => *wishes.v6.get_or_insert(v6) == v6,
        };
        if !is_first {
            return Err(node.unsupported("one address a family is what a container has on a network"));
        }
    }
    Ok(())
}

fn servers(network: &Node<'_>) -> Result<Dns> {
    let servers = items(network, "network_dns_servers")?;
    Ok(Dns { servers: servers.iter().map(|server| server.parse()).collect::<Result<_>>()?, ..Dns::default() })
}

fn ports(root: &Node<'_>) -> Result<Vec<PortSpec>> {
    let mut specs = Vec::new();
    for mapping in items(root, "port_mappings")? {
        let number = |key: &str| mapping.member(key)?.map(|node| node.number::<u16>()).transpose();
        let count = number("range")?.unwrap_or(1).max(1);
        let range = |key: &str| {
            let first = number(key)?.unwrap_or(0);
            let last = first.checked_add(count - 1);
            let range = last.map(|last| PortRange::new(first, last).map_err(|error| mapping.invalid(&error)));
            range.unwrap_or_else(|| Err(mapping.invalid(&"it goes beyond port 65535")))
        };
        let (host, container) = (range("host_port")?, range("container_port")?);
        let address = mapping.member("host_ip")?.filter(is_set).map(|node| node.parse()).transpose()?;
        let protocols = text(&mapping, "protocol")?.unwrap_or("tcp");
        for protocol in protocols.split(',') {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return Err(mapping.unsupported("netd publishes tcp and udp")),
            };
            let spec = PortSpec::new(address, Some(host), container, protocol);
            specs.push(spec.map_err(|error| mapping.invalid(&error))?);
        }
    }
    Ok(specs)
}

fn needed<'a>(node: &Node<'a>, key: &str) -> Result<Node<'a>> {
    node.member(key)?.ok_or_else(|| node.invalid(&format!("{key} is missing")))
}

/// Empty if it is absent.
pub(super) fn items<'a>(node: &Node<'a>, key: &str) -> Result<Vec<Node<'a>>> {
    match node.member(key)? {
        Some(list) => Ok(list.items()?.collect()),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
