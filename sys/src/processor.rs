//! Which processors a thread may run on, and how it takes its turns there. A thread begins with both as the thread that
//! starts it has them, which is how processors are given here: a filter on system calls need not allow a running one to
//! change them.

use std::io;

use nix::errno::Errno;
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

/// Does `deed` (start a thread, say) with the calling thread waiting for its turn when it wakes up: what runs is not
/// preempted for it (SCHED_BATCH, sched(7)), its share of the processor is the same, and an idle one is its at once.
/// A system that does not let a thread choose gets the deed done all the same.
pub fn taking_turns<T>(deed: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let changed = schedule(libc::SCHED_BATCH).is_ok();
    let result = deed();
    if changed {
        schedule(libc::SCHED_OTHER)?;
    }
    result
}

fn schedule(policy: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel only reads the parameters, which live until the call returns.
    let result = unsafe { libc::sched_setscheduler(SELF.as_raw(), policy, &raw const parameters) };
    Errno::result(result)?;
    Ok(())
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

    #[test]
    fn a_thread_takes_turns_and_the_one_that_started_it_does_not() {
        let policy = || {
            // SAFETY: the call takes no pointer.
            unsafe { libc::sched_getscheduler(SELF.as_raw()) }
        };
        let thread = taking_turns(|| Ok(thread::spawn(policy))).unwrap();
        assert_eq!(thread.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
