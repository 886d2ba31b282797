//! The splicing way: the kernel moves references to pages from socket to pipe to socket. A pipe is borrowed for a step
//! and kept only while the sink has not taken all that is in it.

use std::io;

use netd_sys::splice::Pipe;

use super::{Broken, Direction, Leg, Tools, copy, would_block};
use crate::pipe_pool::PipePool;

pub(super) fn step(
    direction: &mut Direction,
    mut pipe: Pipe,
    source: &mut Leg,
    sink: &mut Leg,
    tools: &mut Tools<'_>,
) -> Result<(), Broken> {
    // The pipe is empty, so "would block" can only mean that the source is.
    match pipe.fill(&source.stream, pipe.capacity()) {
        Ok(0) => {
            tools.pipes.put_back(pipe);
            // The end, or urgent data, which splice cannot pass: a read tells them apart and gets past the latter.
            copy::step(direction, source, sink, tools.scratch)
        }
        Ok(filled) => {
            direction.pace(filled);
            flush(direction, pipe, sink, tools.pipes).map(|_| ())
        }
        Err(error) => {
            tools.pipes.put_back(pipe);
            match error.kind() {
                io::ErrorKind::WouldBlock => source.readable = false,
                io::ErrorKind::Interrupted => {}
                _ => return Err(Broken::Source),
            }
            Ok(())
        }
    }
}

/// Gives the sink what is in the pipe. False: it does not take all, and the direction keeps the pipe.
pub(super) fn flush(
    direction: &mut Direction,
    mut pipe: Pipe,
    sink: &mut Leg,
    pipes: &mut PipePool,
) -> Result<bool, Broken> {
    while pipe.held() > 0 && sink.writable {
        match pipe.drain(&sink.stream) {
            Ok(taken) => direction.moved += taken as u64,
            Err(error) if would_block(&error) => sink.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                pipes.put_back(pipe);
                return Err(Broken::Sink);
            }
        }
    }
    if pipe.held() > 0 {
        direction.pipe = Some(pipe);
        return Ok(false);
    }
    pipes.put_back(pipe);
    Ok(true)
}
