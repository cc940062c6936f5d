//! The durable memory: records are appended, made durable by one flush a turn, and read back at start.
//!
//! ```text
//! format   bytes of headers and frames      storage    what is asked of the place (a trait)
//! body     bytes of record bodies           segment    the real place: mapped files in the state directory
//! survey   which files count                directory  what a state directory must be
//! read     a window over one file           lock       who has it, and which segment was the newest
//! recover  reading back: the recovery table open       from a directory to an open journal
//! compact  the snapshot and the switch      inspect    stat, verify, dump: read only
//! carry    what goes along of what is over  history    what became of files, for those who ask
//!                                           error      what can go wrong, as sentences
//! ```
//!
//! Invariants, each leaned on by [`recover`]:
//! 1. A segment has its final name only when its header (and what a recovery copied into it) is flushed,
//!    and gets it only when everything in the segment before it is flushed.
//! 2. Nothing is ever written over: a segment is written at its end, and only by the process that made it.
//! 3. Every record says up to which offset of its own segment the flushes before it had succeeded.
//! 4. A base has its final name only when it is whole and flushed; older files go only after the name is durable.
//! 5. After a failed write or flush nothing is written any more.
#![forbid(unsafe_code)]

pub mod body;
pub mod carry;
mod compact;
mod directory;
pub mod error;
pub mod format;
pub mod history;
pub mod inspect;
mod lock;
mod open;
mod read;
pub mod recover;
pub mod segment;
pub mod storage;
mod survey;

use crate::core::record::Record;
use crate::core::time::Wall;
use compact::Compaction;
pub use error::{Damage, JournalError};
use format::{HEADER_BYTES, Header, RECORD_MAX, Role, Seed, Stamp};
pub use open::Opened;
use storage::{Fault, File, Storage};

/// What to do when something that was flushed cannot be read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Refuse to start: a person decides.
    #[default]
    Stop,
    /// Keep the damaged files aside, say so, go on with what can be read. Whoever opens the journal then
    /// looks at every file anew and compacts at once, so that the damage is not met again.
    Continue,
}

/// What may be chosen about a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a segment; at least 64 KiB, rounded up to whole pages.
    pub segment_bytes: u32,
    /// Bytes of the last segment that are kept for the outcomes of what already runs once no further
    /// segment can be made; at most half a segment.
    pub reserve_bytes: u32,
    /// See [`OnDamage`].
    pub on_damage: OnDamage,
    /// The time now, for headers.
    pub now: Wall,
    /// Random bits for a new journal's id.
    pub random_id: u32,
    /// Random bits for a new journal's salt.
    pub random_salt: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 4 * 1024 * 1024,
            reserve_bytes: 1024 * 1024,
            on_damage: OnDamage::Stop,
            now: Wall(0),
            random_id: 0,
            random_salt: 0,
        }
    }
}

/// What replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records handed out.
    pub records: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// Bytes that were written behind the last whole record and never flushed: cut.
    pub cut_bytes: u64,
    /// Records that were copied into a new segment because nothing proves that they had been flushed.
    pub rewritten: u64,
    /// What was flushed once and cannot be read; empty unless [`OnDamage::Continue`].
    pub damage: Vec<Damage>,
    /// Where the damaged files are kept.
    pub kept: Vec<String>,
}

/// What a flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes made durable; 0 means that there was nothing to do.
    pub bytes: u64,
    /// Records made durable.
    pub records: u64,
    /// The records are durable, but work beside them failed (removing what compaction left over).
    pub trouble: Option<Fault>,
}

/// How far the next segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spare {
    /// Bytes made so far.
    Growing(u32),
    /// All made, flushed.
    Ready,
    /// The last try failed; tried again by [`Journal::try_make_room`], or when nothing else is left.
    Blocked(Fault),
}

