//! What is wanted of the mesh: the nodes, the sockets that they come to, and a listener of its own for each service and
//! protocol, behind which other nodes find the service.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Control, shared_out};
use crate::gate::Gate;
use crate::hop::Mesh;
use crate::metrics::Meters;
use crate::snapshot::{ListenerHandle, ServiceHandle};
use crate::stats::MeshStats;
use crate::table::{self, Listener, ListenerId, MESH_TCP, MESH_UDP, Protocol, ServiceId, Source};
use crate::worker::{SharedSocket, Step};

pub(super) struct WantedMesh {
    wanted: table::Mesh,
    nodes: Arc<Mesh>,
    ways: [Way; 2],
}

/// One protocol's part.
struct Way {
    protocol: Protocol,
    id: ListenerId,
    sockets: Vec<SharedSocket>,
    gate: Arc<Gate>,
    meters: Arc<Meters>,
}

impl Control {
    pub(super) fn put_mesh(
        &mut self,
        wanted: &table::Mesh,
        sockets: &mut HashMap<ListenerId, Vec<SharedSocket>>,
        steps: &mut [Vec<Step>],
    ) {
        let nodes = self.mesh.as_ref().map(|mesh| &*mesh.nodes);
        let nodes = Arc::new(Mesh::new(wanted, nodes, &self.wakers));
        for steps in &mut *steps {
            steps.push(Step::PutMesh(Arc::clone(&nodes)));
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.ways.iter().for_each(|way| way.gate.set_limit(wanted.limit));
            (mesh.nodes, mesh.wanted) = (nodes, wanted.clone());
            return;
        }
        let ways = [(Protocol::Tcp, MESH_TCP), (Protocol::Udp, MESH_UDP)].map(|(protocol, id)| Way {
            protocol,
            id: id.into(),
            sockets: sockets.remove(id).unwrap_or_default(),
            gate: Arc::new(Gate::new(wanted.limit, Arc::clone(&self.wakers))),
            meters: Arc::default(),
        });
        for way in &ways {
            let count = way.sockets.len();
            for (worker, socket) in shared_out(way.protocol, &way.id, count, steps.len()) {
                steps[worker].push(Step::OpenMesh {
                    protocol: way.protocol,
                    socket: Arc::clone(&way.sockets[socket]),
                    shared: count < steps.len(),
                });
            }
        }
        self.mesh = Some(WantedMesh { wanted: wanted.clone(), nodes, ways });
        for service in self.services.values().filter(|service| !service.dropped) {
            self.reach(&service.handle, steps);
        }
    }

    pub(super) fn drop_mesh(&mut self, steps: &mut [Vec<Step>]) {
        if self.mesh.take().is_some() {
            steps.iter_mut().for_each(|steps| steps.push(Step::DropMesh));
        }
    }

    /// Lets other nodes ask for a service.
    pub(super) fn reach(&self, service: &Arc<ServiceHandle>, steps: &mut [Vec<Step>]) {
        let Some(mesh) = &self.mesh else { return };
        for way in &mesh.ways {
            let handle = Arc::new(way.listener(&mesh.wanted, service));
            steps.iter_mut().for_each(|steps| steps.push(Step::Reach(Arc::clone(&handle))));
        }
    }

    pub(super) fn unreach(&self, service: &ServiceId, steps: &mut [Vec<Step>]) {
        let Some(mesh) = &self.mesh else { return };
        for way in &mesh.ways {
            let step = || Step::Unreach(way.protocol, Arc::clone(service));
            steps.iter_mut().for_each(|steps| steps.push(step()));
        }
    }
}

impl WantedMesh {
    pub(super) fn sockets(&self) -> impl Iterator<Item = (ListenerId, &[Arc<OwnedFd>])> {
        self.ways.iter().map(|way| (Arc::clone(&way.id), &*way.sockets))
    }

    pub(super) fn close_sockets(&mut self) {
        self.ways.iter_mut().for_each(|way| way.sockets.clear());
    }

    pub(super) fn stats(&self) -> MeshStats {
        self.nodes.stats()
    }
}

impl Way {
    fn listener(&self, mesh: &table::Mesh, service: &Arc<ServiceHandle>) -> ListenerHandle {
        let listener = Listener {
            id: Arc::clone(&self.id),
            protocol: self.protocol,
            address: mesh.address,
            service: Arc::clone(&service.id),
            funnel: None,
            target_port: None,
            proxy_protocol: None,
            // What a connection's header says goes before it.
            source: Source::Own,
            limit: mesh.limit,
        };
        let (meters, gate) = (Arc::clone(&self.meters), Arc::clone(&self.gate));
        ListenerHandle { listener, service: Arc::clone(service), meters, gate }
    }
}
