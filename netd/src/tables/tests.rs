//! What the data plane is told, and that telling it step by step leads where telling it at once does.

mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netd_dns::table::{Change as Dns, Forward, Name, View};
use netd_proxy::table::{Change as Proxy, Listener, Service};
use proptest::prelude::*;

use super::{Change, Projection};
use crate::model::{self, Endpoint, Link, Mode, Model, Network, Protocol, Sandbox};
use crate::testing;

/// The data plane's tables as whoever applies the changes has them.
#[derive(Debug, Default, PartialEq)]
struct Served {
    zones: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Name>>,
    views: BTreeMap<Arc<str>, View>,
    services: BTreeMap<Arc<str>, Service>,
    listeners: BTreeMap<Arc<str>, Listener>,
}

impl Served {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Dns(change) => self.apply_dns(change),
                Change::Proxy(change) => self.apply_proxy(change),
            }
        }
        self.zones.retain(|_, names| !names.is_empty());
    }

    fn apply_dns(&mut self, change: Dns) {
        match change {
            Dns::PutName { zone, name } => {
                self.zones.entry(zone).or_default().insert(Arc::clone(&name.name), name);
            }
            Dns::DropName { zone, name } => {
                self.zones.entry(zone).or_default().remove(&name);
            }
            Dns::DropZone { zone } => drop(self.zones.remove(&zone)),
            Dns::PutView(view) => drop(self.views.insert(Arc::clone(&view.id), view)),
            Dns::DropView { view } => drop(self.views.remove(&view)),
            Dns::PutHostServers { .. } => panic!("not a matter of the records"),
        }
    }

    fn apply_proxy(&mut self, change: Proxy) {
        match change {
            Proxy::PutService(service) => drop(self.services.insert(Arc::clone(&service.id), service)),
            Proxy::DropService { service } => {
                let user = self.listeners.values().find(|listener| listener.service == service);
                assert_eq!(user, None, "a service went before its listener");
                self.services.remove(&service);
            }
            Proxy::PutListener(listener) => {
                assert!(self.services.contains_key(&listener.service), "a listener came before its service");
                self.listeners.insert(Arc::clone(&listener.id), listener);
            }
            Proxy::DropListener { listener } => drop(self.listeners.remove(&listener)),
            Proxy::PutFunnel(_) | Proxy::DropFunnel { .. } | Proxy::PutMesh(_) | Proxy::DropMesh => {
                panic!("not a matter of the records")
            }
        }
    }
}

/// Records, their projection, and what has come of it.
#[derive(Default)]
struct World {
    model: Model,
    projection: Projection,
    served: Served,
    /// Changes that are told together later; none: each is told at once.
    held: Option<Vec<model::Change>>,
}

impl World {
    fn network(&mut self, id: &str, after: Option<Network>) -> Vec<Change> {
        let after = after.map(Arc::new);
        let before = self.model.networks.get(id).cloned();
        match &after {
            Some(network) => self.model.networks.insert(Arc::clone(&network.id), Arc::clone(network)),
            None => self.model.networks.remove(id),
        };
        self.tell(&model::Change::Network { before, after })
    }

    fn sandbox(&mut self, id: &str, after: Option<Sandbox>) -> Vec<Change> {
        let after = after.map(Arc::new);
        let before = self.model.sandboxes.get(id).cloned();
        match &after {
            Some(sandbox) => self.model.sandboxes.insert(Arc::clone(&sandbox.id), Arc::clone(sandbox)),
            None => self.model.sandboxes.remove(id),
        };
        self.tell(&model::Change::Sandbox { before, after })
    }

    fn put(&mut self, sandbox: &Sandbox) -> Vec<Change> {
        self.sandbox(&sandbox.id, Some(sandbox.clone()))
    }

    fn with_network(&mut self, network: &Network) {
        self.network(&network.id, Some(network.clone()));
    }

    fn tell(&mut self, change: &model::Change) -> Vec<Change> {
        match &mut self.held {
            Some(held) => {
                held.push(change.clone());
                Vec::new()
            }
            None => self.tell_all(std::slice::from_ref(change)),
        }
    }

    fn tell_all(&mut self, changes: &[model::Change]) -> Vec<Change> {
        let changes = self.projection.apply(changes);
        self.served.apply(changes.clone());
        changes
    }

    /// Tells at once what has been held back, and holds back what comes next if it is wanted so.
    fn release(&mut self, hold: bool) -> Vec<Change> {
        let held = std::mem::replace(&mut self.held, hold.then(Vec::new)).unwrap_or_default();
        self.tell_all(&held)
    }

