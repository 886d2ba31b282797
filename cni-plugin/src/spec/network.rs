//! The network that ADD makes when it is not there: from `subnet`, `ipv6`, `mtu`, `internal`, `isGateway`, `ipMasq`
//! and `ipam.ranges`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netd_api::network::{CreateIpam, CreateNetwork, CreateSubnet, Driver};
use netd_api::value::Subnet;

use super::Config;
use super::node::Node;
use crate::error::Result;

impl Config {
    pub(crate) fn create_network(&self) -> Result<CreateNetwork> {
        let root = self.root();
        let flag = |key: &str| root.member(key)?.map(|node| node.flag()).transpose();
        let mut config = subnets(&root)?;
        if config.is_empty() {
            config.extend(
                self.ranges()?
                    .into_iter()
                    .map(|subnet| CreateSubnet { subnet: Some(subnet), ..CreateSubnet::default() }),
            );
        }
        let has_v6 = config.iter().any(|one| one.subnet.is_some_and(|subnet| subnet.is_ipv6()));
        let mut options = BTreeMap::new();
        let mtu: Option<u32> = root.member("mtu")?.map(|node| node.number()).transpose()?;
        if let Some(mtu) = mtu.filter(|mtu| *mtu != 0) {
            options.insert("mtu".to_owned(), mtu.to_string());
        }
        if flag("ipMasq")? == Some(false) {
            options.insert("masquerade".to_owned(), "false".to_owned());
        }
        Ok(CreateNetwork {
            name: self.network.clone(),
            driver: Driver::Bridge,
            enable_ipv6: flag("ipv6")?.unwrap_or(has_v6),
            ipam: CreateIpam { config },
            // A bridge that is nobody's gateway leads nowhere.
            internal: flag("internal")?.unwrap_or(false) || flag("isGateway")? == Some(false),
            options,
            labels: BTreeMap::new(),
        })
    }
}

impl Config {
    /// `ipRanges`, as far as it names subnets.
    pub(super) fn ranges(&self) -> Result<Vec<Subnet>> {
        let mut subnets = Vec::new();
        let Some(ranges) = self.root().at(&["runtimeConfig", "ipRanges"])? else { return Ok(subnets) };
        for set in ranges.items()? {
            for one in set.items()? {
                if let Some(subnet) = one.member("subnet")?.filter(|node| node.value().as_str() != Some("")) {
                    subnets.push(subnet.parse()?);
                }
            }
        }
        Ok(subnets)
    }
}

/// One a family at most: the daemon says so if there are more.
fn subnets(root: &Node<'_>) -> Result<Vec<CreateSubnet>> {
    let mut config = Vec::new();
    if let Some(subnet) = root.member("subnet")? {
        config.push(CreateSubnet { subnet: Some(subnet.parse()?), ..CreateSubnet::default() });
    }
    let Some(ipam) = root.member("ipam")? else { return Ok(config) };
    // The older form: a single range, directly in `ipam`.
    config.extend(range(&ipam)?);
    if let Some(ranges) = ipam.member("ranges")? {
        for set in ranges.items()? {
            for one in set.items()? {
                config.extend(range(&one)?);
            }
        }
    }
    Ok(config)
}

fn range(node: &Node<'_>) -> Result<Option<CreateSubnet>> {
    let Some(given) = node.member("subnet")? else { return Ok(None) };
    let subnet: Subnet = given.parse()?;
    let address = |key: &str| node.member(key)?.map(|node| node.parse::<IpAddr>()).transpose();
    let gateway = address("gateway")?;
    let mut config = CreateSubnet { subnet: Some(subnet), gateway, ..CreateSubnet::default() };
    let (first, last) = (address("rangeStart")?, address("rangeEnd")?);
    match part(subnet, first, last) {
        Part::Whole => {}
        Part::Block(block, outside) => {
            config.ip_range = Some(block).filter(|block| *block != subnet);
            let others = outside.into_iter().filter(|address| Some(*address) != gateway);
            config.auxiliary_addresses =
                others.map(|address| (format!("outside the range: {address}"), address)).collect();
        }
        Part::Neither => {
            let remedy = "rangeStart and rangeEnd must bound a block as 10.1.2.0 to 10.1.2.127, or nearly, in the subnet";
            return Err(node.unsupported(remedy));
        }
    }
    Ok(Some(config))
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All but what is never handed out anyway: the network's own address, the gateway, the broadcast address.
    Whole,
    /// With those of its addresses that are outside the bounds.
    Block(Subnet, Vec<IpAddr>),
    Neither,
}

