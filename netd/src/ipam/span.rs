//! Addresses as numbers: a span is a run of addresses of one family, both ends included.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub family: Family,
    pub first: u128,
    pub last: u128,
}

impl Family {
    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address of this family with that number.
    pub(crate) fn address(self, number: u128) -> IpAddr {
        match self {
            // The caller's number came out of a v4 span, so the upper bits are zero.
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Span {
    /// The addresses a host may have: without the network and broadcast addresses of IPv4 (RFC 3021 frees both of a
    /// /31) and without the subnet-router anycast address of IPv6 (RFC 6164 frees it in a /127).
    pub(crate) fn hosts(subnet: IpNetwork) -> Self {
        let mut span = Self::from(subnet);
        if subnet.prefix() + 1 < span.family.bits() {
            span.first += 1;
            if span.family == Family::V4 {
                span.last -= 1;
            }
        }
        span
    }

    pub(crate) const fn contains(&self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    pub(crate) fn within(&self, outer: &Self) -> bool {
        self.family == outer.family && outer.first <= self.first && self.last <= outer.last
    }

    /// How many addresses, or `u128::MAX` where all of IPv6 does not fit.
    pub(crate) const fn len(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

impl From<IpNetwork> for Span {
    fn from(network: IpNetwork) -> Self {
        let family = Family::of(network.ip());
        let host_bits = u32::from(family.bits() - network.prefix());
        let mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
        let number = number(network.ip());
        Self { family, first: number & !mask, last: number | mask }
    }
}

pub(super) const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The network with the host bits cleared.
pub(super) fn canonical(network: IpNetwork) -> IpNetwork {
    block(Family::of(network.ip()), Span::from(network).first, network.prefix())
}

/// The network of that size that starts at that number.
pub(super) fn block(family: Family, first: u128, prefix: u8) -> IpNetwork {
    IpNetwork::new(family.address(first), prefix).expect("the prefix was checked against its family")
}
