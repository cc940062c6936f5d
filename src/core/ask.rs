//! What the core asks about the disk, and what a scout answers.
//!
//! A question names a [`Place`]: a base directory by absolute path, and a path below it. The base is the
//! root of a watch (or of another mount inside it), reached without symbolic links; everything below is
//! opened with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`
//! (openat2(2)).

use super::ids::MountId;
use serde::{Deserialize, Serialize};

/// Where a file or directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Absolute path of the base directory, no symbolic link in it.
    #[serde(with = "serde_bytes")]
    pub base: Vec<u8>,
    /// The mount that the base must be on. Another one there now is [`Fault::Base`].
    pub mount: MountId,
    /// Path below the base without leading slash; empty is the base itself.
    #[serde(with = "serde_bytes")]
    pub rel: Vec<u8>,
}

impl Place {
    /// The absolute path.
    pub fn path(&self) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.base.len() + 1 + self.rel.len());
        path.extend_from_slice(&self.base);
        if !self.rel.is_empty() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(&self.rel);
        }
        path
    }
}

/// The version of a file's content, as far as stat can tell: two files with equal versions are the
/// same arrival. See DESIGN, "Identity".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Inode number.
    pub ino: u64,
    /// Birth time in nanoseconds since 1970 (statx `STATX_BTIME`); 0 where the filesystem has none.
    pub btime_ns: i64,
    /// Inode generation (`FS_IOC_GETVERSION`), taken only where there is no birth time; else 0.
    pub generation: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link: never followed.
    Symlink,
    /// FIFO, socket or device: never opened.
    Other,
}

/// One stat of a name, taken without following a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Identity, size and mtime.
    pub version: Version,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// The answer of a lock or lease probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// Nobody: the file is free as far as this probe can tell.
    Free,
    /// Somebody; the process where the kernel tells it (F_OFD_GETLK: 0 if unknown or an OFD lock).
    By(i32),
    /// The probe cannot be asked here; the errno says why (EACCES, EINVAL, ENOLCK, ...).
    /// Never to be read as "nobody".
    CannotAsk(i32),
    /// Was not part of the question.
    NotAsked,
}

/// Everything one probe of a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Taken through the same descriptor as the locks and the lease, after them.
    pub stat: Stat,
    /// `F_OFD_GETLK` for a write lock over the whole file.
    pub lock: Held,
    /// `flock(LOCK_SH | LOCK_NB)`.
    pub flock: Held,
    /// `F_SETLEASE F_RDLCK`, given back at once: `By(0)` when a writer has the file open or mapped.
    pub lease: Held,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The base cannot be reached (errno), or is on another mount now (errno 0). Says nothing
    /// about the files below.
    Base(i32),
    /// The base is fine, this place gave the errno. ENOENT and ENOTDIR: it is not there.
    Here(i32),
    /// A mount point or a symbolic link lies on the way (EXDEV, ELOOP).
    Crossed(i32),
}

/// A question for the scout of one mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Where does this absolute path lead? Follows symbolic links; asked to a resolver, a scout
    /// that belongs to no mount and lives for one answer. Answer: [`Answer::Resolved`].
    Resolve {
        /// The path as configured.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
    /// Watch (where `watch`) and then list a directory. Answers: [`Answer::Bound`], then any number of
    /// [`Answer::Entries`], then [`Answer::Listed`]; or `Bound(Err)` alone.
    Bind {
        /// The directory.
        place: Place,
        /// Add an inotify watch with `mask` first.
        watch: bool,
    },
    /// When did the names in a directory change last? It is opened afresh, so that an NFS client asks its server. Answer:
    /// [`Answer::Moved`].
    Moved {
        /// The directory.
        place: Place,
    },
    /// Stat, and where the flags say so open and probe a file. Answer: [`Answer::Probed`].
    Probe {
        /// The file.
        place: Place,
        /// Ask `F_OFD_GETLK`.
        lock: bool,
        /// Ask `flock`.
        flock: bool,
        /// Ask for a read lease.
        lease: bool,
    },
    /// Which directories does this machine export over NFS? Asked to a scout of its own, that belongs to no mount and
    /// lives for one answer: [`Answer::Exports`]. Where the tables are is watched by inotify first.
    Exports,
    /// Dispose of a concluded file. Answer: [`Answer::Disposed`]. Idempotent: asked again after a crash
    /// at any point, it finishes what was begun.
    Dispose {
        /// The file under its own name.
        place: Place,
        /// The name in the same directory that it gets while it is being disposed of.
        #[serde(with = "serde_bytes")]
        private: Vec<u8>,
        /// Only this version may be touched.
        expect: Version,
        /// Ask the lease before the last step, where it can be asked.
        lease: bool,
        /// What is to be done.
        act: Act,
    },
}

