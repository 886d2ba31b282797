//! The handle that the control side has: starts the workers, brings changes to all of them, reads the counters, drains.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netd_sys::poll::{Poller, Waker};
use netd_sys::processor;

use crate::Error;
use crate::control::Control;
use crate::gate::Gate;
use crate::health::prober::Prober;
use crate::health::{Found, Health};
use crate::kit::{Kit, Token};
use crate::peers::{Peer, Peers};
use crate::stats::Stats;
use crate::table::{Change, ListenerId};
use crate::udp::Udp;
use crate::worker::{Command, Drained, Refused, Step, Worker};

/// How the proxy runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads, each with an event loop of its own, and on a processor of its own if there are as many.
    pub workers: usize,
    /// How long a lightly loaded worker looks for more before it sleeps. Zero: it never does.
    pub spin: Duration,
    /// Open TCP connections of all listeners together, of two descriptors each. Besides, half as many UDP flows may be
    /// open, of one descriptor each: made-up sources cannot take the descriptors that connections need.
    pub max_connections: u32,
    /// How long [`Proxy::apply`] waits for the workers.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: thread::available_parallelism().map_or(1, usize::from),
            spin: Duration::from_micros(50),
            max_connections: 8192,
            patience: Duration::from_secs(10),
        }
    }
}

/// The running proxy. Dropping it stops the workers and resets what is open; [`Proxy::drain`] first, to avoid that.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    prober: Option<JoinHandle<()>>,
}

/// What the control side and the prober of backends change, one at a time.
struct Shared {
    control: Mutex<Control>,
    workers: Vec<WorkerLink>,
    patience: Duration,
}

struct WorkerLink {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
}

/// Commands that may wait at one worker.
const QUEUE: usize = 16;
/// Bytes that all pipes together may hold. The kernel lets an unprivileged user have 64 MiB in pipes of full size
/// (fs.pipe-user-pages-soft); something is left for others of that user.
const PIPE_MEMORY: usize = 56 << 20;