/// The segment that is written.
#[derive(Debug)]
struct Active {
    number: u32,
    size: u32,
    seed: Seed,
    /// Everything below is flushed.
    end: u32,
    /// Records appended since, as they will stand at `end`.
    staged: Vec<u8>,
    staged_records: u64,
}

impl Active {
    fn file(&self) -> File {
        File::Log(self.number)
    }

    fn free(&self) -> u32 {
        let staged = u32::try_from(self.staged.len()).unwrap_or(u32::MAX);
        self.size.saturating_sub(self.end).saturating_sub(staged)
    }
}

/// How many zeros are written for the next segment after each flush: short enough not to be felt.
const SPARE_SLICE_BYTES: u32 = 256 * 1024;
/// From batches of this size on, the next segment is not written as zeros before it is used: writing each byte
/// twice then costs more than the filesystem's own commit does that zeros spare a flush.
const ZEROS_BELOW_BYTES: usize = 32 * 1024;
/// How many of compaction's leftovers are removed after each flush.
const STALE_SLICE_FILES: usize = 4;

/// An open journal. Of several processes only the one that holds the state directory has one.
#[derive(Debug)]
pub struct Journal<S> {
    storage: S,
    id: u32,
    salt: u64,
    segment_bytes: u32,
    reserve_bytes: u32,
    active: Active,
    next_seq: u64,
    spare: Spare,
    /// Bytes of a large batch of late: falls by half with each that is smaller.
    batch_bytes: usize,
    compaction: Option<Compaction>,
    stale: Vec<File>,
    base_bytes: u64,
    /// Bytes of the segments behind the base, the active one up to its end.
    log_bytes: u64,
    failed: Option<Fault>,
}

impl<S: Storage> Journal<S> {
    /// The journal's id: random, fixed when the state directory was first used. Users see it in job names.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Appends a record. It is durable when the next [`Journal::flush`] has succeeded. No system call,
    /// but where the segment's reserve is reached and the next one is not there yet: then that one is made; and where
    /// the segment is used up: then it is flushed and the next one opened.
    ///
    /// # Errors
    /// `NoRoom`: nothing was appended, the journal is as before. `TooLong`: likewise. `Final`: the end.
    pub fn append(&mut self, wall: Wall, record: &Record) -> Result<(), JournalError> {
        self.alive()?;
        let start = self.active.staged.len();
        self.stage(wall, record)?;
        let staged = u32::try_from(self.active.staged.len()).unwrap_or(u32::MAX);
        if staged > self.active.size - self.active.end {
            self.active.staged.truncate(start);
            self.rotate(wall)?;
            self.stage(wall, record)?;
        }
        self.active.staged_records += 1;
        self.next_seq = self.next_seq.saturating_add(1);
        // Known before the reserve is begun, not when it is used up.
        if self.active.free() <= self.reserve_bytes {
            self.grow_spare(u32::MAX);
        }
        Ok(())
    }

    /// Makes everything appended durable, with one flush of the file. Then does a slice of what is due
    /// beside it: zeros for the next segment, removal of what compaction left over.
    ///
    /// # Errors
    /// `Final`: nothing is known about what was appended since the last good flush, and every later call
    /// fails with the same error. The process must perform nothing that was announced, and end.
    pub fn flush(&mut self) -> Result<Flushed, JournalError> {
        self.alive()?;
        if self.active.staged.is_empty() {
            return Ok(Flushed::default());
        }
        let bytes = self.active.staged.len() as u64;
        let records = self.active.staged_records;
        self.write_out()?;
        // Twice as fast as the active segment is used up.
        let slice = SPARE_SLICE_BYTES.max(u32::try_from(2 * bytes).unwrap_or(u32::MAX));
        self.grow_spare(slice);
        Ok(Flushed {
            bytes,
            records,
            trouble: self.remove_stale(STALE_SLICE_FILES).err(),
        })
    }

    /// Whether new work may be taken on: there is a further segment, or room for one, or at least the
    /// reserve is untouched. While this is `false`, outcomes of what already runs still find room.
    pub fn has_room(&self) -> bool {
        self.failed.is_none() && (!self.blocked() || self.active.free() > self.reserve_bytes)
    }

