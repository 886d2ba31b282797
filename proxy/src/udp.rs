//! Datagrams on a worker: the shell around the flow table. `receive` takes batches from clients and hands each flow's
//! part to its backend; `reply` gathers what backends send and sends it from the address each client spoke to;
//! `upstream` is a flow's side towards its backend. All bounded: what finds no room is dropped and counted.

mod groups;
mod meters;
mod receive;
mod reply;
mod upstream;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_sys::datagram::{self, MAX_TRAIN, RecvBatch, SendBatch};
use netd_sys::poll::{Event, Interest};

use crate::flows::{Ended, FlowId, FlowTable, LaneId};
use crate::snapshot::{ListenerHandle, Pool, ServiceHandle};
use crate::table::ListenerId;
use crate::worker::{Datagrams, Kit, SharedSocket, Token};

use groups::Groups;
pub(crate) use meters::DatagramMeters;
pub use meters::{DatagramCounts, Dropped};
use reply::Replies;
use upstream::Upstream;

/// How many datagrams (or trains) one receive takes.
const BATCH: usize = 64;
/// Room for a train, and a cache line more: at a stride of exactly 64 KiB the first bytes of all datagrams of a batch
/// would compete for the same few cache lines.
const BYTES_EACH: usize = MAX_TRAIN + 1 + 64;
/// A draining worker only waits for answers that are on their way.
const DRAIN_IDLE: Duration = Duration::from_secs(5);

/// The datagram side of one worker.
pub(crate) struct Udp {
    /// By [`LaneId`].
    lanes: Vec<Option<Lane>>,
    table: FlowTable<Upstream>,
    incoming: RecvBatch,
    outgoing: SendBatch,
    groups: Groups,
    replies: Replies,
    /// Places in `incoming` whose sending met a refusal.
    refused: Vec<usize>,
    draining: bool,
}

/// A listener's socket on this worker, and what it leads to.
struct Lane {
    id: LaneId,
    handle: Arc<ListenerHandle>,
    socket: SharedSocket,
    /// The backends that the flows of this lane were last checked against.
    pool: Arc<Pool>,
}

/// What a token of ours stands for.
enum Number {
    Lane(LaneId),
    Flow(FlowId),
}

impl Udp {
    /// Serves at most `flows` flows at once: each has a descriptor.
    pub(crate) fn new(flows: usize) -> Self {
        Self {
            lanes: Vec::new(),
            table: FlowTable::new(flows),
            incoming: RecvBatch::new(BATCH, BYTES_EACH),
            // A train of full length may have to leave in two.
            outgoing: SendBatch::new(2 * BATCH),
            groups: Groups::new(BATCH),
            replies: Replies::new(),
            refused: Vec::with_capacity(2 * BATCH),
            draining: false,
        }
    }

    fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id.0 as usize)?.as_ref()
    }

    fn lane_of(&self, listener: &ListenerId) -> Option<LaneId> {
        self.lanes.iter().flatten().find(|lane| lane.handle.listener.id == *listener).map(|lane| lane.id)
    }

    fn open_lane(&mut self, kit: &Kit, handle: Arc<ListenerHandle>, socket: SharedSocket) -> io::Result<()> {
        datagram::receive_trains(&*socket)?;
        datagram::receive_local_address(&*socket)?;
        datagram::enlarge_buffers(&*socket)?;
        let pool = handle.service.pool();
        let id = self.table.open_lane(handle.listener.limit as usize, pool.udp_idle);
        if let Err(error) = kit.poller.add(socket.as_fd(), Number::Lane(id).token(), Interest::READ) {
            self.table.close_lane(id);
            return Err(error);
        }
        let place = id.0 as usize;
        if place >= self.lanes.len() {
            self.lanes.resize_with(place + 1, || None);
        }
        self.lanes[place] = Some(Lane { id, handle, socket, pool });
        Ok(())
    }

    /// Ends the flows of a lane that the listener, its service or the service's backends no longer lead to where they
    /// go, when any of these has been replaced.
    fn refresh(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        lane.pool = lane.handle.service.pool();
        let lane = &*lane;
        if !self.draining {
            self.table.limit_lane(id, lane.handle.listener.limit as usize, lane.pool.udp_idle);
        }
        let ended = self.table.end_where(id, crate::flows::End::BackendGone, |flow| {
            !flow.upstream.leads_as(&flow.key, &lane.handle, &lane.pool)
        });
        self.close(ended);
    }

    /// Closes the sockets that no flow needs any more, so that their ports are free for whoever comes next.
    fn let_go_of_drained(&mut self) {
        if !self.draining {
            return;
        }
        for slot in &mut self.lanes {
            slot.take_if(|lane| self.table.is_lane_empty(lane.id));
        }
    }

    /// The end of flows that have left the table.
    fn close(&self, ended: impl IntoIterator<Item = Ended<Upstream>>) {
        for ended in ended {
            if let Some(lane) = self.lane(ended.flow.key.lane) {
                lane.handle.meters.closed();
                lane.handle.meters.datagrams.ended(ended.why);
                ended.flow.upstream.account(&ended, &lane.handle);
            }
        }
    }
}

