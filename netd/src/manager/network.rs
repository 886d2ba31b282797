//! Networks: create, remove, prune; sandboxes put on them and taken off while they run.

mod shared;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use netd_api::network::{
    BridgeOptions, ConnectSandbox, CreateNetwork, CreateSubnet, DisconnectSandbox, PRUNE_FILTERS, Switch,
};
use netd_api::{ApiError, Filter, Filters};
use netd_sys::netlink::link::Link;

use super::undo::{Step, Undo};
use super::wire::{self, Owner, Wish};
use super::{World, docker, find, new_id, overlay, service};
use crate::error::Result;
use crate::ipam::{HostUse, SubnetRequest, plan};
use crate::model::{
    BigTcp, Driver, Endpoint, Id, Membership, Mode, Network, NetworkKey, NetworkOptions, Sandbox, SandboxKey,
    Scope,
};
use crate::store::{Record as _, Txn, encode, key_of, lease_key};

/// The network of sandboxes that name none; made at first start.
pub(super) const DEFAULT: &str = "bridge";
const DEFAULT_DEVICE: &str = "netd0";

/// A network as it is asked for, by whomever.
pub(super) struct Draft<'a> {
    pub id: Id,
    pub name: &'a str,
    pub subnets: Vec<SubnetRequest>,
    /// Promised to Docker for this very network.
    pub promised: Vec<IpNetwork>,
    pub ipv6: bool,
    pub internal: bool,
    pub options: &'a BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub owner: Option<Arc<str>>,
}

pub(crate) fn create(world: &mut World, request: &CreateNetwork) -> Result<Arc<Network>> {
    if request.driver == netd_api::network::Driver::Overlay {
        return shared::create(world, request);
    }
    let draft = Draft {
        id: new_id(),
        name: &request.name,
        subnets: subnet_requests(&request.ipam.config)?,
        promised: Vec::new(),
        ipv6: request.enable_ipv6,
        internal: request.internal,
        options: &request.options,
        labels: request.labels.clone(),
        owner: None,
    };
    make(world, draft)
}

/// All of it or nothing.
pub(super) fn make(world: &mut World, draft: Draft<'_>) -> Result<Arc<Network>> {
    let mut undo = Undo::default();
    let result = build(world, &mut undo, draft);
    undo.settle(world, result)
}

fn build(world: &mut World, undo: &mut Undo, draft: Draft<'_>) -> Result<Arc<Network>> {
    if world.model().networks.by(&NetworkKey::Name(Arc::from(draft.name))).next().is_some() {
        let detail = format!("network with name {} already exists", draft.name);
        return Err(ApiError::conflict(detail).at("Name").remedy("choose another name").into());
    }
    let options = BridgeOptions::try_from(draft.options)?;
    let id = draft.id;
    let is_default = *draft.name == *DEFAULT;
    let bridge = match &options.bridge_name {
        Some(name) => name.to_string(),
        None if is_default => DEFAULT_DEVICE.to_owned(),
        None => device(&id),
    };
    let adopted_bridge = adopts(world, &bridge)?;
    let mut host = wire::host_space(world, &bridge)?;
    host.retain(|used| !matches!(used, HostUse::Promised(subnet) if draft.promised.contains(subnet)));
    let subnets = plan(
        &draft.subnets,
        draft.ipv6,
        &world.pools,
        world.model().networks.values().map(|network| &**network),
        &host,
    )?;
    let has_v6 = subnets.iter().any(|subnet| subnet.subnet.is_ipv6());
    let network = Network {
        name: Arc::from(draft.name),
        created: SystemTime::now(),
        driver: Driver::Bridge,
        internal: draft.internal,
        adopted_bridge,
        bridge: bridge.into(),
        options: NetworkOptions {
            mtu: mtu(world, &options, has_v6)?,
            icc: options.icc.unwrap_or(true),
            masquerade: options.masquerade.unwrap_or(true),
            isolate: options.isolate.unwrap_or(true),
            big_tcp: options.big_tcp.map_or_else(BigTcp::default, BigTcp::from),
            given: draft.options.clone(),
        },
        labels: draft.labels,
        resolves: !is_default,
        owner: draft.owner,
        subnets,
        id,
    };
    undo.push(Step::Bridge(network.clone()));
    world.kernel.ensure_network(&network)?;
    world.books.begin_leases(&network);
    let key = key_of::<Network>(network.id());
    let txn = Txn::default().expect_absent(Arc::clone(&key)).put(key, encode(&network)?);
    if let Err(error) = world.commit(&txn) {
        world.books.end_leases(&network.id);
        return Err(error);
    }
    world.tell("network", "create", &network.id, &network.name, &[("type", "bridge")]);
    Ok(Arc::new(network))
}