    fn addresses(&self, network: &str, name: &str) -> Vec<String> {
        let name = self.served.zones.get(network).and_then(|names| names.get(name));
        name.map_or_else(Vec::new, |name| name.addresses.iter().map(ToString::to_string).collect())
    }
}

fn attached(name: &str, network: &str, addresses: &[&str], names: &[&str]) -> Sandbox {
    let mut sandbox = testing::sandbox(name);
    sandbox.endpoints.push(endpoint(network, addresses, names));
    sandbox
}

fn endpoint(network: &str, addresses: &[&str], names: &[&str]) -> Endpoint {
    let names = names.iter().map(|&name| name.into()).collect();
    Endpoint { names, ..testing::endpoint_at(network, addresses) }
}

#[test]
fn a_name_leads_to_all_who_carry_it_in_the_order_of_joining() {
    let mut world = World::default();
    world.with_network(&testing::network("shop", &[]));
    let mut second = attached("b", "id-shop", &["10.0.0.3", "fd00::3"], &["b", "search"]);
    second.created += Duration::from_secs(5);
    world.put(&second);
    world.put(&attached("z", "id-shop", &["10.0.0.2", "fd00::2"], &["z", "search"]));
    assert_eq!(world.addresses("id-shop", "search"), ["10.0.0.2", "fd00::2", "10.0.0.3", "fd00::3"]);
    let names = &world.served.zones["id-shop"];
    assert_eq!(names["search"].primary_for, Vec::<IpAddr>::new(), "an alias is no PTR name");
    assert_eq!(names["z"].primary_for, names["z"].addresses);

    world.sandbox("id-z", None);
    assert_eq!(world.addresses("id-shop", "search"), ["10.0.0.3", "fd00::3"]);
    assert_eq!(world.addresses("id-shop", "z"), Vec::<String>::new());
}

#[test]
fn a_change_that_concerns_no_name_sends_none() {
    let mut world = World::default();
    world.with_network(&testing::network("n", &[]));
    let mut web = attached("web", "id-n", &["10.0.0.2"], &["web"]);
    world.put(&web);
    web.labels.insert("k".into(), "v".into());
    assert_eq!(world.put(&web), []);
    web.publishes.push(testing::publish(Protocol::Tcp, "0.0.0.0", 8080, 80, 1));
    let changes = world.put(&web);
    assert_eq!(changes.len(), 2, "{changes:?}");
    let mut network = testing::network("n", &[]);
    network.labels.insert("k".into(), "v".into());
    assert_eq!(world.network("id-n", Some(network)), []);
}

#[test]
fn a_view_sees_the_zones_of_its_networks_in_order() {
    let mut world = World::default();
    world.with_network(&testing::network("Br.Net1", &[]));
    world.with_network(&Network { resolves: false, ..testing::network("bridge", &[]) });
    let mut web = attached("web", "id-bridge", &["172.17.0.2"], &["web"]);
    world.put(&web);
    assert!(world.served.views.is_empty(), "the default network has no names");
    assert!(world.served.zones.is_empty());
    web.endpoints.push(endpoint("id-Br.Net1", &["10.0.0.2"], &["web"]));
    world.put(&web);
    let view = &world.served.views["id-web"];
    assert_eq!(view.zones.len(), 1);
    assert_eq!((&*view.zones[0].zone, &*view.zones[0].suffix), ("id-Br.Net1", "br.net1"));
    for mode in [Mode::None, Mode::Host, Mode::Container("id-x".into())] {
        world.put(&Sandbox { mode, ..web.clone() });
        assert!(world.served.views.is_empty());
    }
}

#[test]
fn forwarding_follows_membership_and_the_users_servers() {
    let mut world = World::default();
    world.with_network(&Network { internal: true, ..testing::network("in", &[]) });
    world.with_network(&testing::network("out", &[]));
    let mut web = attached("web", "id-in", &["10.0.0.2"], &["web"]);
    let forward = |world: &World| world.served.views["id-web"].forward.clone();
    world.put(&web);
    assert_eq!(forward(&world), Forward::Never);
    web.endpoints.push(endpoint("id-out", &["10.0.1.2"], &["web"]));
    world.put(&web);
    assert_eq!(forward(&world), Forward::Host);
    web.endpoints.pop();
    web.dns.servers = vec!["10.0.0.9".parse().unwrap(), "127.0.0.11".parse().unwrap()];
    world.put(&web);
    assert_eq!(forward(&world), Forward::Own { servers: vec!["10.0.0.9:53".parse().unwrap()] });
    web.dns.servers.remove(0);
    world.put(&web);
    assert_eq!(forward(&world), Forward::Never, "127.0.0.11 is this server itself");
}

