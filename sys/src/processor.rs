//! Which processors a thread may run on. A thread begins with those of the thread that starts it, which is how they are
//! given here: a filter on system calls need not allow a running one to change them.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread, to which all calls below refer.
const SELF: Pid = Pid::from_raw(0);

/// The processors that the calling thread may run on.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count()).filter(|&processor| set.is_set(processor).unwrap_or(false)).collect())
}

/// Does `deed` (start a thread, say) with the calling thread bound to one processor.
pub fn bound_to<T>(processor: usize, deed: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = sched_getaffinity(SELF)?;
    let mut one = CpuSet::new();
    one.set(processor)?;
    sched_setaffinity(SELF, &one)?;
    let result = deed();
    sched_setaffinity(SELF, &before)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_keeps_what_it_began_with() {
        let all = allowed().unwrap();
        let last = *all.last().unwrap();
        let thread = bound_to(last, || Ok(thread::spawn(|| allowed().unwrap()))).unwrap();
        assert_eq!(thread.join().unwrap(), [last]);
        assert_eq!(allowed().unwrap(), all);
    }
}
