//! Services as they are served: who answers, where, under which names; and that a step concerns its own service only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use netd_proxy::table::{BackendState, Change as Proxy, Place};
use proptest::prelude::*;

use super::{Served, World, attached};
use crate::model::{
    self, Answer, Availability, Driver, EndpointState, ExternalBackend, HealthCheck, HealthProbe, Member,
    Membership, Network, Node, Peer, Protocol, PublishMode, Sandbox, Service, ServicePort, ServicePublish,
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
    sandbox.service = Some(Membership { service: service.into(), weight: 1, state });
    sandbox
}

fn peer(name: &str, node: &str, network: &str, address: &str, service: Option<&str>) -> Peer {
    Peer {
        id: format!("{network}/endpoint-{name}").into(),
        endpoint: format!("endpoint-{name}").into(),
        network: network.into(),
        node: node.into(),
        sandbox: format!("id-{name}").into(),
        sandbox_name: name.into(),
        joined: SystemTime::UNIX_EPOCH,
        mac: [2, 0, 0, 0, 0, 9],
        v4: address.parse().ok(),
        v6: None,
        names: vec![name.into()],
        service: service.map(Into::into),
        weight: 1,
        state: EndpointState::Ready,
    }
}

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        vtep: "192.0.2.1".parse().expect("an address"),
        addresses: Vec::new(),
        mesh: "192.0.2.1:6383".parse().expect("an address"),
        vxlan_port: 4789,
        version: "1".into(),
        identity: "1".into(),
        since: SystemTime::UNIX_EPOCH,
    }
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
        let (before, after) = (self.model.nodes.get(name).cloned(), lives.then(|| Arc::new(node(name))));
        match &after {
            Some(node) => self.model.nodes.insert(name.into(), Arc::clone(node)),
            None => self.model.nodes.remove(name),
        };
        self.tell(&model::Change::Node { before, after });
    }

    fn tell_of_member(&mut self, name: &str, availability: Availability) {
        let joined = SystemTime::UNIX_EPOCH;
        let member = Arc::new(Member { name: name.into(), number: 1, availability, joined, term: 1 });
        let before = self.model.members.insert(name.into(), Arc::clone(&member));
        self.tell(&model::Change::Member { before, after: Some(member) });
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
    let second = std::time::Duration::from_secs(1);
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

#[derive(Clone, Debug)]
enum Step {
    Network { which: u8, there: bool, wide: bool },
    Service { which: u8, network: Option<u8>, shape: u8, drains: bool },
    Sandbox { which: u8, network: Option<u8>, service: u8, state: u8 },
    Peer { which: u8, network: Option<u8>, service: u8 },
    Node { lives: bool },
    Member { here: bool, drains: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let network = || proptest::option::weighted(0.8, 0..2_u8);
    prop_oneof![
        (0..2_u8, any::<bool>(), any::<bool>()).prop_map(|(which, there, wide)| Step::Network {
            which,
            there,
            wide
        }),
        (0..3_u8, network(), 0..4_u8, any::<bool>())
            .prop_map(|(which, network, shape, drains)| Step::Service { which, network, shape, drains }),
        (0..3_u8, network(), 0..4_u8, 0..4_u8).prop_map(|(which, network, service, state)| Step::Sandbox {
            which,
            network,
            service,
            state
        }),
        (0..3_u8, network(), 0..4_u8).prop_map(|(which, network, service)| Step::Peer {
            which,
            network,
            service
        }),
        any::<bool>().prop_map(|lives| Step::Node { lives }),
        (any::<bool>(), any::<bool>()).prop_map(|(here, drains)| Step::Member { here, drains }),
    ]
}

fn shaped(which: u8, network: u8, shape: u8, drains: bool) -> Service {
    let answer = match shape {
        0 | 1 => vip(&format!("10.0.{network}.25{which}")),
        2 => Answer::Dnsrr,
        _ => Answer::Name("example.org".into()),
    };
    let mut service = service(&format!("v{which}"), &format!("id-n{network}"), answer);
    if shape == 1 {
        service.ports = vec![port(Some("http"), 80, 8080)];
    }
    if shape < 3 {
        let first = 8000 + u16::from(which) * 2;
        service.publishes =
            vec![publish(first, 80, PublishMode::Ingress), publish(first + 1, 90, PublishMode::Host)];
    }
    if drains {
        service.draining.insert("endpoint-s0".into(), SystemTime::UNIX_EPOCH);
    }
    service
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Network { which, there, wide } => {
            let name = format!("n{which}");
            let network = if wide { overlay(&name) } else { testing::network(&name, &[]) };
            world.network(&format!("id-n{which}"), there.then_some(network));
        }
        Step::Service { which, network, shape, drains } => {
            let service = network.map(|network| shaped(which, network, shape, drains));
            world.tell_of_service(&format!("id-v{which}"), service);
        }
        Step::Sandbox { which, network, service, state } => {
            let states = [
                EndpointState::Starting,
                EndpointState::Ready,
                EndpointState::Draining,
                EndpointState::Failing,
            ];
            let sandbox = network.map(|network| {
                let address = format!("10.0.{network}.{which}");
                let (name, network) = (format!("s{which}"), format!("id-n{network}"));
                serving(&name, &format!("id-v{service}"), &network, &address, states[usize::from(state)])
            });
            world.sandbox(&format!("id-s{which}"), sandbox);
        }
        Step::Peer { which, network, service } => {
            let id = format!("p/{which}");
            let peer = network.map(|network| {
                let (name, address) = (format!("p{which}"), format!("10.0.{network}.10{which}"));
                let serves = (service < 3).then(|| format!("id-v{service}"));
                let peer = peer(&name, "there", &format!("id-n{network}"), &address, serves.as_deref());
                Peer { id: id.as_str().into(), ..peer }
            });
            world.tell_of_peer(&id, peer);
        }
        Step::Node { lives } => world.tell_of_node("there", lives),
        Step::Member { here, drains } => {
            let availability = if drains { Availability::Drain } else { Availability::Active };
            world.tell_of_member(if here { "here" } else { "there" }, availability);
        }
    }
}

#[test]
fn a_service_whose_endpoints_come_at_once_is_told_once() {
    let mut world = world();
    world.with_network(&overlay("app"));
    world.put_service(&service("web", "id-app", Answer::Dnsrr));
    world.tell_of_node("there", true);
    world.release(true);
    for number in 0..300 {
        let (name, address) = (format!("p{number}"), format!("10.0.{}.{}", number / 200, number % 200));
        world.tell_of_peer(
            &format!("id-{name}"),
            Some(peer(&name, "there", "id-app", &address, Some("id-web"))),
        );
    }
    let changes = world.release(false);
    let services = changes.iter().filter(|change| matches!(change, Change::Proxy(Proxy::PutService(_))));
    assert_eq!(services.count(), 1);
    assert_eq!(world.addresses("id-app", "tasks.web").len(), 300);
}

proptest! {
    #[test]
    fn services_step_by_step_are_the_same_as_at_once(
        steps in proptest::collection::vec((step(), any::<bool>(), any::<bool>()), 0..50),
    ) {
        let mut world = world();
        for (step, ends, hold) in &steps {
            take(&mut world, step);
            if *ends {
                world.release(*hold);
            }
        }
        world.release(false);
        let mut at_once = Served::default();
        at_once.apply(world.projection.whole());
        prop_assert_eq!(&world.served, &at_once);
    }
}
