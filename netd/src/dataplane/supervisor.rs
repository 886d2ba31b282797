//! Keeps one data plane in service: adopts the one that runs or starts one, restarts it when it dies or is stuck, puts
//! one of this build in the place of another build's, ends it in the end. Runs as one task of the control plane's runtime
//! and sleeps until something happens.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::frame::{Reply, Request};
use super::handle::{Config, Event, Shared};
use super::link::{Greeting, Link, LinkError, PATIENCE, Session};
use super::process::{Places, Process, ProcessError};

/// How long a data plane that was just started may take to answer.
const START: Duration = Duration::from_secs(10);
/// One that has served this long was started well: its death is repaired without delay.
const SETTLED: Duration = Duration::from_secs(5);
/// Pauses between attempts double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// After so many broken links in a row the process itself is taken for broken.
const FORGIVEN: u32 = 3;
/// How long one that runs as a unit of its own may take to come back before one is started in its place.
const UNIT_RESTART: Duration = Duration::from_secs(1);
/// What `stop` gives the data plane before it kills it.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) struct Supervisor {
    config: Config,
    places: Places,
    shared: Arc<Shared>,
    events: Box<dyn Fn(Event) + Send + Sync>,
    /// One of another build, which serves until its successor does.
    retiring: Option<Live>,
    /// Those that were told to drain; they end by themselves.
    leaving: Vec<Process>,
    /// Links lost one soon after the other.
    failures: u32,
}

/// A data plane that has answered.
struct Live {
    link: Link,
    greeting: Greeting,
    /// None when it runs as a unit of its own.
    process: Option<Process>,
}

enum End {
    Lost,
    Stop,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("it ended before it answered")]
    Ended,
}

