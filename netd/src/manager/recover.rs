//! The beginning and the end: the store against the kernel at start (what is missing is made again, what is ours and
//! unknown goes, what is not ours stays), and everything taken down on request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use netd_api::network::{CreateIpam, CreateNetwork};
use netd_sys::netlink::link::Link;
use netd_sys::netns::Netns;
use nix::time::{ClockId, clock_gettime};

use super::books::Books;
use super::network::DEFAULT;
use super::undo::Undo;
use super::{World, cluster, docker, network, overlay, sandbox, service, wire};
use crate::bus::Bus;
use crate::config::Config;
use crate::driver::{DOOMED, Kernel, Vtep, shaping_device};
use crate::error::{Chain, Result};
use crate::files::Files;
use crate::firewall::Ends;
use crate::ipam::{Pool, Pools};
use crate::model::{Id, Mode, Model, Network, Sandbox, SandboxKey, Scope, tunnel_of};
use crate::ports::Ports;
use crate::reconcile::{HostResolver, Reconcile};
use crate::steer::Steering;
use crate::store::{Redb, Txn, Wake, encode, key_of};
use crate::tables::{Away, Neighbours};

/// Opens the store and reads it; touches nothing in the kernel.
pub(crate) fn open(config: Arc<Config>, bus: Bus, wake: Wake) -> anyhow::Result<World> {
    let mut store = Redb::open(&config.state_dir)?;
    let mut kernel = Kernel::open()?;
    let cluster = cluster::open(&config, &mut store, &mut kernel, Arc::clone(&wake))?;
    let turns = if cluster.is_some() { microseconds_of_boot() } else { 0 };
    let books = Books::open(config.node.as_str().into(), Box::new(store), cluster, turns)?;
    let pools: Vec<Pool> = config.pools.clone();
    let files = Files::new(&config.run_dir);
    let host = HostResolver::new(config.resolv_conf.clone(), config.dns_servers.clone());
    let ends = config.cluster.as_ref().map(|cluster| Ends {
        vtep: cluster.vtep.unwrap_or(cluster.advertise),
        vxlan_port: cluster.vxlan_port,
        mesh_port: cluster.mesh_port,
    });
    kernel.vtep = ends.as_ref().map(|ends| Vtep { address: ends.vtep, port: ends.vxlan_port });
    let steering = Steering::new(config.steer, config.reservation_holders.clone());
    let mut world = World {
        reconcile: Reconcile::new(
            config.node.as_str().into(),
            files,
            host,
            kernel.background.clone(),
            config.workers(),
            steering,
            ends,
        )?,
        kernel,
        pools: Pools::new(&pools, &machine_seed(&config))?,
        ports: Ports::rebuild(books.model()),
        turns: BTreeMap::new(),
        neighbours: Neighbours::default(),
        away: Away::default(),
        books,
        bus,
        gone_since: BTreeMap::new(),
        store_was_there: None,
        owed: None,
        pursues: false,
        is_up: false,
        wake,
        config,
    };
    world.carry();
    Ok(world)
}

/// More at every start than at any time before it: no store tells as much as a batch a microsecond.
fn microseconds_of_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| u64::try_from(Duration::from(time).as_micros()).unwrap_or_default())
}

/// What IPv6 subnets are derived from: this machine's id, and the node's name where several share a machine.
fn machine_seed(config: &Config) -> Vec<u8> {
    let mut seed = std::fs::read("/etc/machine-id").unwrap_or_default();
    seed.extend_from_slice(config.node.as_bytes());
    seed
}

