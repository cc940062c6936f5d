//! Changes to users' files, made inside a scout: a concluded file is unlinked or moved.
//!
//! Invariants, whatever the process was killed in the middle of, and asked again:
//! * The content is at one findable place: under its own name, under its private name, or at its target. Only the
//!   moment between "the copy is durable at its target" and "the source is unlinked" has it at two.
//! * Nothing is overwritten, and nothing but the concluded version is unlinked or moved. The file is held by a
//!   descriptor from the first look on; it first gets its private name, and what that name then means is compared
//!   with the descriptor.
//! * What turns out to be another version goes back under its own name, or, if that has been taken meanwhile, under
//!   the first free numbered one, where the next listing or event finds it.
//! * The concluded version goes back under its own name whenever it is not disposed of after all. If that name has been
//!   taken meanwhile it stays under its private name, for it is still to be disposed of and the next try finds it
//!   there.
//!
//! Steps (`step`) name the system calls that change something, each told just before it is made: tests end the
//! process there.

pub(crate) mod bytes;
mod copy;
pub(crate) mod name;
pub(crate) mod place;

pub use name::{Failure, Rung};

use crate::core::ask::{Act, Disposal, Held, Version, numbered};
use crate::probe::{self, reopen, stat_fd, stat_of};
use name::{Found, NUMBERS_MAX, at, look, unlink};
use nix::errno::Errno;
use place::Target;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is to be disposed of; see [`crate::core::ask::Question::Dispose`].
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The file's path below its base.
    pub rel: &'a [u8],
    /// Its private name, in the same directory.
    pub private: &'a [u8],
    /// Only this version may be touched.
    pub expect: &'a Version,
    /// Ask the lease, where it can be asked.
    pub lease: bool,
    /// What is to be done.
    pub act: &'a Act,
}

/// How [`Mover::dispose`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this answer. `Done` holds once [`Mover::sync`] has succeeded.
    Answer(Disposal),
    /// The target is on another filesystem and copying was not allowed: to be asked again where it is. The file is
    /// under its private name.
    MustCopy,
}

/// Carries out disposals.
pub struct Mover<S> {
    step: S,
    /// Whether files may be copied here and now.
    pub may_copy: bool,
    /// The first way to give a new name that is tried. Others than the default are for tests of filesystems that
    /// are not at hand.
    pub rung: Rung,
    unsynced: Vec<(libc::statx, OwnedFd)>,
}

/// Why a file that was looked at is not to be disposed of.
enum Refusal {
    Changed,
    Busy,
}

impl Refusal {
    fn answer(&self) -> Ended {
        Ended::Answer(match self {
            Refusal::Changed => Disposal::Changed,
            Refusal::Busy => Disposal::Busy,
        })
    }
}

