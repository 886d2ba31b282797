//! Ranges of addresses, as `ipam.ranges` has them: what may be handed out, and which comes next. Pure.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netd_api::value::Subnet;

use crate::error::Result;
use crate::spec::Node;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub subnet: Subnet,
    pub gateway: IpAddr,
    first: u128,
    last: u128,
}

/// One address of each set is what a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<Range>);

impl Range {
    fn read(node: &Node<'_>, subnet: &Node<'_>) -> Result<Self> {
        let given = subnet;
        let subnet: Subnet = subnet.parse()?;
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(
                given.invalid(&"a subnet this small has no address for a gateway and for a container")
            );
        }
        let (lowest, highest) = (number(subnet.network()), number(subnet.broadcast()));
        let bound = |key: &str, default: u128| match node.member(key)? {
            None => Ok(default),
            Some(bound) => {
                let address: IpAddr = bound.parse()?;
                let inside = subnet.contains(address);
                inside
                    .then(|| number(address))
                    .ok_or_else(|| bound.invalid(&format!("it is not in {subnet}")))
            }
        };
        let gateway = bound("gateway", lowest + 1)?;
        let first = bound("rangeStart", lowest + 1)?;
        let last = bound("rangeEnd", if bits == 32 { highest - 1 } else { highest })?;
        if first > last {
            return Err(node.invalid(&"rangeStart lies behind rangeEnd"));
        }
        Ok(Self { subnet, gateway: address(subnet, gateway), first, last })
    }

    fn contains(&self, wanted: IpAddr) -> bool {
        self.subnet.contains(wanted) && (self.first..=self.last).contains(&number(wanted))
    }

    /// Neither the network's own address nor the broadcast address is anybody's, whatever the bounds say.
    fn is_allocatable(&self, wanted: IpAddr) -> bool {
        let is_broadcast = wanted.is_ipv4() && wanted == self.subnet.broadcast();
        self.contains(wanted) && wanted != self.gateway && wanted != self.subnet.network() && !is_broadcast
    }

    fn overlaps(&self, other: &Self) -> bool {
        let same_family = self.subnet.is_ipv4() == other.subnet.is_ipv4();
        same_family && self.first <= other.last && other.first <= self.last
    }

    fn walk(&self, first: u128, last: u128) -> impl Iterator<Item = IpAddr> + '_ {
        (first.max(self.first)..=last.min(self.last))
            .map(|number| address(self.subnet, number))
            .filter(|address| self.is_allocatable(*address))
    }
}

impl RangeSet {
    /// `None` if it is empty.
    pub(super) fn read(node: &Node<'_>) -> Result<Option<Self>> {
        let mut ranges: Vec<Range> = Vec::new();
        for one in node.items()? {
            let subnet = one.member("subnet")?.ok_or_else(|| one.invalid(&"it has no subnet"))?;
            let range = Range::read(&one, &subnet)?;
            if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
                return Err(one.invalid(&format!("it overlaps {other}")));
            }
            if ranges.first().is_some_and(|other| other.subnet.is_ipv4() != range.subnet.is_ipv4()) {
                return Err(one.invalid(&"the ranges of one set must be of one family"));
            }
            ranges.push(range);
        }
        Ok((!ranges.is_empty()).then_some(Self(ranges)))
    }

    /// The older form: a single range, directly in `ipam`.
    pub(super) fn single(ipam: &Node<'_>) -> Result<Option<Self>> {
        let Some(subnet) = ipam.member("subnet")? else { return Ok(None) };
        Ok(Some(Self(vec![Range::read(ipam, &subnet)?])))
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|one| other.0.iter().any(|two| one.overlaps(two)))
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.0.iter().any(|range| range.subnet.is_ipv4())
    }

    pub(super) fn range_of(&self, wanted: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(wanted))
    }

    /// That address, if it may be handed out and nobody has it.
    pub(super) fn exactly(&self, wanted: IpAddr, taken: &HashSet<IpAddr>) -> Result<&Range, String> {
        let range =
            self.range_of(wanted).ok_or_else(|| format!("{wanted} is not in the range set {self}"))?;
        if wanted == range.gateway {
            return Err(format!("{wanted} is the subnet's gateway"));
        }
        if !range.is_allocatable(wanted) {
            return Err(format!("{wanted} is no address for a container"));
        }
        if taken.contains(&wanted) {
            return Err(format!("{wanted} is taken in the range set {self}"));
        }
        Ok(range)
    }

    /// The first free one behind `last`, round all ranges once: a freed address rests as long as it can.
    pub(super) fn next(&self, last: Option<IpAddr>, taken: &HashSet<IpAddr>) -> Option<(IpAddr, &Range)> {
        let ranges = &self.0;
        let start = last.and_then(|last| {
            let index = ranges.iter().position(|range| range.contains(last))?;
            Some((index, number(last)))
        });
        let (index, behind) = start.map_or((0, None), |(index, last)| (index, Some(last)));
        let from = behind.map_or(0, |last| last.saturating_add(1));
        let rest = (1..ranges.len()).map(|step| (&ranges[(index + step) % ranges.len()], 0, u128::MAX));
        let first = ranges.get(index)?;
        let legs = [(first, from, u128::MAX)].into_iter().chain(rest);
        let legs = legs.chain(behind.map(|last| (first, 0, last)));
        legs.flat_map(|(range, from, to)| range.walk(from, to).map(move |address| (address, range)))
            .find(|(address, _)| !taken.contains(address))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", address(self.subnet, self.first), address(self.subnet, self.last))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(subnet: Subnet, number: u128) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if subnet.is_ipv4() => Ipv4Addr::from(number).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}
