//! The recovery table, a test for every row, named after it.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{Memory, Random, number, numbered};
use settled::core::time::Wall;
use settled::journal::error::Why;
use settled::journal::format::{self, BadFrame, BadHeader, Header, Role, Seed, Stamp};
use settled::journal::recover::{Action, Found, Where, decide};
use settled::journal::storage::File;
use settled::journal::{Damage, Journal, JournalError, OnDamage, Opened, Options, Report};

const OPTIONS: Options = Options {
    segment_bytes: 64 * 1024,
    reserve_bytes: 8 * 1024,
    on_damage: OnDamage::Continue,
    now: Wall(1),
    random_id: 7,
    random_salt: 9,
};

/// Bytes of a numbered record.
const EACH: usize = 48;
/// How many fit into a segment.
const FULL: u64 = (64 * 1024 - 64) / 48;

fn open_with(
    memory: &Memory,
    on_damage: OnDamage,
) -> Result<(Journal<Memory>, Report, Vec<u64>), JournalError> {
    open_salted(memory, on_damage, OPTIONS.random_salt)
}

fn open_salted(
    memory: &Memory,
    on_damage: OnDamage,
    random_salt: u64,
) -> Result<(Journal<Memory>, Report, Vec<u64>), JournalError> {
    let mut numbers = Vec::new();
    let options = Options {
        on_damage,
        random_salt,
        ..OPTIONS
    };
    let opened = Opened::new(memory.clone(), options)?;
    let (journal, report) = opened.replay(|_, record| numbers.push(number(&record)))?;
    Ok((journal, report, numbers))
}

fn open(memory: &Memory) -> (Journal<Memory>, Report, Vec<u64>) {
    open_with(memory, OnDamage::Continue).unwrap()
}

/// A journal with these batches, each flushed, from one process that was then killed.
fn journal(batches: &[std::ops::Range<u64>]) -> Memory {
    let memory = Memory::new(1);
    let (mut journal, _, _) = open(&memory);
    for batch in batches {
        for n in batch.clone() {
            journal.append(Wall(2), &numbered(n)).unwrap();
        }
        journal.flush().unwrap();
    }
    memory
}

/// Where record `n` of the first segment begins.
fn at(n: usize) -> usize {
    64 + n * EACH
}

fn seed(file: File) -> Seed {
    Seed::new(file.role(), 9, file.number().unwrap())
}

/// One record with this sequence number, valid in this file.
fn valid(file: File, seq: u64, flushed: u32, n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let stamp = Stamp {
        seq,
        wall: Wall(3),
        flushed,
    };
    format::encode(&mut bytes, seed(file), stamp, &numbered(n)).unwrap();
    bytes
}

/// With `Stop` the same damage is an error, and nothing has been changed.
fn stops(memory: &Memory) -> Vec<Damage> {
    let before = memory.files();
    let stopped = open_with(memory, OnDamage::Stop).unwrap_err();
    assert_eq!(memory.files(), before);
    match stopped {
        JournalError::Damaged(damage) => damage,
        other => panic!("{other}"),
    }
}

fn count(numbers: &[u64]) -> std::ops::Range<u64> {
    assert!(numbers.is_sorted());
    let range = numbers[0]..numbers[numbers.len() - 1] + 1;
    assert_eq!(numbers.len() as u64, range.end - range.start);
    range
}

const ONE: File = File::Log(1);
const TWO: File = File::Log(2);

#[test]
fn takes_what_follows() {
    let memory = journal(&[0..10, 10..20, 20..3000]);
    assert!(memory.files().contains(&File::Log(3)));
    let (_, report, numbers) = open(&memory);
    assert_eq!(count(&numbers), 0..3000);
    assert_eq!((report.damage, report.cut_bytes), (vec![], 0));
    assert_eq!(report.records, 3000);
}