impl Proxy {
    pub fn start(config: &Config) -> io::Result<Self> {
        let count = config.workers.max(1);
        let pollers: Vec<Poller> = (0..count).map(|_| Poller::new()).collect::<io::Result<_>>()?;
        let wakers: Arc<[Arc<Waker>]> = pollers
            .iter()
            .map(|poller| Waker::new(poller, Token::WAKER.into()).map(Arc::new))
            .collect::<io::Result<_>>()?;
        let peers: Arc<[Peer]> = wakers.iter().map(|waker| Peer::new(Arc::clone(waker))).collect();
        let process = Arc::new(Gate::new(config.max_connections, Arc::clone(&wakers)));
        let trails = Arc::default();
        let flows = (config.max_connections as usize / 2).div_ceil(count);
        let processors = own_processors(count);
        let (prober, orders) = Prober::new(rand::random())?;
        let mut links = Vec::with_capacity(count);
        let mut workers = Vec::with_capacity(count);
        for (number, (poller, waker)) in pollers.into_iter().zip(wakers.iter()).enumerate() {
            let peers = Peers::new(number, Arc::clone(&peers));
            let kit = Kit::new(poller, peers, Arc::clone(&trails), PIPE_MEMORY / count, rand::random());
            let (commands, received) = mpsc::sync_channel(QUEUE);
            let worker = Worker::new(kit, received, Arc::clone(&process), config.spin, Udp::new(flows));
            let start = || {
                thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
                    worker.run().inspect_err(|error| tracing::error!(%error, "proxy worker ended"))
                })
            };
            // Each event that comes in would otherwise have the worker preempt the program that causes the next ones: a
            // switch for each of them, and never two to serve in one turn.
            let spawn = || processor::taking_turns(start);
            let thread = match processors.get(number) {
                Some(&processor) => processor::bound_to(processor, spawn)?,
                None => spawn()?,
            };
            links.push(WorkerLink { commands, waker: Arc::clone(waker) });
            workers.push(thread);
        }
        let control = Mutex::new(Control::new(Arc::clone(&wakers), orders));
        let shared = Arc::new(Shared { control, workers: links, patience: config.patience });
        let found = Arc::clone(&shared);
        let prober = prober.start(move |health| found.found(health))?;
        Ok(Self { shared, workers, prober: Some(prober) })
    }

    /// Makes the changes, in order, and returns when every worker serves them. `sockets` are for listeners that are
    /// new; each worker takes one of a listener's sockets, so there may be as many as workers, or fewer.
    ///
    /// When the changes do not fit together nothing is changed. A listener that a worker could not serve is dropped
    /// again everywhere, and the error names it; the other changes stand.
    pub fn apply(&self, changes: Vec<Change>, sockets: Vec<(ListenerId, Vec<OwnedFd>)>) -> Result<(), Error> {
        let mut sockets = sockets
            .into_iter()
            .map(|(listener, sockets)| (listener, sockets.into_iter().map(Arc::new).collect()))
            .collect();
        // Held to the end: batches come to all workers in one order.
        let mut control = self.shared.control();
        control.check(&changes, &sockets)?;
        let mut steps = self.shared.no_steps();
        for change in changes {
            control.make(change, &mut sockets, &mut steps);
        }
        let Err(error) = self.shared.bring(steps) else { return Ok(()) };
        if let Error::Refused { listener, .. } = &error {
            let mut steps = self.shared.no_steps();
            control.drop_refused(listener, &mut steps);
            self.shared.bring(steps)?;
        }
        Err(error)
    }

    /// Duplicates of all listening sockets, for whoever takes over.
    pub fn sockets(&self) -> io::Result<Vec<(ListenerId, Vec<OwnedFd>)>> {
        self.shared
            .control()
            .sockets()
            .map(|(id, sockets)| {
                let copies = sockets.iter().map(|socket| socket.try_clone()).collect::<io::Result<_>>()?;
                Ok((id, copies))
            })
            .collect()
    }

    pub fn stats(&self) -> Stats {
        self.shared.control().stats()
    }

    /// Tells `listening` of all that the health checks have found so far, and then of each change, in order. It is
    /// called by other threads too, and must not block. Who listened before hears no more.
    pub fn on_health(&self, listening: impl Fn(&Health) + Send + 'static) {
        self.shared.control().listen(listening);
    }

    /// Accepts no more, lets what is open finish, and cuts (with a reset) what has not after `patience`.
    pub fn drain(&self, patience: Duration) -> Drained {
        let deadline = Instant::now() + patience;
        let mut control = self.shared.control();
        control.close_sockets();
        control.stop_checks();
        drop(control);
        let (done, finished) = mpsc::channel();
        for worker in &self.shared.workers {
            // One that does not take it in time has ended, and its connections with it.
            let _ = worker.send(Command::Drain { deadline, done: done.clone() }, deadline);
        }
        drop(done);
        finished.iter().fold(Drained::default(), |sum, one| Drained {
            finished: sum.finished + one.finished,
            cut: sum.cut + one.cut,
        })
    }
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        // A panic in between leaves tables that are whole: they are changed one entry at a time.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_steps(&self) -> Vec<Vec<Step>> {
        self.workers.iter().map(|_| Vec::new()).collect()
    }

    /// A health check has found something. New connections follow it from here on; flows do in a moment, which is not
    /// waited for.
    fn found(&self, found: Found) {
        let mut control = self.control();
        let mut steps = self.no_steps();
        control.found(found, &mut steps);
        if let Err(error) = self.send(steps, Instant::now() + self.patience) {
            tracing::error!(%error, "cannot tell the workers what a health check has found");
        }
    }

    /// Has every worker take its steps, and waits for all.
    fn bring(&self, steps: Vec<Vec<Step>>) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        await_all(&self.send(steps, deadline)?, deadline)
    }

    fn send(&self, steps: Vec<Vec<Step>>, deadline: Instant) -> Result<Receiver<Result<(), Refused>>, Error> {
        let (done, finished) = mpsc::channel();
        for (worker, steps) in self.workers.iter().zip(steps) {
            if !steps.is_empty() {
                worker.send(Command::Apply { steps, done: done.clone() }, deadline)?;
            }
        }
        Ok(finished)
    }
}

/// Where each of `workers` stays, if there is a processor for each. Left to itself the kernel moves a worker to whoever
/// wakes it, and then often both of two workers share a processor with a client while another has nothing to do.
fn own_processors(workers: usize) -> Vec<usize> {
    processor::allowed().ok().filter(|allowed| allowed.len() == workers).unwrap_or_default()
}

fn await_all(finished: &Receiver<Result<(), Refused>>, deadline: Instant) -> Result<(), Error> {
    let mut outcome = Ok(());
    loop {
        match finished.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(())) => {}
            Ok(Err(Refused { listener, error })) => {
                outcome = Err(Error::Refused { listener, source: error });
            }
            // All have answered (or ended).
            Err(RecvTimeoutError::Disconnected) => return outcome,
            Err(RecvTimeoutError::Timeout) => return Err(Error::Late),
        }
    }
}

impl WorkerLink {
    fn send(&self, command: Command, deadline: Instant) -> Result<(), Error> {
        let mut command = command;
        loop {
            match self.commands.try_send(command) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return Err(Error::Ended),
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return Err(Error::Late),
                Err(TrySendError::Full(back)) => command = back,
            }
            thread::yield_now();
        }
        self.waker.wake();
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.control().stop_checks();
        if let Some(prober) = self.prober.take() {
            let _ = prober.join();
        }
        for (link, thread) in self.shared.workers.iter().zip(self.workers.drain(..)) {
            let _ = link.send(Command::Stop, Instant::now() + self.shared.patience);
            // Its error has been logged.
            let _ = thread.join();
        }
    }
}
