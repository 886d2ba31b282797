//! Who else wants what netd has: the address space of its networks, published ports, 127.0.0.11.

use std::collections::BTreeMap;
use std::fs;

use ipnetwork::IpNetwork;
use netd_api::system::Check;
use netd_proxy::table::Listener;
use netd_sys::netlink::link::Link;
use netd_sys::netlink::route::Route;
use netd_sys::netns::Netns;

use super::{failed, fine, or_fine, some_of, warning};
use crate::ipam::HostUse;
use crate::model::{Mode, Model, Publish, Sandbox};

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

/// Ports that are published and not served: somebody took them while netd was away.
pub(super) fn ports(unserved: &[Listener], model: &Model) -> Vec<Check> {
    const NAME: &str = "ports";
    let mut of_sandbox: BTreeMap<&str, Vec<&Listener>> = BTreeMap::new();
    for listener in unserved {
        let owner = model.sandboxes.values().find(|sandbox| publishes(sandbox, listener));
        of_sandbox.entry(owner.map_or("?", |sandbox| &sandbox.name)).or_default().push(listener);
    }
    let fault = |(sandbox, listeners): (&str, Vec<&Listener>)| {
        let ids: Vec<&str> = listeners.iter().map(|listener| &*listener.id).collect();
        let port = listeners.first().map_or(0, |listener| listener.address.port());
        let detail =
            format!("{} of sandbox {sandbox} is published, but another program has it", some_of(&ids));
        let remedy = format!("`ss -lnp sport = :{port}` shows which; stop it and restart netd");
        failed(NAME, detail, remedy)
    };
    or_fine(of_sandbox.into_iter().map(fault).collect(), NAME, "every published port is served")
}

fn publishes(sandbox: &Sandbox, listener: &Listener) -> bool {
    let (address, port) = (listener.address.ip(), listener.address.port());
    let held = |publish: &Publish| publish.pairs().any(|(host, _)| host == port);
    sandbox.publishes.iter().any(|publish| publish.addresses.contains(&address) && held(publish))
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
