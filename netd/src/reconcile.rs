//! The only writer of tables. A committed change of the records becomes, here and nowhere else, what the data plane
//! serves, what nftables holds, and what stands in the sandboxes' files.
//!
//! It also keeps the control plane's duplicate of every socket that is served: a data plane that starts anew gets them
//! from here, and what arrives in between waits in their backlogs.

mod closed;
mod guard;
mod host;
mod mesh;
mod sockets;
mod steered;
mod straight;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use netd_api::ApiError;
use netd_dns::table::{Change as Dns, View, ViewId};
use netd_proxy::table::{Change as Proxy, Listener, ListenerId, Mesh, Protocol as Carried};
use netd_sys::netns::Netns;
use netd_sys::nft::{Family, Nft};

use crate::dataplane::{Batch, Session, SocketKey, SocketUse, Sockets};
use crate::driver::Background;
use crate::error::{Chain, Result};
use crate::files::{Files, HOSTS, RESOLV_CONF};
use crate::firewall::{Ends, VipChange};
use crate::model::{self, Id, Mode, Model, Protocol, Sandbox, SandboxKey};
use crate::steer::{EastWest, Steering, Transparent, Vacancy};
use crate::tables::{Change, Projection};
use crate::{firewall, hosts, resolvconf, resolver, steer};
use closed::Closed;
use guard::{Beyond, Tally};
pub(crate) use host::HostResolver;
use sockets::Held;

pub(crate) struct Reconcile {
    projection: Projection,
    held: Held,
    closed: Closed,
    steering: Steering,
    east_west: EastWest,
    transparent: Transparent,
    vacancy: Vacancy,
    mesh: Option<Mesh>,
    session: Option<Session>,
    files: Files,
    host: HostResolver,
    nft: Nft,
    /// As one of several nodes.
    ends: Option<Ends>,
    beyond: Beyond,
    /// By the tables of each family.
    dropped: BTreeMap<Family, Tally>,
    background: Background,
    workers: usize,
}

impl Reconcile {
    pub(crate) fn new(
        here: Id,
        files: Files,
        host: HostResolver,
        background: Background,
        workers: usize,
        steering: Steering,
        ends: Option<Ends>,
    ) -> Result<Self> {
        Ok(Self {
            projection: Projection::of(here),
            held: Held::default(),
            closed: Closed::default(),
            steering,
            east_west: EastWest::default(),
            transparent: Transparent::default(),
            vacancy: Vacancy::default(),
            mesh: None,
            session: None,
            files,
            host,
            nft: Nft::open()?,
            ends,
            beyond: Beyond::default(),
            dropped: BTreeMap::new(),
            background,
            workers,
        })
    }

    /// Sockets a port has, one a worker.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Carries committed changes into every table.
    pub(crate) fn apply(&mut self, model: &Model, changes: &[model::Change], revision: u64) {
        let mut steps = self.projection.apply(changes);
        steps.extend(self.follow_mesh(model, changes));
        let was_open = self.steering.is_open();
        let vips = VipChange::of(changes, model);
        self.follow_vips(&vips);
        let guarded = self.follow_guard(changes, model);
        // Before the first data plane is there, nobody knows which sockets one that runs already holds.
        if self.session.is_some() {
            self.open_missing(model, &steps);
            self.closed.keep_back(&mut steps);
            self.add_funnels(&mut steps, false);
            self.lead_straight(&steps, changes, model);
        }
        let dropped = dropped_views(&steps);
        let sockets = self.held.follow(&steps);
        let moves = self.steering.follow(&steps, false);
        let vacant = self.vacancy.follow(&steps, false, |key| self.held.has(key));
        self.follow_transparent(&steps, false, model);
        if let Some(session) = &self.session {
            send(session, Batch { revision, full: false, changes: steps, sockets });
        }
        let is_of_firewall = |change: &model::Change| {
            matches!(
                change,
                model::Change::Network { .. } | model::Change::Node { .. } | model::Change::Member { .. }
            )
        };
        let is_of_firewall = changes.iter().any(is_of_firewall);
        let is_whole = is_of_firewall || self.steering.is_open() && !was_open;
        if is_whole {
            self.write_firewall(model);
        }
        let is_written = is_whole || self.write_vips(&vips, model);
        self.lead(&moves, is_written, model);
        self.refuse(&vacant, is_written, model);
        self.close_resolvers(&dropped, changes);
        if !is_whole {
            self.move_guard(&guarded, model);
        }
        for change in changes {
            if let model::Change::Sandbox { after: Some(sandbox), .. } = change {
                self.write_files(sandbox, model);
                self.write_linkers(&sandbox.id, model);
            }
        }
    }

