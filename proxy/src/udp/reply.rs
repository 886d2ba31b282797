//! Backends to clients: the answers of all flows that are ready in one turn of the worker's loop are gathered in one
//! batch and leave together, each from the address its client spoke to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use netd_sys::datagram::{Local, RecvBatch};

use crate::flows::{FlowId, LaneId, Traffic};
use crate::hop::{Refusal, Status};
use crate::worker::Kit;

use super::groups::Groups;
use super::hop::{answer, heard, singles};
use super::upstream::Way;
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
    head: Head,
}

/// What nodes say before an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    None,
    /// It is taken off, if it has this nonce.
    Off(u64),
    /// It is put before.
    On(u64),
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
        let head = match &flow.upstream.way {
            Way::Straight => Head::None,
            Way::Through(through) => Head::Off(through.nonce),
            Way::Visit(visit) => Head::On(visit.nonce),
        };
        let mut refusal = None;
        let mut traffic = Traffic::default();
        for place in held - count..held {
            let datagram = self.replies.batch.datagram(place);
            match head {
                Head::None | Head::On(_) => traffic.add(Traffic::of(datagram.payload, datagram.segment)),
                Head::Off(nonce) => {
                    for single in singles(datagram.payload, datagram.segment) {
                        match heard(nonce, single) {
                            Some((Status::Ok, payload)) => traffic.add(Traffic::of(payload, None)),
                            Some((status, _)) => refusal = Refusal::of(status),
                            // Not the node's, whoever sent it.
                            None => {}
                        }
                    }
                }
            }
            let from = flow.key.local.map(|address| Local { address, interface: 0, port });
            self.replies.targets.push(Target { lane: flow.key.lane, client: flow.key.client, from, head });
        }
        if let Some(lane) = lane.filter(|_| traffic.datagrams > 0) {
            flow.upstream.answered(lane, &flow.key, traffic.bytes);
            lane.handle.meters.datagrams.moved_to_client(traffic.datagrams);
            lane.handle.service.meters.moved_to_client(traffic.bytes);
            lane.handle.meters.moved_to_client(traffic.bytes);
        }
        if traffic.datagrams > 0 {
            self.table.backend_sent(id, traffic, kit.now);
        }
        if let Some(why) = refusal {
            self.node_refused(kit, id, why);
        }
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
            for &place in places.iter().filter(|place| targets[**place].head == Head::None) {
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
            for &place in places.iter().filter(|place| targets[**place].head != Head::None) {
                let (target, datagram) = (&targets[place], batch.datagram(place));
                for single in singles(datagram.payload, datagram.segment) {
                    let fits = match target.head {
                        Head::On(nonce) => self.wrapped.push(&answer(Status::Ok, nonce), single),
                        Head::Off(nonce) => match heard(nonce, single) {
                            Some((Status::Ok, payload)) => self.wrapped.push(&[], payload),
                            _ => true,
                        },
                        Head::None => true,
                    };
                    if !fits {
                        meters.dropped(Dropped::TooLong, 1);
                    }
                }
                let to = Some(target.client);
                self.wrapped.send(&mut self.outgoing, lane.socket.as_fd(), to, target.from, meters);
            }
        }
        targets.clear();
        batch.clear();
    }

    /// The node that a flow goes through says that it cannot, or is not there: the next datagram goes elsewhere.
    pub(super) fn node_refused(&mut self, kit: &mut Kit, id: FlowId, why: Refusal) {
        if let Some(Way::Through(through)) = self.table.flow(id).map(|flow| &flow.upstream.way) {
            through.node.failed(why);
        }
        self.note_refusal(kit, id);
    }
}
