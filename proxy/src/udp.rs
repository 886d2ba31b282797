//! Datagrams on a worker: the shell around the flow table. `receive` takes batches from clients and hands each flow's
//! part to its backend; `reply` gathers what backends send and sends it from the address each client spoke to;
//! `upstream` is a flow's side towards its backend. All bounded: what finds no room is dropped and counted.

mod funnels;
mod groups;
mod hop;
mod lanes;
mod meters;
mod receive;
mod reply;
mod upstream;
mod wrapped;

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netd_sys::datagram::{self, MAX_TRAIN, RecvBatch, SendBatch};
use netd_sys::poll::{Event, Interest};
use slab::Slab;

use crate::flows::{End, Ended, FlowId, FlowTable, LaneId};
use crate::snapshot::{ListenerHandle, ServiceHandle};
use crate::table::{FunnelId, ListenerId, ServiceId};
use crate::worker::{Datagrams, Kit, SharedSocket, Token};

use funnels::Funnels;
use groups::Groups;
use hop::MeshSocket;
use lanes::{Lane, Lanes};
pub(crate) use meters::DatagramMeters;
pub use meters::{DatagramCounts, Dropped};
use receive::Arrival;
use reply::Replies;
use upstream::Upstream;
use wrapped::Wrapped;

/// How many datagrams (or trains) one receive takes.
const BATCH: usize = 64;
/// Room for a train, and a cache line more: at a stride of exactly 64 KiB the first bytes of all datagrams of a batch
/// would compete for the same few cache lines.
const BYTES_EACH: usize = MAX_TRAIN + 1 + 64;
/// A draining worker only waits for answers that are on their way.
const DRAIN_IDLE: Duration = Duration::from_secs(5);

/// The datagram side of one worker.
pub(crate) struct Udp {
    lanes: Lanes,
    funnels: Funnels,
    /// Sockets that other nodes send to.
    meshes: Slab<MeshSocket>,
    table: FlowTable<Upstream>,
    incoming: RecvBatch,
    outgoing: SendBatch,
    groups: Groups,
    replies: Replies,
    /// What is sent to and for other nodes.
    wrapped: Wrapped,
    /// Places in `incoming` whose sending met a refusal.
    refused: Vec<usize>,
    draining: bool,
}

/// What a token of ours stands for.
enum Number {
    Lane(LaneId),
    Flow(FlowId),
    Funnel(u32),
    Mesh(u32),
}

impl Udp {
    /// Serves at most `flows` flows at once: each has a descriptor.
    pub(crate) fn new(flows: usize) -> Self {
        Self {
            lanes: Lanes::default(),
            funnels: Funnels::default(),
            meshes: Slab::new(),
            table: FlowTable::new(flows),
            incoming: RecvBatch::new(BATCH, BYTES_EACH),
            // A train of full length may have to leave in two.
            outgoing: SendBatch::new(2 * BATCH),
            groups: Groups::new(BATCH),
            replies: Replies::new(),
            wrapped: Wrapped::default(),
            refused: Vec::with_capacity(2 * BATCH),
            draining: false,
        }
    }

    fn open_lane(&mut self, kit: &Kit, handle: Arc<ListenerHandle>, socket: SharedSocket) -> io::Result<()> {
        prepare(&socket)?;
        let id = self.new_lane(handle, socket);
        let Some(lane) = self.lanes.get(id) else { return Ok(()) };
        let added = kit.poller.add(lane.socket.as_fd(), Number::Lane(id).token(), Interest::READ);
        if added.is_err() {
            self.table.close_lane(id);
            self.lanes.remove(id);
        }
        added
    }

    fn new_lane(&mut self, handle: Arc<ListenerHandle>, socket: SharedSocket) -> LaneId {
        let pool = handle.service.pool();
        let id = self.table.open_lane(handle.listener.limit as usize, pool.udp_idle);
        self.lanes.add(Lane { id, handle, socket, pool });
        id
    }

