//! The handle that the rest of the process has on the DNS thread: start it, send it changes and sockets, ask what it
//! has counted and holds, end it. Usable from any thread; nothing of the runtime inside shows.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::Notify;

use crate::cache::Limits;
use crate::error::Error;
use crate::metrics::{Metrics, Stats};
use crate::table::{Change, SocketUse, ViewId};
use crate::tcp::TcpLimits;
use crate::thread::serve;

/// A socket and what it is for.
pub type ViewSocket = (ViewId, SocketUse, OwnedFd);

/// Called from the DNS thread, so it must not block.
pub type OnWant = Box<dyn Fn(&ViewId, SocketUse) + Send>;

pub struct Config {
    /// How long to look for more queries after traffic before sleeping; zero for not at all.
    pub spin: Duration,
    /// Clients that may wait for upstream replies at a time. One view gets at most half of the free places.
    pub in_flight: usize,
    pub cache: Limits,
    pub tcp: TcpLimits,
    /// Told when a view has used its last upstream TCP socket of a family.
    pub on_want: Option<OnWant>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            spin: Duration::from_micros(50),
            in_flight: 20_480,
            cache: Limits::default(),
            tcp: TcpLimits::default(),
            on_want: None,
        }
    }
}

/// The running server. Dropping it ends the thread without waiting for clients; see [`Server::drain`].
pub struct Server {
    commands: SyncSender<Command>,
    wake: Arc<Notify>,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) enum Command {
    Apply { changes: Vec<Change>, sockets: Vec<ViewSocket>, done: Done },
    Sockets(SyncSender<Vec<ViewSocket>>),
    Drain(Duration),
    Stop,
}

type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Batches of changes that may wait before a sender does.
const QUEUE: usize = 64;

impl Server {
    pub fn start(config: Config) -> Result<Self, Error> {
        let (commands, inbox) = sync_channel(QUEUE);
        let (started, outcome) = sync_channel(1);
        let wake = Arc::new(Notify::new());
        let metrics = Arc::new(Metrics::default());
        let thread = {
            let (wake, metrics) = (wake.clone(), metrics.clone());
            thread::Builder::new()
                .name("dns".into())
                .spawn(move || serve(config, &Inbox { commands: inbox, wake }, metrics, &started))
                .map_err(Error::Start)?
        };
        match outcome.recv() {
            Ok(Ok(())) => Ok(Self { commands, wake, metrics, thread: Some(thread) }),
            Ok(Err(error)) => Err(Error::Start(error)),
            Err(_) => Err(Error::Stopped),
        }
    }

    /// Has `changes` applied in order, each between two packets, and then `sockets` served. `done` is called from the DNS thread
    /// when queries are answered from the new tables; it must not block. An error tells of the first socket that
    /// cannot be served; all the rest is in force.
    ///
    /// Sockets for queries replace the view's earlier ones of the same use, so do those for upstream datagrams;
    /// upstream TCP sockets add to its stock. Waits only if very many batches are under way.
    pub fn apply(
        &self,
        changes: Vec<Change>,
        sockets: Vec<ViewSocket>,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.send(Command::Apply { changes, sockets, done: Box::new(done) })
    }

    /// Duplicates of all sockets that came with views and are still in use.
    pub fn sockets(&self) -> Result<Vec<ViewSocket>, Error> {
        let (reply, sockets) = sync_channel(1);
        self.send(Command::Sockets(reply))?;
        sockets.recv().map_err(|_| Error::Stopped)
    }

    pub fn stats(&self) -> Stats {
        self.metrics.snapshot()
    }

    /// Reads no more queries, answers those under way, and ends; at the latest after `patience`.
    pub fn drain(mut self, patience: Duration) {
        self.end(Command::Drain(patience));
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).map_err(|_| Error::Stopped)?;
        self.wake.notify_one();
        Ok(())
    }

    fn end(&mut self, last: Command) {
        // An error here or below means that the thread has ended already, which is what is wanted.
        drop(self.send(last));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(Command::Stop);
        }
    }
}

/// The thread's end of the channel: waiting in it costs nothing.
pub(crate) struct Inbox {
    commands: Receiver<Command>,
    wake: Arc<Notify>,
}

impl Inbox {
    pub(crate) async fn next(&self) -> Command {
        loop {
            if let Ok(command) = self.commands.try_recv() {
                return command;
            }
            self.wake.notified().await;
        }
    }
}
