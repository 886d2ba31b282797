//! Who else wants what netd has: the address space of its networks, published ports, 127.0.0.11.

use std::collections::BTreeMap;
use std::fs;

use ipnetwork::IpNetwork;
use netd_api::system::Check;
use netd_proxy::table::{Listener, Protocol as Carried};
use netd_sys::netlink::link::Link;
use netd_sys::netlink::route::Route;
use netd_sys::netns::Netns;

use super::{failed, fine, or_fine, some_of, warning};
use crate::ipam::HostUse;
use crate::model::{Mode, Model, Publish, Sandbox};
use crate::tables::publish_id;

/// The host's routes that meet a network's subnet and lead elsewhere. The more specific one wins, so either the
/// sandboxes or what lies behind the route is not reached.
pub(super) fn subnets(model: &Model, links: &[Link], routes: &[Route]) -> Vec<Check> {
    const NAME: &str = "subnets";
    let mut faults = Vec::new();
    for route in routes {
        let link = links.iter().find(|link| Some(link.index) == route.link);
        if HostUse::route(route.destination, None).is_none() {
            continue;
        }
        for network in model.networks.values() {
            if link.is_some_and(|link| *link.name == *network.bridge) {
                continue;
            }
            for subnet in network.subnets.iter().filter(|subnet| meet(subnet.subnet, route.destination)) {
                let device = link.map_or_else(String::new, |link| format!(" by {}", link.name));
                let detail = format!(
                    "the host's route to {}{device} meets the subnet {} of network {}",
                    route.destination, subnet.subnet, network.name
                );
                let remedy = "remove the route, or make the network again with another --subnet";
                faults.push(warning(NAME, detail, remedy));
            }
        }
    }
    or_fine(faults, NAME, "no route of the host leads into a network of ours")
}

fn meet(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}

/// Ports that are published and not served: somebody took them while netd was away, or had them when a service was
/// published from another node.
pub(super) fn ports(unserved: &[Listener], model: &Model) -> Vec<Check> {
    const NAME: &str = "ports";
    let mut of_owner: BTreeMap<String, Vec<&Listener>> = BTreeMap::new();
    for listener in unserved {
        of_owner.entry(owner(listener, model)).or_default().push(listener);
    }
    let fault = |(owner, listeners): (String, Vec<&Listener>)| {
        let shown = |listener: &&Listener| {
            let protocol = if listener.protocol == Carried::Tcp { "tcp" } else { "udp" };
            format!("{protocol}/{}", listener.address)
        };
        let ports: Vec<String> = listeners.iter().map(shown).collect();
        let port = listeners.first().map_or(0, |listener| listener.address.port());
        let holders = model.sandboxes.values().filter(|sandbox| {
            listeners.iter().any(|listener| publishes(sandbox, listener) && owner != of_sandbox(sandbox))
        });
        let holders: Vec<String> = holders.map(|sandbox| of_sandbox(sandbox)).collect();
        let holder = if holders.is_empty() { "another program".into() } else { some_of(&holders) };
        let detail = format!("{} of {owner} is published, but {holder} has it", some_of(&ports));
        let remedy =
            format!("`ss -lnp sport = :{port}` shows which; a moment after it has ended, the port is served");
        failed(NAME, detail, remedy)
    };
    or_fine(of_owner.into_iter().map(fault).collect(), NAME, "every published port is served")
}

fn owner(listener: &Listener, model: &Model) -> String {
    let of_service = model.services.values().find(|service| {
        let (address, port) = (listener.address.ip(), listener.address.port());
        let mut ports = service.publishes.iter().filter(|publish| publish.published == port);
        ports.any(|publish| publish_id(&service.id, publish, address) == listener.id)
    });
    let service = of_service.map(|service| format!("service {}", service.name));
    let sandbox = || model.sandboxes.values().find(|sandbox| publishes(sandbox, listener));
    service.or_else(|| sandbox().map(|sandbox| of_sandbox(sandbox))).unwrap_or_else(|| "nobody".into())
}

fn of_sandbox(sandbox: &Sandbox) -> String {
    format!("sandbox {}", sandbox.name)
}

fn publishes(sandbox: &Sandbox, listener: &Listener) -> bool {
    let (address, port) = (listener.address.ip(), listener.address.port());
    let held = |publish: &Publish| publish.pairs().any(|(host, _)| host == port);
    let at = |publish: &Publish| {
        let mut addresses = publish.addresses.iter();
        addresses.any(|own| {
            own.is_ipv4() == address.is_ipv4()
                && (*own == address || own.is_unspecified() || address.is_unspecified())
        })
    };
    sandbox.publishes.iter().any(|publish| at(publish) && held(publish))
}

/// A program in a sandbox that is bound to the very address which is rewritten: nobody will ever ask it anything.
pub(super) fn resolver(model: &Model) -> Vec<Check> {
    const NAME: &str = "resolver-address";
    let own = model.sandboxes.values().filter(|sandbox| sandbox.mode == Mode::Bridge);
    let taken: Vec<&str> = own
        .filter(|sandbox| Netns::open(&sandbox.netns).and_then(|netns| netns.run(is_taken)).unwrap_or(false))
        .map(|sandbox| &*sandbox.name)
        .collect();
    if taken.is_empty() {
        return vec![fine(NAME, "nobody else listens on 127.0.0.11:53 in a sandbox")];
    }
    let detail = format!(
        "a program in {} listens on 127.0.0.11:53: what is asked there is answered by netd",
        some_of(&taken)
    );
    vec![warning(NAME, detail, "have it listen on 0.0.0.0:53, or on another address")]
}

/// 127.0.0.11:53 as the kernel prints it: the address as a number in the machine's order, in hex.
fn is_taken() -> bool {
    let wanted = format!("{:08X}:0035", u32::from_ne_bytes([127, 0, 0, 11]));
    let listed = |table: &str| {
        let sockets = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        sockets.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some(&*wanted))
    };
    listed("udp") || listed("tcp")
}

/// Tables of iptables as it was before nftables are not shown by nftables, and so not looked at.
pub(super) fn legacy_rules() -> Check {
    const NAME: &str = "legacy-iptables";
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if tables.lines().all(|table| table != "filter") {
        return fine(NAME, "no rules outside nftables");
    }
    let detail = "this host has filter rules of legacy iptables, which are not looked at here";
    warning(NAME, detail, "see that `iptables-legacy -S FORWARD` lets the bridges nd-* and netd0 through")
}
