//! The state directory, or a part of it, is taken away: from a daemon that runs, and between two starts.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{number, numbered};
use settled::core::time::Wall;
use settled::journal::error::Why;
use settled::journal::segment::DiskJournal;
use settled::journal::storage::File;
use settled::journal::{JournalError, OnDamage, Options, Report, inspect};
use std::fs;
use std::path::{Path, PathBuf};

/// How many records of 48 bytes a segment of 64 KiB takes.
const FULL: u64 = (64 * 1024 - 64) / 48;

fn open_with(
    dir: &Path,
    on_damage: OnDamage,
) -> Result<(DiskJournal, Report, Vec<u64>), JournalError> {
    let options = Options {
        segment_bytes: 64 * 1024,
        reserve_bytes: 8 * 1024,
        now: Wall(1),
        on_damage,
        ..Options::default()
    };
    let mut numbers = Vec::new();
    let (journal, report) = DiskJournal::open(dir, &options, false)?
        .replay(|_, record| numbers.push(number(&record)))?;
    Ok((journal, report, numbers))
}

/// A journal in a directory, with these records.
fn journal(records: u64) -> (tempfile::TempDir, PathBuf, DiskJournal) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let (mut journal, _, _) = open_with(&dir, OnDamage::Stop).unwrap();
    for n in 0..records {
        journal.append(Wall(2), &numbered(n)).unwrap();
    }
    journal.flush().unwrap();
    journal.still_there().unwrap();
    (temp, dir, journal)
}

fn log(dir: &Path, number: u32) -> PathBuf {
    dir.join(File::Log(number).to_string())
}

#[test]
fn reports_lost_segments() {
    let (_temp, dir, journal) = journal(FULL + 500);
    drop(journal);
    fs::remove_file(log(&dir, 2)).unwrap();
    let error = open_with(&dir, OnDamage::Stop).unwrap_err();
    let JournalError::Damaged(damage) = &error else {
        panic!("{error}");
    };
    let [one] = &damage[..] else {
        panic!("{damage:?}");
    };
    assert_eq!((one.file, one.why), (File::Log(1), Why::Lost(2)));
    assert_eq!(one.offset, 64 + FULL * 48);
    assert!(error.to_string().contains("0000000002.log was there once"));
    assert_eq!(inspect::verify(&dir).unwrap(), *damage);
    // Whoever goes on is told, and the number is not used again.
    let (journal, report, numbers) = open_with(&dir, OnDamage::Continue).unwrap();
    assert_eq!(report.damage, *damage);
    assert_eq!(numbers, (0..FULL).collect::<Vec<_>>());
    drop(journal);
    assert!(log(&dir, 3).exists() && !log(&dir, 2).exists());
    // The gap is there for ever, or until a compaction.
    fs::remove_file(log(&dir, 1)).unwrap();
    fs::remove_file(log(&dir, 3)).unwrap();
    assert!(open_with(&dir, OnDamage::Stop).is_err());
    let (_, report, numbers) = open_with(&dir, OnDamage::Continue).unwrap();
    assert_eq!((report.damage[0].why, numbers), (Why::Lost(3), vec![]));
}

#[test]
fn a_compaction_loses_no_segments() {
    let (_temp, dir, mut journal) = journal(3 * FULL);
    journal.compact_begin(Wall(3)).unwrap();
    journal.compact_push(&numbered(1)).unwrap();
    journal.compact_commit().unwrap();
    drop(journal);
    let (journal, _, numbers) = open_with(&dir, OnDamage::Stop).unwrap();
    assert_eq!(numbers, [1]);
    drop(journal);
    assert_eq!(inspect::verify(&dir).unwrap(), []);
}

/// What a power cut leaves of a file that is never flushed.
#[test]
fn a_lock_without_a_number_says_nothing() {
    for text in [
        "",
        "123",
        "123\n",
        "123\n\0\0\0\0",
        "\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let (_temp, dir, journal) = journal(FULL + 500);
        drop(journal);
        fs::remove_file(log(&dir, 2)).unwrap();
        fs::write(dir.join("lock"), text).unwrap();
        let (_, _, numbers) = open_with(&dir, OnDamage::Stop).unwrap();
        assert_eq!(numbers.len() as u64, FULL, "{text:?}");
    }
}

#[test]
fn a_directory_that_was_taken_away_is_noticed() {
    let (_temp, dir, kept) = journal(10);
    fs::rename(&dir, dir.with_extension("old")).unwrap();
    assert!(kept.still_there().is_err());
    // Another one in its place is not it.
    fs::create_dir(&dir).unwrap();
    let error = kept.still_there().unwrap_err();
    assert!(error.to_string().contains("cannot find"), "{error}");
    let (_temp, dir, kept) = journal(10);
    fs::remove_dir_all(&dir).unwrap();
    assert!(kept.still_there().is_err());
}

#[test]
fn a_segment_that_was_taken_away_is_noticed() {
    for replaced in [false, true] {
        let (_temp, dir, mut journal) = journal(10);
        fs::remove_file(log(&dir, 1)).unwrap();
        if replaced {
            fs::write(log(&dir, 1), "x").unwrap();
        }
        let error = journal.still_there().unwrap_err();
        assert!(error.to_string().contains("0000000001.log"), "{error}");
        // At the latest when the next one takes its place.
        let ended = (0..FULL).find_map(|n| journal.append(Wall(2), &numbered(n)).err());
        assert!(matches!(ended, Some(JournalError::Final(_))), "{ended:?}");
    }
}
