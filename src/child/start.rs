//! The child's side of a start: from the order to execve(2).
//!
//! It runs in memory borrowed from its launcher ([`sys::process::Stack::lend`]), which is suspended meanwhile and used again
//! afterwards. So at the moment of execve nothing on this side may own memory: what is not dropped then, leaks there.
//!
//! [`sys::process::Stack::lend`]: crate::sys::process::Stack::lend

use super::setup;
use crate::core::ask::Place;
use crate::core::ids::RunId;
use crate::core::{NotStarted, StartStep};
use crate::plan::Identity;
use crate::probe;
use crate::spawner::wire::{Order, Report, strings};
use crate::sys::packet;
use crate::sys::process::{self, ExecLists, ExecRoom, Loan};
use nix::errno::Errno;
use nix::unistd::{Gid, Pid, Uid};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The descriptor under which a program finds its file.
const FILE_FD: i32 = 3;

/// The descriptor that is the lock on the slot of its attempt.
const SLOT_FD: i32 = 4;

/// The program that the launcher, and so the daemon, runs, whatever lies under its name now (proc_pid_exe(5)).
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// The exit status of a child that did not execute its program, as a shell gives it.
const EX_NOT_STARTED: i32 = 127;

/// What execvp(3) takes where there is no `PATH`.
const PATH_DEFAULT: &[u8] = b"/bin:/usr/bin";

/// Longest path that the kernel takes, its NUL included (limits.h, `PATH_MAX`).
const PATH_MAX: usize = 4096;

/// What every child starts from.
#[derive(Debug)]
pub(crate) struct Base {
    /// `NAME=value`.
    env: Vec<CString>,
    path: Vec<u8>,
}

impl Base {
    /// The calling process's environment.
    pub(crate) fn of_this_process() -> Base {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        Base {
            env: std::env::vars_os()
                .filter_map(|(name, value)| {
                    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
                })
                .collect(),
            path: std::env::var_os("PATH")
                .map_or_else(|| PATH_DEFAULT.to_vec(), OsStringExt::into_vec),
        }
    }
}

/// What a child's standard streams become.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Standard output and standard error, or a worker's standard error alone.
    pub(crate) output: OwnedFd,
    /// A worker's standard input and standard output.
    pub(crate) worker: Option<(OwnedFd, OwnedFd)>,
    /// Standard input of others, where it is not empty.
    pub(crate) stdin: Option<OwnedFd>,
    /// The lock on a slot; stays open for all descendants.
    pub(crate) slot: Option<OwnedFd>,
}

impl Streams {
    /// With an identity the pipes become its own, so that its programs can open `/dev/stdout`.
    fn put_in_place(&self, owner: Option<&Identity>) -> io::Result<()> {
        nix::unistd::dup2_stderr(&self.output)?;
        match &self.worker {
            None => nix::unistd::dup2_stdout(&self.output)?,
            Some((stdin, stdout)) => {
                nix::unistd::dup2_stdin(stdin)?;
                nix::unistd::dup2_stdout(stdout)?;
            }
        }
        if let Some(stdin) = &self.stdin {
            nix::unistd::dup2_stdin(stdin)?;
        }
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            let worker = self.worker.iter().flat_map(|(one, other)| [one, other]);
            for pipe in worker.chain([&self.output]) {
                nix::unistd::fchown(pipe, Some(uid), Some(gid))?;
            }
        }
        // Last, for its number may have been one of the others'.
        if let Some(slot) = &self.slot {
            process::put_at(slot.as_fd(), SLOT_FD)?;
        }
        Ok(())
    }
}

/// Turns the calling process into the one ordered. Tells its pid at once. Returns only if it comes to nothing, with an exit
/// status, after having told why.
/// `desk` must not be among the first five descriptors' numbers, and `streams` not be used once put in place.
pub(crate) fn start(
    order: Order<'_, Place>,
    streams: &Streams,
    desk: BorrowedFd<'_>,
    base: &Base,
    room: &mut ExecRoom,
    loan: &Loan,
) -> i32 {
    let run = order.run;
    loan.announce(run.0);
    // The group exists before the daemon hears of it, so that it can be signalled from then on.
    let own_group = nix::unistd::setpgid(Pid::this(), Pid::this());
    process::unblock_signals();
    if report(desk, &Report::Made(run, nix::unistd::getpid().as_raw())).is_err() {
        // The daemon is gone, and with it whoever could record how this ends.
        return EX_NOT_STARTED;
    }
    let program = match strings(order.argv).next() {
        Some(_) if order.own => OWN_PROGRAM,
        named => named.unwrap_or_default(),
    };
    let (why, file) = match own_group
        .map_err(|errno| (setup_failed(errno.into()), 0))
        .and_then(|_| get_ready(order, streams, base, room))
    {
        Ok(lists) => {
            let errno = search(program, &base.path, &lists, loan);
            (NotStarted::Failed(StartStep::Exec, errno), 0)
        }
        Err(why) => why,
    };
    // Without the daemon there is nobody to tell.
    let _daemon_gone = report(desk, &Report::NotStarted(run, why, file));
    EX_NOT_STARTED
}

