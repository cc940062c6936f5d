//! The real storage: files in the state directory, segments written through a mapping.
//!
//! For small batches a segment is allocated by writing zeros over all of it, page by page: `fallocate` leaves
//! unwritten extents, whose first flush is a commit of metadata each; larger writes would make larger folios. For
//! large batches it is `fallocate`. Its pages are faulted in before they are written
//! (`MADV_POPULATE_WRITE`), so that an error is an errno and not a signal. `fdatasync` of the descriptor
//! writes dirty mapped pages too, and leaves out what has nothing but a new mtime to be committed.
//! Reading is `pread`.

use super::error::{BadDirectory, JournalError};
use super::lock::{self, Lock};
use super::storage::{Fault, File as Name, Storage};
use super::{Journal, Opened, Options, directory};
use crate::sys::map::{self, Map};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The journal in a state directory of the real filesystem.
pub type DiskJournal = Journal<Disk>;

/// A directory of journal files.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    dir: OwnedFd,
    /// Held as long as this lives; `None` where it was opened for reading, and in a forked copy.
    lock: Option<Lock>,
    /// Opened for writing. A forked copy goes on to write what is its own without the lock.
    may_write: bool,
    nocow: bool,
    /// A segment that has just got its name: to be noted when that is durable.
    named: Option<u32>,
    open: BTreeMap<Name, Handle>,
}

#[derive(Debug)]
struct Handle {
    file: File,
    map: Option<Map>,
    /// Below this offset the page cache may have folios of many pages: a store through the mapping would make
    /// all of one dirty.
    large_below: u64,
}

impl DiskJournal {
    /// Opens the journal in the state directory `dir`, which is made (0700) if it is missing, and keeps
    /// every other daemon out of it. Nothing in it is changed before [`Opened::replay`].
    ///
    /// `options.random_*` are filled in here. `force` allows a filesystem that is refused otherwise.
    pub fn open(dir: &Path, options: &Options, force: bool) -> Result<Opened<Disk>, JournalError> {
        let disk = Disk::lock(dir, force)?;
        let known = map::knows_populate_write();
        if !known.map_err(|error| fault("map memory for", dir, &error))? {
            return Err(JournalError::OldKernel);
        }
        let random = map::random().map_err(|error| fault("read random bytes for", dir, &error))?;
        let [a, b, c, d, salt @ .., _, _, _, _] = random;
        let options = Options {
            random_id: u32::from_le_bytes([a, b, c, d]),
            random_salt: u64::from_le_bytes(salt),
            ..*options
        };
        Opened::new(disk, options)
    }
}

impl Journal<Disk> {
    /// For a forked copy of the process: closes its descriptor of the lock without letting the lock go, so that the
    /// state directory is free when the daemon itself has ended.
    pub fn leave_lock(&mut self) {
        if let Some(lock) = self.storage.lock.take() {
            lock.leave();
        }
    }

    /// Whether the state directory is still where it was, with the segment that is written: what is flushed is of
    /// no use to the next start otherwise. A few calls of stat(2).
    ///
    /// # Errors
    /// It is not, or cannot be looked at.
    pub fn still_there(&self) -> Result<(), JournalError> {
        let disk = &self.storage;
        let failed = |error: &io::Error| fault("find", &disk.path, error);
        let named = fs::metadata(&disk.path).map_err(|error| failed(&error))?;
        let open = nix::sys::stat::fstat(&disk.dir).map_err(|errno| failed(&errno.into()))?;
        if (named.dev(), named.ino()) != (open.st_dev, open.st_ino) {
            return Err(failed(&Errno::ENOENT.into()).into());
        }
        Ok(disk.check_names()?)
    }

    /// The state directory once more, for reading, whatever lies under its path by now.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn reader(&self) -> Result<Disk, JournalError> {
        let disk = &self.storage;
        let dir = disk.dir.try_clone();
        let dir = dir.map_err(|error| fault("open", &disk.path, &error))?;
        Ok(Disk::reading(&disk.path, dir))
    }

    /// The descriptors that [`Journal::compact_copy`] needs, ascending.
    pub fn copy_descriptors(&self) -> Vec<RawFd> {
        let base = self.storage.open.get(&Name::NewBase);
        let mut numbers = vec![self.storage.dir.as_raw_fd()];
        numbers.extend(base.map(|handle| handle.file.as_raw_fd()));
        numbers.sort_unstable();
        numbers
    }
}

