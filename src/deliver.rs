//! A delivery: the file that is open on descriptor 3 is copied into another directory, in a process of its own that
//! executes this program (`settled deliver-file`, whose arguments [`crate::core::delivery`] writes and reads).
//!
//! Invariants, whatever the process was killed in the middle of:
//! * Under the copy's own name there is nothing, or what was there before, or the whole copy, durable with its mode, owner
//!   and times. Until then it has a hidden name that every watch excludes.
//! * Nothing is overwritten unless that was asked for, and then in one step.
//! * A hidden file is locked by whoever fills it. One whose lock can be had was left by somebody who is dead; the next
//!   attempt of its job removes it, and so does `settled sweep`.
//!
//! The target directory may be reached through symbolic links, for the administrator named it; below it none is
//! followed, and other filesystems may be mounted there.
//!
//! Steps are named as in [`crate::mover`].

mod check;
mod command;
mod sweep;

pub use command::{deliver_file, sweep_directory};
pub use sweep::{Swept, sweep};

use crate::core::ask::numbered;
use crate::core::delivery::DeliverOrder;
use crate::mover::bytes::{self, Holes};
use crate::mover::name::{self, NUMBERS_MAX, at, look, unlink};
use crate::mover::{Failure, Rung, place};
use crate::plan::{DeliverCheck, OnConflict};
use crate::probe::{self, stat_fd, stat_of};
use check::Digest;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fsync};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often a hidden file is made before it is believed that somebody else takes it away every time.
const MAKE_TRIES: u32 = 8;

/// How a delivery ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The copy has this path below the target directory.
    As(Vec<u8>),
    /// So it had before: an earlier attempt was cut short after its last step.
    Before(Vec<u8>),
    /// Something has the name, and was to be left.
    Skipped,
}

/// Why there is no copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// A system call failed.
    Failed(Failure),
    /// The source is not the version that was to be delivered, or not any more.
    Changed,
    /// What was read back differs in this.
    Differs(&'static str),
    /// Something has the name, and that was to be an error; or a directory has it, which cannot be replaced.
    Conflict,
}

impl From<Failure> for Undelivered {
    fn from(failure: Failure) -> Undelivered {
        Undelivered::Failed(failure)
    }
}

/// Carries out deliveries.
pub struct Deliverer<S> {
    step: S,
    /// The first way to give a new name that is tried; see [`crate::mover::Mover`].
    pub rung: Rung,
}

/// Where the copy goes.
struct Target<'a> {
    top: OwnedFd,
    /// The directory of its name.
    dir: OwnedFd,
    /// Path of that below the top, with a slash at its end where it is not empty.
    parent: &'a [u8],
    name: &'a [u8],
    temporary: Vec<u8>,
    /// Names can be moved from the top to the directory.
    together: bool,
}

