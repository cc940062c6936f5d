//! What the kernel can be asked of a file beyond what `nix` wraps.

use nix::errno::Errno;
use std::ffi::{CStr, c_int, c_long, c_uint};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// statx(2) of `name` below `dir`; an empty name with `AT_EMPTY_PATH` in `flags` is `dir` itself.
///
/// # Errors
/// Those of statx(2).
pub fn statx(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: c_int,
    mask: c_uint,
) -> nix::Result<libc::statx> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends in NUL and `stat` has room for the answer; both outlive the call.
    let result = unsafe {
        libc::statx(
            dir.as_raw_fd(),
            name.as_ptr(),
            flags,
            mask,
            stat.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    // SAFETY: every bit pattern is a valid `libc::statx`, and all of it was zeroed before the kernel wrote.
    Ok(unsafe { stat.assume_init() })
}

/// The inode's generation, `FS_IOC_GETVERSION` (ioctl_fs(2)).
///
/// # Errors
/// ENOTTY and EOPNOTSUPP where the filesystem has none; EBADF on an `O_PATH` descriptor.
pub fn generation(file: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut generation: c_long = 0;
    // SAFETY: the request is declared with a long and filesystems write an int or a long into it; a long has
    // room for both and outlives the call.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETVERSION,
            &raw mut generation,
        )
    };
    Errno::result(result)?;
    // An int is written to the first four bytes, whatever the byte order.
    let [a, b, c, d, ..] = generation.to_ne_bytes();
    let low = u32::from_ne_bytes([a, b, c, d]);
    Ok(if low == 0 { generation as u32 } else { low })
}

/// Takes (`true`) or gives back a read lease: `F_SETLEASE` with `F_RDLCK` or `F_UNLCK` (fcntl(2)).
///
/// # Errors
/// EAGAIN: the file is open for writing, or mapped so. EACCES: not the owner and no `CAP_LEASE`. EINVAL, ENOLCK and
/// others: there are no leases here.
pub fn read_lease(file: BorrowedFd<'_>, take: bool) -> nix::Result<()> {
    let kind = if take { libc::F_RDLCK } else { libc::F_UNLCK };
    // SAFETY: F_SETLEASE takes an int.
    let result =
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, c_int::from(kind as i16)) };
    Errno::result(result).map(drop)
}

/// flock(2) with these `LOCK_*` bits.
///
/// # Errors
/// EWOULDBLOCK with `LOCK_NB`: somebody holds a lock that conflicts.
pub fn flock(file: BorrowedFd<'_>, operation: c_int) -> nix::Result<()> {
    // SAFETY: flock takes two ints.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation) };
    Errno::result(result).map(drop)
}

/// getdents64(2): the number of bytes of `buffer` that hold records now; 0 at the end.
///
/// # Errors
/// ENOENT: the directory was removed. EINVAL: `buffer` is too small for one record.
pub fn getdents(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    Errno::result(result).map(|bytes| bytes as usize)
}

/// copy_file_range(2): at most `bytes` from `offset` of the one to the same offset of the other; how many were copied.
///
/// # Errors
/// EXDEV, EINVAL, EOPNOTSUPP, ENOSYS: not between these two filesystems.
pub fn copy_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    bytes: u64,
) -> nix::Result<u64> {
    let mut from_offset = offset.cast_signed();
    let mut to_offset = from_offset;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    // SAFETY: the kernel reads and writes the two offsets, which outlive the call.
    let result = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut from_offset,
            to.as_raw_fd(),
            &raw mut to_offset,
            bytes,
            0,
        )
    };
    Errno::result(result).map(|copied| copied as u64)
}

/// Makes a file share all blocks of another (ioctl_ficlone(2), `FICLONE`).
///
/// # Errors
/// EOPNOTSUPP, EXDEV, ENOTTY, EINVAL: not these two.
pub fn clone_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: FICLONE takes a descriptor's number and touches no memory of ours.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    Errno::result(result).map(drop)
}

/// A copy of a descriptor that whoever executed this program left open, by its number.
///
/// # Errors
/// EBADF: it did not.
pub fn inherited(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an int; the number itself is not taken over.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    let copy = Errno::result(copy)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
