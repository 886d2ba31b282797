//! Sandboxes: create and remove. A sandbox is a namespace with its files, endpoints, sockets and published ports; its
//! record is written last, and deleted first.

mod check;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use netd_api::ApiError;
use netd_api::network::DisconnectSandbox;
use netd_api::sandbox::{Attachment, CreateSandbox, LeaveNetwork, NetworkMode};
use netd_api::value::Reference;
use netd_sys::netlink::{Rtnl, link};
use netd_sys::netns::Netns;

use super::network::DEFAULT;
use super::undo::{Step, Undo};
use super::wire::{self, Owner, Wish};
use super::{World, docker, find, new_id, overlay, publish, service};
use crate::error::{Chain, Result};
use crate::guests;
use crate::model::{DnsOptions, Endpoint, Id, Link, Mode, PortRange, Sandbox, SandboxKey, Scope};
use crate::store::{Txn, encode, encode_lease, key_of, lease_key};
use crate::tables;

/// The new sandbox, and what was done otherwise than asked.
pub(crate) fn create(world: &mut World, request: &CreateSandbox) -> Result<(Arc<Sandbox>, Vec<String>)> {
    super::guests::without_the_dead(world, |world| attempt(world, request))
}

fn attempt(world: &mut World, request: &CreateSandbox) -> Result<(Arc<Sandbox>, Vec<String>)> {
    let warnings = check::request(world, request)?;
    let mut undo = Undo::default();
    let result = build(world, &mut undo, request);
    Ok((undo.settle(world, result)?, warnings))
}

fn build(world: &mut World, undo: &mut Undo, request: &CreateSandbox) -> Result<Arc<Sandbox>> {
    let mut sandbox = draft(world, request)?;
    sandbox.endpoints = endpoints(world, undo, &sandbox, request)?;
    sandbox.publishes = publish::resolve(world, undo, &sandbox, request)?;
    let netns = namespace(world, undo, &mut sandbox, request)?;
    if matches!(sandbox.mode, Mode::Bridge | Mode::None) {
        attach_all(world, undo, &sandbox, &netns)?;
    }
    open_sockets(world, undo, &sandbox, &netns)?;
    let key = key_of::<Sandbox>(&sandbox.id);
    let txn = Txn::default().expect_absent(Arc::clone(&key)).put(key, encode(&sandbox)?);
    let txn = with_leases(world, txn, &sandbox.id, &sandbox.endpoints);
    world.commit(&txn)?;
    world.tell("sandbox", "create", &sandbox.id, &sandbox.name, &[("owner", &sandbox.owner)]);
    for endpoint in &sandbox.endpoints {
        let network = world.model().networks.get(&endpoint.network).cloned();
        if let Some(network) = network {
            world.tell("network", "connect", &network.id, &network.name, &[("container", &sandbox.id)]);
        }
    }
    Ok(Arc::new(sandbox))
}

/// Everything of the record that takes nothing from anybody.
fn draft(world: &World, request: &CreateSandbox) -> Result<Sandbox> {
    let model = world.model();
    let mode = match &request.network_mode {
        NetworkMode::Bridge => Mode::Bridge,
        NetworkMode::None => Mode::None,
        NetworkMode::Host => Mode::Host,
        NetworkMode::Container(target) => Mode::Container(owner_of_namespace(world, target)?),
    };
    let mut links = Vec::with_capacity(request.links.len());
    for wanted in &request.links {
        let target = find::sandbox(model, &wanted.sandbox)?;
        let alias = wanted.alias.as_ref().map_or(&*target.name, |alias| &**alias);
        links.push(Link { sandbox: Arc::clone(&target.id), alias: alias.to_lowercase().into() });
    }
    let hostname = match (&mode, &request.hostname) {
        (Mode::Container(target), _) => {
            model.sandboxes.get(target).map_or_else(|| Arc::from(""), |target| Arc::clone(&target.hostname))
        }
        (Mode::Host, None) => Arc::from(&*world.config.node),
        (_, Some(hostname)) => Arc::from(&**hostname),
        (_, None) => Arc::from(&*request.name),
    };
    Ok(Sandbox {
        id: new_id(),
        name: Arc::from(&*request.name),
        created: SystemTime::now(),
        mode,
        netns: request.netns.clone().unwrap_or_else(|| world.config.netns_dir.join(&*request.name)),
        netns_identity: (0, 0),
        netns_is_ours: request.netns.is_none(),
        netns_cookie: 0,
        boot: if request.netns.is_some() { guests::boot() } else { "".into() },
        hostname,
        endpoints: Vec::new(),
        publishes: Vec::new(),
        exposes: request.expose.iter().map(PortRange::from).collect(),
        dns: DnsOptions {
            servers: request.dns.clone(),
            search: request.dns_search.iter().map(ToString::to_string).collect(),
            options: request.dns_options.iter().map(ToString::to_string).collect(),
        },
        extra_hosts: request.extra_hosts.iter().map(|host| (host.name.to_string(), host.address)).collect(),
        links,
        service: service::membership(world, request)?,
        labels: request.labels.clone(),
        owner: request.owner.as_deref().unwrap_or("cli").into(),
    })
}

