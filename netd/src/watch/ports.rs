//! Ports that somebody else has, tried again until they are free.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Busy;
use crate::server::App;

const PAUSE: Duration = Duration::from_secs(1);

/// Asleep while every port is served.
pub(crate) async fn ports(app: Arc<App>) {
    let Ok(closed) = app.engine.call(|world| world.reconcile.closed_ports()).await else { return };
    loop {
        closed.notified().await;
        loop {
            tokio::time::sleep(PAUSE).await;
            match app.engine.call(|world| world.reopen_ports()).await {
                Ok(true) => break,
                Err(Busy::Stopped) => return,
                Ok(false) | Err(Busy::Full) => {}
            }
        }
    }
}
