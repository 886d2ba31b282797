//! Services as they are served: who answers, where, under which names; and that a step concerns its own service only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netd_proxy::table::{BackendState, Change as Proxy, Place};

use super::{Served, World, attached};
use crate::model::{
    self, Answer, Availability, Driver, EndpointState, ExternalBackend, Finding, Findings, HealthCheck,
    HealthProbe, Member, Membership, Network, Peer, Protocol, PublishMode, Sandbox, Service, ServicePort,
    ServicePublish,
};
use crate::tables::Change;
use crate::testing;

fn service(name: &str, network: &str, answer: Answer) -> Service {
    Service { answer, ..testing::service(name, network, "") }
}

fn vip(address: &str) -> Answer {
    Answer::Vip { v4: address.parse().ok(), v6: None }
}

fn port(name: Option<&str>, port: u16, target: u16) -> ServicePort {
    ServicePort { name: name.map(Into::into), protocol: Protocol::Tcp, port, target }
}

fn publish(published: u16, target: u16, mode: PublishMode) -> ServicePublish {
    let addresses = vec!["0.0.0.0".parse().expect("an address")];
    ServicePublish { protocol: Protocol::Tcp, addresses, published, target, mode, proxy_protocol: None }
}

fn serving(name: &str, service: &str, network: &str, address: &str, state: EndpointState) -> Sandbox {
    let mut sandbox = attached(name, network, &[address], &[name]);
    sandbox.endpoints[0].id = format!("endpoint-{name}").into();
    sandbox.service = Some(Membership { service: service.into(), weight: 1, state, since: None, why: None });
    sandbox
}

fn peer(name: &str, node: &str, network: &str, address: &str, service: Option<&str>) -> Peer {
    let (v4, service) = (address.parse().ok(), service.map(Into::into));
    Peer { v4, service, ..testing::peer(name, node, network) }
}

fn check() -> HealthCheck {
    let second = Duration::from_secs(1);
    let probe = HealthProbe::Tcp { port: Some(80) };
    HealthCheck { probe, interval: second, timeout: second, rise: 1, fall: 1 }
}

fn overlay(name: &str) -> Network {
    Network { driver: Driver::Overlay { vni: 4096 }, ..testing::network(name, &[]) }
}

impl World {
    fn tell_of_service(&mut self, id: &str, after: Option<Service>) -> Vec<Change> {
        let (before, after) = (self.model.services.get(id).cloned(), after.map(Arc::new));
        match &after {
            Some(service) => self.model.services.insert(Arc::clone(&service.id), Arc::clone(service)),
            None => self.model.services.remove(id),
        };
        self.tell(&model::Change::Service { before, after })
    }

    fn put_service(&mut self, service: &Service) -> Vec<Change> {
        self.tell_of_service(&service.id, Some(service.clone()))
    }

    fn tell_of_peer(&mut self, id: &str, after: Option<Peer>) {
        let (before, after) = (self.model.peers.get(id).cloned(), after.map(Arc::new));
        match &after {
            Some(peer) => self.model.peers.insert(Arc::clone(&peer.id), Arc::clone(peer)),
            None => self.model.peers.remove(id),
        };
        self.tell(&model::Change::Peer { before, after });
    }

    fn tell_of_node(&mut self, name: &str, lives: bool) {
        let (before, after) = (
            self.model.nodes.get(name).cloned(),
            lives.then(|| Arc::new(testing::node(name, [192, 0, 2, 1]))),
        );
        match &after {
            Some(node) => self.model.nodes.insert(name.into(), Arc::clone(node)),
            None => self.model.nodes.remove(name),
        };
        self.tell(&model::Change::Node { before, after });
    }

    fn tell_of_member(&mut self, name: &str, availability: Availability) {
        let member = Arc::new(Member { availability, ..testing::member(name, 1) });
        let before = self.model.members.insert(name.into(), Arc::clone(&member));
        self.tell(&model::Change::Member { before, after: Some(member) });
    }

