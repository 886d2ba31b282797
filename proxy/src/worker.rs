//! One thread, one event loop: everything that happens to the sockets it was given happens here, one thing after
//! another, without locks. Streams are served by `listener` and `session`, datagrams by what implements [`Datagrams`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use netd_sys::poll::{Event, Events, Interest};

pub(crate) use crate::kit::{Kit, Side, Token};

use crate::gate::Gate;
use crate::hop::Mesh;
use crate::kit::Kind;
use crate::listener::Doors;
use crate::peers::Handed;
use crate::session::Sessions;
use crate::snapshot::{ListenerHandle, ServiceHandle};
use crate::spin::Spin;
use crate::table::{Funnel, FunnelId, ListenerId, MESH_TCP, Protocol, ServiceId};

/// A listening socket as a worker holds it. The control side and, where there are fewer sockets than workers, other
/// workers hold it too: it must be taken out of the poller before it is let go.
pub(crate) type SharedSocket = Arc<OwnedFd>;

/// The part of a worker that serves datagrams. All of it runs on the worker's thread and must never wait.
pub(crate) trait Datagrams {
    /// Serves `listener`. It comes with its socket, which is registered under [`Token::datagrams`] (once with each,
    /// when it has more sockets than there are workers); without one it replaces what is there under the same id.
    fn put_listener(
        &mut self,
        kit: &mut Kit,
        listener: Arc<ListenerHandle>,
        socket: Option<SharedSocket>,
    ) -> io::Result<()>;

    /// Serves the listeners that name this funnel through `socket` too, which is registered.
    fn put_funnel(&mut self, kit: &mut Kit, funnel: &FunnelId, socket: SharedSocket) -> io::Result<()>;

    /// Lets go of the funnel's socket, and ends the flows that came through it.
    fn drop_funnel(&mut self, kit: &mut Kit, funnel: &FunnelId);

    /// Ends all flows of the listener and lets go of its socket. Does nothing for an unknown one.
    fn drop_listener(&mut self, kit: &mut Kit, listener: &ListenerId);

    /// Takes datagrams of other nodes through `socket` too, which is registered.
    fn put_mesh(&mut self, kit: &mut Kit, socket: SharedSocket) -> io::Result<()>;

    /// Other nodes may ask for the service of this listener, which is the mesh's own.
    fn reach(&mut self, listener: &Arc<ListenerHandle>);

    /// They may not any more; its flows end.
    fn unreach(&mut self, service: &ServiceId);

    /// Lets go of the mesh's sockets, and ends all flows that came through them.
    fn drop_mesh(&mut self, kit: &mut Kit);

    /// Other backends have been published: flows to one that is gone (see `Pool::keeps`) end or move at once.
    fn service_changed(&mut self, kit: &mut Kit, service: &Arc<ServiceHandle>);

    /// Something happened to the descriptor that was registered as `Token::datagrams(number)`. One call handles a
    /// bounded amount; registered without an edge, the event comes again for the rest.
    fn ready(&mut self, kit: &mut Kit, number: u64, event: Event);

    /// All events of this turn have been handed out: send what was gathered from them. Called once after the last
    /// [`Datagrams::ready`] of every turn (and before anything else of this trait), cheap when there is nothing.
    fn flush(&mut self, kit: &mut Kit);

    /// When [`Datagrams::tick`] is due; `None` while nothing is open, so that an idle worker never wakes.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has passed: end what has been silent for too long.
    fn tick(&mut self, kit: &mut Kit);

    /// The time of backends that drain is over: ends the flows that they have had since before.
    fn cut(&mut self, kit: &mut Kit);

    /// Takes no new flows and lets go of all listening sockets; what is open goes on until its time is up.
    fn drain(&mut self, kit: &mut Kit);

    /// How many flows are open.
    fn open(&self) -> usize;
}

/// What the control side asks of a worker.
pub(crate) enum Command {
    /// Steps to take; the answer says that all of them are served, or what could not be.
    Apply {
        steps: Vec<Step>,
        done: Sender<Result<(), Refused>>,
    },
    /// Accept no more, finish, cut what is left at the deadline; the answer comes when nothing is open.
    Drain {
        deadline: Instant,
        done: Sender<Drained>,
    },
    Stop,
}

/// One step of one worker from table to table.
pub(crate) enum Step {
    /// `shared`: other workers wait for the same socket.
    PutListener {
        handle: Arc<ListenerHandle>,
        socket: Option<SharedSocket>,
        shared: bool,
    },
    DropListener(Arc<ListenerHandle>),
    PutFunnel {
        funnel: Funnel,
        socket: SharedSocket,
        shared: bool,
    },
    DropFunnel(FunnelId),
    /// What is known of the other nodes.
    PutMesh(Arc<Mesh>),
    /// A socket that other nodes come to.
    OpenMesh {
        protocol: Protocol,
        socket: SharedSocket,
        shared: bool,
    },
    /// Other nodes may ask for this listener's service.
    Reach(Arc<ListenerHandle>),
    Unreach(Protocol, ServiceId),
    DropMesh,
    /// A service's backends have been published.
    ServiceChanged(Arc<ServiceHandle>),
}