impl Disk {
    /// The directory for writing: made if missing, checked, locked.
    pub fn lock(path: &Path, force: bool) -> Result<Disk, JournalError> {
        directory::make(path)?;
        let mut disk = Disk::read_only(path)?;
        let kind = directory::check(path, &disk.dir, force)?;
        disk.nocow = kind == directory::BTRFS_MAGIC;
        disk.lock = Some(Lock::take(path)?);
        disk.may_write = true;
        Ok(disk)
    }

    /// The directory for reading, locked or not: any call that writes fails with EROFS.
    pub fn read_only(path: &Path) -> Result<Disk, JournalError> {
        let dir = nix::fcntl::open(
            path,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let dir = match dir {
            Err(Errno::ENOTDIR) => {
                return Err(directory::refused(path, BadDirectory::NotADirectory));
            }
            other => other.map_err(|errno| fault("open", path, &errno.into()))?,
        };
        Ok(Disk::reading(path, dir))
    }

    fn reading(path: &Path, dir: OwnedFd) -> Disk {
        Disk {
            path: path.to_owned(),
            dir,
            lock: None,
            may_write: false,
            nocow: false,
            named: None,
            open: BTreeMap::new(),
        }
    }

    fn fault(&self, act: &'static str, name: Name, error: &io::Error) -> Fault {
        fault(act, &self.path.join(name.to_string()), error)
    }

    /// Segments that are being written must have their names: somebody may have taken them away.
    fn check_names(&self) -> Result<(), Fault> {
        for (name, handle) in &self.open {
            if let Name::Log(_) = name {
                let gone = || self.fault("find", *name, &Errno::ENOENT.into());
                let open = handle.file.metadata();
                let open = open.map_err(|error| self.fault("stat", *name, &error))?;
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                match nix::sys::stat::fstatat(&self.dir, name.to_string().as_str(), flags) {
                    Ok(named) if named.st_ino == open.ino() => {}
                    Ok(_) | Err(Errno::ENOENT) => return Err(gone()),
                    Err(errno) => return Err(self.fault("stat", *name, &errno.into())),
                }
            }
        }
        Ok(())
    }

    /// Makes the write side of a call fail where the directory was opened for reading.
    fn writable(&self, act: &'static str, name: Name) -> Result<(), Fault> {
        if self.may_write {
            Ok(())
        } else {
            Err(self.fault(act, name, &Errno::EROFS.into()))
        }
    }

    fn handle(&mut self, act: &'static str, name: Name, make: bool) -> Result<&mut Handle, Fault> {
        if !self.open.contains_key(&name) {
            let mut flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
            flags |= if self.may_write {
                OFlag::O_RDWR
            } else {
                OFlag::O_RDONLY
            };
            if make {
                flags |= OFlag::O_CREAT;
            }
            // Who may read it is decided by the directory.
            let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP;
            let file = openat(&self.dir, name.to_string().as_str(), flags, mode)
                .map_err(|errno| self.fault(act, name, &errno.into()))?;
            let file = File::from(file);
            if self.nocow && make && file.metadata().is_ok_and(|found| found.len() == 0) {
                // Only spares copy-on-write its work: where it is refused (the file may have inherited a
                // flag that excludes it), faulting pages in before writing still turns a missing block
                // into an error.
                match map::set_nocow(file.as_fd()) {
                    Ok(()) | Err(_) => {}
                }
            }
            let handle = Handle {
                file,
                map: None,
                large_below: 0,
            };
            self.open.insert(name, handle);
        }
        let path = &self.path;
        self.open
            .get_mut(&name)
            .ok_or_else(|| fault(act, &path.join(name.to_string()), &Errno::EBADF.into()))
    }
}

impl Storage for Disk {
    fn list(&mut self) -> Result<Vec<(Name, u64)>, Fault> {
        let failed = |errno: Errno| fault("list", &self.path, &errno.into());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = Dir::openat(&self.dir, ".", flags, Mode::empty()).map_err(failed)?;
        let mut files = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            let Some(name) = Name::parse(entry.file_name().to_bytes()) else {
                continue;
            };
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            match nix::sys::stat::fstatat(&self.dir, entry.file_name(), flags) {
                Ok(found) => files.push((name, u64::try_from(found.st_size).unwrap_or(0))),
                // Removed meanwhile by the daemon whose directory this is.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(self.fault("stat", name, &errno.into())),
            }
        }
        Ok(files)
    }

