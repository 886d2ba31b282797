//! The ways to other nodes: a device that gets another MTU, a route that leads elsewhere.

use std::sync::Arc;

use netd_sys::netlink::monitor::{Event, Monitor};
use netd_sys::netlink::route::Kind;

use super::{LOOK_PAUSE, Registered};
use crate::driver::{DOOMED, GROUP};
use crate::engine::Busy;
use crate::error::Chain;
use crate::server::App;

/// Only on a node of a cluster: every new sandbox of this host wakes it, too.
pub(crate) async fn underlay(app: Arc<App>, monitor: Monitor) {
    let Ok(mut monitor) = Registered::watch(monitor) else { return };
    let mut known = Vec::new();
    loop {
        match app.engine.call(crate::manager::World::follow_underlay).await {
            Ok(links) => known = links,
            Err(Busy::Stopped) => return,
            // Tried again with the next news.
            Err(Busy::Full) => {}
        }
        loop {
            let Ok(mut ready) = monitor.readable_mut().await else { return };
            tokio::time::sleep(LOOK_PAUSE).await;
            let events = match ready.get_inner_mut().0.read() {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the ways to other nodes are not watched any more");
                    return;
                }
            };
            ready.clear_ready();
            if events.iter().any(|event| is_news(event, &known)) {
                break;
            }
        }
    }
}

fn is_news(event: &Event, known: &[u32]) -> bool {
    match event {
        Event::Link(link) | Event::LinkGone(link) => {
            link.group != GROUP && link.group != DOOMED && known.contains(&link.index)
        }
        Event::Route(route) | Event::RouteGone(route) => route.kind == Kind::Unicast,
        Event::Address(_)
        | Event::AddressGone(_)
        | Event::Netns(_)
        | Event::NetnsGone(_)
        | Event::Tables(_) => false,
        Event::Lost => true,
    }
}
