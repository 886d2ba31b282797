//! From tables and records to what the programs are told; the programs themselves are tried in `sys/tests/eastwest.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::SystemTime;

use netd_proxy::table::{Backend as Proxied, BackendState, Place, Policy, Protocol};
use netd_sys::bpf::eastwest::{Backend, Entry};
use netd_sys::netns::Netns;

use super::*;
use crate::model::{Answer, EastWest as Way, Network};
use crate::testing;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

fn network() -> Network {
    testing::network("shop", &[("10.0.0.0/24", "10.0.0.1")])
}

fn service(east_west: Way) -> Service {
    Service {
        id: "s1".into(),
        name: "web".into(),
        created: SystemTime::UNIX_EPOCH,
        network: network().id,
        answer: Answer::Vip { v4: Some(VIP), v6: None },
        policy: Default::default(),
        affinity: None,
        health: None,
        drain: None,
        prefer_local: false,
        east_west,
        ports: Vec::new(),
        publishes: Vec::new(),
        external: Vec::new(),
        draining: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

fn backend(last: u8) -> Proxied {
    Proxied {
        id: format!("b{last}").into(),
        v4: Some(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 8080)),
        v6: None,
        weight: 1,
        state: BackendState::Ready,
        place: Place::Here,
    }
}

fn put(backends: Vec<Proxied>) -> Change {
    Change::Proxy(Proxy::PutService(Balanced { id: "service/s1".into(), backends, ..Balanced::default() }))
}

fn listener(port: u16, target_port: Option<u16>) -> Listener {
    Listener {
        id: format!("tcp/{VIP}:{port}").into(),
        protocol: Protocol::Tcp,
        address: (VIP, port).into(),
        service: "service/s1".into(),
        funnel: Some("steer/tcp4".into()),
        target_port,
        proxy_protocol: None,
        source: netd_proxy::table::Source::Own,
        limit: 1,
    }
}

fn put_listener(listener: &Listener) -> Change {
    Change::Proxy(Proxy::PutListener(listener.clone()))
}

fn record(service: Option<Service>) -> model::Change {
    model::Change::Service { before: None, after: service.map(Arc::new) }
}

fn model(east_west: Way) -> Model {
    let mut model = Model::default();
    let (network, service) = (network(), service(east_west));
    model.networks.insert(Arc::clone(&network.id), Arc::new(network));
    model.services.insert(Arc::clone(&service.id), Arc::new(service));
    model
}

/// Whom connections are led to after these steps, by port of the VIP.
#[derive(Default)]
struct Maps(BTreeMap<u16, (u64, u32)>, BTreeMap<(u64, u32), Backend>, BTreeSet<(u64, u32)>);

impl Maps {
    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Put(Entry::Service(vip, service)) => {
                    self.0.insert(vip.port, (service.slot, service.count));
                }
                Step::Remove(Entry::Service(vip, _)) => {
                    self.0.remove(&vip.port);
                }
                Step::Put(Entry::Seat { slot, number, backend }) => {
                    self.1.insert((slot, number), backend);
                }
                Step::Remove(Entry::Seat { slot, number, .. }) => {
                    self.1.remove(&(slot, number));
                }
                Step::Put(Entry::Member { namespace, network }) => {
                    assert!(self.2.insert((namespace, network)));
                }
                Step::Remove(Entry::Member { namespace, network }) => {
                    assert!(self.2.remove(&(namespace, network)));
                }
                Step::Put(Entry::Live { .. }) | Step::Remove(Entry::Live { .. }) => {}
            }
        }
    }

    fn led(&self, port: u16) -> Option<Vec<String>> {
        let (slot, count) = self.0.get(&port)?;
        let at = |number| {
            let Backend { address, port } = self.1[&(*slot, number)];
            format!("{address}:{port}")
        };
        Some((0..*count).map(at).collect())
    }
}

#[test]
fn a_service_that_asks_for_it_is_led_as_long_as_it_has_backends() {
    let (mut east_west, mut maps, model) = (EastWest::default(), Maps::default(), model(Way::Connect));
    let created = [record(Some(service(Way::Connect)))];
    let tables =
        [put(vec![backend(2)]), put_listener(&listener(80, Some(8080))), put_listener(&listener(0, None))];
    maps.take(east_west.steps(&tables, &created, &model, false));
    assert_eq!(maps.led(80), Some(vec!["10.0.0.2:8080".into()]));
    assert_eq!(maps.led(0), Some(vec!["10.0.0.2:0".into()]), "the port that was asked for");

    let failing = Proxied { state: BackendState::Failing, ..backend(2) };
    maps.take(east_west.steps(&[put(vec![failing.clone(), backend(3)])], &[], &model, false));
    assert_eq!(maps.led(80), Some(vec!["10.0.0.3:8080".into()]));
    maps.take(east_west.steps(&[put(vec![failing])], &[], &model, false));
    assert_eq!(
        (maps.led(80), maps.led(0), maps.1.len()),
        (None, None, 0),
        "the relay has what nobody is left for"
    );

    maps.take(east_west.steps(&[put(vec![backend(2)])], &[], &model, false));
    let gone = Change::Proxy(Proxy::DropListener { listener: listener(80, None).id });
    maps.take(east_west.steps(&[gone], &[], &model, false));
    assert_eq!((maps.led(80), maps.led(0)), (None, Some(vec!["10.0.0.2:0".into()])));
}