/// What a disposal does with the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Unlink it.
    Delete,
    /// Move it to `dir/rel`, never over another file; missing directories are made. Across filesystems:
    /// copy, fsync, rename, fsync of the directory, unlink.
    Move {
        /// Absolute path of the target directory, as configured and expanded.
        #[serde(with = "serde_bytes")]
        dir: Vec<u8>,
        /// Path of the file below it.
        #[serde(with = "serde_bytes")]
        rel: Vec<u8>,
    },
}

/// A directory that clients of this machine's NFS server may write to, as it is seen on one mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedTree {
    /// The mount on which it is seen. What is mounted below it is another tree, or not exported.
    pub mount: MountId,
    /// Its absolute path there.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Its path in the export table: another one where it is seen through a bind mount.
    #[serde(with = "serde_bytes")]
    pub export: Vec<u8>,
    /// To whom, with which options, and which file says so.
    pub why: String,
}

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exports {
    /// All trees; or what could not be read, and why: nothing is known then.
    pub trees: Result<Vec<ExportedTree>, String>,
    /// Watch descriptors of the directories where the tables are.
    pub wds: Vec<i32>,
}

/// A root's whereabouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The absolute path without symbolic links.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// The mount it is on.
    pub mount: MountId,
    /// Which directory it is (size and mtime are not meaningful here).
    pub ident: Version,
}

/// A directory that was opened, watched and is about to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The watch descriptor, or the errno (ENOSPC: no watch left); absent if none was wanted.
    pub wd: Option<Result<i32, i32>>,
    /// Which directory it is: `ino`, `btime_ns`, `generation`, and `mtime_ns` of the directory.
    pub ident: Version,
    /// Its change time, from before the first of its names was read.
    pub ctime_ns: i64,
}

/// Which directory it is, and when its names changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirTimes {
    /// Inode number.
    pub ino: u64,
    /// Birth time, 0 if unknown.
    pub btime_ns: i64,
    /// Change time, by the clock of whoever keeps the directory: nobody can set it back.
    pub ctime_ns: i64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its stat. Names that vanished between listing and stat are left out; ENOENT means that a second listing has it and
    /// it still cannot be found, as on an NFS client that remembers for a while that it was not there.
    pub stat: Result<Stat, i32>,
}

/// How a disposal ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposal {
    /// Unlinked, or at its target.
    Done,
    /// The file is neither under its name nor under its private name nor (for a move) at its target.
    Gone,
    /// What lies there is not the concluded version; it was left, or put back, under its name.
    Changed,
    /// Somebody has it open for writing.
    Busy,
    /// The target exists and is another file; `n` is the first for which `numbered` of the last name of the
    /// `rel` that was asked for is free.
    Taken(u32),
    /// A system call failed. The source is still there, under its own name where that was possible.
    Failed {
        /// The errno.
        errno: i32,
        /// Which step, for the log: "open target directory", "copy", "fsync", ...
        step: String,
    },
}

/// What a scout says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Resolve`]; the errno of the first thing that failed.
    Resolved(Result<Resolved, i32>),
    /// To [`Question::Exports`].
    Exports(Exports),
    /// First answer to [`Question::Bind`].
    Bound(Result<Bound, Fault>),
    /// A part of the listing.
    Entries(Vec<Entry>),
    /// The end of the listing. `Ok` only if it was complete and the directory was still the same one
    /// under the same path at its end.
    Listed(Result<(), Fault>),
    /// To [`Question::Moved`].
    Moved(Result<DirTimes, Fault>),
    /// To [`Question::Probe`].
    Probed(Result<Facts, Fault>),
    /// To [`Question::Dispose`]. A `Fault` here is only ever about the source's base.
    Disposed(Result<Disposal, Fault>),
}

impl Answer {
    /// No further answer to the same question follows.
    pub fn is_last(&self) -> bool {
        !matches!(self, Answer::Bound(Ok(_)) | Answer::Entries(_))
    }
}

/// The name with `n` put before its extension: `a.csv` and 1 give `a.1.csv`, `README` gives `README.1`,
/// `.profile` gives `.profile.1`. A name that would pass 255 bytes loses the end of its stem.
pub fn numbered(name: &[u8], n: u32) -> Vec<u8> {
    let dot = name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0);
    let (stem, ext) = name.split_at(dot.unwrap_or(name.len()));
    let number = format!(".{n}");
    let ext = if ext.len() + number.len() > 200 {
        &[]
    } else {
        ext
    };
    let room = 255 - ext.len() - number.len();
    let mut out = stem[..stem.len().min(room)].to_vec();
    out.extend_from_slice(number.as_bytes());
    out.extend_from_slice(ext);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names() {
        assert_eq!(numbered(b"a.csv", 1), b"a.1.csv");
        assert_eq!(numbered(b"README", 12), b"README.12");
        assert_eq!(numbered(b".profile", 1), b".profile.1");
        assert_eq!(numbered(&[b'x'; 255], 7).len(), 255);
        assert!(numbered(&[b'x'; 255], 7).ends_with(b".7"));
        let long_ext = [b"a.".as_slice(), &[b'e'; 253]].concat();
        assert!(numbered(&long_ext, 7).len() <= 255);
    }
}