    /// A namespace that lives on without its view (it was given, or has left its last network with names) is left as
    /// it was found. One of ours that ends takes its rewrites along.
    fn close_resolvers(&self, dropped: &[ViewId], changes: &[model::Change]) {
        for change in changes {
            let model::Change::Sandbox { before: Some(before), after } = change else { continue };
            let ends = after.is_none() && before.netns_is_ours;
            if ends || !dropped.contains(&before.id) {
                continue;
            }
            let Ok(netns) = Netns::open(&before.netns) else { continue };
            if (netns.id().device, netns.id().inode) != before.netns_identity {
                continue;
            }
            match resolver::close(&netns) {
                Ok(nft) => self.background.close(nft),
                Err(error) => {
                    tracing::warn!(sandbox = %before.name, error = %Chain(&error), "cannot take port 53 back");
                }
            }
        }
    }

    /// A data plane is there: what it holds is taken over, what it lacks is opened, and all of it is sent.
    pub(crate) fn connected(
        &mut self,
        session: Session,
        serving: u64,
        inventory: Vec<Sockets>,
        model: &Model,
        revision: u64,
    ) {
        // Revision 0: it has just been started, and whatever the inventory says, it holds no socket yet.
        self.held.adopt(inventory, serving > 0);
        let mut changes = vec![self.host_servers_change()];
        changes.extend(self.projection.whole());
        self.closed.forget_ports();
        self.open_missing(model, &changes);
        self.closed.keep_back(&mut changes);
        if serving == 0 {
            self.leave_to_servers(&mut changes);
        }
        self.session = Some(session);
        self.add_funnels(&mut changes, true);
        self.lead_all_straight(&changes, model);
        changes.extend(self.put_mesh());
        let sockets = self.held.follow_all(&changes);
        // Carried out with the whole table.
        self.vacancy.follow(&changes, true, |key| self.held.has(key));
        self.follow_transparent(&changes, true, model);
        // Before the data plane lets go of what an earlier control plane has left with it.
        self.steer_all(&changes, model);
        if let Some(session) = &self.session {
            send(session, Batch { revision, full: true, changes, sockets });
        }
    }

    /// Opens what a sandbox is about to need and returns the keys of what was opened; a failure opens nothing.
    pub(crate) fn open(
        &mut self,
        view: Option<&View>,
        listeners: &BTreeMap<ListenerId, Listener>,
        netns: &Netns,
    ) -> Result<Vec<SocketKey>> {
        let mut opened = Vec::new();
        if let Some(view) = view {
            let key = sockets::view_key(&view.id);
            if !self.held.has(&key) {
                let resolver::Opened { sockets, nft } = resolver::open(view, netns)?;
                for (used, fds) in sockets {
                    self.held.hold(Arc::clone(&key), SocketUse::Dns(used), fds);
                }
                self.background.close(nft);
                opened.push(key);
            }
        }
        let missing = |listener: &&Listener| listener.funnel.is_none() && !self.held.has(&listener.id);
        for listener in listeners.values().filter(missing).collect::<Vec<_>>() {
            match bind(listener, self.workers) {
                Ok(fds) => {
                    self.held.hold(Arc::clone(&listener.id), SocketUse::Listener, fds);
                    opened.push(Arc::clone(&listener.id));
                }
                Err(error) => {
                    opened.iter().for_each(|key| self.forget_sockets(key));
                    return Err(error.into());
                }
            }
        }
        Ok(opened)
    }

    pub(crate) fn hold_listener(&mut self, key: SocketKey, fds: Vec<OwnedFd>) {
        self.held.hold(key, SocketUse::Listener, fds);
    }

    pub(crate) fn holds(&self, key: &str) -> bool {
        self.held.has(key)
    }

