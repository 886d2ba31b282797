//! What happens on the host without us, and what is done about it: the resolver file changes, somebody flushes the
//! firewall's rules, a namespace goes away, a CNI plugin leaves a note, Docker takes a device into a container.

mod cluster;
mod docker;
mod guests;
mod ports;
mod probe;
mod spool;
mod underlay;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netd_sys::netlink::monitor::{Event, Monitor};
use netd_sys::netlink::route::Kind;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::engine::Busy;
use crate::error::Chain;
use crate::firewall;
use crate::server::App;
pub(crate) use cluster::{Herald, cluster};
pub(crate) use docker::docker;
pub(crate) use guests::guests;
pub(crate) use ports::ports;
pub(crate) use probe::probe;
pub(crate) use spool::spool;
pub(crate) use underlay::underlay;

/// Changes come in bursts (an editor writes, renames, touches): looked at once they pause.
const SETTLE: Duration = Duration::from_millis(50);
/// Two programs that each put their own rules back would otherwise keep each other busy.
const REPAIR_PAUSE: Duration = Duration::from_millis(300);
/// A look at the ways out reads every link and route.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Follows the host's resolv.conf. Its directory is watched, not the file: the file is replaced by renaming as often as
/// it is written; a symbolic link's target may live in another directory, which is watched too.
pub(crate) async fn resolv_conf(app: Arc<App>) {
    let path = app.config.resolv_conf.clone();
    let watch = match open(&path) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the host's resolvers are not followed");
            return;
        }
    };
    loop {
        let Ok(mut ready) = watch.readable().await else { return };
        tokio::time::sleep(SETTLE).await;
        while ready.get_inner().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
        let read = app.engine.post(|world| world.host_changed());
        if let Err(error) = read {
            tracing::warn!(%error, "cannot look at the host's resolvers now");
        }
    }
}

fn open(path: &Path) -> std::io::Result<AsyncFd<Registered<Inotify>>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE;
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for directory in [path.parent(), target.parent()].into_iter().flatten() {
        inotify.add_watch(directory, flags)?;
    }
    // A file that is mounted there belongs to another directory, which tells nothing to ours.
    if target.exists() {
        inotify.add_watch(&target, flags)?;
    }
    Registered::watch(inotify)
}

/// Puts the firewall's tables, which have one name in two families, back when somebody else has changed them.
pub(crate) async fn firewall(app: Arc<App>, own_port: u32, monitor: Monitor) {
    let Ok(mut monitor) = Registered::watch(monitor) else { return };
    loop {
        let Ok(mut ready) = monitor.readable_mut().await else { return };
        let events = match ready.get_inner_mut().0.read() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the firewall's rules are not watched any more");
                return;
            }
        };
        ready.clear_ready();
        if !events.iter().any(|event| concerns_us(event, own_port)) {
            continue;
        }
        tracing::warn!("somebody has changed a table `{}`: putting it back", firewall::TABLE);
        if app.engine.post(|world| world.repair_firewall()).is_ok() {
            app.metrics.repaired();
        }
        tokio::time::sleep(REPAIR_PAUSE).await;
    }
}

/// Follows the ways out of the host: a device that leads out from now on may take smaller packets than the others do.
/// Links themselves are not watched, as each new sandbox would wake us; what has no route leads nowhere. Neither does a
/// route by a device that is known make us look, of which a router has many a second.
pub(crate) async fn ways_out(app: Arc<App>, monitor: Monitor) {
    let Ok(mut monitor) = Registered::watch(monitor) else { return };
    loop {
        let known = match app.engine.call(|world| world.follow_ways_out()).await {
            Ok(Ok(out)) => out.links,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look at the ways out of the host");
                BTreeSet::new()
            }
            Err(Busy::Stopped) => return,
            // What is known is unknown then, and the next route makes us look.
            Err(Busy::Full) => BTreeSet::new(),
        };
        let is_news = |event: &Event| match event {
            Event::Route(route) => {
                route.kind == Kind::Unicast && route.link.is_some_and(|link| !known.contains(&link))
            }
            Event::Lost => true,
            _ => false,
        };
        loop {
            let Ok(mut ready) = monitor.readable_mut().await else { return };
            // A new sandbox comes with a route for multicast: many of them wake us once.
            tokio::time::sleep(LOOK_PAUSE).await;
            let events = match ready.get_inner_mut().0.read() {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the host's routes are not watched any more");
                    return;
                }
            };
            ready.clear_ready();
            if events.iter().any(is_news) {
                break;
            }
        }
    }
}

fn concerns_us(event: &Event, own_port: u32) -> bool {
    match event {
        Event::Tables(tables) => tables.port != own_port && tables.touched.contains(firewall::TABLE),
        Event::Lost => true,
        _ => false,
    }
}

/// tokio asks for the number of a descriptor; its owners only lend it out.
struct Registered<T>(T);

impl<T: AsFd> Registered<T> {
    fn watch(source: T) -> std::io::Result<AsyncFd<Self>> {
        Self::with(source, Interest::READABLE)
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe; what is watched here has one descriptor for life"
    )]
    fn with(source: T, interest: Interest) -> std::io::Result<AsyncFd<Self>> {
        AsyncFd::with_interest(Self(source), interest)
    }
}

impl<T: AsFd> AsRawFd for Registered<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
