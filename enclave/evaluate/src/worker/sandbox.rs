//! What a child gives up before it sees untrusted bytes.

#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::WorkerLimits;

/// Address space. Memories of components are reserved as 4 GiB each, of which only touched pages count against RLIMIT_DATA, so this
/// is a bound against absurdity, not against use.
const ADDRESS_SPACE: u64 = 1 << 40;
const OPEN_FILES: u64 = 16;

/// Takes the socket from standard input, points the standard streams at nothing, and closes every other descriptor.
pub(super) fn take_channel() -> io::Result<File> {
    let channel = rustix::io::dup(rustix::stdio::stdin())?;
    // The pool starts children with standard error at /dev/null. Nothing printed may end up between frames.
    rustix::stdio::dup2_stdin(rustix::stdio::stderr())?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    close_all_but(&channel)?;
    Ok(File::from(channel))
}

fn close_all_but(channel: &OwnedFd) -> io::Result<()> {
    let keep = u32::try_from(channel.as_raw_fd()).map_err(io::Error::other)?;
    for (first, last) in [(3, keep.saturating_sub(1)), (keep + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: no owner of any of these descriptors exists in this process: it has just started, and the only descriptor it has
        // opened is `channel`, which lies outside the range.
        let closed = unsafe { libc::close_range(first, last, 0) };
        if closed != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the resource limits. Never to be raised again: hard limits are set too, and the process gains no privileges.
pub(super) fn limit(limits: &WorkerLimits) -> io::Result<()> {
    for (resource, value) in [
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::As, ADDRESS_SPACE),
        (Resource::Data, limits.memory_bytes),
        (Resource::Cpu, limits.cpu_seconds),
    ] {
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )?;
    }
    // When the machine runs out of memory the kernel should take a worker, never the appliance. Without /proc the order stays its own.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Installs the system-call filters on every thread. Call when all threads run.
pub(super) fn seal() -> io::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let program = |calls: &[i64],
                   matched: SeccompAction,
                   otherwise: SeccompAction|
     -> io::Result<BpfProgram> {
        let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
        SeccompFilter::new(rules, otherwise, matched, arch)
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)
    };
    // Libraries look at files on occasion (time zones, kernel settings) and cope with a refusal. The kernel obeys the stricter
    // of the two filters.
    let denied = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let refuse = program(DENIED, denied, SeccompAction::Allow)?;
    let permitted: Vec<i64> = ALLOWED.iter().chain(DENIED).copied().collect();
    let permit = program(&permitted, SeccompAction::Allow, SeccompAction::KillProcess)?;
    // In this order: the second installation needs the two calls that it then takes away.
    seccompiler::apply_filter_all_threads(&permit).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&refuse).map_err(io::Error::other)
}

/// What computing on one open socket needs.
const ALLOWED: &[i64] = &[
    // The channel.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    // Memory: allocator, linear memories, compiled code. memfd holds the initial images of linear memories.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    // Threads and signals that exist already.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    // Own state: hash seeds, CPU used, ids for abort().
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Answered with EACCES instead of death.
const DENIED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_getcwd,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_prlimit64,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
];
