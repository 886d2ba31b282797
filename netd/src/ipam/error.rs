//! What address management refuses, and what the user can do about it.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::span::Family;

/// [`Self::Invalid`] is the caller's mistake; the others depend on what else there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IpamError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("subnet {subnet} overlaps {other} of network {network}; choose another, or remove that network")]
    Overlap { subnet: IpNetwork, network: Arc<str>, other: IpNetwork },
    #[error(
        "subnet {subnet} overlaps the host's route to {route}{device}; choose another, or remove that route"
    )]
    Routed { subnet: IpNetwork, route: IpNetwork, device: String },
    #[error(
        "subnet {subnet} overlaps {other}, which Docker holds for a network; choose another, or remove the network that \
         has it (docker network ls)"
    )]
    Promised { subnet: IpNetwork, other: IpNetwork },
    #[error("address {address} on network {network} is held by {holder}")]
    AddressTaken { address: IpAddr, network: Arc<str>, holder: String },
    #[error(
        "no {family} subnet of size /{size} is left in the address pools ({pools}): {holders}; {host} routes and \
         resolvers of the host are kept clear of; remove networks that are not used (netd network prune), \
         name a subnet, or configure more address pools"
    )]
    PoolsExhausted { family: Family, size: u8, pools: String, holders: String, host: usize },
    #[error(
        "no {family} address is left on network {network} in {part}: {holders}; remove sandboxes, or make a network \
         with a larger subnet"
    )]
    AddressesExhausted { family: Family, network: Arc<str>, part: IpNetwork, holders: String },
    #[error(
        "no {family} address is left for a service on network {network}: {first} to {last} are kept for services; \
         remove services, name another address of the subnet (--vip), or make a network with a larger subnet"
    )]
    VipsExhausted { family: Family, network: Arc<str>, first: IpAddr, last: IpAddr },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error(
        "subnet {subnet} of network {network} is too small to keep addresses for services; name one (--vip), let the \
         name lead to the endpoints (--endpoint-mode dnsrr), or make a network with a subnet of /28 or larger"
    )]
    NoBand { network: Arc<str>, subnet: IpNetwork },
    #[error("{what} {given} has host bits set; {fixed} is the network of that size")]
    HostBits { what: &'static str, given: IpNetwork, fixed: IpNetwork },
    #[error("{what} {given} is outside of subnet {subnet}; choose one inside")]
    Outside { what: String, given: String, subnet: IpNetwork },
    #[error("a network has one {family} subnet; {first} and {second} were given")]
    TwoSubnets { family: Family, first: IpNetwork, second: IpNetwork },
    #[error("subnet {subnet} leaves no address for a sandbox beside the gateway")]
    TooSmall { subnet: IpNetwork },
    #[error("subnet {subnet} covers {why} addresses, which no host may have")]
    Special { subnet: IpNetwork, why: &'static str },
    #[error("{what} {address} is the {kind} of subnet {subnet}, which no host may have")]
    Reserved { what: String, address: IpAddr, kind: &'static str, subnet: IpNetwork },
    #[error("network {network} has no {family} subnet")]
    NoFamily { network: Arc<str>, family: Family },
    #[error(
        "address pool {base} cannot be cut into subnets of size /{size}; sizes from /{least} to /{most} can"
    )]
    PoolSize { base: IpNetwork, size: u8, least: u8, most: u8 },
    #[error("address pools {first} and {second} overlap")]
    PoolsOverlap { first: IpNetwork, second: IpNetwork },
}

/// The first ten and how many more, so that an error stays one line on a full network.
pub(super) fn some_of(what: &str, total: usize, names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("{total} held by {what}");
    for (index, name) in names.take(SHOWN).enumerate() {
        let separator = if index == 0 { " " } else { ", " };
        write!(text, "{separator}{name}").expect("writing to a string does not fail");
    }
    if total > SHOWN {
        write!(text, " and {} more", total - SHOWN).expect("writing to a string does not fail");
    }
    text
}
