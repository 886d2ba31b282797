//! Docker's endpoints, one sandbox each: created with the addresses that Docker chose, joined (a pair is made, Docker
//! takes the far end), published, left, deleted. Docker may repeat any of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use netd_api::ApiError;
use netd_api::value::{Mac, PortSpec};
use netd_sys::netns::Netns;

use super::{OWNER, find_endpoint, find_network, is_abandoned, name_of};
use crate::error::Result;
use crate::ipam::Family;
use crate::manager::network::replace;
use crate::manager::undo::{Step, Undo};
use crate::manager::wire::{self, Owner};
use crate::manager::{World, publish, sandbox};
use crate::model::{DnsOptions, Endpoint, Id, Mode, Network, PortRange, Sandbox, SandboxKey};
use crate::store::{Txn, encode, key_of};

/// The namespace of an endpoint that is in none, or in one that was not seen yet.
const NOWHERE: (u64, u64) = (0, 0);

/// An endpoint as Docker asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewEndpoint {
    pub id: Id,
    pub network: Id,
    pub v4: Option<(Ipv4Addr, u8)>,
    pub v6: Option<(Ipv6Addr, u8)>,
    pub mac: Option<Mac>,
    pub exposes: Vec<PortRange>,
}

/// What Docker needs to put the far end into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The far end's name as long as it is in the host's namespace.
    pub device: String,
    pub gateways: Vec<IpAddr>,
}

/// The MAC address that the endpoint has.
pub(crate) fn create(world: &mut World, new: &NewEndpoint) -> Result<[u8; 6]> {
    let network = find_network(world, &new.network)?;
    if let Some(found) = find_endpoint(world, &new.id) {
        return repeated(&found, new);
    }
    drop_abandoned(world, new)?;
    let mut undo = Undo::default();
    let result = build(world, &mut undo, &network, new);
    undo.settle(world, result)
}

fn repeated(found: &Sandbox, new: &NewEndpoint) -> Result<[u8; 6]> {
    match found.endpoints.first() {
        Some(endpoint)
            if endpoint.network == new.network && (endpoint.v4, endpoint.v6) == (new.v4, new.v6) =>
        {
            Ok(endpoint.mac)
        }
        _ => {
            let detail = format!("endpoint {} exists already, with other addresses", found.name);
            Err(ApiError::conflict(detail).remedy("delete it first").into())
        }
    }
}

fn build(world: &mut World, undo: &mut Undo, network: &Network, new: &NewEndpoint) -> Result<[u8; 6]> {
    let name: Arc<str> = name_of(&new.id).into();
    let owner = Owner { id: &new.id, name: &name, hostname: &name };
    if new.v4.is_none() && new.v6.is_none() {
        let detail = format!("endpoint {name} has no address");
        let remedy = "use an IPAM driver that gives addresses: netd, or Docker's default";
        return Err(ApiError::invalid(detail).at("Interface").remedy(remedy).into());
    }
    for address in new.addresses() {
        wire::lease(world, undo, network, &owner, Family::of(address), Some(address))?;
    }
    let made = wire::record(network, &owner, new.id.clone(), (new.v4, new.v6), new.mac);
    let endpoint = Endpoint { owner: OWNER.into(), ..made };
    let mac = endpoint.mac;
    let sandbox = Sandbox {
        id: Id::clone(&new.id),
        created: SystemTime::now(),
        mode: Mode::Docker,
        netns: PathBuf::new(),
        netns_identity: NOWHERE,
        netns_is_ours: false,
        boot: "".into(),
        netns_cookie: 0,
        hostname: Arc::clone(&name),
        name,
        endpoints: vec![endpoint],
        publishes: Vec::new(),
        exposes: new.exposes.clone(),
        dns: DnsOptions::default(),
        extra_hosts: Vec::new(),
        links: Vec::new(),
        service: None,
        labels: BTreeMap::new(),
        owner: OWNER.into(),
    };
    let key = key_of::<Sandbox>(&sandbox.id);
    let txn = Txn::default().expect_absent(Arc::clone(&key)).put(key, encode(&sandbox)?);
    let txn = sandbox::with_leases(world, txn, &sandbox.id, &sandbox.endpoints);
    world.commit(&txn)?;
    world.tell("sandbox", "create", &sandbox.id, &sandbox.name, &[("owner", OWNER)]);
    Ok(mac)
}

