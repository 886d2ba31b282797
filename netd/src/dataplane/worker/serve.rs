//! The main thread: signals, the control plane that connects, the one that is connected. It sleeps in one poll; packets
//! and queries are served by the threads of the servers.

use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netd_sys::seqpacket::Listener;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::super::outbox::Pending;
use super::super::plane::Plane;
use super::peer::{Order, Peer};

/// How often a draining process looks whether its last connection has ended.
const LOOK: Duration = Duration::from_millis(50);
/// What the servers may take to end what is cut when the time of a drain is over.
const GRACE: Duration = Duration::from_secs(1);
/// Pause before more descriptors are sent, when the kernel has too many of ours under way.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Worker {
    plane: Plane,
    /// Closed once it drains: a control plane that comes then finds its successor.
    listener: Option<Listener>,
    peer: Option<Peer>,
    signals: SignalFd,
    /// Written by other threads that left something to send.
    wake: Arc<EventFd>,
    build: String,
    parent: u32,
    drain: Duration,
    /// No connection is accepted before: the last attempt failed.
    deaf_until: Option<Instant>,
    /// When a draining process ends, whatever is still open.
    end: Option<Instant>,
}

/// What there is to do.
#[derive(Default)]
struct Ready {
    signal: bool,
    connection: bool,
    message: bool,
}

impl Worker {
    pub(crate) fn new(
        plane: Plane,
        listener: Listener,
        signals: SigSet,
        build: String,
        parent: u32,
        drain: Duration,
    ) -> Result<Self> {
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot wait for signals")?;
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .context("cannot make an eventfd")?;
        let wake = Arc::new(wake);
        Ok(Self {
            plane,
            listener: Some(listener),
            peer: None,
            signals,
            wake,
            build,
            parent,
            drain,
            deaf_until: None,
            end: None,
        })
    }

    /// Serves until it is told to end.
    pub(crate) fn run(mut self) -> Result<()> {
        loop {
            if self.is_over() {
                return Ok(());
            }
            let ready = self.wait()?;
            if ready.signal {
                self.take_signals();
            }
            if ready.connection {
                self.accept();
            }
            if ready.message && self.take_messages() {
                return Ok(());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now() || self.plane.is_drained())
    }

    fn wait(&mut self) -> Result<Ready> {
        let mut timeout = self.end.map(|_| LOOK);
        let mut wanted = PollFlags::POLLIN;
        match self.peer.as_ref().map(|peer| peer.outbox().flush()) {
            None | Some(Pending::Nothing) => {}
            Some(Pending::Room) => wanted |= PollFlags::POLLOUT,
            Some(Pending::Descriptors) => timeout = Some(PAUSE),
            Some(Pending::Broken) => self.peer = None,
        }
        let is_deaf = self.deaf_until.is_some_and(|until| Instant::now() < until);
        if is_deaf {
            timeout = Some(timeout.unwrap_or(LOOK));
        }
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        let listener = self.listener.as_ref().filter(|_| !is_deaf);
        let listener = listener.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        let peer = self.peer.as_ref().map(|peer| PollFd::new(peer.connection().as_fd(), wanted));
        let (has_listener, has_peer) = (listener.is_some(), peer.is_some());
        fds.extend(listener);
        fds.extend(peer);
        let timeout = match timeout {
            None => PollTimeout::NONE,
            Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the control plane"),
        }
        let mut happened = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let signal = happened.next().unwrap_or(false);
        if happened.next().unwrap_or(false) {
            let _ = self.wake.read();
        }
        let connection = has_listener && happened.next().unwrap_or(false);
        let message = has_peer && happened.next().unwrap_or(false);
        Ok(Ready { signal, connection, message })
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                self.start_draining(self.drain);
            }
        }
    }

    fn start_draining(&mut self, limit: Duration) {
        tracing::info!(?limit, "draining: no new connections");
        self.listener = None;
        let end = Instant::now() + limit + GRACE;
        self.end = Some(self.end.map_or(end, |before| before.min(end)));
        if let Err(error) = self.plane.drain(limit) {
            tracing::error!(error = %format_args!("{error:#}"), "cannot drain: ending at once");
            self.end = Some(Instant::now());
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        loop {
            match listener.accept() {
                Ok(connection) => match connection.peer_user() {
                    Ok(user) if user == 0 || user == self.parent => {
                        // The newest control plane is the one that rules; the link of an older one is closed.
                        self.peer = Some(Peer::new(connection, Arc::clone(&self.wake)));
                    }
                    user => tracing::warn!(?user, "refused a control plane of another user"),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Most likely the descriptors have run out. It waits in the backlog; asking at once would spin.
                    tracing::warn!(%error, "cannot accept a control plane");
                    self.deaf_until = Some(Instant::now() + LOOK);
                    return;
                }
            }
        }
    }

    /// True when the process has to end at once.
    fn take_messages(&mut self) -> bool {
        let Some(peer) = &mut self.peer else { return false };
        match peer.receive(&mut self.plane, &self.build) {
            Ok(Order::Serve) => {}
            Ok(Order::Drain(limit)) => self.start_draining(limit),
            Ok(Order::Stop) => return true,
            Err(error) => {
                tracing::info!(error = %crate::error::Chain(&error), "the control plane has gone: serving on");
                self.peer = None;
            }
        }
        false
    }
}
