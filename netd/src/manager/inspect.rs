//! Records as the API shows them, in Docker's shape.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use netd_api::network::{self as api, Ipam, IpamConfig, NetworkContainer};
use netd_api::sandbox::{
    Config, EndpointSettings, HostConfig, NetworkSettings, PortBinding, PortMap, State, Status,
};
use netd_api::value::{self, LinkName, Subnet, Timestamp};
use netd_dns::table::Forward;
use sha2::{Digest as _, Sha256};

use super::{World, hex, wire};
use crate::files::{HOSTS, RESOLV_CONF};
use crate::ipam::Family;
use crate::model::{
    Bandwidth, Driver, Endpoint, Mode, Model, Network, Peer, PeerKey, Rate, Sandbox, SandboxKey, Scope,
};

/// Every network with the two that are none: `host` and `none`.
pub(crate) fn networks(model: &Model) -> Vec<api::Network> {
    let mut shown: Vec<api::Network> = model.networks.values().map(|record| network(record, None)).collect();
    shown.extend([pseudo("host"), pseudo("none")].into_iter().flatten());
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    shown
}

/// `host` and `none` have no record: they are what a sandbox has instead of a network. Found by name, id, or a part of
/// the id as `ls` shows it.
pub(crate) fn pseudo(wanted: &str) -> Option<api::Network> {
    let id = |name: &str| hex(&Sha256::digest(name.as_bytes()));
    let is = |name: &str| wanted == name || (wanted.len() >= 12 && id(name).starts_with(wanted));
    let (name, driver) = [("host", "host"), ("none", "null")].into_iter().find(|(name, _)| is(name))?;
    Some(api::Network {
        name: name.into(),
        id: id(name),
        created: Timestamp::from(std::time::UNIX_EPOCH),
        scope: "local".into(),
        driver: driver.into(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam { driver: "default".into(), config: Vec::new() },
        internal: false,
        containers: BTreeMap::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        device: None,
        mtu: None,
        owner: None,
    })
}

/// With `model`, its sandboxes too.
pub(crate) fn network(network: &Network, model: Option<&Model>) -> api::Network {
    let (scope, driver) = match network.driver {
        Driver::Bridge => ("local", "bridge"),
        Driver::Overlay { .. } => ("global", "overlay"),
    };
    let has = |v4: bool| network.subnets.iter().any(|subnet| subnet.subnet.is_ipv4() == v4);
    let config = network.subnets.iter().filter_map(|subnet| {
        Some(IpamConfig {
            subnet: Subnet::try_from(subnet.subnet).ok()?,
            ip_range: subnet.range.and_then(|range| Subnet::try_from(range).ok()),
            gateway: Some(subnet.gateway),
            auxiliary_addresses: subnet.auxiliary.clone(),
        })
    });
    api::Network {
        name: network.name.to_string(),
        id: network.id.to_string(),
        created: network.created.into(),
        scope: scope.into(),
        driver: driver.into(),
        enable_ipv4: has(true),
        enable_ipv6: has(false),
        ipam: Ipam { driver: "default".into(), config: config.collect() },
        internal: network.internal,
        containers: model.map(|model| containers(network, model)).unwrap_or_default(),
        options: network.options.given.clone(),
        labels: network.labels.clone(),
        device: network.bridge.parse::<LinkName>().ok(),
        mtu: Some(network.options.mtu),
        owner: network.owner.as_ref().map(ToString::to_string),
    }
}

/// With what this node's kernel has of it.
pub(crate) fn network_here(record: &Network, world: &World) -> api::Network {
    api::Network { mtu: Some(world.kernel.mtu(record)), ..network(record, Some(world.model())) }
}

fn containers(network: &Network, model: &Model) -> BTreeMap<String, NetworkContainer> {
    let mut containers = BTreeMap::new();
    for sandbox in model.sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))) {
        for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.network == network.id) {
            let container = NetworkContainer {
                name: sandbox.name.to_string(),
                endpoint_id: endpoint.id.to_string(),
                mac_address: mac(endpoint.mac),
                ipv4_address: endpoint.v4.map(|(ip, prefix)| format!("{ip}/{prefix}")).unwrap_or_default(),
                ipv6_address: endpoint.v6.map(|(ip, prefix)| format!("{ip}/{prefix}")).unwrap_or_default(),
                node: (network.scope() == Scope::Shared).then(|| model.here.to_string()),
            };
            containers.insert(sandbox.id.to_string(), container);
        }
    }
    for peer in model.peers.by(&PeerKey::On(Arc::clone(&network.id))) {
        containers.insert(peer.sandbox.to_string(), elsewhere(peer, network));
    }
    containers
}