    /// What has been found of a backend outside.
    fn tell_of_findings(&mut self, service: &str, found: &[(&str, bool)]) {
        let finding = |well| Finding { well, why: None, since: SystemTime::UNIX_EPOCH };
        let backends = found.iter().map(|(backend, well)| ((*backend).into(), finding(*well))).collect();
        let findings = Arc::new(Findings { service: service.into(), backends });
        let after = (!found.is_empty()).then_some(findings);
        let before = match &after {
            Some(after) => self.model.findings.insert(service.into(), Arc::clone(after)),
            None => self.model.findings.remove(service),
        };
        self.tell(&model::Change::Findings { before, after });
    }

    fn listeners(&self) -> Vec<String> {
        let shown = self.served.listeners.values().map(|listener| match listener.target_port {
            Some(target) => format!("{} -> {target}", listener.id),
            None => listener.id.to_string(),
        });
        shown.collect()
    }

    fn states(&self, service: &str) -> Vec<(String, BackendState)> {
        let backends = &self.served.services[service].backends;
        backends.iter().map(|backend| (backend.id.to_string(), backend.state)).collect()
    }
}

/// This node is `here`.
fn world() -> World {
    let mut world = World { projection: crate::tables::Projection::of("here".into()), ..World::default() };
    world.model.here = "here".into();
    world
}

#[test]
fn an_address_listens_while_somebody_could_answer() {
    let mut world = world();
    world.with_network(&testing::network("app", &[]));
    let mut web = service("web", "id-app", vip("10.0.0.250"));
    world.put_service(&web);
    assert_eq!(world.addresses("id-app", "web"), ["10.0.0.250"], "its name is there at once");
    assert!(world.listeners().is_empty(), "nobody could answer");

    let mut one = serving("one", "id-web", "id-app", "10.0.0.2", EndpointState::Ready);
    world.put(&one);
    assert_eq!(world.listeners(), ["tcp/10.0.0.250:0", "udp/10.0.0.250:0"]);
    web.ports = vec![port(Some("http"), 80, 8080)];
    world.put_service(&web);
    assert_eq!(world.listeners(), ["tcp/10.0.0.250:80 -> 8080"]);
    assert_eq!(world.addresses("id-app", "tasks.web"), ["10.0.0.2"]);
    let srv = &world.served.zones["id-app"]["_http._tcp.web"].srv[0];
    assert_eq!((srv.port, &*srv.target), (80, "web"));

    let check = HealthProbe::Tcp { port: None };
    let second = Duration::from_secs(1);
    web.health = Some(HealthCheck { probe: check, interval: second, timeout: second, rise: 1, fall: 1 });
    world.put_service(&web);
    for (state, there) in [
        (EndpointState::Failing, false),
        (EndpointState::Draining, true),
        (EndpointState::Starting, false),
        (EndpointState::Ready, true),
    ] {
        one.service.as_mut().expect("a service").state = state;
        world.put(&one);
        assert_eq!(!world.listeners().is_empty(), there, "{state:?}");
        assert_eq!(world.addresses("id-app", "tasks.web").len(), usize::from(there), "{state:?}");
    }
    one.service.as_mut().expect("a service").state = EndpointState::Leaving;
    world.put(&one);
    assert!(!world.listeners().is_empty(), "who was let in is led to it; the kernel lets in nobody else");
    assert_eq!(world.addresses("id-app", "tasks.web"), Vec::<String>::new());
    one.service.as_mut().expect("a service").state = EndpointState::Failing;
    world.put(&one);
    world.put_service(&Service { health: None, ..web.clone() });
    assert!(!world.listeners().is_empty(), "what nobody asks is not unwell");

    world.tell_of_service("id-web", None);
    assert!(world.served.services.is_empty() && world.served.listeners.is_empty());
    assert_eq!(world.addresses("id-app", "web"), Vec::<String>::new());
}