/// An endpoint that was made and not joined in time is in nobody's way.
fn drop_abandoned(world: &mut World, new: &NewEndpoint) -> Result<()> {
    let in_the_way = |sandbox: &&Arc<Sandbox>| {
        let mut held = sandbox.endpoints.iter().flat_map(Endpoint::addresses);
        sandbox.mode == Mode::Docker
            && !is_joined(sandbox)
            && is_abandoned(sandbox.created)
            && held.any(|held| new.addresses().any(|address| address == held))
    };
    let there = SandboxKey::On(Id::clone(&new.network));
    let found: Vec<_> = world.model().sandboxes.by(&there).filter(in_the_way).cloned().collect();
    for sandbox in found {
        tracing::warn!(sandbox = %sandbox.name, "removing an endpoint that Docker has abandoned");
        for error in sandbox::take_down(world, &sandbox)? {
            tracing::warn!(sandbox = %sandbox.name, error, "cannot remove all of it");
        }
    }
    Ok(())
}

/// Makes the pair anew, even if there is one: whether its far end has been taken already is not ours to know. Of a
/// container that is being started the namespace does not exist yet.
pub(crate) fn join(world: &mut World, network: &Id, id: &Id, sandbox_key: &Path) -> Result<Joined> {
    let network = find_network(world, network)?;
    let sandbox = found(world, id)?;
    let Some(endpoint) = sandbox.endpoints.first().cloned() else { return Err(unknown(id)) };
    let device = endpoint.host_link.replacen("nv", "nw", 1);
    let mut after = nowhere(&sandbox);
    after.netns = sandbox_key.to_owned();
    world.kernel.detach(&endpoint)?;
    let mut undo = Undo::default();
    undo.push(Step::Link(endpoint.clone()));
    let offered = world.kernel.offer(&network, &endpoint, &device).map_err(Into::into);
    let result = offered.and_then(|()| world.commit(&replace(world, &after)?));
    undo.settle(world, result)?;
    world.tell("network", "connect", &network.id, &network.name, &[("container", id)]);
    let subnets = network.subnets.iter().filter(|_| !network.internal);
    let served = |gateway: &IpAddr| endpoint.addresses().any(|own| own.is_ipv4() == gateway.is_ipv4());
    Ok(Joined { device, gateways: subnets.map(|subnet| subnet.gateway).filter(served).collect() })
}

/// A link of ours has its carrier, so Docker has the far end in the container by now: notes which namespace that is,
/// and what the device is called there. Without a name, all that wait.
pub(crate) fn settle(world: &mut World, link: Option<&str>) {
    let waits = |sandbox: &&Arc<Sandbox>| {
        let mut links = sandbox.endpoints.iter().map(|endpoint| &*endpoint.host_link);
        is_joined(sandbox) && links.any(|own| link.is_none_or(|link| own == link))
    };
    let unseen = SandboxKey::Netns(NOWHERE.0, NOWHERE.1);
    let waiting: Vec<_> = world.model().sandboxes.by(&unseen).filter(waits).cloned().collect();
    for sandbox in waiting {
        if let Err(error) = settle_one(world, &sandbox) {
            tracing::warn!(sandbox = %sandbox.name, %error, "cannot look into the container's namespace");
        }
    }
}

fn settle_one(world: &mut World, sandbox: &Sandbox) -> Result<()> {
    let Some(endpoint) = sandbox.endpoints.first() else { return Ok(()) };
    let Some(network) = world.model().networks.get(&endpoint.network).cloned() else { return Ok(()) };
    let netns = Netns::open(&sandbox.netns)?;
    let Some(interface) = world.kernel.taken_over(&network, endpoint, &netns)? else { return Ok(()) };
    let mut after = Sandbox { netns_identity: wire::identity(netns.id()), ..sandbox.clone() };
    for endpoint in &mut after.endpoints {
        endpoint.interface = interface.as_str().into();
    }
    world.commit(&replace(world, &after)?).map(|_| ())
}

