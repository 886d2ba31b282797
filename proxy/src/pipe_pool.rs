//! Pipes for splice(2), lent for as long as bytes are in them. A direction that waits for its source holds none, so the
//! number of pipes follows the directions whose sink is slower than their source, and that number is bounded.

use netd_sys::splice::Pipe;

/// A worker's pipes. Only empty ones come back; what a broken connection left in one is thrown away with it.
#[derive(Debug)]
pub(crate) struct PipePool {
    idle: Vec<Pipe>,
    /// Bytes that new pipes may still promise to hold.
    budget: usize,
    /// After the kernel refused one, so many loans are denied without asking it again.
    denials: u32,
}

/// What the kernel lets anybody have (fs.pipe-max-size).
const LARGE: usize = 1 << 20;
const SMALL: usize = 1 << 18;
/// A pipe that moves less at a time than the copying way has no use.
const USELESS: usize = 1 << 16;

impl PipePool {
    /// A pool whose pipes hold up to `budget` bytes together: first large ones, then, when half of it is gone, small.
    pub(crate) fn new(budget: usize) -> Self {
        Self { idle: Vec::new(), budget, denials: 0 }
    }

    /// A pipe with nothing in it, while there is one to be had.
    pub(crate) fn lend(&mut self) -> Option<Pipe> {
        self.idle.pop().or_else(|| self.make())
    }

    fn make(&mut self) -> Option<Pipe> {
        let wanted = if self.budget >= LARGE * PREFER_SMALL_BELOW { LARGE } else { SMALL };
        if self.denials > 0 || self.budget < wanted {
            self.denials = self.denials.saturating_sub(1);
            return None;
        }
        match Pipe::new(wanted) {
            Ok(pipe) if pipe.capacity() > USELESS => {
                self.budget = self.budget.saturating_sub(pipe.capacity());
                Some(pipe)
            }
            Ok(_) | Err(_) => {
                self.denials = DENIALS;
                None
            }
        }
    }

    /// Takes a pipe back.
    pub(crate) fn put_back(&mut self, pipe: Pipe) {
        self.denials = 0;
        if pipe.held() == 0 {
            self.idle.push(pipe);
        } else {
            self.budget += pipe.capacity();
        }
    }
}

/// A loan is asked for at most once in a step of 64 KiB: the kernel is asked again after some megabytes were copied.
const DENIALS: u32 = 256;
/// Large pipes are made while room for this many is left.
const PREFER_SMALL_BELOW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_budget_bounds_the_pipes() {
        let mut pool = PipePool::new(10 << 20);
        let pipes: Vec<Pipe> = std::iter::from_fn(|| pool.lend()).collect();
        assert!(pipes.iter().map(Pipe::capacity).sum::<usize>() <= 10 << 20);
        assert!(!pipes.is_empty());
        pipes.into_iter().for_each(|pipe| pool.put_back(pipe));
        assert!(pool.lend().is_some());
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_not_lent_again() {
        let mut pool = PipePool::new(SMALL);
        let mut pipe = pool.lend().unwrap();
        assert!(pool.lend().is_none());
        let (mut source, end) = UnixStream::pair().unwrap();
        source.write_all(b"secret").unwrap();
        pipe.fill(&end, 6).unwrap();
        pool.put_back(pipe);
        assert_eq!(pool.lend().map(|pipe| pipe.held()), Some(0));
    }
}
