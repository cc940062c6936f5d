//! The records through the real journal, on a storage that loses, tears and reorders what was not flushed.
//! Beside it, what a reader must find: everything acknowledged, then as much of the last turn as survived.

use crate::journal_support::Memory;
use crate::past::Past;
use crate::rng::Rng;
use settled::core::record::{Record, Summary};
use settled::core::time::Wall;
use settled::journal::storage::File;
use settled::journal::{Journal, JournalError, Opened, Options};
use std::time::Duration;

pub type Records = Vec<(Wall, Record)>;

#[derive(Debug)]
pub struct Store {
    memory: Memory,
    journal: Option<Journal<Memory>>,
    /// Everything that a flush has acknowledged, or the state that took its place.
    pub sure: Records,
    /// Appended, not acknowledged.
    pending: Records,
    /// What replay finds once the compaction under way counts.
    compacted: Option<Records>,
    /// What all records ever written say of jobs.
    past: Past,
}

impl Store {
    pub fn new(seed: u64) -> Store {
        Store {
            memory: Memory::new(seed),
            journal: None,
            sure: Vec::new(),
            pending: Vec::new(),
            compacted: None,
            past: Past::default(),
        }
    }

    /// The machine goes off within the next few storage calls.
    pub fn soon_off(&self, rng: &mut Rng, calls: u64) {
        let mut state = self.memory.0.borrow_mut();
        state.off_at = Some(state.calls + rng.below(calls));
    }

    /// One of the next few storage calls fails; if it is a flush, what it was for is lost.
    pub fn soon_fails(&self, rng: &mut Rng, calls: u64) {
        let mut state = self.memory.0.borrow_mut();
        state.fail_at = Some(state.calls + rng.below(calls));
    }

    /// The disk is bad where a new base is written.
    pub fn is_bad(&self) {
        self.memory.0.borrow_mut().bad = Some(File::NewBase);
    }

    /// It does not go off after all, and nothing fails.
    pub fn stays_on(&self) {
        let mut state = self.memory.0.borrow_mut();
        state.off_at = None;
        state.fail_at = None;
        state.bad = None;
    }

    fn is_off(&self) -> bool {
        let state = self.memory.0.borrow();
        state.off_at.is_some_and(|off| state.calls > off)
    }

    /// Not a byte more can be allocated, or as many as one likes.
    pub fn disk_full(&self, full: bool) {
        self.memory.0.borrow_mut().room = full.then_some(0);
    }

    /// Whether new work may be taken on, tried hard.
    pub fn makes_room(&mut self) -> bool {
        self.journal
            .as_mut()
            .is_none_or(|journal| journal.has_room() || journal.try_make_room())
    }

    /// Uses most of a segment up, with records that replay does not mind.
    ///
    /// # Errors
    /// The process has to end.
    pub fn fill(&mut self, wall: Wall, bytes: usize) -> Result<(), JournalError> {
        let filler = Record::Ended {
            job: settled::core::ids::JobId(u64::MAX),
            attempt: 1,
            end: settled::core::record::AttemptEnd::CutShort,
            counted: 0,
            not_before: wall,
            output: vec![b'x'; bytes],
        };
        self.write(vec![(wall, filler)])
    }

