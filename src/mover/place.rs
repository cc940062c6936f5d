//! Directories: opened by descriptor, made where they are missing, made durable.

use super::name::{Failure, at};
use crate::probe::{DIRECTORY, HOLD, below, open_below};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::fsync;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where a file goes.
pub(crate) struct Target {
    pub(crate) dir: OwnedFd,
    pub(crate) name: Vec<u8>,
}

/// Parent and name of a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (b"", path),
    }
}

/// The directory of a file that is to be disposed of.
pub(crate) fn open_parent(base: BorrowedFd<'_>, parent: &[u8]) -> nix::Result<OwnedFd> {
    readable(|flags| open_below(base, parent, flags, below()))
}

/// Opens for fsync(2), which wants a descriptor for reading; where the directory may be entered but not read, without
/// it, and then it cannot be synced.
fn readable(open: impl Fn(OFlag) -> nix::Result<OwnedFd>) -> nix::Result<OwnedFd> {
    match open(DIRECTORY) {
        Err(Errno::EACCES) => open(HOLD | OFlag::O_DIRECTORY),
        result => result,
    }
}

/// The administrator's own path may lead over symbolic links, everything below it may not.
pub(crate) fn open_top(dir: &[u8]) -> nix::Result<OwnedFd> {
    readable(|flags| {
        openat(
            AT_FDCWD,
            dir,
            flags.difference(OFlag::O_NOFOLLOW),
            Mode::empty(),
        )
    })
}

/// As for a watch, but other filesystems may be mounted below a target.
fn open_in_target(dir: BorrowedFd<'_>, rel: &[u8]) -> nix::Result<OwnedFd> {
    let resolve = below().difference(ResolveFlag::RESOLVE_NO_XDEV);
    readable(|flags| open_below(dir, rel, flags, resolve))
}

/// Opens the target's directory if it is there.
pub(crate) fn find_target(dir: &[u8], rel: &[u8]) -> Result<Option<Target>, Failure> {
    let (parent, name) = split(rel);
    let opened = open_top(dir).and_then(|top| open_in_target(top.as_fd(), parent));
    match opened {
        Ok(dir) => Ok(Some(Target {
            dir,
            name: name.to_vec(),
        })),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(at("open target directory")(errno)),
    }
}

/// Makes the names in a directory durable. Filesystems that cannot are taken at their word.
pub(crate) fn sync_dir(dir: BorrowedFd<'_>) -> Result<(), Failure> {
    match fsync(dir) {
        Ok(()) | Err(Errno::EINVAL | Errno::EROFS | Errno::EOPNOTSUPP | Errno::EBADF) => Ok(()),
        Err(errno) => Err(at("fsync directory")(errno)),
    }
}

/// Opens the target's directory, and makes it and what is missing above it. `step` is told before each is made.
pub(crate) fn open_target(
    step: &mut dyn FnMut(&'static str),
    dir: &[u8],
    rel: &[u8],
) -> Result<Target, Failure> {
    if let Some(target) = find_target(dir, rel)? {
        return Ok(target);
    }
    let top = open_or_make_top(step, dir)?;
    let (parent, name) = split(rel);
    Ok(Target {
        dir: open_or_make_below(step, top, parent)?,
        name: name.to_vec(),
    })
}

/// Opens an absolute directory, and makes it where it is missing, from its deepest ancestor that is there.
pub(crate) fn open_or_make_top(
    step: &mut dyn FnMut(&'static str),
    dir: &[u8],
) -> Result<OwnedFd, Failure> {
    let slashes = (0..dir.len()).rev().filter(|&i| dir.get(i) == Some(&b'/'));
    let cuts = [dir.len()]
        .into_iter()
        .chain(slashes.map(|slash| slash + 1));
    for cut in cuts {
        let (above, missing) = dir.split_at(cut);
        match open_top(above) {
            Ok(top) => return open_or_make_below(step, top, missing),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(at("open target directory")(errno)),
        }
    }
    Err(at("open target directory")(Errno::ENOENT))
}

/// The directory `rel` below `top`, made where it is missing.
pub(crate) fn open_or_make_below(
    step: &mut dyn FnMut(&'static str),
    top: OwnedFd,
    rel: &[u8],
) -> Result<OwnedFd, Failure> {
    let mut dir = top;
    for name in rel.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
        dir = match open_in_target(dir.as_fd(), name) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                step("make directory");
                match mkdirat(dir.as_fd(), name, Mode::from_bits_truncate(0o777)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(at("make target directory")(errno)),
                }
                // Else a power cut could take the directory, and with it what was moved there.
                sync_dir(dir.as_fd())?;
                open_in_target(dir.as_fd(), name).map_err(at("open target directory"))?
            }
            Err(errno) => return Err(at("open target directory")(errno)),
        };
    }
    Ok(dir)
}
