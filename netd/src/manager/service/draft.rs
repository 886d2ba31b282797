//! From a request to a record, and what may not stand in one together. Pure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netd_api::ApiError;
use netd_api::service::{self as api, CreateService, EndpointMode, HealthWish, UpdateService};
use netd_api::value::{Affinity, BackendSpec, DrainSpec, HealthSpec, ServicePortSpec, Span};

use crate::error::Result;
use crate::model::{
    Answer, EastWest, ExternalBackend, HealthCheck, HealthProbe, Id, Network, Protocol, Service,
    ServicePolicy, ServicePort,
};
use crate::tables::usual_target;

/// Ports, published ports and external backends of one service, each.
const MOST: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
const QUICKEST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(3600);
const MOST_IN_A_ROW: u16 = 100;

/// Without addresses and published ports: those are taken from somebody.
pub(super) fn new(id: Id, name: Arc<str>, network: &Network, request: &CreateService) -> Result<Service> {
    let answer = match (&request.external_name, request.endpoint_mode) {
        (Some(name), _) => Answer::Name(Arc::from(&**name)),
        (None, EndpointMode::ExternalName) => return Err(no_external_name()),
        // The address comes later.
        (None, EndpointMode::Vip | EndpointMode::Dnsrr) => Answer::Dnsrr,
    };
    let has_vip = answer == Answer::Dnsrr && request.endpoint_mode == EndpointMode::Vip;
    if !has_vip && (request.vip.is_some() || request.vip6.is_some()) {
        return Err(no_vip());
    }
    let mut service = Service {
        id,
        name,
        created: SystemTime::now(),
        network: Arc::clone(&network.id),
        answer,
        policy: request.policy.into(),
        affinity: request.affinity.and_then(affinity),
        health: None,
        drain: request.drain.and_then(drain),
        prefer_local: request.prefer_local,
        east_west: request.east_west.into(),
        ports: Vec::new(),
        publishes: Vec::new(),
        external: Vec::new(),
        draining: std::collections::BTreeMap::new(),
        labels: request.labels.clone(),
    };
    add_ports(&mut service, &request.ports)?;
    add_backends(&mut service, &request.backends);
    service.health = health(None, &request.health)?;
    Ok(service)
}

/// As it is to be, but for the addresses and published ports. Its answer says whether it has an address.
pub(super) fn changed(before: &Service, network: &Network, request: &UpdateService) -> Result<Service> {
    let mut after = before.clone();
    after.answer = match (&request.external_name, request.endpoint_mode) {
        (Some(name), None | Some(EndpointMode::ExternalName)) => Answer::Name(Arc::from(&**name)),
        (Some(_), Some(_)) => {
            let detail = "a service is another name or has endpoints, not both";
            return Err(ApiError::invalid(detail).at("ExternalName").remedy("leave one out").into());
        }
        (None, Some(EndpointMode::ExternalName)) if !matches!(before.answer, Answer::Name(_)) => {
            return Err(no_external_name());
        }
        (None, Some(EndpointMode::Dnsrr)) => Answer::Dnsrr,
        (None, Some(EndpointMode::Vip)) if !matches!(before.answer, Answer::Vip { .. }) => {
            Answer::Vip { v4: None, v6: None }
        }
        (None, _) => before.answer.clone(),
    };
    if !matches!(after.answer, Answer::Vip { .. }) && (request.vip.is_some() || request.vip6.is_some()) {
        return Err(no_vip());
    }
    for given in &request.ports_remove {
        let gone = |port: &ServicePort| port.port == given.port && port.protocol == given.protocol.into();
        if !after.ports.iter().any(gone) {
            let detail = format!("service {} has no port {}/{}", before.name, given.port, given.protocol);
            return Err(ApiError::not_found(detail).at("PortsRemove").into());
        }
        after.ports.retain(|port| !gone(port));
    }
    add_ports(&mut after, &request.ports_add)?;
    for given in &request.backends_remove {
        if !after.external.iter().any(|backend| backend.address == given.address) {
            let detail = format!("service {} has no backend {}", before.name, given.address);
            return Err(ApiError::not_found(detail).at("BackendsRemove").into());
        }
        after.external.retain(|backend| backend.address != given.address);
        after.draining.remove(&*given.address.to_string());
    }
    add_backends(&mut after, &request.backends_add);
    after.health = health(before.health.as_ref(), &request.health)?;
    after.policy = request.policy.map_or(before.policy, Into::into);
    after.affinity = request.affinity.map_or(before.affinity, affinity);
    after.drain = request.drain.map_or(before.drain, drain);
    after.prefer_local = request.prefer_local.unwrap_or(before.prefer_local);
    after.east_west = request.east_west.map_or(before.east_west, Into::into);
    request.labels_remove.iter().for_each(|key| drop(after.labels.remove(key)));
    after.labels.extend(request.labels_add.clone());
    after.network = Arc::clone(&network.id);
    Ok(after)
}

