//! `netd run`: puts the parts together, in the order in which they depend on each other, and takes them apart again.
//! No logic of its own.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use netd_sys::netlink::monitor::{Group, Monitor};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::config::{Config, LogFormat, RunArgs};

use crate::dataplane::{self, DataPlane, Event};
use crate::engine::{Engine, Started};
use crate::error::Chain;
use crate::manager::{self, World};
use crate::server::listen::{bind_unix, serve};
use crate::server::{App, Metrics, Server, Trials, resume_removals};
use crate::{docker, telemetry, watch};

/// Requests that run when the daemon is told to stop get this long.
const LAST_REQUESTS: Duration = Duration::from_secs(3);
/// From start to serving; the data plane is started, or adopted, in between.
const START: Duration = Duration::from_secs(30);

/// Runs until SIGTERM, SIGINT or `netd down`.
pub(crate) fn run(args: RunArgs) -> Result<()> {
    let config = Arc::new(Config::load(&args)?);
    drop(args);
    telemetry::start(&config.log, config.log_format)?;
    tracing::info!(config = ?config, version = env!("CARGO_PKG_VERSION"), "starting");
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "the control plane works on the kernel's objects: run it as root"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    LocalSet::new().block_on(&runtime, daemon(config))
}

async fn daemon(config: Arc<Config>) -> Result<()> {
    // Before anything is started, so that there is no moment in which a signal would leave it behind.
    let mut signals = Signals::listen()?;
    for directory in [&config.state_dir, &config.run_dir, &config.netns_dir] {
        make_directory(directory)?;
    }
    let (bus, (herald, found)) = (Bus::new(), watch::Herald::new());
    let Started { engine, thread, made } = {
        let (config, bus, wake) = (Arc::clone(&config), bus.clone(), herald.wake());
        Engine::start(move || manager::open(config, bus, wake)).context("cannot start the engine")?
    };
    made.await.context("the engine ended while starting")??;
    // Only the holder of the store may take the socket: a second daemon has failed by now.
    let listener = bind_unix(&config.socket, "--socket")?;
    let plugin = config.docker.as_ref().map(|path| bind_unix(path, "docker.socket")).transpose()?;
    engine.call(manager::recover).await??;

    let dataplane = start_dataplane(&config, &engine);
    let app = Arc::new(App {
        config: Arc::clone(&config),
        engine: engine.clone(),
        dataplane: dataplane.clone(),
        bus,
        started: SystemTime::now(),
        ready: AtomicBool::new(false),
        served_of_cluster: AtomicU64::new(0),
        metrics: Metrics::new(),
        trials: Trials::new(),
        stop: CancellationToken::new(),
        stop_dataplane: AtomicBool::new(false),
        purge: AtomicBool::new(false),
    });
    let tasks = TaskTracker::new();
    let server = Rc::new(Server::new(Arc::clone(&app)));
    let api = Rc::clone(&server);
    let handle = move |request| {
        let server = Rc::clone(&api);
        async move { server.handle(request).await }
    };
    tokio::task::spawn_local(serve(listener, handle, app.stop.clone(), tasks.clone()));
    if let Some(address) = config.metrics {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen for metrics on {address}"))?;
        let handle = move |request| {
            let server = Rc::clone(&server);
            async move { server.handle_metrics(request).await }
        };
        tokio::task::spawn_local(serve(listener, handle, app.stop.clone(), tasks.clone()));
    }
    if app.config.cluster.is_some() {
        tokio::task::spawn_local(watch::cluster(Arc::clone(&app), herald, found));
    }
    let served = serve_until_told(&app, &mut signals, plugin, &tasks).await;
    end(app, tasks, dataplane, engine, thread).await;
    served
}

/// Whatever ends this, the daemon is taken apart in order: what it started ends with it.
async fn serve_until_told(
    app: &Arc<App>,
    signals: &mut Signals,
    plugin: Option<UnixListener>,
    tasks: &TaskTracker,
) -> Result<()> {
    start_watches(app).await?;
    tokio::select! {
        ready = become_ready(app) => ready?,
        () = signals.told_to_stop(app) => return Ok(()),
    }
    resume_removals(app).await?;
    if let Some(listener) = plugin {
        serve_docker(app, listener, tasks)?;
    }
    signals.told_to_stop(app).await;
    Ok(())
}

/// What dockerd asks before everything is ready waits in the backlog: it gives up on a plugin that refuses.
fn serve_docker(app: &Arc<App>, listener: UnixListener, tasks: &TaskTracker) -> Result<()> {
    let monitor = Monitor::open(&[Group::Links]).context("cannot watch for containers of Docker's")?;
    tokio::task::spawn_local(watch::docker(Arc::clone(app), monitor));
    let (plugin, stop, requests) = (Arc::clone(app), app.stop.clone(), tasks.clone());
    tasks.spawn_local(async move {
        let socket = plugin.config.docker.clone();
        let handle = move |request| docker::handle(Arc::clone(&plugin), request);
        serve(listener, handle, stop, requests).await;
        let _ = socket.map(std::fs::remove_file);
    });
    Ok(())
}

