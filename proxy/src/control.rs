//! The control side's own tables: what is wanted of each listener and service, and which steps lead the workers there.
//! A change costs what it changes, however much else there is. Nothing here is seen by the data path but the handles.

mod health;
mod mesh;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use netd_sys::poll::Waker;

use crate::Error;
use crate::clock::moment;
use crate::gate::Gate;
use crate::health::prober::Orders;
use crate::metrics::{Counts, Meters};
use crate::snapshot::{BackendHandle, ListenerHandle, ServiceHandle};
use crate::stats::{BackendStats, ListenerStats, ServiceStats, Stats};
use crate::table::{Change, Funnel, FunnelId, Listener, ListenerId, MESH_TCP, Protocol, Service, ServiceId};
use crate::worker::{SharedSocket, Step};
use mesh::WantedMesh;

/// What is wanted at the moment.
pub(crate) struct Control {
    services: HashMap<ServiceId, WantedService>,
    listeners: HashMap<ListenerId, WantedListener>,
    funnels: HashMap<FunnelId, Vec<SharedSocket>>,
    mesh: Option<WantedMesh>,
    /// Of services that have a check.
    checked: HashMap<ServiceId, health::Checked>,
    listening: Option<health::Listening>,
    orders: Orders,
    wakers: Arc<[Arc<Waker>]>,
}

struct WantedService {
    handle: Arc<ServiceHandle>,
    /// How many listeners lead to it.
    listeners: usize,
    /// Dropped, and kept (without backends) only while a listener leads to it.
    dropped: bool,
}

struct WantedListener {
    handle: Arc<ListenerHandle>,
    sockets: Vec<SharedSocket>,
}

impl Control {
    pub(crate) fn new(wakers: Arc<[Arc<Waker>]>, orders: Orders) -> Self {
        Self {
            services: HashMap::new(),
            listeners: HashMap::new(),
            funnels: HashMap::new(),
            mesh: None,
            checked: HashMap::new(),
            listening: None,
            orders,
            wakers,
        }
    }