/// Ends a child whose order cannot be read. The daemon does not know this child yet, and has to reap it.
pub(crate) fn refuse(run: RunId, why: NotStarted, desk: BorrowedFd<'_>) -> i32 {
    let pid = nix::unistd::getpid().as_raw();
    // If the daemon is gone, so is whoever could have wanted to know.
    let _daemon_gone = report(desk, &Report::Made(run, pid))
        .and_then(|()| report(desk, &Report::NotStarted(run, why, 0)));
    EX_NOT_STARTED
}

fn setup_failed(error: io::Error) -> NotStarted {
    NotStarted::Failed(StartStep::Setup, error.raw_os_error().unwrap_or(0))
}

/// Everything between the signals and execve. Owns nothing when it returns.
fn get_ready<'a>(
    order: Order<'a, Place>,
    streams: &Streams,
    base: &'a Base,
    room: &'a mut ExecRoom,
) -> Result<ExecLists<'a>, (NotStarted, u32)> {
    let failed = |error| (setup_failed(error), 0);
    streams
        .put_in_place(order.process.identity.as_ref())
        .and_then(|()| setup::first(&order.process))
        .map_err(failed)?;
    let cwd = strings(order.cwd).next().unwrap_or(c"/");
    nix::unistd::chdir(cwd).map_err(|errno| {
        let why = NotStarted::Failed(StartStep::Chdir, errno as i32);
        (why, 0)
    })?;

    let single = order.files.len() == 1;
    for (number, (place, expect, lease)) in order.files.iter().enumerate() {
        let file = probe::open_expected(place, expect, *lease)
            .map_err(|why| (why, u32::try_from(number).unwrap_or(u32::MAX)))?;
        if !single {
            continue;
        }
        // What had this number, one of `streams` perhaps, has been used for the last time.
        process::put_at(file.as_fd(), FILE_FD).map_err(failed)?;
        if std::os::fd::AsRawFd::as_raw_fd(&file) == FILE_FD {
            std::mem::forget(file);
        }
    }
    let file = single.then_some(FILE_FD);
    let slot = streams.slot.is_some().then_some(SLOT_FD);
    process::cloexec_others(FILE_FD, file.into_iter().chain(slot));
    process::default_sigio();

    let own: Vec<&CStr> = strings(order.env).collect();
    let inherited = base.env.iter().map(CString::as_c_str);
    let kept = inherited.filter(|entry| {
        let name = name_of(entry);
        !own.iter().any(|own| name_of(own) == name)
    });
    let lists = room.list(strings(order.argv), kept.chain(own.iter().copied()));
    setup::last(&order.process).map_err(failed)?;
    Ok(lists)
}

fn name_of(entry: &CStr) -> &[u8] {
    let bytes = entry.to_bytes();
    bytes.split(|&byte| byte == b'=').next().unwrap_or(bytes)
}

/// Executes `program`, looked for in `path` unless there is a slash in its name, as execvp(3) does, but hands nothing
/// to a shell. Returns the errno if there is none to execute.
fn search(program: &CStr, path: &[u8], lists: &ExecLists<'_>, loan: &Loan) -> i32 {
    let name = program.to_bytes();
    if name.is_empty() {
        return libc::ENOENT;
    }
    if name.contains(&b'/') {
        return lists.exec(program, loan);
    }
    let mut found = libc::ENOENT;
    let mut buffer = [0u8; PATH_MAX];
    for dir in path.split(|&byte| byte == b':') {
        let Some(candidate) = join(&mut buffer, dir, name) else {
            found = libc::ENAMETOOLONG;
            continue;
        };
        match lists.exec(candidate, loan) {
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            // Something of that name is there, but not for us: what lies further on is better, this better than nothing.
            libc::EACCES => found = libc::EACCES,
            errno => return errno,
        }
    }
    found
}

/// `dir/name`, or `name` where `dir` is empty, in `buffer`.
fn join<'a>(buffer: &'a mut [u8; PATH_MAX], dir: &[u8], name: &[u8]) -> Option<&'a CStr> {
    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    let mut at = 0;
    for part in [dir, slash, name, b"\0"] {
        buffer.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Sends a report, waiting if the daemon is behind with reading. The daemon never waits for a launcher, so it will read.
pub(crate) fn report(desk: BorrowedFd<'_>, report: &Report) -> io::Result<()> {
    let mut buffer = [0u8; 64];
    let bytes =
        postcard::to_slice(report, &mut buffer).map_err(|_| io::Error::from(Errno::EMSGSIZE))?;
    packet::send(desk, bytes, &[], true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates() {
        let mut buffer = [0u8; PATH_MAX];
        assert_eq!(join(&mut buffer, b"/bin", b"true"), Some(c"/bin/true"));
        assert_eq!(join(&mut buffer, b"", b"true"), Some(c"true"));
        assert_eq!(
            join(&mut buffer, &[b'd'; 4091], b"abc").map(|c| c.to_bytes().len()),
            Some(4095)
        );
        assert_eq!(join(&mut buffer, &[b'd'; 4092], b"abc"), None);
    }

    #[test]
    fn names() {
        assert_eq!(name_of(c"A=b=c"), b"A");
        assert_eq!(name_of(c"A"), b"A");
        assert_eq!(name_of(c""), b"");
    }
}
