//! A service as the data plane serves it: who answers, where clients come in, and what its names lead to.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use netd_dns::table::Srv;
use netd_proxy::table::{
    self as proxy, Backend, BackendState, Check, Listener, ListenerId, Place, Policy, Probe, ServiceId,
    Source,
};

use super::client_address;
use super::members::{Member, members, usable};
use super::part::{Held, NameKey, Part};
use super::publish::{CONNECT_TIMEOUT, CONNECTION_LIMIT, UDP_IDLE, funnel_id, listener_id, protocol};
use crate::model::{
    Answer, EndpointState, HealthCheck, HealthProbe, Id, Model, Protocol, ProxyProtocol, PublishMode,
    Service, ServicePolicy, ServicePublish,
};

/// `service/<id>`: all its backends.
pub(crate) fn service_id(service: &Id) -> ServiceId {
    format!("service/{service}").into()
}

/// `service/<id>/here`: those on this node.
pub(crate) fn service_id_here(service: &Id) -> ServiceId {
    format!("service/{service}/here").into()
}

/// One published port on one address. The service is part of it: of two services that nodes of a cluster have
/// published on one port at the same moment, the second is refused by the kernel and not taken for the first.
pub(crate) fn publish_id(service: &Id, publish: &ServicePublish, address: IpAddr) -> ListenerId {
    let place = listener_id(publish.protocol, address, publish.published);
    format!("publish/{}/{place}", service.get(..12).unwrap_or(service)).into()
}

pub(super) fn of(service: &Service, model: &Model) -> Part {
    let members = members(service, model);
    let mut part = Part::empty(Arc::clone(&service.id));
    part.names = names(service, &members, model);
    if matches!(service.answer, Answer::Name(_)) {
        return part;
    }
    let all = balanced(service, &members, model);
    let listeners = vip_listeners(service, &members, model);
    part.listeners.extend(listeners.map(|listener| (Arc::clone(&listener.id), listener)));
    let here: Vec<Member> = members.iter().filter(|member| member.place == Place::Here).cloned().collect();
    for publish in &service.publishes {
        let to = match publish.mode {
            PublishMode::Ingress => service_id(&service.id),
            PublishMode::Host if here.is_empty() => continue,
            PublishMode::Host => service_id_here(&service.id),
        };
        for &address in &publish.addresses {
            let listener = published(service, publish, address, &to, model);
            part.listeners.insert(Arc::clone(&listener.id), listener);
        }
    }
    if part.listeners.values().any(|listener| listener.service == service_id_here(&service.id)) {
        let local = proxy::Service {
            id: service_id_here(&service.id),
            label: format!("{} (host)", service.name).into(),
            // The whole service asks them already; what it finds comes in by their states.
            health: None,
            ..balanced(service, &here, model)
        };
        part.services.insert(Arc::clone(&local.id), local);
    }
    part.services.insert(Arc::clone(&all.id), all);
    part
}

/// The port of a backend for whoever does not name one: health checks, and a service of one port.
pub(crate) fn usual_target(service: &Service) -> u16 {
    let declared = service.ports.first().map(|port| port.target);
    declared.or_else(|| service.publishes.first().map(|publish| publish.target)).unwrap_or(0)
}

fn balanced(service: &Service, members: &[Member], model: &Model) -> proxy::Service {
    let target = usual_target(service);
    proxy::Service {
        id: service_id(&service.id),
        label: Arc::clone(&service.name),
        policy: match service.policy {
            ServicePolicy::RoundRobin => Policy::RoundRobin,
            ServicePolicy::Weighted => Policy::Weighted,
            ServicePolicy::LeastConnections => Policy::LeastOpen,
            ServicePolicy::SourceHash => Policy::SourceHash,
            ServicePolicy::Maglev => Policy::Maglev,
        },
        backends: members.iter().map(|member| backend(member, target)).collect(),
        connect_timeout: CONNECT_TIMEOUT,
        udp_idle: UDP_IDLE,
        affinity: service.affinity,
        prefer_local: service.prefer_local,
        health: service.health.as_ref().map(check),
        drain: service.drain,
        leads_back: client_address::leads_back(service, model),
    }
}

fn backend(member: &Member, target: u16) -> Backend {
    let port = member.port.unwrap_or(target);
    Backend {
        id: Arc::clone(&member.id),
        v4: member.v4.map(|address| SocketAddrV4::new(address, port)),
        v6: member.v6.map(|address| SocketAddrV6::new(address, port, 0, 0)),
        weight: member.weight,
        state: match member.state {
            EndpointState::Starting => BackendState::Starting,
            EndpointState::Ready => BackendState::Ready,
            EndpointState::Draining => BackendState::Draining,
            EndpointState::Leaving => BackendState::Leaving,
            EndpointState::Failing => BackendState::Failing,
        },
        place: member.place,
    }
}

