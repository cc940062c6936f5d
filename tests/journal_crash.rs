//! Power cuts at every call and at random ones: what was flushed is there, nothing else but what was appended,
//! in order; and the page cache may lie after a failed flush.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{Memory, Random, number, numbered};
use settled::core::time::Wall;
use settled::journal::{Journal, JournalError, Opened, Options, Report};

const OPTIONS: Options = Options {
    segment_bytes: 64 * 1024,
    reserve_bytes: 8 * 1024,
    on_damage: settled::journal::OnDamage::Stop,
    now: Wall(1),
    random_id: 7,
    random_salt: 9,
};

fn open(memory: &Memory) -> Result<(Journal<Memory>, Report, Vec<u64>), JournalError> {
    let mut numbers = Vec::new();
    let opened = Opened::new(memory.clone(), OPTIONS)?;
    let (journal, report) = opened.replay(|_, record| numbers.push(number(&record)))?;
    Ok((journal, report, numbers))
}

/// How often the interesting things happened, so that a run in which they did not is no proof.
#[derive(Debug, Default)]
struct Happened {
    cuts: u64,
    rewrites: u64,
    commits: u64,
    rotations: u64,
    finals: u64,
    /// Compactions that were committed while there was no room for a segment.
    freed: u64,
}

/// What the world knows: what has been appended, what has been promised.
#[derive(Debug, Default)]
struct Promise {
    appended: u64,
    flushed: u64,
    /// Numbers below this may be left out: a compaction that began with them gone has been begun.
    forgettable: u64,
    /// Numbers below this must be left out: that compaction was committed.
    forgotten: u64,
}

impl Promise {
    /// Holds the numbers that a replay gave against the promise.
    fn check(&mut self, numbers: &[u64], seed: u64) {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let first = sorted.first().copied().unwrap_or(self.flushed);
        assert!(
            first == self.forgotten || first == self.forgettable,
            "seed {seed}: begins with {first}: {self:?}"
        );
        let expected: Vec<u64> = (first..first + sorted.len() as u64).collect();
        assert_eq!(sorted, expected, "seed {seed}: a hole");
        let end = first + sorted.len() as u64;
        assert!(end >= self.flushed, "seed {seed}: lost {end}: {self:?}");
        assert!(
            end <= self.appended,
            "seed {seed}: invented {end}: {self:?}"
        );
        // Told twice only across the base, whose records come first.
        let again = numbers.iter().rposition(|&n| n == first).unwrap_or(0);
        assert!(numbers[again..].is_sorted(), "seed {seed}: order");
        self.appended = end;
        self.flushed = end;
        self.forgotten = first;
        self.forgettable = first;
    }
}

/// One life of a journal, until a call fails or its time is over.
fn live(
    memory: &Memory,
    random: &mut Random,
    promise: &mut Promise,
    happened: &mut Happened,
    seed: u64,
) {
    let (mut journal, report, numbers) = match open(memory) {
        Ok(opened) => opened,
        Err(JournalError::Storage(_) | JournalError::NoRoom(_) | JournalError::Final(_)) => return,
        Err(error) => panic!("seed {seed}: {error}"),
    };
    assert_eq!(report.damage, [], "seed {seed}");
    promise.check(&numbers, seed);
    happened.cuts += u64::from(report.cut_bytes > 0);
    happened.rewrites += u64::from(report.rewritten > 0);
    let mut pushed = None;
    let segments = |memory: &Memory| memory.files().len() as u64;
    let mut before = segments(memory);
    for _ in 0..random.below(60) {
        let done = match random.below(12) {
            0 if pushed.is_none() => {
                // Forget some of the oldest.
                let end = promise.appended;
                let from = promise.forgotten;
                let keep = from + random.below((end - from) as usize + 1) as u64;
                journal.compact_begin(Wall(3)).map(|()| {
                    promise.flushed = end;
                    pushed = Some((keep, keep, end));
                })
            }
            1..=3 if let Some((keep, next, end)) = pushed => {
                let to = (next + random.below(200) as u64).min(end);
                pushed = Some((keep, to, end));
                let done = (next..to).try_for_each(|n| journal.compact_push(&numbered(n)));
                if done.is_ok() && to == end {
                    pushed = None;
                    promise.forgettable = keep;
                    let full = journal.no_room().is_some();
                    journal.compact_commit().map(|_| {
                        promise.forgotten = keep;
                        happened.commits += 1;
                        happened.freed += u64::from(full);
                    })
                } else {
                    done
                }
            }
            4..=7 => {
                let before = promise.appended;
                let flushed = journal.flush();
                flushed.map(|_| promise.flushed = before)
            }
            _ => (0..random.below(120)).try_for_each(|_| {
                journal.append(Wall(2), &numbered(promise.appended))?;
                promise.appended += 1;
                Ok(())
            }),
        };
        happened.rotations += segments(memory).saturating_sub(before);
        before = segments(memory);
        match done {
            Ok(()) => {}
            Err(error @ JournalError::Final(_)) => {
                assert_eq!(journal.flush().unwrap_err(), error, "seed {seed}");
                happened.finals += 1;
                return;
            }
            // A compaction that failed, a segment that could not be made: the journal goes on.
            Err(_) if pushed.is_some() && !journal.compacting() => pushed = None,
            Err(_) => {}
        }
    }
}