#[test]
fn ends_where_the_successor_begins() {
    let memory = journal(&[0..10, 10..20]);
    // The last batch is copied, and is to be read in the copy only; here the original is damaged after.
    let copy = memory.copy();
    let (_, report, numbers) = open(&copy);
    assert_eq!(count(&numbers), 0..20);
    assert_eq!(report.rewritten, 10);
    assert_eq!(copy.bytes(ONE).len(), at(10), "given back");
    // As if the machine had stopped before that.
    let mut old = memory.bytes(ONE);
    old[at(12)] ^= 1;
    copy.put(ONE, old);
    let (_, report, numbers) = open(&copy);
    assert_eq!(count(&numbers), 0..20);
    assert_eq!(report.damage, []);
}

#[test]
fn cuts_a_torn_tail() {
    // The second batch was flushed, but no later record knows it.
    let memory = journal(&[0..10, 10..14]);
    for cut in at(10)..at(14) {
        let memory = memory.copy();
        memory.edit(ONE, |bytes| bytes[cut..].fill(0));
        let (mut journal, report, numbers) = open_with(&memory, OnDamage::Stop).unwrap();
        // A record whose last bytes were zeros anyway is whole.
        let whole = 10 + ((cut - at(10) + 7) / EACH) as u64;
        let end = count(&numbers).end;
        assert!(end == whole || end == ((cut - at(10)) / EACH) as u64 + 10);
        assert!(report.cut_bytes < EACH as u64);
        // What is appended next follows.
        journal.append(Wall(2), &numbered(end)).unwrap();
        journal.flush().unwrap();
        assert_eq!(count(&open(&memory).2), 0..end + 1);
    }
}

#[test]
fn cuts_a_tail_with_holes() {
    let memory = journal(&[0..10, 10..14]);
    memory.edit(ONE, |bytes| bytes[at(11)..at(12)].fill(0));
    let (_, report, numbers) = open_with(&memory, OnDamage::Stop).unwrap();
    assert_eq!(count(&numbers), 0..11);
    // Less the zeros that the last record ends with.
    assert!((2 * EACH as u64..=3 * EACH as u64).contains(&report.cut_bytes));
}

#[test]
fn cuts_what_does_not_follow() {
    for seq in [1, 4, 16, 99] {
        let memory = journal(&[0..10, 10..14]);
        memory.edit(ONE, |bytes| {
            bytes[at(14)..at(15)].copy_from_slice(&valid(ONE, seq, at(10) as u32, 77));
        });
        let (_, report, numbers) = open_with(&memory, OnDamage::Stop).unwrap();
        assert_eq!(count(&numbers), 0..14, "sequence {seq}");
        assert!(report.cut_bytes > 0);
    }
}

#[test]
fn ends_before_an_unreadable_successor() {
    let memory = journal(&[0..FULL, FULL..2000]);
    memory.edit(TWO, |bytes| bytes[5] ^= 1);
    let (_, report, numbers) = open(&memory);
    assert_eq!(count(&numbers), 0..2000);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].file, TWO);
}

#[test]
fn ends_at_what_does_not_follow() {
    // A dead tail in the first, an unreadable header in the second: the dead tail is not taken.
    let memory = journal(&[0..10, 10..14]);
    let old = memory.bytes(ONE);
    drop(open(&memory));
    let mut old = old;
    old[at(14)..at(15)].copy_from_slice(&valid(ONE, 40, at(10) as u32, 77));
    memory.put(ONE, old);
    memory.edit(TWO, |bytes| bytes[5] ^= 1);
    let (_, report, numbers) = open(&memory);
    assert_eq!(count(&numbers), 0..14);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].why, Why::Header(BadHeader::Magic));
}

#[test]
fn skips_copies_behind_a_bad_header() {
    // The second segment begins with copies of the first one's tail.
    let memory = journal(&[0..10, 10..14]);
    let old = memory.bytes(ONE);
    let (mut journal, _, _) = open(&memory);
    for n in 14..30 {
        journal.append(Wall(2), &numbered(n)).unwrap();
    }
    journal.flush().unwrap();
    memory.put(ONE, old);
    memory.edit(TWO, |bytes| bytes[40] ^= 1);
    let (_, report, numbers) = open(&memory);
    assert_eq!(count(&numbers), 0..30, "each once");
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].why, Why::Header(BadHeader::Checksum));
}