/// A sandbox of another node.
fn elsewhere(peer: &Peer, network: &Network) -> NetworkContainer {
    let with_prefix = |address: IpAddr| {
        let subnet = network.subnets.iter().find(|subnet| subnet.subnet.contains(address));
        subnet.map_or_else(|| address.to_string(), |subnet| format!("{address}/{}", subnet.subnet.prefix()))
    };
    NetworkContainer {
        name: peer.sandbox_name.to_string(),
        endpoint_id: peer.endpoint.to_string(),
        mac_address: mac(peer.mac),
        ipv4_address: peer.v4.map(|address| with_prefix(address.into())).unwrap_or_default(),
        ipv6_address: peer.v6.map(|address| with_prefix(address.into())).unwrap_or_default(),
        node: Some(peer.node.to_string()),
    }
}

pub(crate) fn sandbox(world: &World, sandbox: &Sandbox) -> netd_api::sandbox::Sandbox {
    let model = world.model();
    let owner = match &sandbox.mode {
        Mode::Container(owner) => owner,
        Mode::Bridge | Mode::None | Mode::Host | Mode::Docker => &sandbox.id,
    };
    let without_files = |owner: &Arc<Sandbox>| matches!(owner.mode, Mode::Host | Mode::Docker);
    let uses_hosts = model.sandboxes.get(owner).is_none_or(without_files);
    let file = |name: &str| (!uses_hosts).then(|| world.reconcile.directory(owner).join(name));
    let status = if wire::open_netns(sandbox).is_ok() { Status::Running } else { Status::Dead };
    netd_api::sandbox::Sandbox {
        id: sandbox.id.to_string(),
        name: sandbox.name.to_string(),
        created: sandbox.created.into(),
        state: State { status },
        resolv_conf_path: file(RESOLV_CONF),
        hosts_path: file(HOSTS),
        config: Config {
            hostname: sandbox.hostname.to_string(),
            exposed_ports: exposed(sandbox).map(|port| (port, BTreeMap::new())).collect(),
            service: sandbox.service.as_ref().and_then(|member| {
                model.services.get(&member.service).map(|service| service.name.to_string())
            }),
            labels: sandbox.labels.clone(),
            owner: sandbox.owner.to_string(),
        },
        host_config: host_config(sandbox, model),
        network_settings: NetworkSettings {
            sandbox_id: owner.to_string(),
            sandbox_key: sandbox.netns.clone(),
            ports: port_map(sandbox),
            networks: sandbox.endpoints.iter().filter_map(|e| endpoint(sandbox, e, model)).collect(),
        },
        warnings: Vec::new(),
    }
}

fn host_config(sandbox: &Sandbox, model: &Model) -> HostConfig {
    let network_mode = match &sandbox.mode {
        Mode::Host => "host".into(),
        Mode::None => "none".into(),
        Mode::Container(owner) => format!("container:{owner}"),
        Mode::Bridge | Mode::Docker => {
            let first = sandbox.endpoints.first().and_then(|endpoint| model.networks.get(&endpoint.network));
            first.map_or_else(|| "none".into(), |network| network.name.to_string())
        }
    };
    HostConfig {
        network_mode,
        dns: sandbox.dns.servers.clone(),
        dns_search: sandbox.dns.search.clone(),
        dns_options: sandbox.dns.options.clone(),
        extra_hosts: sandbox.extra_hosts.iter().map(|(name, ip)| format!("{name}:{ip}")).collect(),
        links: sandbox
            .links
            .iter()
            .filter_map(|link| Some(format!("{}:{}", model.sandboxes.get(&link.sandbox)?.name, link.alias)))
            .collect(),
    }
}

/// The endpoint under its network's name.
pub(crate) fn endpoint(
    sandbox: &Sandbox,
    endpoint: &Endpoint,
    model: &Model,
) -> Option<(String, EndpointSettings)> {
    let network = model.networks.get(&endpoint.network)?;
    let gateway = |family: Family| {
        let subnet = network.subnets.iter().find(|subnet| Family::of(subnet.gateway) == family);
        subnet.map(|subnet| subnet.gateway.to_string()).unwrap_or_default()
    };
    let address = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let settings = EndpointSettings {
        network_id: network.id.to_string(),
        endpoint_id: endpoint.id.to_string(),
        gateway: if endpoint.v4.is_some() && !network.internal { gateway(Family::V4) } else { String::new() },
        ip_address: address(endpoint.v4.map(|(ip, _)| ip.into())),
        ip_prefix_len: endpoint.v4.map_or(0, |(_, prefix)| prefix),
        ipv6_gateway: if endpoint.v6.is_some() && !network.internal {
            gateway(Family::V6)
        } else {
            String::new()
        },
        global_ipv6_address: address(endpoint.v6.map(|(ip, _)| ip.into())),
        global_ipv6_prefix_len: endpoint.v6.map_or(0, |(_, prefix)| prefix),
        mac_address: mac(endpoint.mac),
        aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
        dns_names: if network.resolves && sandbox.mode == Mode::Bridge {
            endpoint.names.iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        },
        interface: endpoint.interface.to_string(),
        host_interface: endpoint.host_link.to_string(),
        bandwidth: bandwidth(endpoint.bandwidth),
        owner: endpoint.owner.to_string(),
    };
    Some((network.name.to_string(), settings))
}

