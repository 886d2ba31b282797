//! The DNS thread: a single-threaded runtime that owns every table and socket, and applies what its owner sends.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use netd_sys::datagram::enlarge_buffers;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use crate::client::ViewState;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::readable::Readable;
use crate::resolver::Resolver;
use crate::server::{Command, Config, Inbox, ViewSocket};
use crate::table::{Change, Forward, SocketUse, View, ViewId};
use crate::target::{Place, Target};
use crate::upstream::{read_new_outlets, watch_time};
use crate::{tcp, udp};

/// While clients are still waited for, how often to look whether any are left.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// How long changes are applied before queries are looked after again.
const SLICE: Duration = Duration::from_micros(200);

/// Runs the server until it is told to end. Whether it could begin goes to `started`.
pub(crate) fn serve(
    config: Config,
    inbox: &Inbox,
    metrics: Arc<Metrics>,
    started: &SyncSender<io::Result<()>>,
) {
    let runtime = match Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error))),
    };
    drop(started.send(Ok(())));
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let resolver = Rc::new(Resolver::new(config, metrics));
        spawn_local(watch_time(resolver.clone()));
        Owner::new(resolver).run(inbox).await;
    });
}

/// What is configured, and the tasks that serve it.
struct Owner {
    resolver: Rc<Resolver>,
    views: HashMap<ViewId, Served>,
    host_servers: Vec<SocketAddr>,
    host_target: Rc<Target>,
    last_target: u64,
    last_place: u64,
}

/// A view with its tasks.
struct Served {
    state: Rc<ViewState>,
    forward: Forward,
    place: Place,
    datagrams: Vec<(Rc<Readable>, AbortHandle)>,
    streams: Vec<(OwnedFd, AbortHandle)>,
}

impl Owner {
    fn new(resolver: Rc<Resolver>) -> Self {
        let host_target =
            Rc::new(Target::new(0, Place::Host, &[], None, |server| resolver.metrics.upstream(server)));
        Self {
            resolver,
            views: HashMap::new(),
            host_servers: Vec::new(),
            host_target,
            last_target: 0,
            last_place: 0,
        }
    }

    async fn run(mut self, inbox: &Inbox) {
        loop {
            match inbox.next().await {
                Command::Apply { changes, sockets, done } => {
                    self.apply_all(changes).await;
                    done(self.serve_sockets(sockets));
                }
                Command::Sockets(reply) => drop(reply.send(self.sockets())),
                Command::Drain(patience) => return self.drain(patience).await,
                Command::Stop => return,
            }
        }
    }

