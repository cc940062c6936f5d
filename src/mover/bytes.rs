//! Bytes from one file into another, by whatever means the two filesystems have in common.

use super::name::{Failure, at};
use crate::sys::file;
use nix::errno::Errno;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Whence, ftruncate, lseek};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Bytes copied by one call, so that a kill is not waited for long.
const SLICE_BYTES: u64 = 8 * 1024 * 1024;

/// The buffer where the kernel cannot copy by itself.
pub(crate) const BUFFER_BYTES: usize = 128 * 1024;

/// How often and how far apart a lock is tried.
const LOCK_TRIES: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// What becomes of the holes of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holes {
    /// They are zeros in the copy: the filesystem's word on where there is data is not taken (there were some that
    /// took what was not yet written for a hole).
    Fill,
    /// They are holes again, where the filesystem tells them (lseek(2), `SEEK_DATA`).
    Keep,
}

/// Copies the first `size` bytes into an empty file; `step` is told before each call. Fewer are copied if there are
/// no more, and then the copy is shorter; blocks are shared where that is possible (`FICLONE`), and then the copy is as
/// long as the source is at that moment.
pub(crate) fn copy(
    step: &mut dyn FnMut(&'static str),
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    holes: Holes,
) -> Result<(), Failure> {
    step("copy");
    // Whatever it fails for, copying the bytes fails for too or does without.
    if size > 0 && file::clone_all(from, to).is_ok() {
        return Ok(());
    }
    let mut copier = Copier {
        step,
        from,
        to,
        in_kernel: true,
        buffer: Vec::new(),
    };
    let mut offset = 0;
    while offset < size {
        let (data, end) = match holes {
            Holes::Fill => (offset, size),
            Holes::Keep => next_data(from, offset, size)?,
        };
        offset = copier.range(data, end)?;
        if offset < end {
            return Ok(());
        }
    }
    if holes == Holes::Keep {
        // What ends in a hole was not written to its end.
        ftruncate(to, size.cast_signed()).map_err(at("set size of copy"))?;
    }
    Ok(())
}

/// Where data begins and ends, from `offset` on; both are `size` if there is none.
fn next_data(from: BorrowedFd<'_>, offset: u64, size: u64) -> Result<(u64, u64), Failure> {
    let seek = |offset: u64, whence| lseek(from, offset.cast_signed(), whence);
    let data = match seek(offset, Whence::SeekData) {
        Ok(data) => data.cast_unsigned().clamp(offset, size),
        Err(Errno::ENXIO) => return Ok((size, size)),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok((offset, size)),
        Err(errno) => return Err(at("find data")(errno)),
    };
    match seek(data, Whence::SeekHole) {
        // At least a byte, so that a filesystem that contradicts itself does not keep us here.
        Ok(hole) => Ok((data, hole.cast_unsigned().clamp(size.min(data + 1), size))),
        // It was cut short just now.
        Err(Errno::ENXIO) => Ok((data, size)),
        Err(errno) => Err(at("find data")(errno)),
    }
}

struct Copier<'a> {
    step: &'a mut dyn FnMut(&'static str),
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    in_kernel: bool,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies from `offset` to `end`; where it came to, which is less if the source ends there.
    fn range(&mut self, mut offset: u64, end: u64) -> Result<u64, Failure> {
        while offset < end {
            (self.step)("copy");
            let wanted = (end - offset).min(SLICE_BYTES);
            let copied = match self.in_kernel {
                true => self.slice_in_kernel(offset, wanted)?,
                false => 0,
            };
            offset += match copied {
                // Also from files that only read(2) gets something from.
                0 => match self.slice(offset, wanted)? {
                    0 => return Ok(offset),
                    read => read,
                },
                copied => copied,
            };
        }
        Ok(offset)
    }

    fn slice_in_kernel(&mut self, offset: u64, wanted: u64) -> Result<u64, Failure> {
        loop {
            match file::copy_range(self.from, self.to, offset, wanted) {
                Ok(copied) => return Ok(copied),
                Err(Errno::EINTR) => {}
                Err(
                    Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM,
                ) => {
                    self.in_kernel = false;
                    return Ok(0);
                }
                Err(errno) => return Err(at("copy")(errno)),
            }
        }
    }

    /// One buffer at most.
    fn slice(&mut self, offset: u64, wanted: u64) -> Result<u64, Failure> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let room = usize::try_from(wanted)
            .unwrap_or(BUFFER_BYTES)
            .min(BUFFER_BYTES);
        let buffer = self.buffer.get_mut(..room).unwrap_or_default();
        let filled = read_full(self.from, buffer, offset)?;
        let (mut rest, mut to) = (buffer.get(..filled).unwrap_or_default(), offset);
        while !rest.is_empty() {
            match pwrite(self.to, rest, to.cast_signed()) {
                Ok(0) => return Err(at("write copy")(Errno::EIO)),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    to += written as u64;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(at("write copy")(errno)),
            }
        }
        Ok(filled as u64)
    }
}

/// As many bytes as there are from `offset` on, up to the buffer's length.
pub(crate) fn read_full(
    from: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
) -> Result<usize, Failure> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match pread(from, room, (offset + filled as u64).cast_signed()) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(at("read")(errno)),
        }
    }
    Ok(filled)
}

/// Locks a hidden file with flock(2). A predecessor that was killed is given a while to be dead; this is a process of its
/// own, so nobody waits for it.
///
/// # Errors
/// EBUSY: it is still held.
pub(crate) fn lock(part: BorrowedFd<'_>) -> nix::Result<()> {
    for _ in 0..LOCK_TRIES {
        // A filesystem without locks has to do without this one.
        if file::flock(part, libc::LOCK_EX | libc::LOCK_NB) != Err(Errno::EWOULDBLOCK) {
            return Ok(());
        }
        std::thread::sleep(LOCK_WAIT);
    }
    Err(Errno::EBUSY)
}
