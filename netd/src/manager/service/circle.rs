//! Backends outside that are no outside at all: an address of a service, or a port that a service publishes on the nodes.
//! One service may lead to another; none may lead back to itself, as its connections would never meet anybody. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netd_api::ApiError;

use crate::error::{Fault, Result};
use crate::model::{Id, Model, Service};

/// Refuses a service that leads to itself, straight or by way of others. `own`: addresses of this host.
pub(super) fn check(service: &Service, model: &Model, own: &[IpAddr]) -> Result<()> {
    if service.external.is_empty() {
        return Ok(());
    }
    let nodes: BTreeSet<IpAddr> = own.iter().copied().chain(addresses(model)).collect();
    let others = Others::of(service, model);
    // Each with the place in the list of whom it was reached by.
    let mut reached: Vec<(&Service, Option<usize>)> = vec![(service, None)];
    let mut seen: BTreeSet<&Id> = BTreeSet::new();
    let mut at = 0;
    while let Some(&(from, _)) = reached.get(at) {
        for to in from.external.iter().map(|backend| backend.address) {
            if is_answered_by(service, to, &nodes) {
                return Err(refusal(service, to, at, &reached));
            }
            let next = others.at(to).filter(|other| is_answered_by(other, to, &nodes));
            let new: Vec<&Service> = next.filter(|other| seen.insert(&other.id)).collect();
            reached.extend(new.into_iter().map(|other| (other, Some(at))));
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

/// Services that lead on: who leads nowhere leads nobody back.
struct Others<'a> {
    by_address: BTreeMap<IpAddr, Vec<&'a Service>>,
    by_port: BTreeMap<u16, Vec<&'a Service>>,
}

impl<'a> Others<'a> {
    fn of(service: &Service, model: &'a Model) -> Self {
        let mut others = Self { by_address: BTreeMap::new(), by_port: BTreeMap::new() };
        for other in model.services.values().filter(|other| other.id != service.id) {
            if other.external.is_empty() {
                continue;
            }
            other.vips().for_each(|vip| others.by_address.entry(vip).or_default().push(other));
            for publish in &other.publishes {
                others.by_port.entry(publish.published).or_default().push(other);
            }
        }
        others
    }

    /// Those of whom one may answer there.
    fn at(&self, to: SocketAddr) -> impl Iterator<Item = &'a Service> {
        let of_address = self.by_address.get(&to.ip()).into_iter().flatten();
        of_address.chain(self.by_port.get(&to.port()).into_iter().flatten()).copied()
    }
}

fn is_answered_by(service: &Service, to: SocketAddr, nodes: &BTreeSet<IpAddr>) -> bool {
    let (ip, port) = (to.ip(), to.port());
    let has_port = service.ports.is_empty() || service.ports.iter().any(|own| own.port == port);
    if has_port && service.vips().any(|vip| vip == ip) {
        return true;
    }
    let is_node = ip.is_loopback() || nodes.contains(&ip);
    let is_at =
        |address: &IpAddr| *address == ip || (address.is_unspecified() && address.is_ipv4() == ip.is_ipv4());
    is_node
        && service
            .publishes
            .iter()
            .any(|publish| publish.published == port && publish.addresses.iter().any(is_at))
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
        check(service, &model, &[HOST]).err().map(|fault| fault.to_string())
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
