//! Services: create, update, remove, drain. A service is a record, addresses of its own and ports of the host; who
//! answers for it are sandboxes that say so (`member`) and addresses outside.
//!
//! What others have written, on whatever node, takes the same road into the kernel as what was made here: [`follow`].

mod circle;
mod draft;
mod member;
mod ports;
mod show;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netd_api::service::{CreateService, DrainEndpoint, EndpointMode, UpdateService};
use netd_api::{ApiError, Code};

use super::undo::{Step, Undo};
use super::{World, docker, find, health, new_id};
use crate::error::{Chain, Result};
use crate::ipam::{Family, Holder};
use crate::model::{Answer, Change, Id, Network, PublishMode, Scope, Service, ServiceKey};
use crate::store::{Txn, encode, key_of};
use crate::tables::{Member, members};

pub(crate) use member::{Departure, Removal, begin_removal, begun_removals, finish_removal, leave};
pub(super) use member::{home, membership};
pub(crate) use show::{connections, one as show_one};

/// A drained endpoint that is gone is forgotten after this long: a node that was away for less finds it drained still.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// Times that other nodes may be faster.
const ATTEMPTS: usize = 16;

pub(crate) fn create(world: &mut World, request: &CreateService) -> Result<Arc<Service>> {
    patiently(world, |world| try_create(world, request))
}

fn try_create(world: &mut World, request: &CreateService) -> Result<Arc<Service>> {
    let network = place(world, &request.network)?;
    docker::keep_off(world, &network, "connect")?;
    let name: Arc<str> = Arc::from(&*request.name);
    if let Some(other) = world.model().services.by(&ServiceKey::Name(Arc::clone(&name))).next() {
        let detail = format!("the name {name} is in use by service {}", super::short(&other.id));
        let remedy = "remove that one, or choose another name";
        return Err(ApiError::conflict(detail).at("Name").remedy(remedy).into());
    }
    let mut service = draft::new(new_id(), name, &network, request)?;
    if network.scope() == Scope::Shared {
        world.books.as_member()?;
    }
    let mut undo = Undo::default();
    let result = make(world, &mut undo, &network, &mut service, request);
    undo.settle(world, result)?;
    Ok(Arc::new(service))
}

/// The network that it is to be on.
fn place(world: &World, wanted: &str) -> Result<Arc<Network>> {
    find::network(world.model(), wanted).map_err(|fault| {
        // Listed as networks, and none of them has an address to give.
        if !["host", "none"].contains(&wanted) {
            return fault;
        }
        let detail = format!("network {wanted} has no addresses, and no service can be on it");
        ApiError::invalid(detail).at("Network").remedy("name one that `netd network create` has made").into()
    })
}

fn make(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    service: &mut Service,
    request: &CreateService,
) -> Result<()> {
    let wanted = Wanted { v4: request.vip.map(IpAddr::V4), v6: request.vip6.map(IpAddr::V6) };
    if request.endpoint_mode == EndpointMode::Vip && service.answer == Answer::Dnsrr {
        service.answer = addresses(world, undo, network, service, &wanted)?;
    }
    service.publishes = ports::take(world, undo, service, &request.publish)?;
    draft::check(service)?;
    leads_on(world, service)?;
    begin(world, undo, network, service, &service.vips().collect::<Vec<_>>())?;
    commit(world, network, None, Some(service))
}

