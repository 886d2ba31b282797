//! Handlers of the noun service, and the removal of a sandbox that is an endpoint of one: its connections end first.

use std::sync::Arc;
use std::time::Duration;

use netd_api::service::{Create, Drain, EndpointMode, FILTERS, Inspect, List, Remove, Service, Update};
use netd_api::value::Reference;
use netd_api::{ApiError, Filters, Nothing};
use tokio::time::Instant;

use super::App;
use super::route::Router;
use crate::error::Result;
use crate::manager::{self, Departure, Removal, show};

/// How often a leaving endpoint's connections are counted.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn routes(router: &mut Router) {
    router.on(Create, async |app, _, request| {
        app.change(move |world| {
            let service = manager::create_service(world, &request)?;
            Ok(show::service(&service, world.model()))
        })
        .await
    });
    router.on(List, async |app, params, _| {
        let filters = Filters::new(params.filter, FILTERS)?;
        let mut shown: Vec<Service> = app
            .call(move |world| {
                let model = world.model();
                Ok(model.services.values().map(|service| show::service(service, model)).collect())
            })
            .await?;
        shown.retain(|service| matches(service, &filters));
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        count_connections(&app, &mut shown).await;
        Ok(shown)
    });
    router.on(Inspect, async |app, params, _| {
        let shown = app.call(move |world| {
            let service = manager::find_service(world.model(), &params.name)?;
            Ok(show::service(&service, world.model()))
        });
        counted(&app, shown.await?).await
    });
    router.on(Update, async |app, params, request| {
        let changed = app.change(move |world| {
            let service = manager::update_service(world, &params.name, &request)?;
            Ok(show::service(&service, world.model()))
        });
        counted(&app, changed.await?).await
    });
    router.on(Drain, async |app, params, request| {
        let changed = app.change(move |world| {
            let service = manager::drain_endpoint(world, &params.name, &request)?;
            Ok(show::service(&service, world.model()))
        });
        counted(&app, changed.await?).await
    });
    router.on(Remove, async |app, params, _| {
        app.change(move |world| manager::remove_service(world, &params.name)).await?;
        Ok(Nothing {})
    });
}

async fn counted(app: &App, service: Service) -> Result<Service> {
    let mut one = [service];
    count_connections(app, &mut one).await;
    let [service] = one;
    Ok(service)
}

/// While the data plane does not answer, there are none to be told of.
async fn count_connections(app: &App, services: &mut [Service]) {
    if services.iter().all(|service| service.endpoints.is_empty()) {
        return;
    }
    if let Ok(stats) = app.dataplane.stats().await {
        services.iter_mut().for_each(|service| show::connections(service, &stats));
    }
}

/// Removes a sandbox. One that is an endpoint of a service gets no new connections first, and those it has get the time
/// that the service gives them. It goes on when whoever has asked has gone: half-way is no state to be left in.
pub(super) async fn remove_sandbox(app: &Arc<App>, wanted: Reference, force: bool) -> Result<()> {
    let begun = app.change(move |world| manager::begin_removal(world, &wanted, force)).await?;
    let rest = tokio::task::spawn_local(end_removal(Arc::clone(app), begun));
    rest.await.unwrap_or_else(|_| Err(ApiError::unavailable("the daemon is stopping").into()))
}

/// Goes on with the removals that were under way when the daemon before this one ended.
pub(crate) async fn resume_removals(app: &Arc<App>) -> Result<()> {
    for begun in app.call(|world| Ok(manager::begun_removals(world))).await? {
        let app = Arc::clone(app);
        tokio::task::spawn_local(async move {
            if let Err(error) = end_removal(app, begun).await {
                tracing::warn!(%error, "a removal that was begun has not come to its end");
            }
        });
    }
    Ok(())
}

async fn end_removal(app: Arc<App>, begun: Removal) -> Result<()> {
    let Removal::Drains(departure) = begun else { return Ok(()) };
    let sandbox = Arc::clone(&departure.sandbox);
    tokio::select! {
        departed = depart(&app, &departure) => departed?,
        () = app.stop.cancelled() => {
            tracing::warn!(%sandbox, "it is about to be removed: it gets no new connections meanwhile");
            let remedy = "its removal goes on when the daemon runs again";
            return Err(ApiError::unavailable("the daemon is stopping").remedy(remedy).into());
        }
    }
    app.change(move |world| manager::finish_removal(world, &sandbox)).await
}

/// Until nothing leads to the endpoint any more and it has no connection left, or its time is over.
async fn depart(app: &App, departure: &Departure) -> Result<()> {
    let end = Instant::now() + departure.limit;
    if !departure.leaves {
        drained(app, departure, end - departure.last).await;
    }
    let sandbox = Arc::clone(&departure.sandbox);
    let leaves = app.change(move |world| manager::leave_service(world, &sandbox));
    // A store that hangs has the rest of its time, and no more.
    let Ok(left) = tokio::time::timeout_at(end, leaves).await else { return Ok(()) };
    tokio::time::sleep_until(end.min(Instant::now() + left?)).await;
    drained(app, departure, end).await;
    Ok(())
}

/// Until the endpoint has no connection, `end` at the latest.
async fn drained(app: &App, departure: &Departure, end: Instant) {
    let Departure { endpoint, services, unseen, .. } = departure;
    while Instant::now() < end {
        if let (Ok(stats), false) = (app.dataplane.stats().await, *unseen) {
            let of_service = stats.services.iter().filter(|service| services.contains(&service.id));
            if of_service.filter_map(|service| service.backends.get(endpoint)).all(|open| *open == 0) {
                return;
            }
        }
        tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
    }
}

fn matches(service: &Service, filters: &Filters) -> bool {
    let mode = match service.endpoint_mode {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
        EndpointMode::ExternalName => "external-name",
    };
    filters.any("id", |id| service.id.starts_with(id))
        && filters.any("name", |name| service.name.contains(name))
        && filters.any("mode", |wanted| wanted == mode)
        && filters
            .any("network", |wanted| service.network == wanted || service.network_id.starts_with(wanted))
        && filters.labels(&service.labels)
}
