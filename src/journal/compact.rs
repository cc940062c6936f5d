//! Compaction: the live state is written to a base over many turns while records are appended as ever;
//! then one rename makes it count.
//!
//! `begin` opens a new segment, so that everything appended from then on lies in segments of its own;
//! replay reads the base first, then those. A record appended between `begin` and `commit` may already be
//! part of the state that was pushed: whoever replays must not mind being told twice.

use super::carry::Keep;
use super::format::{self, Header, KIND_END, Role, Seed, Stamp};
use super::storage::{Fault, File, Storage};
use super::{Damage, Flushed, Journal, JournalError, no_room, too_long};
use crate::core::record::Record;
use crate::core::time::Wall;

/// A base being written.
#[derive(Debug)]
pub(super) struct Compaction {
    /// The first segment that stays.
    number: u32,
    seed: Seed,
    wall: Wall,
    records: u64,
    /// Bytes in the file.
    written: u64,
    /// Bytes not yet in the file.
    staged: Vec<u8>,
}

/// Bytes handed to the file at once.
const CHUNK_BYTES: usize = 128 * 1024;

impl<S: Storage> Journal<S> {
    /// Starts a compaction: from here on, [`Journal::compact_push`] the whole state, then
    /// [`Journal::compact_commit`]. Flushes what was appended.
    ///
    /// # Errors
    /// `NoRoom`: nothing was started, the journal goes on as it is. `NotCompacting(true)`: one is under way.
    ///
    /// A full disk is no hindrance while there is room for a small segment: the base may be the smaller one.
    pub fn compact_begin(&mut self, wall: Wall) -> Result<(), JournalError> {
        self.alive()?;
        if self.compaction.is_some() {
            return Err(JournalError::NotCompacting(true));
        }
        match self.rotate(wall) {
            Err(JournalError::NoRoom(_)) if self.compaction_may_make_room() => {
                self.rotate_small(wall)?;
            }
            other => other?,
        }
        let number = self.active.number;
        let header = Header {
            role: Role::Base,
            id: self.id,
            salt: self.salt,
            number,
            flushed: format::HEADER_BYTES,
            first_seq: self.next_seq,
            created: wall,
        };
        // A file of its own, made here and now: the copy of a daemon that was killed may still be writing to
        // the one that has the name, and a copy that is forked from this process finds its own one open.
        let header = (header.seed(), header.encode());
        self.storage.remove(File::NewBase).map_err(no_room)?;
        // Else the rename to come might reach the disk without what is done here, and name the old file.
        self.storage.sync_dir().map_err(no_room)?;
        self.compaction = Some(Compaction {
            number,
            seed: header.0,
            wall,
            records: 0,
            written: 0,
            staged: header.1.to_vec(),
        });
        self.compact_write()
    }

    /// Adds one record of the state to the base. Cheap; now and then a write to the page cache.
    ///
    /// # Errors
    /// `TooLong`: the record was not added. Any other error has ended the compaction; what counts is
    /// untouched, and a new one may be begun later.
    pub fn compact_push(&mut self, record: &Record) -> Result<(), JournalError> {
        self.compact_push_at(None, record)
    }

    /// The same, of something that was first written down at `at`, which replay is to tell: the time of the
    /// compaction where `None`.
    ///
    /// # Errors
    /// Those of [`Journal::compact_push`].
    pub fn compact_push_at(
        &mut self,
        at: Option<Wall>,
        record: &Record,
    ) -> Result<(), JournalError> {
        self.alive()?;
        let Some(compaction) = &mut self.compaction else {
            return Err(JournalError::NotCompacting(false));
        };
        let mut stamp = compaction.stamp();
        stamp.wall = at.unwrap_or(stamp.wall);
        format::encode(&mut compaction.staged, compaction.seed, stamp, record).map_err(too_long)?;
        compaction.records += 1;
        if compaction.staged.len() >= CHUNK_BYTES {
            self.compact_write()?;
        }
        Ok(())
    }

    /// Ends the base, flushes it and makes it count: [`Journal::compact_end`] and [`Journal::compact_switch`].
    ///
    /// # Errors
    /// Those of both.
    pub fn compact_commit(&mut self) -> Result<Flushed, JournalError> {
        self.compact_end()?;
        self.compact_switch()
    }

    /// The whole of a compaction but its beginning and its switch, for a forked copy of the process that
    /// has begun it: the copy sees one moment's state, and takes all the time it needs. Nothing that counts is
    /// touched; the copy has to end after this.
    ///
    /// # Errors
    /// What was written is of no use.
    pub fn compact_copy(
        &mut self,
        records: impl Iterator<Item = Record>,
    ) -> Result<(), JournalError> {
        for record in records {
            self.compact_push(&record)?;
        }
        self.compact_end()
    }

