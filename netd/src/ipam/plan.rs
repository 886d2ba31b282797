//! A network's subnets, from what the user asked for: checked, completed, and clear of everything else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::{Invalid, IpamError};
use super::host::HostUse;
use super::pools::{Pools, Taken};
use super::span::{Family, Span, canonical, number};
use crate::model::{Network, Subnet};

/// One subnet as asked for. An unspecified address with a prefix (`0.0.0.0/24`, `::/64`) asks for any subnet of that
/// size out of the pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubnetRequest {
    pub subnet: IpNetwork,
    pub gateway: Option<IpAddr>,
    pub range: Option<IpNetwork>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl SubnetRequest {
    fn asks_for_any(&self) -> bool {
        self.subnet.ip().is_unspecified() && self.subnet.prefix() > 0
    }
}

/// The subnets of a new network, IPv4 first. There is always an IPv4 one; IPv6 is there when a subnet of it is
/// requested or `ipv6` says so. `networks` are those that exist. Subnets out of the pools keep clear of them and of all
/// that the host uses, subnets given by the user of them and of the host's routes.
pub(crate) fn plan<'a>(
    requests: &[SubnetRequest],
    ipv6: bool,
    pools: &Pools,
    networks: impl IntoIterator<Item = &'a Network>,
    host: &'a [HostUse],
) -> Result<Vec<Subnet>, IpamError> {
    let taken = taken(networks, host);
    let mut subnets = Vec::with_capacity(2);
    for family in [Family::V4, Family::V6] {
        let mut asked = requests.iter().filter(|request| Family::of(request.subnet.ip()) == family);
        match (asked.next(), asked.next()) {
            (Some(first), Some(second)) => {
                let (first, second) = (first.subnet, second.subnet);
                return Err(Invalid::TwoSubnets { family, first, second }.into());
            }
            (Some(request), None) => subnets.push(settle(request, pools, &taken)?),
            (None, _) if family == Family::V4 || ipv6 => {
                let subnet = pools.pick(family, None, &taken)?;
                subnets.push(complete(subnet, None, None, &BTreeMap::new())?);
            }
            (None, _) => {}
        }
    }
    Ok(subnets)
}

/// One subnet that no network has yet: as asked for, or out of the pools. The gateway is whoever makes the network's to
/// choose.
pub(crate) fn plan_one<'a>(
    request: Option<&SubnetRequest>,
    family: Family,
    pools: &Pools,
    networks: impl IntoIterator<Item = &'a Network>,
    host: &'a [HostUse],
) -> Result<IpNetwork, IpamError> {
    let taken = taken(networks, host);
    match request {
        Some(request) => Ok(settle(request, pools, &taken)?.subnet),
        None => pools.pick(family, None, &taken),
    }
}

fn taken<'a>(networks: impl IntoIterator<Item = &'a Network>, host: &'a [HostUse]) -> Taken<'a> {
    let subnets =
        |network: &'a Network| network.subnets.iter().map(move |subnet| (&*network.name, subnet.subnet));
    Taken { networks: networks.into_iter().flat_map(subnets).collect(), host }
}

fn settle(request: &SubnetRequest, pools: &Pools, taken: &Taken<'_>) -> Result<Subnet, IpamError> {
    let subnet = if request.asks_for_any() {
        large_enough(request.subnet)?;
        pools.pick(Family::of(request.subnet.ip()), Some(request.subnet.prefix()), taken)?
    } else {
        clear(request.subnet, taken)?
    };
    Ok(complete(subnet, request.gateway, request.range, &request.auxiliary)?)
}