fn bandwidth(limits: Bandwidth) -> Option<value::Bandwidth> {
    let (rate, burst) =
        (|rate: Option<Rate>| rate.map_or(0, |r| r.rate), |rate: Option<Rate>| rate.map_or(0, |r| r.burst));
    let shown = value::Bandwidth {
        ingress_rate: rate(limits.ingress),
        ingress_burst: burst(limits.ingress),
        egress_rate: rate(limits.egress),
        egress_burst: burst(limits.egress),
    };
    shown.limits().then_some(shown)
}

/// Published ports with where they are bound, exposed ones with nothing.
pub(crate) fn port_map(sandbox: &Sandbox) -> PortMap {
    let mut ports: PortMap = exposed(sandbox).map(|port| (port, Vec::new())).collect();
    for publish in &sandbox.publishes {
        for (host, target) in publish.pairs() {
            let bindings = ports.entry(format!("{target}/{}", publish.protocol.as_str())).or_default();
            bindings.extend(
                publish
                    .addresses
                    .iter()
                    .map(|address| PortBinding { host_ip: address.to_string(), host_port: host.to_string() }),
            );
        }
    }
    ports
}

fn exposed(sandbox: &Sandbox) -> impl Iterator<Item = String> + '_ {
    let ports = |range: &crate::model::PortRange| range.first..=range.last;
    sandbox
        .exposes
        .iter()
        .flat_map(move |range| ports(range).map(move |port| format!("{port}/{}", range.protocol.as_str())))
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

/// Every name that a sandbox, or each sandbox, can see, in the order of the search.
pub(crate) fn views(world: &World, one: Option<&Sandbox>) -> Vec<netd_api::dns::View> {
    let model = world.model();
    let sandboxes = model.sandboxes.values().map(|sandbox| &**sandbox);
    let wanted = sandboxes.filter(|sandbox| one.is_none_or(|one| one.id == sandbox.id));
    wanted.filter_map(|sandbox| view(world, sandbox)).collect()
}

fn view(world: &World, sandbox: &Sandbox) -> Option<netd_api::dns::View> {
    let model = world.model();
    let owner = match &sandbox.mode {
        Mode::Container(owner) => model.sandboxes.get(owner)?,
        Mode::Bridge | Mode::None | Mode::Host | Mode::Docker => sandbox,
    };
    let (view, _) = crate::tables::served(owner, model);
    let view = view?;
    let forward = match &view.forward {
        Forward::Never => Vec::new(),
        Forward::Host => world.reconcile.host_servers_at(),
        Forward::Own { servers } => servers.clone(),
    };
    let mut names: Vec<netd_api::dns::Name> = view.names.into_iter().map(|name| known(name, None)).collect();
    for zone in &view.zones {
        let in_zone = world.reconcile.projection().names_of(&zone.zone);
        names.extend(in_zone.map(|name| known(name, Some(&zone.suffix))));
    }
    let (sandbox, sandbox_id) = (sandbox.name.to_string(), sandbox.id.to_string());
    Some(netd_api::dns::View { sandbox, sandbox_id, names, forward })
}

/// A name of the network that is called `zone`, or one of the view's own.
fn known(name: netd_dns::table::Name, zone: Option<&str>) -> netd_api::dns::Name {
    let srv = name.srv.into_iter().map(|srv| netd_api::dns::Srv {
        priority: srv.priority,
        weight: srv.weight,
        port: srv.port,
        target: srv.full_target(zone),
    });
    netd_api::dns::Name {
        name: name.name.to_string(),
        network: zone.map(ToOwned::to_owned),
        addresses: name.addresses,
        reverse: name.primary_for,
        srv: srv.collect(),
        alias: name.alias.map(|alias| alias.to_string()),
    }
}
