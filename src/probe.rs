//! Questions about a path. Asked inside a scout, or in a child before it executes its program; never in the
//! daemon, for any of them may take for ever.
//!
//! * A base is reached without symbolic links and must be on its mount; below it `openat2` keeps to that mount and
//!   follows no link (openat2(2)).
//! * Nothing is opened that is not known to be a regular file or a directory: what has the name is first held by an
//!   `O_PATH` descriptor, which reaches no driver and no FIFO, and only then opened through `/proc/self/fd`.
//! * The stat that is reported is taken after the locks and the lease and through the same descriptor: what they
//!   said is true of that version. Opening the file is also what makes an NFS client ask its server.

mod list;

pub use list::Listing;

use crate::core::ask::{Facts, Fault, Held, Kind, Place, Resolved, Stat, Version};
use crate::core::ids::MountId;
use crate::core::{Mount, NotStarted, StartStep};
use crate::sys::file;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, open, openat2, readlink};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Which probes of a file are wanted besides its stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `F_OFD_GETLK`.
    pub lock: bool,
    /// `flock`.
    pub flock: bool,
    /// A read lease.
    pub lease: bool,
}

/// Answers questions. While questions come in a row it keeps the base's descriptor; [`Prober::rest`] drops it.
#[derive(Debug, Default)]
pub struct Prober {
    base: Option<Base>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug)]
struct Base {
    path: Vec<u8>,
    mount: MountId,
    fd: OwnedFd,
}

/// How everything below a base is resolved.
pub(crate) fn below() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV
}

/// To hold what has a name, whatever it is.
pub(crate) const HOLD: OFlag = OFlag::O_PATH
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// To open what is known to be a directory.
pub(crate) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// `openat2`, again where a rename elsewhere disturbed it: EAGAIN is about `..` in [`ResolveFlag::RESOLVE_BENEATH`],
/// and for directories and `O_PATH` it means nothing else.
pub(crate) fn open_below(
    dir: BorrowedFd<'_>,
    rel: &[u8],
    flags: OFlag,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let rel = if rel.is_empty() { b"." } else { rel };
    let mut again = 8;
    loop {
        match openat2(dir, rel, OpenHow::new().flags(flags).resolve(resolve)) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if again > 0 => again -= 1,
            result => return result,
        }
    }
}

/// What failed below a base.
pub(crate) fn fault(errno: Errno) -> Fault {
    match errno {
        Errno::EXDEV | Errno::ELOOP => Fault::Crossed(errno as i32),
        _ => Fault::Here(errno as i32),
    }
}

/// The base, if it is there, reached without a link and on its mount.
fn open_base(path: &[u8], mount: MountId) -> Result<OwnedFd, Fault> {
    let gone = |errno: Errno| Fault::Base(errno as i32);
    let links = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = open_below(AT_FDCWD, path, flags, links).map_err(gone)?;
    let stat = stat_fd(fd.as_fd()).map_err(gone)?;
    if stat.stx_mnt_id != mount.0 {
        return Err(Fault::Base(0));
    }
    Ok(fd)
}

const STAT_MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

/// The stat of what a descriptor holds.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> nix::Result<libc::statx> {
    file::statx(fd, c"", libc::AT_EMPTY_PATH, STAT_MASK)
}

fn nanoseconds(time: &libc::statx_timestamp) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.tv_nsec))
}

/// What a raw stat says; the generation is not in it.
pub(crate) fn stat_of(raw: &libc::statx) -> Stat {
    let kind = match u32::from(raw.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Dir,
        libc::S_IFLNK => Kind::Symlink,
        _ => Kind::Other,
    };
    let has_btime = raw.stx_mask & libc::STATX_BTIME != 0;
    Stat {
        kind,
        version: Version {
            ino: raw.stx_ino,
            btime_ns: if has_btime {
                nanoseconds(&raw.stx_btime)
            } else {
                0
            },
            generation: 0,
            size: raw.stx_size,
            mtime_ns: nanoseconds(&raw.stx_mtime),
        },
        ctime_ns: nanoseconds(&raw.stx_ctime),
    }
}

/// Fills in the generation where it is the only witness. `file` is open for reading.
pub(crate) fn add_generation(version: &mut Version, file: BorrowedFd<'_>) {
    if version.btime_ns == 0 {
        // Where it cannot be asked it stays 0, which is "not known".
        version.generation = file::generation(file).unwrap_or(0);
    }
}

/// Whether the two are one version of one file. A witness that only one of them knows says nothing: the generation is
/// not part of a plain stat.
pub fn same_version(one: &Version, other: &Version) -> bool {
    let agree = |a: i64, b: i64| a == 0 || b == 0 || a == b;
    (one.ino, one.size, one.mtime_ns) == (other.ino, other.size, other.mtime_ns)
        && agree(one.btime_ns, other.btime_ns)
        && agree(one.generation.into(), other.generation.into())
}

