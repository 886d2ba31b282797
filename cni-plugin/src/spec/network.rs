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
    let ip_range = match (address("rangeStart")?, address("rangeEnd")?) {
        (None, None) => None,
        (first, last) => match part(subnet, first, last) {
            Part::Whole => None,
            Part::Block(block) => Some(block),
            Part::Neither => {
                let remedy =
                    "rangeStart and rangeEnd must bound a block as 10.1.2.0 to 10.1.2.127, or be left out";
                return Err(node.unsupported(remedy));
            }
        },
    };
    let gateway = address("gateway")?;
    Ok(Some(CreateSubnet { subnet: Some(subnet), ip_range, gateway, ..CreateSubnet::default() }))
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All but what is never handed out anyway: the network's own address, the gateway, the broadcast address.
    Whole,
    Block(Subnet),
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
    let Some(size) = last.checked_sub(first).and_then(|steps| steps.checked_add(1)) else {
        return Part::Neither;
    };
    if !size.is_power_of_two() || first % size != 0 {
        return Part::Neither;
    }
    let length = u32::from(bits) - size.trailing_zeros();
    let address = match bits {
        32 => u32::try_from(first).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(first))),
    };
    let block = address.zip(u8::try_from(length).ok()).and_then(|(ip, length)| Subnet::new(ip, length).ok());
    block.map_or(Part::Neither, Part::Block)
}

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
        assert_eq!(of("10.1.2.0/24", "10.1.2.1", "10.1.2.254"), Part::Whole);
        assert_eq!(of("10.1.2.0/24", "", "10.1.2.255"), Part::Whole);
        assert_eq!(of("10.1.2.0/24", "10.1.2.128", ""), Part::Block("10.1.2.128/25".parse().unwrap()));
        assert_eq!(of("fd00::/64", "fd00::100", "fd00::1ff"), Part::Block("fd00::100/120".parse().unwrap()));
        for (first, last) in
            [("10.1.2.10", "10.1.2.99"), ("10.1.2.99", "10.1.2.10"), ("10.1.3.0", ""), ("fd00::1", "")]
        {
            assert_eq!(of("10.1.2.0/24", first, last), Part::Neither, "{first} {last}");
        }
    }
}
