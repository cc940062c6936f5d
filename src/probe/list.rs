//! Watching and listing a directory.

use super::{
    DIRECTORY, Prober, STAT_MASK, below, directory_ident, fault, open_below, same_inode, self_path,
    stat_fd, stat_of,
};
use crate::core::ask::{Answer, Bound, DirTimes, Entry, Fault, Kind, Place, Stat, Version};
use crate::core::mask;
use crate::sys::file;
use inotify::{WatchMask, Watches};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of directory records read at once.
const DENTS_BYTES: usize = 32 * 1024;

/// An answer is sent when its names and stats have come to about this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// About what an [`Entry`] needs on the wire besides its name.
const ENTRY_BYTES: usize = 48;

impl Prober {
    /// Answers `Question::Bind`: watches the directory where `watches` is given, then lists it. What is created after
    /// [`Answer::Bound`] gives an event, what was there before is in the listing.
    ///
    /// A name on which another filesystem is mounted is not looked at, for that belongs to another scout: it is
    /// listed as a directory whose version is all zero, or with EXDEV if it is none.
    pub fn bind(
        &mut self,
        place: &Place,
        watches: Option<&mut Watches>,
        say: &mut dyn FnMut(Answer),
    ) {
        let dir = match self.open_dir(place) {
            Ok(dir) => dir,
            Err(fault) => return say(Answer::Bound(Err(fault))),
        };
        let raw = match stat_fd(dir.as_fd()) {
            Ok(raw) => raw,
            Err(errno) => return say(Answer::Bound(Err(fault(errno)))),
        };
        let mtime_ns = stat_of(&raw).version.mtime_ns;
        let ident = directory_ident(&raw, dir.as_fd(), mtime_ns);
        let wd = watches.map(|watches| add_watch(watches, dir.as_fd()));
        say(Answer::Bound(Ok(Bound { wd, ident })));
        let listed = self
            .list(place, dir.as_fd(), say)
            .and_then(|()| self.still_there(place, &raw));
        say(Answer::Listed(listed));
    }

    /// Answers `Question::Moved`.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn moved(&mut self, place: &Place) -> Result<DirTimes, Fault> {
        let dir = self.open_dir(place)?;
        let raw = stat_fd(dir.as_fd()).map_err(fault)?;
        let stat = stat_of(&raw);
        Ok(DirTimes {
            ino: stat.version.ino,
            btime_ns: stat.version.btime_ns,
            ctime_ns: stat.ctime_ns,
        })
    }

    fn open_dir(&mut self, place: &Place) -> Result<OwnedFd, Fault> {
        let base = self.base(place)?;
        open_below(base, &place.rel, DIRECTORY, below()).map_err(fault)
    }

    fn list(
        &mut self,
        place: &Place,
        dir: BorrowedFd<'_>,
        say: &mut dyn FnMut(Answer),
    ) -> Result<(), Fault> {
        let covered = self.covered(&place.path()).map_err(fault)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut not_found = BTreeSet::new();
        each(dir, &mut self.dents, &mut |record| {
            let name = record.name.to_bytes();
            let stat = if covered.contains(name) {
                record.covered()
            } else {
                match look(dir, record.name) {
                    Err(libc::ENOENT) => {
                        not_found.insert(name.to_vec());
                        return;
                    }
                    stat => stat,
                }
            };
            bytes += name.len() + ENTRY_BYTES;
            entries.push(Entry {
                name: name.to_vec(),
                stat,
            });
            if bytes >= CHUNK_BYTES {
                say(Answer::Entries(std::mem::take(&mut entries)));
                bytes = 0;
            }
        })?;
        if !not_found.is_empty() {
            entries.extend(self.still_listed(place, &not_found)?);
        }
        if !entries.is_empty() {
            say(Answer::Entries(entries));
        }
        Ok(())
    }

    /// Names that were listed and not found, as far as another listing has them too. They have not vanished: an NFS client
    /// goes on for up to `acdirmax` not to find a name that it once did not find, though it lists it (nfs(5)).
    fn still_listed(
        &mut self,
        place: &Place,
        names: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<Entry>, Fault> {
        let again = self.open_dir(place)?;
        let mut entries = Vec::new();
        each(again.as_fd(), &mut self.dents, &mut |record| {
            let name = record.name.to_bytes();
            if names.contains(name) {
                entries.push(Entry {
                    name: name.to_vec(),
                    stat: look(again.as_fd(), record.name),
                });
            }
        })?;
        Ok(entries)
    }

    /// The names in the directory `path` that are mount points.
    fn covered(&mut self, path: &[u8]) -> Result<BTreeSet<Vec<u8>>, Errno> {
        let name_in = |point: &[u8]| -> Option<Vec<u8>> {
            let slash = point.iter().rposition(|&b| b == b'/')?;
            let (parent, name) = (point.get(..slash.max(1))?, point.get(slash + 1..)?);
            (parent == path && !name.is_empty()).then(|| name.to_vec())
        };
        let mounts = self.mounts()?;
        Ok(mounts.iter().filter_map(|m| name_in(&m.point)).collect())
    }

    /// Whether the place still leads to the directory that was listed, by a walk of its own.
    fn still_there(&mut self, place: &Place, listed: &libc::statx) -> Result<(), Fault> {
        self.base = None;
        let now = self.open_dir(place)?;
        let now = stat_fd(now.as_fd()).map_err(fault)?;
        if same_inode(listed, &now) {
            Ok(())
        } else {
            Err(Fault::Here(libc::ESTALE))
        }
    }
}

