//! The only writer of the store. A manager function checks everything, leases what it needs, has the drivers act,
//! and commits; a failure on the way runs the undo of every step that was done, in reverse.
//!
//! All of it runs on the engine's thread with the whole [`World`] in hand: there is nothing to lock.

pub(crate) mod docker;
mod examine;
mod find;
mod guests;
mod inspect;
mod network;
mod overlay;
mod publish;
mod recover;
mod sandbox;
mod undo;
mod update;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use netd_api::ApiError;
use rand::Rng as _;

use crate::bus::{Bus, Event};
use crate::config::Config;
use crate::dataplane::{Session, SocketKey, SocketUse, Sockets};
use crate::driver::{Kernel, WaysOut};
use crate::error::Result;
use crate::ipam::{Leases, Pools};
use crate::model::{Id, Model};
use crate::ports::Ports;
use crate::reconcile::Reconcile;
use crate::store::{Records, Revision, Store, Txn, Watch};
use crate::tables::Neighbours;

pub(crate) use examine::sandbox as examine;
pub(crate) use find::{network as find_network, sandbox as find_sandbox};
pub(crate) use guests::{bury, list as guests};
pub(crate) use network::{connect, create as create_network, disconnect, prune, remove as remove_network};
pub(crate) use publish::{publish, unpublish};
pub(crate) use recover::{down, open, recover};
pub(crate) use sandbox::{create as create_sandbox, leave as leave_network, remove as remove_sandbox};
pub(crate) use update::{endpoint as update_endpoint, network as update_network};

pub(crate) mod show {
    pub(crate) use super::inspect::{endpoint, network, networks, port_map, pseudo, sandbox, views};
}

/// Everything the engine's thread owns.
pub(crate) struct World {
    pub config: Arc<Config>,
    store: Box<dyn Store>,
    watch: Watch,
    records: Records,
    pub kernel: Kernel,
    pools: Pools,
    /// By network. Rebuilt from the records at start, kept beside them since.
    leases: BTreeMap<Id, Leases>,
    ports: Ports,
    /// The address that each of Docker's pools gave out last.
    turns: BTreeMap<Id, IpAddr>,
    pub reconcile: Reconcile,
    /// Endpoints of other nodes, as overlay networks are to know them.
    neighbours: Neighbours,
    bus: Bus,
}

impl World {
    pub(crate) fn model(&self) -> &Model {
        self.records.model()
    }

    pub(crate) fn revision(&self) -> Revision {
        self.records.revision()
    }

    /// The point of no return of every operation, then the tables that follow from it.
    fn commit(&mut self, txn: &Txn) -> Result<Revision> {
        let revision = self.store.commit(txn)?;
        self.take_in();
        Ok(revision)
    }

    /// Takes in what the store's watch has: after our own commits at once, so that the next request sees it.
    fn take_in(&mut self) {
        loop {
            match self.watch.try_next() {
                Ok(None) => return,
                Ok(Some(batch)) => match self.records.apply(&batch) {
                    Ok(changes) => {
                        let model = self.records.model();
                        self.reconcile.apply(model, &changes, batch.revision);
                        overlay::forward(self, &changes);
                    }
                    Err(error) => {
                        tracing::error!(%error, revision = batch.revision, "a record cannot be read");
                    }
                },
                Err(closed) => {
                    tracing::warn!(%closed, "beginning a new watch");
                    match self.store.watch() {
                        Ok(watch) => self.watch = watch,
                        Err(error) => {
                            tracing::error!(%error, "cannot watch the store");
                            return;
                        }
                    }
                }
            }
        }
    }

    /// A data plane is there and is owed everything.
    pub(crate) fn connected(&mut self, session: Session, serving: u64, inventory: Vec<Sockets>) {
        let (model, revision) = (self.records.model(), self.records.revision());
        self.reconcile.connected(session, serving, inventory, model, revision);
    }

    /// The data plane has used up sockets of a sandbox's own namespace.
    pub(crate) fn supply(&self, session: &Session, key: &SocketKey, used: SocketUse) {
        self.reconcile.supply(session, key, used, self.records.model());
    }

    /// The host's resolver file may have changed.
    pub(crate) fn host_changed(&mut self) {
        let (model, revision) = (self.records.model(), self.records.revision());
        self.reconcile.host_changed(model, revision);
    }

    /// Somebody else has changed the firewall table.
    pub(crate) fn repair_firewall(&mut self) {
        self.reconcile.write_firewall(self.records.model());
    }

    /// Other devices may lead out of the host: the sizes of packets go with what all of them take.
    pub(crate) fn follow_ways_out(&mut self) -> Result<WaysOut> {
        Ok(self.kernel.follow_ways_out(self.records.model())?)
    }

    fn leases_of(&mut self, network: &Id) -> Result<&mut Leases> {
        self.leases
            .get_mut(network)
            .ok_or_else(|| ApiError::not_found(format!("network {network} is gone")).into())
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
