//! This node as one of many: it enters the cluster at its start, follows what the others do, and leaves.
//!
//! The cluster's store is never waited for longer than a moment. Without it everything here goes on as the copy on the
//! disk and this node's own records say, and what is owed is done when it is back.

mod view;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use netd_api::ApiError;

use super::books::{Books, Cluster, Standing, Untold, name_taken};
use super::{World, network, new_id};
use crate::config::Config;
use crate::driver::Kernel;
use crate::error::{Chain, Result};
use crate::model::{Availability, Change, Endpoint, Id, Node, Sandbox, Scope};
use crate::store::{Asked, Etcd, Redb, Store as _, StoreError, Txn, Wake};
pub(crate) use view::ClusterView;

/// A start waits so long for the cluster's store.
const MOMENT: Duration = Duration::from_secs(2);
/// Between two looks at the store while a start waits for it.
const LOOK: Duration = Duration::from_millis(20);
/// A lease ends some time after its length: a daemon that has just died keeps its node's name until then.
const LEASE_SLACK: Duration = Duration::from_secs(2);
/// Of the node's own store: what tells this node from another of its name.
const IDENTITY: &str = "cluster/identity";
/// Addresses that a node says its packets come from.
const ADDRESSES: usize = 32;

/// What a look at the cluster's store has brought.
pub(crate) struct News {
    /// There is more to take in.
    pub more: bool,
    pub untold: Untold,
    /// Something is owed to it: to be settled once it has answered.
    pub asked: Option<Asked>,
}

/// How a request has gone that may concern the cluster's store.
pub(crate) struct Attempt<T> {
    pub done: Result<T>,
    /// The answer of the store is to be waited for, outside of the engine, and then the request to be done again if it
    /// has failed, or what it owes to be settled.
    pub asked: Option<Asked>,
}

/// This node's end of the cluster's store, if it belongs to one.
pub(super) fn open(
    config: &Config,
    local: &mut Redb,
    kernel: &mut Kernel,
    wake: Wake,
) -> anyhow::Result<Option<Cluster>> {
    let Some(settings) = &config.cluster else { return Ok(None) };
    let vtep = settings.vtep.unwrap_or(settings.advertise);
    let node = Node {
        name: config.node.as_str().into(),
        vtep,
        addresses: addresses(kernel, settings.advertise, vtep)?,
        mesh: SocketAddr::new(settings.advertise, settings.mesh_port),
        vxlan_port: settings.vxlan_port,
        version: env!("CARGO_PKG_VERSION").into(),
        identity: identity(local)?,
        since: SystemTime::now(),
    };
    let store = Etcd::open(settings.etcd.clone(), &config.state_dir, wake)?;
    Ok(Some(Cluster::new(Box::new(store), node, settings.etcd.lease)?))
}

/// Those of the devices that the node is reached by.
fn addresses(kernel: &mut Kernel, advertise: IpAddr, vtep: IpAddr) -> Result<Vec<IpAddr>> {
    let all = kernel.rtnl.addresses()?;
    let reached = |link: u32| {
        all.iter().any(|addr| addr.link == link && [advertise, vtep].contains(&addr.address.ip()))
    };
    let mut found = vec![advertise, vtep];
    found.extend(all.iter().filter(|addr| reached(addr.link)).map(|addr| addr.address.ip()));
    found.retain(|address| match address {
        IpAddr::V4(v4) => !v4.is_loopback() || *address == advertise,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    });
    found.sort();
    found.dedup();
    found.truncate(ADDRESSES);
    Ok(found)
}

fn identity(local: &mut Redb) -> anyhow::Result<Id> {
    let kept = local.load()?.entries.into_iter().find(|entry| *entry.key == *IDENTITY);
    if let Some(Ok(identity)) = kept.as_ref().map(|entry| std::str::from_utf8(&entry.value)) {
        return Ok(identity.into());
    }
    let identity = new_id();
    local.commit(&Txn::default().put(IDENTITY, identity.as_bytes()))?;
    Ok(identity)
}