    fn noted(&mut self) -> Result<Option<u32>, Fault> {
        lock::noted(&self.path, &self.dir)
    }

    fn path(&self, name: Name) -> String {
        self.path.join(name.to_string()).display().to_string()
    }

    fn read_at(&mut self, name: Name, offset: u64, into: &mut [u8]) -> Result<usize, Fault> {
        let handle = self.handle("open", name, false)?;
        let mut got = 0;
        while let Some(rest) = into.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match handle.file.read_at(rest, offset.saturating_add(got as u64)) {
                Ok(0) => break,
                Ok(bytes) => got += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What could be read is worth having; the next call meets the error first.
                Err(_) if got > 0 => break,
                Err(error) => return Err(self.fault("read", name, &error)),
            }
        }
        Ok(got)
    }

    fn allocate(&mut self, name: Name, offset: u64, length: u64) -> Result<(), Fault> {
        // One page at a time: the page cache keeps what is written at once in one folio, up to megabytes
        // of it, and a single store through a mapping makes the whole folio dirty. After writes of 4 MiB
        // each flush of 128 bytes wrote 2 MiB (measured, Linux 6.18, ext4).
        static ZEROS: [u8; 4096] = [0; 4096];
        self.writable("allocate", name)?;
        let handle = self.handle("create", name, true)?;
        // A mapping of another length would not fit the file any more.
        handle.map = None;
        let end = offset.saturating_add(length);
        let mut at = offset;
        let mut grown = Ok(());
        while at < end && grown.is_ok() {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..want.min(ZEROS.len())).unwrap_or(&ZEROS);
            grown = handle.file.write_all_at(zeros, at);
            at += zeros.len() as u64;
        }
        grown
            // Of a spare that is left from another time, longer than this one will be.
            .and_then(|()| {
                if handle.file.metadata()?.len() > end && offset == 0 {
                    handle.file.set_len(end)?;
                }
                map::start_writeback(&handle.file, offset, length)
            })
            .map_err(|error| self.fault("allocate", name, &error))
    }

    fn reserve(&mut self, name: Name, offset: u64, length: u64) -> Result<(), Fault> {
        self.writable("allocate", name)?;
        let handle = self.handle("create", name, true)?;
        handle.map = None;
        match handle.reserve(offset, length) {
            // Not every filesystem can: tmpfs cannot, and needs not.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.allocate(name, offset, length),
            other => other.map_err(|errno| self.fault("allocate", name, &errno.into())),
        }
    }

    fn write(&mut self, name: Name, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.writable("write", name)?;
        let segment = matches!(name, Name::Log(_) | Name::Spare);
        let handle = self.handle("open", name, !segment)?;
        let written = if segment {
            handle.write_segment(offset, bytes)
        } else {
            handle.write_base(offset, bytes)
        };
        written.map_err(|error| self.fault("write", name, &error))
    }

    fn flush(&mut self, name: Name) -> Result<(), Fault> {
        self.writable("flush", name)?;
        let handle = self.handle("open", name, false)?;
        handle
            .file
            .sync_data()
            .map_err(|error| self.fault("flush", name, &error))
    }

    fn rename(&mut self, from: Name, to: Name) -> Result<(), Fault> {
        self.writable("rename", from)?;
        if let Name::Log(number) = to {
            self.check_names()?;
            self.named = Some(number);
        }
        let (old, new) = (from.to_string(), to.to_string());
        renameat(&self.dir, old.as_str(), &self.dir, new.as_str())
            .map_err(|errno| self.fault("rename", from, &errno.into()))?;
        self.open.remove(&to);
        if let Some(handle) = self.open.remove(&from) {
            self.open.insert(to, handle);
        }
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), Fault> {
        nix::unistd::fsync(&self.dir).map_err(|errno| fault("flush", &self.path, &errno.into()))?;
        if let (Some(lock), Some(number)) = (&self.lock, self.named.take()) {
            lock.note(&self.path, number)?;
        }
        Ok(())
    }

    fn truncate(&mut self, name: Name, length: u64) -> Result<(), Fault> {
        self.writable("truncate", name)?;
        let handle = self.handle("open", name, false)?;
        handle.map = None;
        handle
            .file
            .set_len(length)
            .map_err(|error| self.fault("truncate", name, &error))
    }

    fn remove(&mut self, name: Name) -> Result<(), Fault> {
        self.writable("remove", name)?;
        self.open.remove(&name);
        match unlinkat(
            &self.dir,
            name.to_string().as_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.fault("remove", name, &errno.into())),
        }
    }

    fn keep_aside(&mut self, name: Name) -> Result<String, Fault> {
        self.writable("keep aside", name)?;
        let (old, new) = (name.to_string(), format!("{name}.damaged"));
        let path = self.path.join(&new);
        let linked = linkat(
            &self.dir,
            old.as_str(),
            &self.dir,
            new.as_str(),
            AtFlags::empty(),
        );
        match linked {
            Ok(()) | Err(Errno::EEXIST) => {}
            // A filesystem without hard links.
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK) => {
                fs::copy(self.path.join(&old), &path)
                    .map_err(|error| self.fault("keep aside", name, &error))?;
            }
            Err(errno) => return Err(self.fault("keep aside", name, &errno.into())),
        }
        Ok(path.display().to_string())
    }

    /// A reader keeps its files open: a daemon may remove them meanwhile.
    fn release(&mut self, name: Name) {
        if self.may_write {
            self.open.remove(&name);
        }
    }
}