    /// Opens what survived. The records that were never acknowledged and are durable now come second.
    ///
    /// # Errors
    /// `Ok(Err)`: the machine went off again. `Err`: the journal is not what it has to be.
    pub fn open(&mut self, now: Wall) -> Result<Result<Records, JournalError>, String> {
        let options = Options {
            segment_bytes: 64 * 1024,
            reserve_bytes: 8 * 1024,
            now,
            random_id: crate::world::JOURNAL,
            random_salt: 7,
            ..Options::default()
        };
        let mut found = Vec::new();
        let opened = Opened::new(self.memory.clone(), options)
            .and_then(|opened| opened.replay(|wall, record| found.push((wall, record))));
        match opened {
            Ok((journal, _)) => self.journal = Some(journal),
            Err(error) if self.memory.0.borrow().off_at.is_some() => return Ok(Err(error)),
            Err(error @ JournalError::NoRoom(_)) if self.memory.0.borrow().room.is_some() => {
                return Ok(Err(error));
            }
            Err(error) => return Err(format!("the journal cannot be opened: {error}")),
        }
        self.stays_on();
        let fits = |sure: &Records, pending: &Records| {
            found
                .strip_prefix(sure.as_slice())
                .is_some_and(|more| pending.starts_with(more))
                .then(|| found[sure.len()..].to_vec())
        };
        let compacted = self.compacted.take();
        let more = fits(&self.sure, &self.pending)
            .or_else(|| compacted.and_then(|state| fits(&state, &self.pending)));
        let Some(more) = more else {
            return Err(format!(
                "the journal has {} records where {} were acknowledged, or others",
                found.len(),
                self.sure.len()
            ));
        };
        self.pending.clear();
        for (wall, record) in &more {
            self.past.note(*wall, record);
        }
        self.sure = found;
        Ok(Ok(more))
    }

    /// One turn's records, with one flush.
    ///
    /// # Errors
    /// The process has to end.
    pub fn write(&mut self, records: Records) -> Result<(), JournalError> {
        self.pending = records;
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        for (wall, record) in &self.pending {
            journal.append(*wall, record)?;
        }
        journal.flush()?;
        if let Some(compacted) = &mut self.compacted {
            compacted.extend(self.pending.iter().cloned());
        }
        for (wall, record) in &self.pending {
            self.past.note(*wall, record);
        }
        self.sure.append(&mut self.pending);
        Ok(())
    }

    pub fn is_filler(record: &Record) -> bool {
        matches!(record, Record::Ended { job, .. } if job.0 == u64::MAX)
    }

    /// A compaction failed: what counts is as it was. `false`: the process has to end.
    pub fn abort(&mut self, error: &JournalError) -> bool {
        if matches!(error, JournalError::Final(_)) || self.is_off() {
            return false;
        }
        self.compacted = None;
        self.stays_on();
        self.journal
            .as_mut()
            .is_none_or(|journal| journal.compact_abort().is_ok())
    }

    pub fn compacting(&self) -> bool {
        self.compacted.is_some()
    }

    /// The whole state of one moment goes into a new base; it counts only after [`Store::switch`]. What is not told
    /// any more of jobs that ended within `remember`.
    ///
    /// # Errors
    /// The process has to end.
    pub fn compact(
        &mut self,
        wall: Wall,
        state: Vec<(Option<Wall>, Record)>,
        remember: Duration,
        keep: impl Fn(&mut Summary) -> bool,
    ) -> Result<Option<String>, JournalError> {
        let Some(journal) = &mut self.journal else {
            return Ok(None);
        };
        journal.compact_begin(wall)?;
        let mut old = self.memory.clone();
        let at = |(at, record): (Option<Wall>, Record)| (at.unwrap_or(wall), record);
        let mut compacted: Records = state.iter().cloned().map(at).collect();
        let mut keep = |settled, summary: &mut Summary| {
            let kept = keep(summary);
            if kept {
                compacted.push((settled, Record::Summary(Box::new(summary.clone()))));
            }
            kept
        };
        let damage = journal.compact_copy_at(state.into_iter(), &mut old, &mut keep)?;
        assert!(damage.is_empty(), "{damage:?}");
        let untold = self.past.untold(wall, remember, &compacted);
        self.compacted = Some(compacted);
        Ok(untold)
    }

    /// The new base takes the place of what was before it.
    ///
    /// # Errors
    /// The process has to end.
    pub fn switch(&mut self) -> Result<(), JournalError> {
        if let Some(journal) = &mut self.journal
            && self.compacted.is_some()
        {
            journal.compact_switch()?;
            self.sure = self.compacted.take().unwrap_or_default();
        }
        Ok(())
    }

    /// The process is gone, and perhaps the machine's memory with it.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.journal = None;
        if rng.chance(1, 2) {
            self.memory.power_cut();
        } else {
            self.memory.process_ends();
        }
    }
}