/// Addresses that were asked for by name.
#[derive(Default)]
struct Wanted {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// An address of each family that the network has.
fn addresses(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    service: &Service,
    wanted: &Wanted,
) -> Result<Answer> {
    let v4 = match lease(world, undo, network, service, Family::V4, wanted.v4)? {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => None,
    };
    let v6 = match lease(world, undo, network, service, Family::V6, wanted.v6)? {
        Some(IpAddr::V6(v6)) => Some(v6),
        _ => None,
    };
    Ok(Answer::Vip { v4, v6 })
}

fn lease(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    service: &Service,
    family: Family,
    wanted: Option<IpAddr>,
) -> Result<Option<IpAddr>> {
    let holder = Holder::service(service);
    if wanted.is_none() && !world.books.leases_of(&network.id)?.has(family) {
        return Ok(None);
    }
    let leases = world.books.leases_of(&network.id)?;
    let (address, _) = match wanted {
        Some(address) => leases.reserve(address, &holder)?,
        None => leases.lease_vip(family, &holder)?,
    };
    undo.push(Step::Lease { network: Arc::new(network.clone()), address, holder });
    Ok(Some(address))
}

/// What is led to a backend outside has to get there, and not come back.
fn leads_on(world: &mut World, service: &Service) -> Result<()> {
    let (model, rtnl) = (world.books.model(), &mut world.kernel.rtnl);
    circle::check(service, model, |ip| Ok(rtnl.way_to(ip)?.is_some_and(|way| way.is_local)))
}

/// The kernel's part of what is about to be served, so that what cannot be fails the request and not the service.
fn begin(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    service: &Service,
    new_vips: &[IpAddr],
) -> Result<()> {
    if service.vips().next().is_some() {
        world.reconcile.prepare_steering(world.books.model())?;
    }
    if !new_vips.is_empty() && world.model().is_here(&network.id) {
        undo.push(Step::Vips { network: network.clone(), vips: new_vips.to_vec() });
        world.kernel.put_vips(network, new_vips)?;
    }
    Ok(())
}

/// The point of no return. Of two nodes that want one address, name or port at once the slower one is refused.
fn commit(
    world: &mut World,
    network: &Network,
    before: Option<&Service>,
    after: Option<&Service>,
) -> Result<()> {
    let txn = world.books.put_service(network, before, after)?;
    let beaten = world.books.beaten();
    let committed = world.commit_to(network.scope(), &txn);
    if world.books.beaten() != beaten {
        world.books.search_elsewhere(&network.id);
    }
    committed.map(|_| ())
}

/// Does it again, with what the other has made in view, when the only reason against it may be that another node was
/// faster.
fn patiently<T>(world: &mut World, mut attempt: impl FnMut(&mut World) -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        let beaten = world.books.beaten();
        match attempt(world) {
            Err(fault) if fault.0.code == Code::Conflict && world.books.beaten() != beaten => {}
            done => return done,
        }
    }
    attempt(world)
}

/// All of it or nothing. What is so already costs no commit.
pub(crate) fn update(world: &mut World, wanted: &str, request: &UpdateService) -> Result<Arc<Service>> {
    patiently(world, |world| try_update(world, wanted, request))
}

fn try_update(world: &mut World, wanted: &str, request: &UpdateService) -> Result<Arc<Service>> {
    let before = find::service(world.model(), wanted)?;
    let network = network_of(world, &before)?;
    let mut undo = Undo::default();
    let result = change(world, &mut undo, &network, &before, request);
    let after = undo.settle(world, result)?;
    Ok(after)
}

fn change(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    before: &Arc<Service>,
    request: &UpdateService,
) -> Result<Arc<Service>> {
    let mut after = draft::changed(before, network, request)?;
    after.publishes = ports::change(world, undo, before, request)?;
    let wanted = Wanted { v4: request.vip.map(IpAddr::V4), v6: request.vip6.map(IpAddr::V6) };
    after.answer = answer(world, undo, network, before, &after, &wanted)?;
    forget_gone(world, &mut after);
    draft::check(&after)?;
    if after == **before {
        return Ok(Arc::clone(before));
    }
    leads_on(world, &after)?;
    let new: Vec<IpAddr> = after.vips().filter(|vip| !before.vips().any(|old| old == *vip)).collect();
    let gone: Vec<IpAddr> = before.vips().filter(|vip| !after.vips().any(|kept| kept == *vip)).collect();
    begin(world, undo, network, &after, &new)?;
    commit(world, network, Some(before), Some(&after))?;
    release(world, network, &after, &gone);
    Ok(Arc::new(after))
}

