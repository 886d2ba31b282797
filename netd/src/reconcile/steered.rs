//! Ports that are steered: their funnels among the sockets that are held, the kernel's part of leading them there. And
//! published ports that nobody can answer for, which the kernel refuses.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use netd_api::ApiError;
use netd_proxy::table::{Change as Proxy, Listener, Protocol as Carried};
use netd_sys::nft::SetChange;

use super::{Reconcile, sockets};
use crate::dataplane::SocketUse;
use crate::error::{Chain, Result};
use crate::firewall::{self, Vip, VipChange};
use crate::model::{Model, Protocol, PublishBy, Service};
use crate::steer::{Moves, Steering, Taken, Vacancy};
use crate::tables::Change;

impl Reconcile {
    /// Makes ready to steer ports, so that what cannot be fails the request and not the service.
    pub(crate) fn prepare_steering(&mut self, model: &Model) -> Result<()> {
        if self.steering.is_open() {
            return Ok(());
        }
        self.open_steering()?;
        self.write_firewall(model);
        Ok(())
    }

    /// Has the addresses of services be theirs alone.
    pub(super) fn follow_vips(&mut self, vips: &VipChange) {
        if vips.is_empty() {
            return;
        }
        let addresses = |vips: &BTreeSet<Vip>| vips.iter().map(|vip| vip.address).collect();
        if let Err(error) = self.steering.change_vips(&addresses(&vips.gone), &addresses(&vips.new)) {
            tracing::error!(error = %Chain(&error), "cannot keep the addresses of services from the host's programs");
        }
        // Before there is a data plane, nobody knows which sockets one that runs already holds.
        if self.session.is_some()
            && self.steering.has_vips()
            && !self.steering.is_open()
            && let Err(error) = self.open_steering()
        {
            tracing::error!(%error, "cannot lead clients to services");
        }
    }

    /// The rules for the addresses of services: a few elements, or where that fails the whole table (true).
    pub(super) fn write_vips(&mut self, vips: &VipChange, model: &Model) -> bool {
        if vips.is_empty() {
            return false;
        }
        let sets = firewall::vip_change(&vips.gone, &vips.new);
        let changes: Vec<SetChange<'_>> =
            sets.iter().map(|(set, (remove, add))| SetChange { set, add, remove }).collect();
        // Somebody may have flushed it, or nobody written it yet.
        let changed = self.nft.change(firewall::TABLE, &changes);
        if let Err(error) = &changed {
            tracing::debug!(error = %Chain(error), "writing the firewall table anew");
            self.write_firewall(model);
        }
        changed.is_err()
    }

    fn open_steering(&mut self) -> Result<()> {
        let held = &self.held;
        let made = self.steering.open(self.workers, |key| held.one(key))?;
        for (funnel, sockets) in made {
            self.held.hold(funnel, SocketUse::Listener, sockets);
        }
        self.held.forget(sockets::LINK);
        if let Some(link) = self.steering.link() {
            let link = link.try_clone_to_owned().map_err(|error| {
                ApiError::kernel(format!("cannot duplicate the link of the BPF program: {error}"))
            })?;
            self.held.hold(sockets::LINK.into(), SocketUse::Keep, vec![link]);
        }
        Ok(())
    }

    pub(crate) fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Puts the funnels before the listeners that clients reach through them. The host's table has to be written when
    /// steering begins with it, but not before all ports are known (`follow`): one without them would lead nobody.
    ///
    /// `full`: what is not among the changes is dropped. Addresses of services need the funnels with nobody to lead yet.
    pub(super) fn add_funnels(&mut self, changes: &mut Vec<Change>, full: bool) {
        let leads = changes.iter().any(|change| steered(change).is_some());
        let keeps = self.steering.has_vips() && (full || !self.steering.is_open());
        if !leads && !keeps {
            return;
        }
        if !self.steering.is_open()
            && let Err(error) = self.open_steering()
        {
            tracing::error!(%error, "cannot steer published ports");
        }
        changes.splice(0..0, self.steering.funnels().collect::<Vec<_>>());
    }

    /// Takes ports out that somebody serves: nothing has led them elsewhere, and there is no request left to fail.
    /// Those that we lead already stay.
    pub(super) fn leave_to_servers(&self, changes: &mut Vec<Change>) {
        for (protocol, carried) in [(Protocol::Tcp, Carried::Tcp), (Protocol::Udp, Carried::Udp)] {
            let is_new =
                |listener: &&Listener| listener.protocol == carried && !self.steering.leads(&listener.id);
            // Nobody but us is at a service's address.
            let is_vip = |listener: &&Listener| self.steering.is_vip(listener.address.ip());
            let of_host = changes.iter().filter_map(steered).filter(is_new).filter(|new| !is_vip(new));
            let places = of_host.map(|listener| listener.address);
            // What cannot be tried is told when it is opened.
            let taken = self.steering.taken(protocol, places).unwrap_or_default();
            for Taken { at, by } in &taken {
                let by: Vec<String> = by.iter().map(ToString::to_string).collect();
                tracing::error!(port = %at, ?by, "cannot steer a published port: a program has it");
            }
            let taken: BTreeSet<SocketAddr> = taken.into_iter().map(|taken| taken.at).collect();
            let is_left =
                |listener: &Listener| listener.protocol == carried && taken.contains(&listener.address);
            changes.retain(|change| !steered(change).is_some_and(is_left));
        }
    }

    /// Steers exactly what these changes, which are everything, put.
    pub(super) fn steer_all(&mut self, changes: &[Change], model: &Model) {
        if !changes.iter().any(|change| steered(change).is_some()) && !self.steering.has_vips() {
            self.steering.close();
        }
        let moves = self.steering.follow(changes, true);
        self.write_firewall(model);
        self.lead(&moves, true, model);
    }

    /// Before there is a data plane nothing is refused, or what an earlier daemon has left is. `is_written`: the host's table
    /// has just been written whole.
    pub(super) fn refuse(&mut self, moves: &Moves, is_written: bool, model: &Model) {
        if moves.is_empty() || is_written || self.session.is_none() {
            return;
        }
        if let Err(error) = Vacancy::carry_out(moves, &mut self.nft) {
            tracing::warn!(error = %Chain(&error), "cannot change which ports are refused: writing all of it anew");
            self.write_firewall(model);
        }
    }

    pub(super) fn lead(&mut self, moves: &Moves, is_written: bool, model: &Model) {
        if moves.is_empty() || (is_written && self.steering.is_by_tproxy()) {
            return;
        }
        if let Err(error) = self.steering.carry_out(moves, &mut self.nft) {
            tracing::warn!(error = %Chain(&error), "cannot change which ports are steered: writing all of it anew");
            self.write_firewall(model);
        }
    }

    /// Where ports are steered to, and which are ours, is known when the data plane has handed its sockets over. Until then
    /// the table that an earlier daemon has left leads and refuses.
    pub(super) fn awaits_sockets(&self, model: &Model) -> bool {
        let publishes = |service: &Service| !service.publishes.is_empty();
        self.session.is_none()
            && (self.steering.has_vips()
                || publishes_steered(model)
                || model.services.values().any(|service| publishes(service)))
    }
}

fn publishes_steered(model: &Model) -> bool {
    let mut publishes = model.sandboxes.values().flat_map(|sandbox| &sandbox.publishes);
    publishes.any(|publish| publish.by == PublishBy::Steer)
}

fn steered(change: &Change) -> Option<&Listener> {
    match change {
        Change::Proxy(Proxy::PutListener(listener)) if listener.funnel.is_some() => Some(listener),
        Change::Proxy(_) | Change::Dns(_) => None,
    }
}
