//! Moving to another filesystem: a hidden file beside the target is filled, made durable and renamed, and only then is
//! the source unlinked.

use super::bytes::{self, Holes};
use super::place::sync_dir;
use super::{Ended, Failure, Found, Mover, Order, Way, at, look, refused, unlink};
use crate::core::ask::Disposal;
use crate::probe::{self, reopen, stat_fd, stat_of};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fsync, ftruncate};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Whether two mtimes can be of one file and its copy: the coarsest clock of a filesystem, FAT's, counts in two seconds.
pub(super) fn same_time(one: i64, other: i64) -> bool {
    one.abs_diff(other) < 2_000_000_000
}

/// The hidden name beside the target.
fn part_name(private: &[u8]) -> Vec<u8> {
    [b".settled-".as_slice(), private, b".part"].concat()
}

impl<S: FnMut(&'static str)> Mover<S> {
    pub(super) fn copy_to(&mut self, way: &Way<'_>, found: &mut Found) -> Result<Ended, Failure> {
        let Way { target, order, .. } = *way;
        let dir = target.dir.as_fd();
        let from = reopen(found.file.as_fd()).map_err(at("open for copy"))?;
        if let Some(there) = look(dir, &target.name)?
            && !there.is_placeholder()
        {
            if !is_copy(from.as_fd(), found, &there)? {
                return self.taken(way);
            }
            // An earlier try was stopped before the source's end.
            let copy = reopen(there.file.as_fd()).map_err(at("open copy"))?;
            fsync(copy).map_err(at("fsync copy"))?;
            self.drop_part(dir, order)?;
            return self.copied(way, found);
        }
        let part_name = part_name(order.private);
        let Some(part) = self.open_part(dir, &part_name)? else {
            // Its predecessor renamed it to the target as its last act.
            return self.copy_to(way, found);
        };
        let filled = self
            .fill(from.as_fd(), part.as_fd(), &found.raw)
            .and_then(|()| refused(found, order));
        let refusal = match filled {
            Ok(refusal) => refusal,
            Err(failure) => {
                // What failed first is what the answer says; a leftover is used again by the next try.
                let _leftover = unlink(dir, &part_name);
                return Err(failure);
            }
        };
        if let Some(refusal) = refusal {
            self.drop_part(dir, order)?;
            return Ok(refusal.answer());
        }
        (self.step)("fsync copy");
        fsync(part.as_fd()).map_err(at("fsync copy"))?;
        (self.step)("rename copy");
        match self.rename_new(dir, &part_name, dir, &target.name) {
            Ok(()) => self.copied(way, found),
            Err(Errno::EEXIST) => {
                self.drop_part(dir, order)?;
                self.taken(way)
            }
            Err(errno) => Err(at("rename copy")(errno)),
        }
    }

    /// The copy has its name: makes that durable, and ends the source, if that is still what was copied.
    fn copied(&mut self, way: &Way<'_>, found: &mut Found) -> Result<Ended, Failure> {
        (self.step)("fsync target directory");
        sync_dir(way.target.dir.as_fd())?;
        // All of the above may have taken long.
        if let Some(refusal) = refused(found, way.order)? {
            return Ok(refusal.answer());
        }
        self.unlink_source(way.source)?;
        Ok(Ended::Answer(Disposal::Done))
    }

    /// Removes the hidden file, if it is there.
    pub(super) fn drop_part(
        &mut self,
        dir: BorrowedFd<'_>,
        order: &Order<'_>,
    ) -> Result<(), Failure> {
        (self.step)("unlink part");
        match unlink(dir, &part_name(order.private)) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(at("unlink part")(errno)),
        }
    }

    /// A new, empty hidden file, or the leftover of an earlier try, emptied. Locked, so that a mover that was given up
    /// but is not dead yet and its successor do not write into one file. `None`: whoever had the lock renamed the file.
    fn open_part(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, Failure> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fresh = flags | OFlag::O_CREAT | OFlag::O_EXCL;
        (self.step)("make part");
        let part = match openat(dir, name, fresh, Mode::from_bits_truncate(0o600)) {
            Ok(part) => part,
            Err(Errno::EEXIST) => {
                let mine =
                    look(dir, name)?.is_some_and(|old| old.is_file() && old.raw.stx_nlink == 1);
                if !mine {
                    return Err(at("open part")(Errno::EEXIST));
                }
                openat(dir, name, flags, Mode::empty()).map_err(at("open part"))?
            }
            Err(errno) => return Err(at("make part")(errno)),
        };
        bytes::lock(part.as_fd()).map_err(at("lock part"))?;
        let own = stat_fd(part.as_fd()).map_err(at("stat part"))?;
        match look(dir, name)? {
            Some(there) if probe::same_inode(&there.raw, &own) => {}
            _ => return Ok(None),
        }
        (self.step)("empty part");
        ftruncate(part.as_fd(), 0).map_err(at("empty part"))?;
        Ok(Some(part))
    }

    fn fill(
        &mut self,
        from: BorrowedFd<'_>,
        part: BorrowedFd<'_>,
        raw: &libc::statx,
    ) -> Result<(), Failure> {
        // Without holes, for nothing reads this copy again before the source is unlinked.
        bytes::copy(&mut self.step, from, part, raw.stx_size, Holes::Fill)?;
        let copied = stat_fd(part).map_err(at("stat part"))?.stx_size;
        if copied != raw.stx_size {
            return Err(at("compare size")(Errno::EIO));
        }
        let (uid, gid) = (Uid::from_raw(raw.stx_uid), Gid::from_raw(raw.stx_gid));
        let mut mode = u32::from(raw.stx_mode) & 0o7777;
        // Without the right to give files away the copy is ours, and must not run as us.
        if fchown(part, Some(uid), Some(gid)).is_err() {
            mode &= 0o777;
        }
        // After the owner, whose change takes the set-id bits away.
        match fchmod(part, Mode::from_bits_truncate(mode)) {
            // Some filesystems have no modes.
            Ok(()) | Err(Errno::EPERM | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(at("set mode")(errno)),
        }
        let time = |t: &libc::statx_timestamp| TimeSpec::new(t.tv_sec, t.tv_nsec.into());
        futimens(part, &time(&raw.stx_atime), &time(&raw.stx_mtime)).map_err(at("set times"))
    }
}

/// Whether what lies at the target is a whole copy: same size and time, and then every byte.
fn is_copy(from: BorrowedFd<'_>, found: &Found, there: &Found) -> Result<bool, Failure> {
    let (old, new) = (stat_of(&found.raw).version, stat_of(&there.raw).version);
    if !there.is_file() || old.size != new.size || !same_time(old.mtime_ns, new.mtime_ns) {
        return Ok(false);
    }
    let copy = match reopen(there.file.as_fd()) {
        Ok(copy) => copy,
        // What cannot be read cannot be ours.
        Err(Errno::EACCES | Errno::EAGAIN) => return Ok(false),
        Err(errno) => return Err(at("open copy")(errno)),
    };
    let (mut one, mut other) = (vec![0; bytes::BUFFER_BYTES], vec![0; bytes::BUFFER_BYTES]);
    let mut offset = 0;
    loop {
        let a = bytes::read_full(from, &mut one, offset)?;
        let b = bytes::read_full(copy.as_fd(), &mut other, offset)?;
        if one.get(..a) != other.get(..b) {
            return Ok(false);
        }
        if a == 0 {
            return Ok(true);
        }
        offset += a as u64;
    }
}