/// Publishes what is not published yet.
pub(crate) fn program(world: &mut World, id: &Id, specs: &[PortSpec]) -> Result<()> {
    let sandbox = found(world, id)?;
    let mut undo = Undo::default();
    let result = publish::add_all(world, &mut undo, &sandbox, specs);
    undo.settle(world, result)
}

pub(crate) fn revoke(world: &mut World, id: &Id) -> Result<()> {
    let Some(sandbox) = find_endpoint(world, id).filter(|sandbox| !sandbox.publishes.is_empty()) else {
        return Ok(());
    };
    let after = Sandbox { publishes: Vec::new(), ..Sandbox::clone(&sandbox) };
    world.commit(&replace(world, &after)?)?;
    publish::release_all(world, &sandbox);
    Ok(())
}

pub(crate) fn leave(world: &mut World, id: &Id) -> Result<()> {
    revoke(world, id)?;
    let Some(sandbox) = find_endpoint(world, id).filter(|sandbox| is_joined(sandbox)) else { return Ok(()) };
    let after = nowhere(&sandbox);
    world.commit(&replace(world, &after)?)?;
    for endpoint in &after.endpoints {
        world.kernel.unplug(endpoint)?;
    }
    Ok(())
}

pub(crate) fn delete(world: &mut World, id: &Id) -> Result<()> {
    let Some(sandbox) = find_endpoint(world, id) else { return Ok(()) };
    let errors = sandbox::take_down(world, &sandbox)?;
    if errors.is_empty() {
        return Ok(());
    }
    let detail = format!("{} is removed, but something is left: {}", sandbox.name, errors.join("; "));
    Err(ApiError::kernel(detail).remedy("the next start of netd tries again").into())
}

/// At netd's start. A link ends with the container's namespace: an endpoint that has lost it has lost its container
/// meanwhile (or all did, in a reboot). One that has left its bridge is put back.
pub(in crate::manager) fn repair(
    world: &mut World,
    sandbox: &Arc<Sandbox>,
    is_in_place: impl Fn(&Endpoint) -> bool,
) -> Result<()> {
    let ended = match sandbox.endpoints.first() {
        Some(endpoint) if is_joined(sandbox) => world.kernel.rtnl.link(&*endpoint.host_link)?.is_none(),
        _ => is_abandoned(sandbox.created),
    };
    if ended {
        tracing::info!(sandbox = %sandbox.name, "removing an endpoint of Docker's whose container is gone");
        return delete(world, &sandbox.id);
    }
    for endpoint in sandbox.endpoints.iter().filter(|endpoint| is_joined(sandbox) && !is_in_place(endpoint)) {
        if let Some(network) = world.model().networks.get(&endpoint.network).cloned() {
            world.kernel.replug(&network, endpoint)?;
        }
    }
    Ok(())
}

/// From Docker's join to its leave.
fn is_joined(sandbox: &Sandbox) -> bool {
    sandbox.mode == Mode::Docker && !sandbox.netns.as_os_str().is_empty()
}

fn nowhere(sandbox: &Sandbox) -> Sandbox {
    let mut after = Sandbox { netns: PathBuf::new(), netns_identity: NOWHERE, ..sandbox.clone() };
    for endpoint in &mut after.endpoints {
        endpoint.interface = "".into();
    }
    after
}

fn found(world: &World, id: &Id) -> Result<Arc<Sandbox>> {
    find_endpoint(world, id).ok_or_else(|| unknown(id))
}

fn unknown(id: &Id) -> crate::error::Fault {
    let detail = format!("netd has no endpoint {} of Docker's", crate::manager::short(id));
    ApiError::not_found(detail).remedy("its state was removed: restart the container").into()
}

impl NewEndpoint {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(|(address, _)| IpAddr::V4(address));
        v4.into_iter().chain(self.v6.map(|(address, _)| IpAddr::V6(address)))
    }
}
