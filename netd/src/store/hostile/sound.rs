//! What is sound at each door, made by those who write it: what fuzzing begins with, and what the property tests change.
//! Of every record there is one with something in every field; an enum's other arms are in records beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::bytes::put_bytes;
use super::super::{Batch, Entry, Key, KeyChange, Record, Value, encode, key_of};
use super::{ADDRESS, ID, entry_of, framed_copy, shared};
use crate::model::{
    AddressPool, Answer, Bandwidth, BigTcp, ClientAddress, DnsOptions, EastWest, EndpointState,
    ExternalBackend, Finding, Findings, HealthCheck, HealthProbe, Link, Membership, Mode, Network, PortRange,
    Protocol, ProxyProtocol, Publish, PublishBy, PublishMode, Purpose, Rate, Sandbox, Service, ServicePolicy,
    ServicePort, ServicePublish,
};
use crate::testing;

/// Length and checksum of a journal's entry.
const ENTRY_HEAD: usize = 12;

/// A journal of two commits, and the body of one.
pub fn journals() -> Vec<Vec<u8>> {
    let commit = |revision| {
        let put = |(key, value)| KeyChange::Put(Entry { key, value, revision });
        let mut changes =
            vec![put(of(&sandbox())), KeyChange::Deleted { key: format!("lease/{ID}/{ADDRESS}").into() }];
        changes.extend(locals().into_iter().skip(2).map(put));
        entry_of(&Batch { revision, changes })
    };
    vec![[commit(7), commit(8)].concat(), commit(7).split_off(ENTRY_HEAD)]
}

/// A copy of a cluster's records, and what is in one.
pub fn copies() -> Vec<Vec<u8>> {
    let (cluster, revision) = (7_u64, 9_u64);
    let mut contents = [cluster.to_le_bytes(), revision.to_le_bytes()].concat();
    for (key, value) in shared::sound_records() {
        put_bytes(&mut contents, key.as_bytes());
        put_bytes(&mut contents, &value);
        contents.extend(5_u64.to_le_bytes());
    }
    vec![framed_copy(&contents), contents]
}

/// Changes of a sound state file: none, of its first bytes (the file's own head), of some further on; and no file.
pub fn state_files() -> Vec<Vec<u8>> {
    let change = |place: u32| [&place.to_le_bytes()[..], &[0xff]].concat();
    let head = (0..64).map(|place| [&[1], &change(place)[..]].concat());
    let rest = (1..16).map(|step| [&[1], &change(step * 4096)[..], &change(step * 4096 + 9)].concat());
    head.chain(rest).chain([vec![1], vec![0]]).collect()
}

/// Of this node's own store, each kind.
pub fn records() -> Vec<Vec<u8>> {
    locals().into_iter().map(|(_, value)| value.to_vec()).collect()
}

/// Of the cluster's store, each kind, under the ids that are tried.
pub fn shared_records() -> Vec<Vec<u8>> {
    let on_the_overlay = |service| of(&Service { network: shared::NETWORK.into(), ..service }).1;
    let values = shared::tried().into_iter().chain(services().map(on_the_overlay));
    values.map(|value| value.to_vec()).collect()
}

/// A network and a sandbox first.
fn locals() -> Vec<(Key, Value)> {
    let others = [Mode::None, Mode::Host, Mode::Docker, Mode::Container("id-db".into())].map(sandbox_in);
    let mut all = vec![of(&network()), of(&sandbox())];
    all.extend(others.iter().map(of));
    all.extend(services().iter().map(of));
    all.push(of(&findings()));
    let pool = AddressPool { id: ID.into(), ..pool() };
    let address = |purpose| {
        let id = format!("{ID}/{ADDRESS}").into();
        crate::model::PoolAddress {
            id,
            ..pool.address([10, 9, 0, 2].into(), purpose, SystemTime::UNIX_EPOCH)
        }
    };
    all.extend([of(&pool), of(&address(Purpose::Host)), of(&address(Purpose::Gateway))]);
    all
}

fn of<R: Record>(record: &R) -> (Key, Value) {
    (key_of::<R>(record.id()), encode(record).expect("a sound record"))
}

/// With numbers in places where one digit more or less matters.
fn network() -> Network {
    let subnets = [("10.9.0.0/30", "10.9.0.1"), ("fd00::/126", "fd00::1")];
    let mut network = Network { id: ID.into(), ..testing::network("app", &subnets) };
    network.subnets[0].range = "10.9.0.2/31".parse().ok();
    network.subnets[1].auxiliary = BTreeMap::from([("router".into(), [0xfd00, 0, 0, 0, 0, 0, 0, 3].into())]);
    network.adopted_bridge = Some(vec![[10, 9, 0, 1].into()]);
    network.options.big_tcp = BigTcp::Off;
    network.options.given = BTreeMap::from([("mtu".into(), "1500".into())]);
    network.labels = BTreeMap::from([("tier".into(), "back".into())]);
    network.owner = Some("docker".into());
    network
}

