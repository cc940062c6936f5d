//! What a process may use, how it is scheduled, and as whom it runs: system calls that change the calling process alone.
//!
//! Those of the C library would not do: a process may run in memory that it shares with another ([`lend`]), and the
//! library's setuid(2) and its like change all threads that it finds there (nptl(7)).
//!
//! [`lend`]: super::process::Stack::lend

use super::process::checked;
use std::io;
use std::ptr;

/// No limit, as the kernel writes it.
pub const UNLIMITED: u64 = u64::MAX;

/// `struct rlimit64`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// Up to where the process may raise that itself.
    pub hard: u64,
}

/// The limit of a resource, by its number (prlimit(2)).
pub fn limit(resource: u32) -> io::Result<Limit> {
    let mut limit = Limit::default();
    // SAFETY: pid 0 is the calling process, nothing is read, and one `struct rlimit64` is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            ptr::null::<Limit>(),
            &raw mut limit,
        )
    };
    checked(result as i32).map(|_| limit)
}

/// Sets it.
///
/// # Errors
/// EPERM: the hard limit would rise, and there is no `CAP_SYS_RESOURCE`. EINVAL: no such resource, or soft above hard.
pub fn set_limit(resource: u32, limit: Limit) -> io::Result<()> {
    // SAFETY: pid 0 is the calling process, one `struct rlimit64` is read, nothing is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            ptr::null_mut::<Limit>(),
        )
    };
    checked(result as i32).map(drop)
}

/// The nice value of the calling thread, absolute (setpriority(2)).
///
/// # Errors
/// EACCES: it would fall, and there is neither `CAP_SYS_NICE` nor a limit (`RLIMIT_NICE`) that allows it.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: integers.
    let result = unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) };
    checked(result as i32).map(drop)
}

/// The I/O scheduling class and level of the calling thread as one number (ioprio_set(2)).
///
/// # Errors
/// EPERM: the real-time class without `CAP_SYS_ADMIN` or `CAP_SYS_NICE`. EINVAL: no such class or level.
pub fn set_ionice(class_and_level: u16) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            WHO_PROCESS,
            0,
            libc::c_int::from(class_and_level),
        )
    };
    checked(result as i32).map(drop)
}

// Where the plain calls take numbers of 16 bits, others take those of 32.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{
    SYS_setgroups as SYS_SETGROUPS, SYS_setresgid as SYS_SETRESGID, SYS_setresuid as SYS_SETRESUID,
};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SYS_SETGROUPS, SYS_setresgid32 as SYS_SETRESGID,
    SYS_setresuid32 as SYS_SETRESUID,
};

/// Becomes this user with these groups, for good: real, effective, saved and filesystem ids of the calling thread
/// (credentials(7)); a user other than root loses all capabilities by it (capabilities(7)). Whatever else runs in the
/// same memory keeps its own. The memory itself becomes unreadable and untraceable for the new user (`PR_SET_DUMPABLE`
/// in prctl(2)) until a program is executed.
///
/// # Errors
/// EPERM: not privileged. EAGAIN: the user has as many processes as it may. Some steps may have been done.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many groups as it is told there are.
    let result = unsafe { libc::syscall(SYS_SETGROUPS, groups.len(), groups.as_ptr()) };
    checked(result as i32)?;
    // SAFETY: integers.
    checked(unsafe { libc::syscall(SYS_SETRESGID, gid, gid, gid) } as i32)?;
    // SAFETY: integers.
    checked(unsafe { libc::syscall(SYS_SETRESUID, uid, uid, uid) } as i32)?;
    // The kernel has done this, unless fs.suid_dumpable says otherwise.
    // SAFETY: integers.
    checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// Does from now on as this user with these groups what asks for permission: the effective and filesystem ids of the
/// calling thread; the real and saved ones stay, see [`act_as_before`].
///
/// # Errors
/// EPERM: not privileged. Some steps may have been done.
pub fn act_as(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many groups as it is told there are.
    let result = unsafe { libc::syscall(SYS_SETGROUPS, groups.len(), groups.as_ptr()) };
    checked(result as i32)?;
    // SAFETY: integers; -1 leaves an id as it is.
    checked(unsafe { libc::syscall(SYS_SETRESGID, -1, gid, -1) } as i32)?;
    // SAFETY: as above.
    checked(unsafe { libc::syscall(SYS_SETRESUID, -1, uid, -1) } as i32).map(drop)
}

/// Undoes [`act_as`], but for the supplementary groups.
///
/// # Errors
/// EPERM: the real user is another.
pub fn act_as_before() -> io::Result<()> {
    // SAFETY: no arguments, and they cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    // SAFETY: integers; -1 leaves an id as it is.
    checked(unsafe { libc::syscall(SYS_SETRESUID, -1, uid, -1) } as i32)?;
    // SAFETY: as above.
    checked(unsafe { libc::syscall(SYS_SETRESGID, -1, gid, -1) } as i32).map(drop)
}
