//! The claim directory: the file whose bytes are locked, and the notes beside it.

use crate::core::claim::{
    Claimed, How, KeeperOrder, LOCKS, Note, OWN_DIR, Seen, Take, line, offset, read,
};
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat, openat2, renameat,
};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

/// What others may do with the files is the daemon's umask's affair.
const FILE: Mode = Mode::from_bits_truncate(0o666);
const DIR: Mode = Mode::from_bits_truncate(0o777);

/// Longest note that is read.
const NOTE_MAX: u64 = 64 * 1024;

/// The bytes that stand for a claim.
pub(super) fn offsets(watch: &str, take: &Take) -> Vec<u64> {
    let mut bytes = vec![
        offset(watch, Claimed::Path(&take.path)),
        offset(watch, Claimed::Inode(take.seen.ino)),
    ];
    bytes.extend(
        take.key
            .as_ref()
            .map(|key| offset(watch, Claimed::Key(key))),
    );
    bytes
}

/// An open claim directory.
#[derive(Debug)]
pub(super) struct Share {
    root: OwnedFd,
    dir: OwnedFd,
    locks: OwnedFd,
    /// Something in the directory is not known to be on the disk.
    unsynced: std::cell::Cell<bool>,
}

fn failed(what: &str) -> impl Fn(Errno) -> String {
    move |errno| format!("{what}: {}", errno.desc())
}

impl Share {
    pub(super) fn open(order: &KeeperOrder) -> Result<Share, String> {
        let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(
            AT_FDCWD,
            order.root.as_slice(),
            OFlag::O_PATH | directory,
            Mode::empty(),
        )
        .map_err(failed("the watch's directory"))?;
        let shown = String::from_utf8_lossy(&order.dir).into_owned();
        let dir = if order.marks {
            openat(AT_FDCWD, order.dir.as_slice(), directory, Mode::empty())
        } else {
            match mkdirat(&root, OWN_DIR, DIR) {
                Ok(()) | Err(Errno::EEXIST) => {
                    openat(&root, OWN_DIR, directory | OFlag::O_NOFOLLOW, Mode::empty())
                }
                Err(errno) => Err(errno),
            }
        }
        .map_err(failed(&shown))?;
        if let Some(why) = locks_stay_here(&dir)? {
            return Err(format!("{shown}: {why}"));
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let locks = openat(&dir, LOCKS, flags, FILE).map_err(failed(&format!("{shown}/locks")))?;
        Ok(Share {
            root,
            dir,
            locks,
            unsynced: std::cell::Cell::new(true),
        })
    }

    /// Whether the lock file is still the one that all others lock. If not, nothing is to be had before all that is had is
    /// let go of.
    pub(super) fn is_still_the_one(&mut self) -> Result<(), String> {
        let ours = fstat(&self.locks).map_err(failed("locks"))?;
        // By name and not opened: to close it would be to let go of everything.
        match fstatat(&self.dir, LOCKS, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => Ok(()),
            Ok(_) | Err(Errno::ENOENT) => {
                Err("the lock file was taken away or replaced while it was in use".into())
            }
            Err(errno) => Err(failed("locks")(errno)),
        }
    }

    /// `false`: somebody else has it.
    pub(super) fn lock(&self, byte: u64) -> Result<bool, String> {
        match self.set(byte, libc::F_WRLCK) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(failed("cannot be locked")(errno)),
        }
    }

    pub(super) fn unlock(&self, byte: u64) -> Result<(), String> {
        self.set(byte, libc::F_UNLCK)
            .map_err(failed("cannot be unlocked"))
    }

    fn set(&self, byte: u64, kind: i32) -> nix::Result<()> {
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte.cast_signed(),
            l_len: 1,
            l_pid: 0,
        };
        loop {
            match fcntl(&self.locks, FcntlArg::F_SETLK(&lock)) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Whether the file is there, in this version. Opened, because a name may be answered from a cache (nfs(5)).
    pub(super) fn is_there(&self, path: &[u8], seen: &Seen) -> Result<bool, String> {
        let open = |access: OFlag| {
            let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            loop {
                let how = OpenHow::new().flags(flags).resolve(resolve);
                match openat2(&self.root, path, how) {
                    // A rename elsewhere disturbed it.
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    result => return result,
                }
            }
        };
        let found = match open(OFlag::O_RDONLY) {
            Err(Errno::EACCES | Errno::EPERM) => open(OFlag::O_PATH),
            result => result,
        };
        match found.and_then(|file| fstat(&file)) {
            Ok(stat) => Ok(seen_of(&stat) == *seen),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) => Ok(false),
            Err(errno) => Err(failed("the file cannot be looked at")(errno)),
        }
    }

    // ---- notes ----

    /// The conclusion of a version: `None` if there is none, `Some(None)` if it cannot be understood.
    pub(super) fn read_mark(&self, name: &str) -> Result<Option<Option<Note>>, String> {
        self.read(&format!("{name}.done"))
    }

    /// The same of what was begun.
    pub(super) fn read_begun(&self, name: &str) -> Result<Option<Option<Note>>, String> {
        self.read(&format!("{name}.begun"))
    }

    fn read(&self, name: &str) -> Result<Option<Option<Note>>, String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed(name)(errno)),
        };
        let mut text = Vec::new();
        File::from(file)
            .take(NOTE_MAX)
            .read_to_end(&mut text)
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(Some(self::read(&text).ok()))
    }

    pub(super) fn write_begun(&self, name: &str, note: &Note) -> Result<(), String> {
        self.write(&format!("{name}.begun"), note)
    }

    pub(super) fn write_mark(&self, name: &str, note: &Note) -> Result<(), String> {
        self.write(&format!("{name}.done"), note)
    }

    /// On the disk with the next [`Share::sync`]: one for many of them. That a note is there then says what it says by
    /// default, that something was begun, or is done; what says more is whole as well.
    fn write(&self, name: &str, note: &Note) -> Result<(), String> {
        let new = format!("{name}.new");
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_TRUNC
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, new.as_str(), flags, FILE).map_err(failed(&new))?;
        let mut file = File::from(file);
        let whole = matches!(note.how, How::Dead | How::Held) || note.again;
        file.write_all(&line(note))
            .and_then(|()| if whole { file.sync_data() } else { Ok(()) })
            .map_err(|error| format!("{new}: {error}"))?;
        self.unsynced.set(true);
        renameat(&self.dir, new.as_str(), &self.dir, name).map_err(failed(name))
    }

    pub(super) fn remove_begun(&self, name: &str) -> Result<(), String> {
        let name = format!("{name}.begun");
        match unlinkat(&self.dir, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed(&name)(errno)),
        }
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), String> {
        if self.unsynced.get() {
            fsync(&self.dir).map_err(failed("the claim directory"))?;
            self.unsynced.set(false);
        }
        Ok(())
    }
}

fn seen_of(stat: &FileStat) -> Seen {
    Seen {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime_ns: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec),
    }
}

/// Why locks on this directory's files mean nothing to other machines, if they do not.
fn locks_stay_here(dir: &OwnedFd) -> Result<Option<String>, String> {
    let text = |path: String| {
        std::fs::read(&path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| format!("{path}: {error}"))
    };
    let info = text(format!("/proc/self/fdinfo/{}", dir.as_raw_fd()))?;
    let id = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .map(str::trim)
        .unwrap_or_default();
    let table = text("/proc/self/mountinfo".into())?;
    let mount = table
        .lines()
        .find(|line| line.split(' ').next() == Some(id));
    Ok(mount.and_then(crate::mounts::local_locks))
}
