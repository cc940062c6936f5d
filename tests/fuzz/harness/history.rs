//! A journal's life from a script: records, flushes, compactions, crashes, a full disk. What it must give back is
//! kept beside it.

use super::input::Input;
use crate::journal_support::Memory;
use settled::core::record::Record;
use settled::core::time::Wall;
use settled::journal::storage::Storage;
use settled::journal::{Journal, JournalError, OnDamage, Opened, Options, Report, body};
use std::collections::BTreeSet;

pub type Records = Vec<(Wall, Record)>;

/// Random bits that every journal here is made of.
pub const SALT: u64 = 0x5e77_1ed0;
const ID: u32 = 7;

pub fn options(on_damage: OnDamage) -> Options {
    Options {
        segment_bytes: 64 * 1024,
        reserve_bytes: 8 * 1024,
        on_damage,
        now: Wall(1),
        random_id: ID,
        random_salt: SALT,
    }
}

/// Opens what is there.
pub fn open<S: Storage>(
    storage: S,
    on_damage: OnDamage,
) -> Result<(Journal<S>, Report, Records), JournalError> {
    open_with(storage, options(on_damage))
}

/// The same by a later process: its random bits are others.
pub fn open_later<S: Storage>(
    storage: S,
    on_damage: OnDamage,
) -> Result<(Journal<S>, Report, Records), JournalError> {
    let options = Options {
        random_salt: SALT + 1,
        ..options(on_damage)
    };
    open_with(storage, options)
}

fn open_with<S: Storage>(
    storage: S,
    options: Options,
) -> Result<(Journal<S>, Report, Records), JournalError> {
    let mut found = Vec::new();
    let opened = Opened::new(storage, options)?;
    let (journal, report) = opened.replay(|wall, record| found.push((wall, record)))?;
    Ok((journal, report, found))
}

/// A state that these records may stand for: each of them once, without those that only take away.
pub fn state_of(records: &Records) -> Vec<Record> {
    let mut seen = BTreeSet::new();
    let kept = records.iter().map(|(_, record)| record).filter(|record| {
        let mut key = body::kind(record).to_le_bytes().to_vec();
        body::encode(&mut key, record);
        !matches!(record, Record::DirGone { .. } | Record::Gone { .. }) && seen.insert(key)
    });
    kept.cloned().collect()
}

pub struct History {
    pub memory: Memory,
    journal: Option<Journal<Memory>>,
    /// What a flush has acknowledged, or the state that took its place.
    pub sure: Records,
    /// Appended since.
    pub pending: Records,
    /// What replay finds once the compaction under way counts.
    compacted: Option<Records>,
    serial: u64,
    /// Where the script says that the machine goes off, only the process ends.
    killed: bool,
}

impl History {
    pub fn new(seed: u64) -> History {
        let mut history = History {
            memory: Memory::new(seed),
            journal: None,
            sure: Vec::new(),
            pending: Vec::new(),
            compacted: None,
            serial: 0,
            killed: false,
        };
        history.reopen();
        history
    }

    /// Does what the input says, up to its end or this many steps.
    pub fn run(&mut self, input: &mut Input, steps: usize) {
        for _ in 0..steps {
            if input.is_empty() {
                break;
            }
            let step = input.u8() % 24;
            self.step(step, input);
        }
    }

    fn step(&mut self, step: u8, input: &mut Input) {
        match step {
            0..=9 => self.append(input),
            10..=13 => self.flush(),
            14 | 15 => self.compact_begin(),
            16 | 17 => self.compact_switch(),
            18 => {
                let Some(journal) = &mut self.journal else {
                    return;
                };
                let aborted = journal.compact_abort();
                self.compacted = None;
                self.check(aborted);
            }
            19 | 20 => self.crash(input.flag()),
            21 => {
                let mut state = self.memory.0.borrow_mut();
                state.off_at = Some(state.calls + u64::from(input.u8() % 24));
                drop(state);
                self.killed = input.flag();
            }
            22 => {
                // Enough to fill a segment now and then.
                for _ in 0..input.below(8) {
                    let mut long = Input(&[6, 0, 0, 0, 0, 0, 0, 0, 225]);
                    self.append(&mut long);
                }
            }
            _ => {
                let used: usize = bytes_of(&self.memory);
                let more = usize::from(input.u16());
                self.memory.0.borrow_mut().room = input.flag().then_some(used + more);
                if let Some(journal) = &mut self.journal {
                    let room = journal.try_make_room();
                    assert_eq!(room, journal.has_room());
                }
            }
        }
    }