#[test]
fn reports_a_gap_behind_a_bad_header() {
    let memory = journal(&[0..FULL, FULL..2000]);
    let end = FULL as usize;
    memory.edit(ONE, |bytes| bytes[at(end - 2)..at(end)].fill(0));
    memory.edit(TWO, |bytes| bytes[5] ^= 1);
    let damage = stops(&memory);
    let (_, report, numbers) = open(&memory);
    assert_eq!(report.damage, damage);
    let gap = Why::Sequence {
        expected: FULL - 1,
        found: FULL + 1,
    };
    assert_eq!((damage[1].file, damage[1].why), (TWO, gap));
    assert_eq!((damage[1].bytes, damage[1].missing), (0, 2));
    assert_eq!(numbers.len(), 1998);
}

#[test]
fn reports_damage() {
    // Every byte of a record that is known flushed, in the last segment and in an earlier one.
    for (batches, total) in [
        (vec![0..10, 10..20], 20),
        (vec![0..10, 10..FULL, FULL..2000], 2000),
    ] {
        let memory = journal(&batches);
        for byte in (at(4)..at(5)).step_by(5) {
            let memory = memory.copy();
            memory.edit(ONE, |bytes| bytes[byte] ^= 0x10);
            let before = memory.bytes(ONE);
            let damage = stops(&memory);
            assert_eq!(damage.len(), 1);
            assert_eq!((damage[0].file, damage[0].offset), (ONE, at(4) as u64));
            assert_eq!((damage[0].bytes, damage[0].missing), (EACH as u64, 1));
            let (_, report, numbers) = open(&memory);
            assert_eq!(report.damage, damage);
            assert_eq!(report.kept, ["/memory/0000000001.log.damaged"]);
            assert_eq!(numbers.len() as u64, total - 1);
            assert!(!numbers.contains(&4));
            // It is not forgotten by the next start, and the damaged file is as it was.
            assert_eq!(memory.bytes(ONE), before);
            assert_eq!(stops(&memory), damage);
        }
    }
}

#[test]
fn reports_damage_to_the_end_of_a_sealed_segment() {
    let memory = journal(&[0..FULL, FULL..2000]);
    memory.edit(ONE, |bytes| bytes.truncate(at(1000) + 7));
    let damage = stops(&memory);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].missing, FULL - 1000);
    let (_, _, numbers) = open(&memory);
    assert_eq!(numbers.len() as u64, 2000 - (FULL - 1000));
}

#[test]
fn reports_zeros_below_what_was_flushed_before_the_name() {
    // What a recovery copied was flushed before the segment got its name.
    let memory = journal(&[0..10, 10..14]);
    drop(open(&memory));
    memory.edit(TWO, |bytes| bytes[at(2)..].fill(0));
    let damage = stops(&memory);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].why, Why::Frame(BadFrame::Empty));
    assert_eq!(
        (damage[0].offset, damage[0].bytes),
        (at(2) as u64, 2 * EACH as u64)
    );
    assert_eq!(count(&open(&memory).2), 0..12);
}

#[test]
fn reports_what_the_disk_cannot_read() {
    let memory = journal(&[0..FULL, FULL..2000]);
    memory.0.borrow_mut().unreadable = Some((ONE, 8192));
    let damage = stops(&memory);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].to_string().contains("cannot read"), "{damage:?}");
    // The records that touch the page at 8192.
    let first = (8192 - 64) / EACH as u64;
    let last = (8192 + 4096 - 64) / EACH as u64;
    assert_eq!(damage[0].offset, at(first as usize) as u64);
    assert_eq!(damage[0].missing, last - first + 1);
    let (_, _, numbers) = open(&memory);
    assert_eq!(numbers.len() as u64, 2000 - damage[0].missing);
}

