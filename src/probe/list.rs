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
const CHUNK_BYTES: usize = 8 * 1024;

/// About what an [`Entry`] needs on the wire besides its name.
const ENTRY_BYTES: usize = 48;

/// A directory whose listing is under way: what comes of [`Prober::open_listing`], for [`Prober::list_on`].
#[derive(Debug)]
pub struct Listing {
    place: Place,
    dir: OwnedFd,
    /// The directory as it was opened.
    opened: libc::statx,
    /// Names on which other filesystems lie.
    covered: BTreeSet<Vec<u8>>,
    dents: Dents,
    /// Not said yet.
    entries: Vec<Entry>,
    /// About what they need on the wire.
    bytes: usize,
    /// Listed and then not found.
    not_found: BTreeSet<Vec<u8>>,
}

impl Prober {
    /// Answers `Question::Bind` from beginning to end.
    pub fn bind(
        &mut self,
        place: &Place,
        watches: Option<&mut Watches>,
        say: &mut dyn FnMut(Answer),
    ) {
        let Some(mut listing) = self.open_listing(place, watches, say) else {
            return;
        };
        let mut names = usize::MAX;
        while self.list_on(&mut listing, &mut names, say) {}
    }

    /// Begins to answer `Question::Bind`: watches the directory where `watches` is given. What is created after
    /// [`Answer::Bound`] gives an event, what was there before is in the listing. `None`: the answer is complete.
    ///
    /// A name on which another filesystem is mounted is not looked at, for that belongs to another scout: it is
    /// listed as a directory whose version is all zero, or with EXDEV if it is none.
    pub fn open_listing(
        &mut self,
        place: &Place,
        watches: Option<&mut Watches>,
        say: &mut dyn FnMut(Answer),
    ) -> Option<Listing> {
        let opened = self.open_dir(place).and_then(|dir| {
            let raw = stat_fd(dir.as_fd()).map_err(fault)?;
            Ok((dir, raw))
        });
        let (dir, opened) = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                say(Answer::Bound(Err(fault)));
                return None;
            }
        };
        let stat = stat_of(&opened);
        let ident = directory_ident(&opened, dir.as_fd(), stat.version.mtime_ns);
        let wd = watches.map(|watches| add_watch(watches, dir.as_fd()));
        say(Answer::Bound(Ok(Bound {
            wd,
            ident,
            ctime_ns: stat.ctime_ns,
        })));
        match self.covered(&place.path()) {
            Ok(covered) => Some(Listing {
                place: place.clone(),
                dir,
                opened,
                covered,
                dents: Dents::default(),
                entries: Vec::new(),
                bytes: 0,
                not_found: BTreeSet::new(),
            }),
            Err(errno) => {
                say(Answer::Listed(Err(fault(errno))));
                None
            }
        }
    }

    /// Goes on with a listing by at most `names` names, and takes those that it looked at off that. False: it is complete,
    /// and [`Answer::Listed`] was said.
    pub fn list_on(
        &mut self,
        listing: &mut Listing,
        names: &mut usize,
        say: &mut dyn FnMut(Answer),
    ) -> bool {
        let ended = match listing.look_on(names, say) {
            Ok(true) => return true,
            Ok(false) => self.list_rest(listing, say),
            Err(fault) => Err(fault),
        };
        say(Answer::Listed(ended));
        false
    }

    /// What is to be done after the last name.
    fn list_rest(
        &mut self,
        listing: &mut Listing,
        say: &mut dyn FnMut(Answer),
    ) -> Result<(), Fault> {
        if !listing.not_found.is_empty() {
            let again = self.still_listed(&listing.place, &listing.not_found)?;
            listing.entries.extend(again);
        }
        listing.say_all(say);
        self.still_there(&listing.place, &listing.opened)
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

    /// Names that were listed and not found, as far as another listing has them too. They have not vanished: an NFS client
    /// goes on for up to `acdirmax` not to find a name that it once did not find, though it lists it (nfs(5)).
    fn still_listed(
        &mut self,
        place: &Place,
        names: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<Entry>, Fault> {
        let again = self.open_dir(place)?;
        let mut entries = Vec::new();
        let mut dents = Dents::default();
        while let Some(record) = dents.next(again.as_fd())? {
            let name = record.name.to_bytes();
            if names.contains(name) {
                entries.push(Entry {
                    name: name.to_vec(),
                    stat: look(again.as_fd(), record.name),
                });
            }
        }
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

impl Listing {
    /// Says what was looked at and not said yet.
    pub fn say_all(&mut self, say: &mut dyn FnMut(Answer)) {
        self.bytes = 0;
        if !self.entries.is_empty() {
            say(Answer::Entries(std::mem::take(&mut self.entries)));
        }
    }

    /// Looks at the names that come, at most so many. True: there may be more.
    fn look_on(&mut self, names: &mut usize, say: &mut dyn FnMut(Answer)) -> Result<bool, Fault> {
        let dir = self.dir.as_fd();
        while *names > 0 {
            *names -= 1;
            let Some(record) = self.dents.next(dir)? else {
                return Ok(false);
            };
            let name = record.name.to_bytes();
            let stat = if self.covered.contains(name) {
                record.covered()
            } else {
                match look(dir, record.name) {
                    Err(libc::ENOENT) => {
                        self.not_found.insert(name.to_vec());
                        continue;
                    }
                    stat => stat,
                }
            };
            self.bytes += name.len() + ENTRY_BYTES;
            self.entries.push(Entry {
                name: name.to_vec(),
                stat,
            });
            if self.bytes >= CHUNK_BYTES {
                say(Answer::Entries(std::mem::take(&mut self.entries)));
                self.bytes = 0;
            }
        }
        Ok(true)
    }
}

/// The records of an open directory, read in blocks.
#[derive(Debug, Default)]
struct Dents {
    block: Vec<u8>,
    /// How much of the block is filled, and was taken.
    filled: usize,
    taken: usize,
}

impl Dents {
    /// The next record that is not the directory's own or its parent's.
    fn next(&mut self, dir: BorrowedFd<'_>) -> Result<Option<Record<'_>>, Fault> {
        loop {
            if self.taken == self.filled && !self.fill(dir)? {
                return Ok(None);
            }
            let start = self.taken;
            let mut rest = self.block.get(start..self.filled).unwrap_or_default();
            let own = match Record::take(&mut rest)? {
                Some(record) => matches!(record.name.to_bytes(), b"." | b".."),
                None => true,
            };
            self.taken = self.filled - rest.len();
            if !own {
                // Once more, as a borrow that is given away in a loop lasts for all of it.
                let mut record = self.block.get(start..self.filled).unwrap_or_default();
                return Record::take(&mut record);
            }
        }
    }

    /// False: there is nothing more.
    fn fill(&mut self, dir: BorrowedFd<'_>) -> Result<bool, Fault> {
        self.block.resize(DENTS_BYTES, 0);
        self.taken = 0;
        self.filled = loop {
            match file::getdents(dir, &mut self.block) {
                Ok(filled) => break filled,
                Err(Errno::EINTR) => {}
                // ELOOP is about the listing here, which an NFS server repeats for ever, and not about a link.
                Err(errno) => return Err(Fault::Here(errno as i32)),
            }
        };
        Ok(self.filled > 0)
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
