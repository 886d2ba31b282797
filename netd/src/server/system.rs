//! Handlers of the daemon itself: status, doctor, down, log, health, metrics, events, names.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use hyper::Response;
use netd_api::dns::Dump;
use netd_api::events::{FILTERS, Follow};
use netd_api::system::{
    Counts, DataPlaneState, DataPlaneStatus, Diagnosis, Doctor, Down, DownReport, GetLog, Health, Healthz,
    LogFilter, Metrics, OpenApi, Readyz, SetLog, Status, StoreStatus, SystemStatus,
};
use netd_api::{Answer, ApiError, Filters, Verb};

use super::listen::Body;
use super::route::Router;
use super::{App, encode, events};
use crate::error::Result;
use crate::manager::{self, World, show};
use crate::{doctor, telemetry};

pub(super) fn routes(router: &mut Router) {
    router.on(Status, async |app, _, _| status(&app).await);
    router.on(Doctor, async |app, _, _| {
        let is_anew = app.config.cluster.is_none() || app.trials.make().await;
        let checks = app.call(move |world| Ok(doctor::examine(world, is_anew))).await?;
        Ok(Diagnosis { checks })
    });
    router.on(Down, async |app, _, request| {
        let (errors, _) = app.call_at_all(move |world| Ok(manager::down(world, request.purge))).await?;
        app.stop_dataplane.store(true, Ordering::Release);
        app.purge.store(request.purge, Ordering::Release);
        app.stop.cancel();
        Ok(DownReport { errors })
    });
    router.on(GetLog, async |_, _, _| Ok(LogFilter { filter: telemetry::filter() }));
    router.on(SetLog, async |app, _, request| {
        telemetry::set_filter(&request.filter).map_err(|error| {
            ApiError::invalid(format!("{error:#}")).at("filter").remedy("write it like `info,netd_dns=debug`")
        })?;
        app.dataplane.set_log_filter(&request.filter);
        Ok(LogFilter { filter: telemetry::filter() })
    });
    router.on(OpenApi, async |_, _, _| Ok(netd_api::openapi::document()));
    router.on(Healthz, async |_, _, _| Ok(Health { status: "ok".into() }));
    router.on(Readyz, async |app, _, _| {
        if app.ready.load(Ordering::Acquire) && app.dataplane.is_connected() {
            return Ok(Health { status: "ok".into() });
        }
        Err(ApiError::unavailable("the data plane does not serve yet").remedy("try again in a moment").into())
    });
    router.on(Dump, async |app, params, _| {
        app.call(move |world| {
            let model = world.model();
            let one = params.sandbox.map(|wanted| manager::find_sandbox(model, &wanted)).transpose()?;
            Ok(show::views(world, one.as_deref()))
        })
        .await
    });
    router.raw(Metrics, metrics);
    router.raw(Follow, async |app, params| {
        let filters = Filters::new(params.filter, FILTERS)?;
        let (since, until) = (params.since.map(SystemTime::from), params.until.map(SystemTime::from));
        Ok(encode::with(200, "application/x-ndjson", events::stream(&app, since, until, filters)))
    });
}

async fn metrics(app: Arc<App>, _: <Metrics as Verb>::Params) -> Result<Response<Body>> {
    let Answer::Text { content_type } = Metrics::ANSWER else {
        return Err(ApiError::kernel("the metrics are a text").into());
    };
    let (counts, revision, cluster) =
        app.call(|world| Ok((counts(world), world.revision(), world.cluster_view()))).await?;
    let cluster = cluster.map(|view| view.shown(app.served_of_cluster.load(Ordering::Relaxed)));
    let stats = app.dataplane.stats().await.ok();
    let restarts = app.dataplane.restarts();
    app.metrics.dropped(app.call(|world| Ok(world.reconcile.dropped()?)).await?);
    Ok(encode::text(
        content_type,
        app.metrics.render(counts, revision, restarts, stats.as_ref(), cluster.as_ref()),
    ))
}

async fn status(app: &App) -> Result<SystemStatus> {
    let (counts, revision, steering, cluster) = app
        .call(|world| {
            let reconcile = &world.reconcile;
            let ways = [doctor::steering(reconcile.steering()), doctor::east_west(reconcile.east_west())];
            Ok((counts(world), world.revision(), ways, world.cluster_view()))
        })
        .await?;
    let state = match (app.dataplane.is_connected(), app.dataplane.restarts()) {
        (true, _) => DataPlaneState::Running,
        (false, 0) => DataPlaneState::Starting,
        (false, _) => DataPlaneState::Down,
    };
    let config = &app.config;
    Ok(SystemStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        node: config.node.clone(),
        pid: std::process::id(),
        started: app.started.into(),
        ready: app.ready.load(Ordering::Acquire),
        socket: config.socket.clone(),
        state_dir: config.state_dir.clone(),
        run_dir: config.run_dir.clone(),
        netns_dir: config.netns_dir.clone(),
        store: StoreStatus {
            kind: "redb".into(),
            location: config.state_dir.display().to_string(),
            revision,
        },
        cluster: cluster.map(|view| view.shown(app.served_of_cluster.load(Ordering::Relaxed))),
        data_plane: DataPlaneStatus {
            state,
            pid: app.dataplane.pid(),
            connected_since: app.dataplane.connected_since().map(Into::into),
            revision: *app.dataplane.applied().borrow(),
            restarts: app.dataplane.restarts(),
        },
        features: doctor::features().into_iter().chain(steering).collect(),
        counts,
    })
}

fn counts(world: &World) -> Counts {
    let model = world.model();
    let sandboxes = || model.sandboxes.values();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Counts {
        networks: count(model.networks.len()),
        sandboxes: count(model.sandboxes.len()),
        endpoints: count(sandboxes().map(|sandbox| sandbox.endpoints.len()).sum()),
        published_ports: sandboxes().flat_map(|sandbox| &sandbox.publishes).map(|p| u64::from(p.count)).sum(),
        names: count(world.reconcile.projection().name_count()),
    }
}