#[test]
fn reports_a_header_that_the_disk_cannot_read() {
    let memory = journal(&[0..FULL, FULL..2000]);
    memory.0.borrow_mut().unreadable = Some((ONE, 0));
    let damage = stops(&memory);
    assert_eq!((damage[0].file, damage[0].offset), (ONE, 0));
    assert!(damage[0].to_string().contains("cannot read"), "{damage:?}");
    // The rest of that page is another place.
    assert_eq!((damage.len(), damage[1].offset), (2, at(0) as u64));
    assert!(damage[1].to_string().contains("cannot read"), "{damage:?}");
    let (_, _, numbers) = open(&memory);
    assert_eq!(numbers.len() as u64, 2000 - damage[1].missing);
}

#[test]
fn reports_a_broken_sequence() {
    for (seq, missing) in [(3, 1), (90, 1)] {
        let memory = journal(&[0..10, 10..20]);
        memory.edit(ONE, |bytes| {
            bytes[at(4)..at(5)].copy_from_slice(&valid(ONE, seq, 64, 77));
        });
        let damage = stops(&memory);
        let why = Why::Sequence {
            expected: 5,
            found: seq,
        };
        assert_eq!((damage[0].why, damage[0].offset), (why, at(4) as u64));
        let (_, _, numbers) = open(&memory);
        if seq == 3 {
            assert_eq!(damage[0].missing, missing);
            assert!(!numbers.contains(&77));
            assert_eq!(numbers.len(), 19);
        }
    }
}

#[test]
fn reports_a_bad_header() {
    for byte in 0..64 {
        let memory = journal(&[0..10, 10..FULL, FULL..1800, 1800..2000]);
        memory.edit(ONE, |bytes| bytes[byte] ^= 1);
        let damage = stops(&memory);
        assert_eq!(damage.len(), 1);
        assert_eq!(
            (damage[0].file, damage[0].offset, damage[0].bytes),
            (ONE, 0, 64)
        );
        let (_, report, numbers) = open(&memory);
        assert_eq!(report.damage, damage);
        assert_eq!(count(&numbers), 0..2000);
    }
    // Without any header nothing can be read, and nothing is thrown away.
    let memory = journal(&[0..10, 10..20]);
    memory.edit(ONE, |bytes| bytes[0] ^= 1);
    let damage = stops(&memory);
    assert_eq!((damage[0].offset, damage[0].bytes), (0, 64 * 1024));
    let (_, report, numbers) = open(&memory);
    assert_eq!((numbers, report.kept.len()), (vec![], 1));
    assert!(memory.files().contains(&ONE));
}

#[test]
fn reports_a_foreign_file() {
    let memory = journal(&[0..10, 10..FULL, FULL..2000]);
    let header = Header {
        role: Role::Log,
        id: 8,
        salt: 9,
        number: 2,
        flushed: 64,
        first_seq: FULL + 1,
        created: Wall(1),
    };
    memory.edit(TWO, |bytes| bytes[..64].copy_from_slice(&header.encode()));
    let damage = stops(&memory);
    assert_eq!((damage[0].file, damage[0].why), (TWO, Why::Foreign));
    // A file under another file's name.
    let memory = journal(&[0..10, 10..FULL, FULL..2000]);
    memory.put(File::Log(3), memory.bytes(ONE));
    let damage = stops(&memory);
    assert_eq!(
        (damage[0].file, damage[0].why),
        (File::Log(3), Why::Foreign)
    );
    assert_eq!(count(&open(&memory).2), 0..2000);
}

