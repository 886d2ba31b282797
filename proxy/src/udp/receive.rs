//! Clients to backends: a batch in, each flow's datagrams out together, the bytes untouched.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use netd_sys::datagram::RecvBatch;

use crate::flows::{FlowId, Key, LaneId, Traffic};
use crate::hop::Refusal;
use crate::worker::Kit;

use super::hop::singles;
use super::lanes::Lane;
use super::upstream::{Upstream, Way};
use super::{Dropped, Udp};

/// How many batches one event may take, so that one busy listener does not starve the others.
const ROUNDS: usize = 4;

/// Whose socket datagrams have come to.
#[derive(Clone, Copy)]
pub(super) enum Arrival {
    Lane(LaneId),
    /// Each datagram tells its lane by what it was sent to.
    Funnel(u32),
}

impl Udp {
    pub(super) fn receive(&mut self, kit: &mut Kit, arrival: Arrival) {
        for _ in 0..ROUNDS {
            let socket = match arrival {
                Arrival::Lane(lane) => self.lanes.get(lane).map(|lane| &lane.socket),
                Arrival::Funnel(number) => self.funnels.get(number).map(|funnel| &funnel.socket),
            };
            let Some(socket) = socket else { return };
            // Nothing there, or a socket that is broken: there is nobody to tell but the next event.
            let Ok(count) = self.incoming.recv(socket.as_fd()) else { return };
            self.assign(kit, arrival);
            self.forward(kit);
            if count < self.incoming.capacity() {
                return;
            }
        }
    }

    /// Finds the flow of each datagram received.
    fn assign(&mut self, kit: &mut Kit, arrival: Arrival) {
        self.groups.clear();
        let mut looked_at = None;
        for place in 0..self.incoming.len() {
            let Some(key) = self.key_of(place, arrival) else {
                self.groups.push(None);
                continue;
            };
            if looked_at.replace(key.lane) != Some(key.lane) {
                self.refresh_if_changed(key.lane);
            }
            match self.flow_of(kit, key) {
                Ok(id) => {
                    // Noted now, not when it is sent: a flow in use is not given up for a newcomer of the same batch,
                    // who would get its number.
                    self.table.client_sent(id, traffic_of(&self.incoming, place), kit.now);
                    self.groups.push(Some(id.0));
                }
                Err(why) => {
                    self.groups.push(None);
                    if let Some(lane) = self.lanes.get(key.lane) {
                        lane.handle.meters.datagrams.dropped(why, 1);
                    }
                }
            }
        }
    }

    fn key_of(&self, place: usize, arrival: Arrival) -> Option<Key> {
        let datagram = self.incoming.datagram(place);
        let mut port = 0;
        let lane = match arrival {
            Arrival::Lane(lane) => lane,
            Arrival::Funnel(number) => {
                let asked = datagram.local?;
                let lane = *self.funnels.get(number)?.lanes.find(asked.address, asked.port)?;
                if self.lanes.get(lane)?.handle.listener.address.port() == 0 {
                    port = asked.port;
                }
                lane
            }
        };
        // An answer cannot come from a group's address; the kernel chooses one then. (For IPv4 it has done so already.)
        let local = datagram.local.map(|local| local.address).filter(|address| !address.is_multicast());
        Some(Key { lane, client: datagram.source?, local, port })
    }

    fn refresh_if_changed(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get(id) else { return };
        if !Arc::ptr_eq(&lane.pool, &lane.handle.service.pool()) {
            self.refresh(id);
        }
    }

