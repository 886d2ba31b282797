//! The filter on system calls for a process that only serves sockets it was given.
//!
//! Two lists. What is on neither fails with EPERM, so that a library that tries something optional goes on without it.
//! What only an attacker would call kills the process at once.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as ArgumentLength, SeccompCmpOp as Comparison,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::KernelError;

/// Restricts every thread of this process, now and for good.
pub fn restrict_system_calls() -> Result<(), KernelError> {
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    // The kernel runs both and takes the stricter verdict: kill before error before allow.
    install(ALLOWED, refuse, SeccompAction::Allow)?;
    install(DEADLY, SeccompAction::Allow, SeccompAction::KillProcess)
}

fn install(calls: &[c_long], others: SeccompAction, these: SeccompAction) -> Result<(), KernelError> {
    let program = compile(calls, others, these).map_err(failed)?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed(error.to_string()))
}

fn compile(calls: &[c_long], others: SeccompAction, these: SeccompAction) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.iter().map(|call| (*call, Vec::new())).collect();
    if let Some(rules) = rules.get_mut(&libc::SYS_socket) {
        *rules = plain_sockets().map_err(|error| error.to_string())?;
    }
    let filter = SeccompFilter::new(rules, others, these, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: BackendError| error.to_string())
}

/// Streams and datagrams of IP and between processes: nothing raw.
fn plain_sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            let is = |argument, how, value: i32| {
                SeccompCondition::new(argument, ArgumentLength::Dword, how, u64::from(value.unsigned_abs()))
            };
            // The bits above are flags.
            rules.push(SeccompRule::new(vec![
                is(0, Comparison::Eq, family)?,
                is(1, Comparison::MaskedEq(KIND), kind)?,
            ])?);
        }
    }
    Ok(rules)
}

/// SOCK_TYPE_MASK
const KIND: u64 = 0xf;

fn failed(cause: String) -> KernelError {
    KernelError::new("restrict the system calls of", "this process", std::io::Error::other(cause))
}

/// What the DNS server, the relays, the link, the allocator, threads and the clock need.
const ALLOWED: &[c_long] = &[
    // Bytes in and out.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_pipe2,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_ioctl,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    // Threads and signals.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Clock and counters.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_uname,
    // The second filter, and no third one: it is on the other list too.
    libc::SYS_seccomp,
    // What only some architectures have.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// Other programs, other processes, other namespaces, the kernel itself.
const DEADLY: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kill,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_seccomp,
];