#[test]
fn ndots_above_zero_keeps_single_labels_at_home() {
    let mut world = World::default();
    world.with_network(&testing::network("n", &[]));
    let mut web = attached("web", "id-n", &["10.0.0.2"], &["web"]);
    for (options, wanted) in [
        (&[][..], false),
        (&["ndots:0"], false),
        (&["ndots:2", "timeout:1"], true),
        (&["ndots:foobar"], false),
        (&["ndots:-1"], false),
        (&["ndots:1", "ndots:0"], false),
    ] {
        web.dns.options = options.iter().map(ToString::to_string).collect();
        world.put(&web);
        assert_eq!(world.served.views["id-web"].single_labels_are_local, wanted, "{options:?}");
    }
}

#[test]
fn a_link_is_a_name_of_its_own_that_follows_the_target() {
    let mut world = World::default();
    world.with_network(&testing::network("one", &[]));
    world.with_network(&testing::network("two", &[]));
    let mut web = attached("web", "id-one", &["10.0.1.2"], &["web"]);
    web.links = vec![Link { sandbox: "id-db".into(), alias: "Store".into() }];
    world.put(&web);
    let names = |world: &World| {
        let view = &world.served.views["id-web"];
        let text =
            |name: &Name| (name.name.to_string(), name.addresses.iter().map(ToString::to_string).collect());
        view.names.iter().map(text).collect::<Vec<(String, Vec<String>)>>()
    };
    assert_eq!(names(&world), [], "the target is not there yet");
    let mut db = attached("db", "id-two", &["10.0.2.2"], &["db"]);
    world.put(&db);
    assert_eq!(names(&world), [], "no network in common");
    db.endpoints.push(endpoint("id-one", &["10.0.1.3"], &["db"]));
    world.put(&db);
    assert_eq!(names(&world), [("store".into(), vec!["10.0.1.3".into()])]);
    world.sandbox("id-db", None);
    assert_eq!(names(&world), []);
}

#[test]
fn a_published_range_is_a_listener_per_port_and_address() {
    let mut world = World::default();
    world.with_network(&testing::network("n", &[]));
    let mut web = attached("web", "id-n", &["10.0.0.2", "fd00::2"], &["web"]);
    let mut publish = testing::publish(Protocol::Tcp, "0.0.0.0", 9800, 80, 2);
    publish.addresses.push("::".parse().unwrap());
    web.publishes = vec![publish, testing::publish(Protocol::Udp, "::1", 53, 53, 1)];
    world.put(&web);
    let listeners: Vec<_> = world
        .served
        .listeners
        .values()
        .map(|listener| format!("{} -> {}", listener.id, listener.service))
        .collect();
    assert_eq!(
        listeners,
        [
            "tcp/0.0.0.0:9800 -> publish/id-web/tcp/80",
            "tcp/0.0.0.0:9801 -> publish/id-web/tcp/81",
            "tcp/[::]:9800 -> publish/id-web/tcp/80",
            "tcp/[::]:9801 -> publish/id-web/tcp/81",
            "udp/[::1]:53 -> publish/id-web/udp/53",
        ]
    );
    let backend = &world.served.services["publish/id-web/tcp/81"].backends[0];
    assert_eq!(backend.v4, Some("10.0.0.2:81".parse().unwrap()));
    assert_eq!(backend.v6, Some("[fd00::2]:81".parse().unwrap()));
    assert_eq!(&*backend.id, "id-web");
}

#[test]
fn publishing_follows_the_gateway_network_of_each_family() {
    let mut world = World::default();
    let mut inside = Network { internal: true, ..testing::network("in", &[]) };
    world.with_network(&inside);
    world.with_network(&testing::network("four", &[]));
    world.with_network(&testing::network("both", &[]));
    let mut web = attached("web", "id-in", &["10.0.0.2", "fd00::2"], &["web"]);
    web.publishes = vec![testing::publish(Protocol::Tcp, "0.0.0.0", 8080, 80, 1)];
    world.put(&web);
    assert!(world.served.listeners.is_empty(), "an internal network publishes nothing");
    let backend = |world: &World| {
        let backend = &world.served.services["publish/id-web/tcp/80"].backends[0];
        (backend.v4.map(|address| address.to_string()), backend.v6.map(|address| address.to_string()))
    };
    web.endpoints.push(endpoint("id-four", &["10.4.0.2"], &["web"]));
    world.put(&web);
    assert_eq!(backend(&world), (Some("10.4.0.2:80".into()), None));
    web.endpoints.push(endpoint("id-both", &["10.6.0.2", "fd06::2"], &["web"]));
    world.put(&web);
    assert_eq!(backend(&world), (Some("10.4.0.2:80".into()), Some("[fd06::2]:80".into())));
    inside.internal = false;
    world.with_network(&inside);
    assert_eq!(backend(&world), (Some("10.0.0.2:80".into()), Some("[fd00::2]:80".into())));
}

