//! The one thread on which all state changes run, one after another. A request is a closure over the state; there is
//! no lock because there is no second writer, and the order of the queue is the order of the world.
//!
//! Kernel work serialises on one lock inside the kernel anyway (rtnl), so a second thread would gain nothing.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// Requests that wait for the engine at most; more are refused at once.
const QUEUE: usize = 1024;

enum Message<S> {
    Job(Box<dyn FnOnce(&mut S) + Send>),
    Stop,
}

/// The state `S` on a thread of its own.
pub(crate) struct Engine<S> {
    jobs: SyncSender<Message<S>>,
}

impl<S> Clone for Engine<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

/// A new engine; `made` tells how the making of its state went.
pub(crate) struct Started<S, E> {
    pub engine: Engine<S>,
    pub thread: JoinHandle<()>,
    pub made: oneshot::Receiver<Result<(), E>>,
}

/// Why a job did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Busy {
    #[error("{QUEUE} requests are waiting already: try again in a moment")]
    Full,
    #[error("the daemon is stopping")]
    Stopped,
}

impl<S: 'static> Engine<S> {
    /// Makes the state on the new thread (it may hold things that cannot move between threads) and runs jobs on it
    /// until it is told to stop, or every handle is gone.
    pub(crate) fn start<E: Send + 'static>(
        make: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> std::io::Result<Started<S, E>> {
        let (jobs, queue): (SyncSender<Message<S>>, Receiver<Message<S>>) = sync_channel(QUEUE);
        let (started, start) = oneshot::channel();
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let mut state = match make() {
                Ok(state) => state,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            for message in queue {
                match message {
                    Message::Job(job) => job(&mut state),
                    Message::Stop => break,
                }
            }
        })?;
        Ok(Started { engine: Self { jobs }, thread, made: start })
    }

    /// Runs `job` on the state and returns what it returns.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (reply, answer) = oneshot::channel();
        self.post(move |state| {
            let _ = reply.send(job(state));
        })?;
        answer.await.map_err(|_| Busy::Stopped)
    }

    /// The same for what must not be lost: waits for a place. The engine never waits for the caller's thread.
    pub(crate) fn post_patiently(&self, job: impl FnOnce(&mut S) + Send + 'static) -> Result<(), Busy> {
        self.jobs.send(Message::Job(Box::new(job))).map_err(|_| Busy::Stopped)
    }

    /// Has the thread drop its state and end, behind what is queued already.
    pub(crate) fn stop(&self) {
        // A queue whose thread has ended needs no telling.
        let _ = self.jobs.send(Message::Stop);
    }

    /// Runs `job` on the state some time; nobody waits.
    pub(crate) fn post(&self, job: impl FnOnce(&mut S) + Send + 'static) -> Result<(), Busy> {
        self.jobs.try_send(Message::Job(Box::new(job))).map_err(|error| match error {
            TrySendError::Full(_) => Busy::Full,
            TrySendError::Disconnected(_) => Busy::Stopped,
        })
    }
}
