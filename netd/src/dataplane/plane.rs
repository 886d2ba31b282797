//! The servers of the data plane's process behind one face: a batch goes in, both servers follow it, and whoever is
//! last to serve its part says so.

use std::collections::HashMap;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use netd_dns::table::Change as DnsChange;
use netd_dns::{Server, ViewSocket};
use netd_proxy::table::{Change as ProxyChange, ListenerId, MESH_TCP};
use netd_proxy::{Health, Proxy};

use super::frame::{SocketKey, SocketUse, Sockets};
use super::known::Known;
use super::ledger::{Ledger, Served};
use super::stats::{self, Stats};
use crate::error::Chain;
use crate::tables::Change;

/// How long the relays may take for a batch. The control plane waits a little longer, so that it hears of it.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the key of a view's sockets starts with; the view's id follows.
const VIEW_KEY: &str = "dns/";

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// 0: one for each processor.
    pub workers: usize,
    pub spin: Duration,
    pub max_connections: u32,
}

pub(crate) struct Plane {
    /// Gone once it drains.
    dns: Option<Server>,
    proxy: Arc<Proxy>,
    known: Known,
    ledger: Arc<Ledger>,
    need: Need,
    draining: Vec<JoinHandle<()>>,
    /// Held for the control plane, which may be away; not looked at.
    kept: HashMap<SocketKey, Vec<OwnedFd>>,
}

type Ask = Box<dyn Fn(SocketKey, SocketUse) + Send>;
/// Whom the DNS thread asks for sockets: the control plane that is connected.
type Need = Arc<Mutex<Option<Ask>>>;

/// A batch, sorted by who serves it.
#[derive(Default)]
struct Sorted {
    dns: Vec<DnsChange>,
    views: Vec<ViewSocket>,
    proxy: Vec<ProxyChange>,
    listeners: HashMap<ListenerId, Vec<OwnedFd>>,
    kept: HashMap<SocketKey, Vec<OwnedFd>>,
    errors: Vec<String>,
}

