//! The listening sockets of one worker, found by listener and by service at a cost that does not grow with their number.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::flows::{Key, LaneId};
use crate::snapshot::{ListenerHandle, Pool};
use crate::table::{ListenerId, ServiceId};
use crate::worker::SharedSocket;

/// A listener's socket on this worker, and what it leads to.
pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) handle: Arc<ListenerHandle>,
    pub(super) socket: SharedSocket,
    /// The backends that the flows of this lane were last checked against.
    pub(super) pool: Arc<Pool>,
}

impl Lane {
    /// The port that answers to the client of `key` have to leave from, if it is not the socket's own: 0 if it is.
    pub(super) fn answers_from(&self, key: &Key) -> u16 {
        let listener = &self.handle.listener;
        match listener.address.port() {
            _ if listener.funnel.is_none() => 0,
            0 => key.port,
            port => port,
        }
    }

    /// The port of the backend for the client of `key`, if it is not that of the backend's address.
    pub(super) fn target_port(&self, key: &Key) -> Option<u16> {
        self.handle.listener.target(key.port)
    }
}

#[derive(Default)]
pub(super) struct Lanes {
    /// By [`LaneId`].
    slots: Vec<Option<Lane>>,
    /// A listener with more sockets than there are workers has several lanes on one.
    by_listener: HashMap<ListenerId, Vec<LaneId>>,
    by_service: HashMap<ServiceId, Vec<LaneId>>,
    /// How many lanes have a listener on this port.
    by_port: HashMap<u16, usize>,
}

impl Lanes {
    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// Whether a listener of ours is on this port, or every port, of this address, or of every address.
    pub(super) fn has_listener_on(&self, address: SocketAddr) -> bool {
        let is_on = |lane: &Lane| {
            let listener = lane.handle.listener.address;
            [0, address.port()].contains(&listener.port())
                && (listener.ip().is_unspecified() || listener.ip() == address.ip())
        };
        // There may be thousands; most senders' ports are none of ours.
        let ports = [0, address.port()];
        ports.iter().any(|port| self.by_port.contains_key(port)) && self.iter().any(is_on)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.slots.iter().flatten()
    }

    pub(super) fn of_listener(&self, listener: &ListenerId) -> Vec<LaneId> {
        self.by_listener.get(listener).cloned().unwrap_or_default()
    }

    pub(super) fn of_service(&self, service: &ServiceId) -> Vec<LaneId> {
        self.by_service.get(service).cloned().unwrap_or_default()
    }

    pub(super) fn add(&mut self, lane: Lane) {
        self.by_listener.entry(Arc::clone(&lane.handle.listener.id)).or_default().push(lane.id);
        self.by_service.entry(Arc::clone(&lane.handle.service.id)).or_default().push(lane.id);
        *self.by_port.entry(lane.handle.listener.address.port()).or_default() += 1;
        let place = lane.id.0 as usize;
        if place >= self.slots.len() {
            self.slots.resize_with(place + 1, || None);
        }
        self.slots[place] = Some(lane);
    }

    pub(super) fn remove(&mut self, id: LaneId) -> Option<Lane> {
        let lane = self.slots.get_mut(id.0 as usize)?.take()?;
        let port = lane.handle.listener.address.port();
        if let Some(count) = self.by_port.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.by_port.remove(&port);
            }
        }
        forget(&mut self.by_listener, &lane.handle.listener.id, id);
        forget(&mut self.by_service, &lane.handle.service.id, id);
        Some(lane)
    }

    /// Leads a lane where its listener leads now.
    pub(super) fn lead(&mut self, id: LaneId, handle: &Arc<ListenerHandle>) {
        let Some(mut lane) = self.remove(id) else { return };
        lane.handle = Arc::clone(handle);
        self.add(lane);
    }

    /// Has a lane look at the backends of the moment.
    pub(super) fn look(&mut self, id: LaneId) {
        if let Some(lane) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) {
            lane.pool = lane.handle.service.pool();
        }
    }
}

fn forget(index: &mut HashMap<Arc<str>, Vec<LaneId>>, name: &Arc<str>, id: LaneId) {
    if let Some(lanes) = index.get_mut(name) {
        lanes.retain(|lane| *lane != id);
        if lanes.is_empty() {
            index.remove(name);
        }
    }
}