/// The bridge of a network that asks for no other.
pub(super) fn device(id: &str) -> String {
    format!("nd-{}", id.get(..10).unwrap_or(id))
}

fn subnet_requests(config: &[CreateSubnet]) -> Result<Vec<SubnetRequest>> {
    let mut requests = Vec::with_capacity(config.len());
    for (index, given) in config.iter().enumerate() {
        let Some(subnet) = given.subnet else {
            let detail = "a gateway, a range and auxiliary addresses need the subnet they lie in";
            return Err(ApiError::invalid(detail).at(format!("IPAM.Config[{index}].Subnet")).into());
        };
        requests.push(SubnetRequest {
            subnet: subnet.into(),
            gateway: given.gateway,
            range: given.ip_range.map(IpNetwork::from),
            auxiliary: given.auxiliary_addresses.clone(),
        });
    }
    Ok(requests)
}

/// The addresses of the device when it is there already, made by somebody else. One network a bridge.
fn adopts(world: &mut World, bridge: &str) -> Result<Option<Vec<IpAddr>>> {
    if let Some(other) = world.model().networks.by(&NetworkKey::Bridge(bridge.into())).next() {
        let detail = format!("the device {bridge} belongs to network {}", other.name);
        return Err(ApiError::conflict(detail)
            .at("Options.bridge-name")
            .remedy("name another device")
            .into());
    }
    match world.kernel.rtnl.link(bridge)? {
        None => Ok(None),
        Some(link) if link.group == crate::driver::GROUP && is_bridge(&link) => Ok(None),
        Some(link) if is_bridge(&link) => {
            let addresses = world.kernel.rtnl.addresses()?.into_iter();
            Ok(Some(addresses.filter(|addr| addr.link == link.index).map(|addr| addr.address.ip()).collect()))
        }
        Some(_) => {
            let detail = format!("a device {bridge} exists and is no bridge");
            Err(ApiError::conflict(detail).at("Options.bridge-name").remedy("name another device").into())
        }
    }
}

impl From<Switch> for BigTcp {
    fn from(wanted: Switch) -> Self {
        match wanted {
            Switch::On => Self::On,
            Switch::Off => Self::Off,
            Switch::Auto => Self::Auto,
        }
    }
}

fn is_bridge(link: &Link) -> bool {
    link.kind.as_deref() == Some("bridge")
}

fn mtu(world: &World, options: &BridgeOptions, has_v6: bool) -> Result<u32> {
    let mtu = options.mtu.unwrap_or(world.config.mtu);
    if has_v6 && mtu < 1280 {
        let detail = format!("IPv6 needs an MTU of at least 1280, not {mtu}");
        return Err(ApiError::invalid(detail).at("Options.mtu").remedy("raise it, or leave IPv6 out").into());
    }
    Ok(mtu)
}

pub(crate) fn remove(world: &mut World, wanted: &str) -> Result<()> {
    if matches!(wanted, "host" | "none") {
        return Err(predefined(wanted));
    }
    let network = find::network(world.model(), wanted)?;
    if !network.resolves {
        return Err(predefined(&network.name));
    }
    docker::keep_off(world, &network, "remove")?;
    if network.scope() == Scope::Shared {
        return shared::remove(world, &network);
    }
    let holders: Vec<&str> = on(world, &network).map(|sandbox| &*sandbox.name).take(10).collect();
    if !holders.is_empty() {
        let detail = format!("network {} has active endpoints: {}", network.name, holders.join(", "));
        return Err(ApiError::conflict(detail).remedy("disconnect or remove these sandboxes first").into());
    }
    let services = service::on(world, &network);
    if !services.is_empty() {
        let detail = format!("network {} has services: {}", network.name, services.join(", "));
        return Err(ApiError::conflict(detail).remedy("remove these services first").into());
    }
    delete(world, &network)
}

