//! Removes hidden files whose deliveries are dead.

use crate::core::delivery::SweepOrder;
use crate::mover::name::{at, look, unlink};
use crate::mover::{Failure, place};
use crate::probe::{same_inode, stat_fd};
use crate::sys::file;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files removed.
    pub removed: u32,
    /// Files left, because somebody holds them, or because it cannot be known.
    pub left: u32,
}

/// Removes the hidden files of a journal's deliveries from the top of a directory, as far as they can be locked. A
/// directory that is not there holds none.
///
/// # Errors
/// The directory cannot be opened or read, or a file not removed.
pub fn sweep(order: &SweepOrder) -> Result<Swept, Failure> {
    let dir = match place::open_top(&order.dir) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return Ok(Swept::default()),
        Err(errno) => return Err(at("open target directory")(errno)),
    };
    let mut swept = Swept::default();
    for name in leftovers(dir.as_fd(), order)? {
        match remove(dir.as_fd(), &name)? {
            Some(true) => swept.removed += 1,
            Some(false) => swept.left += 1,
            None => {}
        }
    }
    Ok(swept)
}

fn leftovers(dir: BorrowedFd<'_>, order: &SweepOrder) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = at("read target directory");
    let own = dir.try_clone_to_owned().map_err(|error| Failure {
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        step: "keep directory",
    })?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own).map_err(&failed)?.iter() {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name().to_bytes();
        if order.is_leftover(name) {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Whether it was removed; `None`: somebody else did, or gave it its name.
fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<bool>, Failure> {
    let open = match open_for_lock(dir, name) {
        Ok(open) => open,
        Err(Errno::ENOENT) => return Ok(None),
        Err(_) => return Ok(Some(false)),
    };
    // Without locks nobody can say whether its delivery is alive. The next attempt of its job removes it.
    if file::flock(open.as_fd(), libc::LOCK_EX | libc::LOCK_NB).is_err() {
        return Ok(Some(false));
    }
    let own = stat_fd(open.as_fd()).map_err(at("stat leftover"))?;
    match look(dir, name)? {
        Some(there) if there.is_file() && same_inode(&there.raw, &own) => {}
        _ => return Ok(None),
    }
    match unlink(dir, name) {
        Ok(()) => Ok(Some(true)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(at("unlink leftover")(errno)),
    }
}

/// Opens a hidden file for flock(2): for writing if that is allowed, for NFS wants it for an exclusive lock.
pub(super) fn open_for_lock(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    let open = |access: OFlag| {
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(dir, name, flags, Mode::empty())
    };
    match open(OFlag::O_RDWR) {
        Err(Errno::EACCES | Errno::EROFS | Errno::EPERM) => open(OFlag::O_RDONLY),
        result => result,
    }
}
