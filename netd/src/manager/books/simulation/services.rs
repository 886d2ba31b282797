//! Services in the simulated cluster: made, published, unpublished and removed by nodes that look at what they know, which
//! may be old. At no moment do two share a name, an address or a port, and no key of a service is without its record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::World;
use crate::ipam::{Family, Holder};
use crate::manager::books::Books;
use crate::model::{Answer, Id, Lease, LeaseHolder, Network, Protocol, PublishMode, Service, ServicePublish};
use crate::store::key_of;
use crate::testing;

const NAMES: u32 = 7;
const PORTS: [u16; 3] = [80, 443, 8080];

impl World {
    pub(super) fn make_service(&mut self, host: usize) {
        let name = format!("v{}", self.random_below(NAMES));
        let (pick, port) = (self.random_below(64) as usize, self.some_port());
        self.made += 1;
        let id: Id = format!("service{}", self.made).into();
        let Some(books) = &mut self.hosts[host].books else { return };
        let Some(network) = some(books.model().networks.values(), pick) else { return };
        let is_taken = books.model().services.values().any(|service| *service.name == *name);
        if is_taken || publishes(books, port, None) {
            return;
        }
        let mut service = testing::service(&name, &network.id, "");
        (service.id, service.publishes) = (id, vec![publish(port)]);
        let holder = Holder::service(&service);
        let Ok(leases) = books.leases_of(&network.id) else { return };
        let Ok((IpAddr::V4(vip), _)) = leases.lease_vip(Family::V4, &holder) else { return };
        service.answer = Answer::Vip { v4: Some(vip), v6: None };
        let made = books.put_service(&network, None, Some(&service));
        if made.is_ok_and(|txn| books.commit_shared(&txn).is_err()) {
            books.unclaim(&network, vip.into(), &holder);
            books.search_elsewhere(&network.id);
        }
        self.may_crash(host);
    }

    /// With one port less, one more, or none of it.
    pub(super) fn change_service(&mut self, host: usize) {
        let (pick, port, ends) = (self.random_below(64) as usize, self.some_port(), self.one_in(3));
        let Some(books) = &mut self.hosts[host].books else { return };
        let Some(before) = some(books.model().services.values(), pick) else { return };
        let Some(network) = books.model().networks.get(&before.network).cloned() else { return };
        let mut after = Service::clone(&before);
        match after.publishes.iter().position(|publish| publish.published == port) {
            Some(place) => drop(after.publishes.remove(place)),
            None if publishes(books, port, Some(&before.id)) => return,
            None => after.publishes.push(publish(port)),
        }
        let after = (!ends).then_some(&after);
        if let Ok(txn) = books.put_service(&network, Some(&before), after) {
            let _ = books.commit_shared(&txn);
        }
        self.may_crash(host);
    }

    pub(super) fn check_services(&self) {
        let services: Vec<Service> = self.records().into_values().collect();
        let leases: BTreeMap<Arc<str>, Lease> = self.records();
        let keys: Vec<Arc<str>> = self.sea.entries().into_iter().map(|entry| entry.key).collect();
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        let mut vips: BTreeSet<Arc<str>> = BTreeSet::new();
        for service in &services {
            assert!(names.insert(format!("service-name/{}", service.name)), "two are named {}", service.name);
            for publish in &service.publishes {
                let port = publish.published;
                assert!(ports.insert(format!("port/tcp/{port}")), "two publish {port}");
            }
            for vip in service.vips() {
                let key = crate::store::lease_key(&service.network, vip);
                let holder = LeaseHolder::Service(Arc::clone(&service.id));
                assert!(leases.get(&key).is_some_and(|lease| lease.holder == holder), "{key} is held");
                assert!(vips.insert(key), "two have {vip}");
            }
            let network = key_of::<Network>(&service.network);
            assert!(keys.contains(&network), "{} is on a network that is gone", service.name);
        }
        let of_services = leases.values().filter(|lease| !lease.is_of_sandbox()).count();
        assert_eq!(of_services, vips.len(), "addresses of services that are not there");
        let there = |prefix: &str| -> BTreeSet<String> {
            keys.iter().filter(|key| key.starts_with(prefix)).map(ToString::to_string).collect()
        };
        assert_eq!(there("service-name/"), names);
        assert_eq!(there("port/"), ports);
    }

    fn some_port(&mut self) -> u16 {
        PORTS[self.random_below(3) as usize]
    }
}

fn some<'a, T: 'a>(all: impl Iterator<Item = &'a Arc<T>>, pick: usize) -> Option<Arc<T>> {
    let all: Vec<&Arc<T>> = all.collect();
    all.get(pick % all.len().max(1)).map(|one| Arc::clone(one))
}

fn publishes(books: &Books, port: u16, but: Option<&Id>) -> bool {
    let mut others = books.model().services.values().filter(|service| Some(&service.id) != but);
    others.any(|service| service.publishes.iter().any(|publish| publish.published == port))
}

fn publish(port: u16) -> ServicePublish {
    ServicePublish {
        protocol: Protocol::Tcp,
        addresses: vec![Ipv4Addr::UNSPECIFIED.into()],
        published: port,
        target: 80,
        mode: PublishMode::Ingress,
        proxy_protocol: None,
    }
}