#[test]
fn nothing_flushed_is_lost_by_power_cuts() {
    let seeds = std::env::var("JOURNAL_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut happened = Happened::default();
    let seeds = seeds.unwrap_or(150);
    for seed in 0..seeds {
        let memory = Memory::new(seed);
        let mut random = Random(seed);
        let mut promise = Promise::default();
        for _ in 0..6 {
            let calls = memory.0.borrow().calls;
            // The machine goes off, or one call fails, or both, or neither.
            if random.below(4) != 0 {
                memory.0.borrow_mut().off_at = Some(calls + random.below(60) as u64);
            }
            if random.below(2) == 0 {
                memory.0.borrow_mut().fail_at = Some(calls + random.below(60) as u64);
            }
            // Or the disk is full soon.
            let room = 64 * 1024 + random.below(512) * 1024;
            memory.0.borrow_mut().room = (random.below(2) == 0).then_some(room);
            live(&memory, &mut random, &mut promise, &mut happened, seed);
            memory.0.borrow_mut().room = None;
            if random.below(3) == 0 {
                memory.process_ends();
            } else {
                memory.power_cut();
            }
        }
        let (_, report, numbers) = open(&memory).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(report.damage, []);
        promise.check(&numbers, seed);
    }
    let Happened {
        cuts,
        rewrites,
        commits,
        rotations,
        finals,
        freed,
    } = happened;
    let least = [cuts, rewrites, commits, rotations, finals, freed];
    println!("{seeds} seeds: {happened:?}");
    assert!(least.iter().all(|&n| n > seeds / 20), "{happened:?}");
}

#[test]
fn a_failed_flush_is_final_and_its_lies_are_not_believed() {
    for seed in 0..200 {
        let memory = Memory::new(seed);
        let (mut journal, _, _) = open(&memory).unwrap();
        for n in 0..50 {
            journal.append(Wall(2), &numbered(n)).unwrap();
        }
        journal.flush().unwrap();
        for n in 50..90 {
            journal.append(Wall(2), &numbered(n)).unwrap();
        }
        // The write, then the flush of it.
        let flush = memory.0.borrow().calls + 1;
        memory.0.borrow_mut().fail_at = Some(flush);
        let error = journal.flush().unwrap_err();
        assert!(matches!(error, JournalError::Final(_)), "{error}");
        memory.0.borrow_mut().fail_at = None;
        let calls = memory.0.borrow().calls;
        assert_eq!(journal.flush().unwrap_err(), error);
        assert_eq!(journal.append(Wall(2), &numbered(1)).unwrap_err(), error);
        assert_eq!(journal.compact_begin(Wall(2)).unwrap_err(), error);
        assert!(!journal.has_room());
        assert!(!journal.try_make_room());
        assert_eq!(memory.0.borrow().calls, calls, "nothing more is written");
        drop(journal);
        // The pages still show all ninety, and some of them were never written.
        memory.process_ends();
        let (journal, report, numbers) = open(&memory).unwrap();
        assert_eq!(numbers, (0..90).collect::<Vec<_>>());
        assert!(report.rewritten >= 40);
        drop(journal);
        // What was handed out is durable now.
        memory.power_cut();
        let (_, _, numbers) = open(&memory).unwrap();
        assert_eq!(numbers, (0..90).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn flush_is_one_flush_and_nothing_when_there_is_nothing() {
    let memory = Memory::new(1);
    let (mut journal, _, _) = open(&memory).unwrap();
    journal.append(Wall(2), &numbered(0)).unwrap();
    journal.flush().unwrap();
    let calls = memory.0.borrow().calls;
    assert_eq!(journal.flush().unwrap(), Default::default());
    journal.append(Wall(2), &numbered(1)).unwrap();
    journal.append(Wall(2), &numbered(2)).unwrap();
    assert_eq!(memory.0.borrow().calls, calls, "append makes no call");
    memory.0.borrow_mut().flushes.clear();
    let flushed = journal.flush().unwrap();
    assert_eq!((flushed.records, flushed.bytes), (2, 96));
    assert_eq!(memory.0.borrow().flushes.len(), 1);
}

/// The directory as it is at a flush, with every choice of the sectors of the batch that is being flushed
/// written or not: what was flushed before is there, and of the batch a beginning.
#[test]
fn every_image_of_a_torn_batch_opens() {
    for (before, batch) in [(3, 60), (100, 75), (0, 10), (7, 100)] {
        let memory = Memory::new(1);
        let (mut journal, _, _) = open(&memory).unwrap();
        for n in 0..before {
            journal.append(Wall(2), &numbered(n)).unwrap();
        }
        journal.flush().unwrap();
        let file = settled::journal::storage::File::Log(1);
        let old = memory.bytes(file);
        for n in before..before + batch {
            journal.append(Wall(2), &numbered(n)).unwrap();
        }
        journal.flush().unwrap();
        let new = memory.bytes(file);
        drop(journal);
        let sectors: Vec<usize> = (0..new.len())
            .step_by(512)
            .filter(|&at| old[at..at + 512] != new[at..at + 512])
            .collect();
        assert!((1..=11).contains(&sectors.len()), "{}", sectors.len());
        let mut ends = std::collections::BTreeSet::new();
        for choice in 0..1u32 << sectors.len() {
            let image = memory.copy();
            image.edit(file, |bytes| {
                bytes.copy_from_slice(&old);
                for (bit, &at) in sectors.iter().enumerate() {
                    if choice & (1 << bit) != 0 {
                        bytes[at..at + 512].copy_from_slice(&new[at..at + 512]);
                    }
                }
            });
            let (mut journal, report, numbers) = open(&image).unwrap();
            let end = numbers.len() as u64;
            assert_eq!(numbers, (0..end).collect::<Vec<_>>());
            assert!((before..=before + batch).contains(&end));
            assert_eq!(report.damage, []);
            ends.insert(end);
            journal.append(Wall(2), &numbered(end)).unwrap();
            journal.flush().unwrap();
            drop(journal);
            assert_eq!(open(&image).unwrap().2.len() as u64, end + 1);
        }
        // The images were not all alike.
        assert_eq!(ends.len(), sectors.len() + 1);
    }
}

/// A start that is killed at any call, then a start that loses its power at any call: what the first one left
/// half done, names that are not durable yet included, is nothing that the second may build on.
#[test]
fn starts_that_are_cut_short_one_after_the_other() {
    for seed in 0..12 {
        for (first, second) in (0..12).flat_map(|a| (0..12).map(move |b| (a, b))) {
            let memory = Memory::new(seed);
            let (mut journal, _, _) = open(&memory).unwrap();
            for n in 0..20 {
                journal.append(Wall(2), &numbered(n)).unwrap();
                journal.flush().unwrap();
            }
            drop(journal);
            for (off, power) in [(first, false), (second, true)] {
                let calls = memory.0.borrow().calls;
                memory.0.borrow_mut().off_at = Some(calls + off);
                let _ = open(&memory);
                if power {
                    memory.power_cut();
                } else {
                    memory.process_ends();
                }
            }
            let story = format!("seed {seed}, off at {first} and {second}");
            let (_, report, numbers) = open(&memory).unwrap_or_else(|e| panic!("{story}: {e}"));
            assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{story}");
            assert_eq!(report.damage, [], "{story}");
        }
    }
}
