//! Tries what arrives at other nodes when they appear, again when they have been away, now and then where it was not
//! everything, and all of it when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::driver;
use crate::engine::Busy;
use crate::server::App;

const BETWEEN: Duration = Duration::from_secs(3);

/// What other nodes are answered on, until that is another device.
struct Answering {
    device: u32,
    stop: Arc<AtomicBool>,
}

/// Only on a node of a cluster.
pub(crate) async fn probe(app: Arc<App>) {
    let mut answering = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(BETWEEN) => {}
            () = app.trials.asked() => {}
        }
        let (number, anew) = (app.trials.number(), app.trials.is_wanted());
        let made = round(&app, &mut answering, anew).await;
        if matches!(made, Err(Busy::Stopped)) {
            return;
        }
        if anew {
            app.trials.answer(number);
        }
    }
}

async fn round(app: &App, answering: &mut Option<Answering>, anew: bool) -> Result<(), Busy> {
    let (own, trial) = match app.engine.call(move |world| world.trial(anew, Instant::now())).await {
        Ok(Ok(Some(due))) => due,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot try what arrives at other nodes");
            return Ok(());
        }
        Err(busy) => return Err(busy),
    };
    let device = trial.device();
    if answering.as_ref().is_none_or(|answering| answering.device != device) {
        let before = answering.replace(Answering { device, stop: listen(device, own) });
        before.inspect(|before| before.stop.store(true, Ordering::Relaxed));
    }
    let run = tokio::task::spawn_blocking(move || trial.run(rand::random));
    let Ok(outcome) = run.await else { return Ok(()) };
    app.engine.call(move |world| world.tried(&outcome, Instant::now())).await
}

/// Threads of their own: for packets until the device has gone, for streams until it is told.
fn listen(device: u32, own: u16) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let packets = move || {
        if let Err(error) = driver::answer(device, own) {
            tracing::debug!(%error, "other nodes are not answered any more");
        }
    };
    let streams = move || {
        if let Err(error) = driver::take(device, own, &told) {
            tracing::debug!(%error, "no streams of other nodes are taken any more");
        }
    };
    let start = |work: Box<dyn FnOnce() + Send>| {
        if let Err(error) = std::thread::Builder::new().name("probe".into()).spawn(work) {
            tracing::warn!(%error, "cannot answer other nodes that try what arrives here");
        }
    };
    start(Box::new(packets));
    start(Box::new(streams));
    stop
}
