//! One sandbox's place on one network: names, leased addresses, gateways. Shared by create and connect.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use netd_api::ApiError;
use netd_api::value::{self as api, Alias, LinkName, Mac};
use netd_sys::netns::{Netns, NetnsId};
use nix::libc;
use sha2::{Digest as _, Sha256};

use super::undo::Undo;
use super::{World, hex, new_id, overlay, short};
use crate::driver::{Gateways, mac_for};
use crate::error::Result;
use crate::ipam::{Family, Holder, HostUse};
use crate::model::{Bandwidth, Endpoint, Id, LeaseHolder, Model, Network, Rate, Sandbox};
use crate::tables::gateway_endpoint;

const ETHERNET_HEADER: u32 = 14;

/// What a request says of one endpoint.
#[derive(Default)]
pub(super) struct Wish<'a> {
    pub aliases: &'a [Alias],
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub mac: Option<Mac>,
    pub name: Option<&'a Alias>,
    pub bandwidth: Option<api::Bandwidth>,
    pub owner: &'a str,
}

/// With their prefix lengths.
type Addresses = (Option<(Ipv4Addr, u8)>, Option<(Ipv6Addr, u8)>);

/// Who is to have it.
pub(super) struct Owner<'a> {
    pub id: &'a Id,
    pub name: &'a Arc<str>,
    pub hostname: &'a str,
}

/// The endpoint's record, its addresses leased (and pushed to `undo`).
pub(super) fn endpoint(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    owner: &Owner<'_>,
    interface: String,
    wish: &Wish<'_>,
) -> Result<Endpoint> {
    refuse_on_default(network, wish)?;
    let bandwidth = bandwidth(network, wish.bandwidth)?;
    let v4 = match lease(world, undo, network, owner, Family::V4, wish.v4.map(IpAddr::V4))? {
        Some((IpAddr::V4(address), prefix)) => Some((address, prefix)),
        _ => None,
    };
    let v6 = match lease(world, undo, network, owner, Family::V6, wish.v6.map(IpAddr::V6))? {
        Some((IpAddr::V6(address), prefix)) => Some((address, prefix)),
        _ => None,
    };
    let first = wish.name.map_or(&**owner.name, |name| &**name);
    Ok(Endpoint {
        interface: interface.into(),
        aliases: wish.aliases.iter().map(|alias| alias.to_lowercase().into()).collect(),
        names: names(first, owner, wish.aliases.iter().map(|alias| &**alias)),
        bandwidth,
        owner: wish.owner.into(),
        ..record(network, owner, new_id(), (v4, v6), wish.mac)
    })
}

/// What follows from the id and the addresses: the link's name, the MAC address unless one was chosen.
pub(super) fn record(
    network: &Network,
    owner: &Owner<'_>,
    id: Id,
    (v4, v6): Addresses,
    mac: Option<Mac>,
) -> Endpoint {
    let digest = Sha256::digest(id.as_bytes());
    let mac = match (mac, v4) {
        (Some(mac), _) => mac.octets(),
        (None, Some((address, _))) => mac_for(address),
        (None, None) => [0x02, 0x6e, digest[0], digest[1], digest[2], digest[3]],
    };
    Endpoint {
        host_link: format!("{}{}", network.ports(), hex(&digest[..6])).into(),
        id,
        network: Arc::clone(&network.id),
        interface: "".into(),
        mac,
        v4,
        v6,
        aliases: Vec::new(),
        names: names(owner.name, owner, std::iter::empty()),
        bandwidth: Bandwidth::default(),
        owner: "".into(),
    }
}

/// As with Docker, the default network knows neither names nor chosen addresses.
fn refuse_on_default(network: &Network, wish: &Wish<'_>) -> Result<()> {
    if network.resolves {
        return Ok(());
    }
    let remedy = "create a network (`netd network create`) and use that";
    if !wish.aliases.is_empty() {
        let detail = format!("the default network {:?} has no aliases", network.name);
        return Err(ApiError::invalid(detail).at("Aliases").remedy(remedy).into());
    }
    if wish.v4.is_some() || wish.v6.is_some() {
        let detail = format!("an address cannot be chosen on the default network {:?}", network.name);
        return Err(ApiError::invalid(detail).at("IPAddress").remedy(remedy).into());
    }
    Ok(())
}

pub(super) fn lease(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    owner: &Owner<'_>,
    family: Family,
    wanted: Option<IpAddr>,
) -> Result<Option<(IpAddr, u8)>> {
    let holder = Holder::sandbox(owner.id, owner.name);
    let has_family = world.books.leases_of(&network.id)?.has(family);
    if wanted.is_none() && !has_family {
        return Ok(None);
    }
    let as_whom = LeaseHolder::Sandbox(Arc::clone(owner.id));
    let assigned = world.claim(undo, network, &holder, &as_whom, |leases| match wanted {
        Some(address) => leases.reserve(address, &holder),
        None => leases.lease(family, &holder),
    })?;
    Ok(Some(assigned))
}

