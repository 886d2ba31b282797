//! Tries what arrives at other nodes when they appear, again when they have been away, and now and then where it was not
//! everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver;
use crate::engine::Busy;
use crate::server::App;

const BETWEEN: Duration = Duration::from_secs(3);

/// Only on a node of a cluster.
pub(crate) async fn probe(app: Arc<App>) {
    let mut answering = None;
    loop {
        tokio::time::sleep(BETWEEN).await;
        let trial = match app.engine.call(|world| world.trial(Instant::now())).await {
            Ok(Ok(Some(due))) => due,
            Ok(Ok(None)) | Err(Busy::Full) => continue,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot try what arrives at other nodes");
                continue;
            }
            Err(Busy::Stopped) => return,
        };
        let (own, trial) = trial;
        if answering != Some(trial.device()) {
            answering = Some(trial.device());
            listen(trial.device(), own);
        }
        let run = tokio::task::spawn_blocking(move || trial.run(rand::random));
        let Ok(outcome) = run.await else { continue };
        if app.engine.post(move |world| world.tried(&outcome, Instant::now())).is_err() {
            tracing::debug!("too busy to note what arrives at other nodes");
        }
    }
}

/// A thread of its own, which ends with the device.
fn listen(device: u32, own: u16) {
    let answer = move || {
        if let Err(error) = driver::answer(device, own) {
            tracing::debug!(%error, "other nodes are not answered any more");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("probe".into()).spawn(answer) {
        tracing::warn!(%error, "cannot answer other nodes that try what arrives here");
    }
}
