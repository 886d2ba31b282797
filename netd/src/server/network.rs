//! Handlers of the noun network.

use netd_api::network::{
    Connect, Create, Disconnect, FILTERS, Inspect, List, Network, Prune, Pruned, Remove, Update,
    UpdateEndpoint,
};
use netd_api::{ApiError, Filters, Nothing};

use super::route::Router;
use crate::manager::{self, show};
use crate::model::{PeerKey, SandboxKey};

pub(super) fn routes(router: &mut Router) {
    router.on(Create, async |app, _, request| {
        app.change(move |world| {
            let network = manager::create_network(world, &request)?;
            Ok(show::network(&network, None))
        })
        .await
    });
    router.on(List, async |app, params, _| {
        let filters = Filters::new(params.filter, FILTERS)?;
        app.call(move |world| {
            let model = world.model();
            let used = |id: &str| {
                model.sandboxes.by(&SandboxKey::On(id.into())).next().is_some()
                    || model.peers.by(&PeerKey::On(id.into())).next().is_some()
            };
            let mut networks = show::networks(model);
            networks.retain(|network| matches(network, &filters, &used));
            Ok(networks)
        })
        .await
    });
    router.on(Inspect, async |app, params, _| {
        app.call(move |world| match manager::find_network(world.model(), &params.name) {
            Ok(network) => Ok(show::network_here(&network, world)),
            Err(error) => show::pseudo(&params.name).ok_or(error),
        })
        .await
    });
    router.on(Remove, async |app, params, _| {
        app.change(move |world| manager::remove_network(world, &params.name)).await?;
        Ok(Nothing {})
    });
    router.on(Prune, async |app, params, _| {
        let pruned = app.call_at_all(move |world| manager::prune(world, params.filter.clone())).await;
        let networks_deleted = app.serve(pruned).await?;
        Ok(Pruned { networks_deleted })
    });
    router.on(Connect, async |app, params, request| {
        app.change(move |world| {
            let sandbox = manager::connect(world, &params.name, &request)?;
            let last = sandbox.endpoints.last();
            let shown = last.and_then(|endpoint| show::endpoint(&sandbox, endpoint, world.model()));
            shown
                .map(|(_, settings)| settings)
                .ok_or_else(|| ApiError::not_found("the network is gone").into())
        })
        .await
    });
    router.on(Disconnect, async |app, params, request| {
        app.change(move |world| manager::disconnect(world, &params.name, &request)).await?;
        Ok(Nothing {})
    });
    router.on(Update, async |app, params, request| {
        app.change(move |world| {
            let network = manager::update_network(world, &params.name, &request)?;
            Ok(show::network(&network, Some(world.model())))
        })
        .await
    });
    router.on(UpdateEndpoint, async |app, params, request| {
        app.change(move |world| {
            let (sandbox, endpoint) = manager::update_endpoint(world, &params.name, &request)?;
            let shown = show::endpoint(&sandbox, &endpoint, world.model());
            shown
                .map(|(_, settings)| settings)
                .ok_or_else(|| ApiError::not_found("the network is gone").into())
        })
        .await
    });
}

fn matches(network: &Network, filters: &Filters, used: &dyn Fn(&str) -> bool) -> bool {
    let kind = if matches!(&*network.name, "bridge" | "host" | "none") { "builtin" } else { "custom" };
    let dangling = kind == "custom" && !used(&network.id);
    filters.any("driver", |driver| network.driver == driver)
        && filters.any("id", |id| network.id.starts_with(id))
        && filters.any("name", |name| network.name.contains(name))
        && filters.any("scope", |scope| network.scope == scope)
        && filters.any("type", |wanted| wanted == kind)
        && filters.any("dangling", |wanted| wanted == if dangling { "true" } else { "false" })
        && filters.labels(&network.labels)
}