fn clear(subnet: IpNetwork, taken: &Taken<'_>) -> Result<IpNetwork, IpamError> {
    without_host_bits("subnet", subnet)?;
    ordinary(subnet)?;
    large_enough(subnet)?;
    let span = Span::from(subnet);
    if let Some(&(network, other)) =
        taken.networks.iter().find(|(_, other)| Span::from(*other).overlaps(&span))
    {
        return Err(IpamError::Overlap { subnet, network: network.into(), other });
    }
    for used in taken.host.iter().filter(|used| Span::from(used.space()).overlaps(&span)) {
        match used {
            HostUse::Route { to, device } => {
                let device = device.as_ref().map(|device| format!(" through {device}")).unwrap_or_default();
                return Err(IpamError::Routed { subnet, route: *to, device });
            }
            HostUse::Promised(other) => return Err(IpamError::Promised { subnet, other: *other }),
            HostUse::Resolver(_) => {}
        }
    }
    Ok(subnet)
}

fn complete(
    subnet: IpNetwork,
    gateway: Option<IpAddr>,
    range: Option<IpNetwork>,
    auxiliary: &BTreeMap<String, IpAddr>,
) -> Result<Subnet, Invalid> {
    for (name, &address) in auxiliary {
        inside(|| format!("auxiliary address {name}"), address, subnet)?;
    }
    if let Some(range) = range {
        without_host_bits("range", range)?;
        if !Span::from(range).within(&subnet.into()) {
            return Err(Invalid::Outside { what: "range".into(), given: range.to_string(), subnet });
        }
    }
    let gateway = match gateway {
        Some(address) => {
            inside(|| "gateway".into(), address, subnet)?;
            assignable("gateway", address, subnet)?;
            address
        }
        None => first_host(subnet, auxiliary)?,
    };
    Ok(Subnet { subnet, gateway, range, auxiliary: auxiliary.clone() })
}

fn first_host(subnet: IpNetwork, auxiliary: &BTreeMap<String, IpAddr>) -> Result<IpAddr, Invalid> {
    let hosts = Span::hosts(subnet);
    (hosts.first..=hosts.last)
        .map(|number| hosts.family.address(number))
        .find(|address| !auxiliary.values().any(|taken| taken == address))
        .ok_or(Invalid::TooSmall { subnet })
}

/// Refuses the addresses of a subnet that no host may have.
pub(super) fn assignable(what: &str, address: IpAddr, subnet: IpNetwork) -> Result<(), Invalid> {
    if Span::hosts(subnet).contains(number(address)) {
        return Ok(());
    }
    let kind = match address {
        IpAddr::V4(_) if number(address) == Span::from(subnet).last => "broadcast address",
        IpAddr::V4(_) => "network address",
        IpAddr::V6(_) => "subnet-router anycast address",
    };
    Err(Invalid::Reserved { what: what.into(), address, kind, subnet })
}

fn inside(what: impl Fn() -> String, address: IpAddr, subnet: IpNetwork) -> Result<(), Invalid> {
    if subnet.contains(address) {
        return Ok(());
    }
    Err(Invalid::Outside { what: what(), given: address.to_string(), subnet })
}

fn without_host_bits(what: &'static str, given: IpNetwork) -> Result<(), Invalid> {
    let fixed = canonical(given);
    if fixed == given { Ok(()) } else { Err(Invalid::HostBits { what, given, fixed }) }
}

fn large_enough(subnet: IpNetwork) -> Result<(), Invalid> {
    if Span::hosts(subnet).len() < 2 { Err(Invalid::TooSmall { subnet }) } else { Ok(()) }
}

/// Refuses what the kernel would not route to a sandbox.
fn ordinary(subnet: IpNetwork) -> Result<(), Invalid> {
    const SPECIAL: [(&str, &str); 7] = [
        ("0.0.0.0/8", "\"this network\""),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/96", "unspecified and loopback"),
        ("ff00::/8", "multicast"),
        ("fe80::/10", "link-local"),
    ];
    let span = Span::from(subnet);
    for (special, why) in SPECIAL {
        let special: IpNetwork = special.parse().expect("the table above holds networks");
        if Span::from(special).overlaps(&span) {
            return Err(Invalid::Special { subnet, why });
        }
    }
    Ok(())
}
