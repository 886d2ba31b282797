//! One thread, one event loop: everything that happens to the sockets it was given happens here, one thing after
//! another, without locks. Streams are served by `listener` and `session`, datagrams by what implements [`Datagrams`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use netd_sys::poll::{Event, Poller};

use crate::snapshot::{ListenerHandle, ServiceHandle};
use crate::table::ListenerId;

/// A listening socket as a worker holds it. The control side and, where there are fewer sockets than workers, other
/// workers hold it too: it must be taken out of the poller before it is let go.
pub(crate) type SharedSocket = Arc<OwnedFd>;

/// The part of a worker that serves datagrams. All of it runs on the worker's thread and must never wait.
pub(crate) trait Datagrams {
    /// Serves `listener`. The first time it comes with its socket, which is registered under [`Token::datagrams`];
    /// later it replaces what is there under the same id and keeps the socket.
    fn put_listener(
        &mut self,
        kit: &mut Kit,
        listener: Arc<ListenerHandle>,
        socket: Option<SharedSocket>,
    ) -> io::Result<()>;

    /// Ends all flows of the listener and lets go of its socket. Does nothing for an unknown one.
    fn drop_listener(&mut self, kit: &mut Kit, listener: &ListenerId);

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

    /// Takes no new flows and lets go of all listening sockets; what is open goes on until its time is up.
    fn drain(&mut self, kit: &mut Kit);

    /// How many flows are open.
    fn open(&self) -> usize;
}

/// What everything on a worker's thread may use.
pub(crate) struct Kit {
    pub(crate) poller: Poller,
    /// When this turn of the loop began.
    pub(crate) now: Instant,
    /// Room to read into; nothing stays in it from one call to the next.
    pub(crate) scratch: Box<[u8]>,
    random: u64,
}

impl Kit {
    /// A number that nobody outside can foresee well; not for secrets.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::policy::mix(self.random)
    }
}

/// Whose descriptor an event is about: four bits of kind, sixty of a number that the kind gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

impl Token {
    const NUMBER_BITS: u32 = 60;

    /// For the datagram side; `number` is below 2^60 and comes back in [`Datagrams::ready`].
    pub(crate) fn datagrams(number: u64) -> u64 {
        (4 << Self::NUMBER_BITS) | (number & ((1 << Self::NUMBER_BITS) - 1))
    }
}
