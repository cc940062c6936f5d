//! Journals written by earlier versions, kept under `tests/data`: they open for ever, and say the same.
//!
//! `JOURNAL_WRITE=DIR cargo test --test journal_old_files -- --ignored` writes one with the present version;
//! a new format version gets a new directory, and the old ones stay as they are.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{KINDS, Random, numbered};
use settled::core::record::Record;
use settled::core::time::Wall;
use settled::journal::Options;
use settled::journal::inspect::{dump, stat};
use settled::journal::segment::DiskJournal;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

fn options() -> Options {
    Options {
        segment_bytes: 64 * 1024,
        reserve_bytes: 8 * 1024,
        now: Wall(1_700_000_000_000_000_000),
        ..Options::default()
    }
}

fn open(dir: &Path) -> (DiskJournal, Vec<Record>) {
    let mut records = Vec::new();
    let opened = DiskJournal::open(dir, &options(), false).unwrap();
    let (journal, report) = opened.replay(|_, record| records.push(record)).unwrap();
    assert_eq!(report.damage, []);
    (journal, records)
}

fn text(dir: &Path) -> String {
    let mut out = Vec::new();
    assert_eq!(dump(dir, false, &mut out).unwrap(), []);
    String::from_utf8(out).unwrap()
}

#[test]
fn old_journals_open_and_say_the_same() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut seen = 0;
    for entry in fs::read_dir(all).unwrap() {
        let old = entry.unwrap().path();
        let name = old.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("journal-v") {
            continue;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("state");
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        for file in fs::read_dir(&old).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, dir.join(file.file_name().unwrap())).unwrap();
        }
        let expected = fs::read_to_string(dir.join("dump.txt")).unwrap();
        assert_eq!(text(&dir), expected, "{name}");
        let id = stat(&dir).unwrap().id;
        let (mut journal, records) = open(&dir);
        assert_eq!(journal.id(), id);
        assert_eq!(records.len(), expected.lines().count());
        // And it goes on from there.
        journal.append(Wall(1), &numbered(1)).unwrap();
        journal.flush().unwrap();
        drop(journal);
        assert_eq!(open(&dir).1.len(), records.len() + 1);
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
#[ignore = "writes test data"]
fn write_one() {
    let Some(dir) = std::env::var_os("JOURNAL_WRITE") else {
        panic!("JOURNAL_WRITE names no directory");
    };
    let dir = Path::new(&dir);
    let mut random = Random(1);
    let (mut journal, _) = open(dir);
    let mut append = |journal: &mut DiskJournal, count: usize| {
        for n in 0..count {
            let wall = Wall(1_700_000_000_000_000_000 + n as i64);
            journal.append(wall, &random.record_of(n)).unwrap();
            if n % 7 == 0 {
                journal.flush().unwrap();
            }
        }
        journal.flush().unwrap();
    };
    // A base, a full segment, one that a start has ended, and a last one with an unproven batch.
    append(&mut journal, 50);
    journal.compact_begin(options().now).unwrap();
    let mut live = Random(2);
    for n in 0..KINDS * 4 {
        journal.compact_push(&live.record_of(n)).unwrap();
    }
    append(&mut journal, 450);
    journal.compact_commit().unwrap();
    append(&mut journal, 20);
    drop(journal);
    let (mut journal, _) = open(dir);
    append(&mut journal, 30);
    drop(journal);
    fs::write(dir.join("dump.txt"), text(dir)).unwrap();
    for name in ["lock", "spare.log"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
}