/// A batch of more bytes is written by one `pwrite` into the same page cache: beyond a page or two, faulting
/// each page in and write-protecting it again after the flush costs more than one call (measured with
/// batches of 8 KiB: 0.9 of the rate of pwrite and fdatasync through the mapping, 1.0 so).
const MAPPED_MAX_BYTES: usize = 4096;
/// A folio is never larger than the write that makes it, and ends with its last page at the latest.
const PAGE_BYTES: u64 = 4096;

impl Handle {
    /// The range becomes zeros without being written. Of a spare that is left from another time its blocks
    /// stay: on a full disk nobody else gets them meanwhile.
    fn reserve(&mut self, offset: u64, length: u64) -> Result<(), Errno> {
        let end = offset.saturating_add(length);
        let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let length = i64::try_from(length).map_err(|_| Errno::EFBIG)?;
        let start = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        loop {
            match fallocate(
                &self.file,
                FallocateFlags::FALLOC_FL_ZERO_RANGE,
                start,
                length,
            ) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        }
        if offset == 0 && self.file.metadata().map_err(errno)?.len() > end {
            self.file.set_len(end).map_err(errno)?;
        }
        Ok(())
    }

    fn write_segment(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let large = bytes.len() > MAPPED_MAX_BYTES;
        if large || offset < self.large_below {
            if large {
                let end = offset.saturating_add(bytes.len() as u64);
                self.large_below = end.next_multiple_of(PAGE_BYTES);
            }
            return self.file.write_all_at(bytes, offset);
        }
        let too_far = || io::Error::from(io::ErrorKind::InvalidInput);
        let offset = usize::try_from(offset).map_err(|_| too_far())?;
        let map = match &mut self.map {
            Some(map) => map,
            empty => {
                let length = usize::try_from(self.file.metadata()?.size());
                empty.insert(Map::new(&self.file, length.map_err(|_| too_far())?)?)
            }
        };
        map.populate_write(offset, bytes.len())?;
        map.write(offset, bytes)
    }

    /// For bases: their length is not known before, and nothing waits for a single write.
    fn write_base(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset == 0 {
            self.file.set_len(0)?;
        }
        self.file.write_all_at(bytes, offset)?;
        map::start_writeback(&self.file, offset, bytes.len() as u64)
    }
}

/// The failure of a call, for the sentence about it.
pub(super) fn fault(act: &'static str, path: &Path, error: &io::Error) -> Fault {
    Fault {
        act,
        path: path.display().to_string(),
        errno: error.raw_os_error().unwrap_or(super::storage::errno::EIO),
    }
}