/// The sandbox's name, or what stands in for it, comes first: it is the one that reverse queries answer.
pub(super) fn names<'a>(
    first: &'a str,
    owner: &Owner<'a>,
    aliases: impl Iterator<Item = &'a str>,
) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    let all = [first].into_iter().chain(aliases);
    for name in all.chain([short(owner.id), owner.hostname]) {
        let name: Arc<str> = name.to_lowercase().into();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

pub(super) fn bandwidth(network: &Network, wanted: Option<api::Bandwidth>) -> Result<Bandwidth> {
    let wanted = wanted.unwrap_or_default();
    wanted.check().map_err(|error| ApiError::invalid(error.to_string()).at("Bandwidth"))?;
    let rate = |rate, burst| (rate > 0).then_some(Rate { rate, burst });
    let bandwidth = Bandwidth {
        ingress: rate(wanted.ingress_rate, wanted.ingress_burst),
        egress: rate(wanted.egress_rate, wanted.egress_burst),
    };
    let packet = u64::from(network.options.mtu + ETHERNET_HEADER) * 8;
    match [bandwidth.ingress, bandwidth.egress].into_iter().flatten().find(|rate| rate.burst < packet) {
        None => Ok(bandwidth),
        Some(rate) => {
            let detail =
                format!("no packet of network {} fits into a burst of {} bits", network.name, rate.burst);
            let remedy = format!("use at least {packet}, better a tenth of the rate");
            Err(ApiError::invalid(detail).at("Bandwidth").remedy(remedy).into())
        }
    }
}

/// The device's name in the sandbox: what was asked for, or the first `ethN` that no endpoint has.
pub(super) fn interface(endpoints: &[Endpoint], wanted: Option<&LinkName>) -> Result<String> {
    let taken = |name: &str| endpoints.iter().any(|endpoint| *endpoint.interface == *name);
    match wanted {
        Some(name) if taken(name) => {
            let detail = format!("another network's device is called {name}");
            Err(ApiError::conflict(detail).at("Interface").remedy("choose another name").into())
        }
        Some(name) => Ok(name.to_string()),
        None => Ok((0..).map(|n| format!("eth{n}")).find(|name| !taken(name)).unwrap_or_default()),
    }
}

/// The endpoint's devices. In a namespace that somebody else made, the name may be taken by a device of theirs.
pub(super) fn attach(
    world: &mut World,
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    gateways: Gateways,
) -> Result<()> {
    overlay::present(world, network)?;
    world.reconcile.vouch(network, endpoint, world.books.model());
    let index = world.kernel.attach(network, endpoint, netns, gateways).map_err(|error| {
        if error.errno() != Some(libc::EEXIST) {
            return crate::error::Fault::from(error);
        }
        let detail = format!("the namespace has a device {} already", endpoint.interface);
        ApiError::conflict(detail).at("Interface").remedy("remove that device, or choose another name").into()
    })?;
    if may_be_remembered(world, network, endpoint) {
        world.kernel.background.announce(netns, index, endpoint);
    }
    Ok(())
}

/// An announcement goes to every port of the bridge, so it is left out where it can tell nobody anything: nobody has had
/// the address before, on a bridge that only we put ports on.
fn may_be_remembered(world: &World, network: &Network, endpoint: &Endpoint) -> bool {
    let leases = world.books.leases(&network.id);
    let is_fresh = |address| leases.is_some_and(|leases| leases.is_fresh(address));
    network.adopted_bridge.is_some() || !endpoint.addresses().all(is_fresh)
}

/// The default routes that lead through this endpoint, while the sandbox is as it is.
pub(super) fn gateways(sandbox: &Sandbox, endpoint: &Endpoint, model: &Model) -> Gateways {
    let through = |family: Family| {
        let chosen = gateway_endpoint(sandbox, model, family).is_some_and(|chosen| chosen.id == endpoint.id);
        let network = model.networks.get(&endpoint.network).filter(|_| chosen)?;
        let subnet = network.subnets.iter().find(|subnet| Family::of(subnet.gateway) == family)?;
        Some(subnet.gateway)
    };
    Gateways { v4: through(Family::V4), v6: through(Family::V6) }
}

/// The sandbox's namespace, if what its path leads to is still the one that was joined.
pub(super) fn open_netns(sandbox: &Sandbox) -> Result<Netns> {
    let netns = Netns::open(&sandbox.netns)?;
    if identity(netns.id()) == sandbox.netns_identity {
        return Ok(netns);
    }
    let detail =
        format!("{} leads to another namespace than that of {}", sandbox.netns.display(), sandbox.name);
    Err(ApiError::conflict(detail).remedy(format!("`netd sandbox rm -f {}`", sandbox.name)).into())
}

pub(super) fn identity(id: NetnsId) -> (u64, u64) {
    (id.device, id.inode)
}

/// What of the address space the host itself uses, beyond a network that is to be on the device `own`: an adopted
/// bridge may have the network's subnet already.
pub(super) fn host_space(world: &mut World, own: &str) -> Result<Vec<HostUse>> {
    let mut devices: HashMap<u32, Option<Arc<str>>> = HashMap::new();
    let mut space = Vec::new();
    for route in world.kernel.rtnl.routes()? {
        let device = match route.link.map(|link| (link, devices.get(&link))) {
            None => None,
            Some((_, Some(known))) => known.clone(),
            Some((link, None)) => {
                let found = world.kernel.rtnl.link(link)?.map(|found| Arc::from(found.name));
                devices.insert(link, found.clone());
                found
            }
        };
        if device.as_deref() != Some(own) {
            space.extend(HostUse::route(route.destination, device));
        }
    }
    space.extend(world.reconcile.host_servers().into_iter().map(HostUse::Resolver));
    space.extend(world.model().pools.values().map(|pool| HostUse::Promised(pool.subnet)));
    Ok(space)
}
