//! Ports that are steered: their funnels among the sockets that are held, the kernel's part of leading them there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use netd_api::ApiError;
use netd_proxy::table::{Change as Proxy, Listener, Protocol as Carried};

use super::{Reconcile, sockets};
use crate::dataplane::SocketUse;
use crate::error::{Chain, Result};
use crate::model::{Model, Protocol, PublishBy};
use crate::steer::{Moves, Steering, Taken};
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
    pub(super) fn add_funnels(&mut self, changes: &mut Vec<Change>) {
        if !changes.iter().any(|change| steered(change).is_some()) {
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
            let places = changes.iter().filter_map(steered).filter(is_new).map(|listener| listener.address);
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
        let was_open = self.steering.is_open();
        if !changes.iter().any(|change| steered(change).is_some()) {
            self.steering.close();
        }
        let moves = self.steering.follow(changes, true);
        if was_open || model.sandboxes.values().any(|sandbox| sandbox.publishes.iter().any(is_steered)) {
            self.write_firewall(model);
        }
        self.lead(&moves, model);
    }

    pub(super) fn lead(&mut self, moves: &Moves, model: &Model) {
        if moves.is_empty() {
            return;
        }
        if let Err(error) = self.steering.carry_out(moves, &mut self.nft) {
            tracing::warn!(error = %Chain(&error), "cannot change which ports are steered: writing all of it anew");
            self.write_firewall(model);
        }
    }

    /// Where ports are steered to is known when the data plane has handed its sockets over. Until then the table that an
    /// earlier daemon has left leads there.
    pub(super) fn awaits_funnels(&self, model: &Model) -> bool {
        let mut publishes = model.sandboxes.values().flat_map(|sandbox| &sandbox.publishes);
        self.session.is_none() && publishes.any(is_steered)
    }
}

fn is_steered(publish: &crate::model::Publish) -> bool {
    publish.by == PublishBy::Steer
}

fn steered(change: &Change) -> Option<&Listener> {
    match change {
        Change::Proxy(Proxy::PutListener(listener)) if listener.funnel.is_some() => Some(listener),
        Change::Proxy(_) | Change::Dns(_) => None,
    }
}
