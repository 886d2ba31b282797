//! Backends to clients: the answers of all flows that are ready in one turn of the worker's loop are gathered in one
//! batch and leave together, each from the address its client spoke to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use netd_sys::datagram::{Local, RecvBatch};

use crate::flows::{FlowId, LaneId, Traffic};
use crate::worker::Kit;

use super::groups::Groups;
use super::{BATCH, BYTES_EACH, Dropped, Udp};

/// What has come from backends and not left yet.
pub(super) struct Replies {
    batch: RecvBatch,
    /// Where each of the batch goes. A copy: the flow may have ended, and its place been taken, before it leaves.
    targets: Vec<Target>,
    groups: Groups,
}

struct Target {
    lane: LaneId,
    client: SocketAddr,
    from: Option<Local>,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self {
            batch: RecvBatch::new(BATCH, BYTES_EACH),
            targets: Vec::with_capacity(BATCH),
            groups: Groups::new(BATCH),
        }
    }
}

impl Udp {
    /// Takes what a flow's backend has sent, as far as the batch has room; the event comes again for the rest.
    pub(super) fn gather(&mut self, kit: &mut Kit, id: FlowId) {
        let Some(flow) = self.table.flow(id) else { return };
        let count = match self.replies.batch.recv_more(flow.upstream.socket()) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.note_refusal(kit, id),
        };
        let held = self.replies.batch.len();
        let lane = self.lanes.get(flow.key.lane);
        let port = lane.map_or(0, |lane| lane.answers_from(&flow.key));
        let mut traffic = Traffic::default();
        for place in held - count..held {
            let datagram = self.replies.batch.datagram(place);
            traffic.add(Traffic::of(datagram.payload, datagram.segment));
            let from = flow.key.local.map(|address| Local { address, interface: 0, port });
            self.replies.targets.push(Target { lane: flow.key.lane, client: flow.key.client, from });
        }
        if let Some(lane) = lane {
            flow.upstream.answered(lane, &flow.key, traffic.bytes);
            lane.handle.meters.datagrams.moved_to_client(traffic.datagrams);
            lane.handle.service.meters.moved_to_client(traffic.bytes);
            lane.handle.meters.moved_to_client(traffic.bytes);
        }
        self.table.backend_sent(id, traffic, kit.now);
        if held == self.replies.batch.capacity() {
            self.send_replies();
        }
    }

    /// Sends all answers gathered so far.
    pub(super) fn send_replies(&mut self) {
        let Replies { batch, targets, groups } = &mut self.replies;
        if targets.is_empty() {
            return;
        }
        groups.clear();
        for target in &*targets {
            groups.push(Some(target.lane.0));
        }
        while let Some((lane, places)) = groups.take() {
            let Some(lane) = self.lanes.get(LaneId(lane)) else { continue };
            let meters = &lane.handle.meters.datagrams;
            let mut out = self.outgoing.begin();
            for &place in places {
                let (target, datagram) = (&targets[place], batch.datagram(place));
                if !out.push(Some(target.client), target.from, datagram.segment, datagram.payload, 0) {
                    meters.dropped(Dropped::Backlog, 1);
                }
            }
            let sent = out.send(lane.socket.as_fd());
            meters.dropped(Dropped::Backlog, sent.waiting);
            for failure in sent.failures {
                meters.dropped(Dropped::from(&failure.error), 1);
            }
        }
        targets.clear();
        batch.clear();
    }
}