impl Datagrams for Udp {
    fn put_listener(
        &mut self,
        kit: &mut Kit,
        listener: Arc<ListenerHandle>,
        socket: Option<SharedSocket>,
    ) -> io::Result<()> {
        if let Some(socket) = socket {
            return self.open_lane(kit, listener, socket);
        }
        for place in 0..self.lanes.len() {
            if let Some(lane) = self.lanes[place].as_mut()
                && lane.handle.listener.id == listener.listener.id
            {
                lane.handle = Arc::clone(&listener);
                let id = lane.id;
                self.refresh(id);
            }
        }
        Ok(())
    }

    fn drop_listener(&mut self, kit: &mut Kit, listener: &ListenerId) {
        while let Some(id) = self.lane_of(listener) {
            let ended = self.table.close_lane(id);
            self.close(ended);
            if let Some(lane) = self.lanes[id.0 as usize].take() {
                // Fails only when draining has taken it out before.
                let _ = kit.poller.remove(lane.socket.as_fd());
            }
        }
    }

    fn service_changed(&mut self, _kit: &mut Kit, service: &Arc<ServiceHandle>) {
        for place in 0..self.lanes.len() {
            if let Some(lane) = &self.lanes[place]
                && Arc::ptr_eq(&lane.handle.service, service)
            {
                self.refresh(lane.id);
            }
        }
    }

    fn ready(&mut self, kit: &mut Kit, number: u64, _event: Event) {
        match Number::from(number) {
            Number::Lane(lane) => self.receive(kit, lane),
            Number::Flow(flow) => self.gather(kit, flow),
        }
    }

    fn flush(&mut self, _kit: &mut Kit) {
        self.send_replies();
    }

    fn deadline(&self) -> Option<Instant> {
        self.table.next_expiry()
    }

    fn tick(&mut self, kit: &mut Kit) {
        while let Some(ended) = self.table.expire(kit.now) {
            self.close([ended]);
        }
        self.let_go_of_drained();
    }

    fn drain(&mut self, kit: &mut Kit) {
        self.draining = true;
        for lane in self.lanes.iter().flatten() {
            // The socket itself stays until the lane's flows have ended: answers leave through it.
            let _ = kit.poller.remove(lane.socket.as_fd());
            self.table.limit_lane(lane.id, 0, lane.pool.udp_idle.min(DRAIN_IDLE));
        }
        self.let_go_of_drained();
    }

    fn open(&self) -> usize {
        self.table.len()
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        for place in 0..self.lanes.len() {
            let ended = self.table.close_lane(LaneId(place as u32));
            self.close(ended);
        }
    }
}

impl Number {
    fn token(self) -> u64 {
        Token::datagrams(match self {
            Self::Lane(LaneId(id)) => u64::from(id) << 1,
            Self::Flow(FlowId(id)) => u64::from(id) << 1 | 1,
        })
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        let id = (number >> 1) as u32;
        if number & 1 == 0 { Self::Lane(LaneId(id)) } else { Self::Flow(FlowId(id)) }
    }
}