#[test]
fn refuses_a_newer_version() {
    let memory = journal(&[0..5, 5..10]);
    memory.edit(ONE, |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open_with(&memory, OnDamage::Continue).unwrap_err();
    assert_eq!(
        error,
        JournalError::Newer {
            path: "/memory/0000000001.log".into(),
            version: 2
        }
    );
    assert!(error.to_string().contains("version 2"));
    assert!(error.to_string().contains("up to 1"));
}

#[test]
fn reports_a_missing_segment() {
    let memory = journal(&[0..FULL, FULL..3000]);
    let three = memory.copy();
    three.take_away(TWO);
    let damage = stops(&three);
    assert_eq!(damage.len(), 1);
    assert_eq!(
        (damage[0].file, damage[0].why),
        (File::Log(3), Why::Missing)
    );
    assert_eq!(damage[0].missing, FULL);
    assert_eq!(open(&three).2.len() as u64, 3000 - FULL);
    // The first.
    memory.take_away(ONE);
    let damage = stops(&memory);
    assert_eq!((damage[0].file, damage[0].missing), (TWO, FULL));
}

#[test]
fn numbers_do_not_start_over() {
    let memory = journal(&[0..5, 5..10]);
    let last = File::Log(u32::MAX);
    memory.put(last, b"whatever it is".to_vec());
    let error = open_with(&memory, OnDamage::Continue).unwrap_err();
    assert!(error.to_string().contains("4294967295.log"), "{error}");
    assert_eq!(memory.bytes(last), b"whatever it is");
}

fn compacted() -> Memory {
    let memory = Memory::new(1);
    let (mut journal, _, _) = open(&memory);
    for n in 0..100 {
        journal.append(Wall(2), &numbered(n)).unwrap();
    }
    journal.compact_begin(Wall(2)).unwrap();
    for n in 50..100 {
        journal.compact_push(&numbered(n)).unwrap();
    }
    for n in 100..110 {
        journal.append(Wall(2), &numbered(n)).unwrap();
    }
    journal.compact_commit().unwrap();
    journal.flush().unwrap();
    memory
}

const BASE: File = File::Base(2);

#[test]
fn a_base_comes_first() {
    let memory = compacted();
    let (journal, report, numbers) = open(&memory);
    assert_eq!(count(&numbers), 50..110);
    assert_eq!(report.damage, []);
    assert!(memory.files().contains(&BASE));
    assert!(!memory.files().contains(&ONE));
    assert_eq!(journal.live_bytes(), memory.bytes(BASE).len() as u64);
}

#[test]
fn reports_a_base_without_end() {
    let memory = compacted();
    for length in [at(50), at(49) + 3, at(20)] {
        let memory = memory.copy();
        memory.edit(BASE, |bytes| bytes.truncate(length));
        let damage = stops(&memory);
        assert_eq!(damage.last().unwrap().why, Why::NoEnd, "{length}");
        let (_, _, numbers) = open(&memory);
        let base = (length - 64) / EACH;
        assert_eq!(numbers.len(), base + 10);
    }
}

#[test]
fn reports_damage_in_a_base() {
    let memory = compacted();
    memory.edit(BASE, |bytes| bytes[at(7) + 20] ^= 1);
    let damage = stops(&memory);
    assert_eq!(damage.len(), 1);
    assert_eq!((damage[0].file, damage[0].offset), (BASE, at(7) as u64));
    assert_eq!(damage[0].missing, 1);
    assert_eq!(open(&memory).2.len(), 59);
}

#[test]
fn reports_a_base_with_nothing_behind_it() {
    let memory = compacted();
    memory.take_away(TWO);
    let damage = stops(&memory);
    // Every base has the segment of its own number behind it.
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].file, damage[0].why), (BASE, Why::Lost(2)));
    assert_eq!(damage[0].offset, memory.bytes(BASE).len() as u64);
}

#[test]
fn reports_an_impossible_body() {
    let memory = journal(&[0..10, 10..20]);
    memory.edit(ONE, |bytes| {
        let stamp = Stamp {
            seq: 5,
            wall: Wall(3),
            flushed: 64,
        };
        let mut bad = Vec::new();
        format::encode_raw(&mut bad, seed(ONE), stamp, 6, &[1; 16]).unwrap();
        bytes[at(4)..at(5)].copy_from_slice(&bad);
    });
    let damage = stops(&memory);
    assert_eq!(
        (damage[0].why, damage[0].offset),
        (Why::Body(6), at(4) as u64)
    );
    let (_, report, numbers) = open(&memory);
    assert_eq!((report.records, numbers.len()), (19, 19));
}