/// What its name leads to from now on; an address that is not asked to be another stays.
fn answer(
    world: &mut World,
    undo: &mut Undo,
    network: &Network,
    before: &Service,
    after: &Service,
    wanted: &Wanted,
) -> Result<Answer> {
    let Answer::Vip { v4, v6 } = after.answer else { return Ok(after.answer.clone()) };
    let Answer::Vip { .. } = before.answer else { return addresses(world, undo, network, after, wanted) };
    let mut moved = |family, wanted: Option<IpAddr>, held: Option<IpAddr>| match wanted {
        Some(wanted) if Some(wanted) != held => lease(world, undo, network, after, family, Some(wanted)),
        _ => Ok(held),
    };
    let v4 = match moved(Family::V4, wanted.v4, v4.map(IpAddr::V4))? {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => None,
    };
    let v6 = match moved(Family::V6, wanted.v6, v6.map(IpAddr::V6))? {
        Some(IpAddr::V6(v6)) => Some(v6),
        _ => None,
    };
    Ok(Answer::Vip { v4, v6 })
}

/// The sandboxes stay, as sandboxes that serve nobody.
pub(crate) fn remove(world: &mut World, wanted: &str) -> Result<()> {
    patiently(world, |world| {
        let service = find::service(world.model(), wanted)?;
        delete(world, &service)
    })
}

pub(super) fn delete(world: &mut World, service: &Arc<Service>) -> Result<()> {
    let network = network_of(world, service)?;
    let vips: Vec<IpAddr> = service.vips().collect();
    commit(world, &network, Some(service), None)?;
    release(world, &network, service, &vips);
    Ok(())
}

/// Those of the cluster's networks are free once its store says so.
fn release(world: &mut World, network: &Network, service: &Service, vips: &[IpAddr]) {
    for vip in vips.iter().filter(|_| network.scope() == Scope::Local) {
        world.books.unclaim(network, *vip, &Holder::service(service));
    }
}

/// No new connections to one endpoint, or some again.
pub(crate) fn drain(world: &mut World, wanted: &str, request: &DrainEndpoint) -> Result<Arc<Service>> {
    let before = find::service(world.model(), wanted)?;
    let member = find_member(world, &before, &request.endpoint)?;
    let mut after = Service::clone(&before);
    if request.undo {
        after.draining.remove(&member.id);
    } else if !after.draining.contains_key(&member.id) {
        after.draining.insert(Arc::clone(&member.id), SystemTime::now());
    }
    forget_gone(world, &mut after);
    if after == *before {
        return Ok(before);
    }
    let network = network_of(world, &after)?;
    world.commit_to(network.scope(), &replace(world, &network, &after)?)?;
    Ok(Arc::new(after))
}

/// By the sandbox's name or id, by the endpoint's id or its beginning, or by an external backend's address.
fn find_member(world: &World, service: &Service, wanted: &str) -> Result<Member> {
    let model = world.model();
    let members = members(service, model);
    let of_sandbox = find::sandbox(model, wanted).ok().and_then(|sandbox| {
        let endpoint = sandbox.endpoints.iter().find(|endpoint| endpoint.network == service.network)?;
        Some(Arc::clone(&endpoint.id))
    });
    let peers = model.peers.values().filter(|peer| peer.service.as_ref() == Some(&service.id));
    let of_peer = peers
        .filter(|peer| *peer.sandbox_name == *wanted || *peer.sandbox == *wanted)
        .map(|peer| &peer.endpoint);
    let named: Vec<&Id> = of_sandbox.iter().chain(of_peer).collect();
    let mut found = members.iter().filter(|member| named.contains(&&member.id));
    if let Some(member) = found.next() {
        return Ok(member.clone());
    }
    let mut begins = members.iter().filter(|member| !wanted.is_empty() && member.id.starts_with(wanted));
    let remedy = format!("`netd service inspect {}` shows its endpoints", service.name);
    match (begins.next(), begins.next()) {
        (Some(member), None) => Ok(member.clone()),
        (None, _) => {
            let detail = format!("service {} has no endpoint {wanted:?}", service.name);
            Err(ApiError::not_found(detail).at("Endpoint").remedy(remedy).into())
        }
        (Some(_), Some(_)) => {
            let detail = format!("more than one endpoint of {} begins with {wanted:?}", service.name);
            Err(ApiError::invalid(detail).at("Endpoint").remedy(remedy).into())
        }
    }
}

