//! The copying way: one read into the worker's scratch buffer, one write. Only what the sink would not take is kept, in
//! an allocation of exactly that size; it is gone when the sink has taken it.

use std::io::{self, Read, Write};

use super::{Broken, Direction, End, Leftover, Leg, would_block};

pub(super) fn step(
    direction: &mut Direction,
    source: &mut Leg,
    sink: &mut Leg,
    scratch: &mut [u8],
) -> Result<(), Broken> {
    let filled = match (&source.stream).read(scratch) {
        Ok(0) => {
            direction.end = End::Read;
            return Ok(());
        }
        Ok(filled) => filled,
        Err(error) if would_block(&error) => {
            source.readable = false;
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(_) => return Err(Broken::Source),
    };
    if filled < scratch.len() && !source.read_to_the_end {
        // The socket is empty: what comes later is a new event. Saves a read that would find nothing.
        source.readable = false;
    }
    let taken = offer(sink, &scratch[..filled])?;
    direction.moved += taken as u64;
    direction.pace(filled);
    if taken < filled {
        let bytes = Box::from(&scratch[taken..filled]);
        direction.leftover = Some(Leftover { bytes, taken: 0, own: 0 });
    }
    Ok(())
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
    match (&sink.stream).write(bytes) {
        Ok(taken) => Ok(taken),
        Err(error) if would_block(&error) => {
            sink.writable = false;
            Ok(0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(_) => Err(Broken::Sink),
    }
}
