//! Handlers of the noun node.

use netd_api::node::{Activate, Drain, FILTERS, Inspect, List, NodeState, Remove};
use netd_api::{Filters, Nothing};

use super::route::Router;
use crate::manager::{self, show};
use crate::model::Availability;

pub(super) fn routes(router: &mut Router) {
    router.on(List, async |app, params, _| {
        let filters = Filters::new(params.filter, FILTERS)?;
        app.call(move |world| {
            let mut nodes = show::nodes(world);
            // Who was removed is of interest to who asks for it, and to itself.
            let asked = ["state", "availability"].iter().any(|key| !filters.any(key, |_| false));
            nodes.retain(|node| asked || node.here || node.state != NodeState::Removed);
            nodes.retain(|node| {
                filters.any("name", |name| node.name.contains(name))
                    && filters.any("state", |state| node.state.as_str() == state)
                    && filters.any("availability", |wanted| node.availability.as_str() == wanted)
            });
            Ok(nodes)
        })
        .await
    });
    router.on(Inspect, async |app, params, _| app.call(move |world| show::node(world, &params.name)).await);
    router.on(Drain, async |app, params, _| {
        app.change(move |world| manager::set_availability(world, &params.name, Availability::Drain)).await?;
        Ok(Nothing {})
    });
    router.on(Activate, async |app, params, _| {
        app.change(move |world| manager::set_availability(world, &params.name, Availability::Active)).await?;
        Ok(Nothing {})
    });
    router.on(Remove, async |app, params, _| {
        app.change(move |world| manager::remove_node(world, &params.name, params.force)).await?;
        Ok(Nothing {})
    });
}