impl Plane {
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let need = Need::default();
        let on_want = {
            let need = Arc::clone(&need);
            move |view: &netd_dns::table::ViewId, used| {
                if let Some(ask) = &*need.lock().unwrap_or_else(PoisonError::into_inner) {
                    ask(format!("{VIEW_KEY}{view}").into(), SocketUse::Dns(used));
                }
            }
        };
        let dns = Server::start(netd_dns::Config {
            spin: settings.spin,
            on_want: Some(Box::new(on_want)),
            ..netd_dns::Config::default()
        })?;
        let workers = match settings.workers {
            0 => thread::available_parallelism().map_or(1, NonZero::get),
            workers => workers,
        };
        let proxy = Proxy::start(&netd_proxy::Config {
            workers,
            spin: settings.spin,
            max_connections: settings.max_connections,
            patience: PATIENCE,
        })
        .context("cannot start the relays")?;
        Ok(Self {
            dns: Some(dns),
            proxy: Arc::new(proxy),
            known: Known::default(),
            ledger: Arc::default(),
            need,
            draining: Vec::new(),
            kept: HashMap::new(),
        })
    }

    /// The latest revision that is served.
    pub(crate) fn revision(&self) -> u64 {
        self.ledger.served()
    }

    /// Follows a batch. `served` is called when all of it is in force, with what is not; possibly by another thread,
    /// and always in the order of the batches. What cannot be served never keeps the rest from being served.
    pub(crate) fn apply(
        &mut self,
        revision: u64,
        full: bool,
        changes: Vec<Change>,
        sockets: Vec<Sockets>,
        served: Served,
    ) {
        let mut batch = self.sort(full, changes, sockets);
        self.keep(full, std::mem::take(&mut batch.kept));
        let has_dns = !batch.dns.is_empty() || !batch.views.is_empty();
        let has_proxy = !batch.proxy.is_empty();
        // One part is this function itself: it carries the errors found so far, and keeps the ledger from reporting
        // before all parts are under way.
        let ticket = self.ledger.open(revision, 1 + usize::from(has_dns) + usize::from(has_proxy), served);
        if has_dns {
            self.apply_dns(ticket, batch.dns, batch.views);
        }
        if has_proxy {
            let error = self.proxy.apply(batch.proxy, batch.listeners.into_iter().collect()).err();
            if let Some(netd_proxy::Error::Refused { listener, .. }) = &error {
                self.known.note(&Change::Proxy(ProxyChange::DropListener { listener: Arc::clone(listener) }));
                self.known.note(&Change::Proxy(ProxyChange::DropFunnel { funnel: Arc::clone(listener) }));
                if &**listener == MESH_TCP {
                    self.known.note(&Change::Proxy(ProxyChange::DropMesh));
                }
            }
            self.ledger.finish(ticket, error.map(|error| Chain(&error).to_string()));
        }
        let errors = std::mem::take(&mut batch.errors);
        self.ledger.finish(ticket, (!errors.is_empty()).then(|| errors.join("; ")));
    }

    /// Hands sockets to a server that asked for them.
    pub(crate) fn supply(&mut self, sockets: Sockets) {
        let mut batch = Sorted::default();
        batch.take(sockets);
        let supplied = match &self.dns {
            Some(dns) if !batch.views.is_empty() => dns.apply(Vec::new(), batch.views, |outcome| {
                if let Err(error) = outcome {
                    tracing::debug!(error = %Chain(&error), "a supplied socket came too late");
                }
            }),
            _ => Ok(()),
        };
        if let Err(error) = supplied {
            tracing::warn!(error = %Chain(&error), "cannot supply sockets");
        }
    }

    /// Who is asked for sockets from now on. Called from the DNS thread; must not block.
    pub(crate) fn on_need(&self, ask: impl Fn(SocketKey, SocketUse) + Send + 'static) {
        *self.need.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ask));
    }

    /// Who is told of all that the health checks have found, and find from now on. Called from other threads; must not
    /// block.
    pub(crate) fn on_health(&self, tell: impl Fn(&Health) + Send + 'static) {
        self.proxy.on_health(tell);
    }

    /// Duplicates of every socket that is served, and of what is kept for the control plane.
    pub(crate) fn inventory(&self) -> Vec<Sockets> {
        let views = self.dns.as_ref().map_or(Ok(Vec::new()), Server::sockets).unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "cannot hand the DNS sockets over");
            Vec::new()
        });
        let listeners = self.proxy.sockets().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot hand the listening sockets over");
            Vec::new()
        });
        let views = views.into_iter().map(|(view, used, fd)| Sockets {
            key: format!("{VIEW_KEY}{view}").into(),
            used: SocketUse::Dns(used),
            fds: vec![fd],
        });
        let listeners =
            listeners.into_iter().map(|(key, fds)| Sockets { key, used: SocketUse::Listener, fds });
        let kept = self.kept.iter().filter_map(|(key, fds)| {
            let fds = fds.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
            let fds = fds.inspect_err(|error| tracing::error!(%key, %error, "cannot hand it over"));
            Some(Sockets { key: Arc::clone(key), used: SocketUse::Keep, fds: fds.ok()? })
        });
        views.chain(listeners).chain(kept).collect()
    }

    /// In parts that fit into a message each.
    pub(crate) fn stats(&self) -> Vec<Stats> {
        let dns = self.dns.as_ref().map(Server::stats).unwrap_or_default();
        stats::parts(self.revision(), &dns, &self.proxy.stats())
    }

    /// Takes nothing new, and lets what is open end by itself until `limit` has passed. Does not wait for that.
    pub(crate) fn drain(&mut self, limit: Duration) -> Result<()> {
        let Some(dns) = self.dns.take() else { return Ok(()) };
        let proxy = Arc::clone(&self.proxy);
        let relays = thread::Builder::new().name("drain-relays".into()).spawn(move || {
            let drained = proxy.drain(limit);
            tracing::info!(finished = drained.finished, cut = drained.cut, "connections drained");
        })?;
        let names = thread::Builder::new().name("drain-names".into()).spawn(move || dns.drain(limit))?;
        self.draining.extend([relays, names]);
        Ok(())
    }

    /// Whether all that drains has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.dns.is_none() && self.draining.iter().all(JoinHandle::is_finished)
    }

    /// What is new first: there is no moment at which neither the old nor the new is in force.
    fn keep(&mut self, full: bool, new: HashMap<SocketKey, Vec<OwnedFd>>) {
        if full {
            self.kept = new;
        } else {
            self.kept.extend(new);
        }
    }

    fn apply_dns(&self, ticket: u64, changes: Vec<DnsChange>, sockets: Vec<ViewSocket>) {
        let ledger = Arc::clone(&self.ledger);
        let done = move |outcome: Result<(), netd_dns::Error>| {
            ledger.finish(ticket, outcome.err().map(|error| Chain(&error).to_string()));
        };
        let Some(dns) = &self.dns else {
            return self.ledger.finish(ticket, Some("the DNS server is draining".into()));
        };
        if let Err(error) = dns.apply(changes, sockets, done) {
            self.ledger.finish(ticket, Some(Chain(&error).to_string()));
        }
    }

    /// Splits a batch, completes it with what a full one drops, and takes out the listeners that the proxy would refuse
    /// the whole batch for.
    fn sort(&mut self, full: bool, changes: Vec<Change>, sockets: Vec<Sockets>) -> Sorted {
        let mut batch = Sorted::default();
        sockets.into_iter().for_each(|sockets| batch.take(sockets));
        let mut wanted = Known::default();
        for change in changes {
            if let Change::Proxy(ProxyChange::PutFunnel(funnel)) = &change {
                let has_socket = batch.listeners.get(&funnel.id).is_some_and(|fds| !fds.is_empty());
                if !has_socket && !self.known.has_funnel(&funnel.id) {
                    batch.errors.push(format!("funnel {} is new and came without a socket", funnel.id));
                    continue;
                }
            }
            if let Change::Proxy(ProxyChange::PutMesh(_)) = &change {
                let has_socket = batch.listeners.get(MESH_TCP).is_some_and(|fds| !fds.is_empty());
                if !has_socket && !self.known.has_mesh() {
                    batch.errors.push("the mesh is new and came without a socket".into());
                    continue;
                }
            }
            if let Change::Proxy(ProxyChange::PutListener(listener)) = &change {
                let has_socket = batch.listeners.get(&listener.id).is_some_and(|fds| !fds.is_empty());
                if let Some(lack) = self.known.lack(listener, has_socket) {
                    batch.errors.push(lack);
                    continue;
                }
            }
            self.known.note(&change);
            if full {
                wanted.note(&change);
            }
            batch.push(change);
        }
        if full {
            for change in self.known.surplus(&wanted) {
                self.known.note(&change);
                batch.push(change);
            }
        }
        batch
    }
}

impl Sorted {
    fn push(&mut self, change: Change) {
        match change {
            Change::Dns(change) => self.dns.push(change),
            Change::Proxy(change) => self.proxy.push(change),
        }
    }

    fn take(&mut self, Sockets { key, used, fds }: Sockets) {
        match (used, key.strip_prefix(VIEW_KEY)) {
            (SocketUse::Listener, _) => self.listeners.entry(key).or_default().extend(fds),
            (SocketUse::Keep, _) => self.kept.entry(key).or_default().extend(fds),
            (SocketUse::Dns(used), Some(view)) => {
                let view: netd_dns::table::ViewId = view.into();
                self.views.extend(fds.into_iter().map(|fd| (Arc::clone(&view), used, fd)));
            }
            (SocketUse::Dns(_), None) => {
                self.errors.push(format!("sockets came for the unknown view `{key}`"));
            }
        }
    }
}