#[test]
fn refuses_an_unknown_kind() {
    refuses_as_newer(99, &[1; 16]);
}

/// An end with a tag that this program does not know: it is no damage, somebody newer wrote it.
#[test]
fn refuses_an_unknown_end() {
    let mut body = vec![0; 24];
    body.extend([200, 0, 0, 0, 0, 0]);
    body.extend([0; 4]);
    refuses_as_newer(7, &body);
}

fn refuses_as_newer(kind: u16, body: &[u8]) {
    let memory = journal(&[0..10, 10..20]);
    memory.edit(ONE, |bytes| {
        let stamp = Stamp {
            seq: 5,
            wall: Wall(3),
            flushed: 64,
        };
        let mut bad = Vec::new();
        format::encode_raw(&mut bad, seed(ONE), stamp, kind, body).unwrap();
        bytes[at(4)..at(4) + bad.len()].copy_from_slice(&bad);
    });
    let error = open_with(&memory, OnDamage::Continue).unwrap_err();
    assert_eq!(
        error,
        JournalError::UnknownKind {
            path: "/memory/0000000001.log".into(),
            offset: at(4) as u64,
            kind,
        }
    );
}

/// Bytes that a stranger chose are never taken for records, even where they are a whole valid record of
/// another journal, and even when what surrounds them is damaged.
#[test]
fn records_inside_records_are_not_taken() {
    let memory = Memory::new(1);
    let (mut journal, _, _) = open(&memory);
    let mut forged = Vec::new();
    let stamp = Stamp {
        seq: 2,
        wall: Wall(3),
        flushed: 64,
    };
    // The salt is not known to them; the rest is.
    let seed = Seed::new(Role::Log, 0, 1);
    format::encode(&mut forged, seed, stamp, &numbered(666)).unwrap();
    let mut rel = vec![0; 4];
    rel.extend_from_slice(&forged);
    let record = settled::core::record::Record::Retarget {
        job: settled::core::ids::JobId(1),
        rel,
    };
    journal.append(Wall(2), &record).unwrap();
    journal.flush().unwrap();
    journal.append(Wall(2), &numbered(5)).unwrap();
    journal.flush().unwrap();
    let body = 64 + 32;
    assert_eq!(memory.bytes(ONE)[body + 16..][..forged.len()], forged);
    memory.edit(ONE, |bytes| bytes[body] ^= 1);
    assert_eq!(open(&memory).2, [5]);
}

/// What `decide` says, written down a second time, by meaning.
#[test]
fn the_table_is_what_it_is_meant_to_be() {
    use Found::*;
    for found in [Follows, Behind, Ahead, Nothing, Complete] {
        for bits in 0..8 {
            let at = Where {
                header_ok: bits & 1 != 0,
                flushed: bits & 2 != 0,
                last: bits & 4 != 0,
            };
            let action = decide(found, at);
            match action {
                Action::Take => assert_eq!(found, Follows),
                // Nothing that was flushed is ever passed over without a word, except copies.
                Action::Cut => assert!(!at.flushed && at.last),
                Action::End => assert!(found == Complete || !at.flushed && !at.last),
                Action::Skip => assert!(found == Behind && !at.header_ok),
                Action::Damage => assert!(at.flushed || found == Ahead && !at.header_ok),
            }
            assert_eq!(found == Follows, action == Action::Take);
        }
    }
}

/// Any single changed byte in what was flushed is either harmless or reported.
#[test]
fn no_changed_byte_goes_unseen() {
    let memory = journal(&[0..10, 10..30, 30..FULL, FULL..1500, 1500..1520]);
    let (_, _, whole) = open(&memory.copy());
    let mut random = Random(5);
    for _ in 0..400 {
        let memory = memory.copy();
        let file = if random.below(2) == 0 { ONE } else { TWO };
        let known = if file == ONE {
            at(FULL as usize)
        } else {
            at(1500 - FULL as usize)
        };
        let byte = random.below(known);
        memory.edit(file, |bytes| bytes[byte] ^= 1 << random.below(8));
        let damage = stops(&memory);
        assert_eq!(damage.len(), 1, "{file} byte {byte}");
        let (_, _, numbers) = open(&memory);
        assert_eq!(whole.len() - numbers.len(), damage[0].missing as usize);
    }
}

