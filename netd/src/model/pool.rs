//! What an IPAM plugin remembers between Docker's calls: subnets that were promised, and addresses out of them. Networks
//! and endpoints take them up later, or never, if they belong to another driver.

use std::net::IpAddr;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Id;

/// A subnet promised to Docker. Its id is the subnet as text, so that asking again for the same one finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddressPool {
    pub id: Id,
    pub subnet: IpNetwork,
    /// Dynamic addresses come from this part of the subnet only.
    pub range: Option<IpNetwork>,
    pub since: SystemTime,
}

/// An address given out of a pool; the id is `<pool>/<address>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolAddress {
    pub id: Id,
    pub pool: Id,
    pub address: IpAddr,
    pub purpose: Purpose,
    pub since: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    Gateway,
    /// An endpoint's, or one that the user keeps off: Docker does not say which.
    Host,
}

impl AddressPool {
    pub(crate) fn new(subnet: IpNetwork, range: Option<IpNetwork>, since: SystemTime) -> Self {
        Self { id: subnet.to_string().into(), subnet, range, since }
    }

    pub(crate) fn address(&self, address: IpAddr, purpose: Purpose, since: SystemTime) -> PoolAddress {
        let id = format!("{}/{address}", self.id).into();
        PoolAddress { id, pool: Id::clone(&self.id), address, purpose, since }
    }
}