/// A listener, or a funnel, that a worker could not serve.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) listener: ListenerId,
    pub(crate) error: io::Error,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections and flows that were open when it began and ended by themselves.
    pub finished: usize,
    /// Those that were cut at the deadline.
    pub cut: usize,
}

pub(crate) struct Worker<D> {
    pub(crate) kit: Kit,
    events: Events,
    commands: Receiver<Command>,
    doors: Doors,
    sessions: Sessions,
    datagrams: D,
    spin: Spin,
    draining: Option<Draining>,
    /// It has been told to drain, for good.
    retired: bool,
}

struct Draining {
    deadline: Instant,
    began_with: usize,
    done: Sender<Drained>,
}

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

impl<D: Datagrams> Worker<D> {
    pub(crate) fn new(
        kit: Kit,
        commands: Receiver<Command>,
        process: Arc<Gate>,
        spin: Duration,
        datagrams: D,
    ) -> Self {
        Self {
            kit,
            events: Events::with_capacity(EVENTS),
            commands,
            doors: Doors::new(process),
            sessions: Sessions::default(),
            datagrams,
            spin: Spin::new(spin),
            draining: None,
            retired: false,
        }
    }

    /// Serves until it is told to stop, or until the control side is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            self.kit.now = Instant::now();
            let mut asked = false;
            for at in 0..self.events.len() {
                let Some(event) = self.events.at(at) else { break };
                asked |= self.handle(event);
            }
            self.datagrams.flush(&mut self.kit);
            self.sessions.go_on(&mut self.kit);
            let go_on = !asked || self.obey();
            self.timers();
            self.finish_drain();
            if !self.retired {
                self.kit.peers.publish(self.sessions.len());
            }
            if !go_on {
                self.doors.drop_all(&mut self.kit);
                self.sessions.cut_all(&mut self.kit);
                return Ok(());
            }
        }
    }

    /// Fills `events`: at once while there is work, else after looking for a moment, else after sleeping.
    fn wait(&mut self) -> io::Result<()> {
        if self.sessions.has_busy() {
            return self.kit.poller.wait(&mut self.events, Some(Duration::ZERO));
        }
        let began = Instant::now();
        let timeout = self.deadline().map(|at| at.saturating_duration_since(began));
        if let Some(budget) = self.spin.before_sleep(self.events.len()) {
            let until = began + budget.min(timeout.unwrap_or(budget));
            loop {
                self.kit.poller.wait(&mut self.events, Some(Duration::ZERO))?;
                if !self.events.is_empty() {
                    self.spin.looked(true);
                    return Ok(());
                }
                if Instant::now() >= until {
                    break;
                }
                // Whoever we wait for may want this very CPU.
                thread::yield_now();
            }
            self.spin.looked(false);
        }
        let timeout = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        self.kit.poller.wait(&mut self.events, timeout)?;
        if !self.events.is_empty() {
            self.spin.slept(began.elapsed());
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        [self.kit.timers.next(), self.datagrams.deadline()].into_iter().flatten().min()
    }

    /// True: another thread has asked for something.
    fn handle(&mut self, event: Event) -> bool {
        match Token::from(event.token).kind() {
            Kind::Door(number) => self.doors.ready(&mut self.kit, &mut self.sessions, number),
            Kind::Session(id, side) => self.sessions.ready(&mut self.kit, id, side, event),
            Kind::Datagrams(number) => self.datagrams.ready(&mut self.kit, number, event),
            Kind::Arrival(id) => self.sessions.arriving(&mut self.kit, id),
            Kind::Waker => return true,
            // These are timers, never descriptors.
            Kind::Descriptors | Kind::Drain | Kind::Waiting | Kind::Cut => {}
        }
        false
    }

    /// Lets clients in where somebody has left, takes what other workers hand over, and does what the control side has asked for; false when it wants us
    /// to stop, or is gone.
    fn obey(&mut self) -> bool {
        self.doors.reopen(&mut self.kit);
        for Handed { stream, account, spare } in self.kit.peers.handed() {
            self.kit.reserve.receive(spare);
            self.sessions.open(&mut self.kit, stream, account);
        }
        loop {
            match self.commands.try_recv() {
                Ok(Command::Apply { steps, done }) => {
                    let outcome = steps.into_iter().try_for_each(|step| self.step(step));
                    // Who asked may have stopped waiting.
                    let _ = done.send(outcome);
                }
                Ok(Command::Drain { deadline, done }) => self.drain(deadline, done),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Refused> {
        match step {
            Step::PutListener { handle, socket, shared } => {
                let interest = if shared { Interest::READ_SHARED } else { Interest::READ };
                let listener = Arc::clone(&handle.listener.id);
                match handle.listener.protocol {
                    Protocol::Tcp => self.doors.put(&mut self.kit, handle, socket, interest),
                    Protocol::Udp => self.datagrams.put_listener(&mut self.kit, handle, socket),
                }
                .map_err(|error| Refused { listener, error })
            }
            Step::DropListener(listener) => {
                self.doors.drop_listener(&self.kit, &listener);
                self.datagrams.drop_listener(&mut self.kit, &listener.listener.id);
                Ok(())
            }
            Step::PutFunnel { funnel: Funnel { id, protocol }, socket, shared } => {
                let interest = if shared { Interest::READ_SHARED } else { Interest::READ };
                match protocol {
                    Protocol::Tcp => self.doors.put_funnel(&self.kit, &id, socket, interest),
                    Protocol::Udp => self.datagrams.put_funnel(&mut self.kit, &id, socket),
                }
                .map_err(|error| Refused { listener: id, error })
            }
            Step::DropFunnel(funnel) => {
                self.doors.drop_funnel(&self.kit, &funnel);
                self.datagrams.drop_funnel(&mut self.kit, &funnel);
                Ok(())
            }
            Step::PutMesh(mesh) => {
                self.kit.mesh = Some(mesh);
                Ok(())
            }
            Step::OpenMesh { protocol, socket, shared } => {
                let interest = if shared { Interest::READ_SHARED } else { Interest::READ };
                match protocol {
                    Protocol::Tcp => self.doors.put_mesh(&self.kit, socket, interest),
                    Protocol::Udp => self.datagrams.put_mesh(&mut self.kit, socket),
                }
                .map_err(|error| Refused { listener: MESH_TCP.into(), error })
            }
            Step::Reach(listener) => {
                match listener.listener.protocol {
                    Protocol::Tcp => self.sessions.arrivals.reach(listener),
                    Protocol::Udp => self.datagrams.reach(&listener),
                }
                Ok(())
            }
            Step::Unreach(protocol, service) => {
                match protocol {
                    Protocol::Tcp => self.sessions.arrivals.forget(&service),
                    Protocol::Udp => self.datagrams.unreach(&service),
                }
                Ok(())
            }
            Step::DropMesh => {
                self.kit.mesh = None;
                self.doors.drop_mesh(&self.kit);
                self.sessions.arrivals.forget_all();
                self.datagrams.drop_mesh(&mut self.kit);
                Ok(())
            }
            Step::ServiceChanged(service) => {
                service.pool().cuts().for_each(|at| self.kit.timers.set(at, Token::CUT));
                self.datagrams.service_changed(&mut self.kit, &service);
                Ok(())
            }
        }
    }

    fn timers(&mut self) {
        while let Some(token) = self.kit.timers.due(self.kit.now) {
            match token.kind() {
                Kind::Session(id, _) => self.sessions.timed_out(&mut self.kit, id),
                Kind::Arrival(id) => self.sessions.arrivals.timed_out(id),
                Kind::Descriptors => self.doors.look_for_descriptors(&mut self.kit),
                Kind::Waiting => self.sessions.search_again(&mut self.kit),
                Kind::Cut => {
                    self.sessions.cut(&mut self.kit);
                    self.datagrams.cut(&mut self.kit);
                }
                // Noticed in finish_drain().
                Kind::Drain | Kind::Waker | Kind::Door(_) | Kind::Datagrams(_) => {}
            }
        }
        if self.datagrams.deadline().is_some_and(|at| at <= self.kit.now) {
            self.datagrams.tick(&mut self.kit);
        }
    }

    fn open(&self) -> usize {
        self.sessions.len() + self.datagrams.open()
    }

    fn drain(&mut self, deadline: Instant, done: Sender<Drained>) {
        self.retired = true;
        self.kit.peers.close();
        self.doors.retire(&mut self.kit, &mut self.sessions);
        self.datagrams.drain(&mut self.kit);
        self.kit.timers.set(deadline, Token::DRAIN);
        self.draining = Some(Draining { deadline, began_with: self.open(), done });
    }

    fn finish_drain(&mut self) {
        let open = self.open();
        let Some(draining) = self.draining.take_if(|draining| open == 0 || draining.deadline <= self.kit.now)
        else {
            return;
        };
        self.kit.timers.cancel(draining.deadline, Token::DRAIN);
        self.sessions.cut_all(&mut self.kit);
        let finished = draining.began_with.saturating_sub(open);
        let _ = draining.done.send(Drained { finished, cut: open });
    }
}
