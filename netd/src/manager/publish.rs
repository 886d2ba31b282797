//! Published ports: from what was asked for to ports that are free, bound and claimed. A host port is taken in this
//! order: ours (the table names the owner), then the kernel's (the bind finds everybody else), then the record. A port that is
//! steered is not bound: there the bind is a trial, and a runtime's reservation is passed by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use netd_api::ApiError;
use netd_api::sandbox::CreateSandbox;
use netd_api::value::{PortRange as Range, PortSpec};

use super::network::replace;
use super::undo::{Step, Undo};
use super::{World, find, wire};
use crate::dataplane::SocketKey;
use crate::error::{Fault, Result};
use crate::ipam::Family;
use crate::model::{Mode, PortRange, Protocol, Publish, PublishBy, Sandbox};
use crate::ports::{Clash, Owner};
use crate::steer::{self, Taken};
use crate::tables::{gateway_endpoint, listener_id};

/// Free candidates that the kernel may refuse before the search is given up.
const ATTEMPTS: usize = 64;

/// All that a new sandbox publishes. Fixed ports come before searched ones, so that a search does not take what the
/// same request names.
pub(super) fn resolve(
    world: &mut World,
    undo: &mut Undo,
    sandbox: &Sandbox,
    request: &CreateSandbox,
) -> Result<Vec<Publish>> {
    if sandbox.mode != Mode::Bridge {
        return Ok(Vec::new());
    }
    let mut specs = request.publish.clone();
    if request.publish_all {
        specs.extend(unnamed_exposes(sandbox, &request.publish)?);
    }
    specs.sort_by_key(|spec| !is_fixed(spec));
    let mut publishes = Vec::with_capacity(specs.len());
    for spec in &specs {
        publishes.push(take(world, undo, sandbox, spec, request.publish_by.into())?);
    }
    Ok(publishes)
}

fn is_fixed(spec: &PortSpec) -> bool {
    spec.host_ports().is_some() && !spec.takes_first_free()
}

/// `--publish-all`: every exposed port that no `--publish` leads to.
fn unnamed_exposes(sandbox: &Sandbox, named: &[PortSpec]) -> Result<Vec<PortSpec>> {
    let mut specs = Vec::new();
    for expose in &sandbox.exposes {
        for port in expose.first..=expose.last {
            let is_named = named.iter().any(|spec| {
                let ports = spec.container_ports();
                Protocol::from(spec.protocol()) == expose.protocol
                    && (ports.first()..=ports.last()).contains(&port)
            });
            if !is_named {
                let port = Range::new(port, port)?;
                specs.push(PortSpec::new(None, None, port, expose.protocol.into())?);
            }
        }
    }
    Ok(specs)
}

/// Claims and binds one publish.
fn take(
    world: &mut World,
    undo: &mut Undo,
    sandbox: &Sandbox,
    spec: &PortSpec,
    by: PublishBy,
) -> Result<Publish> {
    let protocol = Protocol::from(spec.protocol());
    let addresses = match spec.host_address() {
        Some(address) => vec![address],
        None if world.config.publish_addresses.is_empty() => {
            vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        }
        None => world.config.publish_addresses.clone(),
    };
    let wanted = Publish {
        protocol,
        addresses,
        first: 0,
        target: spec.container_ports().first(),
        count: spec.container_ports().count(),
        ephemeral: spec.host_ports().is_none(),
        by,
        client_address: world.config.client_address,
    };
    let candidates: Vec<u16> = match spec.host_ports() {
        Some(host) if spec.takes_first_free() => {
            world.ports.free(protocol, &wanted.addresses, host.first()..=host.last(), 1).collect()
        }
        Some(host) => vec![host.first()],
        None => world.ports.ephemeral(protocol, &wanted.addresses, wanted.count).take(ATTEMPTS).collect(),
    };
    let owner = Owner::from(sandbox);
    let serves = is_reachable(world, sandbox);
    let mut refused = None;
    for first in candidates {
        let publish = Publish { first, ..wanted.clone() };
        world.ports.claim(&owner, &publish).map_err(|clash| taken(&clash))?;
        let caught = match by {
            PublishBy::Bind => bind_all(world, &publish, serves),
            PublishBy::Steer if serves => steer_all(world, &publish).map(|()| Vec::new()),
            PublishBy::Steer => Ok(Vec::new()),
        };
        match caught {
            Ok(sockets) => {
                undo.push(Step::Port { sandbox: Arc::clone(&sandbox.id), publish: publish.clone() });
                for (key, fds) in sockets {
                    undo.push(Step::Sockets(Arc::clone(&key)));
                    world.reconcile.hold_listener(key, fds);
                }
                return Ok(publish);
            }
            Err(refusal) => {
                world.ports.release(&sandbox.id, &publish);
                match refusal {
                    Uncaught::Fault(fault) => return Err(fault),
                    Uncaught::Taken(by) => refused = Some(by),
                }
            }
        }
    }
    Err(none_free(spec, refused))
}