/// Opens for reading what `held` holds; the caller knows that it is a regular file.
///
/// # Errors
/// EACCES: it may not be read. EAGAIN: somebody holds a write lease.
pub(crate) fn reopen(held: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(self_path(held).as_str(), flags, Mode::empty())
}

/// The name of a descriptor of this process (proc_pid_fd(5)).
pub(crate) fn self_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Asks for a read lease and gives it back at once.
pub(crate) fn ask_lease(file: BorrowedFd<'_>) -> Held {
    match file::read_lease(file, true) {
        Ok(()) => match file::read_lease(file, false) {
            Ok(()) => Held::Free,
            // Closing the descriptor ends it as well, a moment later.
            Err(errno) => Held::CannotAsk(errno as i32),
        },
        Err(Errno::EAGAIN) => Held::By(0),
        Err(errno) => Held::CannotAsk(errno as i32),
    }
}

fn ask_lock(file: BorrowedFd<'_>) -> Held {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => Held::Free,
        Ok(_) => Held::By(lock.l_pid.max(0)),
        Err(errno) => Held::CannotAsk(errno as i32),
    }
}

fn ask_flock(file: BorrowedFd<'_>) -> Held {
    match file::flock(file, libc::LOCK_SH | libc::LOCK_NB) {
        Ok(()) => match file::flock(file, libc::LOCK_UN) {
            Ok(()) => Held::Free,
            Err(errno) => Held::CannotAsk(errno as i32),
        },
        Err(Errno::EWOULDBLOCK) => Held::By(0),
        Err(errno) => Held::CannotAsk(errno as i32),
    }
}

impl Prober {
    /// A prober that holds nothing.
    pub fn new() -> Prober {
        Prober::default()
    }

    /// Lets go of everything: an idle scout must not keep its mount from being unmounted.
    pub fn rest(&mut self) {
        *self = Prober::default();
    }

    /// The base of `place`.
    ///
    /// # Errors
    /// [`Fault::Base`].
    pub(crate) fn base(&mut self, place: &Place) -> Result<BorrowedFd<'_>, Fault> {
        let known = self
            .base
            .take_if(|base| base.path == place.base && base.mount == place.mount);
        let base = match known {
            Some(base) => base,
            None => Base {
                fd: open_base(&place.base, place.mount)?,
                path: place.base.clone(),
                mount: place.mount,
            },
        };
        Ok(self.base.insert(base).fd.as_fd())
    }

    /// The mount table, read once in a row of questions.
    pub(crate) fn mounts(&mut self) -> Result<&[Mount], Errno> {
        let mounts = match self.mounts.take() {
            Some(mounts) => mounts,
            None => {
                let table = crate::mounts::read()
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
                table.mounts
            }
        };
        Ok(self.mounts.insert(mounts))
    }

    /// Stats a name and, where something is wanted and it is a regular file, opens and probes it.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn probe(&mut self, place: &Place, wanted: Wanted) -> Result<Facts, Fault> {
        let base = self.base(place)?;
        let facts = probe_below(base, &place.rel, wanted);
        if facts == Err(Fault::Here(libc::ESTALE)) {
            // The descriptor of the base may be what is stale.
            self.base = None;
        }
        facts
    }
}

fn probe_below(base: BorrowedFd<'_>, rel: &[u8], wanted: Wanted) -> Result<Facts, Fault> {
    let held = open_below(base, rel, HOLD, below()).map_err(fault)?;
    let stat = stat_of(&stat_fd(held.as_fd()).map_err(fault)?);
    let mut facts = Facts {
        stat,
        lock: Held::NotAsked,
        flock: Held::NotAsked,
        lease: Held::NotAsked,
    };
    if stat.kind != Kind::File || wanted == Wanted::default() {
        return Ok(facts);
    }
    let ask = |wanted: bool, answer: &dyn Fn() -> Held| match wanted {
        true => answer(),
        false => Held::NotAsked,
    };
    match reopen(held.as_fd()) {
        Ok(open) => {
            let open = open.as_fd();
            facts.lock = ask(wanted.lock, &|| ask_lock(open));
            facts.flock = ask(wanted.flock, &|| ask_flock(open));
            facts.lease = ask(wanted.lease, &|| ask_lease(open));
            facts.stat = stat_of(&stat_fd(open).map_err(fault)?);
            add_generation(&mut facts.stat.version, open);
        }
        Err(errno) => {
            let cannot = Held::CannotAsk(errno as i32);
            facts.lock = ask(wanted.lock, &|| cannot);
            facts.flock = ask(wanted.flock, &|| cannot);
            // A write lease kept us out (fcntl(2), "Leases"): whoever holds it may be writing.
            let leased = errno == Errno::EAGAIN;
            facts.lease = ask(wanted.lease, &|| if leased { Held::By(0) } else { cannot });
        }
    }
    Ok(facts)
}