/// Makes the kernel hold what the records say. One object that cannot be repaired is told and does not keep the rest.
pub(crate) fn recover(world: &mut World) -> Result<()> {
    cluster::enter(world)?;
    remove_unknown(world)?;
    super::guests::bury_all(world);
    super::health::forget_gone(world);
    for network in world.model().networks.values().cloned().collect::<Vec<_>>() {
        if !overlay::is_overlay(&network) {
            note(world.kernel.ensure_network(&network), "network", &network.name);
            note(service::repair(world, &network), "network", &network.name);
        } else if world.model().sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))).next().is_some() {
            note(overlay::make(world, &network), "network", &network.name);
        }
    }
    if !world.model().networks.values().any(|network| !network.resolves) {
        create_default(world)?;
    }
    let links: BTreeSet<String> = ports_in_place(world)?;
    for sandbox in world.model().sandboxes.values().cloned().collect::<Vec<_>>() {
        let repaired = match sandbox.mode {
            Mode::Docker => docker::repair(world, &sandbox, |endpoint| links.contains(&*endpoint.host_link)),
            _ => repair(world, &sandbox, &links),
        };
        note(repaired, "sandbox", &sandbox.name);
    }
    let model = world.books.model();
    world.reconcile.lead_answers();
    world.reconcile.write_firewall(model);
    for sandbox in model.sandboxes.values() {
        world.reconcile.write_files(sandbox, model);
    }
    world.pursue();
    // Requests are served from here on, and none of them waits for a store that another one needs.
    world.books.set_may_wait(false);
    world.is_up = true;
    Ok(())
}

fn note<E: std::error::Error>(result: std::result::Result<(), E>, kind: &str, name: &str) {
    if let Err(error) = result {
        tracing::error!(kind, name, error = %Chain(&error), "cannot repair what the store says should be there");
    }
}