#[test]
fn the_work_of_a_change_does_not_grow_with_the_number_of_sandboxes() {
    let changes_among = |count: u32| {
        let mut world = World::default();
        world.with_network(&testing::network("n", &[]));
        for number in 0..count {
            let name = format!("s{number}");
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0002 + number).to_string();
            world.projection.apply(&[model::Change::Sandbox {
                before: None,
                after: Some(Arc::new(attached(&name, "id-n", &[&address], &[&name]))),
            }]);
        }
        let mut last = attached("last", "id-n", &["10.9.0.2"], &["last", "alias"]);
        last.publishes = vec![testing::publish(Protocol::Tcp, "0.0.0.0", 8080, 80, 1)];
        world.put(&last).len()
    };
    assert_eq!(changes_among(10), changes_among(2000));
}

#[derive(Clone, Debug)]
enum Step {
    Network { which: u8, there: bool, internal: bool, resolves: bool },
    Sandbox { which: u8, shape: Option<Shape> },
}

#[derive(Clone, Debug)]
struct Shape {
    age: u8,
    mode: u8,
    networks: Vec<u8>,
    aliases: Vec<u8>,
    ports: Vec<u8>,
    link: Option<u8>,
    dns: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let network = (0..3_u8, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(which, there, internal, resolves)| Step::Network { which, there, internal, resolves });
    let list = || proptest::collection::vec(0..3_u8, 0..3);
    let shape = (0..3_u8, 0..4_u8, list(), list(), list(), proptest::option::of(0..4_u8), any::<bool>())
        .prop_map(|(age, mode, networks, aliases, ports, link, dns)| Shape {
            age,
            mode,
            networks,
            aliases,
            ports,
            link,
            dns,
        });
    let sandbox = (0..4_u8, proptest::option::weighted(0.8, shape))
        .prop_map(|(which, shape)| Step::Sandbox { which, shape });
    prop_oneof![network, sandbox.clone(), sandbox]
}

fn build(which: u8, shape: &Shape) -> Sandbox {
    let mut sandbox = testing::sandbox(&format!("s{which}"));
    sandbox.created += Duration::from_secs(u64::from(shape.age));
    sandbox.mode = if shape.mode == 0 { Mode::None } else { Mode::Bridge };
    let mut networks = shape.networks.clone();
    networks.dedup();
    for network in networks {
        let mut names = vec![format!("s{which}")];
        names.extend(shape.aliases.iter().map(|alias| format!("alias{alias}")));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let v4 = format!("10.0.{network}.{which}");
        let v6 = format!("fd0{network}::{which}");
        let addresses = if shape.dns { vec![&*v4] } else { vec![&*v4, &*v6] };
        sandbox.endpoints.push(endpoint(&format!("id-n{network}"), &addresses, &names));
    }
    for &port in &shape.ports {
        // A port of its own for each sandbox: the table of ports sees to that.
        let host = u16::from(which) * 100 + u16::from(port) * 3 + 1;
        sandbox.publishes.push(testing::publish(Protocol::Tcp, "0.0.0.0", host, 80 + u16::from(port), 2));
    }
    let link = shape.link.map(|target| Link { sandbox: format!("id-s{target}").into(), alias: "l".into() });
    sandbox.links.extend(link);
    if shape.dns {
        sandbox.dns.servers = vec!["10.0.0.9".parse().expect("an address")];
    }
    sandbox
}

proptest! {
    #[test]
    fn step_by_step_is_the_same_as_at_once(steps in proptest::collection::vec(step(), 0..40)) {
        let mut world = World::default();
        for step in &steps {
            match step {
                Step::Network { which, there, internal, resolves } => {
                    let network = testing::network(&format!("n{which}"), &[]);
                    let network = Network { internal: *internal, resolves: *resolves, ..network };
                    world.network(&format!("id-n{which}"), there.then_some(network));
                }
                Step::Sandbox { which, shape } => {
                    let sandbox = shape.as_ref().map(|shape| build(*which, shape));
                    world.sandbox(&format!("id-s{which}"), sandbox);
                }
            }
        }
        let mut at_once = Served::default();
        at_once.apply(world.projection.whole());
        prop_assert_eq!(&world.served, &at_once);

        let mut restarted = World::default();
        for sandbox in world.model.sandboxes.values() {
            restarted.put(sandbox);
        }
        for network in world.model.networks.values() {
            restarted.with_network(network);
        }
        prop_assert_eq!(&restarted.served, &at_once);
    }
}