#[test]
fn one_that_drains_is_named_and_used_when_nobody_else_is_left() {
    let mut world = world();
    world.with_network(&testing::network("app", &[]));
    let mut turns = service("turns", "id-app", Answer::Dnsrr);
    world.put_service(&turns);
    world.put(&serving("a", "id-turns", "id-app", "10.0.0.2", EndpointState::Ready));
    world.put(&serving("b", "id-turns", "id-app", "10.0.0.3", EndpointState::Ready));
    assert_eq!(world.addresses("id-app", "turns"), ["10.0.0.2", "10.0.0.3"]);
    turns.draining.insert("endpoint-a".into(), SystemTime::UNIX_EPOCH);
    world.put_service(&turns);
    assert_eq!(world.addresses("id-app", "turns"), ["10.0.0.3"]);
    let draining = ("endpoint-a".to_owned(), BackendState::Draining);
    assert!(world.states("service/id-turns").contains(&draining));
    turns.draining.insert("endpoint-b".into(), SystemTime::UNIX_EPOCH);
    world.put_service(&turns);
    assert_eq!(world.addresses("id-app", "turns"), ["10.0.0.2", "10.0.0.3"]);
    world.sandbox("id-a", None);
    world.sandbox("id-b", None);
    let name = &world.served.zones["id-app"]["turns"];
    assert!(name.addresses.is_empty(), "known, and without an address: it is asked nowhere else");
}

#[test]
fn published_ports_are_everywhere_or_where_an_endpoint_is() {
    let mut world = world();
    world.with_network(&testing::network("app", &[]));
    let mut web = service("web", "id-app", Answer::Dnsrr);
    web.publishes = vec![publish(8080, 80, PublishMode::Ingress), publish(9090, 90, PublishMode::Host)];
    world.put_service(&web);
    assert_eq!(world.listeners(), ["publish/id-web/tcp/0.0.0.0:8080 -> 80"]);
    world.tell_of_node("there", true);
    world.tell_of_peer(
        "id-app/endpoint-far",
        Some(peer("far", "there", "id-app", "10.0.0.9", Some("id-web"))),
    );
    assert_eq!(world.listeners().len(), 1, "an endpoint of another node is not this node's");
    world.put(&serving("near", "id-web", "id-app", "10.0.0.2", EndpointState::Ready));
    assert_eq!(world.listeners()[1], "publish/id-web/tcp/0.0.0.0:9090 -> 90");
    let here = &world.served.services["service/id-web/here"];
    assert_eq!((here.backends.len(), here.backends[0].place), (1, Place::Here));
    let all = &world.served.services["service/id-web"].backends;
    let mesh: SocketAddr = "192.0.2.1:6383".parse().expect("an address");
    assert_eq!(
        all.iter().map(|backend| backend.place).collect::<Vec<_>>(),
        [Place::Here, Place::Node { mesh }]
    );
}

#[test]
fn a_service_is_where_its_network_is_and_its_backends_where_their_node_lives() {
    let mut world = world();
    world.with_network(&overlay("wide"));
    world.put_service(&service("web", "id-wide", vip("10.0.0.250")));
    world.tell_of_peer(
        "id-wide/endpoint-far",
        Some(peer("far", "there", "id-wide", "10.0.0.9", Some("id-web"))),
    );
    assert!(world.states("service/id-web").is_empty(), "its node does not live");
    world.tell_of_node("there", true);
    assert_eq!(world.states("service/id-web").len(), 1);
    assert_eq!(world.addresses("id-wide", "far"), ["10.0.0.9"]);
    assert!(world.listeners().is_empty(), "nobody here is on the network");
    world.put(&attached("client", "id-wide", &["10.0.0.2"], &["client"]));
    assert_eq!(world.listeners().len(), 2);
    world.put(&attached("other", "id-wide", &["10.0.0.3"], &["other"]));
    world.sandbox("id-client", None);
    assert_eq!(world.listeners().len(), 2);
    world.tell_of_member("there", Availability::Drain);
    assert_eq!(world.states("service/id-web")[0].1, BackendState::Draining);
    world.tell_of_member("there", Availability::Active);
    world.put(&serving("near", "id-web", "id-wide", "10.0.0.4", EndpointState::Ready));
    world.tell_of_member("here", Availability::Drain);
    assert_eq!(world.addresses("id-wide", "tasks.web"), ["10.0.0.9"], "this node's own drain");
    world.sandbox("id-near", None);
    world.sandbox("id-other", None);
    assert!(world.listeners().is_empty(), "the network has left this node");
    world.tell_of_node("there", false);
    assert!(world.states("service/id-web").is_empty());
}

