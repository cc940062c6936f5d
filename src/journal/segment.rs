//! The real storage: files in the state directory, segments written through a mapping.
//!
//! For small batches a segment is allocated by writing zeros over all of it, page by page: `fallocate` leaves
//! unwritten extents, whose first flush is a commit of metadata each; larger writes would make larger folios. For
//! large batches it is `fallocate`. Its pages are faulted in before they are written
//! (`MADV_POPULATE_WRITE`), so that an error is an errno and not a signal. `fdatasync` of the descriptor
//! writes dirty mapped pages too, and leaves out what has nothing but a new mtime to be committed.
//! Reading is `pread`.

use super::error::{BadDirectory, JournalError};
use super::storage::{Fault, File as Name, Storage};
use super::{Journal, Opened, Options};
use crate::sys::map::{self, Map};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, Flock, FlockArg, OFlag, fallocate, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, linkat, unlinkat};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The journal in a state directory of the real filesystem.
pub type DiskJournal = Journal<Disk>;

/// Where the daemon's process id stands while it runs.
const LOCK_NAME: &str = "lock";

/// The copy that a daemon has just forked for a compaction has its lock until it has left it, or until the
/// kernel has ended it with the daemon. So long is waited for the lock of a daemon that is gone.
const LEAVING_TRIES: u32 = 100;
const LEAVING_WAIT: Duration = Duration::from_millis(10);

/// A directory of journal files.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    dir: OwnedFd,
    /// Held as long as this lives; `None` where it was opened for reading, and in a forked copy.
    lock: Option<Flock<File>>,
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
            let number = lock.as_raw_fd();
            // Dropped, it would unlock: flock(2) knows only the open file that both processes share.
            std::mem::forget(lock);
            // That a descriptor known to be open cannot be closed would change nothing.
            let _closed = nix::unistd::close(number);
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
        make_directory(path)?;
        let mut disk = Disk::read_only(path)?;
        disk.check_owner()?;
        let kind = disk.filesystem()?;
        if let Some(name) = untrusted(kind)
            && !force
        {
            return Err(refused(path, BadDirectory::Filesystem(name)));
        }
        disk.nocow = kind == BTRFS_MAGIC;
        disk.lock = Some(disk.take_lock()?);
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
            Err(Errno::ENOTDIR) => return Err(refused(path, BadDirectory::NotADirectory)),
            other => other.map_err(|errno| fault("open", path, &errno.into()))?,
        };
        Ok(Disk {
            path: path.to_owned(),
            dir,
            lock: None,
            may_write: false,
            nocow: false,
            named: None,
            open: BTreeMap::new(),
        })
    }

    fn check_owner(&self) -> Result<(), JournalError> {
        let found = nix::sys::stat::fstat(&self.dir)
            .map_err(|errno| fault("stat", &self.path, &errno.into()))?;
        let mode = found.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            return Err(refused(&self.path, BadDirectory::Writable(mode)));
        }
        let owner = found.st_uid;
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(refused(&self.path, BadDirectory::Owner(owner)));
        }
        Ok(())
    }

    /// The type number that statfs(2) gives.
    fn filesystem(&self) -> Result<u64, JournalError> {
        let found = nix::sys::statfs::fstatfs(&self.dir)
            .map_err(|errno| fault("statfs", &self.path, &errno.into()))?;
        // The numbers have 32 bits; the field's type differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        Ok((found.filesystem_type().0 as u64) & 0xffff_ffff)
    }

    /// flock(2) on `lock`. The descriptor is closed on exec; a forked child must close it, too.
    fn take_lock(&self) -> Result<Flock<File>, JournalError> {
        let path = self.path.join(LOCK_NAME);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| fault("open", &path, &error))?;
        let mut file = file;
        for _ in 0..LEAVING_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let noted = noted(&lock).map_err(|error| fault("read", &path, &error))?;
                    write_lock(&lock, noted).map_err(|error| fault("write", &path, &error))?;
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
            path: self.path.display().to_string(),
            pid: holder(&file),
        })
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
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
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
        let path = self.path.join(LOCK_NAME);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let number = match openat(&self.dir, LOCK_NAME, flags, Mode::empty()) {
            Ok(file) => noted(&file.into()).map_err(|error| fault("read", &path, &error))?,
            // A copy without it.
            Err(Errno::ENOENT) => 0,
            Err(errno) => return Err(fault("open", &path, &errno.into())),
        };
        Ok((number > 0).then_some(number))
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
            write_lock(lock, number)
                .map_err(|error| fault("write", &self.path.join(LOCK_NAME), &error))?;
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

/// The lines of the lock's file.
fn lock_text(file: &File) -> io::Result<String> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned())
}

/// The process that says in the lock's file that it has the lock.
fn holder(file: &File) -> Option<u32> {
    lock_text(file).ok()?.lines().next()?.trim().parse().ok()
}

/// The newest segment that is known to have been there; 0 is none.
fn noted(file: &File) -> io::Result<u32> {
    let text = lock_text(file)?;
    let number = text.lines().nth(1).and_then(|line| line.parse().ok());
    Ok(number.unwrap_or(0))
}

/// Not flushed: after a power cut an older number, or none, is as true.
fn write_lock(mut file: &File, noted: u32) -> io::Result<()> {
    let text = format!("{}\n{noted:010}\n", std::process::id());
    let written = file
        .rewind()
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.set_len(text.len() as u64));
    written.or_else(|error| {
        // The lock holds without the numbers; a full disk must not keep the daemon out.
        let full = error.raw_os_error() == Some(super::storage::errno::ENOSPC);
        if full { Ok(()) } else { Err(error) }
    })
}

fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).unwrap_or(0);
    // 0 and less are not processes; asking for those would ask for groups of them.
    pid > 0 && nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

/// Makes the directory and those above it that are missing, all for their owner alone, and their names
/// durable: a journal whose directory a power cut takes away is no journal.
fn make_directory(path: &Path) -> Result<(), JournalError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .collect();
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(refused(path, BadDirectory::NotADirectory));
        }
        other => other.map_err(|error| fault("create", path, &error))?,
    }
    for dir in missing {
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|error| fault("flush", parent, &error))?;
    }
    Ok(())
}

fn fault(act: &'static str, path: &Path, error: &io::Error) -> Fault {
    Fault {
        act,
        path: path.display().to_string(),
        errno: error.raw_os_error().unwrap_or(super::storage::errno::EIO),
    }
}

fn refused(path: &Path, bad: BadDirectory) -> JournalError {
    JournalError::Directory(path.display().to_string(), bad)
}

const BTRFS_MAGIC: u64 = 0x9123_683e;

/// The name of a filesystem type on which the state directory is refused: one whose files other machines
/// change, or that nothing here can know.
fn untrusted(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x0102_1997 => "9p",
        0x7461_636f => "OCFS2",
        0x0116_1970 => "GFS2",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0187 => "autofs",
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_named() {
        assert_eq!(untrusted(0x6969), Some("NFS"));
        assert_eq!(untrusted(0xff53_4d42), Some("SMB"));
        for local in [0xef53, 0x0102_1994, 0x5846_5342, BTRFS_MAGIC, 0x794c_7630] {
            assert_eq!(untrusted(local), None, "{local:#x}");
        }
    }
}
