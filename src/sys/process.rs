//! Making, signalling and reaping processes, and what they are given: descriptors, signals, memory.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Exit status of a process that ended itself because a child sharing its memory was killed in the
/// middle of using it (see [`Stack::lend`]).
pub const TORN: i32 = 113;

/// The same, of a child that had not called [`Loan::announce`].
pub const LOST: i32 = 112;

/// What a call that returns in two processes says in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the old process: the pid of the new one.
    Parent(i32),
    /// In the new process.
    Child,
}

pub(super) fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The errno of the last failed call of this thread.
fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// fork(2). The process must have one thread only, or the child may do no more than call functions that are
/// safe in a signal handler (signal-safety(7)); glibc makes its allocator usable in either case.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: fork has no precondition; both sides go on with their own copy of memory.
    match checked(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// A copy of the calling process, as fork(2) makes it, but as a sibling: its parent is the caller's parent, which
/// alone can wait for it (clone(2), `CLONE_PARENT`). The caller must have one thread only.
///
/// By clone and not by clone3, whose arguments no filter can see: systemd takes that from services with
/// `RestrictNamespaces=` (systemd.exec(5)).
///
/// # Errors
/// `EAGAIN` and `ENOMEM`: no room for another process. `EINVAL` in the first process of a pid namespace.
pub fn fork_sibling() -> io::Result<Fork> {
    // With CLONE_PARENT the signal at its end is the one that the caller itself ends with.
    let flags = c_long::from(libc::CLONE_PARENT);
    let none: c_long = 0;
    // SAFETY: with no stack of its own, and without CLONE_VM, the child goes on with its own copy of all memory, so that
    // returning twice on one stack is what fork does. The other arguments belong to flags that are not set.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match pid {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid as i32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process without running anything else.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(status) }
}

/// What a child made by [`Stack::lend`] gives its borrowed memory back with: by executing a program, or by ending.
#[derive(Debug)]
pub struct Loan {
    given_back: AtomicBool,
    announced: AtomicBool,
    number: AtomicU64,
}

impl Loan {
    /// From here on the child does work that has this number: if it is killed, somebody is told which.
    pub fn announce(&self, number: u64) {
        self.number.store(number, Ordering::SeqCst);
        self.announced.store(true, Ordering::SeqCst);
    }
}

/// Memory for the stack of a child that shares its maker's memory, with a page below it that cannot be touched.
#[derive(Debug)]
pub struct Stack {
    base: *mut c_void,
    size: usize,
}

impl Stack {
    /// Reserves `size` bytes (a multiple of the page size); only pages that are touched count.
    pub fn new(size: usize) -> io::Result<Stack> {
        // SAFETY: a new private mapping, nobody else's addresses are replaced.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { base, size };
        // SAFETY: the lowest page of the mapping just made, which nothing uses yet.
        checked(unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// Makes a sibling (see [`fork_sibling`]) that runs `child` in the caller's own memory, as vfork(2) does, while
    /// the caller is suspended until the child has executed a program or ended; what `child` returns is its exit
    /// status. Saves the copy of the page tables, and is therefore the cheapest way to a new program. Returns the
    /// child's pid.
    ///
    /// What the child writes to memory stays written; what it does not drop before it executes a program stays
    /// allocated. Descriptors, signal mask, dispositions, directory and session are its own. The caller must have one
    /// thread only.
    ///
    /// A child that is killed half-way, or panics, may leave memory half-changed, the allocator's included. Then this
    /// does not return but ends the calling process: with status [`LOST`] if the child had not been announced, else,
    /// after having called `torn` with its number and pid, with status [`TORN`]. `torn` must not allocate.
    pub fn lend(
        &mut self,
        child: &mut dyn FnMut(&Loan) -> i32,
        torn: &dyn Fn(u64, i32),
    ) -> io::Result<i32> {
        struct Start<'a> {
            child: &'a mut dyn FnMut(&Loan) -> i32,
            loan: Loan,
        }
        extern "C" fn begin(start: *mut c_void) -> c_int {
            // SAFETY: `start` is the caller's `Start`, which stays where it is while the caller is suspended, and
            // which the caller does not touch meanwhile except through the atomic afterwards.
            let start = unsafe { &mut *start.cast::<Start<'_>>() };
            let status = (start.child)(&start.loan);
            start.loan.given_back.store(true, Ordering::SeqCst);
            status
        }
        let mut start = Start {
            child,
            loan: Loan {
                given_back: AtomicBool::new(false),
                announced: AtomicBool::new(false),
                number: AtomicU64::new(0),
            },
        };
        // SAFETY: the end of the mapping is one past its last byte and 16-byte aligned. `begin` and `start` outlive
        // the child's use of them, because CLONE_VFORK suspends this thread, the only one, until then. `begin` does
        // not unwind (`extern "C"` aborts).
        let pid = unsafe {
            libc::clone(
                begin,
                self.base.cast::<u8>().add(self.size).cast::<c_void>(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT,
                (&raw mut start).cast(),
            )
        };
        let pid = checked(pid)?;
        if start.loan.given_back.load(Ordering::SeqCst) {
            return Ok(pid);
        }
        if start.loan.announced.load(Ordering::SeqCst) {
            torn(start.loan.number.load(Ordering::SeqCst), pid);
            exit_now(TORN);
        }
        exit_now(LOST)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no child runs on it while nobody is inside `lend`.
        unsafe { libc::munmap(self.base, self.size) };
    }
}

/// Room for the two pointer lists of execve(2), used again for every program.
#[derive(Debug, Default)]
pub struct ExecRoom {
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

/// Arguments and environment, ready for execve(2).
#[derive(Debug)]
pub struct ExecLists<'a> {
    argv: *const *const c_char,
    envp: *const *const c_char,
    strings: PhantomData<&'a CStr>,
}

impl ExecRoom {
    /// Lists the strings in the kernel's form.
    pub fn list<'a>(
        &'a mut self,
        argv: impl Iterator<Item = &'a CStr>,
        env: impl Iterator<Item = &'a CStr>,
    ) -> ExecLists<'a> {
        for (list, strings) in [
            (&mut self.argv, &mut { argv }
                as &mut dyn Iterator<Item = &'a CStr>),
            (&mut self.envp, &mut { env }),
        ] {
            list.clear();
            list.extend(strings.map(CStr::as_ptr));
            list.push(ptr::null());
        }
        ExecLists {
            argv: self.argv.as_ptr(),
            envp: self.envp.as_ptr(),
            strings: PhantomData,
        }
    }
}

impl ExecLists<'_> {
    /// execve(2). Returns only if that failed, with its errno.
    pub fn exec(&self, program: &CStr, loan: &Loan) -> i32 {
        // From here on the kernel alone works, until the memory has been given back or the call has failed.
        loan.given_back.store(true, Ordering::SeqCst);
        // SAFETY: `program` and every listed string end in NUL and, like the lists, which end in null, live as long
        // as `self`.
        unsafe { libc::execve(program.as_ptr(), self.argv, self.envp) };
        let errno = errno();
        loan.given_back.store(false, Ordering::SeqCst);
        errno
    }
}

/// Blocks every signal that can be blocked, for the calling thread and what it makes.
pub fn block_signals() {
    set_mask(true);
}

/// Empties the signal mask; what was pending is delivered at once.
pub fn unblock_signals() {
    set_mask(false);
}

fn set_mask(full: bool) {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset and sigemptyset initialise the set; sigprocmask reads it. None can fail with these arguments.
    unsafe {
        if full {
            libc::sigfillset(set.as_mut_ptr());
        } else {
            libc::sigemptyset(set.as_mut_ptr());
        }
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Gives every signal its default action (signal(7)), those that the C library keeps for itself included: whoever
/// started this process may have left them ignored.
pub fn default_signals() {
    // All zero is the default action, no flags and an empty mask, whatever the order of the kernel's fields.
    let action = [0u64; 8];
    for signal in 1..=64 {
        // SAFETY: the kernel reads its `struct sigaction`, which is smaller than this one, and writes nothing. There
        // is no handler that could run later. SIGKILL and SIGSTOP are refused, which changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                ptr::null_mut::<c_void>(),
                8,
            )
        };
    }
}

/// Ignores SIGIO, which a broken lease sends (fcntl(2), `F_SETLEASE`) and which would end the process.
pub fn ignore_sigio() {
    // SAFETY: SIG_IGN is no function.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}

/// Undoes [`ignore_sigio`].
pub fn default_sigio() {
    // SAFETY: SIG_DFL is no function.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_DFL) };
}

/// Closes every descriptor from `first` on that is not in `keep`, which must be sorted (close_range(2)).
pub fn close_others(first: RawFd, keep: &[RawFd]) {
    between(first, keep.iter().copied(), 0);
}

/// Marks every descriptor from `first` on that is not in `keep`, which must be sorted, to be closed by execve(2).
pub fn cloexec_others(first: RawFd, keep: impl Iterator<Item = RawFd>) {
    between(first, keep, libc::CLOSE_RANGE_CLOEXEC as c_int);
}

fn between(first: RawFd, keep: impl Iterator<Item = RawFd>, flags: c_int) {
    let mut from = first;
    for kept in keep {
        if kept > from {
            close_between(from, kept - 1, flags);
        }
        from = from.max(kept + 1);
    }
    close_between(from, RawFd::MAX, flags);
}

fn close_between(first: RawFd, last: RawFd, flags: c_int) {
    // SAFETY: closing is what the caller asked for: it runs in a process that has just been copied and in which
    // nothing that owns those descriptors is used again. Fails only for first > last, which no caller passes.
    unsafe { libc::close_range(first as u32, last as u32, flags) };
}

/// A copy of the descriptor with the lowest free number from `least` on, closed by execve.
pub fn dup_from(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an int.
    let copy = checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes `fd` descriptor number `number`, left open by execve. What had that number is closed; the caller
/// vouches that nothing else in this process uses it any more.
pub fn put_at(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: F_SETFD takes an int; dup2 onto itself would leave the flag set.
        checked(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
    } else {
        // SAFETY: both are plain numbers to the kernel; the caller vouches for the target.
        checked(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    }
    Ok(())
}

/// Bytes that can be read from a pipe without waiting (`FIONREAD`).
pub fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: FIONREAD writes one int.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// A descriptor that stands for the process and becomes readable when it has ended (pidfd_open(2)). Free of races
/// as long as nobody but the caller reaps `pid`.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers in, a descriptor or an error out.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = checked(fd as c_int)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// How a child ended, `None` while it runs (waitid(2), `P_PIDFD`, `WNOHANG`). It is reaped if so wanted; until then its pid
/// belongs to nobody else.
pub fn ended(pidfd: BorrowedFd<'_>, reap: bool) -> io::Result<Option<Exit>> {
    let keep = if reap { 0 } else { libc::WNOWAIT };
    // SAFETY: all zero is a valid siginfo, and says "no child" if waitid leaves it so.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: waitid writes one siginfo.
    checked(unsafe {
        libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd() as libc::id_t,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | keep,
        )
    })?;
    // SAFETY: for a child's change of state, and for the zeroes, pid and status are the fields in use.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Exit::Status(status)),
        _ => Some(Exit::Signal(status)),
    })
}

/// Sends a signal to a process group (kill(2) with the negated number). The caller vouches that the number has not
/// been given to others: the group's leader is its child and has not been reaped.
pub fn signal_group(leader: i32, signal: i32) -> io::Result<()> {
    if leader <= 1 {
        // -1 is everybody, 0 is oneself.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: two integers.
    checked(unsafe { libc::kill(-leader, signal) }).map(drop)
}

/// Sends a signal to the process that `pidfd` stands for (pidfd_send_signal(2)).
pub fn signal_process(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: integers, and a null siginfo, which means what kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked(result as c_int).map(drop)
}

/// The name that ps(1) shows for this process (`PR_SET_NAME`); cut after 15 bytes.
pub fn set_name(name: &CStr) {
    // SAFETY: the kernel reads at most 16 bytes up to the NUL. Cannot fail.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Gives memory that the allocator holds but nobody uses back to the kernel.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Counters in memory that a process and its copies share.
#[derive(Debug, Default)]
pub struct Shared {
    /// How many stand ready.
    pub idle: AtomicU32,
    /// How many orders were taken, wrapping.
    pub taken: AtomicU32,
    /// Somebody has been told that nobody stands ready.
    pub told: AtomicBool,
}

/// Makes such counters, all zero. They stay for the life of the processes.
pub fn shared() -> io::Result<&'static Shared> {
    // SAFETY: a new shared mapping; nobody else's addresses are replaced.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, zeroed, which is a valid `Shared`, and never unmapped. All of it is atomic.
    Ok(unsafe { &*page.cast::<Shared>() })
}

/// An event counter: readable after [`ring`] until [`hush`] (eventfd(2)).
pub fn bell() -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a bell readable.
pub fn ring(bell: BorrowedFd<'_>) {
    let one: u64 = 1;
    // SAFETY: eight bytes are read. A full counter (EAGAIN) is readable already.
    unsafe { libc::write(bell.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Makes a bell unreadable again.
pub fn hush(bell: BorrowedFd<'_>) {
    let mut count: u64 = 0;
    // SAFETY: eight bytes are written. An empty counter (EAGAIN) is what is wanted.
    unsafe { libc::read(bell.as_raw_fd(), (&raw mut count).cast(), 8) };
}
