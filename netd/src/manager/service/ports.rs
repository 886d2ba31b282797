//! Ports of the nodes that lead to a service: claimed in the table that all published ports are in, bound before the
//! record is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use netd_api::service::{Mode, ProxyProtocol as Version, PublishSpec, UpdateService};
use netd_api::{ApiError, Code};

use super::super::undo::{Step, Undo};
use super::super::{World, publish::taken};
use super::is_served;
use crate::error::{Fault, Result};
use crate::model::{ProxyProtocol, PublishMode, Scope, Service, ServicePublish};
use crate::ports::Owner;
use crate::steer;
use crate::tables::publish_id;

/// Free candidates that the kernel may refuse before the search is given up.
const ATTEMPTS: usize = 64;

/// Claims and binds all of them. Those that name a port come first.
pub(super) fn take(
    world: &mut World,
    undo: &mut Undo,
    service: &Service,
    wanted: &[PublishSpec],
) -> Result<Vec<ServicePublish>> {
    let mut held: Vec<ServicePublish> = service.publishes.clone();
    let mut specs: Vec<&PublishSpec> = wanted.iter().collect();
    specs.sort_by_key(|spec| spec.published_port.is_none());
    for spec in specs {
        let draft = draft(world, spec)?;
        if spec.published_port.is_some() && held.contains(&draft) {
            continue;
        }
        held.push(claim(world, undo, service, &draft)?);
    }
    Ok(held)
}

/// The published ports of an update.
pub(super) fn change(
    world: &mut World,
    undo: &mut Undo,
    before: &Service,
    request: &UpdateService,
) -> Result<Vec<ServicePublish>> {
    let mut kept = before.publishes.clone();
    for spec in &request.publish_remove {
        let (gone, rest): (Vec<ServicePublish>, Vec<ServicePublish>) =
            kept.into_iter().partition(|publish| is_meant(publish, spec));
        if gone.is_empty() {
            let published = spec.published_port.map(|port| format!("{port}:")).unwrap_or_default();
            let shown = format!("{published}{}/{}", spec.target_port, spec.protocol);
            let detail = format!("service {} does not publish {shown}", before.name);
            let remedy = format!("`netd service inspect {}` shows what it publishes", before.name);
            return Err(ApiError::not_found(detail).at("PublishRemove").remedy(remedy).into());
        }
        for publish in gone {
            world.ports.release(&before.id, &publish.as_publish());
            undo.push(Step::Reclaim { owner: Owner::from(before), publish: publish.as_publish() });
        }
        kept = rest;
    }
    let service = Service { publishes: kept, ..before.clone() };
    take(world, undo, &service, &request.publish_add)
}

fn is_meant(publish: &ServicePublish, spec: &PublishSpec) -> bool {
    publish.target == spec.target_port
        && publish.protocol == spec.protocol.into()
        && spec.published_port.is_none_or(|port| port == publish.published)
        && spec.host_ip.is_none_or(|address| publish.addresses.contains(&address))
}

fn draft(world: &World, spec: &PublishSpec) -> Result<ServicePublish> {
    for port in [Some(spec.target_port), spec.published_port].into_iter().flatten() {
        if port == 0 {
            return Err(ApiError::invalid("there is no port 0")
                .at("Publish")
                .remedy("use 1 to 65535")
                .into());
        }
    }
    let addresses = match spec.host_ip {
        Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            let detail = format!("{v6} is an IPv4 address in IPv6 dress");
            return Err(ApiError::invalid(detail).at("Publish").remedy("write the IPv4 address").into());
        }
        Some(address) => vec![address],
        None if world.config.publish_addresses.is_empty() => {
            vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        }
        None => world.config.publish_addresses.clone(),
    };
    Ok(ServicePublish {
        protocol: spec.protocol.into(),
        addresses,
        published: spec.published_port.unwrap_or(0),
        target: spec.target_port,
        mode: match spec.publish_mode {
            Mode::Ingress => PublishMode::Ingress,
            Mode::Host => PublishMode::Host,
        },
        proxy_protocol: spec.proxy_protocol.map(|version| match version {
            Version::V1 => ProxyProtocol::V1,
            Version::V2 => ProxyProtocol::V2,
        }),
    })
}