/// `container:X` where X itself shares: the namespace is that of whom X shares with.
fn owner_of_namespace(world: &World, target: &Reference) -> Result<Id> {
    let target = find::sandbox(world.model(), target)?;
    match &target.mode {
        Mode::Container(owner) => Ok(Arc::clone(owner)),
        Mode::Bridge | Mode::None | Mode::Host => Ok(Arc::clone(&target.id)),
        Mode::Docker => {
            let detail = format!("sandbox {} is a container of Docker's", target.name);
            let remedy = "share it with `docker run --network container:NAME`";
            Err(ApiError::forbidden(detail).at("NetworkMode").remedy(remedy).into())
        }
    }
}

fn endpoints(
    world: &mut World,
    undo: &mut Undo,
    sandbox: &Sandbox,
    request: &CreateSandbox,
) -> Result<Vec<Endpoint>> {
    if sandbox.mode != Mode::Bridge {
        return Ok(Vec::new());
    }
    let mut attachments = request.networks.clone();
    attachments.extend(service::home(world, sandbox.service.as_ref(), &request.networks)?);
    if attachments.is_empty() {
        attachments.push(Attachment::to(DEFAULT.parse()?));
    }
    let owner = Owner { id: &sandbox.id, name: &sandbox.name, hostname: &sandbox.hostname };
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(attachments.len());
    for attachment in &attachments {
        let network = find::network(world.model(), &attachment.network)?;
        docker::keep_off(world, &network, "connect")?;
        if endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            let detail = format!("network {} is named twice", network.name);
            return Err(ApiError::invalid(detail).at("Networks").into());
        }
        let wish = Wish {
            aliases: &attachment.aliases,
            v4: attachment.ipv4_address,
            v6: attachment.ipv6_address,
            mac: attachment.mac_address,
            name: attachment.dns_name.as_ref(),
            bandwidth: attachment.bandwidth,
            owner: &sandbox.owner,
        };
        let interface = wire::interface(&endpoints, attachment.interface.as_ref())?;
        endpoints.push(wire::endpoint(world, undo, &network, &owner, interface, &wish)?);
    }
    Ok(endpoints)
}

/// Makes or opens the namespace. The directory comes first: it names the sandbox to the next start, should this one
/// end between here and the commit.
fn namespace(
    world: &World,
    undo: &mut Undo,
    sandbox: &mut Sandbox,
    request: &CreateSandbox,
) -> Result<Netns> {
    let directory = world.reconcile.directory(&sandbox.id);
    undo.push(Step::Directory(directory));
    world.reconcile.announce(sandbox)?;
    let netns = if request.netns.is_some() {
        let netns = check::given_path(&sandbox.netns)?;
        check::given_namespace(world, &netns, sandbox)?;
        sandbox.netns_cookie = netns.cookie()?;
        netns
    } else {
        undo.push(Step::Namespace(sandbox.netns.clone()));
        own_namespace(world, sandbox)?
    };
    sandbox.netns_identity = wire::identity(netns.id());
    Ok(netns)
}

pub(super) fn own_namespace(world: &World, sandbox: &Sandbox) -> Result<Netns> {
    let path: &PathBuf = &sandbox.netns;
    let shared = match &sandbox.mode {
        Mode::Bridge | Mode::None | Mode::Docker => return Ok(Netns::create_at(path)?),
        Mode::Host => Netns::current()?,
        Mode::Container(owner) => match world.model().sandboxes.get(owner) {
            Some(owner) => wire::open_netns(owner)?,
            None => return Err(ApiError::not_found(format!("the sandbox {owner} is gone")).into()),
        },
    };
    shared.bind_at(path)?;
    Ok(shared)
}

/// The loopback device, and every endpoint.
pub(super) fn attach_all(world: &mut World, undo: &mut Undo, sandbox: &Sandbox, netns: &Netns) -> Result<()> {
    if sandbox.endpoints.is_empty() {
        Rtnl::open_in(netns)?.transact(vec![link::up("lo")])?;
    }
    for endpoint in &sandbox.endpoints {
        let Some(network) = world.model().networks.get(&endpoint.network).cloned() else { continue };
        let gateways = wire::gateways(sandbox, endpoint, world.model());
        undo.push(Step::Link(endpoint.clone()));
        wire::attach(world, &network, endpoint, netns, gateways)?;
    }
    Ok(())
}

/// Opens what the data plane will serve for this sandbox, so that a clash fails the request and not the service.
pub(super) fn open_sockets(
    world: &mut World,
    undo: &mut Undo,
    sandbox: &Sandbox,
    netns: &Netns,
) -> Result<()> {
    let (view, listeners) = tables::served(sandbox, world.books.model());
    if listeners.values().any(|listener| listener.funnel.is_some()) {
        world.reconcile.prepare_steering(world.books.model())?;
    }
    for key in world.reconcile.open(view.as_ref(), &listeners, netns)? {
        undo.push(Step::Sockets(key));
    }
    Ok(())
}

