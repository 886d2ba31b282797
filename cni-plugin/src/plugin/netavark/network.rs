//! `create`: checks a network's definition, and fills in the subnets that were not given. podman keeps the definition;
//! nothing is made yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use netd_api::Nothing;
use netd_api::network::{List, ListParams};
use netd_sys::netlink::Rtnl;
use serde_json::{Value, json};

use super::request::{create as read, socket};
use crate::daemon::Daemon;
use crate::error::{Code, Failure, Result};
use crate::spec::{Node, hash};

pub(super) fn create(given: &Value) -> Result<Value> {
    let root = Node::root(given);
    let wanted = read(&root)?;
    let mut made = given.clone();
    let mut subnets: Vec<IpNetwork> =
        wanted.ipam.config.iter().filter_map(|one| one.subnet).map(IpNetwork::from).collect();
    let leases_by_podman = given["ipam_options"]["driver"].as_str() != Some("none");
    if leases_by_podman {
        if !subnets.iter().any(IpNetwork::is_ipv4) {
            subnets.insert(0, free(&taken(given)?)?);
        }
        if wanted.enable_ipv6 && !subnets.iter().any(IpNetwork::is_ipv6) {
            subnets.push(unique_local(&wanted.name));
        }
    }
    let listed = made["subnets"].as_array().cloned().unwrap_or_default();
    let complete = subnets.iter().map(|subnet| {
        let own = listed.iter().find(|one| one["subnet"].as_str() == Some(&subnet.to_string()));
        let mut one = own.cloned().unwrap_or_else(|| json!({ "subnet": subnet.to_string() }));
        if one["gateway"].as_str().is_none_or(str::is_empty) {
            one["gateway"] = first(*subnet).to_string().into();
        }
        one
    });
    made["subnets"] = complete.collect::<Vec<_>>().into();
    made["ipv6_enabled"] = subnets.iter().any(IpNetwork::is_ipv6).into();
    Ok(made)
}

/// What the host routes somewhere, and what netd's networks have. Without the daemon the routes have to do.
fn taken(given: &Value) -> Result<Vec<IpNetwork>> {
    let mut rtnl = Rtnl::open().map_err(|error| Failure::of_kernel(&error))?;
    let routes = rtnl.routes().map_err(|error| Failure::of_kernel(&error))?;
    let mut taken: Vec<IpNetwork> = routes.into_iter().map(|route| route.destination).collect();
    let networks = Daemon::at(&socket(given)?)?.call::<List>(&ListParams::default(), &Nothing {});
    for network in networks.unwrap_or_default() {
        taken.extend(network.ipam.config.into_iter().map(|one| IpNetwork::from(one.subnet)));
    }
    Ok(taken)
}

/// The first free /24 of where podman itself looks for one.
fn free(taken: &[IpNetwork]) -> Result<IpNetwork> {
    let pools =
        (89..=255_u8).flat_map(|second| (0..=255_u8).map(move |third| Ipv4Addr::new(10, second, third, 0)));
    let mut candidates = pools.filter_map(|address| Ipv4Network::new(address, 24).ok());
    let is_free = |candidate: &Ipv4Network| {
        let clashes = |other: &IpNetwork| match other {
            IpNetwork::V4(other) => other.prefix() > 0 && other.overlaps(*candidate),
            IpNetwork::V6(_) => false,
        };
        !taken.iter().any(clashes)
    };
    candidates.find(is_free).map(IpNetwork::V4).ok_or_else(|| {
        Failure::new(
            Code::Refused,
            "10.89.0.0 to 10.255.255.0 has no free /24",
            "give the network a --subnet",
        )
    })
}

/// A /64 that follows from the name: the same network gets the same one again.
fn unique_local(name: &str) -> IpNetwork {
    let digits = u64::from_str_radix(&hash(&[name]), 16).unwrap_or_default();
    let address = (0xfd_u128 << 120) | (u128::from(digits >> 8) << 64);
    IpNetwork::new(IpAddr::V6(Ipv6Addr::from(address)), 64)
        .unwrap_or_else(|_| IpAddr::V6(Ipv6Addr::from(address)).into())
}

fn first(subnet: IpNetwork) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).saturating_add(1)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).saturating_add(1)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subnet_that_nothing_touches_is_taken() {
        let networks =
            |list: &[&str]| list.iter().map(|one| one.parse().unwrap()).collect::<Vec<IpNetwork>>();
        assert_eq!(free(&[]).unwrap(), "10.89.0.0/24".parse().unwrap());
        let some = networks(&["0.0.0.0/0", "10.89.0.0/24", "10.89.1.7/32", "10.89.2.0/23", "fd00::/8"]);
        assert_eq!(free(&some).unwrap(), "10.89.4.0/24".parse().unwrap());
        assert_eq!(free(&networks(&["10.0.0.0/8"])).unwrap_err().code, Code::Refused);
    }

    #[test]
    fn an_ipv6_subnet_follows_from_the_name() {
        let subnet = unique_local("app");
        assert_eq!(subnet, unique_local("app"));
        assert_ne!(subnet, unique_local("db"));
        assert!(
            subnet.to_string().starts_with("fd") && subnet.prefix() == 64 && subnet.network() == subnet.ip()
        );
    }
}