/// Another node tells of both in one commit, the new one first, when it has been without the store in between.
#[test]
fn an_endpoint_that_goes_takes_no_name_of_the_one_that_has_come_for_it() {
    let mut world = world();
    world.with_network(&overlay("shop"));
    let first = peer("db", "there", "id-shop", "10.0.0.3", None);
    let second = Peer {
        id: "id-shop/endpoint-again".into(),
        endpoint: "endpoint-again".into(),
        v4: "10.0.0.4".parse().ok(),
        ..first.clone()
    };
    world.tell_of_peer(&first.id, Some(first.clone()));
    world.tell_of_peer(&second.id, Some(second.clone()));
    world.tell_of_peer(&first.id, None);
    assert_eq!(world.addresses("id-shop", "db"), ["10.0.0.4"]);
    world.tell_of_peer(&second.id, None);
    assert!(world.addresses("id-shop", "db").is_empty());
}

#[test]
fn a_backend_outside_that_was_found_unwell_is_in_no_name_and_gets_nothing() {
    let mut world = world();
    world.with_network(&testing::network("app", &[]));
    let mut db = service("db", "id-app", vip("10.0.0.250"));
    let outside = ["192.0.2.7:5432", "192.0.2.8:5432"];
    db.external =
        outside.map(|at| ExternalBackend { address: at.parse().expect("an address"), weight: 1 }).into();
    db.health = Some(check());
    world.put_service(&db);
    assert_eq!(world.addresses("id-app", "tasks.db").len(), 2, "until it is known");
    world.tell_of_findings("id-db", &[(outside[0], false), (outside[1], true)]);
    assert_eq!(world.addresses("id-app", "tasks.db"), ["192.0.2.8"]);
    let states = world.states("service/id-db");
    assert_eq!(
        states.iter().map(|(_, state)| *state).collect::<Vec<_>>(),
        [BackendState::Failing, BackendState::Ready]
    );
    world.tell_of_findings("id-db", &[(outside[0], false), (outside[1], false)]);
    assert!(world.listeners().is_empty(), "nobody could answer");
    db.health = None;
    world.put_service(&db);
    assert_eq!(world.addresses("id-app", "tasks.db").len(), 2, "nobody is asked any more");
    assert!(!world.listeners().is_empty());
}

#[test]
fn names_of_services_are_theirs_alone_and_may_stand_for_others() {
    let mut world = world();
    world.with_network(&testing::network("app", &[]));
    world.put(&attached("web", "id-app", &["10.0.0.2"], &["web"]));
    world.put_service(&service("web", "id-app", vip("10.0.0.250")));
    assert_eq!(world.addresses("id-app", "web"), ["10.0.0.250"]);
    world.put_service(&service("away", "id-app", Answer::Name("example.org".into())));
    assert_eq!(world.served.zones["id-app"]["away"].alias.as_deref(), Some("example.org"));
    let mut db = service("db", "id-app", Answer::Dnsrr);
    let address: SocketAddr = "192.0.2.7:5432".parse().expect("an address");
    db.external = vec![ExternalBackend { address, weight: 3 }];
    world.put_service(&db);
    let backend = &world.served.services["service/id-db"].backends[0];
    assert_eq!((&*backend.id, backend.place, backend.weight), ("192.0.2.7:5432", Place::Elsewhere, 3));
    assert_eq!(world.addresses("id-app", "db"), ["192.0.2.7"]);
    world.tell_of_service("id-web", None);
    assert_eq!(world.addresses("id-app", "web"), ["10.0.0.2"]);
}

#[test]
fn the_work_of_a_change_does_not_grow_with_the_number_of_services() {
    let changes_among = |count: u32| {
        let mut world = world();
        world.with_network(&testing::network("app", &[]));
        for number in 0..count {
            let name = format!("s{number}");
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0002 + number).to_string();
            let other = Arc::new(service(&name, "id-app", vip(&address)));
            world.projection.apply(&[model::Change::Service { before: None, after: Some(other) }]);
        }
        world.put_service(&service("web", "id-app", vip("10.9.0.2")));
        world.put(&serving("one", "id-web", "id-app", "10.9.0.3", EndpointState::Ready)).len()
    };
    assert_eq!(changes_among(3), changes_among(1000));
}

mod steps;