    /// The same with times, see [`Journal::compact_push_at`], and with what is carried over of what is over, see
    /// [`Journal::compact_past`].
    ///
    /// # Errors
    /// What was written is of no use.
    pub fn compact_copy_at<R: Storage>(
        &mut self,
        records: impl Iterator<Item = (Option<Wall>, Record)>,
        old: &mut R,
        keep: Keep,
    ) -> Result<Vec<Damage>, JournalError> {
        for (at, record) in records {
            self.compact_push_at(at, &record)?;
        }
        let damage = self.compact_past(old, keep)?;
        self.compact_end()?;
        Ok(damage)
    }

    /// Ends the base and flushes it.
    ///
    /// # Errors
    /// Any has ended the compaction and left what counts untouched.
    pub fn compact_end(&mut self) -> Result<(), JournalError> {
        self.alive()?;
        let Some(compaction) = &mut self.compaction else {
            return Err(JournalError::NotCompacting(false));
        };
        let stamp = compaction.stamp();
        let count = compaction.records.to_le_bytes();
        format::encode_raw(
            &mut compaction.staged,
            compaction.seed,
            stamp,
            KIND_END,
            &count,
        )
        .map_err(too_long)?;
        self.compact_write()?;
        match self.storage.flush(File::NewBase) {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.compact_failed(fault)),
        }
    }

    /// Makes the ended base count, with one rename. Then the old files begin to go, some of them here and the
    /// rest after later flushes; what could not be removed is told as `trouble`.
    ///
    /// # Errors
    /// `Final` if the rename may or may not have reached the disk; any other error has ended the
    /// compaction and left what counts untouched.
    pub fn compact_switch(&mut self) -> Result<Flushed, JournalError> {
        self.alive()?;
        let Some(compaction) = &self.compaction else {
            return Err(JournalError::NotCompacting(false));
        };
        let (number, records) = (compaction.number, compaction.records);
        if let Err(fault) = self.storage.rename(File::NewBase, File::Base(number)) {
            return Err(self.compact_failed(fault));
        }
        self.compaction = None;
        let synced = self.storage.sync_dir();
        synced.map_err(|fault| self.fail(fault))?;
        self.storage.release(File::Base(number));
        self.base_bytes = 0;
        self.log_bytes = self.active.end.into();
        self.stale.clear();
        // It counts, whatever happens now.
        let trouble = self.drop_before(number).err();
        Ok(Flushed {
            bytes: self.base_bytes,
            records,
            trouble,
        })
    }

    /// Finds what a new base has made stale and begins to remove it; what is not found now is found by the
    /// next start.
    fn drop_before(&mut self, number: u32) -> Result<(), Fault> {
        for (file, bytes) in self.storage.list()? {
            match file {
                File::Log(log) if log < number => self.stale.push(file),
                File::Base(base) if base < number => self.stale.push(file),
                File::Base(base) if base == number => self.base_bytes = bytes,
                File::Log(_) if file != self.active.file() => self.log_bytes += bytes,
                File::Log(_) | File::Base(_) | File::Spare | File::NewBase => {}
            }
        }
        self.remove_stale(super::STALE_SLICE_FILES)
    }

    /// Ends a compaction without result. None under way is no error.
    pub fn compact_abort(&mut self) -> Result<(), JournalError> {
        if self.compaction.take().is_some() {
            self.storage.release(File::NewBase);
            self.storage.remove(File::NewBase)?;
        }
        Ok(())
    }

    /// The first segment that the base under way does not take the place of.
    pub(super) fn compacting_before(&self) -> Option<u32> {
        self.compaction.as_ref().map(|compaction| compaction.number)
    }

    /// Whether a compaction is under way.
    pub fn compacting(&self) -> bool {
        self.compaction.is_some()
    }

    fn compact_write(&mut self) -> Result<(), JournalError> {
        let Some(compaction) = &mut self.compaction else {
            return Err(JournalError::NotCompacting(false));
        };
        match self
            .storage
            .write(File::NewBase, compaction.written, &compaction.staged)
        {
            Ok(()) => {
                compaction.written += compaction.staged.len() as u64;
                compaction.staged.clear();
                Ok(())
            }
            Err(fault) => Err(self.compact_failed(fault)),
        }
    }

    /// What went wrong is what is told. A base that cannot be removed either is written over by the next
    /// compaction, or removed by the next start.
    fn compact_failed(&mut self, fault: Fault) -> JournalError {
        match self.compact_abort() {
            Ok(()) | Err(_) => no_room(fault),
        }
    }
}

impl Compaction {
    fn stamp(&self) -> Stamp {
        Stamp {
            seq: self.records + 1,
            wall: self.wall,
            flushed: 0,
        }
    }
}