fn is_reachable(world: &World, sandbox: &Sandbox) -> bool {
    let model = world.model();
    [Family::V4, Family::V6].into_iter().any(|family| gateway_endpoint(sandbox, model, family).is_some())
}

/// A sandbox that only internal networks reach holds its ports without serving them.
fn bind_all(
    world: &World,
    publish: &Publish,
    serves: bool,
) -> Result<Vec<(SocketKey, Vec<OwnedFd>)>, Uncaught> {
    let mut sockets = Vec::new();
    for (port, _) in publish.pairs().filter(|_| serves) {
        for &address in &publish.addresses {
            let workers = world.reconcile.workers();
            let fds =
                steer::bind(publish.protocol, address, port, publish.count, workers).map_err(|error| {
                    if !steer::is_clash(&error) {
                        return Uncaught::Fault(error.into());
                    }
                    let at = SocketAddr::new(address, port);
                    Uncaught::Taken(Taken { at, by: steer::holders(publish.protocol, &[at]).concat() })
                })?;
            sockets.push((listener_id(publish.protocol, address, port), fds));
        }
    }
    Ok(sockets)
}

/// Ready to be steered: nobody serves there, whatever reservations there are.
fn steer_all(world: &mut World, publish: &Publish) -> Result<(), Uncaught> {
    let places = || {
        let ports = publish.pairs().map(|(port, _)| port);
        ports.flat_map(|port| publish.addresses.iter().map(move |&address| SocketAddr::new(address, port)))
    };
    let steering = world.reconcile.steering();
    let taken = steering.taken(publish.protocol, places()).map_err(|error| Uncaught::Fault(error.into()))?;
    if let Some(taken) = taken.into_iter().next() {
        return Err(Uncaught::Taken(taken));
    }
    world.reconcile.prepare_steering(world.books.model()).map_err(Uncaught::Fault)?;
    if world.reconcile.steering().has_room(places().count()) {
        return Ok(());
    }
    let error = ApiError::new(netd_api::Code::Exhausted, "no more ports can be steered")
        .at("Publish")
        .remedy("unpublish some; bound ports (`--publish-by bind`) do not count");
    Err(Uncaught::Fault(error.into()))
}

/// Why a port's traffic was not caught.
enum Uncaught {
    Fault(Fault),
    Taken(Taken),
}

pub(super) fn taken(clash: &Clash) -> ApiError {
    let name = &clash.owner.name;
    let remedy = match clash.owner.kind {
        "service" => {
            format!("choose another host port, or `netd service update {name} --publish-rm ...` first")
        }
        _ => format!("choose another host port, or `netd unpublish {name} ...` first"),
    };
    ApiError::conflict(format!("port is already allocated: {clash}")).at("Publish").remedy(remedy)
}

fn none_free(spec: &PortSpec, refused: Option<Taken>) -> Fault {
    let error = match refused {
        Some(Taken { at, by }) => {
            let protocol = spec.protocol();
            let by: Vec<String> = by.iter().map(ToString::to_string).collect();
            let who = if by.is_empty() { String::new() } else { format!(": {}", by.join(", ")) };
            ApiError::conflict(format!(
                "failed to bind host port {at}/{protocol}: another program has it{who}"
            ))
            .remedy(format!("`ss -lnp` shows which program; choose another host port than {at}"))
        }
        None => ApiError::new(
            netd_api::Code::Exhausted,
            format!("no host port is free for {spec}: all of them are published already"),
        )
        .remedy("`netd sandbox ls` shows by whom; widen the range"),
    };
    error.at("Publish").into()
}

/// Publishes one more port of a sandbox that runs.
pub(crate) fn publish(
    world: &mut World,
    wanted: &str,
    spec: &PortSpec,
    by: PublishBy,
) -> Result<Arc<Sandbox>> {
    super::guests::without_the_dead(world, |world| attempt(world, wanted, spec, by))
}

