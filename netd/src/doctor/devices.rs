//! Whether the bridge of each network that is on this node is there, up, and has its gateway's addresses and its MTU.

use netd_api::system::Check;
use netd_sys::netlink::addr::Addr;
use netd_sys::netlink::link::Link;

use super::{failed, or_fine, some_of, warning};
use crate::model::{Model, Network};

const NAME: &str = "devices";

/// `mtu`: what a network's links are to have by now.
pub(super) fn examine(
    model: &Model,
    mtu: impl Fn(&Network) -> u32,
    links: &[Link],
    addresses: &[Addr],
) -> Vec<Check> {
    let here = model.networks.values().filter(|network| model.is_here(&network.id));
    let faults = here.filter_map(|network| fault(network, mtu(network), links, addresses));
    or_fine(faults.collect(), NAME, "every network has its bridge and its gateway")
}

/// One a network: what is wrong with a bridge that is not there needs no list.
fn fault(network: &Network, mtu: u32, links: &[Link], addresses: &[Addr]) -> Option<Check> {
    let Network { name, bridge, .. } = network;
    let heals = "restart netd: it puts back what is missing";
    let Some(link) = links.iter().find(|link| *link.name == **bridge) else {
        return Some(failed(NAME, format!("the bridge {bridge} of network {name} is gone"), heals));
    };
    if !link.up {
        let detail = format!("the bridge {bridge} of network {name} is down");
        return Some(failed(NAME, detail, format!("ip link set {bridge} up; see what took it down")));
    }
    let has = |gateway| addresses.iter().any(|addr| addr.link == link.index && addr.address.ip() == gateway);
    let missing: Vec<String> = network
        .subnets
        .iter()
        .filter(|subnet| !has(subnet.gateway))
        .map(|subnet| subnet.gateway.to_string())
        .collect();
    if !missing.is_empty() {
        let detail =
            format!("the bridge {bridge} of network {name} has lost its address {}", some_of(&missing));
        return Some(failed(NAME, detail, heals));
    }
    if network.adopted_bridge.is_none() && link.mtu != mtu {
        let detail =
            format!("the bridge {bridge} of network {name} has the MTU {}, its sandboxes {mtu}", link.mtu);
        return Some(warning(NAME, detail, format!("ip link set {bridge} mtu {mtu}")));
    }
    None
}
