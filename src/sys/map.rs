//! Mapped files, and what only the journal asks of the kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A file mapped shared and writable, for copying bytes into. Never read through: mmap(2).
///
/// Children do not get it (`MADV_DONTFORK`). A store makes the whole folio dirty that the page is part of, so
/// the file's pages should have come into the cache one by one.
#[derive(Debug)]
pub struct Map {
    start: *mut u8,
    length: usize,
}

impl Map {
    /// Maps the first `length` bytes of `file`, which must be open for reading and writing and at least
    /// that long.
    pub fn new(file: &File, length: usize) -> io::Result<Map> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = Map {
            start: start.cast(),
            length,
        };
        map.advise(0, length, libc::MADV_DONTFORK)?;
        // A page that was evicted comes back alone, not as part of a large folio (see the doc comment).
        map.advise(0, length, libc::MADV_RANDOM)?;
        Ok(map)
    }

    /// How many bytes are mapped.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Faults the pages of a range in for writing (madvise(2), `MADV_POPULATE_WRITE`, Linux 5.14), so that
    /// what would be a SIGBUS at a store is an errno here: EFAULT where the file has no block and gets
    /// none, or cannot be read; EHWPOISON; EINVAL on older kernels.
    pub fn populate_write(&self, offset: usize, length: usize) -> io::Result<()> {
        let from = offset - offset % page_size();
        let to = offset
            .checked_add(length)
            .filter(|&end| end <= self.length)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.advise(from, to - from, libc::MADV_POPULATE_WRITE)
    }

    /// Copies `bytes` into the file. Their pages must have been faulted in by [`Map::populate_write`];
    /// where the kernel has meanwhile written one back, the store faults again, and a filesystem that
    /// copies on write and has no room then answers with SIGBUS.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len());
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the range was just checked to lie inside the mapping, which lives as long as `self`;
        // no reference into the mapping is ever made, so `bytes` cannot overlap it.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset), bytes.len());
        }
        Ok(())
    }

    /// msync(2), `MS_SYNC`, of the pages of a range: the other way to make them durable.
    pub fn sync(&self, offset: usize, length: usize) -> io::Result<()> {
        let from = offset - offset % page_size();
        let to = offset.saturating_add(length).min(self.length);
        // SAFETY: the range lies inside the mapping; msync changes no memory.
        let done = unsafe {
            libc::msync(
                self.start.wrapping_add(from).cast(),
                to.saturating_sub(from),
                libc::MS_SYNC,
            )
        };
        zero(done)
    }

    fn advise(&self, offset: usize, length: usize, advice: libc::c_int) -> io::Result<()> {
        loop {
            // SAFETY: callers give ranges inside the mapping; the advices used here change no contents.
            let done =
                unsafe { libc::madvise(self.start.wrapping_add(offset).cast(), length, advice) };
            match zero(done) {
                // Populating a long range is broken off by signals; what is done is done.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is the one that mmap gave, and nothing points into it. munmap of a valid range
        // cannot fail.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

// SAFETY: the mapping belongs to this value alone, and is only written through `&mut self`.
unsafe impl Send for Map {}

/// Whether the kernel knows `MADV_POPULATE_WRITE` (Linux 5.14).
pub fn knows_populate_write() -> io::Result<bool> {
    let length = page_size();
    // SAFETY: a new private mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let map = Map {
        start: start.cast(),
        length,
    };
    match map.populate_write(0, length) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts to write a range of the file's dirty pages to the disk and does not wait for them
/// (sync_file_range(2)). Makes nothing durable.
pub fn start_writeback(file: &File, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call; no memory is involved.
    let done = unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset.cast_signed(),
            length.cast_signed(),
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
    zero(done)
}

/// Turns copy-on-write off for an empty file on btrfs (ioctl_iflags(2), `FS_NOCOW_FL`).
pub fn set_nocow(file: BorrowedFd) -> io::Result<()> {
    const FS_NOCOW_FL: libc::c_int = 0x0080_0000;
    let mut flags: libc::c_int = 0;
    // SAFETY: FS_IOC_GETFLAGS writes one int, whatever its definition says, and `flags` is one.
    zero(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    flags |= FS_NOCOW_FL;
    // SAFETY: FS_IOC_SETFLAGS reads one int, and `flags` is one.
    zero(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) })
}

/// Random bytes (getrandom(2)); waits only on a machine that has just booted and has none yet.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: the kernel writes at most as many bytes as `bytes` has.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(got) {
        Ok(got) if got == bytes.len() => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Bytes of a page: 4096 on most machines, 65536 on some.
fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the running system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

fn zero(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn bytes_written_through_the_map_are_read_from_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mut map = Map::new(&file, 8192).unwrap();
        map.populate_write(4090, 12).unwrap();
        map.write(4090, b"over a page!").unwrap();
        map.sync(4090, 12).unwrap();
        let mut back = [0; 12];
        file.read_exact_at(&mut back, 4090).unwrap();
        assert_eq!(&back, b"over a page!");
        assert!(map.write(8190, b"abc").is_err());
        assert!(map.populate_write(8190, 3).is_err());
    }

    /// The fact that the journal leans on: a fault that would be SIGBUS is an errno here.
    #[test]
    fn populating_behind_the_end_of_the_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let map = Map::new(&file, 8192).unwrap();
        file.set_len(4096).unwrap();
        map.populate_write(0, 4096).unwrap();
        let error = map.populate_write(4096, 4096).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn children_do_not_get_the_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = Map::new(&file, 4096).unwrap();
        map.sync(0, 4096).unwrap();
        // SAFETY: the child makes two system calls and touches no memory of other threads.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let gone = map.sync(0, 4096).err().and_then(|e| e.raw_os_error()) == Some(libc::ENOMEM);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(gone)) };
        }
        let mut status = 0;
        // SAFETY: `status` is an int for the kernel to write to.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 1);
    }

    #[test]
    fn this_kernel_is_new_enough() {
        assert!(knows_populate_write().unwrap());
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