fn part(subnet: Subnet, first: Option<IpAddr>, last: Option<IpAddr>) -> Part {
    let (bits, lowest) = number(subnet.network());
    let highest = number(subnet.broadcast()).1;
    let bound = |address: Option<IpAddr>, default| match address.map(number) {
        None => Some(default),
        Some((width, address)) => (width == bits && (lowest..=highest).contains(&address)).then_some(address),
    };
    let (Some(first), Some(last)) = (bound(first, lowest), bound(last, highest)) else {
        return Part::Neither;
    };
    if first - lowest <= 2 && highest - last <= 1 {
        return Part::Whole;
    }
    // The smallest block with both in it: what differs between them is free in it.
    let free = 128 - (first ^ last).leading_zeros();
    let mask = 1_u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
    let (start, end) = (first & !mask, first | mask);
    if last < first || (first - start).saturating_add(end - last) > MOST_OUTSIDE {
        return Part::Neither;
    }
    let address = |number: u128| match u32::try_from(number) {
        Ok(number) if bits == 32 => IpAddr::V4(Ipv4Addr::from(number)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    };
    let is_nobodys = |number: &u128| *number == lowest || (bits == 32 && *number == highest);
    let outside = (start..first).chain(last.saturating_add(1)..=end);
    let outside = outside.filter(|number| !is_nobodys(number)).map(address).collect();
    let length = u8::try_from(u32::from(bits) - free).unwrap_or(bits);
    Subnet::new(address(start), length).map_or(Part::Neither, |block| Part::Block(block, outside))
}

/// As many as a record of a network may hold without anybody noticing.
const MOST_OUTSIDE: u128 = 256;

/// How many bits it has, and which number it is.
fn number(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (128, u128::from(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(subnet: &str, first: &str, last: &str) -> Part {
        part(subnet.parse().unwrap(), first.parse().ok(), last.parse().ok())
    }

    #[test]
    fn a_range_is_the_whole_subnet_or_a_block_of_it() {
        let block = |block: &str, outside: &[&str]| {
            let outside = outside.iter().map(|address| address.parse().unwrap()).collect();
            Part::Block(block.parse().unwrap(), outside)
        };
        assert_eq!(of("10.1.2.0/24", "10.1.2.1", "10.1.2.254"), Part::Whole);
        assert_eq!(of("10.1.2.0/24", "", "10.1.2.255"), Part::Whole);
        assert_eq!(of("10.1.2.0/24", "10.1.2.128", ""), block("10.1.2.128/25", &[]));
        // What podman makes of `--ip-range 10.1.2.128/25`, and of a smaller one.
        assert_eq!(of("10.1.2.0/24", "10.1.2.129", "10.1.2.255"), block("10.1.2.128/25", &["10.1.2.128"]));
        assert_eq!(of("10.1.2.0/24", "10.1.2.65", "10.1.2.67"), block("10.1.2.64/30", &["10.1.2.64"]));
        assert_eq!(of("fd00::/64", "fd00::100", "fd00::1ff"), block("fd00::100/120", &[]));
        assert_eq!(
            of("10.1.2.0/24", "10.1.2.9", "10.1.2.13"),
            block("10.1.2.8/29", &["10.1.2.8", "10.1.2.14", "10.1.2.15"])
        );
        let Part::Block(whole, outside) = of("10.1.2.0/24", "10.1.2.10", "10.1.2.200") else {
            panic!("a block")
        };
        assert_eq!((whole.to_string(), outside.len()), ("10.1.2.0/24".into(), 9 + 54));
        assert_eq!(of("fd00::/64", "fd00::9", "fd00::9"), block("fd00::9/128", &[]));
        for (subnet, first, last) in [
            ("10.1.2.0/24", "10.1.2.99", "10.1.2.10"),
            ("10.1.2.0/24", "10.1.3.0", ""),
            ("10.1.2.0/24", "fd00::1", ""),
            ("10.1.0.0/16", "10.1.2.0", "10.1.9.0"),
            ("fd00::/64", "fd00::1000", "fd00::ffff"),
        ] {
            assert_eq!(of(subnet, first, last), Part::Neither, "{first} {last}");
        }
    }
}