impl<S: FnMut(&'static str)> Deliverer<S> {
    /// `step` is told of every step just before it; see the head of [`crate::mover`].
    pub fn new(step: S) -> Deliverer<S> {
        Deliverer {
            step,
            rung: Rung::NoReplace,
        }
    }

    /// Delivers the file that `source` holds open for reading. What `Ok` says is durable.
    ///
    /// # Errors
    /// See [`Undelivered`]: nothing is visible then, unless the last step, making the directory durable, is what failed.
    pub fn deliver(
        &mut self,
        source: BorrowedFd<'_>,
        order: &DeliverOrder,
    ) -> Result<Delivered, Undelivered> {
        // Before anything is read, so with the time of the last access that was not ours.
        let raw = self.expect_unchanged(source, order)?;
        let mut target = self.open_target(order)?;
        self.drop_leftover(target.top.as_fd(), &target.temporary)?;
        if !target.together || (order.recovered && !target.parent.is_empty()) {
            self.drop_leftover(target.dir.as_fd(), &target.temporary)?;
        }
        if order.recovered
            && let Some(name) = self.find_delivered(source, order, &target)?
        {
            self.sync(&target)?;
            return Ok(Delivered::Before(name));
        }
        // Asked before so much is copied for nothing; what counts is what the rename says.
        if let Some(there) = look(target.dir.as_fd(), target.name)?
            && !there.is_placeholder()
        {
            match order.on_conflict {
                OnConflict::Skip | OnConflict::Fail => return self.taken(order.on_conflict),
                OnConflict::Replace if there.is_dir() => return Err(Undelivered::Conflict),
                OnConflict::Replace | OnConflict::Rename => {}
            }
        }
        let delivered = match self.copy((source, &raw), order, &target) {
            Err(Undelivered::Failed(Failure {
                errno: Errno::EXDEV,
                ..
            })) if target.together => {
                // Subvolumes and project quotas are borders that no number of a filesystem or a mount shows.
                target.together = false;
                self.drop_leftover(target.dir.as_fd(), &target.temporary)?;
                self.copy((source, &raw), order, &target)?
            }
            result => result?,
        };
        if delivered != Delivered::Skipped {
            self.sync(&target)?;
        }
        Ok(delivered)
    }

    fn open_target<'a>(&mut self, order: &'a DeliverOrder) -> Result<Target<'a>, Failure> {
        let top = place::open_or_make_top(&mut self.step, &order.to)?;
        let (parent, name) = place::split(&order.rel);
        let below = top.try_clone().map_err(|error| Failure {
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
            step: "keep directory",
        })?;
        let dir = place::open_or_make_below(&mut self.step, below, parent)?;
        let lies = |raw: libc::statx| (raw.stx_dev_major, raw.stx_dev_minor, raw.stx_mnt_id);
        let one = stat_fd(top.as_fd()).map_err(at("stat target directory"))?;
        let other = stat_fd(dir.as_fd()).map_err(at("stat target directory"))?;
        Ok(Target {
            top,
            dir,
            parent,
            name,
            temporary: order.temporary(),
            together: lies(one) == lies(other),
        })
    }

    fn expect_unchanged(
        &mut self,
        source: BorrowedFd<'_>,
        order: &DeliverOrder,
    ) -> Result<libc::statx, Undelivered> {
        let raw = stat_fd(source).map_err(at("stat source"))?;
        let version = stat_of(&raw).version;
        if (version.size, version.mtime_ns) != (order.size, order.mtime_ns) {
            return Err(Undelivered::Changed);
        }
        Ok(raw)
    }

    fn taken(&self, on_conflict: OnConflict) -> Result<Delivered, Undelivered> {
        match on_conflict {
            OnConflict::Skip => Ok(Delivered::Skipped),
            OnConflict::Rename | OnConflict::Replace | OnConflict::Fail => {
                Err(Undelivered::Conflict)
            }
        }
    }

    /// The path of a copy that an earlier attempt gave its name.
    fn find_delivered(
        &mut self,
        source: BorrowedFd<'_>,
        order: &DeliverOrder,
        target: &Target<'_>,
    ) -> Result<Option<Vec<u8>>, Undelivered> {
        let mut own: Option<Digest> = None;
        let mut name = target.name.to_vec();
        for n in 1..=NUMBERS_MAX {
            let Some(there) = look(target.dir.as_fd(), &name)? else {
                break;
            };
            if there.is_file() && there.raw.stx_size == order.size {
                let own = match own {
                    Some(own) => own,
                    None => *own.insert(check::digest(source)?),
                };
                if check::is_durable_copy(there.file.as_fd(), own)? {
                    self.expect_unchanged(source, order)?;
                    return Ok(Some([target.parent, &name].concat()));
                }
            }
            if order.on_conflict != OnConflict::Rename {
                break;
            }
            name = numbered(target.name, n);
        }
        Ok(None)
    }

    /// Fills a hidden file and gives it its name. When this fails the file is removed.
    fn copy(
        &mut self,
        source: (BorrowedFd<'_>, &libc::statx),
        order: &DeliverOrder,
        target: &Target<'_>,
    ) -> Result<Delivered, Undelivered> {
        let hidden_in = target.hidden_in();
        // Its lock is held until the process ends, or this returns.
        let hidden = self.make_hidden(hidden_in, &target.temporary)?;
        let filled = self.fill(source, hidden.as_fd(), order);
        let named = filled.and_then(|()| self.give_name(order, target));
        if !matches!(named, Ok(Delivered::As(_))) {
            (self.step)("unlink hidden file");
            match (unlink(hidden_in, &target.temporary), &named) {
                (Ok(()) | Err(Errno::ENOENT), _) => {}
                (Err(errno), Ok(_)) => return Err(at("unlink hidden file")(errno).into()),
                // What failed first is what is reported; the next attempt begins with removing what is left.
                (Err(_), Err(_)) => {}
            }
        }
        named
    }

    /// A new, empty, locked file.
    fn make_hidden(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Failure> {
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        for _ in 0..MAKE_TRIES {
            (self.step)("make hidden file");
            let hidden = match openat(dir, name, flags, Mode::from_bits_truncate(0o600)) {
                Ok(hidden) => hidden,
                Err(Errno::EEXIST) => {
                    self.drop_leftover(dir, name)?;
                    continue;
                }
                Err(errno) => return Err(at("make hidden file")(errno)),
            };
            (self.step)("lock hidden file");
            bytes::lock(hidden.as_fd()).map_err(at("lock hidden file"))?;
            // A sweep may have come between the two.
            let own = stat_fd(hidden.as_fd()).map_err(at("stat hidden file"))?;
            if look(dir, name)?.is_some_and(|there| probe::same_inode(&there.raw, &own)) {
                return Ok(hidden);
            }
        }
        Err(at("make hidden file")(Errno::EEXIST))
    }

    /// Removes what an earlier attempt left, once it is dead.
    fn drop_leftover(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
        let Some(left) = look(dir, name)? else {
            return Ok(());
        };
        // What cannot be opened cannot be locked; then that there is one attempt at a time has to do.
        if left.is_file()
            && let Ok(open) = sweep::open_for_lock(dir, name)
        {
            bytes::lock(open.as_fd()).map_err(at("lock what an earlier attempt left"))?;
        }
        (self.step)("unlink leftover");
        match unlink(dir, name) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(at("unlink what an earlier attempt left")(errno)),
        }
    }

    /// Makes the hidden file all that the copy is to be, and durable.
    fn fill(
        &mut self,
        (source, raw): (BorrowedFd<'_>, &libc::statx),
        hidden: BorrowedFd<'_>,
        order: &DeliverOrder,
    ) -> Result<(), Undelivered> {
        bytes::copy(&mut self.step, source, hidden, order.size, Holes::Keep)?;
        self.expect_unchanged(source, order)?;
        (self.step)("set attributes");
        set_attributes(hidden, order, raw)?;
        (self.step)("fsync copy");
        fsync(hidden).map_err(at("fsync copy"))?;
        (self.step)("check");
        let size = stat_fd(hidden).map_err(at("stat copy"))?.stx_size;
        if size != order.size {
            return Err(Undelivered::Differs("size"));
        }
        if order.verify == DeliverCheck::Sha256 {
            let own = check::digest(source)?;
            let copy = check::digest_from_disk(hidden)?;
            // A source that was written to meanwhile is no damage.
            self.expect_unchanged(source, order)?;
            if own != copy {
                return Err(Undelivered::Differs("SHA-256"));
            }
        }
        Ok(())
    }

    fn give_name(
        &mut self,
        order: &DeliverOrder,
        target: &Target<'_>,
    ) -> Result<Delivered, Undelivered> {
        let (from_dir, to_dir) = (target.hidden_in(), target.dir.as_fd());
        let named = |name: &[u8]| Ok(Delivered::As([target.parent, name].concat()));
        if order.on_conflict == OnConflict::Replace {
            (self.step)("rename");
            return match renameat(from_dir, target.temporary.as_slice(), to_dir, target.name) {
                Ok(()) => named(target.name),
                Err(Errno::EISDIR) => Err(Undelivered::Conflict),
                Err(errno) => Err(at("rename copy")(errno).into()),
            };
        }
        let mut name = target.name.to_vec();
        for n in 1..=NUMBERS_MAX {
            (self.step)("rename");
            let from = (from_dir, target.temporary.as_slice());
            match name::rename_new(self.rung, &mut self.step, from, (to_dir, &name)) {
                Ok(()) => return named(&name),
                Err(Errno::EEXIST) if order.on_conflict == OnConflict::Rename => {
                    name = numbered(target.name, n);
                }
                Err(Errno::EEXIST) => return self.taken(order.on_conflict),
                Err(errno) => return Err(at("rename copy")(errno).into()),
            }
        }
        Err(at("find a free name")(Errno::EEXIST).into())
    }

    /// Makes the names durable.
    fn sync(&mut self, target: &Target<'_>) -> Result<(), Failure> {
        (self.step)("fsync directory");
        place::sync_dir(target.dir.as_fd())?;
        if !target.parent.is_empty() {
            (self.step)("fsync top directory");
            place::sync_dir(target.top.as_fd())?;
        }
        Ok(())
    }
}

impl Target<'_> {
    /// The directory that holds the hidden file: the top, where a sweep looks, if names can be moved from there.
    fn hidden_in(&self) -> BorrowedFd<'_> {
        match self.together {
            true => self.top.as_fd(),
            false => self.dir.as_fd(),
        }
    }
}

fn set_attributes(
    hidden: BorrowedFd<'_>,
    order: &DeliverOrder,
    source: &libc::statx,
) -> Result<(), Failure> {
    let (uid, gid) = order.owner;
    if uid.is_some() || gid.is_some() {
        fchown(hidden, uid.map(Uid::from_raw), gid.map(Gid::from_raw)).map_err(at("set owner"))?;
    }
    // Without its owner the copy does not run as that. After the owner, whose change takes the set-id bits away.
    let mode = order.mode.unwrap_or(u32::from(source.stx_mode) & 0o777);
    match fchmod(hidden, Mode::from_bits_truncate(mode)) {
        Ok(()) => {}
        // Some filesystems have no modes.
        Err(Errno::EPERM | Errno::EOPNOTSUPP) if order.mode.is_none() => {}
        Err(errno) => return Err(at("set mode")(errno)),
    }
    if order.keep_times {
        let time = |t: &libc::statx_timestamp| TimeSpec::new(t.tv_sec, t.tv_nsec.into());
        futimens(hidden, &time(&source.stx_atime), &time(&source.stx_mtime))
            .map_err(at("set times"))?;
    }
    Ok(())
}