    /// Why there is no further segment, if there is none.
    pub fn no_room(&self) -> Option<JournalError> {
        match &self.spare {
            Spare::Blocked(fault) => Some(no_room(fault.clone())),
            Spare::Growing(_) | Spare::Ready => None,
        }
    }

    /// Tries again to make the next segment, and tells [`Journal::has_room`]. Cheap when there is room. While a
    /// compaction is under way what room there is belongs to its base.
    pub fn try_make_room(&mut self) -> bool {
        if self.failed.is_none() && self.blocked() && self.compaction.is_none() {
            // What cannot be removed is tried again, and told, by the next flush.
            match self.remove_stale(usize::MAX) {
                Ok(()) | Err(_) => {}
            }
            self.spare = Spare::Growing(0);
            self.grow_spare(u32::MAX);
        }
        self.has_room()
    }

    /// There is no room for another segment, and so much lies in those there are that a compaction may make some.
    pub fn compaction_may_make_room(&self) -> bool {
        self.failed.is_none()
            && self.blocked()
            && self.log_bytes > u64::from(self.segment_bytes / 4)
    }

    /// Bytes of the state as the last compaction wrote it.
    pub fn live_bytes(&self) -> u64 {
        self.base_bytes
    }

    /// Bytes of everything that replay would read: the base, and all records since.
    pub fn total_bytes(&self) -> u64 {
        self.base_bytes + self.log_bytes + self.active.staged.len() as u64
    }