fn forget_gone(world: &World, service: &mut Service) {
    let there: Vec<Arc<str>> = members(service, world.model()).into_iter().map(|member| member.id).collect();
    let is_fresh = |since: &SystemTime| since.elapsed().is_ok_and(|age| age < REMEMBERED);
    service.draining.retain(|id, since| there.contains(id) || is_fresh(since));
}

fn network_of(world: &World, service: &Service) -> Result<Arc<Network>> {
    let network = world.model().networks.get(&service.network).cloned();
    network
        .ok_or_else(|| ApiError::not_found(format!("the network of service {} is gone", service.name)).into())
}

/// Puts the service's new record in the place of the one that was read.
fn replace(world: &World, network: &Network, after: &Service) -> Result<Txn> {
    let key = key_of::<Service>(&after.id);
    Ok(world.books.revise(network.scope(), &key).put(key, encode(after)?))
}

/// Carries committed services into what is not a table: the host's addresses, the ports that are held, and the
/// sandboxes that served one that is gone.
pub(super) fn follow(world: &mut World, changes: &[Change]) {
    for change in changes {
        let Change::Service { before, after } = change else { continue };
        world.ports.follow_service(before.as_deref(), after.as_deref());
        if let Some(service) = before {
            health::forget(world, &service.id, after.as_deref());
        }
        let of = |service: &Option<Arc<Service>>| -> Vec<IpAddr> {
            service.iter().flat_map(|service| service.vips()).collect()
        };
        let (old, new) = (of(before), of(after));
        let Some(service) = after.as_ref().or(before.as_ref()) else { continue };
        let network = world.model().networks.get(&service.network).cloned();
        if let Some(network) = network.filter(|network| old != new && world.model().is_here(&network.id)) {
            let gone: Vec<IpAddr> = old.iter().filter(|vip| !new.contains(vip)).copied().collect();
            let removed = world.kernel.remove_vips(&network, &gone);
            if let Err(error) = removed.and_then(|()| world.kernel.put_vips(&network, &new)) {
                tracing::error!(service = %service.name, error = %Chain(&error), "cannot change its addresses");
            }
        }
        // What other nodes have made may be back: whoever serves what is not there serves nobody meanwhile.
        let scope = world.model().networks.get(&service.network).map(|network| network.scope());
        if after.is_none() && scope == Some(Scope::Local) {
            member::dismiss(world, service);
        }
    }
}

/// Gives a network's bridge the addresses of its services, and takes off what earlier ones have left.
pub(super) fn repair(world: &mut World, network: &Network) -> Result<()> {
    let vips = world.model().vips_on(&network.id);
    Ok(world.kernel.sync_vips(network, &vips)?)
}

/// Names of the services on a network, some of them.
pub(super) fn on(world: &World, network: &Network) -> Vec<Arc<str>> {
    let services = world.model().services.by(&ServiceKey::On(Arc::clone(&network.id)));
    services.map(|service| Arc::clone(&service.name)).take(10).collect()
}

/// Whether a published port is served on this node now.
fn is_served(service: &Service, mode: PublishMode, world: &World) -> bool {
    let here = |member: &Member| member.node.as_ref() == Some(&world.model().here);
    mode == PublishMode::Ingress || members(service, world.model()).iter().any(here)
}