    /// One lane for each socket of the funnel that this worker has.
    fn open_lanes_of(&mut self, funnel: &FunnelId, handle: &Arc<ListenerHandle>) {
        let sockets: Vec<SharedSocket> =
            self.funnels.of(funnel).map(|funnel| Arc::clone(&funnel.socket)).collect();
        let lanes: Vec<LaneId> =
            sockets.into_iter().map(|socket| self.new_lane(Arc::clone(handle), socket)).collect();
        for (funnel, lane) in self.funnels.of(funnel).zip(lanes) {
            funnel.lanes.put(handle.listener.address, lane);
        }
    }

    /// Ends the flows of a lane that the listener, its service or the service's backends no longer lead to where they
    /// go, when any of these has been replaced.
    fn refresh(&mut self, id: LaneId) {
        self.lanes.look(id);
        let Some(lane) = self.lanes.get(id) else { return };
        if !self.draining {
            self.table.limit_lane(id, lane.handle.listener.limit as usize, lane.pool.udp_idle);
        }
        let ended = self.table.end_where(id, End::BackendGone, |flow| {
            !flow.upstream.leads_as(&flow.key, &lane.handle, &lane.pool)
        });
        self.close(ended);
    }

    /// Ends the flows of a lane, and the lane.
    fn drop_lane(&mut self, id: LaneId) {
        let ended = self.table.close_lane(id);
        self.close(ended);
        self.lanes.remove(id);
    }

    /// Closes the sockets that no flow needs any more, so that their ports are free for whoever comes next.
    fn let_go_of_drained(&mut self) {
        if !self.draining {
            return;
        }
        let done = |lane: &&Lane| self.table.is_lane_empty(lane.id);
        let done = self.lanes.iter().filter(done).map(|lane| lane.id).collect::<Vec<_>>();
        for id in done {
            self.table.close_lane(id);
            self.lanes.remove(id);
        }
    }