fn start_dataplane(config: &Config, engine: &Engine<World>) -> DataPlane {
    let engine = engine.clone();
    DataPlane::start(dataplane_config(config), move |event| {
        let posted = engine.post_patiently(move |world| match event {
            Event::Connected { session, revision, inventory } => {
                world.connected(session, revision, inventory);
            }
            Event::NeedSockets { session, key, used } => world.supply(&session, &key, used),
            Event::Health { service, backend, well, why } => {
                manager::note_health(world, &service, &backend, well, why.as_ref());
            }
            Event::Refused { revision, error } => {
                tracing::error!(revision, error, "the data plane refuses a table");
            }
        });
        if let Err(error) = posted {
            tracing::error!(%error, "cannot follow the data plane");
        }
    })
}

fn dataplane_config(config: &Config) -> dataplane::Config {
    let settings = &config.dataplane;
    let mut arguments = vec![
        format!("--workers={}", config.workers()),
        format!("--spin-us={}", settings.spin.as_micros()),
        format!("--max-connections={}", settings.max_connections),
        format!("--drain-seconds={}", settings.drain.as_secs()),
        format!("--log={}", config.log),
        format!("--log-format={}", if config.log_format == LogFormat::Json { "json" } else { "text" }),
    ];
    arguments.extend(settings.user.iter().map(|user| format!("--user={user}")));
    dataplane::Config {
        run_dir: config.run_dir.clone(),
        program: "/proc/self/exe".into(),
        arguments,
        build: dataplane::build(),
        drain: settings.drain,
    }
}

async fn start_watches(app: &Arc<App>) -> Result<()> {
    let port = app.engine.call(|world| world.reconcile.nft_port()).await?;
    let monitor = Monitor::nftables().context("cannot watch the firewall's rules")?;
    tokio::task::spawn_local(watch::firewall(Arc::clone(app), port, monitor));
    let routes = Monitor::open(&[Group::Routes]).context("cannot watch the host's routes")?;
    tokio::task::spawn_local(watch::ways_out(Arc::clone(app), routes));
    if app.config.cluster.is_some() {
        let ways =
            Monitor::open(&[Group::Links, Group::Routes]).context("cannot watch the ways to other nodes")?;
        tokio::task::spawn_local(watch::underlay(Arc::clone(app), ways));
        tokio::task::spawn_local(watch::probe(Arc::clone(app)));
    }
    tokio::task::spawn_local(watch::resolv_conf(Arc::clone(app)));
    tokio::task::spawn_local(watch::guests(Arc::clone(app)));
    tokio::task::spawn_local(watch::ports(Arc::clone(app)));
    tokio::task::spawn_local(watch::spool(Arc::clone(app)));
    Ok(())
}

/// Ready means: the kernel and the data plane hold what the store says.
async fn become_ready(app: &App) -> Result<()> {
    let revision = app.engine.call(|world| world.revision()).await?;
    app.dataplane.served(revision.max(1), START).await.context("the data plane does not come up")?;
    app.ready.store(true, Ordering::Release);
    tracing::info!(revision, "ready");
    // Only a supervisor that asked for it (NOTIFY_SOCKET) hears this.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let open = |kind, name| signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            terminate: open(SignalKind::terminate(), "SIGTERM")?,
            interrupt: open(SignalKind::interrupt(), "SIGINT")?,
            reload: open(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    async fn told_to_stop(&mut self, app: &App) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = app.stop.cancelled() => return,
                _ = self.reload.recv() => {
                    if let Err(error) = app.engine.post(World::host_changed) {
                        tracing::warn!(%error, "cannot look at the host's files now");
                    }
                }
            }
        }
    }
}

/// Requests, then the data plane, then the engine; with `--purge` what they wrote.
async fn end(
    app: Arc<App>,
    tasks: TaskTracker,
    dataplane: DataPlane,
    engine: Engine<World>,
    thread: std::thread::JoinHandle<()>,
) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    app.stop.cancel();
    tasks.close();
    if tokio::time::timeout(LAST_REQUESTS, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    let config = Arc::clone(&app.config);
    if app.stop_dataplane.load(Ordering::Acquire) {
        dataplane.end().await;
    } else {
        dataplane.stop().await;
    }
    // The socket stays until here: who connects in the meantime waits, and is told by its closing.
    let _ = std::fs::remove_file(&config.socket);
    let purge = app.purge.load(Ordering::Acquire);
    // Closes the store: what was committed is on the disk when this returns.
    engine.stop();
    if thread.join().is_err() {
        tracing::error!("the engine ended with a panic");
    }
    tracing::info!("stopped");
    if purge {
        // Namespaces are named in a mount of its own there; one that others share, as /run/netns, is left to them.
        if config.netns_dir.starts_with(&config.run_dir) {
            let _ = nix::mount::umount2(&config.netns_dir, nix::mount::MntFlags::MNT_DETACH);
        }
        for directory in [&config.state_dir, &config.run_dir] {
            remove_directory(directory);
        }
    }
}

fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// What is in it is ours; the directory itself may be somebody's mount.
fn remove_directory(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), error = %Chain(&error), "cannot remove what netd kept here");
    }
}