/// Addresses of the cluster's networks are held in its store alone.
pub(super) fn with_leases(world: &World, mut txn: Txn, sandbox: &Id, endpoints: &[Endpoint]) -> Txn {
    let value = encode_lease(sandbox);
    let networks = &world.model().networks;
    let is_local = |endpoint: &&Endpoint| {
        networks.get(&endpoint.network).is_none_or(|network| network.scope() == Scope::Local)
    };
    for endpoint in endpoints.iter().filter(is_local) {
        for address in endpoint.addresses() {
            let key = lease_key(&endpoint.network, address);
            txn = txn.expect_absent(Arc::clone(&key)).put(key, Arc::clone(&value));
        }
    }
    txn
}

/// The sandbox, if nothing keeps it from being removed.
pub(super) fn removable(world: &World, wanted: &str, force: bool) -> Result<Arc<Sandbox>> {
    let sandbox = find::sandbox(world.model(), wanted)?;
    if sandbox.mode == Mode::Docker && !force {
        let detail = format!("sandbox {} is a container of Docker's", sandbox.name);
        let remedy =
            "use `docker network disconnect -f NETWORK CONTAINER`; --force if Docker knows it no more";
        return Err(ApiError::forbidden(detail).remedy(remedy).into());
    }
    let sharers: Vec<&str> = world
        .model()
        .sandboxes
        .by(&SandboxKey::Shares(Arc::clone(&sandbox.id)))
        .map(|other| &*other.name)
        .take(10)
        .collect();
    if !sharers.is_empty() && !force {
        let detail = format!("sandbox {} shares its namespace with {}", sandbox.name, sharers.join(", "));
        return Err(ApiError::conflict(detail).remedy("remove them first, or use --force").into());
    }
    Ok(sandbox)
}

pub(crate) fn remove(world: &mut World, wanted: &str, force: bool) -> Result<()> {
    let sandbox = removable(world, wanted, force)?;
    let errors = take_down(world, &sandbox)?;
    if errors.is_empty() {
        return Ok(());
    }
    let detail = format!("sandbox {} is removed, but something is left: {}", sandbox.name, errors.join("; "));
    Err(ApiError::kernel(detail).remedy("the next start of the daemon tries again").into())
}

/// For who knows what is to go and not what is there: a container's runtime, whose order may come twice, late, or for
/// what never was. The last network takes the sandbox along.
pub(crate) fn leave(world: &mut World, wanted: &str, request: &LeaveNetwork) -> Result<()> {
    let named = world.model().sandboxes.by(&SandboxKey::Name(wanted.into())).next();
    let Some(sandbox) = named.cloned() else { return Ok(()) };
    let is_meant = |endpoint: &&Endpoint| {
        let network = world.model().networks.get(&endpoint.network);
        network.is_some_and(|network| *network.name == *request.network)
            && *endpoint.interface == *request.interface
    };
    let Some(endpoint) = sandbox.endpoints.iter().find(is_meant) else { return Ok(()) };
    if sandbox.endpoints.len() == 1 {
        return remove(world, &sandbox.id, true);
    }
    let request = DisconnectSandbox { sandbox: sandbox.id.parse()? };
    super::network::disconnect(world, &endpoint.network, &request)
}

/// The record first, so that nothing leads here any more; then everything that can be removed, whatever fails.
pub(super) fn take_down(world: &mut World, sandbox: &Arc<Sandbox>) -> Result<Vec<String>> {
    let mut txn = Txn::default().delete(key_of::<Sandbox>(&sandbox.id));
    for endpoint in &sandbox.endpoints {
        for address in endpoint.addresses() {
            txn = txn.delete(lease_key(&endpoint.network, address));
        }
    }
    world.commit(&txn)?;
    let mut errors = Vec::new();
    for endpoint in &sandbox.endpoints {
        if let Some(network) = world.model().networks.get(&endpoint.network).cloned() {
            world.tell("network", "disconnect", &network.id, &network.name, &[("container", &sandbox.id)]);
        }
        if let Err(error) = world.kernel.detach(endpoint) {
            errors.push(Chain(&error).to_string());
        }
        if let Err(error) = overlay::absent_if_unused(world, &endpoint.network) {
            errors.push(error.to_string());
        }
        world.books.release(endpoint, &sandbox.id);
    }
    world.reconcile.disown_gone(world.books.model());
    publish::release_all(world, sandbox);
    if sandbox.netns_is_ours
        && let Err(error) = Netns::remove_at(&sandbox.netns)
    {
        errors.push(Chain(&error).to_string());
    }
    if let Err(error) = world.reconcile.forget_directory(&sandbox.id) {
        errors.push(error.to_string());
    }
    world.tell("sandbox", "destroy", &sandbox.id, &sandbox.name, &[("owner", &sandbox.owner)]);
    Ok(errors)
}
