//! A service as the API shows it.

use std::net::IpAddr;

use netd_api::service::{self as api, EndpointMode, Health, HealthCheck};
use netd_api::value::{Affinity, HealthSpec};

use crate::dataplane::Stats;
use crate::model::{
    Answer, EastWest, EndpointState, HealthProbe, Model, ProxyProtocol, PublishMode, Service, ServicePolicy,
};
use crate::tables::{Member, members, service_id, service_id_here};

/// Without what the data plane alone knows: see [`connections`].
pub(crate) fn one(service: &Service, model: &Model) -> api::Service {
    let (vip, vip6) = match service.answer {
        Answer::Vip { v4, v6 } => (v4, v6),
        Answer::Dnsrr | Answer::Name(_) => (None, None),
    };
    let network = model.networks.get(&service.network);
    api::Service {
        name: service.name.to_string(),
        id: service.id.to_string(),
        created: service.created.into(),
        network: network.map_or_else(String::new, |network| network.name.to_string()),
        network_id: service.network.to_string(),
        vip,
        vip6,
        ports: ports(service),
        endpoint_mode: match service.answer {
            Answer::Vip { .. } => EndpointMode::Vip,
            Answer::Dnsrr => EndpointMode::Dnsrr,
            Answer::Name(_) => EndpointMode::ExternalName,
        },
        external_name: match &service.answer {
            Answer::Name(name) => Some(name.to_string()),
            Answer::Vip { .. } | Answer::Dnsrr => None,
        },
        policy: match service.policy {
            ServicePolicy::RoundRobin => api::Policy::RoundRobin,
            ServicePolicy::Weighted => api::Policy::Weighted,
            ServicePolicy::LeastConnections => api::Policy::LeastConnections,
            ServicePolicy::SourceHash => api::Policy::SourceHash,
            ServicePolicy::Maglev => api::Policy::Maglev,
        },
        affinity: service.affinity.map_or(Affinity::None, Affinity::ClientIp),
        health_check: service.health.as_ref().map(|check| HealthCheck {
            test: match &check.probe {
                HealthProbe::Tcp { port } => HealthSpec::Tcp { port: *port },
                HealthProbe::Http { port, path } => HealthSpec::Http { port: *port, path: path.to_string() },
            },
            interval: check.interval.into(),
            timeout: check.timeout.into(),
            rise: check.rise,
            fall: check.fall,
        }),
        drain: service.drain.map(Into::into),
        prefer_local: service.prefer_local,
        east_west: match service.east_west {
            EastWest::Relay => api::EastWest::Relay,
            EastWest::Connect => api::EastWest::Connect,
        },
        endpoints: members(service, model).iter().map(|member| endpoint(service, member)).collect(),
        labels: service.labels.clone(),
    }
}

fn ports(service: &Service) -> Vec<api::Port> {
    let own = service.ports.iter().map(|port| api::Port {
        name: port.name.as_ref().map(ToString::to_string),
        protocol: port.protocol.into(),
        target_port: port.target,
        port: Some(port.port),
        published_port: None,
        publish_mode: None,
        host_ips: Vec::new(),
        proxy_protocol: None,
    });
    let published = service.publishes.iter().map(|publish| api::Port {
        name: None,
        protocol: publish.protocol.into(),
        target_port: publish.target,
        port: None,
        published_port: Some(publish.published),
        publish_mode: Some(match publish.mode {
            PublishMode::Ingress => api::Mode::Ingress,
            PublishMode::Host => api::Mode::Host,
        }),
        host_ips: publish.addresses.clone(),
        proxy_protocol: publish.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => api::ProxyProtocol::V1,
            ProxyProtocol::V2 => api::ProxyProtocol::V2,
        }),
    });
    own.chain(published).collect()
}

fn endpoint(service: &Service, member: &Member) -> api::Endpoint {
    let address = match (member.port, member.addresses().next()) {
        (Some(_), _) => member.id.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    };
    api::Endpoint {
        id: member.id.to_string(),
        node: member.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        sandbox: member.sandbox.as_ref().map(ToString::to_string).unwrap_or_default(),
        address,
        ipv6_address: member
            .v6
            .filter(|v6| member.port.is_none() && member.addresses().next() != Some(IpAddr::V6(*v6))),
        state: match member.state {
            EndpointState::Starting => api::EndpointState::Starting,
            EndpointState::Ready => api::EndpointState::Ready,
            EndpointState::Draining => api::EndpointState::Draining,
            EndpointState::Leaving => api::EndpointState::Leaving,
            EndpointState::Failing => api::EndpointState::Failing,
        },
        since: member.since.map(Into::into),
        reason: member.why.as_ref().map(ToString::to_string),
        ejected: false,
        weight: member.weight,
        active_connections: 0,
        health: match member.state {
            _ if service.health.is_none() => Health::None,
            // One outside counts as ready until it is known; one that drains tells since when that is.
            EndpointState::Ready if member.port.is_some() && member.since.is_none() => Health::Starting,
            EndpointState::Starting => Health::Starting,
            EndpointState::Ready | EndpointState::Draining | EndpointState::Leaving => Health::Healthy,
            EndpointState::Failing => Health::Unhealthy,
        },
    }
}

/// Fills in what this node's data plane knows: how many connections each endpoint has, and whether it is passed over.
pub(crate) fn connections(service: &mut api::Service, stats: &Stats) {
    let id = service.id.as_str().into();
    let of_service = [service_id(&id), service_id_here(&id)];
    let found: Vec<_> = stats.services.iter().filter(|found| of_service.contains(&found.id)).collect();
    for endpoint in &mut service.endpoints {
        let open = found.iter().filter_map(|service| service.backends.get(endpoint.id.as_str()));
        endpoint.active_connections = open.fold(0, |sum, open| sum.saturating_add(*open));
        let mut known = found.iter().filter_map(|service| service.members.get(endpoint.id.as_str()));
        endpoint.ejected = known.any(|member| member.ejected);
    }
}
