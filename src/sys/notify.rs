//! inotify(7) by number. The `inotify` crate removes only watches that it added itself; here others add them.

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// inotify_rm_watch(2).
///
/// # Errors
/// EINVAL: `wd` is not, or no longer, a watch of `inotify`, or `inotify` is something else.
pub fn rm_watch(inotify: BorrowedFd, wd: i32) -> io::Result<()> {
    // SAFETY: two integers go in; the descriptor is open for as long as the borrow lasts.
    let result = unsafe { libc::inotify_rm_watch(inotify.as_raw_fd(), wd) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// FIONREAD (inotify(7)): how many bytes of events are queued.
///
/// # Errors
/// ENOTTY: `inotify` is something else.
pub fn queued(inotify: BorrowedFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, to one that lives until the call returns.
    let result = unsafe { libc::ioctl(inotify.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(result)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