fn add_ports(service: &mut Service, wanted: &[ServicePortSpec]) -> Result<()> {
    for spec in wanted {
        let port = ServicePort {
            name: spec.name.as_ref().map(|name| Arc::from(&**name)),
            protocol: spec.protocol.into(),
            port: spec.port,
            target: spec.target,
        };
        let same = |other: &&ServicePort| other.port == port.port && other.protocol == port.protocol;
        let other = service.ports.iter().find(same);
        if other.is_some_and(|other| *other == port) {
            continue;
        }
        let named = |other: &&ServicePort| {
            other.name.is_some() && other.name == port.name && other.protocol == port.protocol
        };
        if let Some(other) = other.or_else(|| service.ports.iter().find(named)) {
            let shown = format!("{}/{}", other.port, other.protocol.as_str());
            let detail = format!(
                "{spec} contradicts the port {shown} to {} of service {}",
                other.target, service.name
            );
            let remedy = "take that one away first, or choose another port and name";
            return Err(ApiError::conflict(detail).at("Ports").remedy(remedy).into());
        }
        service.ports.push(port);
    }
    Ok(())
}

fn add_backends(service: &mut Service, wanted: &[BackendSpec]) {
    for spec in wanted {
        let backend = ExternalBackend { address: spec.address, weight: spec.weight };
        match service.external.iter_mut().find(|other| other.address == spec.address) {
            Some(other) => *other = backend,
            None => service.external.push(backend),
        }
    }
}

fn drain(wanted: DrainSpec) -> Option<Duration> {
    match wanted {
        DrainSpec::None => None,
        DrainSpec::Within(span) => Some(span.get()),
    }
}

fn affinity(wanted: Affinity) -> Option<Duration> {
    match wanted {
        Affinity::None => None,
        Affinity::ClientIp(time) => Some(time),
    }
}

fn health(before: Option<&HealthCheck>, wish: &HealthWish) -> Result<Option<HealthCheck>> {
    let probe = match (&wish.test, before) {
        (Some(HealthSpec::None), _) => return Ok(None),
        (Some(HealthSpec::Tcp { port }), _) => HealthProbe::Tcp { port: *port },
        (Some(HealthSpec::Http { port, path }), _) => {
            HealthProbe::Http { port: *port, path: Arc::from(path.as_str()) }
        }
        (None, Some(before)) => before.probe.clone(),
        (None, None) if wish.is_empty() => return Ok(None),
        (None, None) => {
            let detail = "there is no health check to be made so";
            return Err(ApiError::invalid(detail).at("Health.Test").remedy("say which: --health").into());
        }
    };
    let asked =
        |wish: Option<Span>, before: Option<Duration>, usual| wish.map(Span::get).or(before).unwrap_or(usual);
    let (interval, timeout) = (before.map(|before| before.interval), before.map(|before| before.timeout));
    let (rise, fall) = (before.map(|before| before.rise), before.map(|before| before.fall));
    let check = HealthCheck {
        probe,
        interval: asked(wish.interval, interval, INTERVAL),
        timeout: asked(wish.timeout, timeout, TIMEOUT),
        rise: wish.rise.or(rise).unwrap_or(1),
        fall: wish.fall.or(fall).unwrap_or(2),
    };
    let bounds = format!("{} to {}", Span::from(QUICKEST), Span::from(SLOWEST));
    for (field, time) in [("Health.Interval", check.interval), ("Health.Timeout", check.timeout)] {
        if !(QUICKEST..=SLOWEST).contains(&time) {
            let shown = Span::from(time);
            let detail = format!("{shown} is not a time that a health check takes");
            return Err(ApiError::invalid(detail).at(field).remedy(format!("use {bounds}")).into());
        }
    }
    for (field, count) in [("Health.Rise", check.rise), ("Health.Fall", check.fall)] {
        if !(1..=MOST_IN_A_ROW).contains(&count) {
            let detail = format!("{count} answers in a row decide nothing");
            return Err(ApiError::invalid(detail)
                .at(field)
                .remedy(format!("use 1 to {MOST_IN_A_ROW}"))
                .into());
        }
    }
    Ok(Some(check))
}

