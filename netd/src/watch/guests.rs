//! Notices that a namespace which somebody else made is gone, and has its sandbox removed. What keeps a namespace alive
//! is waited for: a process by its descriptor, a mount by the mount table. See `guests`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use netd_sys::process::PidFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Registered;
use crate::bus::Event;
use crate::guests::{Anchor, MOUNTS, look};
use crate::manager;
use crate::model::Id;
use crate::server::App;

/// A runtime that takes a container down changes the mount table many times.
const SETTLE: Duration = Duration::from_millis(20);
/// For what no event tells of: a path that leads elsewhere without an unmount.
const ROUND: Duration = Duration::from_secs(60);

struct Watch {
    app: Arc<App>,
    /// With the waiter for its process, or with none: then it hangs on a mount.
    known: BTreeMap<Id, Option<AbortHandle>>,
    /// One waiter a process that a guest depends on; it gives the guest's id.
    ends: JoinSet<Id>,
}

enum Suspects {
    All,
    These(BTreeSet<Id>),
}

pub(crate) async fn guests(app: Arc<App>) {
    let mounts = File::open(MOUNTS).and_then(|table| Registered::with(table, Interest::PRIORITY));
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(error) => {
            tracing::warn!(%error, "namespaces that others take away are noticed by chance only");
            return;
        }
    };
    let (_, mut news) = app.bus.listen(None);
    let mut rounds = interval_at(Instant::now() + ROUND, ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch { app, known: BTreeMap::new(), ends: JoinSet::new() };
    let mut suspects = Suspects::All;
    loop {
        watch.examine(suspects).await;
        suspects = match watch.occasion(&mut news, &mounts, &mut rounds).await {
            Some(suspects) => suspects,
            None => return,
        };
    }
}

impl Watch {
    /// Waits until there is reason to look at somebody. None when the daemon ends.
    async fn occasion(
        &mut self,
        news: &mut Receiver<Event>,
        mounts: &AsyncFd<Registered<File>>,
        rounds: &mut tokio::time::Interval,
    ) -> Option<Suspects> {
        tokio::select! {
            event = news.recv() => match event {
                Ok(event) => Some(self.heard(&event)),
                Err(RecvError::Lagged(_)) => Some(Suspects::All),
                Err(RecvError::Closed) => None,
            },
            ready = mounts.ready(Interest::PRIORITY) => {
                ready.ok()?.clear_ready();
                tokio::time::sleep(SETTLE).await;
                let on_mounts = self.known.iter().filter(|(_, process)| process.is_none());
                Some(Suspects::These(on_mounts.map(|(id, _)| Arc::clone(id)).collect()))
            }
            Some(ended) = self.ends.join_next(), if !self.ends.is_empty() => {
                Some(Suspects::These(ended.into_iter().collect()))
            }
            _ = rounds.tick() => Some(Suspects::All),
        }
    }

    fn heard(&mut self, event: &Event) -> Suspects {
        let mut suspects = BTreeSet::new();
        match (event.kind, event.action) {
            ("sandbox", "create") => drop(suspects.insert(Arc::clone(&event.id))),
            ("sandbox", "destroy") => self.forget(&event.id),
            _ => {}
        }
        Suspects::These(suspects)
    }

    async fn examine(&mut self, suspects: Suspects) {
        let ids = match suspects {
            Suspects::All => None,
            Suspects::These(ids) if ids.is_empty() => return,
            Suspects::These(ids) => Some(ids),
        };
        let engine = self.app.engine.clone();
        let Ok(guests) = engine.call(move |world| manager::guests(world, ids.as_ref())).await else { return };
        let Ok(seen) = tokio::task::spawn_blocking(move || look(guests)).await else { return };
        let mut dead = Vec::new();
        for (guest, anchor) in seen {
            match anchor {
                None => dead.push(guest),
                Some(anchor) => self.keep(guest.id, anchor),
            }
        }
        if dead.is_empty() {
            return;
        }
        // Each is forgotten by the event of its removal; the rounds come back to one that could not be removed.
        if let Err(error) = engine.call(move |world| manager::bury(world, &dead)).await {
            tracing::warn!(%error, "cannot remove sandboxes whose namespaces are gone now");
        }
    }

    fn keep(&mut self, id: Id, anchor: Anchor) {
        self.forget(&id);
        let process = match anchor {
            Anchor::Mount => None,
            Anchor::Process(process) => self.wait_for(process, Arc::clone(&id)),
        };
        self.known.insert(id, process);
    }

    /// None if it cannot be waited for: the mount table's next change is then the occasion to look again.
    fn wait_for(&mut self, process: PidFd, id: Id) -> Option<AbortHandle> {
        let process = Registered::watch(process).ok()?;
        Some(self.ends.spawn_local(async move {
            let _ = process.readable().await;
            id
        }))
    }

    fn forget(&mut self, id: &str) {
        if let Some(Some(waiter)) = self.known.remove(id) {
            waiter.abort();
        }
    }
}
