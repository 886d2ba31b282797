//! The cluster's store wakes the engine: what other nodes did is taken in a part at a time, between requests, and told
//! when the data plane serves it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::bus::{Event, monotonic_ns};
use crate::engine::{Busy, Engine};
use crate::manager::{self, News, World};
use crate::server::App;
use crate::store::{Revision, Wake};

/// What is owed to the store is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);
/// The engine has more to do than it can queue.
const BUSY: Duration = Duration::from_millis(20);
/// Revisions whose being served nobody has waited for yet. Beyond that some are not told.
const UNSERVED: usize = 1024;
/// A data plane that is started anew is waited for; then the next revision is.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// Has the engine look at the store, on the store's own call: no other thread has to wake up in between.
pub(crate) struct Herald {
    /// None before this node is what its records say.
    engine: OnceLock<Engine<World>>,
    /// A look is queued that has not begun; however much comes until then, it sees all of it.
    queued: Arc<AtomicBool>,
    found: mpsc::Sender<News>,
}

impl Herald {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<News>) {
        let (found, news) = mpsc::channel(UNSERVED);
        (Arc::new(Self { engine: OnceLock::new(), queued: Arc::default(), found }), news)
    }

    pub(crate) fn wake(self: &Arc<Self>) -> Wake {
        let herald = Arc::clone(self);
        Arc::new(move || herald.call())
    }

    /// Whether it was heard.
    fn call(&self) -> bool {
        let Some(engine) = self.engine.get() else { return false };
        if self.queued.swap(true, Ordering::AcqRel) {
            return true;
        }
        let (queued, found) = (Arc::clone(&self.queued), self.found.clone());
        let posted = engine.post(move |world| {
            queued.store(false, Ordering::Release);
            // Who has not kept up with what there is to tell misses some of it.
            let _ = found.try_send(manager::follow_cluster(world));
        });
        if posted.is_err() {
            self.queued.store(false, Ordering::Release);
        }
        !matches!(posted, Err(Busy::Full))
    }
}

pub(crate) async fn cluster(app: Arc<App>, herald: Arc<Herald>, mut found: mpsc::Receiver<News>) {
    let (unserved, revisions) = mpsc::channel(UNSERVED);
    tokio::task::spawn_local(tell_served(Arc::clone(&app), revisions));
    let _ = herald.engine.set(app.engine.clone());
    loop {
        let news = tokio::select! {
            Some(news) = found.recv() => Some(news),
            () = tokio::time::sleep(AGAIN) => look(&app).await,
            () = app.stop.cancelled() => return,
        };
        let Some(mut news) = news else { return };
        loop {
            for (revision, nanoseconds) in news.untold.written {
                tell(&app, "committed", revision, nanoseconds);
            }
            for served in news.untold.taken_in {
                let _ = unserved.try_send(served);
            }
            if let Some(asked) = news.asked
                && asked.answer().await.is_ok()
                && let Err(Busy::Stopped) = app.engine.call(manager::settle).await
            {
                return;
            }
            if !news.more {
                break;
            }
            match look(&app).await {
                Some(more) => news = more,
                None => return,
            }
        }
    }
}

/// None: the daemon is stopping.
async fn look(app: &App) -> Option<News> {
    loop {
        match app.engine.call(manager::follow_cluster).await {
            Ok(news) => return Some(news),
            Err(Busy::Stopped) => return None,
            Err(Busy::Full) => tokio::time::sleep(BUSY).await,
        }
    }
}

async fn tell_served(app: Arc<App>, mut revisions: mpsc::Receiver<(Revision, u64)>) {
    while let Some((revision, tables)) = revisions.recv().await {
        if app.dataplane.served(tables, SERVED_WITHIN).await.is_ok() {
            app.served_of_cluster.fetch_max(revision, Ordering::Relaxed);
            tell(&app, "served", revision, monotonic_ns());
        }
    }
}

fn tell(app: &App, action: &'static str, revision: Revision, nanoseconds: u64) {
    let attributes = [("revision", revision.to_string()), ("monotonic-ns", nanoseconds.to_string())];
    app.bus.publish(Event {
        time: SystemTime::now(),
        kind: "store",
        action,
        id: app.config.node.as_str().into(),
        name: app.config.node.clone(),
        attributes: attributes.into_iter().collect(),
    });
}
