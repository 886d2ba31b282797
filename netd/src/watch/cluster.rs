//! The cluster's store wakes the engine: what other nodes did is taken in a part at a time, between requests, and told
//! when the data plane serves it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};

use crate::bus::{Event, monotonic_ns};
use crate::engine::Busy;
use crate::manager;
use crate::server::App;
use crate::store::Revision;

/// What is owed to the store is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);
/// The engine has more to do than it can queue.
const BUSY: Duration = Duration::from_millis(20);
/// Revisions whose being served nobody has waited for yet. Beyond that some are not told.
const UNSERVED: usize = 1024;
/// A data plane that is started anew is waited for; then the next revision is.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn cluster(app: Arc<App>, wake: Arc<Notify>) {
    let (unserved, revisions) = mpsc::channel(UNSERVED);
    tokio::task::spawn_local(tell_served(Arc::clone(&app), revisions));
    loop {
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(AGAIN) => {}
            () = app.stop.cancelled() => return,
        }
        loop {
            let news = match app.engine.call(manager::follow_cluster).await {
                Ok(news) => news,
                Err(Busy::Stopped) => return,
                Err(Busy::Full) => {
                    tokio::time::sleep(BUSY).await;
                    continue;
                }
            };
            for (revision, nanoseconds) in news.untold.written {
                tell(&app, "committed", revision, nanoseconds);
            }
            for served in news.untold.taken_in {
                let _ = unserved.try_send(served);
            }
            if !news.more {
                break;
            }
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