/// The first thing of a start: to know what this node is in the cluster, if its store says so within a moment.
pub(super) fn enter(world: &mut World) -> Result<()> {
    if world.books.condition().is_none() {
        return Ok(());
    }
    let deadline = Instant::now() + MOMENT;
    while !is_connected(&world.books) && Instant::now() < deadline {
        world.books.look_out(LOOK);
    }
    if !is_connected(&world.books) {
        let cause = world.books.condition().and_then(|condition| condition.cause);
        let cause = cause.as_deref().unwrap_or("no answer yet").to_owned();
        tracing::warn!(cause, "starting without the cluster's store: what is known of other nodes is a copy");
    }
    let lease = world.config.cluster.as_ref().map_or(MOMENT, |cluster| cluster.etcd.lease);
    let deadline = Instant::now() + lease + LEASE_SLACK;
    let standing = loop {
        match world.books.join(SystemTime::now()) {
            Ok(Standing::NameTaken(other)) if is_connected(&world.books) => {
                if Instant::now() >= deadline {
                    let remedy = "give this one another --name, or end that one";
                    return Err(ApiError::conflict(name_taken(&other)).remedy(remedy).into());
                }
                world.books.look_out(LOOK);
            }
            Ok(standing) => break standing,
            Err(error) => {
                tracing::warn!(%error, "cannot join the cluster now");
                break Standing::Apart;
            }
        }
    };
    world.carry();
    world.obey(&standing);
    Ok(())
}

fn is_connected(books: &Books) -> bool {
    books.condition().is_some_and(|condition| condition.connected)
}

/// Something has come from the cluster's store, or it is time to look.
pub(crate) fn follow(world: &mut World) -> News {
    let more = world.books.take_in_shared();
    world.carry();
    world.note_condition();
    let asked = world.books.is_unsettled().then(|| world.books.ask()).flatten();
    News { more, untold: world.books.untold(), asked }
}

/// Has an etcd that has lost this cluster's records get those that are known here. What comes of it is to be waited for
/// outside of the engine.
pub(crate) fn restore(world: &World) -> Result<Asked> {
    let Some(cluster) = world.books.cluster() else {
        let detail = "this daemon belongs to no cluster";
        return Err(ApiError::invalid(detail).into());
    };
    if !cluster.condition().is_foreign {
        let detail = "etcd has this cluster's records, or cannot be reached: there is nothing to restore";
        return Err(ApiError::conflict(detail)
            .remedy("`netd doctor` shows how it is with the cluster")
            .into());
    }
    Ok(cluster.restore())
}

/// Asks the cluster's store for a sign of life, if there is one.
pub(crate) fn ask_store(world: &World) -> Option<Asked> {
    world.books.ask()
}

/// The cluster's store has answered just now: what is owed to it is written.
pub(crate) fn settle(world: &mut World) {
    world.books.set_may_wait(true);
    world.pursue();
    world.books.set_may_wait(false);
}

/// Does a request. It waits for the cluster's store only if that `has_answered` just now: a store that hangs would hold
/// up everybody else.
pub(crate) fn attempt<T>(
    world: &mut World,
    has_answered: bool,
    deed: &mut impl FnMut(&mut World) -> Result<T>,
) -> Attempt<T> {
    let owed = world.books.is_unsettled();
    world.books.set_may_wait(has_answered);
    let done = deed(world);
    // What was owed before is not what this request has to wait for.
    let owes = done.is_ok() && !owed && world.books.is_unsettled();
    let asks = !has_answered && (world.books.is_unheard() || owes);
    world.books.set_may_wait(false);
    Attempt { done, asked: asks.then(|| world.books.ask()).flatten() }
}

impl World {
    /// Writes what is owed to the cluster's store, if it can be written. What fails is owed still.
    pub(super) fn pursue(&mut self) {
        if self.pursues || !self.books.is_unsettled() {
            return;
        }
        if !self.books.may_wait() {
            (self.wake)();
            return;
        }
        self.pursues = true;
        match self.books.join(SystemTime::now()) {
            Ok(standing) => {
                self.carry();
                self.obey(&standing);
                let settled = self.books.settle();
                self.carry();
                match settled {
                    Ok(()) if standing == Standing::Stale => self.begin_term(),
                    Ok(()) => self.owed = None,
                    Err(error) => self.owe(Chain(&error).to_string()),
                }
            }
            Err(error) => self.owe(error.to_string()),
        }
        self.pursues = false;
    }

    /// Told once, however often it is tried.
    fn owe(&mut self, why: String) {
        if self.owed.as_ref() != Some(&why) {
            tracing::warn!(why, "this node's records in the cluster's store are not as they should be yet");
        }
        self.owed = Some(why);
    }