    pub(crate) fn forget_sockets(&mut self, key: &str) {
        self.held.forget(key);
    }

    /// The data plane has used up sockets of a sandbox's own namespace.
    pub(crate) fn supply(&self, session: &Session, key: &SocketKey, used: SocketUse, model: &Model) {
        let SocketUse::Dns(dns) = used else { return };
        let Some(sandbox) = key.strip_prefix(sockets::VIEW).and_then(|id| model.sandboxes.get(id)) else {
            return;
        };
        let made = Netns::open(&sandbox.netns).and_then(|netns| resolver::upstream(dns, &netns, 1));
        match made {
            Ok(fds) => {
                if let Err(error) = session.supply(Sockets { key: Arc::clone(key), used, fds }) {
                    tracing::error!(error = %Chain(&error), "cannot hand sockets to the data plane");
                }
            }
            Err(error) => {
                tracing::warn!(sandbox = %sandbox.name, error = %Chain(&error), "cannot open a socket");
            }
        }
    }

    /// What was opened by nobody in particular: ports that became reachable by a connect, everything after a restart
    /// of both processes. There is no request left to fail, so a clash is told and the rest goes on.
    fn open_missing(&mut self, model: &Model, changes: &[Change]) {
        for change in changes {
            let (key, result) = match change {
                Change::Dns(Dns::PutView(view)) => {
                    let key = sockets::view_key(&view.id);
                    if self.held.has(&key) {
                        continue;
                    }
                    let Some(sandbox) = model.sandboxes.get(&view.id) else { continue };
                    let opened = Netns::open(&sandbox.netns).map_err(Into::into);
                    let opened = opened.and_then(|netns| self.open(Some(view), &BTreeMap::new(), &netns));
                    (key, opened.map(|_| ()))
                }
                Change::Proxy(Proxy::PutListener(listener))
                    if listener.funnel.is_none() && !self.held.has(&listener.id) =>
                {
                    match closed::bind(listener, self.workers) {
                        Ok(fds) => {
                            self.closed.forget(&listener.id);
                            self.held.hold(Arc::clone(&listener.id), SocketUse::Listener, fds);
                            continue;
                        }
                        // Told once, however often the table comes again.
                        Err(_) if !self.closed.note(listener) => continue,
                        Err(error) => (Arc::clone(&listener.id), Err(error.into())),
                    }
                }
                Change::Proxy(Proxy::DropListener { listener }) => {
                    self.closed.forget(listener);
                    continue;
                }
                _ => continue,
            };
            if let Err(error) = result {
                tracing::error!(%key, %error, "cannot open what should be served");
            }
        }
    }

    /// Makes the host's tables what the records say, each in one transaction.
    pub(crate) fn write_firewall(&mut self, model: &Model) {
        self.write_guard(model);
        self.write_host_table(model);
    }

    fn write_host_table(&mut self, model: &Model) {
        if self.awaits_sockets(model) && self.nft.exists(firewall::TABLE).unwrap_or(false) {
            return;
        }
        if self.ends.is_some() {
            self.keep_count(firewall::TABLE.into());
        }
        let mut table = firewall::render(model, self.ends.as_ref());
        self.steering.render(&mut table);
        self.vacancy.render(&mut table);
        self.transparent.render(&mut table);
        if let Err(error) = self.nft.replace(&table) {
            tracing::error!(error = %Chain(&error), "cannot write the firewall table");
        }
    }

    /// Netlink port of our own firewall changes, for whoever watches for those of others.
    pub(crate) fn nft_port(&self) -> u32 {
        self.nft.port()
    }

