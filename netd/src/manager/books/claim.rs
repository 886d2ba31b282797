//! Addresses of the cluster's networks. What is free is looked for in what this node knows of all; taking it is a
//! compare-and-put, so that of two nodes that choose one address at the same moment one chooses again.

use std::net::IpAddr;
use std::sync::Arc;

use netd_api::ApiError;

use super::{Books, own};
use crate::error::{Fault, Result};
use crate::ipam::{Holder, IpamError, Leases};
use crate::model::{Id, LeaseHolder, Network, Scope};
use crate::store::{CommitError, encode, lease_key};

/// Times that another node may be faster.
const ATTEMPTS: usize = 32;

/// An address with the length of its subnet's prefix.
pub(crate) type Assigned = (IpAddr, u8);

impl Books {
    /// The address that `choose` takes from the network's table, for good: on a network of the cluster it is nobody
    /// else's on any node. Asked again, with what is known by then, when another node was faster.
    pub(crate) fn claim(
        &mut self,
        network: &Network,
        holder: &Holder,
        as_whom: &LeaseHolder,
        mut choose: impl FnMut(&mut Leases) -> Result<Assigned, IpamError>,
    ) -> Result<Assigned> {
        if network.scope() == Scope::Local {
            return Ok(choose(self.leases_of(&network.id)?)?);
        }
        for _ in 0..ATTEMPTS {
            let guard = self.guard(network)?;
            let (address, prefix) = choose(self.leases_of(&network.id)?)?;
            let key = lease_key(&network.id, address);
            let here = &self.model().here;
            let lease = own::lease(&network.id, address, here, as_whom.clone(), &holder.name);
            let txn = guard.expect_absent(Arc::clone(&key)).put(Arc::clone(&key), encode(&lease)?);
            if let (LeaseHolder::Sandbox(_), Some(cluster)) = (as_whom, &mut self.cluster) {
                cluster.claimed.insert(Arc::clone(&key));
            }
            match self.commit_shared(&txn) {
                Ok(_) => return Ok((address, prefix)),
                Err(error) => {
                    self.unclaim(network, address, holder);
                    if !matches!(error, CommitError::Conflict { .. }) {
                        return Err(error.into());
                    }
                    self.search_elsewhere(&network.id);
                }
            }
        }
        let detail = format!("other nodes were faster with {ATTEMPTS} addresses of network {}", network.name);
        Err(Fault::from(ApiError::conflict(detail).remedy("try again in a moment")))
    }

    /// Another node looks where this one does: the next search for a free address begins at random.
    pub(crate) fn search_elsewhere(&mut self, network: &Id) {
        if let Some(leases) = self.leases.get_mut(network) {
            leases.begin_at(rand::random());
        }
    }

    /// Takes back what was claimed, or leased, for something that is not going to be. The cluster's store is told by the
    /// next [`Books::settle`].
    pub(crate) fn unclaim(&mut self, network: &Network, address: IpAddr, holder: &Holder) {
        if network.scope() == Scope::Local {
            if let Some(leases) = self.leases.get_mut(&network.id) {
                leases.release(address, &holder.sandbox);
            }
            return;
        }
        let key = lease_key(&network.id, address);
        if let Some(cluster) = &mut self.cluster {
            cluster.claimed.remove(&key);
            cluster.suspect(Arc::clone(&key));
            cluster.unsettled = true;
        }
        // What the watch has told stays until the watch tells that it is gone.
        if let Some(leases) = self.leases.get_mut(&network.id) {
            leases.release(address, &holder.sandbox);
        }
        self.follow_lease(&key);
    }
}
