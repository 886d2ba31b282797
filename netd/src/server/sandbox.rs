//! Handlers of the noun sandbox.

use netd_api::sandbox::{
    Check, Create, FILTERS, Inspect, Leave, List, Ports, Publish, Remove, Sandbox, Unpublish,
};
use netd_api::{Filters, Nothing};

use super::route::Router;
use super::service;
use crate::manager::{self, show};

pub(super) fn routes(router: &mut Router) {
    router.on(Create, async |app, _, request| {
        app.change(move |world| {
            let (sandbox, warnings) = manager::create_sandbox(world, &request)?;
            Ok(Sandbox { warnings, ..show::sandbox(world, &sandbox) })
        })
        .await
    });
    router.on(List, async |app, params, _| {
        let filters = Filters::new(params.filter, FILTERS)?;
        app.call(move |world| {
            let sandboxes = world.model().sandboxes.values();
            let mut shown: Vec<Sandbox> = sandboxes.map(|sandbox| show::sandbox(world, sandbox)).collect();
            shown.retain(|sandbox| matches(sandbox, &filters));
            shown.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(shown)
        })
        .await
    });
    router.on(Inspect, async |app, params, _| {
        app.call(move |world| {
            let sandbox = manager::find_sandbox(world.model(), &params.name)?;
            Ok(show::sandbox(world, &sandbox))
        })
        .await
    });
    router.on(Remove, async |app, params, _| {
        service::remove_sandbox(&app, params.name, params.force).await?;
        Ok(Nothing {})
    });
    router
        .on(Check, async |app, params, _| app.call(move |world| manager::examine(world, &params.name)).await);
    router.on(Leave, async |app, params, request| {
        app.change(move |world| manager::leave_network(world, &params.name, &request)).await?;
        Ok(Nothing {})
    });
    router.on(Ports, async |app, params, _| {
        app.call(move |world| Ok(show::port_map(&*manager::find_sandbox(world.model(), &params.name)?))).await
    });
    router.on(Publish, async |app, params, request| {
        app.change(move |world| {
            let by = request.publish_by.into();
            Ok(show::port_map(&*manager::publish(world, &params.name, &request.port, by)?))
        })
        .await
    });
    router.on(Unpublish, async |app, params, request| {
        app.change(move |world| Ok(show::port_map(&*manager::unpublish(world, &params.name, &request.port)?)))
            .await
    });
}

fn matches(sandbox: &Sandbox, filters: &Filters) -> bool {
    filters.any("id", |id| sandbox.id.starts_with(id))
        && filters.any("name", |name| sandbox.name.contains(name))
        && filters.any("network", |wanted| {
            let networks = &sandbox.network_settings.networks;
            networks.iter().any(|(name, settings)| name == wanted || settings.network_id.starts_with(wanted))
        })
        && filters.labels(&sandbox.config.labels)
}
