//! What compaction carries over of jobs: what it is made from, and how much of it there may be.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::Memory;
use settled::core::ask::Version;
use settled::core::files::name_hash;
use settled::core::ids::{DirId, JobId, WatchId};
use settled::core::record::{AttemptEnd, Disposal, Outcome, Record, Summary};
use settled::core::time::Wall;
use settled::journal::storage::File;
use settled::journal::{Journal, JournalError, OnDamage, Opened, Options};

const DIR: DirId = DirId(7);

fn open(memory: &Memory) -> Result<(Journal<Memory>, Vec<Record>), JournalError> {
    let options = Options {
        segment_bytes: 64 * 1024,
        reserve_bytes: 8 * 1024,
        on_damage: OnDamage::Stop,
        random_id: 7,
        random_salt: 9,
        ..Options::default()
    };
    let mut records = Vec::new();
    let opened = Opened::new(memory.clone(), options)?;
    let (journal, _) = opened.replay(|_, record| records.push(record))?;
    Ok((journal, records))
}

fn append(journal: &mut Journal<Memory>, at: i64, record: &Record) {
    journal.append(Wall(at), record).unwrap();
    journal.flush().unwrap();
}

fn places() -> [Record; 2] {
    let watch = Record::Watch {
        watch: WatchId(3),
        name: "w".into(),
    };
    let dir = Record::Dir {
        dir: DIR,
        watch: WatchId(3),
        parent: DirId(0),
        name: Vec::new(),
        ino: 1,
        btime_ns: 1,
    };
    [watch, dir]
}

fn settled(job: u64, name: &str) -> Record {
    Record::Settled {
        job: JobId(job),
        dir: DIR,
        name: name.into(),
        version: Version {
            ino: job,
            size: 5,
            ..Version::default()
        },
        ctime_ns: 1,
        reruns: 0,
    }
}

fn started(job: u64, attempt: u32) -> Record {
    Record::Started {
        job: JobId(job),
        attempt,
        slot: 0,
    }
}

fn ended(job: u64, attempt: u32, output: &[u8]) -> Record {
    Record::Ended {
        job: JobId(job),
        attempt,
        end: AttemptEnd::Exit(3),
        counted: attempt,
        not_before: Wall(0),
        output: output.to_vec(),
    }
}

fn concluded(job: u64, outcome: Outcome, output: &[u8]) -> Record {
    Record::Concluded {
        job: JobId(job),
        outcome,
        end: Some(AttemptEnd::Exit(1)),
        disposal: Disposal::Keep,
        version: Version::default(),
        ctime_ns: 1,
        output: output.to_vec(),
    }
}

/// A compaction of this state, with all that may be carried over, made to count; what its base has of that.
fn compact(journal: &mut Journal<Memory>, memory: &Memory, state: &[Record]) -> Vec<Summary> {
    journal.compact_begin(Wall(1000)).unwrap();
    let mut found = Vec::new();
    let mut keep = |_, summary: &mut Summary| {
        found.push(summary.clone());
        true
    };
    let records = state.iter().map(|record| (None, record.clone()));
    let damage = journal.compact_copy_at(records, &mut memory.clone(), &mut keep);
    assert_eq!(damage.unwrap(), []);
    journal.compact_switch().unwrap();
    found
}

fn summaries(records: &[Record]) -> Vec<Summary> {
    let summaries = records.iter().filter_map(|record| match record {
        Record::Summary(of) => Some((**of).clone()),
        _ => None,
    });
    summaries.collect()
}

