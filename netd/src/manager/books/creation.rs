//! What no two nodes may do at once: make things whose names, numbers or subnets must differ, and remove what others may
//! be about to use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_api::ApiError;
use rand::RngExt as _;

use super::Books;
use crate::error::Result;
use crate::model::{Network, PeerKey, Scope};
use crate::store::{CommitError, Key, Txn, key_of};

/// Times that another node may be faster.
const ATTEMPTS: u32 = 16;
/// Who was slower tries again after a random part of this, twice as much each time, so that many nodes come one after
/// another.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

impl Books {
    /// Of two nodes whose transactions have this, the slower one is refused: it has not known what the other made. So
    /// what a check against the model has found stays true until the commit.
    pub(crate) fn serial(&self, what: &str) -> Txn {
        self.alone(format!("serial/{what}").into())
    }

    /// The same for a key of that name, which may be deleted when there is nothing left that it is about.
    pub(super) fn alone(&self, key: Key) -> Txn {
        let here = self.model().here.as_bytes();
        self.revise(Scope::Shared, &key).put(key, here)
    }

    /// Lets the others go first, after so many lost tries.
    pub(super) fn give_way(&mut self, tries: u32) {
        let most = LONGEST_PAUSE.min(PAUSE.saturating_mul(1 << tries.min(16)));
        let until = Instant::now() + most.mul_f64(rand::rng().random_range(0.0..1.0));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.look_out(left);
        }
    }

    /// Goes through only while this node is a member, and the network is there, as it is known here, and nobody is about
    /// to remove it.
    pub(crate) fn guard(&self, network: &Network) -> Result<Txn> {
        let txn = self.as_member()?;
        let closing = closing(network);
        if self.records.revision_of(Scope::Shared, &closing).is_some() {
            let detail = format!("network {} is being removed", network.name);
            return Err(ApiError::conflict(detail).remedy("choose another network").into());
        }
        let key = key_of::<Network>(&network.id);
        let Some(revision) = self.records.revision_of(Scope::Shared, &key) else {
            return Err(ApiError::not_found(format!("network {} is gone", network.name)).into());
        };
        Ok(txn.expect(key, revision).expect_absent(closing))
    }

    /// Commits what `make` makes of what is known; asks again when another node was faster.
    pub(crate) fn create_shared<T>(
        &mut self,
        what: &str,
        mut make: impl FnMut(&mut Self) -> Result<(Txn, T)>,
    ) -> Result<T> {
        for tries in 0..ATTEMPTS {
            let (txn, made) = make(self)?;
            let txn = txn.and(self.as_member()?).and(self.serial(what));
            match self.commit_shared(&txn) {
                Ok(_) => return Ok(made),
                Err(CommitError::Conflict { .. }) => self.give_way(tries),
                Err(error) => return Err(error.into()),
            }
        }
        let detail = format!("other nodes make {what}s faster than this one can");
        Err(ApiError::conflict(detail).remedy("try again in a moment").into())
    }

    /// Has nobody get an address on the network from now on, and knows who has got one before. That ends with this node,
    /// should it end here: what says so is bound to its life, and what of it is left when it is back is settled away.
    pub(super) fn close_network(&mut self, network: &Network) -> Result<()> {
        let closing = closing(network);
        let here = self.model().here.as_bytes().to_vec();
        let close = self.as_member()?.and(self.revise(Scope::Shared, &closing)).put(closing, here);
        let closed = self.commit_shared(&close)?;
        if self.records.revision(Scope::Shared) < closed {
            let detail = "what other nodes have done on it is not known here yet";
            return Err(ApiError::unavailable(detail).remedy("try again in a moment").into());
        }
        Ok(())
    }

    /// Removes a network that nothing is on, on any node. Whether that is so is looked at when it is closed; it goes only
    /// if it was closed all the time since.
    pub(crate) fn remove_shared_network(&mut self, network: &Network) -> Result<()> {
        self.close_network(network)?;
        let closing = closing(network);
        let key = key_of::<Network>(&network.id);
        let users = self.users(network);
        let txn = self.revise(Scope::Shared, &closing).delete(closing);
        if users.is_empty() {
            let txn = txn.and(self.revise(Scope::Shared, &key)).delete(key);
            return Ok(self.commit_shared(&txn).map(|_| ())?);
        }
        if let Err(error) = self.commit_shared(&txn) {
            tracing::warn!(network = %network.name, %error, "cannot open the network again");
        }
        const SHOWN: usize = 10;
        let mut shown = users.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if let Some(more) = users.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            shown = format!("{shown} and {more} more");
        }
        let detail = format!("network {} is in use: {shown}", network.name);
        Err(ApiError::conflict(detail).remedy("remove or disconnect these first").into())
    }

    /// Who is on the network, wherever.
    pub(crate) fn users(&self, network: &Network) -> Vec<String> {
        let model = self.model();
        let on = PeerKey::On(Arc::clone(&network.id));
        let mut users: Vec<String> = model
            .peers
            .by(&on)
            .map(|peer| format!("sandbox {} on node {}", peer.sandbox_name, peer.node))
            .collect();
        for lease in model.leases.get(&network.id).into_iter().flat_map(|leases| leases.values()) {
            users.push(match lease.is_of_sandbox() {
                true => format!("sandbox {} on node {}", lease.name, lease.node),
                false => format!("service {}", lease.name),
            });
        }
        let services = model.services.values().filter(|service| service.network == network.id);
        users.extend(services.map(|service| format!("service {}", service.name)));
        users.sort();
        users.dedup();
        users
    }
}

fn closing(network: &Network) -> Key {
    format!("closing/{}", network.id).into()
}
