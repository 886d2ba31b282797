//! The copying way: one read into the worker's scratch buffer, one write. Only what the sink would not take is kept, in
//! an allocation of exactly that size; it is gone when the sink has taken it.

use std::io::{self, Read, Write};

use netd_sys::socket;

use super::{Broken, Direction, End, Leftover, Leg, would_block};

pub(super) fn step(
    direction: &mut Direction,
    source: &mut Leg,
    sink: &mut Leg,
    scratch: &mut [u8],
) -> Result<(), Broken> {
    let mut filled = match take(source, scratch)? {
        Taken::Bytes(filled) => filled,
        Taken::End => {
            direction.end = End::Read;
            return Ok(());
        }
        Taken::Nothing => return Ok(()),
    };
    let mut outcome = Ok(());
    if filled < scratch.len() {
        if source.read_to_the_end {
            // The end that was announced, found before these bytes go out, leaves with them in one segment.
            match take(source, &mut scratch[filled..]) {
                Ok(Taken::Bytes(more)) => filled += more,
                Ok(Taken::End) => direction.end = End::Read,
                Ok(Taken::Nothing) => {}
                // What came before it is still delivered.
                Err(broken) => outcome = Err(broken),
            }
        } else {
            // The socket is empty: what comes later is a new event. Saves a read that would find nothing.
            source.readable = false;
        }
    }
    let taken = match direction.end {
        End::Open => offer(sink, &scratch[..filled])?,
        End::Read | End::Told => offer_last(sink, &scratch[..filled])?,
    };
    direction.moved += taken as u64;
    direction.pace(filled);
    if taken < filled {
        let bytes = Box::from(&scratch[taken..filled]);
        direction.leftover = Some(Leftover { bytes, taken: 0, own: 0 });
    }
    outcome
}

enum Taken {
    Bytes(usize),
    End,
    /// None for now, or interrupted.
    Nothing,
}

/// Reads once.
fn take(source: &mut Leg, room: &mut [u8]) -> Result<Taken, Broken> {
    match (&source.stream).read(room) {
        Ok(0) => Ok(Taken::End),
        Ok(filled) => Ok(Taken::Bytes(filled)),
        Err(error) if would_block(&error) => {
            source.readable = false;
            Ok(Taken::Nothing)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Taken::Nothing),
        Err(_) => Err(Broken::Source),
    }
}

/// Gives the sink the leftover. False: it does not take all of it.
pub(super) fn flush(direction: &mut Direction, sink: &mut Leg) -> Result<bool, Broken> {
    while let Some(left) = &mut direction.leftover {
        if !sink.writable {
            return Ok(false);
        }
        let taken = offer(sink, &left.bytes[left.taken..])?;
        left.taken += taken;
        let own = taken.min(left.own);
        left.own -= own;
        direction.moved += (taken - own) as u64;
        if left.taken == left.bytes.len() {
            direction.leftover = None;
        }
    }
    Ok(true)
}

/// Writes once; how much the sink took.
fn offer(sink: &mut Leg, bytes: &[u8]) -> Result<usize, Broken> {
    let written = (&sink.stream).write(bytes);
    given(sink, written)
}

/// The same with bytes that the end follows.
fn offer_last(sink: &mut Leg, bytes: &[u8]) -> Result<usize, Broken> {
    let written = socket::send_before_end(&sink.stream, bytes);
    given(sink, written)
}

fn given(sink: &mut Leg, written: io::Result<usize>) -> Result<usize, Broken> {
    match written {
        Ok(taken) => Ok(taken),
        Err(error) if would_block(&error) => {
            sink.writable = false;
            Ok(0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(_) => Err(Broken::Sink),
    }
}