#[test]
fn a_summary_is_bounded_and_the_last_attempt_comes_first() {
    let memory = Memory::new(1);
    let (mut journal, _) = open(&memory).unwrap();
    for record in places() {
        append(&mut journal, 1, &record);
    }
    append(&mut journal, 10, &settled(1, "n0"));
    for attempt in 1..=20 {
        append(&mut journal, 20 + i64::from(attempt), &started(1, attempt));
        append(&mut journal, 50, &ended(1, attempt, &[b'x'; 1500]));
    }
    for n in 0..20 {
        let renamed = Record::Renamed {
            dir: DIR,
            name_hash: name_hash(format!("n{n}").as_bytes()),
            to_dir: DIR,
            to_name: format!("n{}", n + 1).into_bytes(),
        };
        append(&mut journal, 60 + n, &renamed);
    }
    append(&mut journal, 90, &settled(2, "long"));
    append(&mut journal, 91, &started(2, 1));
    let long: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
    append(&mut journal, 92, &concluded(2, Outcome::Dead, &long));
    let found = compact(&mut journal, &memory, &places());
    let (long_one, one) = (&found[0], &found[1]);
    let numbers: Vec<u32> = one.attempts.iter().map(|made| made.number).collect();
    assert_eq!(numbers, (13..=20).collect::<Vec<_>>());
    let kept: Vec<usize> = one.attempts.iter().map(|made| made.output.len()).collect();
    assert_eq!(kept, [0, 0, 0, 0, 0, 0, 1500, 1500]);
    assert_eq!((one.rel.as_slice(), one.dir), (&b"n20"[..], DIR));
    let names: Vec<&[u8]> = one.before.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names.first(), Some(&&b"n12"[..]));
    assert_eq!(names.len(), 8);
    assert_eq!(one.concluded, None);
    assert_eq!(long_one.attempts[0].output, long[long.len() - 4096..]);
    assert_eq!(long_one.concluded, Some((Outcome::Dead, Wall(92))));
    // As it was written it is read, and carried over once more.
    drop(journal);
    let (mut journal, records) = open(&memory).unwrap();
    assert_eq!(summaries(&records), found);
    assert_eq!(compact(&mut journal, &memory, &places()), found);
}

#[test]
fn what_is_appended_after_the_beginning_is_not_carried_over() {
    let memory = Memory::new(1);
    let (mut journal, _) = open(&memory).unwrap();
    for record in places() {
        append(&mut journal, 1, &record);
    }
    append(&mut journal, 2, &settled(1, "a"));
    journal.compact_begin(Wall(3)).unwrap();
    append(&mut journal, 4, &concluded(1, Outcome::Done, b""));
    append(&mut journal, 5, &settled(2, "b"));
    let mut keep = |_, _: &mut Summary| true;
    let records = places().into_iter().map(|record| (None, record));
    let damage = journal.compact_copy_at(records, &mut memory.clone(), &mut keep);
    assert_eq!(damage.unwrap(), []);
    journal.compact_switch().unwrap();
    drop(journal);
    let (_, records) = open(&memory).unwrap();
    let of = summaries(&records);
    assert_eq!(of.len(), 1);
    assert_eq!((of[0].job, of[0].concluded), (JobId(1), None));
    // They stand behind it.
    assert_eq!(records.last(), Some(&settled(2, "b")));
}

#[test]
fn damage_is_told_of_and_the_records_around_it_are_carried_over() {
    let memory = Memory::new(1);
    let (mut journal, _) = open(&memory).unwrap();
    for record in places() {
        append(&mut journal, 1, &record);
    }
    for (job, name) in [(1, "before"), (2, "damaged"), (3, "behind")] {
        append(&mut journal, 2, &settled(job, name));
        append(&mut journal, 3, &concluded(job, Outcome::Done, b""));
    }
    let file = File::Log(1);
    memory.edit(file, |bytes| {
        let at = bytes.windows(7).position(|part| part == b"damaged");
        bytes[at.unwrap()] ^= 1;
    });
    journal.compact_begin(Wall(4)).unwrap();
    let mut keep = |_, _: &mut Summary| true;
    let records = places().into_iter().map(|record| (None, record));
    let damage = journal.compact_copy_at(records, &mut memory.clone(), &mut keep);
    let damage = damage.unwrap();
    assert_eq!(damage.len(), 1);
    assert_eq!((damage[0].file, damage[0].missing), (file, 1));
    assert_eq!(journal.keep_damaged(&damage).unwrap().len(), 1);
    journal.compact_switch().unwrap();
    assert_eq!(memory.kept().len(), 1);
    drop(journal);
    // What was written is whole.
    let (_, records) = open(&memory).unwrap();
    let jobs: Vec<u64> = summaries(&records).iter().map(|of| of.job.0).collect();
    assert_eq!(jobs, [1, 3]);
}
