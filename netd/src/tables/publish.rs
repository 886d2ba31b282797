//! Published ports as services and listeners.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use netd_proxy::table::{
    Backend, BackendState, FunnelId, Listener, ListenerId, Place, Policy, Protocol, Service, ServiceId,
};

use super::client_address;
use super::gateway::gateway_endpoint;
use crate::ipam::Family;
use crate::model::{self, Model, Publish, PublishBy, Sandbox};

/// A sandbox accepts or refuses at once; one that is frozen should not hold clients for minutes.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As long as docker-proxy waits, which is what UDP services published so far were tried with.
pub(super) const UDP_IDLE: Duration = Duration::from_secs(90);
/// Per listener; the data plane bounds the sum over all of them by its descriptors.
pub(super) const CONNECTION_LIMIT: u32 = 16_384;

type Published = (BTreeMap<ServiceId, Service>, BTreeMap<ListenerId, Listener>);

/// Nothing while the sandbox is on internal networks only.
pub(super) fn of(sandbox: &Sandbox, model: &Model) -> Published {
    let mut services = BTreeMap::new();
    let mut listeners = BTreeMap::new();
    let v4 = gateway_endpoint(sandbox, model, Family::V4).and_then(|endpoint| endpoint.v4);
    let v6 = gateway_endpoint(sandbox, model, Family::V6).and_then(|endpoint| endpoint.v6);
    if v4.is_none() && v6.is_none() {
        return (services, listeners);
    }
    for publish in &sandbox.publishes {
        let (name, protocol) = (publish.protocol.as_str(), protocol(publish.protocol));
        for (host, target) in publish.pairs() {
            let id: ServiceId = format!("publish/{}/{name}/{target}", sandbox.id).into();
            services.entry(Arc::clone(&id)).or_insert_with(|| Service {
                id: Arc::clone(&id),
                label: format!("{}:{target}/{name}", sandbox.name).into(),
                policy: Policy::RoundRobin,
                backends: vec![Backend {
                    id: Arc::clone(&sandbox.id),
                    v4: v4.map(|(address, _)| SocketAddrV4::new(address, target)),
                    v6: v6.map(|(address, _)| SocketAddrV6::new(address, target, 0, 0)),
                    weight: 1,
                    state: BackendState::Ready,
                    place: Place::Here,
                }],
                connect_timeout: CONNECT_TIMEOUT,
                udp_idle: UDP_IDLE,
                // Its addresses are on the networks that it leaves by.
                leads_back: true,
                ..Service::default()
            });
            for &address in &publish.addresses {
                let listener = Listener {
                    id: listener_id(publish.protocol, address, host),
                    protocol,
                    address: SocketAddr::new(address, host),
                    service: Arc::clone(&id),
                    funnel: funnel(publish, address),
                    target_port: None,
                    proxy_protocol: None,
                    source: client_address::of(publish, sandbox, model),
                    limit: CONNECTION_LIMIT,
                };
                listeners.insert(Arc::clone(&listener.id), listener);
            }
        }
    }
    (services, listeners)
}

/// `tcp/0.0.0.0:8080`, `udp/[::]:53`: also the key under which the sockets are kept.
pub(crate) fn listener_id(protocol: model::Protocol, address: IpAddr, port: u16) -> ListenerId {
    format!("{}/{}", protocol.as_str(), SocketAddr::new(address, port)).into()
}

/// Through which its clients come, if the port is not bound.
fn funnel(publish: &Publish, address: IpAddr) -> Option<FunnelId> {
    match publish.by {
        PublishBy::Bind => None,
        PublishBy::Steer => Some(funnel_id(publish.protocol, address.is_ipv4())),
    }
}

/// `steer/tcp4`: also the key under which its sockets are kept.
pub(crate) fn funnel_id(protocol: model::Protocol, is_ipv4: bool) -> FunnelId {
    format!("steer/{}{}", protocol.as_str(), if is_ipv4 { 4 } else { 6 }).into()
}

pub(super) fn protocol(protocol: model::Protocol) -> Protocol {
    match protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
    }
}
