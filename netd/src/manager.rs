//! The only writer of the store. A manager function checks everything, leases what it needs, has the drivers act,
//! and commits; a failure on the way runs the undo of every step that was done, in reverse.
//!
//! All of it runs on the engine's thread with the whole [`World`] in hand: there is nothing to lock.

mod books;
mod cluster;
pub(crate) mod docker;
mod examine;
mod find;
mod guests;
mod health;
mod inspect;
mod network;
mod node;
mod notices;
mod overlay;
mod publish;
mod recover;
mod sandbox;
mod service;
mod undo;
mod update;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rand::Rng as _;

use crate::bus::{Bus, Event};
use crate::config::Config;
use crate::dataplane::{Session, SocketKey, SocketUse, Sockets};
use crate::driver::{Kernel, Outcome, Trial, WaysOut};
use crate::error::{Chain, Result};
use crate::ipam::{Holder, IpamError, Leases, Pools};
use crate::model::{Id, LeaseHolder, Model, Network, Scope};
use crate::ports::Ports;
use crate::reconcile::Reconcile;
use crate::store::{Revision, Txn, Wake};
use crate::tables::{Away, Neighbours};
use books::{Assigned, Books};
use undo::{Step, Undo};

pub(crate) use books::out_of_reach;
pub(crate) use cluster::{
    Attempt, ClusterView, News, ask_store, attempt, follow as follow_cluster, restore as restore_cluster,
    settle,
};
pub(crate) use examine::sandbox as examine;
pub(crate) use find::{network as find_network, sandbox as find_sandbox, service as find_service};
pub(crate) use guests::{bury, list as guests};
pub(crate) use health::note as note_health;
pub(crate) use network::{connect, create as create_network, disconnect, prune, remove as remove_network};
pub(crate) use node::{remove as remove_node, set_availability};
pub(crate) use publish::{publish, unpublish};
pub(crate) use recover::{down, open, recover};
pub(crate) use sandbox::{create as create_sandbox, leave as leave_network};
pub(crate) use service::{
    Departure, Removal, begin_removal, begun_removals, create as create_service, drain as drain_endpoint,
    finish_removal, leave as leave_service, remove as remove_service, update as update_service,
};
pub(crate) use update::{endpoint as update_endpoint, network as update_network};

pub(crate) mod show {
    pub(crate) use super::inspect::{
        endpoint, network, network_here, networks, port_map, pseudo, sandbox, views,
    };
    pub(crate) use super::node::{node, nodes};
    pub(crate) use super::service::{connections, show_one as service};
}

/// Everything the engine's thread owns.
pub(crate) struct World {
    pub config: Arc<Config>,
    books: Books,
    pub kernel: Kernel,
    pools: Pools,
    ports: Ports,
    /// The address that each of Docker's pools gave out last.
    turns: BTreeMap<Id, IpAddr>,
    pub reconcile: Reconcile,
    /// Endpoints of other nodes, as overlay networks are to know them.
    neighbours: Neighbours,
    away: Away,
    bus: Bus,
    /// Nodes that went while this daemon ran.
    gone_since: BTreeMap<Id, SystemTime>,
    /// Whether the cluster's store was in reach when somebody last looked.
    store_was_there: Option<bool>,
    /// Why this node's records in the cluster's store are not as they should be.
    owed: Option<String>,
    pursues: bool,
    /// The start is over.
    is_up: bool,
    /// Has somebody look after what is owed to the cluster's store.
    wake: Wake,
}

impl World {
    pub(crate) fn model(&self) -> &Model {
        self.books.model()
    }

    pub(crate) fn revision(&self) -> Revision {
        self.books.revision()
    }

    /// The point of no return of every operation on what is this node's own, then the tables that follow from it.
    fn commit(&mut self, txn: &Txn) -> Result<Revision> {
        self.commit_to(Scope::Local, txn)
    }

