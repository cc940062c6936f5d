//! The file `lock`: who has the state directory, and which segment was the newest.

use super::error::JournalError;
use super::segment::fault;
use super::storage::Fault;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Where the daemon's process id stands while it runs.
const NAME: &str = "lock";

/// The copy that a daemon has just forked for a compaction has its lock until it has left it, or until the
/// kernel has ended it with the daemon. So long is waited for the lock of a daemon that is gone.
const LEAVING_TRIES: u32 = 100;
const LEAVING_WAIT: Duration = Duration::from_millis(10);

/// A state directory that nobody else has as long as this lives.
#[derive(Debug)]
pub(super) struct Lock(Flock<File>);

impl Lock {
    /// flock(2) on `lock` in the state directory. The descriptor is closed on exec; a forked child must close it, too.
    pub(super) fn take(dir: &Path) -> Result<Lock, JournalError> {
        let path = dir.join(NAME);
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| fault("open", &path, &error))?;
        for _ in 0..LEAVING_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let noted = number(&lock).map_err(|error| fault("read", &path, &error))?;
                    let lock = Lock(lock);
                    lock.note(dir, noted)?;
                    return Ok(lock);
                }
                Err((held, Errno::EWOULDBLOCK)) => {
                    file = held;
                    if !holder(&file).is_some_and(is_gone) {
                        break;
                    }
                    std::thread::sleep(LEAVING_WAIT);
                }
                Err((_, errno)) => return Err(fault("lock", &path, &errno.into()).into()),
            }
        }
        Err(JournalError::Held {
            path: dir.display().to_string(),
            pid: holder(&file),
        })
    }

    /// Notes the newest segment of which the name is durable. Not flushed: after a power cut an older number, or none,
    /// is as true.
    pub(super) fn note(&self, dir: &Path, number: u32) -> Result<(), Fault> {
        let mut file: &File = &self.0;
        let text = format!("{}\n{number:010}\n", std::process::id());
        let written = file
            .rewind()
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.set_len(text.len() as u64))
            .map_err(|error| fault("write", &dir.join(NAME), &error));
        match written {
            // The lock holds without the numbers; a full disk must not keep the daemon out.
            Err(fault) if fault.is_no_room() => Ok(()),
            other => other,
        }
    }

    /// Closes the descriptor without letting the lock go.
    pub(super) fn leave(self) {
        let number = self.0.as_raw_fd();
        // Dropped, it would unlock: flock(2) knows only the open file that both processes share.
        std::mem::forget(self.0);
        // That a descriptor known to be open cannot be closed would change nothing.
        let _closed = nix::unistd::close(number);
    }
}

/// What [`Lock::note`] has noted last in the state directory `dir`, which is at `path`.
pub(super) fn noted(path: &Path, dir: &OwnedFd) -> Result<Option<u32>, Fault> {
    let path = path.join(NAME);
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let number = match openat(dir, NAME, flags, Mode::empty()) {
        Ok(file) => number(&file.into()).map_err(|error| fault("read", &path, &error))?,
        // A copy without it; or a reader of the group, who may not lock it either.
        Err(Errno::ENOENT | Errno::EACCES) => 0,
        Err(errno) => return Err(fault("open", &path, &errno.into())),
    };
    Ok((number > 0).then_some(number))
}

/// The file's lines.
fn text(file: &File) -> io::Result<String> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned())
}

/// The process that says in the file that it has the lock.
fn holder(file: &File) -> Option<u32> {
    text(file).ok()?.lines().next()?.trim().parse().ok()
}

/// The newest segment that is known to have been there; 0 is none.
fn number(file: &File) -> io::Result<u32> {
    let text = text(file)?;
    let number = text.lines().nth(1).and_then(|line| line.parse().ok());
    Ok(number.unwrap_or(0))
}

fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).unwrap_or(0);
    // 0 and less are not processes; asking for those would ask for groups of them.
    pid > 0 && nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}