fn create_default(world: &mut World) -> Result<()> {
    let mut request = CreateNetwork {
        name: DEFAULT.parse()?,
        driver: netd_api::network::Driver::Bridge,
        enable_ipv6: false,
        ipam: CreateIpam::default(),
        internal: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    if let Some(subnet) = world.config.default_subnet {
        let subnet = netd_api::value::Subnet::try_from(subnet)?;
        request
            .ipam
            .config
            .push(netd_api::network::CreateSubnet { subnet: Some(subnet), ..Default::default() });
    }
    network::create(world, &request).map(|_| ())
}

/// Links, namespaces and directories that carry our mark and belong to no record: a crash before a commit, or after
/// the deletion of a record.
fn remove_unknown(world: &mut World) -> Result<()> {
    let known: BTreeSet<Arc<str>> = {
        let model = world.model();
        // An overlay network has devices here for its endpoints only, whether its record can be read just now or not.
        let bridges = model.networks.values().filter(|network| !overlay::is_overlay(network));
        let bridges = bridges.map(|network| Arc::clone(&network.bridge));
        let ports =
            model.sandboxes.values().flat_map(|s| s.endpoints.iter().map(|e| Arc::clone(&e.host_link)));
        let shaping = model.sandboxes.values().flat_map(|s| s.endpoints.iter().filter_map(shaping_device));
        let joined = model.sandboxes.values().flat_map(|s| s.endpoints.iter().map(|e| &*e.network));
        let devices = joined.flat_map(|network| {
            let record = model.networks.get(network).map(|network| Arc::clone(&network.bridge));
            [record.unwrap_or_else(|| network::device(network).into()), tunnel_of(network).into()]
        });
        bridges.chain(ports).chain(devices).chain(shaping.map(Arc::from)).collect()
    };
    for stray in world.kernel.ours()? {
        if stray.group == DOOMED || !known.contains(&*stray.name) {
            tracing::info!(link = stray.name, "removing a link that no record knows");
            note(world.kernel.remove_stray(&stray), "link", &stray.name);
        }
    }
    for (id, netns) in world.reconcile.files().announced().unwrap_or_default() {
        if world.model().sandboxes.contains_key(&id) {
            continue;
        }
        tracing::info!(sandbox = %id, "removing what is left of a sandbox that was never finished");
        let in_use = |path| world.model().sandboxes.values().any(|sandbox| sandbox.netns == path);
        if let Some(path) = netns.filter(|path| path.is_absolute() && !in_use(path.clone())) {
            note(Netns::remove_at(&path), "namespace", &path.display().to_string());
        }
        note(world.reconcile.files().remove(&id), "directory", &id);
    }
    Ok(())
}

/// The host ends that exist and are in their bridge.
fn ports_in_place(world: &mut World) -> Result<BTreeSet<String>> {
    let links = world.kernel.ours()?;
    let bridge = |link: &Link| links.iter().any(|other| Some(other.index) == link.master);
    let adopted = |network: &&Arc<Network>| network.adopted_bridge.is_some();
    let foreign = world.model().networks.values().any(|network| adopted(&network));
    Ok(links
        .iter()
        .filter(|link| link.kind.as_deref() == Some("veth") && link.group != DOOMED)
        .filter(|link| bridge(link) || (foreign && link.master.is_some()))
        .map(|link| link.name.clone())
        .collect())
}

/// The namespace and every endpoint of one sandbox.
fn repair(world: &mut World, sandbox: &Arc<Sandbox>, in_place: &BTreeSet<String>) -> Result<()> {
    let netns = match wire::open_netns(sandbox) {
        Ok(netns) => netns,
        Err(_) if sandbox.netns_is_ours => return remake(world, sandbox),
        Err(error) => return Err(error),
    };
    for endpoint in &sandbox.endpoints {
        if in_place.contains(&*endpoint.host_link) {
            world.kernel.shape(endpoint)?;
            continue;
        }
        let Some(network) = world.model().networks.get(&endpoint.network).cloned() else { continue };
        tracing::info!(sandbox = %sandbox.name, link = %endpoint.host_link, "putting back an endpoint");
        world.kernel.detach(endpoint)?;
        let gateways = wire::gateways(sandbox, endpoint, world.books.model());
        let index = world.kernel.attach(&network, endpoint, &netns, gateways)?;
        world.kernel.background.announce(&netns, index, endpoint);
    }
    Ok(())
}

/// The namespace is gone, as after a reboot: made again with the same addresses, empty of processes.
fn remake(world: &mut World, before: &Arc<Sandbox>) -> Result<()> {
    tracing::info!(sandbox = %before.name, "making its namespace again");
    Netns::remove_at(&before.netns)?;
    world.reconcile.announce(before)?;
    let netns = sandbox::own_namespace(world, before)?;
    let mut after = Sandbox::clone(before);
    after.netns_identity = wire::identity(netns.id());
    for endpoint in &after.endpoints {
        world.kernel.detach(endpoint)?;
    }
    if matches!(after.mode, Mode::Bridge | Mode::None) {
        let mut undo = Undo::default();
        let attached = sandbox::attach_all(world, &mut undo, &after, &netns);
        undo.settle(world, attached)?;
    }
    let txn = Txn::default().put(key_of::<Sandbox>(&after.id), encode(&after)?);
    world.commit(&txn).map(|_| ())
}

/// Takes every sandbox's ports and names off; with `purge` everything goes, and errors are gathered on the way.
pub(crate) fn down(world: &mut World, purge: bool) -> Vec<String> {
    if !purge {
        return cluster::leave(world, purge).into_iter().collect();
    }
    let mut errors = Vec::new();
    // Those that share first, so that nobody's namespace is missing while it is looked at.
    let mut sandboxes: Vec<Arc<Sandbox>> = world.model().sandboxes.values().cloned().collect();
    sandboxes.sort_by_key(|sandbox| !matches!(sandbox.mode, Mode::Container(_)));
    for sandbox in &sandboxes {
        match sandbox::take_down(world, sandbox) {
            Ok(more) => errors.extend(more),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let own = |network: &Id, model: &Model| {
        model.networks.get(network).is_some_and(|network| network.scope() == Scope::Local)
    };
    let model = world.model();
    let services = model.services.values().filter(|service| own(&service.network, model));
    for gone in services.cloned().collect::<Vec<_>>() {
        if let Err(error) = service::delete(world, &gone) {
            errors.push(error.to_string());
        }
    }
    errors.extend(cluster::leave(world, purge));
    let own = world.model().networks.values().filter(|network| network.scope() == Scope::Local);
    for network in own.cloned().collect::<Vec<_>>() {
        if let Err(error) = network::delete(world, &network) {
            errors.push(error.to_string());
        }
    }
    // The watcher goes on until the daemon ends: it must not make the device again.
    world.kernel.vtep = None;
    if let Err(error) = world.kernel.remove_probe() {
        errors.push(Chain(&error).to_string());
    }
    if let Err(error) = world.reconcile.remove_firewall() {
        errors.push(error.to_string());
    }
    world.kernel.bury();
    errors
}
