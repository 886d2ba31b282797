//! Backends outside that are no outside at all: an address of a service, or a port that a service publishes on the nodes.
//! One service may lead to another; none may lead back to itself, as its connections would never meet anybody. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netd_api::ApiError;

use crate::error::{Fault, Result};
use crate::model::{Id, Model, Service, ServiceKey};

/// Refuses a service that leads to itself, straight or by way of others. `is_own`: an address of this host.
pub(super) fn check(
    service: &Service,
    model: &Model,
    mut is_own: impl FnMut(IpAddr) -> Result<bool>,
) -> Result<()> {
    let mut is_node =
        |ip: IpAddr| Ok(ip.is_loopback() || addresses(model).any(|own| own == ip) || is_own(ip)?);
    // Each with the place in the list of whom it was reached by.
    let mut reached: Vec<(&Service, Option<usize>)> = vec![(service, None)];
    let mut seen: BTreeSet<&Id> = BTreeSet::new();
    let mut at = 0;
    while let Some(&(from, _)) = reached.get(at) {
        for to in from.external.iter().map(|backend| backend.address) {
            if is_answered_by(service, to, &mut is_node)? {
                return Err(refusal(service, to, at, &reached));
            }
            for other in leading_on(service, model, to) {
                if is_answered_by(other, to, &mut is_node)? && seen.insert(&other.id) {
                    reached.push((other, Some(at)));
                }
            }
        }
        at += 1;
    }
    Ok(())
}

fn refusal(service: &Service, to: SocketAddr, last: usize, reached: &[(&Service, Option<usize>)]) -> Fault {
    let mut way: Vec<&str> = Vec::new();
    let mut at = last;
    while let Some(before) = reached[at].1 {
        way.insert(0, &reached[at].0.name);
        at = before;
    }
    let by = if way.is_empty() { String::new() } else { format!(", by way of {}", way.join(" and ")) };
    let detail = format!("{to} leads back to service {} itself{by}", service.name);
    ApiError::invalid(detail).at("Backends").remedy("name who answers there").into()
}

/// Other services of whom one may answer there, and that lead on: who leads nowhere leads nobody back.
fn leading_on<'a>(service: &Service, model: &'a Model, to: SocketAddr) -> impl Iterator<Item = &'a Service> {
    let of_address = model.services.by(&ServiceKey::Vip(to.ip()));
    let of_port = model.services.by(&ServiceKey::Publishes(to.port()));
    let others = of_address.chain(of_port).filter(|other| other.id != service.id);
    others.filter(|other| !other.external.is_empty()).map(|other| &**other)
}

fn is_answered_by(
    service: &Service,
    to: SocketAddr,
    is_node: &mut impl FnMut(IpAddr) -> Result<bool>,
) -> Result<bool> {
    let (ip, port) = (to.ip(), to.port());
    let has_port = service.ports.is_empty() || service.ports.iter().any(|own| own.port == port);
    if has_port && service.vips().any(|vip| vip == ip) {
        return Ok(true);
    }
    let is_at =
        |address: &IpAddr| *address == ip || (address.is_unspecified() && address.is_ipv4() == ip.is_ipv4());
    let is_published = service
        .publishes
        .iter()
        .any(|publish| publish.published == port && publish.addresses.iter().any(is_at));
    Ok(is_published && is_node(ip)?)
}

/// Of all nodes that live, or may.
fn addresses(model: &Model) -> impl Iterator<Item = IpAddr> {
    let here = model.nodes.get(&model.here).map(|node| node.place());
    let others = model.heard().map(|(_, place)| place);
    here.into_iter().chain(others).flat_map(|place| place.addresses)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ExternalBackend, Protocol, PublishMode, ServicePublish};
    use crate::testing;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn service(name: &str, vip: &str, published: u16, backends: &[&str]) -> Service {
        let mut service = testing::service(name, "net", vip);
        service.ports.clear();
        service.publishes = vec![ServicePublish {
            protocol: Protocol::Tcp,
            addresses: vec!["0.0.0.0".parse().expect("an address")],
            published,
            target: 80,
            mode: PublishMode::Ingress,
            proxy_protocol: None,
        }];
        let external =
            |text: &&str| ExternalBackend { address: text.parse().expect("an address"), weight: 1 };
        service.external = backends.iter().map(external).collect();
        service
    }

    fn refusal(service: &Service, others: &[Service]) -> Option<String> {
        let mut model = Model::default();
        for other in others {
            model.services.insert(Id::clone(&other.id), Arc::new(other.clone()));
        }
        check(service, &model, |ip| Ok(ip == HOST)).err().map(|fault| fault.to_string())
    }

    #[test]
    fn a_service_may_lead_to_another_and_not_to_itself() {
        let end = service("end", "10.0.0.1", 8001, &[]);
        let next = service("next", "10.0.0.2", 8002, &["10.0.0.1:80", "192.0.2.1:8001", "192.0.2.9:8002"]);
        assert_eq!(refusal(&next, &[end]), None);
        for itself in ["10.0.0.2:80", "192.0.2.1:8002", "127.0.0.1:8002"] {
            let said = refusal(&service("next", "10.0.0.2", 8002, &[itself]), &[]).expect(itself);
            assert!(said.contains(itself) && said.contains("service next itself"), "{said}");
        }
        assert_eq!(refusal(&service("next", "10.0.0.2", 8002, &["[::1]:8002"]), &[]), None, "IPv4 alone");
    }

    #[test]
    fn nor_by_way_of_others() {
        let first = service("first", "10.0.0.1", 8001, &["10.0.0.2:80"]);
        let second = service("second", "10.0.0.2", 8002, &["192.0.2.1:8003", "192.0.2.1:8001"]);
        let third = service("third", "10.0.0.3", 8003, &["10.0.0.1:80"]);
        let others = [first, second];
        let said = refusal(&third, &others).expect("a circle");
        assert!(said.contains("by way of first and second"), "{said}");
        // A circle of others is not its fault, and ends.
        assert_eq!(refusal(&service("next", "10.0.0.4", 8004, &["10.0.0.1:80"]), &others), None);
    }
}