/// By way of the descriptor: by path, links in the middle would be followed.
fn add_watch(watches: &mut Watches, dir: BorrowedFd<'_>) -> Result<i32, i32> {
    let mask = WatchMask::from_bits_truncate(mask::WATCHED);
    match watches.add(self_path(dir), mask) {
        Ok(wd) => Ok(wd.get_watch_descriptor_id()),
        Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// Calls `take` with every record of an open directory but its own and its parent's.
fn each(
    dir: BorrowedFd<'_>,
    dents: &mut Vec<u8>,
    take: &mut dyn FnMut(&Record<'_>),
) -> Result<(), Fault> {
    dents.resize(DENTS_BYTES, 0);
    loop {
        let filled = match file::getdents(dir, dents) {
            Ok(0) => return Ok(()),
            Ok(filled) => filled,
            Err(Errno::EINTR) => continue,
            // ELOOP is about the listing here, which an NFS server repeats for ever, and not about a link.
            Err(errno) => return Err(Fault::Here(errno as i32)),
        };
        let mut rest = dents.get(..filled).unwrap_or_default();
        while let Some(record) = Record::take(&mut rest)? {
            if !matches!(record.name.to_bytes(), b"." | b"..") {
                take(&record);
            }
        }
    }
}

fn look(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, i32> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    match file::statx(dir, name, flags, STAT_MASK) {
        Ok(raw) => Ok(stat_of(&raw)),
        Err(errno) => Err(errno as i32),
    }
}

/// One record of getdents64(2).
struct Record<'a> {
    kind: u8,
    name: &'a CStr,
}

impl<'a> Record<'a> {
    /// Takes the first record off `rest`.
    ///
    /// # Errors
    /// EIO if what is there is no record: the listing is not complete then.
    fn take(rest: &mut &'a [u8]) -> Result<Option<Record<'a>>, Fault> {
        /// Inode and offset, 8 bytes each, come before the length.
        const LENGTH_AT: usize = 16;
        const KIND_AT: usize = 18;
        const NAME_AT: usize = 19;
        if rest.is_empty() {
            return Ok(None);
        }
        let record = (|| {
            let length = rest.get(LENGTH_AT..LENGTH_AT + 2)?;
            let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
            let (record, after) = rest.split_at_checked(length)?;
            let kind = *record.get(KIND_AT)?;
            let name = CStr::from_bytes_until_nul(record.get(NAME_AT..)?).ok()?;
            Some((Record { kind, name }, after))
        })();
        let (record, after) = record.ok_or(Fault::Here(libc::EIO))?;
        *rest = after;
        Ok(Some(record))
    }

    /// What is said of a name that another filesystem lies on.
    fn covered(&self) -> Result<Stat, i32> {
        match self.kind {
            libc::DT_DIR | libc::DT_UNKNOWN => Ok(Stat {
                kind: Kind::Dir,
                version: Version::default(),
                ctime_ns: 0,
            }),
            _ => Err(libc::EXDEV),
        }
    }
}