fn sandbox() -> Sandbox {
    let mut sandbox = Sandbox { id: ID.into(), ..testing::sandbox("web") };
    let mut endpoint = testing::endpoint_at(ID, &["10.9.0.2", "fd00::2"]);
    endpoint.aliases = vec!["www".into()];
    endpoint.names = vec!["web".into(), "www".into()];
    let rate = Rate { rate: 1_000_000, burst: 100_000 };
    endpoint.bandwidth = Bandwidth { ingress: Some(rate), egress: Some(rate) };
    sandbox.endpoints = vec![endpoint];
    sandbox.publishes = vec![
        testing::publish(Protocol::Tcp, "::", 65530, 65530, 5),
        Publish {
            by: PublishBy::Steer,
            client_address: ClientAddress::Client,
            ..testing::publish(Protocol::Udp, "0.0.0.0", 53, 53, 1)
        },
    ];
    sandbox.exposes = vec![PortRange { protocol: Protocol::Tcp, first: 80, last: 90 }];
    sandbox.dns = DnsOptions {
        servers: vec![[192, 0, 2, 53].into()],
        search: vec!["example.com".into()],
        options: vec!["ndots:2".into()],
    };
    sandbox.extra_hosts = vec![("db".into(), [10, 0, 0, 9].into())];
    sandbox.links = vec![Link { sandbox: "id-db".into(), alias: "db".into() }];
    let (state, why) = (EndpointState::Failing, Some("it refuses".into()));
    let since = Some(SystemTime::UNIX_EPOCH);
    sandbox.service = Some(Membership { service: ID.into(), weight: 2, state, since, why });
    sandbox.labels = BTreeMap::from([("tier".into(), "front".into())]);
    sandbox.boot = "0a".into();
    sandbox
}

fn sandbox_in(mode: Mode) -> Sandbox {
    Sandbox { id: ID.into(), mode, ..testing::sandbox("web") }
}

/// One of each answer, with one of each policy.
fn services() -> [Service; 4] {
    let (second, now) = (Duration::from_secs(1), SystemTime::UNIX_EPOCH);
    let bare =
        |name: &str, policy| Service { id: ID.into(), policy, ..testing::service(name, ID, "10.9.0.250") };
    let probe = HealthProbe::Http { port: Some(8080), path: "/well".into() };
    let publish = ServicePublish {
        protocol: Protocol::Tcp,
        addresses: vec![[0, 0, 0, 0].into(), [0_u16; 8].into()],
        published: 8080,
        target: 80,
        mode: PublishMode::Ingress,
        proxy_protocol: Some(ProxyProtocol::V2),
    };
    let whole = Service {
        answer: Answer::Vip { v4: Some([10, 9, 0, 250].into()), v6: "fd00::fa".parse().ok() },
        affinity: Some(60 * second),
        health: Some(HealthCheck { probe, interval: second, timeout: second, rise: 2, fall: 3 }),
        drain: Some(10 * second),
        prefer_local: true,
        east_west: EastWest::Connect,
        ports: vec![ServicePort { name: Some("http".into()), protocol: Protocol::Tcp, port: 80, target: 80 }],
        publishes: vec![
            publish.clone(),
            ServicePublish { mode: PublishMode::Host, proxy_protocol: None, published: 8081, ..publish },
        ],
        external: vec![ExternalBackend { address: ([192, 0, 2, 7], 80).into(), weight: 1 }],
        draining: BTreeMap::from([(Arc::from("endpoint-ab"), now)]),
        labels: BTreeMap::from([("tier".into(), "back".into())]),
        ..bare("shop", ServicePolicy::Weighted)
    };
    let probe = HealthProbe::Tcp { port: None };
    let health = Some(HealthCheck { probe, interval: second, timeout: second, rise: 1, fall: 1 });
    [
        whole,
        Service { answer: Answer::Dnsrr, health, ..bare("rr", ServicePolicy::LeastConnections) },
        Service { answer: Answer::Name("db.example.com".into()), ..bare("alias", ServicePolicy::SourceHash) },
        bare("last", ServicePolicy::Maglev),
    ]
}

fn findings() -> Findings {
    let finding =
        |well, why: Option<&str>| Finding { well, why: why.map(Arc::from), since: SystemTime::UNIX_EPOCH };
    let backends = [("192.0.2.7:80", finding(true, None)), ("endpoint-ab", finding(false, Some("refused")))];
    let backends = backends.map(|(id, finding)| (Arc::from(id), finding)).into();
    Findings { service: ID.into(), backends }
}

fn pool() -> AddressPool {
    let subnet = "10.9.0.0/24".parse().expect("a subnet");
    AddressPool::new(subnet, "10.9.0.128/25".parse().ok(), SystemTime::UNIX_EPOCH)
}