#[test]
fn what_only_the_relay_can_do_is_left_to_it() {
    let led = |change: &dyn Fn(&mut Service, &mut Network, &mut Balanced, &mut Listener)| {
        let (mut service, mut network, mut listener) = (service(Way::Connect), network(), listener(80, None));
        let mut balanced = Balanced {
            id: "service/s1".into(),
            backends: vec![backend(2), backend(3)],
            ..Balanced::default()
        };
        change(&mut service, &mut network, &mut balanced, &mut listener);
        let mut model = Model::default();
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
        model.services.insert(Arc::clone(&service.id), Arc::new(service));
        let tables = [Change::Proxy(Proxy::PutService(balanced)), put_listener(&listener)];
        let mut maps = Maps::default();
        maps.take(EastWest::default().steps(&tables, &[], &model, true));
        maps.led(80).map_or(0, |led| led.len())
    };
    assert_eq!(led(&|_, _, _, _| {}), 2);
    assert_eq!(led(&|service, _, _, _| service.east_west = Way::Relay), 0);
    assert_eq!(led(&|_, network, _, _| network.options.icc = false), 0);
    assert_eq!(led(&|_, _, balanced, _| balanced.policy = Policy::LeastOpen), 0);
    assert_eq!(led(&|_, _, balanced, _| balanced.backends[1].place = Place::Elsewhere), 0);
    assert_eq!(
        led(&|_, _, _, listener| listener.address.set_ip(Ipv4Addr::UNSPECIFIED.into())),
        0,
        "a port of the node"
    );
    let remote = Place::Node { mesh: (Ipv4Addr::LOCALHOST, 6383).into() };
    assert_eq!(led(&|_, _, balanced, _| balanced.backends[1].place = remote), 2);
    let local =
        |balanced: &mut Balanced| (balanced.prefer_local, balanced.backends[1].place) = (true, remote);
    assert_eq!(led(&|_, _, balanced, _| local(balanced)), 1);
}

#[test]
fn the_way_can_be_changed_while_it_is_used() {
    let (mut east_west, mut maps) = (EastWest::default(), Maps::default());
    let tables = [put(vec![backend(2)]), put_listener(&listener(80, None))];
    maps.take(east_west.steps(&tables, &[record(Some(service(Way::Relay)))], &model(Way::Relay), false));
    assert_eq!(maps.led(80), None);
    maps.take(east_west.steps(&[], &[record(Some(service(Way::Connect)))], &model(Way::Connect), false));
    assert_eq!(maps.led(80), Some(vec!["10.0.0.2:8080".into()]));
    let changed = model::Change::Service {
        before: Some(Arc::new(service(Way::Connect))),
        after: Some(Arc::new(service(Way::Relay))),
    };
    maps.take(east_west.steps(&[], &[changed], &model(Way::Relay), false));
    assert_eq!((maps.led(80), east_west.wishing.len()), (None, 0));
}

#[test]
fn namespaces_are_members_while_services_of_their_networks_are_led() {
    let netns = Netns::current().expect("every thread has one");
    let cookie = netns.cookie().expect("tests run as root");
    let mut model = model(Way::Connect);
    let mut sandbox = testing::sandbox("client");
    sandbox.netns = "/proc/thread-self/ns/net".into();
    sandbox.netns_identity = (netns.id().device, netns.id().inode);
    let at: IpAddr = [10, 0, 0, 2].into();
    sandbox.endpoints = vec![testing::endpoint(&network().id, &[(at, 24)])];
    let sandbox = Arc::new(sandbox);
    let created = model::Change::Sandbox { before: None, after: Some(Arc::clone(&sandbox)) };
    model.sandboxes.insert(Arc::clone(&sandbox.id), Arc::clone(&sandbox));

    let (mut east_west, mut maps) = (EastWest::default(), Maps::default());
    maps.take(east_west.steps(&[], std::slice::from_ref(&created), &model, false));
    assert!(maps.2.is_empty(), "nothing is led yet");
    let tables = [put(vec![backend(2)]), put_listener(&listener(80, None))];
    maps.take(east_west.steps(&tables, &[], &model, false));
    assert_eq!(maps.2, [(cookie, 0), (cookie, 1)].into());
    maps.take(east_west.steps(&[], &[created], &model, false));
    assert_eq!(maps.2.len(), 2, "told once");
    maps.take(east_west.steps(&[put(Vec::new())], &[], &model, false));
    assert!(maps.2.is_empty(), "nothing is led any more");
    maps.take(east_west.steps(&[put(vec![backend(2)])], &[], &model, false));
    model.sandboxes.remove(&sandbox.id);
    let removed = model::Change::Sandbox { before: Some(sandbox), after: None };
    maps.take(east_west.steps(&[], &[removed], &model, false));
    assert!(maps.2.is_empty(), "it has gone");
}

#[test]
fn what_another_process_has_told_the_programs_becomes_what_is_wanted() {
    let (mut east_west, mut maps) = (EastWest::default(), Maps::default());
    let tables = [
        put(vec![backend(2), backend(3)]),
        put_listener(&listener(80, None)),
        put_listener(&listener(81, None)),
    ];
    let steps = east_west.steps(&tables, &[], &model(Way::Connect), true);
    let mut entries: Vec<Entry> = steps
        .iter()
        .filter_map(|step| if let Step::Put(entry) = step { Some(*entry) } else { None })
        .collect();
    maps.take(steps);
    entries.push(Entry::Member { namespace: 77, network: 5 });
    maps.2.insert((77, 5));

    let (content, members, rest) = Content::of(&entries);
    assert!(rest.is_empty());
    let mut next = EastWest { content, namespaces: Namespaces::found(members), ..EastWest::default() };
    let tables = [put(vec![backend(3), backend(4)]), put_listener(&listener(80, None))];
    maps.take(next.steps(&tables, &[], &model(Way::Connect), true));
    let mut led = maps.led(80).unwrap_or_default();
    led.sort();
    assert_eq!(led, ["10.0.0.3:8080", "10.0.0.4:8080"]);
    assert_eq!((maps.led(81), maps.1.len(), maps.2.len()), (None, 2, 0));
}
