//! Names: what one means, how one that must not exist yet is given, how one is taken away.

use crate::core::ask::Version;
use crate::probe::{self, HOLD, add_generation, below, open_below, reopen, stat_fd, stat_of};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Numbered names that are tried before it is said that there is none.
pub(crate) const NUMBERS_MAX: u32 = 10_000;

/// How names that must not exist yet are given. Each way is tried when the filesystem does not know the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// `renameat2` with `RENAME_NOREPLACE`.
    #[default]
    NoReplace,
    /// `linkat`, then `unlinkat`: NFS.
    Link,
    /// An empty file made with `O_EXCL` reserves the name, and is renamed over: no links either.
    Placeholder,
}

/// A system call that failed, and the step it belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub errno: Errno,
    /// What was being done.
    pub step: &'static str,
}

pub(crate) fn at(step: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { errno, step }
}

/// A file held by a descriptor.
pub(crate) struct Found {
    /// An `O_PATH` descriptor.
    pub(crate) file: OwnedFd,
    pub(crate) raw: libc::statx,
}

impl Found {
    pub(crate) fn is_file(&self) -> bool {
        u32::from(self.raw.stx_mode) & libc::S_IFMT == libc::S_IFREG
    }

    pub(crate) fn is_dir(&self) -> bool {
        u32::from(self.raw.stx_mode) & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is the version expected, as it is now.
    pub(crate) fn is(&mut self, expect: &Version) -> Result<bool, Failure> {
        self.raw = stat_fd(self.file.as_fd()).map_err(at("stat"))?;
        let mut version = stat_of(&self.raw).version;
        if !self.is_file() || !probe::same_version(expect, &version) {
            return Ok(false);
        }
        if expect.generation != 0
            && version.btime_ns == 0
            && let Ok(open) = reopen(self.file.as_fd())
        {
            add_generation(&mut version, open.as_fd());
        }
        Ok(probe::same_version(expect, &version))
    }

    /// An empty file that nobody may read, ours: what a [`Rung::Placeholder`] leaves when it is cut short.
    pub(crate) fn is_placeholder(&self) -> bool {
        let mode = u32::from(self.raw.stx_mode);
        self.is_file()
            && self.raw.stx_size == 0
            && mode & 0o7777 == 0
            && self.raw.stx_uid == nix::unistd::geteuid().as_raw()
    }
}

/// What a name is now.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Found>, Failure> {
    find(dir, name).map_err(at("look"))
}

fn find(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<Option<Found>> {
    match open_below(dir, name, HOLD, below()) {
        Ok(file) => {
            let raw = stat_fd(file.as_fd())?;
            Ok(Some(Found { file, raw }))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_placeholder(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<bool> {
    Ok(find(dir, name)?.is_some_and(|found| found.is_placeholder()))
}

fn is_one_file(from: (BorrowedFd<'_>, &[u8]), to: (BorrowedFd<'_>, &[u8])) -> nix::Result<bool> {
    let (one, other) = (find(from.0, from.1)?, find(to.0, to.1)?);
    Ok(one
        .zip(other)
        .is_some_and(|(one, other)| probe::same_inode(&one.raw, &other.raw)))
}

/// Renames, from a name in a directory to one that must not exist, from this rung of the ladder on. `step` is told
/// before the changes that follow the first.
///
/// # Errors
/// EEXIST: it does exist, and is another file. EXDEV: it would be on another filesystem.
pub(crate) fn rename_new(
    rung: Rung,
    step: &mut dyn FnMut(&'static str),
    (from_dir, from): (BorrowedFd<'_>, &[u8]),
    (to_dir, to): (BorrowedFd<'_>, &[u8]),
) -> nix::Result<()> {
    if rung == Rung::NoReplace {
        match renameat2(from_dir, from, to_dir, to, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
            result => return result,
        }
    }
    if rung <= Rung::Link {
        match linkat(from_dir, from, to_dir, to, AtFlags::empty()) {
            Ok(()) => {
                step("unlink after link");
                return unlink(from_dir, from);
            }
            // After a retransmission the answer is about the link that was just made.
            Err(Errno::EEXIST) if is_one_file((from_dir, from), (to_dir, to))? => {
                step("unlink after link");
                return unlink(from_dir, from);
            }
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {}
            result => return result,
        }
    }
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(to_dir, to, flags, Mode::empty()) {
        Ok(_reserved) => {}
        Err(Errno::EEXIST) if is_placeholder(to_dir, to)? => {}
        Err(errno) => return Err(errno),
    }
    step("rename over placeholder");
    let result = renameat(from_dir, from, to_dir, to);
    if result.is_err() && is_placeholder(to_dir, to)? {
        unlink(to_dir, to)?;
    }
    result
}

pub(crate) fn unlink(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)
}
