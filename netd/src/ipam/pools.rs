//! The ranges that subnets are cut from when the user names none.
//!
//! A Linux bridge has at most 1023 ports, so the default size /22 (1021 sandboxes) is the smallest that cannot run dry
//! before the bridge does; the default pools hold 5,088 of them. 172.16/16 and the lower half of 192.168/16 are left
//! out because home and office routers live there, and 10/8 comes last because VPNs do.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{Invalid, IpamError, some_of};
use super::host::HostUse;
use super::runs::Runs;
use super::span::{Family, Span, block, canonical};

/// `base` cut into subnets with a prefix of `size` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    pub base: IpNetwork,
    pub size: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pools(Vec<Pool>);

/// What must be kept clear of: the subnets of other networks by name, and what the host itself routes or asks.
pub(super) struct Taken<'a> {
    pub networks: Vec<(&'a str, IpNetwork)>,
    pub host: &'a [HostUse],
}

const DEFAULT_SIZE: u8 = 22;
const DEFAULT_V4: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(172, 17, 0, 0), 16),
    (Ipv4Addr::new(172, 18, 0, 0), 15),
    (Ipv4Addr::new(172, 20, 0, 0), 14),
    (Ipv4Addr::new(172, 24, 0, 0), 13),
    (Ipv4Addr::new(192, 168, 128, 0), 17),
    (Ipv4Addr::new(10, 192, 0, 0), 10),
];

impl Pools {
    /// The given pools; a family without any gets the default ones. IPv6 is then a unique local /48 (RFC 4193) that
    /// the same `seed` always leads to: give something that is this machine's own and stays.
    pub(crate) fn new(given: &[Pool], seed: &[u8]) -> Result<Self, IpamError> {
        let mut pools = Vec::with_capacity(given.len() + DEFAULT_V4.len() + 1);
        for pool in given {
            pools.push(pool.checked()?);
        }
        for (index, pool) in pools.iter().enumerate() {
            if let Some(other) = pools[..index].iter().find(|other| span(other).overlaps(&span(pool))) {
                return Err(Invalid::PoolsOverlap { first: other.base, second: pool.base }.into());
            }
        }
        if !pools.iter().any(|pool| pool.base.is_ipv4()) {
            pools.extend(DEFAULT_V4.iter().map(|&(base, prefix)| {
                let base = Ipv4Network::new(base, prefix).expect("the default prefixes are at most 32");
                Pool { base: base.into(), size: DEFAULT_SIZE }
            }));
        }
        if !pools.iter().any(|pool| pool.base.is_ipv6()) {
            pools.push(unique_local(seed));
        }
        Ok(Self(pools))
    }

    /// The first free subnet in the order of the pools, of their own size or of the one asked for.
    pub(super) fn pick(
        &self,
        family: Family,
        size: Option<u8>,
        taken: &Taken<'_>,
    ) -> Result<IpNetwork, IpamError> {
        let occupied = taken.runs(family);
        let pools = || self.0.iter().filter(|pool| span(pool).family == family);
        for pool in pools() {
            let prefix = size.unwrap_or(pool.size);
            if let Some(found) = first_free(span(pool), prefix, &occupied) {
                return Ok(found);
            }
        }
        Err(IpamError::PoolsExhausted {
            family,
            size: size.or_else(|| pools().next().map(|pool| pool.size)).unwrap_or_default(),
            pools: pools().map(|pool| pool.base.to_string()).collect::<Vec<_>>().join(", "),
            holders: taken.holders(family),
            host: taken.host(family).count(),
        })
    }
}

impl Pool {
    fn checked(self) -> Result<Self, Invalid> {
        let fixed = canonical(self.base);
        if fixed != self.base {
            return Err(Invalid::HostBits { what: "address pool", given: self.base, fixed });
        }
        // A /30 or /126 is the smallest subnet with a gateway and room for more than one sandbox.
        let most = Family::of(self.base.ip()).bits() - 2;
        let least = self.base.prefix();
        if !(least..=most).contains(&self.size) {
            return Err(Invalid::PoolSize { base: self.base, size: self.size, least, most });
        }
        Ok(self)
    }
}

impl Taken<'_> {
    fn of(&self, family: Family) -> impl Iterator<Item = (&str, IpNetwork)> {
        self.networks.iter().copied().filter(move |(_, subnet)| Family::of(subnet.ip()) == family)
    }

    fn host(&self, family: Family) -> impl Iterator<Item = IpNetwork> {
        self.host.iter().map(HostUse::space).filter(move |space| Family::of(space.ip()) == family)
    }

    fn runs(&self, family: Family) -> Runs {
        let mut runs = Runs::default();
        for network in self.of(family).map(|(_, subnet)| subnet).chain(self.host(family)) {
            let Span { first, last, .. } = network.into();
            runs.insert(first, last);
        }
        runs
    }

    fn holders(&self, family: Family) -> String {
        let total = self.of(family).count();
        some_of("networks", total, self.of(family).map(|(name, subnet)| format!("{name} ({subnet})")))
    }
}

fn first_free(pool: Span, prefix: u8, occupied: &Runs) -> Option<IpNetwork> {
    let host_bits = u32::from(pool.family.bits().checked_sub(prefix)?);
    let step = 1_u128.checked_shl(host_bits)?;
    let mut first = pool.first;
    loop {
        let last = first.checked_add(step - 1)?;
        if last > pool.last {
            return None;
        }
        match occupied.obstacle(first, last) {
            None => return Some(block(pool.family, first, prefix)),
            // The next block that starts behind what is in the way.
            Some(end) => first = end.checked_add(1)?.checked_next_multiple_of(step)?,
        }
    }
}

fn span(pool: &Pool) -> Span {
    pool.base.into()
}

fn unique_local(seed: &[u8]) -> Pool {
    let hash = Sha256::digest(seed);
    let global_id = hash[..5].iter().fold(0_u128, |id, &byte| id << 8 | u128::from(byte));
    let base = Ipv6Addr::from_bits(0xfd << 120 | global_id << 80);
    Pool { base: Ipv6Network::new(base, 48).expect("48 is at most 128").into(), size: 64 }
}