    /// The same for a record of that scope.
    fn commit_to(&mut self, scope: Scope, txn: &Txn) -> Result<Revision> {
        let result = self.books.commit(scope, txn);
        self.carry();
        let revision = result?;
        self.pursue();
        Ok(revision)
    }

    /// An address as [`Books::claim`] gives it, given back if the operation fails.
    fn claim(
        &mut self,
        undo: &mut Undo,
        network: &Network,
        holder: &Holder,
        as_whom: &LeaseHolder,
        choose: impl FnMut(&mut Leases) -> Result<Assigned, IpamError>,
    ) -> Result<Assigned> {
        let result = self.books.claim(network, holder, as_whom, choose);
        self.carry();
        let (address, prefix) = result?;
        let (network, holder) = (Arc::new(network.clone()), holder.clone());
        undo.push(Step::Lease { network, address, holder });
        Ok((address, prefix))
    }

    /// Carries what the stores have told into every table.
    fn carry(&mut self) {
        if let Some(changes) = self.books.take_fresh() {
            self.reconcile.apply(self.books.model(), &changes, self.books.revision());
            overlay::forward(self, &changes);
            service::follow(self, &changes);
            self.note_nodes(&changes);
            notices::note(self, &changes);
        }
    }

    /// A data plane is there and is owed everything.
    pub(crate) fn connected(&mut self, session: Session, serving: u64, inventory: Vec<Sockets>) {
        let (model, revision) = (self.books.model(), self.books.revision());
        self.reconcile.connected(session, serving, inventory, model, revision);
    }

    /// The data plane has used up sockets of a sandbox's own namespace.
    pub(crate) fn supply(&self, session: &Session, key: &SocketKey, used: SocketUse) {
        self.reconcile.supply(session, key, used, self.books.model());
    }

    /// The host's resolver file may have changed.
    pub(crate) fn host_changed(&mut self) {
        let (model, revision) = (self.books.model(), self.books.revision());
        self.reconcile.host_changed(model, revision);
    }

    /// Tries ports again that somebody else had. Whether all are served now.
    pub(crate) fn reopen_ports(&mut self) -> bool {
        let (model, revision) = (self.books.model(), self.books.revision());
        self.reconcile.reopen(model, revision)
    }

    /// Somebody else has changed the firewall table.
    pub(crate) fn repair_firewall(&mut self) {
        self.reconcile.lead_answers();
        self.reconcile.write_firewall(self.books.model());
    }

    /// Other devices may lead out of the host: the sizes of packets go with what all of them take.
    pub(crate) fn follow_ways_out(&mut self) -> Result<WaysOut> {
        Ok(self.kernel.follow_ways_out(self.books.model())?)
    }

    /// What is to be tried of the ways to other nodes, `anew` all of them, and this node's number.
    pub(crate) fn trial(&mut self, anew: bool, now: Instant) -> Result<Option<(u16, Trial)>> {
        overlay::trial(self, anew, now)
    }

    pub(crate) fn tried(&mut self, outcome: &Outcome, now: Instant) {
        if let Err(error) = self.kernel.tried(outcome, now) {
            tracing::error!(error = %Chain(&error), "cannot fill in checksums before the device does");
        }
    }

    /// The ways to other nodes may carry more or less. Gives the devices they lead by.
    pub(crate) fn follow_underlay(&mut self) -> Vec<u32> {
        overlay::follow_underlay(self);
        self.kernel.underlay().map(|underlay| underlay.links.clone()).unwrap_or_default()
    }

    fn tell(
        &self,
        kind: &'static str,
        action: &'static str,
        id: &Id,
        name: &str,
        about: &[(&'static str, &str)],
    ) {
        let attributes = about.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let time = SystemTime::now();
        self.bus.publish(Event { time, kind, action, id: Arc::clone(id), name: name.to_owned(), attributes });
    }
}

/// A new id: 64 hex digits of chance.
fn new_id() -> Id {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex(&bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 12 digits, as Docker shows ids.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