impl<S: FnMut(&'static str)> Mover<S> {
    /// `step` is told of every step just before it; see the head of this file.
    pub fn new(step: S) -> Mover<S> {
        Mover {
            step,
            may_copy: true,
            rung: Rung::NoReplace,
            unsynced: Vec::new(),
        }
    }

    /// Disposes of one file below `base`. Idempotent: asked again it goes on where it was stopped.
    pub fn dispose(&mut self, base: BorrowedFd<'_>, order: &Order<'_>) -> Ended {
        match self.try_dispose(base, order) {
            Ok(ended) => ended,
            Err(Failure { errno, step }) => Ended::Answer(Disposal::Failed {
                errno: errno as i32,
                step: step.into(),
            }),
        }
    }

    /// Makes every directory durable in which a name was changed since the last call.
    ///
    /// # Errors
    /// What fsync(2) said of any of them: no `Done` since then may be believed.
    pub fn sync(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for (_, dir) in std::mem::take(&mut self.unsynced) {
            (self.step)("fsync directory");
            if let Err(failure) = place::sync_dir(dir.as_fd()) {
                result = Err(failure);
            }
        }
        result
    }

    fn sync_later(&mut self, dir: BorrowedFd<'_>) -> Result<(), Failure> {
        let raw = stat_fd(dir).map_err(at("stat directory"))?;
        if !self
            .unsynced
            .iter()
            .any(|(known, _)| probe::same_inode(known, &raw))
        {
            let dir = dir.try_clone_to_owned().map_err(|error| Failure {
                errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
                step: "keep directory",
            })?;
            self.unsynced.push((raw, dir));
        }
        Ok(())
    }

    fn try_dispose(&mut self, base: BorrowedFd<'_>, order: &Order<'_>) -> Result<Ended, Failure> {
        let (parent, name) = place::split(order.rel);
        let dir = match place::open_parent(base, parent) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return self.nowhere(order),
            Err(errno) => return Err(at("open directory")(errno)),
        };
        let mut source = Source {
            dir: dir.as_fd(),
            name,
            private: order.private,
            target: None,
        };
        let mut found = match self.resume(&mut source, order)? {
            Some(found) => found,
            None => match self.claim(&mut source, order)? {
                Claim::Claimed(found) => *found,
                Claim::Nowhere => return self.nowhere(order),
                Claim::Refused(refusal) => return Ok(refusal.answer()),
            },
        };
        match self.act(&source, &mut found, order) {
            Ok(Ended::Answer(Disposal::Changed)) => {
                self.put_back_stranger(&source)?;
                Ok(Ended::Answer(Disposal::Changed))
            }
            Ok(Ended::Answer(answer @ (Disposal::Busy | Disposal::Taken(_)))) => {
                self.put_back(&source)?;
                Ok(Ended::Answer(answer))
            }
            Err(failure) => {
                // What failed first is what the answer says. Without its name back the file is where the next try
                // looks first.
                let _stays_private = self.put_back(&source);
                Err(failure)
            }
            ended => ended,
        }
    }

    /// The file under its private name, if an earlier try gave it that.
    fn resume(
        &mut self,
        source: &mut Source<'_>,
        order: &Order<'_>,
    ) -> Result<Option<Found>, Failure> {
        let Some(mut private) = look(source.dir, source.private)? else {
            return Ok(None);
        };
        if private.is(order.expect)? {
            if let Some(own) = look(source.dir, source.name)?
                && (probe::same_inode(&own.raw, &private.raw) || own.is_placeholder())
            {
                // The earlier try was stopped between two halves of a rename.
                (self.step)("unlink second name");
                unlink(source.dir, source.name).map_err(at("unlink second name"))?;
            }
            return Ok(Some(private));
        }
        if private.is_placeholder() {
            (self.step)("unlink placeholder");
            unlink(source.dir, source.private).map_err(at("unlink placeholder"))?;
        } else {
            self.put_back_stranger(source)?;
        }
        Ok(None)
    }

    /// Looks at the file under its own name, and gives it its private one.
    fn claim(&mut self, source: &mut Source<'_>, order: &Order<'_>) -> Result<Claim, Failure> {
        let Some(mut own) = look(source.dir, source.name)? else {
            return Ok(Claim::Nowhere);
        };
        // Asked before anything is changed, so that nobody sees a busy file's name come and go.
        if let Some(refusal) = refused(&mut own, order)? {
            return Ok(Claim::Refused(refusal));
        }
        if let Act::Move { dir, rel } = order.act {
            // Likewise: without a target it stays where it is.
            source.target = Some(place::open_target(&mut self.step, dir, rel)?);
        }
        (self.step)("claim");
        match self.rename_new(source.dir, source.name, source.dir, source.private) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(Claim::Nowhere),
            Err(errno) => return Err(at("rename to private name")(errno)),
        }
        match look(source.dir, source.private)? {
            Some(private) if probe::same_inode(&private.raw, &own.raw) => {
                Ok(Claim::Claimed(Box::new(own)))
            }
            Some(_) => {
                self.put_back_stranger(source)?;
                Ok(Claim::Refused(Refusal::Changed))
            }
            None => Ok(Claim::Nowhere),
        }
    }

    /// Unlinks or moves the file that now has its private name.
    fn act(
        &mut self,
        source: &Source<'_>,
        found: &mut Found,
        order: &Order<'_>,
    ) -> Result<Ended, Failure> {
        if let Some(refusal) = refused(found, order)? {
            return Ok(refusal.answer());
        }
        match order.act {
            Act::Delete => {
                self.unlink_source(source)?;
                Ok(Ended::Answer(Disposal::Done))
            }
            Act::Move { dir, rel } => {
                let opened;
                let target = match &source.target {
                    Some(target) => target,
                    None => {
                        opened = place::open_target(&mut self.step, dir, rel)?;
                        &opened
                    }
                };
                let way = Way {
                    source,
                    target,
                    order,
                };
                self.move_to(&way, found)
            }
        }
    }

    fn unlink_source(&mut self, source: &Source<'_>) -> Result<(), Failure> {
        (self.step)("unlink");
        unlink(source.dir, source.private).map_err(at("unlink"))?;
        self.sync_later(source.dir)
    }

    fn move_to(&mut self, way: &Way<'_>, found: &mut Found) -> Result<Ended, Failure> {
        let Way { source, target, .. } = *way;
        (self.step)("rename");
        let renamed = self.rename_new(source.dir, source.private, target.dir.as_fd(), &target.name);
        match renamed {
            Ok(()) => {
                self.sync_later(target.dir.as_fd())?;
                self.sync_later(source.dir)?;
                Ok(Ended::Answer(Disposal::Done))
            }
            Err(Errno::EEXIST) => match look(target.dir.as_fd(), &target.name)? {
                Some(there) if probe::same_inode(&there.raw, &found.raw) => {
                    // Linked there already: an earlier try, or one that the server answered twice.
                    self.sync_later(target.dir.as_fd())?;
                    self.unlink_source(source)?;
                    Ok(Ended::Answer(Disposal::Done))
                }
                // The kernel looks for the name before it looks at filesystems (link(2); rename(2) between
                // subvolumes): it may be our own copy.
                Some(there) if is_elsewhere(&there.raw, &found.raw) => {
                    self.go_elsewhere(way, found)
                }
                _ => self.taken(way),
            },
            Err(Errno::EXDEV) => self.go_elsewhere(way, found),
            Err(errno) => Err(at("rename to target")(errno)),
        }
    }

    fn go_elsewhere(&mut self, way: &Way<'_>, found: &mut Found) -> Result<Ended, Failure> {
        if self.may_copy {
            self.copy_to(way, found)
        } else {
            Ok(Ended::MustCopy)
        }
    }

    fn taken(&mut self, way: &Way<'_>) -> Result<Ended, Failure> {
        for n in 1..=NUMBERS_MAX {
            if look(way.target.dir.as_fd(), &numbered(way.source.name, n))?.is_none() {
                return Ok(Ended::Answer(Disposal::Taken(n)));
            }
        }
        Err(at("find a free name")(Errno::EEXIST))
    }

    /// The file is under neither of its names.
    fn nowhere(&mut self, order: &Order<'_>) -> Result<Ended, Failure> {
        let Act::Move { dir, rel } = order.act else {
            return Ok(Ended::Answer(Disposal::Gone));
        };
        let Some(target) = place::find_target(dir, rel)? else {
            return Ok(Ended::Answer(Disposal::Gone));
        };
        let arrived = look(target.dir.as_fd(), &target.name)?.is_some_and(|there| {
            let now = stat_of(&there.raw).version;
            let moved = (now.ino, now.mtime_ns) == (order.expect.ino, order.expect.mtime_ns);
            there.is_file()
                && now.size == order.expect.size
                && (moved || copy::same_time(now.mtime_ns, order.expect.mtime_ns))
        });
        if arrived {
            self.sync_later(target.dir.as_fd())?;
            return Ok(Ended::Answer(Disposal::Done));
        }
        // Of a copy whose source was taken away nothing is to stay.
        self.drop_part(target.dir.as_fd(), order)?;
        Ok(Ended::Answer(Disposal::Gone))
    }

    /// The concluded version gets its own name back, if nobody has taken that.
    fn put_back(&mut self, source: &Source<'_>) -> Result<(), Failure> {
        (self.step)("put back");
        match self.rename_new(source.dir, source.private, source.dir, source.name) {
            Ok(()) => self.sync_later(source.dir),
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(at("put back")(errno)),
        }
    }

    /// Another version gets its name back, or a numbered one.
    fn put_back_stranger(&mut self, source: &Source<'_>) -> Result<(), Failure> {
        (self.step)("put back");
        let mut name = source.name.to_vec();
        for n in 1..=NUMBERS_MAX {
            match self.rename_new(source.dir, source.private, source.dir, &name) {
                Ok(()) => return self.sync_later(source.dir),
                Err(Errno::EEXIST) => name = numbered(source.name, n),
                Err(errno) => return Err(at("put back")(errno)),
            }
        }
        Err(at("put back")(Errno::EEXIST))
    }

    /// See [`name::rename_new`].
    fn rename_new(
        &mut self,
        from_dir: BorrowedFd<'_>,
        from: &[u8],
        to_dir: BorrowedFd<'_>,
        to: &[u8],
    ) -> nix::Result<()> {
        name::rename_new(self.rung, &mut self.step, (from_dir, from), (to_dir, to))
    }
}