impl Supervisor {
    pub(super) fn new(config: Config, shared: Arc<Shared>, events: Box<dyn Fn(Event) + Send + Sync>) -> Self {
        Self {
            places: Places::in_service(&config.run_dir),
            config,
            shared,
            events,
            retiring: None,
            leaving: Vec::new(),
            failures: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut before = None;
        loop {
            let live = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                live = self.establish(before.take()) => live,
            };
            self.shared
                .pid
                .store(live.process.as_ref().map_or(0, |process| process.pid().into()), Ordering::Relaxed);
            let begun = Instant::now();
            let (live, end) = self.serve(live).await;
            self.shared.set_session(None);
            if matches!(end, End::Stop) {
                self.end(live).await;
                break;
            }
            self.failures = if begun.elapsed() < SETTLED { self.failures.saturating_add(1) } else { 0 };
            self.shared.restarts.fetch_add(1, Ordering::Relaxed);
            if live.process.is_none() {
                self.await_unit().await;
            }
            before = live.process;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.pause()) => {}
            }
        }
        self.sweep().await;
        self.shared.stopped.cancel();
    }

    /// Nothing at first; longer and longer for one that dies as soon as it is fed.
    fn pause(&self) -> Duration {
        match self.failures.checked_sub(FORGIVEN) {
            None => Duration::ZERO,
            Some(more) => FIRST_PAUSE.saturating_mul(1 << more.min(10)).min(LAST_PAUSE),
        }
    }

    /// A data plane, whatever it takes. `before`: the one whose link was just lost.
    async fn establish(&mut self, mut before: Option<Process>) -> Live {
        loop {
            let process = before.take().or_else(|| Process::find(&self.places));
            if let Some(live) = self.adopt(process).await {
                if live.process.is_none() || live.greeting.build == self.config.build {
                    return live;
                }
                return self.replace(live).await;
            }
            match self.launch().await {
                Ok(live) => return live,
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    let pause = self.pause().max(FIRST_PAUSE);
                    tracing::error!(error = %crate::error::Chain(&error), ?pause, "cannot start the data plane");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Connects to the data plane that runs, if one does. One that runs but does not answer is ended.
    async fn adopt(&mut self, process: Option<Process>) -> Option<Live> {
        let answer = if process.is_some() && self.failures >= FORGIVEN {
            Err(LinkError::Closed)
        } else {
            Link::connect(&self.places.socket, &self.config.build, PATIENCE).await
        };
        match (answer, process) {
            (Ok((link, greeting)), Some(process)) if greeting.pid != process.pid() => {
                // A unit was started while ours served. There can be one; ours cannot be reached any more.
                tracing::warn!(
                    ours = process.pid(),
                    pid = greeting.pid,
                    "another data plane runs: ours drains"
                );
                process.terminate();
                self.leaving.push(process);
                Some(Live { link, greeting, process: None })
            }
            (Ok((link, greeting)), process) => {
                tracing::info!(
                    build = greeting.build,
                    revision = greeting.revision,
                    sockets = greeting.inventory.len(),
                    "adopted the data plane that runs"
                );
                Some(Live { link, greeting, process })
            }
            (Err(LinkError::Protocol(protocol)), Some(process)) => {
                // It cannot be talked to, so its sockets are lost to us. Its connections need not be.
                tracing::warn!(
                    pid = process.pid(),
                    protocol,
                    "the data plane that runs is too different: it drains"
                );
                process.terminate();
                self.leaving.push(process);
                None
            }
            (Err(error), Some(mut process)) => {
                tracing::warn!(pid = process.pid(), error = %crate::error::Chain(&error),
                    "the data plane has died or does not answer: starting another one");
                process.kill();
                process.ended().await;
                None
            }
            (Err(error), None) => {
                tracing::debug!(error = %crate::error::Chain(&error), "no data plane runs");
                None
            }
        }
    }

    /// Starts a data plane; it takes the place of the one in service when it has answered.
    async fn launch(&self) -> Result<Live, StartError> {
        let places = Places::starting(&self.config.run_dir);
        if let Some(orphan) = Process::find(&places) {
            // A control plane that died between starting it and putting it in service left it. It serves nothing.
            orphan.kill();
        }
        let mut process = Process::spawn(&self.config.program, &self.config.arguments, &places)?;
        let answer = tokio::select! {
            answer = Link::connect(&places.socket, &self.config.build, START) => answer.map_err(StartError::from),
            () = process.ended() => Err(StartError::Ended),
        };
        match answer
            .and_then(|answer| places.promote(&self.places).map(|()| answer).map_err(StartError::from))
        {
            Ok((link, greeting)) => {
                tracing::info!(pid = process.pid(), "started the data plane");
                Ok(Live { link, greeting, process: Some(process) })
            }
            Err(error) => {
                process.kill();
                process.ended().await;
                places.clear();
                Err(error)
            }
        }
    }

    /// Starts one of this build with the sockets of `old`, which serves on until the new one has taken over.
    async fn replace(&mut self, mut old: Live) -> Live {
        match self.launch().await {
            Ok(mut new) => {
                tracing::info!(
                    from = old.greeting.build,
                    to = new.greeting.build,
                    "replacing the data plane"
                );
                new.greeting.inventory = std::mem::take(&mut old.greeting.inventory);
                self.retiring = Some(old);
                new
            }
            Err(error) => {
                tracing::error!(error = %crate::error::Chain(&error),
                    "cannot replace the data plane of another build: keeping it");
                old
            }
        }
    }

    async fn serve(&mut self, mut live: Live) -> (Live, End) {
        let session = live.link.session().clone();
        self.introduce(&mut live, &session);
        let stop = self.shared.stop.clone();
        let shared = Arc::clone(&self.shared);
        loop {
            let lost = tokio::select! {
                message = live.link.next() => match message {
                    Ok((reply, _)) => {
                        self.handle(reply, &session);
                        false
                    }
                    Err(error) => {
                        tracing::warn!(error = %crate::error::Chain(&error), "lost the data plane");
                        true
                    }
                },
                () = ended(live.process.as_mut()) => true,
                () = shared.suspicion.notified() => self.is_stuck(&live, &session),
                () = stop.cancelled() => return (live, End::Stop),
            };
            if lost {
                return (live, End::Lost);
            }
        }
    }

    fn introduce(&self, live: &mut Live, session: &Session) {
        let filter = self.shared.filter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(filter) = filter {
            session.tell(&Request::LogFilter { filter });
        }
        self.shared.set_session(Some(session.clone()));
        (self.events)(Event::Connected {
            session: session.clone(),
            revision: live.greeting.revision,
            inventory: std::mem::take(&mut live.greeting.inventory),
        });
    }

    fn handle(&mut self, reply: Reply, session: &Session) {
        match reply {
            Reply::Applied { revision, error } => {
                session.note_served(revision);
                if let Some(error) = error {
                    tracing::error!(revision, error, "the data plane cannot serve all of it");
                    (self.events)(Event::Refused { revision, error });
                }
                self.shared.applied.send_if_modified(|applied| {
                    let newer = revision > *applied;
                    *applied = (*applied).max(revision);
                    newer
                });
                self.retire();
            }
            Reply::Stats { id, part } => session.note_stats(id, *part),
            Reply::StatsEnd { id } => session.note_stats_end(id),
            Reply::Health { service, backend, well, why } => {
                (self.events)(Event::Health { service, backend, well, why });
            }
            Reply::NeedSockets { key, used } => {
                (self.events)(Event::NeedSockets { session: session.clone(), key, used });
            }
            Reply::Hello { .. } | Reply::Inventory { .. } | Reply::InventoryEnd | Reply::Unknown => {}
        }
    }

    /// The successor serves: the one of another build may go.
    fn retire(&mut self) {
        if let Some(old) = self.retiring.take() {
            let milliseconds = u64::try_from(self.config.drain.as_millis()).unwrap_or(u64::MAX);
            old.link.session().tell(&Request::Drain { milliseconds });
            self.leaving.extend(old.process);
        }
    }

    fn is_stuck(&self, live: &Live, session: &Session) -> bool {
        let stuck = session.is_overdue(Instant::now());
        if stuck {
            tracing::error!("the data plane has not taken its tables over in time: replacing it");
            if let Some(process) = &live.process {
                process.kill();
            }
        }
        stuck
    }

    /// Gives a data plane that is a unit of its own the time to be restarted by whoever runs it.
    async fn await_unit(&self) {
        let deadline = Instant::now() + UNIT_RESTART;
        while Instant::now() < deadline
            && netd_sys::seqpacket::Connection::connect(&self.places.socket).is_err()
        {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    async fn end(&self, live: Live) {
        if let Some(process) = live.process {
            live.link.session().tell(&Request::Stop);
            process.end(LAST_WORDS).await;
            self.places.clear();
        }
    }

    /// Ends what is left: those that were to be replaced or drain, and one that was being started.
    async fn sweep(&mut self) {
        self.leaving.extend(self.retiring.take().and_then(|live| live.process));
        for places in [Places::starting(&self.config.run_dir), self.places.clone()] {
            if let Some(process) = Process::find(&places) {
                self.leaving.push(process);
                places.clear();
            }
        }
        for mut process in self.leaving.drain(..) {
            process.kill();
            process.ended().await;
        }
    }
}

async fn ended(process: Option<&mut Process>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}