    /// Whether `changes` can be made one after another. Nothing is changed.
    pub(crate) fn check(
        &self,
        changes: &[Change],
        sockets: &HashMap<ListenerId, Vec<SharedSocket>>,
    ) -> Result<(), Error> {
        let mut made: HashMap<&str, bool> = HashMap::new();
        let mut opened: HashMap<&str, bool> = HashMap::new();
        let mut funnels: HashMap<&str, bool> = HashMap::new();
        let mut mesh = self.mesh.is_some();
        let no_sockets = |id: &str| sockets.get(id).is_none_or(Vec::is_empty);
        for change in changes {
            match change {
                Change::PutService(service) => _ = made.insert(&service.id, true),
                Change::DropService { service } => _ = made.insert(service, false),
                Change::DropListener { listener } => _ = opened.insert(listener, false),
                Change::PutFunnel(funnel) => {
                    let open = self.funnels.contains_key(&funnel.id);
                    let open = funnels.insert(&funnel.id, true).unwrap_or(open);
                    if !open && no_sockets(&funnel.id) {
                        return Err(Error::NoSocket { listener: Arc::clone(&funnel.id) });
                    }
                }
                Change::DropFunnel { funnel } => _ = funnels.insert(funnel, false),
                Change::PutMesh(_) => {
                    if !mesh && no_sockets(MESH_TCP) {
                        return Err(Error::NoMeshSocket);
                    }
                    mesh = true;
                }
                Change::DropMesh => mesh = false,
                Change::PutListener(listener) => {
                    let known = self.services.get(&listener.service).is_some_and(|service| !service.dropped);
                    if !made.get(&*listener.service).copied().unwrap_or(known) {
                        return Err(Error::UnknownService {
                            listener: Arc::clone(&listener.id),
                            service: Arc::clone(&listener.service),
                        });
                    }
                    if let Some(funnel) = &listener.funnel {
                        let known = self.funnels.contains_key(funnel);
                        if !funnels.get(&**funnel).copied().unwrap_or(known) {
                            let (listener, funnel) = (Arc::clone(&listener.id), Arc::clone(funnel));
                            return Err(Error::UnknownFunnel { listener, funnel });
                        }
                        opened.insert(&listener.id, false);
                        continue;
                    }
                    let has_own = |wanted: &WantedListener| wanted.handle.listener.funnel.is_none();
                    let open = self.listeners.get(&listener.id).is_some_and(has_own);
                    let open = opened.insert(&listener.id, true).unwrap_or(open);
                    if !open && no_sockets(&listener.id) {
                        return Err(Error::NoSocket { listener: Arc::clone(&listener.id) });
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a change that was checked, and adds what each worker must do to its steps.
    pub(crate) fn make(
        &mut self,
        change: Change,
        sockets: &mut HashMap<ListenerId, Vec<SharedSocket>>,
        steps: &mut [Vec<Step>],
    ) {
        match change {
            Change::PutService(service) => self.put_service(&service, steps),
            Change::DropService { service } => self.drop_service(&service, steps),
            Change::PutListener(listener) => {
                let sockets = sockets.remove(&listener.id).unwrap_or_default();
                self.put_listener(listener, sockets, steps);
            }
            Change::DropListener { listener } => self.drop_listener(&listener, steps),
            Change::PutFunnel(funnel) => {
                let sockets = sockets.remove(&funnel.id).unwrap_or_default();
                self.put_funnel(&funnel, sockets, steps);
            }
            Change::DropFunnel { funnel } => self.drop_funnel(&funnel, steps),
            Change::PutMesh(mesh) => self.put_mesh(&mesh, sockets, steps),
            Change::DropMesh => self.drop_mesh(steps),
        }
    }

    fn put_service(&mut self, service: &Service, steps: &mut [Vec<Step>]) {
        let service = self.check_up(service);
        let served = |control: &Self| {
            let wanted = control.services.get(&service.id).filter(|wanted| !wanted.dropped);
            wanted.map(|wanted| Arc::clone(&wanted.handle))
        };
        let before = served(self);
        self.make_service(&service, steps);
        let after = served(self);
        if let Some(handle) =
            after.filter(|handle| !before.is_some_and(|before| Arc::ptr_eq(&before, handle)))
        {
            self.reach(&handle, steps);
        }
    }

    fn make_service(&mut self, service: &Service, steps: &mut [Vec<Step>]) {
        match self.services.get_mut(&service.id) {
            Some(wanted) if wanted.handle.label == service.label => {
                wanted.dropped = false;
                wanted.handle.replace(service, Instant::now());
                announce(&wanted.handle, steps);
            }
            Some(wanted) => {
                // Another name: listeners are led to a new handle, which counts on where the old one is.
                wanted.dropped = false;
                let renamed = Arc::new(wanted.handle.renamed(service, Instant::now()));
                wanted.handle = Arc::clone(&renamed);
                let led: Vec<Listener> = self
                    .listeners
                    .values()
                    .filter(|wanted| wanted.handle.service.id == service.id)
                    .map(|wanted| wanted.handle.listener.clone())
                    .collect();
                led.into_iter().for_each(|listener| self.put_listener(listener, Vec::new(), steps));
                announce(&renamed, steps);
            }
            None => {
                let handle = Arc::new(ServiceHandle::new(service, Instant::now()));
                let id = Arc::clone(&service.id);
                self.services.insert(id, WantedService { handle, listeners: 0, dropped: false });
            }
        }
    }

    fn drop_service(&mut self, id: &ServiceId, steps: &mut [Vec<Step>]) {
        self.check_no_more(id);
        let Some(wanted) = self.services.get_mut(id) else { return };
        wanted.dropped = true;
        wanted.handle.empty();
        announce(&wanted.handle, steps);
        self.unreach(id, steps);
        self.forget_unused(id);
    }

    fn put_listener(&mut self, listener: Listener, sockets: Vec<SharedSocket>, steps: &mut [Vec<Step>]) {
        // Checked before: a listener names a service that is there.
        let Some(service) = self.services.get_mut(&listener.service) else { return };
        service.listeners += 1;
        let service = Arc::clone(&service.handle);
        let id = Arc::clone(&listener.id);
        let moves = |wanted: &WantedListener| wanted.handle.listener.funnel != listener.funnel;
        if self.listeners.get(&id).is_some_and(moves) {
            self.drop_listener(&id, steps);
        }
        if let Some(wanted) = self.listeners.get_mut(&id) {
            let old = &wanted.handle;
            old.gate.set_limit(listener.limit);
            let (meters, gate) = (Arc::clone(&old.meters), Arc::clone(&old.gate));
            let next = Arc::new(ListenerHandle { listener, service, meters, gate });
            let old = mem::replace(&mut wanted.handle, Arc::clone(&next));
            self.unlead(&old.service.id);
            for steps in steps {
                steps.push(Step::PutListener { handle: Arc::clone(&next), socket: None, shared: false });
            }
            return;
        }
        let gate = Arc::new(Gate::new(listener.limit, Arc::clone(&self.wakers)));
        let handle = Arc::new(ListenerHandle { listener, service, meters: Arc::<Meters>::default(), gate });
        if handle.listener.funnel.is_some() {
            for steps in steps {
                steps.push(Step::PutListener { handle: Arc::clone(&handle), socket: None, shared: false });
            }
            self.listeners.insert(id, WantedListener { handle, sockets: Vec::new() });
            return;
        }
        let protocol = handle.listener.protocol;
        for (worker, socket) in shared_out(protocol, &id, sockets.len(), steps.len()) {
            steps[worker].push(Step::PutListener {
                handle: Arc::clone(&handle),
                socket: Some(Arc::clone(&sockets[socket])),
                shared: sockets.len() < steps.len(),
            });
        }
        self.listeners.insert(id, WantedListener { handle, sockets });
    }

    fn drop_listener(&mut self, id: &ListenerId, steps: &mut [Vec<Step>]) {
        let Some(wanted) = self.listeners.remove(id) else { return };
        self.unlead(&wanted.handle.service.id);
        for steps in steps {
            steps.push(Step::DropListener(Arc::clone(&wanted.handle)));
        }
    }

    fn put_funnel(&mut self, funnel: &Funnel, sockets: Vec<SharedSocket>, steps: &mut [Vec<Step>]) {
        if self.funnels.contains_key(&funnel.id) {
            return;
        }
        for (worker, socket) in shared_out(funnel.protocol, &funnel.id, sockets.len(), steps.len()) {
            steps[worker].push(Step::PutFunnel {
                funnel: funnel.clone(),
                socket: Arc::clone(&sockets[socket]),
                shared: sockets.len() < steps.len(),
            });
        }
        self.funnels.insert(Arc::clone(&funnel.id), sockets);
    }

    fn drop_funnel(&mut self, id: &FunnelId, steps: &mut [Vec<Step>]) {
        if self.funnels.remove(id).is_none() {
            return;
        }
        for steps in steps {
            steps.push(Step::DropFunnel(Arc::clone(id)));
        }
    }

    /// Of what a worker could not serve.
    pub(crate) fn drop_refused(&mut self, id: &str, steps: &mut [Vec<Step>]) {
        let id = Arc::from(id);
        self.drop_listener(&id, steps);
        self.drop_funnel(&id, steps);
        if &*id == MESH_TCP {
            self.drop_mesh(steps);
        }
    }

    fn unlead(&mut self, service: &ServiceId) {
        if let Some(wanted) = self.services.get_mut(service) {
            wanted.listeners = wanted.listeners.saturating_sub(1);
        }
        self.forget_unused(service);
    }

    fn forget_unused(&mut self, service: &ServiceId) {
        if self.services.get(service).is_some_and(|wanted| wanted.dropped && wanted.listeners == 0) {
            self.services.remove(service);
        }
    }

    /// Lets go of all listening sockets; what they were is still known.
    pub(crate) fn close_sockets(&mut self) {
        self.listeners.values_mut().for_each(|wanted| wanted.sockets.clear());
        self.funnels.values_mut().for_each(Vec::clear);
        self.mesh.iter_mut().for_each(WantedMesh::close_sockets);
    }

    /// Of listeners that have their own, and of funnels.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (ListenerId, &[Arc<OwnedFd>])> {
        let listeners = self.listeners.iter().map(|(id, wanted)| (Arc::clone(id), &*wanted.sockets));
        let funnels = self.funnels.iter().map(|(id, sockets)| (Arc::clone(id), &**sockets));
        let mesh = self.mesh.iter().flat_map(WantedMesh::sockets);
        listeners.chain(funnels).chain(mesh).filter(|(_, sockets)| !sockets.is_empty())
    }

    pub(crate) fn stats(&self) -> Stats {
        let listeners = self.listeners.values().map(|wanted| ListenerStats {
            listener: Arc::clone(&wanted.handle.listener.id),
            protocol: wanted.handle.listener.protocol,
            address: wanted.handle.listener.address,
            service: Arc::clone(&wanted.handle.service.id),
            counts: wanted.handle.meters.read(),
        });
        let services = self.services.values().map(|wanted| {
            let checked = self.checked.get(&wanted.handle.id);
            let pool = wanted.handle.pool();
            let backends = pool.members().iter().map(|backend| {
                backend_stats(backend, checked.and_then(|checked| checked.verdict(&backend.id)))
            });
            ServiceStats {
                service: Arc::clone(&wanted.handle.id),
                label: Arc::clone(&wanted.handle.label),
                counts: wanted.handle.meters.read(),
                backends: backends.collect(),
            }
        });
        let mesh = self.mesh.as_ref().map(WantedMesh::stats);
        Stats { listeners: listeners.collect(), services: services.collect(), mesh }
    }
}

fn backend_stats(backend: &BackendHandle, well: Option<bool>) -> BackendStats {
    let counts = backend.meters().read();
    BackendStats {
        backend: Arc::clone(&backend.id),
        open: backend.open(),
        state: backend.state,
        well,
        is_ejected: backend.ejection().is_any_out(moment(Instant::now())),
        counts: Counts { open: backend.open().into(), ..counts },
    }
}

fn announce(service: &Arc<ServiceHandle>, steps: &mut [Vec<Step>]) {
    for steps in steps {
        steps.push(Step::ServiceChanged(Arc::clone(service)));
    }
}

/// Which worker takes which of a listener's sockets. Every stream socket has a worker and every worker a stream socket;
/// a datagram socket belongs to one worker only, because a sender's flow must stay on one thread. Where there are fewer
/// sockets than workers, listeners start at different ones.
fn shared_out(
    protocol: Protocol,
    id: &str,
    sockets: usize,
    workers: usize,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let turns = match protocol {
        Protocol::Tcp => sockets.max(workers),
        Protocol::Udp => sockets,
    };
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    // Below the number of workers, so it fits.
    let start = (hasher.finish() % workers as u64) as usize;
    (0..turns).map(move |turn| ((start + turn) % workers, turn % sockets))
}