fn attempt(world: &mut World, wanted: &str, spec: &PortSpec, by: PublishBy) -> Result<Arc<Sandbox>> {
    let sandbox = changeable(world, wanted)?;
    let mut undo = Undo::default();
    let result = add(world, &mut undo, &sandbox, spec, by);
    undo.settle(world, result)
}

/// Of these, publishes what is not published yet, in one commit.
pub(super) fn add_all(
    world: &mut World,
    undo: &mut Undo,
    before: &Sandbox,
    specs: &[PortSpec],
) -> Result<()> {
    let is_there = |spec: &PortSpec| before.publishes.iter().any(|publish| is_meant(publish, spec));
    let mut missing: Vec<&PortSpec> = specs.iter().filter(|spec| !is_there(spec)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort_by_key(|spec| !is_fixed(spec));
    let mut after = before.clone();
    for spec in missing {
        after.publishes.push(take(world, undo, before, spec, PublishBy::Bind)?);
    }
    world.commit(&replace(world, &after)?).map(|_| ())
}

fn add(
    world: &mut World,
    undo: &mut Undo,
    before: &Sandbox,
    spec: &PortSpec,
    by: PublishBy,
) -> Result<Arc<Sandbox>> {
    let publish = take(world, undo, before, spec, by)?;
    let mut after = before.clone();
    after.publishes.push(publish);
    world.commit(&replace(world, &after)?)?;
    world.tell("sandbox", "publish", &after.id, &after.name, &[("port", &spec.to_string())]);
    Ok(Arc::new(after))
}

/// Closes what `spec` published: the host ports it names, or all that lead to its container ports.
pub(crate) fn unpublish(world: &mut World, wanted: &str, spec: &PortSpec) -> Result<Arc<Sandbox>> {
    let before = changeable(world, wanted)?;
    let (gone, kept): (Vec<Publish>, Vec<Publish>) =
        before.publishes.iter().cloned().partition(|publish| is_meant(publish, spec));
    if gone.is_empty() {
        let detail = format!("sandbox {} does not publish {spec}", before.name);
        let remedy = format!("`netd port {}` shows what it publishes", before.name);
        return Err(ApiError::not_found(detail).at("Port").remedy(remedy).into());
    }
    let after = Sandbox { publishes: kept, ..Sandbox::clone(&before) };
    world.commit(&replace(world, &after)?)?;
    for publish in &gone {
        world.ports.release(&after.id, publish);
    }
    world.tell("sandbox", "unpublish", &after.id, &after.name, &[("port", &spec.to_string())]);
    Ok(Arc::new(after))
}

fn is_meant(publish: &Publish, spec: &PortSpec) -> bool {
    let container = spec.container_ports();
    Protocol::from(spec.protocol()) == publish.protocol
        && container.first() == publish.target
        && container.count() == publish.count
        && spec.host_address().is_none_or(|address| publish.addresses.contains(&address))
        && spec.host_ports().is_none_or(|host| (host.first()..=host.last()).contains(&publish.first))
}

fn changeable(world: &World, wanted: &str) -> Result<Arc<Sandbox>> {
    let sandbox = find::sandbox(world.model(), wanted)?;
    if !matches!(sandbox.mode, Mode::Bridge | Mode::Docker) {
        let detail = format!("sandbox {} is on no network of its own to publish from", sandbox.name);
        return Err(ApiError::forbidden(detail)
            .remedy("publish from the sandbox that has the network")
            .into());
    }
    wire::open_netns(&sandbox)?;
    Ok(sandbox)
}

/// Gives back the ports of a sandbox that is gone; its sockets went with its record.
pub(super) fn release_all(world: &mut World, sandbox: &Sandbox) {
    for publish in &sandbox.publishes {
        world.ports.release(&sandbox.id, publish);
    }
}

impl From<netd_api::value::Protocol> for Protocol {
    fn from(protocol: netd_api::value::Protocol) -> Self {
        match protocol {
            netd_api::value::Protocol::Tcp => Self::Tcp,
            netd_api::value::Protocol::Udp => Self::Udp,
        }
    }
}

impl From<netd_api::value::PublishBy> for PublishBy {
    fn from(by: netd_api::value::PublishBy) -> Self {
        match by {
            netd_api::value::PublishBy::Bind => Self::Bind,
            netd_api::value::PublishBy::Steer => Self::Steer,
        }
    }
}

impl From<Protocol> for netd_api::value::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<&netd_api::value::ExposeSpec> for PortRange {
    fn from(expose: &netd_api::value::ExposeSpec) -> Self {
        Self { protocol: expose.protocol.into(), first: expose.ports.first(), last: expose.ports.last() }
    }
}
