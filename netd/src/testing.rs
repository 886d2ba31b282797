//! Records for the tests of this crate's pure parts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::{
    Answer, Availability, Bandwidth, BigTcp, ClientAddress, DnsOptions, Driver, EastWest, Endpoint,
    EndpointState, Id, Member, Mode, Network, NetworkOptions, Node, Peer, Protocol, Publish, PublishBy,
    Sandbox, Service, ServicePolicy, Subnet,
};

pub(crate) fn sandbox(name: &str) -> Sandbox {
    Sandbox {
        id: format!("id-{name}").into(),
        name: name.into(),
        created: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 5),
        mode: Mode::Bridge,
        netns: format!("/run/netns/{name}").into(),
        netns_identity: (4, 4_026_531_840),
        netns_is_ours: true,
        boot: "".into(),
        netns_cookie: 0,
        hostname: name.into(),
        endpoints: Vec::new(),
        publishes: Vec::new(),
        exposes: Vec::new(),
        dns: DnsOptions::default(),
        extra_hosts: Vec::new(),
        links: Vec::new(),
        service: None,
        labels: BTreeMap::new(),
        owner: "cli".into(),
    }
}

pub(crate) fn network(name: &str, subnets: &[(&str, &str)]) -> Network {
    Network {
        id: format!("id-{name}").into(),
        name: name.into(),
        created: SystemTime::UNIX_EPOCH,
        driver: Driver::Bridge,
        subnets: subnets
            .iter()
            .map(|(subnet, gateway)| Subnet {
                subnet: subnet.parse().expect("a subnet"),
                gateway: gateway.parse().expect("an address"),
                range: None,
                auxiliary: BTreeMap::new(),
            })
            .collect(),
        internal: false,
        bridge: format!("nd-{name}").into(),
        adopted_bridge: None,
        options: NetworkOptions {
            mtu: 1500,
            icc: true,
            masquerade: true,
            isolate: true,
            big_tcp: BigTcp::Auto,
            given: BTreeMap::new(),
        },
        labels: BTreeMap::new(),
        resolves: true,
        owner: None,
    }
}

/// With an address of its own.
pub(crate) fn service(name: &str, network: &str, address: &str) -> Service {
    Service {
        id: format!("id-{name}").into(),
        name: name.into(),
        created: SystemTime::UNIX_EPOCH,
        network: network.into(),
        answer: Answer::Vip { v4: address.parse().ok(), v6: None },
        policy: ServicePolicy::RoundRobin,
        affinity: None,
        health: None,
        drain: None,
        prefer_local: false,
        east_west: EastWest::Relay,
        ports: Vec::new(),
        publishes: Vec::new(),
        external: Vec::new(),
        draining: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

pub(crate) fn endpoint(network: &Id, addresses: &[(IpAddr, u8)]) -> Endpoint {
    let v4 = addresses.iter().find_map(|&(address, prefix)| match address {
        IpAddr::V4(v4) => Some((v4, prefix)),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|&(address, prefix)| match address {
        IpAddr::V6(v6) => Some((v6, prefix)),
        IpAddr::V4(_) => None,
    });
    Endpoint {
        id: format!("endpoint-{network}").into(),
        network: Arc::clone(network),
        interface: "eth0".into(),
        host_link: "nv0".into(),
        mac: [2, 0, 0, 0, 0, 1],
        v4,
        v6,
        aliases: Vec::new(),
        names: Vec::new(),
        bandwidth: Bandwidth::default(),
        owner: "cli".into(),
    }
}

pub(crate) fn endpoint_at(network: &str, addresses: &[&str]) -> Endpoint {
    let addresses: Vec<(IpAddr, u8)> =
        addresses.iter().map(|address| (address.parse().expect("an address"), 24)).collect();
    endpoint(&network.into(), &addresses)
}

pub(crate) fn publish(protocol: Protocol, address: &str, first: u16, target: u16, count: u16) -> Publish {
    let addresses = vec![address.parse().expect("an address")];
    Publish {
        protocol,
        addresses,
        first,
        target,
        count,
        ephemeral: false,
        by: PublishBy::Bind,
        client_address: ClientAddress::Host,
    }
}

/// One that lives, with one address for everything.
pub(crate) fn node(name: &str, address: impl Into<IpAddr>) -> Node {
    let address = address.into();
    Node {
        name: name.into(),
        vtep: address,
        addresses: vec![address],
        mesh: (address, 6383).into(),
        vxlan_port: 4789,
        version: "1".into(),
        identity: name.into(),
        since: SystemTime::UNIX_EPOCH,
    }
}

pub(crate) fn member(name: &str, number: u16) -> Member {
    let (name, availability, joined) = (name.into(), Availability::Active, SystemTime::UNIX_EPOCH);
    Member { name, number, term: 0, availability, joined, place: None }
}

/// The endpoint of that node's sandbox, without addresses.
pub(crate) fn peer(sandbox: &str, node: &str, network: &str) -> Peer {
    Peer {
        id: format!("{network}/endpoint-{sandbox}").into(),
        endpoint: format!("endpoint-{sandbox}").into(),
        network: network.into(),
        node: node.into(),
        sandbox: format!("id-{sandbox}").into(),
        sandbox_name: sandbox.into(),
        joined: SystemTime::UNIX_EPOCH,
        mac: [2, 0, 0, 0, 0, 9],
        v4: None,
        v6: None,
        names: vec![sandbox.into()],
        service: None,
        weight: 1,
        state: EndpointState::Ready,
        since: None,
        why: None,
    }
}