    pub(crate) fn remove_firewall(&mut self) -> Result<()> {
        self.nft.delete(firewall::GUARD)?;
        steer::remove_transparent()?;
        Ok(self.nft.delete(firewall::TABLE)?)
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    pub(crate) fn directory(&self, sandbox: &str) -> PathBuf {
        self.files.directory(sandbox)
    }

    pub(crate) fn announce(&self, sandbox: &Sandbox) -> Result<()> {
        self.files.announce(sandbox).map_err(|error| ApiError::kernel(format!("{error:#}")).into())
    }

    pub(crate) fn forget_directory(&self, sandbox: &str) -> Result<()> {
        self.files.remove(sandbox).map_err(|error| {
            ApiError::kernel(format!("cannot remove {}: {error}", self.files.directory(sandbox).display()))
                .into()
        })
    }

    pub(crate) fn write_files(&self, sandbox: &Sandbox, model: &Model) {
        // These see the files of whose namespace they share, the host's own, or those that Docker writes.
        if matches!(sandbox.mode, Mode::Container(_) | Mode::Host | Mode::Docker) {
            return;
        }
        let resolv_conf = resolvconf::render(sandbox, model, self.host.conf());
        let hosts = hosts::render(sandbox, model);
        for (name, text) in [(RESOLV_CONF, resolv_conf), (HOSTS, hosts)] {
            if let Err(error) = self.files.write(&sandbox.id, name, &text) {
                tracing::error!(sandbox = %sandbox.name, file = name, %error, "cannot write a sandbox's file");
            }
        }
    }

    /// On the default network a link is a line of the hosts file.
    fn write_linkers(&self, target: &Id, model: &Model) {
        for other in model.sandboxes.by(&SandboxKey::LinksTo(Arc::clone(target))) {
            self.write_files(other, model);
        }
    }

    pub(crate) fn host_servers(&self) -> Vec<std::net::IpAddr> {
        self.host.servers().iter().map(|server| server.ip()).collect()
    }

    pub(crate) fn host_servers_at(&self) -> Vec<SocketAddr> {
        self.host.servers().to_vec()
    }

    /// The host's resolv.conf may have changed.
    pub(crate) fn host_changed(&mut self, model: &Model, revision: u64) {
        if !self.host.reread() {
            return;
        }
        tracing::info!(servers = ?self.host.servers(), "the host's resolvers have changed");
        if let Some(session) = &self.session {
            let changes = vec![self.host_servers_change()];
            send(session, Batch { revision, full: false, changes, sockets: Vec::new() });
        }
        for sandbox in model.sandboxes.values() {
            self.write_files(sandbox, model);
        }
    }

    fn host_servers_change(&self) -> Change {
        Change::Dns(Dns::PutHostServers { servers: self.host.servers().to_vec() })
    }

    /// Listeners that should be served and that could not be opened.
    pub(crate) fn unserved(&self) -> Vec<Listener> {
        let listener = |change| match change {
            Change::Proxy(Proxy::PutListener(listener)) => Some(listener),
            _ => None,
        };
        let wanted = self.projection.whole().into_iter().filter_map(listener);
        let is_served =
            |id: &ListenerId| self.held.has(id) || self.steering.leads(id) || self.steering.refuses(id);
        wanted.filter(|listener| !is_served(&listener.id)).collect()
    }

    /// Keys of what these need and has no socket. Ports that are steered come in by their funnel's.
    pub(crate) fn lacks(
        &self,
        view: Option<&View>,
        listeners: &BTreeMap<ListenerId, Listener>,
    ) -> Vec<SocketKey> {
        let view = view.map(|view| sockets::view_key(&view.id)).filter(|key| !self.held.has(key));
        let deaf = listeners
            .iter()
            .filter(|(key, listener)| !self.held.has(listener.funnel.as_ref().unwrap_or(key)));
        view.into_iter().chain(deaf.map(|(key, _)| Arc::clone(key))).collect()
    }

    pub(crate) fn projection(&self) -> &Projection {
        &self.projection
    }
}

fn bind(listener: &Listener, workers: usize) -> Result<Vec<OwnedFd>, netd_sys::KernelError> {
    let protocol = match listener.protocol {
        Carried::Tcp => Protocol::Tcp,
        Carried::Udp => Protocol::Udp,
    };
    steer::bind(protocol, listener.address.ip(), listener.address.port(), 1, workers)
}

fn dropped_views(steps: &[Change]) -> Vec<ViewId> {
    let dropped = steps.iter().filter_map(|step| match step {
        Change::Dns(Dns::DropView { view }) => Some(Arc::clone(view)),
        _ => None,
    });
    dropped.collect()
}

fn send(session: &Session, batch: Batch) {
    let revision = batch.revision;
    if let Err(error) = session.apply(batch) {
        tracing::error!(revision, error = %Chain(&error), "cannot put a change into words for the data plane");
    }
}