    /// A long batch in slices, so that queries do not wait for its end.
    async fn apply_all(&mut self, changes: Vec<Change>) {
        let mut begun = Instant::now();
        for change in changes {
            self.apply(change);
            if begun.elapsed() > SLICE {
                tokio::task::yield_now().await;
                begun = Instant::now();
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::PutName { zone, name } => self.resolver.index.borrow_mut().put_name(&zone, &name),
            Change::DropName { zone, name } => self.resolver.index.borrow_mut().drop_name(&zone, &name),
            Change::DropZone { zone } => self.resolver.index.borrow_mut().drop_zone(&zone),
            Change::PutView(view) => self.put_view(view),
            Change::DropView { view } => self.drop_view(&view),
            Change::PutHostServers { servers } => self.put_host_servers(servers),
        }
    }

    fn put_view(&mut self, view: View) {
        let key = self.resolver.index.borrow_mut().put_view(&view);
        if !self.views.contains_key(&view.id) {
            self.last_place += 1;
            let place = Place::View(self.last_place);
            self.resolver.places.borrow_mut().insert(place, view.id.clone());
            let state = Rc::new(ViewState::new(view.id.clone(), key));
            let served =
                Served { state, forward: Forward::Never, place, datagrams: Vec::new(), streams: Vec::new() };
            self.views.insert(view.id.clone(), served);
        }
        let Some(served) = self.views.get_mut(&view.id) else { return };
        let before = served.state.target.take();
        let target = match &view.forward {
            Forward::Never => None,
            Forward::Host => Some(self.host_target.clone()),
            Forward::Own { servers } => {
                let own = before.filter(|_| matches!(served.forward, Forward::Own { .. }));
                match own {
                    Some(target) if target.is_of(servers) => Some(target),
                    own => {
                        self.last_target += 1;
                        let metrics = &self.resolver.metrics;
                        let count = |server| metrics.upstream(server);
                        Some(Rc::new(Target::new(
                            self.last_target,
                            served.place,
                            servers,
                            own.as_deref(),
                            count,
                        )))
                    }
                }
            }
        };
        served.state.target.replace(target);
        served.forward = view.forward;
    }

    fn drop_view(&mut self, view: &ViewId) {
        if let Some(served) = self.views.remove(view) {
            served.stop_reading();
            served.streams.iter().for_each(|(_, task)| task.abort());
            self.resolver.places.borrow_mut().remove(&served.place);
            self.resolver.outlets.borrow_mut().drop_place(served.place);
            self.resolver.index.borrow_mut().drop_view(view);
        }
    }

    /// Questions under way go on with the servers they were for.
    fn put_host_servers(&mut self, servers: Vec<SocketAddr>) {
        if self.host_target.is_of(&servers) {
            return;
        }
        self.last_target += 1;
        let metrics = &self.resolver.metrics;
        let count = |server| metrics.upstream(server);
        let target = Target::new(self.last_target, Place::Host, &servers, Some(&self.host_target), count);
        self.host_target = Rc::new(target);
        self.resolver.outlets.borrow_mut().keep_host_servers(&servers);
        for served in self.views.values().filter(|served| served.forward == Forward::Host) {
            served.state.target.replace(Some(self.host_target.clone()));
        }
        self.host_servers = servers;
    }

    /// The first error; the other sockets are served.
    fn serve_sockets(&mut self, sockets: Vec<ViewSocket>) -> Result<(), Error> {
        let mut by_view: HashMap<ViewId, Vec<(SocketUse, OwnedFd)>> = HashMap::new();
        for (view, usage, socket) in sockets {
            by_view.entry(view).or_default().push((usage, socket));
        }
        let mut trouble = None;
        for (view, sockets) in by_view {
            let error = match (self.views.get_mut(&view), sockets.first()) {
                (Some(served), _) => served.take_sockets(&self.resolver, sockets),
                (None, Some((usage, _))) => Some(Error::StraySocket { view, usage: *usage }),
                (None, None) => None,
            };
            trouble = trouble.or(error);
        }
        trouble.map_or(Ok(()), Err)
    }

    fn sockets(&self) -> Vec<ViewSocket> {
        let mut all = Vec::new();
        for (view, served) in &self.views {
            let datagrams = served.datagrams.iter().map(|(port, _)| (SocketUse::Udp, port.try_clone()));
            let streams = served.streams.iter().map(|(socket, _)| (SocketUse::Tcp, socket.try_clone()));
            let upstream = self.resolver.outlets.borrow().of_view(served.place);
            for (usage, socket) in datagrams.chain(streams).chain(upstream) {
                match socket {
                    Ok(socket) => all.push((view.clone(), usage, socket)),
                    Err(error) => tracing::warn!(%view, ?usage, %error, "cannot duplicate a DNS socket"),
                }
            }
        }
        all
    }

    async fn drain(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.resolver.ending.cancel();
        for served in self.views.values() {
            served.stop_reading();
        }
        while !self.resolver.is_quiet() && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_STEP).await;
        }
    }
}

impl Served {
    /// Serves all it can; the first error.
    fn take_sockets(&mut self, resolver: &Rc<Resolver>, sockets: Vec<(SocketUse, OwnedFd)>) -> Option<Error> {
        let came = |wanted| sockets.iter().any(|(usage, _)| *usage == wanted);
        if came(SocketUse::Udp) {
            self.datagrams.drain(..).for_each(|(_, task)| task.abort());
        }
        if came(SocketUse::Tcp) {
            self.streams.drain(..).for_each(|(_, task)| task.abort());
        }
        let mut trouble = None;
        let mut upstream = Vec::new();
        for (usage, socket) in sockets {
            let outcome = match usage {
                SocketUse::Udp => {
                    receive(resolver, &self.state, socket).map(|port| self.datagrams.push(port))
                }
                SocketUse::Tcp => listen(resolver, &self.state, socket).map(|port| self.streams.push(port)),
                _ => {
                    upstream.push((usage, socket));
                    Ok(())
                }
            };
            trouble = trouble.or_else(|| Some((usage, outcome.err()?)));
        }
        if let Some((usage, _)) = upstream.first() {
            let usage = *usage;
            let supplied = resolver.outlets.borrow_mut().supply(self.place, upstream);
            trouble = trouble.or_else(|| Some((usage, supplied.err()?)));
            read_new_outlets(resolver);
        }
        trouble.map(|(usage, source)| Error::Socket { view: self.state.id.clone(), usage, source })
    }

    fn stop_reading(&self) {
        self.datagrams.iter().for_each(|(_, task)| task.abort());
    }
}

fn receive(
    resolver: &Rc<Resolver>,
    view: &Rc<ViewState>,
    socket: OwnedFd,
) -> io::Result<(Rc<Readable>, AbortHandle)> {
    // As far as this process may; whoever opened the socket may have been allowed more.
    drop(enlarge_buffers(&socket));
    let port = Rc::new(Readable::new(socket)?);
    let task = spawn_local(udp::serve(resolver.clone(), view.clone(), port.clone()));
    Ok((port, task.abort_handle()))
}

/// Starts to accept; the duplicate is what the owner can have back.
fn listen(
    resolver: &Rc<Resolver>,
    view: &Rc<ViewState>,
    socket: OwnedFd,
) -> io::Result<(OwnedFd, AbortHandle)> {
    let kept = socket.try_clone()?;
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let task = spawn_local(tcp::serve(resolver.clone(), view.clone(), listener));
    Ok((kept, task.abort_handle()))
}
