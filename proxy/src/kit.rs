//! What everything on a worker's thread may use: the poller, the clock of this turn, timers, room to read into, pipes,
//! the reserve; and the tokens that tell whose descriptor an event is about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use netd_sys::poll::Poller;

use crate::hop::Mesh;
use crate::peers::Peers;
use crate::pipe_pool::PipePool;
use crate::policy::mix;
use crate::reserve::Reserve;
use crate::session::SessionId;
use crate::trails::Trails;

/// One worker's tools, lent to whoever has the turn.
pub(crate) struct Kit {
    pub(crate) poller: Poller,
    /// When this turn of the loop began.
    pub(crate) now: Instant,
    /// Room to read into; nothing stays in it from one call to the next.
    pub(crate) scratch: Box<[u8]>,
    pub(crate) timers: Timers,
    pub(crate) pipes: PipePool,
    pub(crate) reserve: Reserve,
    pub(crate) peers: Peers,
    /// The other nodes, while there are any.
    pub(crate) mesh: Option<Arc<Mesh>>,
    pub(crate) trails: Arc<Trails>,
    random: u64,
}

const SCRATCH: usize = 64 << 10;

impl Kit {
    pub(crate) fn new(
        poller: Poller,
        peers: Peers,
        trails: Arc<Trails>,
        pipe_budget: usize,
        seed: u64,
    ) -> Self {
        Self {
            poller,
            now: Instant::now(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            timers: Timers::default(),
            pipes: PipePool::new(pipe_budget),
            reserve: Reserve::default(),
            peers,
            mesh: None,
            trails,
            random: seed,
        }
    }

    /// A number that nobody outside can foresee well; not for secrets.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random)
    }
}

/// Deadlines in order. One that is cancelled is gone, so that a worker with nothing to wait for never wakes.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(Instant, Token)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, token: Token) {
        self.set.insert((at, token));
    }

    pub(crate) fn cancel(&mut self, at: Instant, token: Token) {
        self.set.remove(&(at, token));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Token> {
        let (at, _) = self.set.first()?;
        if *at > now { None } else { self.set.pop_first().map(|(_, token)| token) }
    }
}

/// Whose descriptor an event (or a timer) is about: four bits of kind, sixty of a number that the kind gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Waker,
    Door(u64),
    Session(SessionId, Side),
    Datagrams(u64),
    Descriptors,
    Drain,
    Waiting,
    /// A connection of another node whose header is not whole yet.
    Arrival(SessionId),
    Cut,
}

/// The two legs of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

impl Token {
    pub(crate) const WAKER: Self = Self(0);
    pub(crate) const DESCRIPTORS: Self = Self(5 << Self::NUMBER_BITS);
    pub(crate) const DRAIN: Self = Self(6 << Self::NUMBER_BITS);

    pub(crate) const WAITING: Self = Self(7 << Self::NUMBER_BITS);
    pub(crate) const CUT: Self = Self(9 << Self::NUMBER_BITS);

    const NUMBER_BITS: u32 = 60;
    const NUMBER: u64 = (1 << Self::NUMBER_BITS) - 1;

    /// For a listening socket; `number` is below 2^60.
    pub(crate) fn door(number: u64) -> Self {
        Self::of(1, number)
    }

    pub(crate) fn session(id: SessionId, side: Side) -> Self {
        let kind = match side {
            Side::Client => 2,
            Side::Backend => 3,
        };
        Self::of(kind, id.number())
    }

    pub(crate) fn arrival(id: SessionId) -> Self {
        Self::of(8, id.number())
    }

    /// For the datagram side; `number` is below 2^60 and comes back in `Datagrams::ready`.
    pub(crate) fn datagrams(number: u64) -> u64 {
        Self::of(4, number).0
    }

    fn of(kind: u64, number: u64) -> Self {
        Self(kind << Self::NUMBER_BITS | number & Self::NUMBER)
    }

    pub(crate) fn kind(self) -> Kind {
        let number = self.0 & Self::NUMBER;
        let id = || SessionId::from_number(number);
        match self.0 >> Self::NUMBER_BITS {
            1 => Kind::Door(number),
            2 => Kind::Session(id(), Side::Client),
            3 => Kind::Session(id(), Side::Backend),
            4 => Kind::Datagrams(number),
            5 => Kind::Descriptors,
            6 => Kind::Drain,
            7 => Kind::Waiting,
            8 => Kind::Arrival(id()),
            9 => Kind::Cut,
            _ => Kind::Waker,
        }
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tokens_come_back_as_what_they_were() {
        let id = SessionId { index: u32::MAX, generation: SessionId::GENERATIONS };
        for side in [Side::Client, Side::Backend] {
            assert_eq!(Token::session(id, side).kind(), Kind::Session(id, side));
        }
        assert_eq!(Token::arrival(id).kind(), Kind::Arrival(id));
        assert_eq!(Token::door((1 << 60) - 1).kind(), Kind::Door((1 << 60) - 1));
        assert_eq!(Token::from(Token::datagrams(77)).kind(), Kind::Datagrams(77));
        assert_eq!(Token::WAKER.kind(), Kind::Waker);
        assert_eq!(Token::DRAIN.kind(), Kind::Drain);
        assert_eq!(Token::WAITING.kind(), Kind::Waiting);
        assert_eq!(Token::CUT.kind(), Kind::Cut);
        assert_eq!(Token::DESCRIPTORS.kind(), Kind::Descriptors);
    }

    #[test]
    fn timers_come_in_order_and_cancelled_ones_never() {
        let mut timers = Timers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (seconds, number) in [(3, 3), (1, 1), (2, 2)] {
            timers.set(at(seconds), Token::door(number));
        }
        timers.cancel(at(2), Token::door(2));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.due(start), None);
        let due: Vec<Token> = std::iter::from_fn(|| timers.due(at(9))).collect();
        assert_eq!(due, [Token::door(1), Token::door(3)]);
        assert_eq!(timers.next(), None);
    }
}
