//! Notices that a container of Docker's has its device.

use std::sync::Arc;

use netd_sys::netlink::monitor::{Event, Monitor};

use super::Registered;
use crate::driver::GROUP;
use crate::error::Chain;
use crate::manager::docker::settle;
use crate::server::App;

/// Docker moves a device into a container some time after it was told of it, and does not say when.
pub(crate) async fn docker(app: Arc<App>, monitor: Monitor) {
    let Ok(mut monitor) = Registered::watch(monitor) else { return };
    let mut missed = true;
    loop {
        if missed && let Err(error) = app.engine.post(|world| settle(world, None)) {
            tracing::warn!(%error, "cannot look for new containers of Docker's now");
        }
        let Ok(mut ready) = monitor.readable_mut().await else { return };
        let events = match ready.get_inner_mut().0.read() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "new containers of Docker's are not watched any more");
                return;
            }
        };
        ready.clear_ready();
        missed = false;
        for event in events {
            match event {
                Event::Link(link) if link.group == GROUP && link.running && link.peer.is_some() => {
                    missed |= app.engine.post(move |world| settle(world, Some(&link.name))).is_err();
                }
                Event::Lost => missed = true,
                _ => {}
            }
        }
    }
}