    /// The sequence number that the next record gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    fn alive(&self) -> Result<(), JournalError> {
        match &self.failed {
            Some(fault) => Err(JournalError::Final(fault.clone())),
            None => Ok(()),
        }
    }

    /// Remembers that nothing is known any more.
    fn fail(&mut self, fault: Fault) -> JournalError {
        self.failed = Some(fault.clone());
        JournalError::Final(fault)
    }

    fn blocked(&self) -> bool {
        matches!(self.spare, Spare::Blocked(_))
    }

    fn stage(&mut self, wall: Wall, record: &Record) -> Result<(), JournalError> {
        let active = &mut self.active;
        let stamp = Stamp {
            seq: self.next_seq,
            wall,
            flushed: active.end,
        };
        let start = active.staged.len();
        format::encode(&mut active.staged, active.seed, stamp, record).map_err(too_long)?;
        let bytes = active.staged.len() - start;
        let most = RECORD_MAX.min(self.segment_bytes - HEADER_BYTES);
        if bytes > most as usize {
            active.staged.truncate(start);
            return Err(JournalError::TooLong { bytes, max: most });
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), JournalError> {
        if self.active.staged.is_empty() {
            return Ok(());
        }
        let (file, end) = (self.active.file(), self.active.end);
        let written = self
            .storage
            .write(file, end.into(), &self.active.staged)
            .and_then(|()| self.storage.flush(file));
        written.map_err(|fault| self.fail(fault))?;
        self.batch_bytes = self.active.staged.len().max(self.batch_bytes / 2);
        let bytes = u32::try_from(self.active.staged.len()).unwrap_or(u32::MAX);
        self.active.end = end.saturating_add(bytes);
        self.active.staged.clear();
        self.active.staged_records = 0;
        self.log_bytes += u64::from(bytes);
        Ok(())
    }

    /// Closes the active segment and opens the next.
    fn rotate(&mut self, wall: Wall) -> Result<(), JournalError> {
        if self.spare != Spare::Ready {
            if self.blocked() {
                self.spare = Spare::Growing(0);
            }
            self.grow_spare(u32::MAX);
        }
        if let Spare::Blocked(fault) = &self.spare {
            return Err(no_room(fault.clone()));
        }
        self.open_spare(wall, self.segment_bytes)?;
        self.spare = Spare::Growing(0);
        Ok(())
    }

    /// Closes the active segment and opens a small one, for a compaction where there is no room for a whole one.
    /// What the try to make a whole one has taken is given back: the base needs it.
    fn rotate_small(&mut self, wall: Wall) -> Result<(), JournalError> {
        if self.active.end == HEADER_BYTES && self.active.staged.is_empty() {
            return self.storage.remove(File::Spare).map_err(no_room);
        }
        let size = (self.segment_bytes / 16).next_multiple_of(4096).max(8192);
        self.storage
            .allocate(File::Spare, 0, size.into())
            .and_then(|()| self.storage.flush(File::Spare))
            .map_err(no_room)?;
        self.open_spare(wall, size)
    }

    /// Closes the active segment; the spare one, which has `size` bytes, takes its place.
    fn open_spare(&mut self, wall: Wall, size: u32) -> Result<(), JournalError> {
        let number = next_number(&self.storage, self.active.number)?;
        self.write_out()?;
        let header = Header {
            role: Role::Log,
            id: self.id,
            salt: self.salt,
            number,
            flushed: HEADER_BYTES,
            first_seq: self.next_seq,
            created: wall,
        };
        let storage = &mut self.storage;
        let opened = storage
            .write(File::Spare, 0, &header.encode())
            .and_then(|()| storage.flush(File::Spare))
            .and_then(|()| storage.rename(File::Spare, File::Log(number)))
            .and_then(|()| storage.sync_dir());
        opened.map_err(|fault| self.fail(fault))?;
        self.storage.release(self.active.file());
        let mut staged = std::mem::take(&mut self.active.staged);
        staged.clear();
        self.active = Active {
            number,
            size,
            seed: header.seed(),
            end: HEADER_BYTES,
            staged,
            staged_records: 0,
        };
        self.log_bytes += u64::from(HEADER_BYTES);
        Ok(())
    }

    /// Makes up to `bytes` of the next segment, as suits the batches of late; the last slice flushes it. A
    /// failure is kept in `spare`: it is the active segment's matter only when that is used up.
    fn grow_spare(&mut self, bytes: u32) {
        let Spare::Growing(done) = self.spare else {
            return;
        };
        let slice = bytes.min(self.segment_bytes - done);
        let made = if self.batch_bytes < ZEROS_BELOW_BYTES {
            self.storage
                .allocate(File::Spare, done.into(), slice.into())
        } else {
            self.storage.reserve(File::Spare, done.into(), slice.into())
        };
        let grown = made.and_then(|()| {
            if done + slice < self.segment_bytes {
                return Ok(Spare::Growing(done + slice));
            }
            self.storage.flush(File::Spare).map(|()| Spare::Ready)
        });
        self.spare = grown.unwrap_or_else(Spare::Blocked);
    }

    /// Of what cannot be removed the first is told; it is tried again behind the others.
    fn remove_stale(&mut self, most: usize) -> Result<(), Fault> {
        let mut result = Ok(());
        for _ in 0..most.min(self.stale.len()) {
            let Some(file) = self.stale.pop() else {
                break;
            };
            if let Err(fault) = self.storage.remove(file) {
                self.stale.insert(0, file);
                result = result.and(Err(fault));
            }
        }
        result
    }
}

/// Numbers are never used twice: after four thousand million segments there is an end.
fn next_number<S: Storage>(storage: &S, last: u32) -> Result<u32, JournalError> {
    last.checked_add(1).ok_or_else(|| {
        JournalError::Storage(Fault {
            act: "number a segment after",
            path: storage.path(File::Log(last)),
            errno: storage::errno::EOVERFLOW,
        })
    })
}

fn no_room(fault: Fault) -> JournalError {
    if fault.is_no_room() {
        JournalError::NoRoom(fault)
    } else {
        JournalError::Storage(fault)
    }
}

fn too_long(long: format::TooLong) -> JournalError {
    JournalError::TooLong {
        bytes: long.0,
        max: RECORD_MAX,
    }
}