    fn append(&mut self, input: &mut Input) {
        self.serial += 1;
        let wall = Wall(self.serial.cast_signed());
        let record = input.record(self.serial);
        let Some(journal) = &mut self.journal else {
            return;
        };
        match journal.append(wall, &record) {
            Ok(()) => self.pending.push((wall, record)),
            Err(JournalError::NoRoom(_)) => {
                assert!(self.memory.0.borrow().room.is_some(), "there is room");
            }
            Err(error) => self.check(Err(error)),
        }
    }

    fn flush(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        match journal.flush() {
            Ok(_) => self.acknowledged(),
            Err(error) => self.check(Err(error)),
        }
    }

    fn acknowledged(&mut self) {
        if let Some(compacted) = &mut self.compacted {
            compacted.extend(self.pending.iter().cloned());
        }
        self.sure.append(&mut self.pending);
    }

    fn compact_begin(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        self.serial += 1;
        let wall = Wall(self.serial.cast_signed());
        match journal.compact_begin(wall) {
            Ok(()) => {}
            Err(JournalError::NotCompacting(true)) => return,
            Err(JournalError::NoRoom(_)) => {
                assert!(self.memory.0.borrow().room.is_some(), "there is room");
                // What it flushed before it found that out stays appended, in either case.
                return;
            }
            Err(error) => return self.check(Err(error)),
        }
        self.acknowledged();
        let state = state_of(&self.sure);
        let copied = self.journal.as_mut().map_or(Ok(()), |journal| {
            journal.compact_copy(state.iter().cloned())
        });
        match copied {
            Ok(()) => {
                self.compacted = Some(state.into_iter().map(|record| (wall, record)).collect());
            }
            Err(JournalError::NoRoom(_)) => {
                assert!(self.memory.0.borrow().room.is_some(), "there is room");
            }
            Err(error) => self.check(Err(error)),
        }
    }

    fn compact_switch(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if self.compacted.is_none() {
            return;
        }
        match journal.compact_switch() {
            Ok(_) => self.sure = self.compacted.take().unwrap_or_default(),
            Err(error) => self.check(Err(error)),
        }
    }

    /// An error is right only where the machine went off; then it is on again.
    fn check(&mut self, outcome: Result<(), JournalError>) {
        if let Err(error) = outcome {
            let off = self.memory.0.borrow().off_at.is_some();
            assert!(off, "{error} without a cause");
            self.crash(!self.killed);
        }
    }

    /// The process is gone, and perhaps the machine's memory with it; the next one opens what is left.
    fn crash(&mut self, power: bool) {
        self.end(power);
        self.reopen();
    }

    /// The process is gone, and perhaps the machine's memory with it.
    pub fn end(&mut self, power: bool) {
        self.journal = None;
        if power {
            self.memory.power_cut();
        } else {
            self.memory.process_ends();
        }
        self.memory.0.borrow_mut().room = None;
    }

    fn reopen(&mut self) {
        let opened = open(self.memory.clone(), OnDamage::Stop);
        let (journal, _, found) = opened.expect("a journal that nobody damaged");
        self.expect(&found);
        self.journal = Some(journal);
        self.sure = found;
        self.pending.clear();
        self.compacted = None;
    }

    /// Everything acknowledged, then as much of what was not as there may be.
    pub fn expect(&self, found: &Records) {
        let fits = |sure: &Records| {
            found
                .strip_prefix(sure.as_slice())
                .is_some_and(|more| self.pending.starts_with(more))
        };
        assert!(
            fits(&self.sure) || self.compacted.as_ref().is_some_and(fits),
            "{} records were found, {} acknowledged, {} appended since",
            found.len(),
            self.sure.len(),
            self.pending.len()
        );
    }
}

/// Bytes of all files.
fn bytes_of(memory: &Memory) -> usize {
    let files = memory.files().into_iter();
    files.map(|file| memory.bytes(file).len()).sum()
}