/// What may not be together, whoever has put it there.
pub(super) fn check(service: &Service) -> Result<()> {
    let refuse = |field: &str, detail: String, remedy: &str| {
        Err(ApiError::invalid(detail).at(field).remedy(remedy).into())
    };
    let counts = [
        ("Ports", service.ports.len()),
        ("Publish", service.publishes.len()),
        ("Backends", service.external.len()),
    ];
    if let Some((field, count)) = counts.into_iter().find(|(_, count)| *count > MOST) {
        return refuse(
            field,
            format!("{count} are too many for one service"),
            &format!("leave it at {MOST}"),
        );
    }
    if let Answer::Name(name) = &service.answer {
        if **name == *service.name {
            let detail = format!("{name} would be another name for itself");
            return refuse("ExternalName", detail, "name what it is to lead to");
        }
        let given = [
            ("Ports", !service.ports.is_empty()),
            ("Publish", !service.publishes.is_empty()),
            ("Backends", !service.external.is_empty()),
            ("Health", service.health.is_some()),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            let detail = format!("a service that is another name for {name} has no endpoints");
            return refuse(field, detail, "leave it out, or leave out the external name");
        }
    }
    if let Some(why) = goes_not_straight(service) {
        return refuse("EastWest", why.into(), "use relay");
    }
    let probe = service.health.as_ref().map(|check| &check.probe);
    let asks_nowhere =
        matches!(probe, Some(HealthProbe::Tcp { port: None } | HealthProbe::Http { port: None, .. }));
    if asks_nowhere && usual_target(service) == 0 && service.external.is_empty() {
        let detail = "the service names no port that the check could ask".into();
        return refuse("Health.Test", detail, "name one, as tcp:8080 or http://:8080/health");
    }
    let headed = service
        .publishes
        .iter()
        .find(|publish| publish.proxy_protocol.is_some() && publish.protocol == Protocol::Udp);
    if let Some(publish) = headed {
        let detail = format!("{}/udp: the PROXY protocol stands before a TCP connection", publish.published);
        return refuse("Publish", detail, "leave it out");
    }
    let own = service.external.iter().find(|backend| service.vips().any(|vip| vip == backend.address.ip()));
    if let Some(backend) = own {
        let detail = format!("{} is the service's own address", backend.address);
        return refuse("Backends", detail, "name who answers there");
    }
    Ok(())
}

/// Why connections cannot go straight to an endpoint, though it was asked for.
fn goes_not_straight(service: &Service) -> Option<&'static str> {
    let by_turns = matches!(service.policy, ServicePolicy::RoundRobin | ServicePolicy::Weighted);
    if service.east_west == EastWest::Relay {
        None
    } else if !matches!(service.answer, Answer::Vip { .. }) {
        Some("only connections to a service's own address can go straight")
    } else if !by_turns {
        Some("the kernel picks an endpoint by turns or by weight alone")
    } else {
        (!service.external.is_empty()).then_some("the kernel leads nobody to backends outside")
    }
}

fn no_external_name() -> crate::error::Fault {
    let detail = "the name that the service stands for is missing";
    ApiError::invalid(detail).at("ExternalName").remedy("give it: --external-name NAME").into()
}

fn no_vip() -> crate::error::Fault {
    let detail = "a service has an address of its own in the endpoint mode vip only";
    ApiError::invalid(detail).at("VIP").remedy("leave it out, or use --endpoint-mode vip").into()
}

impl From<api::Policy> for ServicePolicy {
    fn from(policy: api::Policy) -> Self {
        match policy {
            api::Policy::RoundRobin => Self::RoundRobin,
            api::Policy::Weighted => Self::Weighted,
            api::Policy::LeastConnections => Self::LeastConnections,
            api::Policy::SourceHash => Self::SourceHash,
            api::Policy::Maglev => Self::Maglev,
        }
    }
}

impl From<api::EastWest> for EastWest {
    fn from(way: api::EastWest) -> Self {
        match way {
            api::EastWest::Relay => Self::Relay,
            api::EastWest::Connect => Self::Connect,
        }
    }
}