/// Where the file comes from.
struct Source<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    private: &'a [u8],
    /// Where it goes, once that is open.
    target: Option<Target>,
}

/// From where to where, and whose wish it is.
#[derive(Clone, Copy)]
struct Way<'a> {
    source: &'a Source<'a>,
    target: &'a Target,
    order: &'a Order<'a>,
}

enum Claim {
    Claimed(Box<Found>),
    Nowhere,
    Refused(Refusal),
}

/// Asks version and lease, in that order and the version again.
fn refused(found: &mut Found, order: &Order<'_>) -> Result<Option<Refusal>, Failure> {
    if !found.is(order.expect)? {
        return Ok(Some(Refusal::Changed));
    }
    if !order.lease {
        return Ok(None);
    }
    let held = match reopen(found.file.as_fd()) {
        Ok(open) => probe::ask_lease(open.as_fd()),
        Err(Errno::EAGAIN) => Held::By(0),
        Err(errno) => Held::CannotAsk(errno as i32),
    };
    if matches!(held, Held::By(_)) {
        return Ok(Some(Refusal::Busy));
    }
    Ok((!found.is(order.expect)?).then_some(Refusal::Changed))
}

/// Whether a rename between the two would cross filesystems or mounts.
fn is_elsewhere(one: &libc::statx, other: &libc::statx) -> bool {
    let lies = |raw: &libc::statx| (raw.stx_dev_major, raw.stx_dev_minor, raw.stx_mnt_id);
    lies(one) != lies(other)
}
