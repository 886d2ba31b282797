//! This node as one of many: it enters the cluster at its start, follows what the others do, and leaves.
//!
//! The cluster's store is never waited for longer than a moment. Without it everything here goes on as the copy on the
//! disk and this node's own records say, and what is owed is done when it is back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use netd_api::ApiError;
use netd_api::system::ClusterStatus;

use super::books::{Books, Cluster, Standing, Untold, name_taken};
use super::{World, network, new_id};
use crate::config::Config;
use crate::driver::Kernel;
use crate::error::{Chain, Result};
use crate::model::{Availability, Change, Endpoint, Id, Member, Node, Sandbox, Scope};
use crate::store::{Condition, Etcd, Redb, Revision, Store as _, StoreError, Txn, Wake};

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
    world.pursue();
    News { more, untold: world.books.untold() }
}

impl World {
    /// Writes what is owed to the cluster's store, if it can be written. What fails is owed still.
    pub(super) fn pursue(&mut self) {
        if self.pursues || !self.books.is_unsettled() {
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

/// How it is with the cluster, for `status`, `doctor` and the metrics.
pub(crate) struct ClusterView {
    location: String,
    condition: Condition,
    /// Why the store is out of reach, if it is.
    pub outage: Option<String>,
    standing: Standing,
    /// Why this node is no member now, and what can be done.
    pub trouble: Option<(String, String)>,
    pub owed: Option<String>,
    pub disputed: Vec<String>,
    pub refused: Vec<String>,
    pub members: usize,
    pub alive: Vec<String>,
    settled: Option<Duration>,
}

impl World {
    pub(crate) fn cluster_view(&self) -> Option<ClusterView> {
        let cluster = self.books.cluster()?;
        let (condition, model) = (cluster.condition(), self.model());
        let cause = || condition.cause.as_deref().unwrap_or("it has not answered yet").to_owned();
        let here = &model.here;
        let trouble = match cluster.standing() {
            Standing::Member | Standing::Apart => None,
            Standing::NameTaken(other) => {
                Some((name_taken(other), "give this node another --name, or end that one".to_owned()))
            }
            Standing::Removed | Standing::Stale => {
                let what =
                    format!("node {here} was removed from the cluster: it has no place on its networks");
                Some((what, format!("`netd node activate {here}`")))
            }
        };
        let known = |member: &&Arc<Member>| member.availability != Availability::Removed;
        Some(ClusterView {
            location: self.config.cluster.as_ref().map(|c| c.etcd.names()).unwrap_or_default(),
            outage: (!condition.connected).then(cause),
            standing: cluster.standing().clone(),
            trouble,
            owed: self.owed.clone(),
            disputed: cluster.disputed().map(ToOwned::to_owned).collect(),
            refused: self.books.records().refused().values().cloned().collect(),
            members: model.members.values().filter(known).count(),
            alive: model.nodes.keys().map(ToString::to_string).collect(),
            settled: cluster.settled().map(|then| then.elapsed()),
            condition,
        })
    }
}

impl ClusterView {
    /// `served` is up to where the data plane has the cluster's store.
    pub(crate) fn shown(self, served: Revision) -> ClusterStatus {
        let standing = match self.standing {
            Standing::Member => "member",
            Standing::Apart => "apart",
            Standing::Removed | Standing::Stale => "removed",
            Standing::NameTaken(_) => "name-taken",
        };
        ClusterStatus {
            store: "etcd".into(),
            location: self.location,
            connected: self.outage.is_none(),
            since: self.condition.since.into(),
            cause: self.outage,
            endpoint: self.condition.endpoint.as_deref().map(ToOwned::to_owned),
            reconnects: self.condition.reconnects,
            keys: u64::try_from(self.condition.keys).unwrap_or(u64::MAX),
            revision: self.condition.told,
            served: served.min(self.condition.told),
            standing: standing.into(),
            members: u64::try_from(self.members).unwrap_or(u64::MAX),
            alive: self.alive,
            settled_seconds_ago: self.settled.map(|ago| ago.as_secs()),
            owed: self.owed,
        }
    }
}
