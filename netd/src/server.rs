//! The API: finds the verb of a request, decodes, calls, encodes. Nothing is decided here; each file below is the
//! handlers of one noun, and a handler is a call of a manager on the engine.

mod cluster;
mod decode;
mod encode;
mod events;
mod exposition;
pub(crate) mod listen;
mod metrics;
mod network;
mod node;
mod route;
mod sandbox;
mod service;
mod stats;
mod system;
mod trials;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::{Request, Response};
use netd_api::{ApiError, Code};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::config::Config;
use crate::dataplane::DataPlane;
use crate::engine::Engine;
use crate::error::{Fault, Result};
use crate::manager::{self, Attempt, World};
use crate::store::Revision;
pub(crate) use encode::json_as;
use listen::Body;
pub(crate) use metrics::Metrics;
use route::Router;
pub(crate) use service::resume_removals;
pub(crate) use trials::Trials;

/// A reply waits this long for the data plane to serve what the request made.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Paths of the metrics port.
const PUBLIC: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// What handlers need.
pub(crate) struct App {
    pub config: Arc<Config>,
    pub engine: Engine<World>,
    pub dataplane: DataPlane,
    pub bus: Bus,
    pub started: SystemTime,
    pub ready: AtomicBool,
    /// Up to where the data plane serves the cluster's store.
    pub served_of_cluster: AtomicU64,
    pub metrics: Metrics,
    /// Of the ways to other nodes.
    pub trials: Trials,
    /// Ends the daemon.
    pub stop: CancellationToken,
    /// The data plane is to end with the daemon although it may serve on.
    pub stop_dataplane: AtomicBool,
    /// What was written is to go with the daemon.
    pub purge: AtomicBool,
}

pub(crate) struct Server {
    app: Arc<App>,
    router: Router,
}

impl Server {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let mut router = Router::default();
        cluster::routes(&mut router);
        network::routes(&mut router);
        node::routes(&mut router);
        sandbox::routes(&mut router);
        service::routes(&mut router);
        stats::routes(&mut router);
        system::routes(&mut router);
        Self { app, router }
    }

    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match self.router.handle(&self.app, request).await {
            Ok(response) => response,
            Err(Fault(error)) => encode::problem(error),
        }
    }

    /// What the metrics port serves: nothing that changes anything, or tells of anybody in particular.
    pub(crate) async fn handle_metrics(&self, request: Request<Incoming>) -> Response<Body> {
        if PUBLIC.contains(&request.uri().path()) {
            return self.handle(request).await;
        }
        encode::problem(ApiError::not_found(format!("only {} are served here", PUBLIC.join(", "))))
    }
}

impl App {
    /// Runs a change on the engine and waits until the data plane serves it: what was just made resolves and answers.
    ///
    /// What concerns the cluster's store is refused at first, and done when the store has answered: the engine has others
    /// to serve while one that hangs is waited for.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        deed: impl FnMut(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (attempt, deed) = self.attempt(false, deed).await?;
        let Some(asked) = attempt.asked else { return self.serve(attempt.done).await };
        match (asked.answer().await, attempt.done) {
            (Ok(()), Err(_)) => {
                let (attempt, _) = self.attempt(true, deed).await?;
                self.serve(attempt.done).await
            }
            (Ok(()), Ok(done)) => {
                let settle = |world: &mut World| {
                    manager::settle(world);
                    Ok(())
                };
                self.call(settle).await?;
                self.serve(Ok(done)).await
            }
            (Err(cause), Err(fault)) if fault.0.code == Code::Unavailable => {
                Err(manager::out_of_reach(&cause).into())
            }
            (Err(_), done) => self.serve(done).await,
        }
    }

    /// Runs what does as much as it can, whether or not the cluster's store can be reached.
    async fn call_at_all<T: Send + 'static>(
        &self,
        deed: impl FnMut(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<(T, Revision)> {
        let asked = self.call(|world| Ok(manager::ask_store(world))).await?;
        let has_answered = match asked {
            Some(asked) => asked.answer().await.is_ok(),
            None => false,
        };
        let (attempt, _) = self.attempt(has_answered, deed).await?;
        attempt.done
    }

    async fn attempt<T: Send + 'static, D: FnMut(&mut World) -> Result<T> + Send + 'static>(
        &self,
        has_answered: bool,
        mut deed: D,
    ) -> Result<(Attempt<(T, Revision)>, D)> {
        self.call(move |world| {
            let mut job = |world: &mut World| deed(world).map(|done| (done, world.revision()));
            let attempt = manager::attempt(world, has_answered, &mut job);
            Ok((attempt, deed))
        })
        .await
    }

    async fn serve<T>(&self, done: Result<(T, Revision)>) -> Result<T> {
        let (done, revision) = done?;
        self.served(revision).await;
        Ok(done)
    }

    /// Runs something on the engine.
    async fn call<T: Send + 'static>(
        &self,
        deed: impl FnOnce(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.ready.load(Ordering::Acquire) {
            return Err(ApiError::unavailable("the daemon is starting")
                .remedy("try again in a moment")
                .into());
        }
        match self.engine.call(deed).await {
            Ok(result) => result,
            Err(busy) => Err(ApiError::unavailable(busy.to_string()).into()),
        }
    }

    /// The change is made whether or not the data plane can be told of it now: it is told when it is there again.
    async fn served(&self, revision: Revision) {
        if let Err(error) = self.dataplane.served(revision, SERVED_WITHIN).await {
            tracing::warn!(%error, "a change is made and not served yet");
        }
    }
}
