//! Moving one direction of a connection: read from one leg, write to the other, in order, with nothing buffered but
//! what one read took and the other side would not. A direction starts by copying and changes to splice(2) while it
//! moves much at a time; both ways share the state here.

mod copy;
mod splice;

use std::io;
use std::net::{Shutdown, TcpStream};

use netd_sys::poll::Event;
use netd_sys::splice::Pipe;

use crate::pipe_pool::PipePool;

/// One side's socket, and what is known about it. Events are told once, so the knowledge is kept until a call says
/// otherwise.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) stream: TcpStream,
    readable: bool,
    writable: bool,
    /// Its end, or a mark in the stream, has been announced: a short read does not mean that nothing is left.
    read_to_the_end: bool,
}

impl Leg {
    /// A leg of which nothing is known: trying tells.
    pub(crate) fn unknown(stream: TcpStream) -> Self {
        Self { stream, readable: true, writable: true, read_to_the_end: false }
    }

    /// A leg that has been watched from its beginning: an event will tell when there is something to read.
    pub(crate) fn silent(stream: TcpStream) -> Self {
        Self { stream, readable: false, writable: true, read_to_the_end: false }
    }

    /// Something was read past the relay: whether there is more is not known.
    pub(crate) fn may_hold_more(&mut self) {
        self.readable = true;
    }

    pub(crate) fn learn(&mut self, event: Event) {
        self.readable |= event.readable();
        self.writable |= event.writable();
        self.read_to_the_end |= event.read_to_the_end();
    }
}

/// Which leg broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Source,
    Sink,
}

/// What a worker lends to whoever is moving bytes.
pub(crate) struct Tools<'k> {
    pub(crate) scratch: &'k mut [u8],
    pub(crate) pipes: &'k mut PipePool,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// Bytes that the sink has taken, of those that came from the source.
    pub(crate) moved: u64,
    /// What was read and not yet taken by the sink, copied way.
    leftover: Option<Leftover>,
    /// The same, spliced way. Never both at once.
    pipe: Option<Pipe>,
    /// Bytes a step moves, of late.
    pace: usize,
    splicing: bool,
    end: End,
}

#[derive(Debug)]
struct Leftover {
    bytes: Box<[u8]>,
    taken: usize,
    /// Bytes at the front that are ours, not the source's: a PROXY protocol header.
    own: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// The source has ended; what is left goes out first.
    Read,
    /// The sink has been told.
    Told,
}

/// At most this much in one turn; others wait.
const TURN: usize = 2 << 20;
/// Splicing starts when a direction has moved this much...
const SPLICE_AFTER: u64 = 128 << 10;
/// ...and steps are this large on average, and stops when they are not any more: for small exchanges a pipe costs more
/// than the copy that it saves.
const SPLICE_FROM: usize = 16 << 10;
const SPLICE_UNTIL: usize = 4 << 10;

impl Direction {
    /// A direction that begins with bytes of our own.
    pub(crate) fn beginning_with(bytes: Box<[u8]>) -> Self {
        let own = bytes.len();
        Self { leftover: Some(Leftover { bytes, taken: 0, own }), ..Self::default() }
    }

    /// Whether the end of the source has been passed on: nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.end == End::Told
    }

    /// Gives a pipe back, if there is one.
    pub(crate) fn release(self, pipes: &mut PipePool) {
        if let Some(pipe) = self.pipe {
            pipes.put_back(pipe);
        }
    }

    /// Moves what can be moved now. True: the turn is over but not the work; come back without waiting for an event.
    pub(crate) fn pump(
        &mut self,
        source: &mut Leg,
        sink: &mut Leg,
        tools: &mut Tools<'_>,
    ) -> Result<bool, Broken> {
        let until = self.moved + TURN as u64;
        while self.moved < until {
            if !self.flush(sink, tools.pipes)? {
                return Ok(false);
            }
            if self.end != End::Open {
                self.tell(sink)?;
                return Ok(false);
            }
            // Not reading what cannot be written is the back-pressure: the source's window closes.
            if !source.readable || !sink.writable {
                return Ok(false);
            }
            self.step(source, sink, tools)?;
        }
        Ok(true)
    }

    fn step(&mut self, source: &mut Leg, sink: &mut Leg, tools: &mut Tools<'_>) -> Result<(), Broken> {
        if self.splicing
            && let Some(pipe) = tools.pipes.lend()
        {
            return splice::step(self, pipe, source, sink, tools);
        }
        copy::step(self, source, sink, tools.scratch)
    }

    /// Gives the sink what is left from before. False: it does not take all.
    fn flush(&mut self, sink: &mut Leg, pipes: &mut PipePool) -> Result<bool, Broken> {
        if self.leftover.is_some() {
            return copy::flush(self, sink);
        }
        match self.pipe.take() {
            Some(pipe) => splice::flush(self, pipe, sink, pipes),
            None => Ok(true),
        }
    }

    fn tell(&mut self, sink: &Leg) -> Result<(), Broken> {
        if self.end == End::Read {
            sink.stream.shutdown(Shutdown::Write).map_err(|_| Broken::Sink)?;
            self.end = End::Told;
        }
        Ok(())
    }

    /// Learns from the size of a step which way suits.
    fn pace(&mut self, step: usize) {
        self.pace = self.pace - self.pace / 4 + step / 4;
        self.splicing = if self.splicing {
            self.pace >= SPLICE_UNTIL
        } else {
            self.moved >= SPLICE_AFTER && self.pace >= SPLICE_FROM
        };
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests;