    /// Sends each flow's datagrams to its backend.
    fn forward(&mut self, kit: &mut Kit) {
        while let Some((id, places)) = self.groups.take() {
            let id = FlowId(id);
            let Some(flow) = self.table.flow(id) else { continue };
            let Some(entry) = self.lanes.get(flow.key.lane) else { continue };
            let (lane, meters) = (entry.id, &entry.handle.meters);
            if let Way::Through(through) = &flow.upstream.way {
                for &place in places {
                    let datagram = self.incoming.datagram(place);
                    for payload in singles(datagram.payload, datagram.segment) {
                        if !self.wrapped.push(&through.header, payload) {
                            meters.datagrams.dropped(Dropped::TooLong, 1);
                        }
                    }
                }
                let wrapped = &mut self.wrapped;
                let sent =
                    wrapped.send(&mut self.outgoing, flow.upstream.socket(), None, None, &meters.datagrams);
                moved(entry, &flow.upstream, sent.bytes, sent.datagrams);
                if sent.is_refused {
                    self.node_refused(kit, id, Refusal::Away);
                }
                continue;
            }
            let mut datagrams = 0;
            let mut out = self.outgoing.begin();
            for &place in places {
                let datagram = self.incoming.datagram(place);
                datagrams += Traffic::of(datagram.payload, datagram.segment).datagrams;
                if !out.push(None, None, datagram.segment, datagram.payload, place as u32) {
                    meters.datagrams.dropped(Dropped::Backlog, 1);
                }
            }
            let sent = out.send(flow.upstream.socket());
            meters.datagrams.dropped(Dropped::Backlog, sent.waiting);
            self.refused.clear();
            let mut kept = 0;
            for failure in sent.failures {
                let place = failure.tag as usize;
                kept += traffic_of(&self.incoming, place).datagrams;
                match failure.error.kind() {
                    // It is about an earlier datagram; this one has not left yet.
                    io::ErrorKind::ConnectionRefused => self.refused.push(place),
                    _ => meters.datagrams.dropped(Dropped::from(&failure.error), 1),
                }
            }
            moved(entry, &flow.upstream, sent.bytes as u64, datagrams.saturating_sub(kept));
            if !self.refused.is_empty() {
                self.forward_again(kit, id, lane);
            }
        }
    }

    /// Sends what met a refusal once more: to another backend, or to the same if there is no other.
    fn forward_again(&mut self, kit: &mut Kit, id: FlowId, lane: LaneId) {
        self.note_refusal(kit, id);
        self.pick_again(kit, id);
        let Some(entry) = self.lanes.get(lane) else { return };
        let (Some(flow), meters) = (self.table.flow(id), &entry.handle.meters) else { return };
        if !matches!(flow.upstream.way, Way::Straight) {
            // The next datagram goes through the node that was found; this one is lost, as datagrams may be.
            return meters.datagrams.dropped(Dropped::Refused, self.refused.len());
        }
        let mut out = self.outgoing.begin();
        for &place in &self.refused {
            let datagram = self.incoming.datagram(place);
            if !out.push(None, None, datagram.segment, datagram.payload, place as u32) {
                meters.datagrams.dropped(Dropped::Backlog, 1);
            }
        }
        let sent = out.send(flow.upstream.socket());
        meters.datagrams.dropped(Dropped::Backlog, sent.waiting);
        let mut left =
            self.refused.iter().map(|&place| traffic_of(&self.incoming, place).datagrams).sum::<u64>();
        for failure in sent.failures {
            left = left.saturating_sub(traffic_of(&self.incoming, failure.tag as usize).datagrams);
            meters.datagrams.dropped(Dropped::from(&failure.error), 1);
        }
        moved(entry, &flow.upstream, sent.bytes as u64, left);
    }
}

pub(super) fn moved(lane: &Lane, upstream: &Upstream, bytes: u64, datagrams: u64) {
    lane.handle.meters.moved_to_backend(bytes);
    lane.handle.meters.datagrams.moved_to_backend(datagrams);
    lane.handle.service.meters.moved_to_backend(bytes);
    upstream.backend().meters().moved_to_backend(bytes);
}

fn traffic_of(batch: &RecvBatch, place: usize) -> Traffic {
    let datagram = batch.datagram(place);
    Traffic::of(datagram.payload, datagram.segment)
}
