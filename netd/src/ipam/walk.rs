//! The next free address of a subnet whose holders are kept elsewhere.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::Invalid;
use super::plan::assignable;
use super::span::{Family, Span, number};

/// The first address behind `after`, in `part` of the subnet and round and round, that a host may have and that is not
/// taken. The walk is as long as there are taken addresses in a row.
pub(crate) fn next_free(
    subnet: IpNetwork,
    part: IpNetwork,
    after: Option<IpAddr>,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let (hosts, part) = (Span::hosts(subnet), Span::from(part));
    let (first, last) = (hosts.first.max(part.first), hosts.last.min(part.last));
    let turn = after.map(number).filter(|number| (first..last).contains(number)).map_or(first, |at| at + 1);
    let family = Family::of(subnet.ip());
    (turn..=last).chain(first..turn).map(|number| family.address(number)).find(|&address| !is_taken(address))
}

/// Refuses what lies outside of the subnet, and what no host may have.
pub(crate) fn check_address(address: IpAddr, subnet: IpNetwork) -> Result<(), Invalid> {
    if subnet.contains(address) {
        return assignable("address", address, subnet);
    }
    Err(Invalid::Outside { what: "address".into(), given: address.to_string(), subnet })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(subnet: &str, part: &str, after: Option<&str>, taken: &[&str]) -> Option<String> {
        let taken: Vec<IpAddr> = taken.iter().map(|address| address.parse().unwrap()).collect();
        let after = after.map(|address| address.parse().unwrap());
        next_free(subnet.parse().unwrap(), part.parse().unwrap(), after, |address| taken.contains(&address))
            .map(|address| address.to_string())
    }

    #[test]
    fn the_walk_goes_on_behind_the_last_one_and_comes_round() {
        let net = "10.1.0.0/29";
        assert_eq!(free(net, net, None, &[]).unwrap(), "10.1.0.1");
        assert_eq!(free(net, net, Some("10.1.0.3"), &["10.1.0.4"]).unwrap(), "10.1.0.5");
        assert_eq!(free(net, net, Some("10.1.0.6"), &["10.1.0.1"]).unwrap(), "10.1.0.2");
        assert_eq!(free(net, "10.1.0.4/30", Some("10.1.0.2"), &[]).unwrap(), "10.1.0.4");
    }

    #[test]
    fn the_network_and_broadcast_addresses_are_nobodys() {
        let all = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"];
        assert_eq!(free("10.1.0.0/29", "10.1.0.0/29", Some("10.1.0.2"), &all), None);
        assert_eq!(free("fd00::/64", "fd00::/64", None, &[]).unwrap(), "fd00::1");
        assert!(check_address("10.1.0.7".parse().unwrap(), "10.1.0.0/29".parse().unwrap()).is_err());
        assert!(check_address("10.1.1.1".parse().unwrap(), "10.1.0.0/29".parse().unwrap()).is_err());
        assert!(check_address("10.1.0.6".parse().unwrap(), "10.1.0.0/29".parse().unwrap()).is_ok());
    }
}