/// Files mangled at random, in many places at once: no panic, no endless loop, no record that was never written,
/// none twice and none out of order; and what was read once is read again by the next start.
#[test]
fn mangled_journals_open_and_invent_nothing() {
    let mut random = Random(11);
    let sources = [
        journal(&[0..10, 10..30, 30..FULL, FULL..1500, 1500..1520]),
        journal(&[0..5, 5..6, 6..40]),
        compacted(),
    ];
    // The first one again, with the marks that a second and third start leave.
    drop(open(&sources[1]));
    let (mut journal, _, _) = open(&sources[1]);
    journal.append(Wall(2), &numbered(40)).unwrap();
    journal.flush().unwrap();
    drop(journal);
    let rounds = std::env::var("JOURNAL_MANGLED").map_or(600, |text| text.parse().unwrap());
    let (mut whole, mut hurt) = (0, 0);
    for round in 0..rounds {
        let memory = sources[random.below(sources.len())].copy();
        let (_, _, all) = open(&memory.copy());
        for _ in 0..1 + random.below(4) {
            let files = memory.files();
            let file = files[random.below(files.len())];
            let other = memory.bytes(files[random.below(files.len())]);
            match random.below(8) {
                0 => memory.take_away(file),
                1 => memory.edit(file, |bytes| {
                    let length = random.below(bytes.len() + 1);
                    bytes.truncate(length);
                }),
                2 => memory.edit(file, |bytes| bytes.extend_from_slice(&random.bytes(5000))),
                3 => memory.edit(file, |bytes| {
                    // A piece of another file, or of the same one, at the wrong place.
                    let from = random.below(other.len().max(1)) & !7;
                    let length = random.below(600).min(other.len() - from.min(other.len()));
                    let to = random.below(bytes.len().max(1)) & !7;
                    let length = length.min(bytes.len() - to);
                    bytes[to..to + length].copy_from_slice(&other[from..from + length]);
                }),
                4 => memory.edit(file, |bytes| {
                    let from = random.below(bytes.len() + 1);
                    let to = (from + random.below(5000)).min(bytes.len());
                    bytes[from..to].fill(0);
                }),
                _ => memory.edit(file, |bytes| {
                    // Mostly where there is something.
                    let length = if random.below(2) == 0 {
                        2500
                    } else {
                        usize::MAX
                    };
                    let length = length.min(bytes.len());
                    if length > 0 {
                        bytes[random.below(length)] ^= 1 << random.below(8);
                    }
                }),
            }
            if memory.files().is_empty() {
                break;
            }
        }
        // A journal begun anew, where no header is left, has a salt of its own.
        let (journal, report, numbers) = open_salted(&memory, OnDamage::Continue, 10).unwrap();
        drop(journal);
        let real = numbers.iter().all(|n| all.contains(n));
        assert!(real, "round {round}: invented");
        assert!(
            numbers.windows(2).all(|pair| pair[0] < pair[1]),
            "round {round}: twice or out of order"
        );
        if numbers.len() < all.len() && report.damage.is_empty() {
            // Only a tail goes without a word: a last segment that is gone as a whole, or records that
            // nothing proves flushed.
            assert!(all.starts_with(&numbers), "round {round}: skipped");
        }
        if report.damage.is_empty() {
            whole += 1;
        } else {
            hurt += 1;
        }
        let (_, _, again) = open(&memory);
        assert_eq!(
            again, numbers,
            "round {round}: the next start reads something else"
        );
    }
    assert!(whole > rounds / 20 && hurt > rounds / 4, "{whole} {hurt}");
}