fn predefined(name: &str) -> crate::error::Fault {
    ApiError::forbidden(format!("{name} is a pre-defined network and cannot be removed")).into()
}

/// The record goes first: what the kernel keeps after a crash here is unknown to every record, and found at start.
pub(super) fn delete(world: &mut World, network: &Arc<Network>) -> Result<()> {
    world.commit(&Txn::default().delete(key_of::<Network>(&network.id)))?;
    world.books.end_leases(&network.id);
    world.tell("network", "destroy", &network.id, &network.name, &[("type", "bridge")]);
    Ok(world.kernel.remove_network(network)?)
}

/// Removes what nobody is on and says what that was; goes on after a failure.
pub(crate) fn prune(world: &mut World, filters: Vec<Filter>) -> Result<Vec<String>> {
    let filters = Filters::new(filters, PRUNE_FILTERS)?;
    let networks = world.model().networks.values();
    let unused: Vec<Arc<Network>> =
        networks.filter(|network| network.resolves && network.owner.is_none()).cloned().collect();
    let mut removed = Vec::new();
    for network in unused {
        if on(world, &network).next().is_some()
            || !service::on(world, &network).is_empty()
            || !filters.labels(&network.labels)
        {
            continue;
        }
        let result = match network.scope() {
            Scope::Local => delete(world, &network),
            Scope::Shared if !world.books.users(&network).is_empty() => continue,
            Scope::Shared => shared::remove(world, &network),
        };
        match result {
            Ok(()) => removed.push(network.name.to_string()),
            Err(error) => tracing::warn!(network = %network.name, %error, "cannot prune the network"),
        }
    }
    Ok(removed)
}

fn on<'a>(world: &'a World, network: &'a Network) -> impl Iterator<Item = &'a Sandbox> {
    world.model().sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))).map(|sandbox| &**sandbox)
}

pub(crate) fn connect(world: &mut World, wanted: &str, request: &ConnectSandbox) -> Result<Arc<Sandbox>> {
    super::guests::without_the_dead(world, |world| attempt(world, wanted, request))
}

fn attempt(world: &mut World, wanted: &str, request: &ConnectSandbox) -> Result<Arc<Sandbox>> {
    let sandbox = find::sandbox(world.model(), &request.sandbox)?;
    let network = changeable(world, wanted, &sandbox, "connect")?;
    if sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
        let detail = format!("sandbox {} is on network {} already", sandbox.name, network.name);
        return Err(ApiError::conflict(detail).into());
    }
    let mut undo = Undo::default();
    let result = join(world, &mut undo, &network, &sandbox, request);
    undo.settle(world, result)
}

/// The network of a live change, refused where the namespace is not the sandbox's own to change.
fn changeable(world: &World, wanted: &str, sandbox: &Sandbox, deed: &str) -> Result<Arc<Network>> {
    let to = if deed == "connect" { "to" } else { "from" };
    let refuse = |detail: String| Err(ApiError::forbidden(detail).into());
    match (&sandbox.mode, wanted) {
        (_, "host" | "none") => refuse(format!("cannot {deed} a sandbox {to} {wanted} network")),
        (Mode::Host, _) => refuse(format!("cannot {deed} {}: it has the host's own network", sandbox.name)),
        (Mode::Container(_), _) => {
            refuse(format!("cannot {deed} {}: it shares another sandbox's network", sandbox.name))
        }
        (Mode::None, _) => refuse(format!("cannot {deed} {}: it was made to have no network", sandbox.name)),
        (Mode::Docker, _) => {
            let detail = format!("cannot {deed} {}: it is a container of Docker's", sandbox.name);
            let remedy = format!("use `docker network {deed} NETWORK CONTAINER`");
            Err(ApiError::forbidden(detail).remedy(remedy).into())
        }
        (Mode::Bridge, _) => {
            let network = find::network(world.model(), wanted)?;
            docker::keep_off(world, &network, deed)?;
            Ok(network)
        }
    }
}