    fn begin_term(&mut self) {
        let begun = self.books.begin_term().and_then(|()| self.books.join(SystemTime::now()));
        let settled = begun.map(|_| self.books.settle());
        self.carry();
        match settled {
            Ok(Ok(())) => tracing::info!("this node is a member of the cluster again"),
            Ok(Err(error)) => self.owe(Chain(&error).to_string()),
            Err(error) => self.owe(error.to_string()),
        }
    }

    /// Who was removed has no place on the cluster's networks: its addresses may be others' by now.
    fn obey(&mut self, standing: &Standing) {
        if !matches!(standing, Standing::Removed | Standing::Stale) {
            return;
        }
        for sandbox in self.model().sandboxes.values().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.shed(&sandbox) {
                tracing::error!(sandbox = %sandbox.name, %error, "cannot take it off the cluster's networks");
            }
        }
    }

    /// Takes a sandbox off all networks that are not this node's own.
    fn shed(&mut self, before: &Arc<Sandbox>) -> Result<()> {
        let stays = |endpoint: &Endpoint| {
            let network = self.model().networks.get(&endpoint.network);
            network.is_some_and(|network| network.scope() == Scope::Local)
        };
        let (kept, shed): (Vec<Endpoint>, Vec<Endpoint>) = before.endpoints.iter().cloned().partition(stays);
        if shed.is_empty() {
            return Ok(());
        }
        let after = Sandbox { endpoints: kept, ..Sandbox::clone(before) };
        let txn = network::replace(self, &after)?;
        self.commit(&txn)?;
        for endpoint in &shed {
            tracing::error!(sandbox = %before.name, network = %endpoint.network,
                "this node was removed from the cluster: the sandbox has left the network");
            let name = self.model().networks.get(&endpoint.network).map(|network| network.name.to_string());
            let name = name.unwrap_or_default();
            self.tell("network", "disconnect", &endpoint.network, &name, &[("container", &after.id)]);
            if let Err(error) = network::leave(self, &after, endpoint) {
                tracing::warn!(sandbox = %before.name, %error, "something is left of its place on a network");
            }
        }
        Ok(())
    }

    /// Has everybody know when the cluster's store was lost and is back.
    fn note_condition(&mut self) {
        let Some(condition) = self.books.condition() else { return };
        if self.store_was_there == Some(condition.connected) {
            return;
        }
        let first = self.store_was_there.replace(condition.connected).is_none();
        let here = Id::clone(&self.model().here);
        match (condition.connected, condition.cause) {
            (true, _) if first => {}
            (true, _) => self.tell("store", "back", &here, &here, &[]),
            (false, cause) => {
                self.tell("store", "lost", &here, &here, &[("cause", cause.as_deref().unwrap_or_default())]);
            }
        }
    }

    /// What others did to the nodes, for those who follow events.
    pub(super) fn note_nodes(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Node { before: None, after: Some(node) } => {
                    self.gone_since.remove(&node.name);
                    self.tell("node", "join", &node.name, &node.name, &[("address", &node.vtep.to_string())]);
                }
                Change::Node { before: Some(node), after: None } => {
                    self.gone_since.insert(Id::clone(&node.name), SystemTime::now());
                    self.tell("node", "leave", &node.name, &node.name, &[]);
                }
                Change::Member { before: Some(before), after: Some(after) }
                    if before.availability != after.availability =>
                {
                    let action = match after.availability {
                        Availability::Active => "activate",
                        Availability::Drain => "drain",
                        Availability::Removed => "remove",
                    };
                    self.tell("node", action, &after.name, &after.name, &[]);
                }
                _ => {}
            }
        }
    }
}

/// Nothing is served here from now on: others are told at once, not when the lease ends. With `purge` the node is no
/// member any more either, and another of its name may come.
pub(super) fn leave(world: &mut World, purge: bool) -> Option<String> {
    world.books.condition().filter(|condition| condition.connected)?;
    let resigned = if purge { world.books.resign() } else { world.books.say_goodbye() };
    world.carry();
    let released = world.books.release_lease().map_err(|error: StoreError| Chain(&error).to_string());
    resigned.map_err(|error| error.to_string()).and(released).err()
}
