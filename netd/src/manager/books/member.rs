//! Who belongs to the cluster: a node joins by itself at its first start, and again by itself only as long as nobody has
//! removed it. Drain, activate and remove are said by any node about any other.

use std::sync::Arc;
use std::time::SystemTime;

use netd_api::ApiError;
use rand::Rng as _;

use super::Books;
use super::cluster::{Cluster, Standing};
use crate::error::Result;
use crate::model::{Availability, Id, Lease, Member, Node, Peer, PeerKey, Scope};
use crate::store::{CLUSTER, CommitError, Key, MESH_SECRET, Revision, Txn, encode, key_of, left_key};

/// Times that another node may be faster.
const ATTEMPTS: u32 = 16;
/// Of the node's own store: the last term that it was a member in.
pub(super) const TERM: &str = "cluster/term";
/// Writes of one transaction, each with its check.
const WRITES: usize = 48;

impl Books {
    /// Finds out what this node is in the cluster, and joins it if it has never been there. `now` is for people to read.
    pub(crate) fn join(&mut self, now: SystemTime) -> Result<Standing> {
        for tries in 0..ATTEMPTS {
            while self.take_in_shared() {}
            let standing = self.standing_by_records();
            if standing == Standing::Member && self.term.is_none() {
                self.begin_term()?;
            }
            if let Some(cluster) = &mut self.cluster {
                cluster.standing = standing.clone();
            }
            let is_connected = self.condition().is_some_and(|now| now.connected);
            let txn = match standing {
                Standing::Apart if is_connected => self.membership(now)?,
                Standing::Member if is_connected => match self.whereabouts()? {
                    Some(txn) => txn,
                    None => return Ok(standing),
                },
                _ => return Ok(standing),
            };
            match self.commit_shared(&txn) {
                Ok(_) => {}
                Err(CommitError::Conflict { .. }) => self.give_way(tries),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Standing::Apart)
    }

    /// This node has nothing left of the terms before: it is a member from now on, in the cluster's current term.
    pub(crate) fn begin_term(&mut self) -> Result<()> {
        let Some(member) = self.model().members.get(&self.model().here) else { return Ok(()) };
        let term = member.term;
        self.commit_local(&Txn::default().put(TERM, term.to_string().into_bytes()))?;
        self.term = Some(term);
        if let Some(cluster) = &mut self.cluster {
            cluster.want_all();
        }
        Ok(())
    }

    /// As the records tell it, copies on the disk among them.
    fn standing_by_records(&self) -> Standing {
        let Some(cluster) = &self.cluster else { return Standing::Apart };
        let model = self.records.model();
        let other = model.nodes.get(&model.here).filter(|node| node.identity != cluster.node.identity);
        match (other, model.members.get(&model.here)) {
            (Some(other), _) => Standing::NameTaken(Arc::clone(other)),
            (None, None) => Standing::Apart,
            (None, Some(member)) if member.availability == Availability::Removed => Standing::Removed,
            (None, Some(member)) if self.term.is_some_and(|term| term != member.term) => Standing::Stale,
            (None, Some(_)) => Standing::Member,
        }
    }

    /// Has the others know where this node is for as long as it is a member: they hear it by that when its daemon is away.
    fn whereabouts(&self) -> Result<Option<Txn>> {
        let place = self.cluster.as_ref().map(|cluster| cluster.node.place());
        let Some(before) = self.model().members.get(&self.model().here) else { return Ok(None) };
        if before.place == place {
            return Ok(None);
        }
        let after = Member { place, ..Member::clone(before) };
        let key = key_of::<Member>(&after.name);
        Ok(Some(self.revise(Scope::Shared, &key).put(key, encode(&after)?)))
    }

    /// The smallest number that no member has. The first member also gives the cluster its id and
    /// makes the secret that the nodes share.
    fn membership(&self, now: SystemTime) -> Result<Txn> {
        let model = self.records.model();
        let taken = |number: &u16| model.members.values().any(|member| member.number == *number);
        let Some(number) = (1..=u16::MAX).find(|number| !taken(number)) else {
            return Err(ApiError::exhausted("the cluster has 65535 nodes, and takes no more").into());
        };
        let name = Id::clone(&model.here);
        let place = self.cluster.as_ref().map(|cluster| cluster.node.place());
        let member = Member { name, number, term: 0, availability: Availability::Active, joined: now, place };
        let key = key_of::<Member>(&member.name);
        let txn = self.serial("member").expect_absent(Arc::clone(&key)).put(key, encode(&member)?);
        if model.mesh_secret.is_some() {
            return Ok(txn);
        }
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = crate::manager::hex(&secret);
        let txn = txn.expect_absent(CLUSTER).put(CLUSTER, crate::manager::new_id().as_bytes());
        Ok(txn.expect_absent(MESH_SECRET).put(MESH_SECRET, secret.into_bytes()))
    }

    /// Makes the member so, unless it is.
    pub(crate) fn set_availability(&mut self, name: &str, availability: Availability) -> Result<Arc<Member>> {
        for _ in 0..ATTEMPTS {
            self.reachable()?;
            let before = self.member(name)?;
            if before.availability == availability {
                return Ok(before);
            }
            let returns = before.availability == Availability::Removed;
            let term = before.term.wrapping_add(u32::from(returns));
            let after = Member { availability, term, ..Member::clone(&before) };
            let key = key_of::<Member>(&after.name);
            match self.commit_shared(&self.revise(Scope::Shared, &key).put(key, encode(&after)?)) {
                Ok(_) => return Ok(Arc::new(after)),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::conflict(format!("node {name} is being changed by others")).into())
    }

    pub(crate) fn member(&self, name: &str) -> Result<Arc<Member>> {
        self.model().members.get(name).cloned().ok_or_else(|| {
            let remedy = "`netd node ls` shows those there are";
            ApiError::not_found(format!("there is no node {name:?}")).remedy(remedy).into()
        })
    }

    /// Takes a node out of the cluster with all that it has there. Once this is said, nothing more comes from it: all it
    /// writes goes through only while it is a member. A crash on the way leaves the rest to the next attempt.
    pub(crate) fn remove_member(&mut self, name: &str, force: bool) -> Result<()> {
        self.reachable()?;
        let member = self.member(name)?;
        if self.lives(name) && !force {
            let detail = format!("node {name} is alive");
            let remedy =
                "stop it first (`netd down` there), or use --force: its sandboxes leave all overlay networks";
            return Err(ApiError::conflict(detail).remedy(remedy).into());
        }
        let member = self.set_availability(&member.name, Availability::Removed)?;
        self.clear_away(&member)?;
        if self.member(&member.name)?.availability != Availability::Removed {
            return Err(ApiError::conflict(format!("node {name} was activated again meanwhile")).into());
        }
        Ok(())
    }

    /// Takes away what a removed node still has: whoever removed it may have ended on the way.
    fn clear_away(&mut self, member: &Member) -> Result<(), CommitError> {
        let key = key_of::<Member>(&member.name);
        let mut left: Vec<(Key, Revision)> = self.keys_of(&member.name);
        while !left.is_empty() {
            let is_removed = |now: &Arc<Member>| now.availability == Availability::Removed;
            if !self.model().members.get(&member.name).is_some_and(is_removed) {
                return Ok(());
            }
            let part = left.split_off(left.len().saturating_sub(WRITES));
            let txn = part.into_iter().fold(self.revise(Scope::Shared, &key), |txn, (key, revision)| {
                txn.expect(Arc::clone(&key), revision).delete(key)
            });
            match self.commit_shared(&txn) {
                Ok(_) => {}
                // What is bound to its life may go by itself at this very moment.
                Err(CommitError::Conflict { .. }) => left = self.keys_of(&member.name),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The same for all that were removed, by one of those that live.
    pub(super) fn sweep(&mut self) -> Result<(), CommitError> {
        if !self.cluster.as_ref().is_some_and(|cluster| cluster.sweeps) {
            return Ok(());
        }
        let model = self.model();
        let belongs = |member: &&Arc<Member>| member.availability != Availability::Removed;
        let alive = model.members.values().filter(|member| self.lives(&member.name)).filter(belongs);
        let first = alive.min_by_key(|member| member.number).map(|member| Id::clone(&member.name));
        if first.as_ref() == Some(&model.here) {
            let members: Vec<Arc<Member>> = model.members.values().cloned().collect();
            for member in members.iter().filter(|member| !belongs(member)) {
                self.clear_away(member)?;
            }
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.sweeps = false;
        }
        Ok(())
    }

    /// Has others know that this node is taken down on purpose, so that nobody waits for it.
    pub(crate) fn say_goodbye(&mut self) -> Result<()> {
        let key = left_key(&self.model().here);
        let txn = self.as_member()?.and(self.revise(Scope::Shared, &key)).put(key, &b"down"[..]);
        Ok(self.commit_shared(&txn).map(|_| ())?)
    }

    /// This node leaves for good, of its own will: nothing of it is left, and another of its name is a stranger.
    pub(crate) fn resign(&mut self) -> Result<()> {
        let here = Id::clone(&self.model().here);
        if !self.model().members.contains_key(&here) {
            return Ok(());
        }
        self.remove_member(&here, true)?;
        let key = key_of::<Member>(&here);
        let txn = self.revise(Scope::Shared, &key).delete(key);
        Ok(self.commit_shared(&txn).map(|_| ())?)
    }

    /// All that stands in the cluster's store under a node's name, but that it was a member.
    fn keys_of(&self, name: &str) -> Vec<(Key, Revision)> {
        let model = self.model();
        let peers = model.peers.by(&PeerKey::Of(name.into()));
        let endpoints = peers.map(|peer| key_of::<Peer>(&peer.id));
        let of_node = |lease: &&Arc<Lease>| *lease.node == *name && lease.is_of_sandbox();
        let leases = model.leases.values().flat_map(|leases| leases.values()).filter(of_node);
        let leases = leases.map(|lease| key_of::<Lease>(&lease.id));
        let own = self.records.own().keys().filter(|_| *model.here == *name).cloned();
        let mut keys: Vec<Key> = [key_of::<Node>(name), left_key(name)]
            .into_iter()
            .chain(endpoints)
            .chain(leases)
            .chain(own)
            .collect();
        keys.sort();
        keys.dedup();
        let known = |key: Key| Some((Arc::clone(&key), self.records.revision_of(Scope::Shared, &key)?));
        keys.into_iter().filter_map(known).collect()
    }

    /// The cluster's store, if it can be written now.
    pub(super) fn reachable(&self) -> Result<&Cluster> {
        let Some(cluster) = &self.cluster else {
            let detail = "this daemon belongs to no cluster";
            let remedy = "start it with --store etcd://HOST:PORT and --advertise-addr IP";
            return Err(ApiError::invalid(detail).remedy(remedy).into());
        };
        if !self.may_wait {
            self.unheard.set(true);
            return Err(out_of_reach("it has not been asked yet").into());
        }
        let condition = cluster.condition();
        if condition.connected {
            return Ok(cluster);
        }
        Err(out_of_reach(condition.cause.as_deref().unwrap_or("it has not answered yet")).into())
    }

    /// The same for what only a member may do.
    pub(crate) fn as_member(&self) -> Result<Txn> {
        let cluster = self.reachable()?;
        let here = &self.model().here;
        match (&cluster.standing, self.member_guard()) {
            (Standing::Member, Some(guard)) => Ok(guard),
            (Standing::Removed | Standing::Stale, _) => {
                let detail = format!("node {here} was removed from the cluster");
                Err(ApiError::forbidden(detail).remedy(format!("`netd node activate {here}`")).into())
            }
            (Standing::NameTaken(other), _) => {
                Err(ApiError::conflict(name_taken(other)).remedy("give one of the two another --name").into())
            }
            _ => {
                let detail = format!("node {here} has not joined the cluster yet");
                Err(ApiError::unavailable(detail).remedy("try again in a moment").into())
            }
        }
    }
}

pub(crate) fn out_of_reach(cause: &str) -> ApiError {
    let detail = format!("the cluster's store (etcd) is out of reach: {cause}");
    let remedy = "what runs goes on meanwhile; try again when `netd status` shows the store connected";
    ApiError::unavailable(detail).remedy(remedy)
}

pub(crate) fn name_taken(other: &Node) -> String {
    format!("a node {} with the address {} is alive in the cluster", other.name, other.vtep)
}