fn join(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    before: &Sandbox,
    request: &ConnectSandbox,
) -> Result<Arc<Sandbox>> {
    let netns = wire::open_netns(before)?;
    let owner = Owner { id: &before.id, name: &before.name, hostname: &before.hostname };
    let wish = Wish {
        aliases: &request.aliases,
        v4: request.ipv4_address,
        v6: request.ipv6_address,
        mac: request.mac_address,
        name: request.dns_name.as_ref(),
        bandwidth: request.bandwidth,
        owner: request.owner.as_deref().unwrap_or("cli"),
    };
    let interface = wire::interface(&before.endpoints, request.interface.as_ref())?;
    let endpoint = wire::endpoint(world, undo, network, &owner, interface, &wish)?;
    let mut after = before.clone();
    after.mode = Mode::Bridge;
    after.endpoints.push(endpoint.clone());
    let gateways = wire::gateways(&after, &endpoint, world.model());
    undo.push(Step::Link(endpoint.clone()));
    wire::attach(world, network, &endpoint, &netns, gateways)?;
    super::sandbox::open_sockets(world, undo, &after, &netns)?;
    let txn = replace(world, &after)?;
    let txn = super::sandbox::with_leases(world, txn, &after.id, std::slice::from_ref(&endpoint));
    world.commit(&txn)?;
    world.tell("network", "connect", &network.id, &network.name, &[("container", &after.id)]);
    Ok(Arc::new(after))
}

pub(crate) fn disconnect(world: &mut World, wanted: &str, request: &DisconnectSandbox) -> Result<()> {
    let sandbox = find::sandbox(world.model(), &request.sandbox)?;
    let network = changeable(world, wanted, &sandbox, "disconnect")?;
    let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.network == network.id) else {
        let detail = format!("sandbox {} is not on network {}", sandbox.name, network.name);
        return Err(ApiError::conflict(detail).into());
    };
    let mut after = Sandbox::clone(&sandbox);
    after.endpoints.retain(|other| other.id != endpoint.id);
    // Without an address on its network it serves nobody.
    let serves_there = |membership: &Membership| {
        let service = world.model().services.get(&membership.service);
        service.is_none_or(|service| service.network == endpoint.network)
    };
    after.service = after.service.filter(|membership| !serves_there(membership));
    let mut txn = replace(world, &after)?;
    if network.scope() == Scope::Local {
        for address in endpoint.addresses() {
            txn = txn.delete(lease_key(&endpoint.network, address));
        }
    }
    world.commit(&txn)?;
    world.tell("network", "disconnect", &network.id, &network.name, &[("container", &after.id)]);
    leave(world, &after, endpoint)
}

/// The kernel's part of a disconnect that is committed: total, so that one failure does not keep the rest.
pub(super) fn leave(world: &mut World, after: &Sandbox, endpoint: &Endpoint) -> Result<()> {
    let cut = world.kernel.detach(endpoint);
    world.reconcile.disown_gone(world.books.model());
    world.books.release(endpoint, &after.id);
    // A namespace that is gone has no routes to change.
    if let Ok(netns) = wire::open_netns(after) {
        let model = world.books.model();
        let routes: Vec<_> =
            after.endpoints.iter().map(|other| (other, wire::gateways(after, other, model))).collect();
        world.kernel.route(&netns, &routes)?;
    }
    let absent = overlay::absent_if_unused(world, &endpoint.network);
    cut?;
    absent
}

/// Puts the sandbox's new record in the place of the one that was read.
pub(super) fn replace(world: &World, after: &Sandbox) -> Result<Txn> {
    let key = key_of::<Sandbox>(&after.id);
    Ok(world.books.revise(Scope::Local, &key).put(key, encode(after)?))
}