    /// The end of flows that have left the table.
    fn close(&self, ended: impl IntoIterator<Item = Ended<Upstream>>) {
        for ended in ended {
            if let Some(lane) = self.lanes.get(ended.flow.key.lane) {
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
        let lanes = self.lanes.of_listener(&listener.listener.id);
        if let Some(funnel) = listener.listener.funnel.as_ref().filter(|_| lanes.is_empty()) {
            self.open_lanes_of(funnel, &listener);
        }
        for id in lanes {
            self.lanes.lead(id, &listener);
            self.refresh(id);
        }
        Ok(())
    }

    fn drop_listener(&mut self, kit: &mut Kit, listener: &ListenerId) {
        for id in self.lanes.of_listener(listener) {
            let ended = self.table.close_lane(id);
            self.close(ended);
            let Some(lane) = self.lanes.remove(id) else { continue };
            match &lane.handle.listener.funnel {
                // Fails only when draining has taken it out before.
                None => _ = kit.poller.remove(lane.socket.as_fd()),
                Some(funnel) => {
                    let address = lane.handle.listener.address;
                    self.funnels.of(funnel).for_each(|funnel| funnel.lanes.remove(address));
                }
            }
        }
    }

    fn put_funnel(&mut self, kit: &mut Kit, funnel: &FunnelId, socket: SharedSocket) -> io::Result<()> {
        prepare(&socket)?;
        let number = Number::Funnel(self.funnels.next_number());
        kit.poller.add(socket.as_fd(), number.token(), Interest::READ)?;
        self.funnels.add(Arc::clone(funnel), socket);
        Ok(())
    }

    fn drop_funnel(&mut self, kit: &mut Kit, funnel: &FunnelId) {
        for funnel in self.funnels.take(funnel) {
            // Fails only when draining has taken it out before.
            let _ = kit.poller.remove(funnel.socket.as_fd());
        }
    }

    fn put_mesh(&mut self, kit: &mut Kit, socket: SharedSocket) -> io::Result<()> {
        prepare(&socket)?;
        let number = Number::Mesh(self.meshes.vacant_key() as u32);
        kit.poller.add(socket.as_fd(), number.token(), Interest::READ)?;
        self.meshes.insert(MeshSocket { socket, lanes: HashMap::new() });
        Ok(())
    }

    fn reach(&mut self, listener: &Arc<ListenerHandle>) {
        let id = &listener.service.id;
        for number in self.meshes.iter().map(|(number, _)| number).collect::<Vec<_>>() {
            match self.meshes[number].lanes.get(id).copied() {
                Some(lane) => {
                    self.lanes.lead(lane, listener);
                    self.refresh(lane);
                }
                None => {
                    let lane = self.new_lane(Arc::clone(listener), Arc::clone(&self.meshes[number].socket));
                    self.meshes[number].lanes.insert(Arc::clone(id), lane);
                }
            }
        }
    }

    fn unreach(&mut self, service: &ServiceId) {
        let lanes: Vec<LaneId> =
            self.meshes.iter_mut().filter_map(|(_, mesh)| mesh.lanes.remove(service)).collect();
        lanes.into_iter().for_each(|lane| self.drop_lane(lane));
    }

    fn drop_mesh(&mut self, kit: &mut Kit) {
        for (_, mesh) in std::mem::take(&mut self.meshes) {
            // Fails only when draining has taken it out before.
            let _ = kit.poller.remove(mesh.socket.as_fd());
            mesh.lanes.into_values().for_each(|lane| self.drop_lane(lane));
        }
    }

    fn service_changed(&mut self, _kit: &mut Kit, service: &Arc<ServiceHandle>) {
        for id in self.lanes.of_service(&service.id) {
            self.refresh(id);
        }
    }

    fn ready(&mut self, kit: &mut Kit, number: u64, _event: Event) {
        match Number::from(number) {
            Number::Lane(lane) => self.receive(kit, Arrival::Lane(lane)),
            Number::Funnel(number) => self.receive(kit, Arrival::Funnel(number)),
            Number::Mesh(number) => self.receive_mesh(kit, number),
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

    fn cut(&mut self, kit: &mut Kit) {
        let lanes: Vec<LaneId> = self.lanes.iter().map(|lane| lane.id).collect();
        for lane in lanes {
            let ended = self.table.end_where(lane, End::BackendGone, |flow| {
                flow.upstream.backend().is_cut(flow.opened, kit.now)
            });
            self.close(ended);
        }
    }

    fn drain(&mut self, kit: &mut Kit) {
        self.draining = true;
        for funnel in self.funnels.iter() {
            let _ = kit.poller.remove(funnel.socket.as_fd());
        }
        self.funnels.clear();
        for (_, mesh) in &self.meshes {
            let _ = kit.poller.remove(mesh.socket.as_fd());
        }
        for lane in self.lanes.iter() {
            // The socket itself stays until the lane's flows have ended: answers leave through it.
            if lane.handle.listener.funnel.is_none() {
                let _ = kit.poller.remove(lane.socket.as_fd());
            }
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
        let lanes = self.lanes.iter().map(|lane| lane.id).collect::<Vec<_>>();
        for id in lanes {
            let ended = self.table.close_lane(id);
            self.close(ended);
        }
    }
}

fn prepare(socket: &SharedSocket) -> io::Result<()> {
    datagram::receive_trains(&**socket)?;
    datagram::receive_local_address(&**socket)?;
    datagram::enlarge_buffers(&**socket)
}

impl Number {
    fn token(self) -> u64 {
        Token::datagrams(match self {
            Self::Lane(LaneId(id)) => u64::from(id) << 2,
            Self::Flow(FlowId(id)) => u64::from(id) << 2 | 1,
            Self::Funnel(number) => u64::from(number) << 2 | 2,
            Self::Mesh(number) => u64::from(number) << 2 | 3,
        })
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        let id = (number >> 2) as u32;
        match number & 3 {
            0 => Self::Lane(LaneId(id)),
            1 => Self::Flow(FlowId(id)),
            2 => Self::Funnel(id),
            _ => Self::Mesh(id),
        }
    }
}