fn claim(
    world: &mut World,
    undo: &mut Undo,
    service: &Service,
    draft: &ServicePublish,
) -> Result<ServicePublish> {
    let candidates: Vec<u16> = match draft.published {
        0 => world.ports.ephemeral(draft.protocol, &draft.addresses, 1).take(ATTEMPTS).collect(),
        port => vec![port],
    };
    let owner = Owner::from(service);
    let mut refused = None;
    for published in candidates {
        let publish = ServicePublish { published, ..draft.clone() };
        world.ports.claim(&owner, &publish.as_publish()).map_err(|clash| {
            match clash.owner.id == service.id {
                true => published_already(service, &publish),
                false => taken(&clash),
            }
        })?;
        match bind(world, undo, service, &publish) {
            Ok(()) => {
                undo.push(Step::Port { sandbox: Arc::clone(&service.id), publish: publish.as_publish() });
                return Ok(publish);
            }
            Err(refusal) => {
                world.ports.release(&service.id, &publish.as_publish());
                match refusal {
                    Refusal::Fault(fault) => return Err(fault),
                    Refusal::Taken(error) => refused = Some(error),
                }
            }
        }
    }
    let none_free = || {
        ApiError::new(Code::Exhausted, "no host port is free: all of them are published already")
            .at("Publish")
    };
    Err(refused.unwrap_or_else(none_free).into())
}

/// By the service itself, in another way.
fn published_already(service: &Service, publish: &ServicePublish) -> ApiError {
    let shown = format!("{}/{}", publish.published, publish.protocol.as_str());
    let detail = format!("service {} publishes {shown} in two ways", service.name);
    ApiError::conflict(detail).at("Publish").remedy("leave one out, or take it away first (--publish-rm)")
}

enum Refusal {
    Fault(Fault),
    Taken(ApiError),
}

/// A port that no socket of this node serves yet is bound on trial.
fn bind(
    world: &mut World,
    undo: &mut Undo,
    service: &Service,
    publish: &ServicePublish,
) -> Result<(), Refusal> {
    let serves = is_served(service, publish.mode, world);
    // An address may be another node's, or wander from one to the next.
    let network = world.model().networks.get(&service.network);
    let is_of_all = network.is_some_and(|network| network.scope() == Scope::Shared);
    let mut sockets = Vec::new();
    for &address in &publish.addresses {
        let key = publish_id(&service.id, publish, address);
        if world.reconcile.holds(&key) {
            continue;
        }
        let workers = if serves { world.reconcile.workers() } else { 1 };
        let bound = match is_of_all {
            true => steer::bind_ahead(publish.protocol, address, publish.published, workers),
            false => steer::bind(publish.protocol, address, publish.published, 1, workers),
        };
        match bound {
            Ok(fds) => sockets.push((key, fds)),
            Err(error) if steer::is_clash(&error) => return Err(Refusal::Taken(in_use(publish, address))),
            Err(error) => return Err(Refusal::Fault(error.into())),
        }
    }
    for (key, fds) in sockets.into_iter().filter(|_| serves) {
        undo.push(Step::Sockets(Arc::clone(&key)));
        world.reconcile.hold_listener(key, fds);
    }
    Ok(())
}

fn in_use(publish: &ServicePublish, address: IpAddr) -> ApiError {
    let at = SocketAddr::new(address, publish.published);
    let by: Vec<String> =
        steer::holders(publish.protocol, &[at]).concat().iter().map(ToString::to_string).collect();
    let who = if by.is_empty() { String::new() } else { format!(": {}", by.join(", ")) };
    let protocol = publish.protocol.as_str();
    ApiError::conflict(format!("failed to bind host port {at}/{protocol}: another program has it{who}"))
        .at("Publish")
        .remedy(format!("`ss -lnp` shows which program; choose another host port than {at}"))
}
