//! The funnels of one worker: a socket each, and the lanes of the listeners whose datagrams come through it.

use slab::Slab;

use crate::flows::LaneId;
use crate::routes::Routes;
use crate::table::FunnelId;
use crate::worker::SharedSocket;

/// One socket of a funnel.
pub(super) struct Funnel {
    pub(super) id: FunnelId,
    pub(super) socket: SharedSocket,
    pub(super) lanes: Routes<LaneId>,
}

/// By the number under which a funnel's socket is in the poller.
#[derive(Default)]
pub(super) struct Funnels(Slab<Funnel>);

impl Funnels {
    pub(super) fn get(&self, number: u32) -> Option<&Funnel> {
        self.0.get(number as usize)
    }

    /// A funnel with more sockets than there are workers has several here.
    pub(super) fn of(&mut self, id: &FunnelId) -> impl Iterator<Item = &mut Funnel> {
        self.0.iter_mut().map(|(_, funnel)| funnel).filter(move |funnel| funnel.id == *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Funnel> {
        self.0.iter().map(|(_, funnel)| funnel)
    }

    pub(super) fn next_number(&self) -> u32 {
        self.0.vacant_key() as u32
    }

    pub(super) fn add(&mut self, id: FunnelId, socket: SharedSocket) {
        self.0.insert(Funnel { id, socket, lanes: Routes::default() });
    }

    pub(super) fn take(&mut self, id: &FunnelId) -> Vec<Funnel> {
        let numbers: Vec<usize> =
            self.0.iter().filter(|(_, funnel)| funnel.id == *id).map(|(number, _)| number).collect();
        numbers.into_iter().map(|number| self.0.remove(number)).collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
