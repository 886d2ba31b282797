//! Services whose clients go straight to a backend: the programs in the kernel, and their descriptors among what is held.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Reconcile;
use crate::dataplane::SocketUse;
use crate::error::Chain;
use crate::model::{self, Model};
use crate::steer::{EAST_WEST, EastWest};
use crate::tables::Change;

impl Reconcile {
    pub(super) fn lead_straight(&mut self, tables: &[Change], records: &[model::Change], model: &Model) {
        self.east_west.follow(tables, records, model, false);
        self.hold_programs();
    }

    /// These tables are all that there are. Programs that an earlier control plane has left with the data plane are gone
    /// on with, so that sockets keep what they have been told.
    pub(super) fn lead_all_straight(&mut self, tables: &[Change], model: &Model) {
        if !self.east_west.is_in_force()
            && let Some(descriptors) = self.held.all(&EAST_WEST)
            && let Err(error) = descriptors.and_then(|descriptors| self.east_west.adopt(descriptors))
        {
            tracing::warn!(error = %Chain(&error), "sockets forget which service they have asked for");
            self.held.forget(&EAST_WEST);
        }
        self.east_west.follow(tables, &[], model, true);
        self.hold_programs();
    }

    pub(crate) fn east_west(&self) -> &EastWest {
        &self.east_west
    }

    fn hold_programs(&mut self) {
        match (self.east_west.is_in_force(), self.held.has(&EAST_WEST)) {
            (true, false) => {
                let duplicates = self.east_west.descriptors().map(|fd| fd.try_clone_to_owned());
                match duplicates.collect::<Result<Vec<OwnedFd>, _>>() {
                    Ok(fds) => self.held.hold(Arc::clone(&EAST_WEST), SocketUse::Keep, fds),
                    Err(error) => tracing::error!(%error, "cannot have the data plane keep the BPF programs"),
                }
            }
            (false, true) => self.held.forget(&EAST_WEST),
            (true, true) | (false, false) => {}
        }
    }
}