/// The look before an attempt: opens the file if it is still the version that settled and, where `lease`, nobody has it
/// open for writing. Seven system calls; in a child after its privileges were dropped, so with the rights of the job.
///
/// # Errors
/// * [`NotStarted::NotTheFile`]: the base is fine, and the file is not there, is no regular file or another version.
/// * [`NotStarted::StillWritten`]: a writer has it.
/// * [`NotStarted::Failed`] with [`StartStep::OpenFile`]: anything else, the base missing or on another mount
///   (ENODEV) included.
pub fn open_expected(place: &Place, expect: &Version, lease: bool) -> Result<OwnedFd, NotStarted> {
    let failed = |errno: Errno| NotStarted::Failed(StartStep::OpenFile, errno as i32);
    // One walk over base and rest: the mount id of what was found stands for both, and is compared.
    let links = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let held = match open_below(AT_FDCWD, &place.path(), HOLD, links) {
        Ok(held) => held,
        Err(errno @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESTALE)) => {
            // Not there: is it the file that is missing, or all that it was in?
            return Err(match open_base(&place.base, place.mount) {
                Ok(_) if errno != Errno::ESTALE => NotStarted::NotTheFile,
                Ok(_) => failed(errno),
                Err(Fault::Base(0)) => failed(Errno::ENODEV),
                Err(_) => failed(errno),
            });
        }
        Err(errno) => return Err(failed(errno)),
    };
    let raw = stat_fd(held.as_fd()).map_err(failed)?;
    if raw.stx_mnt_id != place.mount.0 {
        return Err(failed(Errno::ENODEV));
    }
    let stat = stat_of(&raw);
    if stat.kind != Kind::File || !same_version(expect, &stat.version) {
        return Err(NotStarted::NotTheFile);
    }
    let open = match reopen(held.as_fd()) {
        Ok(open) => open,
        Err(Errno::EAGAIN) => return Err(NotStarted::StillWritten),
        Err(errno) => return Err(failed(errno)),
    };
    if lease && matches!(ask_lease(open.as_fd()), Held::By(_)) {
        return Err(NotStarted::StillWritten);
    }
    // After the lease, for somebody may have written and closed between the two.
    let mut version = stat_of(&stat_fd(open.as_fd()).map_err(failed)?).version;
    if expect.generation != 0 {
        add_generation(&mut version, open.as_fd());
    }
    if !same_version(expect, &version) {
        return Err(NotStarted::NotTheFile);
    }
    Ok(open)
}

/// Where an absolute path to a directory leads, symbolic links followed.
///
/// # Errors
/// The errno of the first thing that failed; ENOTDIR if it leads to something else, ENOENT if it was moved or removed
/// meanwhile.
pub fn resolve(path: &[u8]) -> Result<Resolved, i32> {
    resolve_path(path).map_err(|errno| errno as i32)
}

fn resolve_path(path: &[u8]) -> nix::Result<Resolved> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty())?;
    let stat = stat_fd(fd.as_fd())?;
    let path = readlink(self_path(fd.as_fd()).as_str())?.into_vec();
    // What the kernel wrote may have been outdated at once, and of a removed directory it is no path at all.
    let links = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let again = open_below(AT_FDCWD, &path, flags, links)?;
    let there = stat_fd(again.as_fd())?;
    if !same_inode(&stat, &there) || stat.stx_mnt_id != there.stx_mnt_id {
        return Err(Errno::ENOENT);
    }
    Ok(Resolved {
        path,
        mount: MountId(stat.stx_mnt_id),
        ident: directory_ident(&stat, fd.as_fd(), 0),
    })
}

/// Whether both are one inode, as far as two stats of one life of the system can tell.
pub(crate) fn same_inode(one: &libc::statx, other: &libc::statx) -> bool {
    let ident = |raw: &libc::statx| {
        let device = (raw.stx_dev_major, raw.stx_dev_minor);
        (device, raw.stx_ino, stat_of(raw).version.btime_ns)
    };
    ident(one) == ident(other)
}

/// A directory's identity. `fd` may be an `O_PATH` descriptor.
fn directory_ident(raw: &libc::statx, fd: BorrowedFd<'_>, mtime_ns: i64) -> Version {
    let mut ident = Version {
        size: 0,
        mtime_ns,
        ..stat_of(raw).version
    };
    if ident.btime_ns == 0
        && let Ok(open) = open_below(fd, b".", DIRECTORY, below())
    {
        add_generation(&mut ident, open.as_fd());
    }
    ident
}