fn check(check: &HealthCheck) -> Check {
    Check {
        probe: match &check.probe {
            HealthProbe::Tcp { port } => Probe::Tcp { port: *port },
            HealthProbe::Http { port, path } => Probe::Http { port: *port, path: Arc::clone(path) },
        },
        interval: check.interval,
        timeout: check.timeout,
        rise: check.rise,
        fall: check.fall,
    }
}

/// None while nobody could answer, so that the kernel refuses at once. While somebody leaves who was the last, clients that
/// were let in may still be in the backlog: the kernel refuses new ones (`steer`), and these are led to it.
fn vip_listeners<'a>(
    service: &'a Service,
    members: &[Member],
    model: &Model,
) -> impl Iterator<Item = Listener> + 'a {
    let leaves = |member: &Member| member.state == EndpointState::Leaving;
    let is_served = usable(members).next().is_some() || members.iter().any(leaves);
    let (v4, v6) = match service.answer {
        Answer::Vip { v4, v6 } if model.is_here(&service.network) && is_served => (v4, v6),
        _ => (None, None),
    };
    let addresses = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
    addresses.flat_map(move |address| {
        let declared = service.ports.iter().map(move |port| (port.protocol, port.port, Some(port.target)));
        let every = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, 0, None));
        let every = every.into_iter().filter(|_| service.ports.is_empty());
        declared.chain(every).map(move |(protocol, port, target_port)| Listener {
            funnel: Some(funnel_id(protocol, address.is_ipv4())),
            target_port,
            ..listener(
                listener_id(protocol, address, port),
                protocol,
                (address, port),
                &service_id(&service.id),
            )
        })
    })
}

fn published(
    service: &Service,
    publish: &ServicePublish,
    address: IpAddr,
    to: &ServiceId,
    model: &Model,
) -> Listener {
    let id = publish_id(&service.id, publish, address);
    Listener {
        target_port: Some(publish.target),
        // A header says it where one is wanted.
        source: match publish.proxy_protocol {
            Some(_) => Source::Own,
            None => client_address::of_service(service, model),
        },
        proxy_protocol: publish.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => proxy::ProxyProtocol::V1,
            ProxyProtocol::V2 => proxy::ProxyProtocol::V2,
        }),
        ..listener(id, publish.protocol, (address, publish.published), to)
    }
}

fn listener(id: ListenerId, carried: Protocol, at: (IpAddr, u16), service: &ServiceId) -> Listener {
    Listener {
        id,
        protocol: protocol(carried),
        address: SocketAddr::from(at),
        service: Arc::clone(service),
        funnel: None,
        target_port: None,
        proxy_protocol: None,
        source: Source::Own,
        limit: CONNECTION_LIMIT,
    }
}

fn names(service: &Service, members: &[Member], model: &Model) -> BTreeMap<NameKey, Held> {
    let mut names = BTreeMap::new();
    if !model.networks.get(&service.network).is_some_and(|network| network.resolves) {
        return names;
    }
    let own: Arc<str> = service.name.to_lowercase().into();
    let mut put = |name: Arc<str>, held: Held| {
        names.insert((Arc::clone(&service.network), name), held);
    };
    let held = |addresses| Held { of_service: true, ..Held::new(service.created, addresses) };
    if let Answer::Name(alias) = &service.answer {
        put(own, Held { alias: Some(Arc::clone(alias)), ..held(Vec::new()) });
        return names;
    }
    let endpoints: Vec<IpAddr> = usable(members).flat_map(Member::addresses).collect();
    for port in &service.ports {
        let Some(name) = &port.name else { continue };
        let name = format!("_{name}._{}.{own}", port.protocol.as_str()).to_lowercase();
        let srv = match service.answer {
            Answer::Dnsrr => usable(members).filter_map(|member| at_endpoint(member, port.target)).collect(),
            _ => vec![Srv { priority: 0, weight: 0, port: port.port, target: Arc::clone(&own) }],
        };
        put(name.into(), Held { srv, ..held(Vec::new()) });
    }
    put(format!("tasks.{own}").into(), held(endpoints.clone()));
    match service.answer {
        Answer::Vip { v4, v6 } => {
            let addresses = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).collect();
            put(own, Held { primary: true, ..held(addresses) });
        }
        _ => put(own, held(endpoints)),
    }
    names
}

fn at_endpoint(member: &Member, target: u16) -> Option<Srv> {
    let port = member.port.unwrap_or(target);
    Some(Srv { priority: 0, weight: member.weight, port, target: member.name.clone()? })
}
