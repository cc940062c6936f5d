//! `stat`, `verify` and `dump` as a library: on a directory, on a copy, and beside a journal that is written.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{KINDS, Random, numbered};
use settled::core::record::Record;
use settled::core::time::Wall;
use settled::journal::error::{JournalError, Why};
use settled::journal::format::{BadFrame, Role};
use settled::journal::inspect::{dump, stat, verify};
use settled::journal::segment::DiskJournal;
use settled::journal::{OnDamage, Options};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

fn options() -> Options {
    Options {
        segment_bytes: 64 * 1024,
        reserve_bytes: 8 * 1024,
        now: Wall(1),
        ..Options::default()
    }
}

fn open(dir: &Path) -> DiskJournal {
    let opened = DiskJournal::open(dir, &options(), false).unwrap();
    opened.replay(|_, _| ()).unwrap().0
}

fn state() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    (temp, dir)
}

#[test]
fn counts_what_is_there() {
    let (_temp, dir) = state();
    let mut journal = open(&dir);
    let mut random = Random(1);
    for n in 0..KINDS * 100 {
        journal
            .append(Wall(1000 + n as i64), &random.record_of(n))
            .unwrap();
    }
    journal.flush().unwrap();
    let seen = stat(&dir).unwrap();
    assert_eq!(seen.id, journal.id());
    assert_eq!(seen.kinds.len(), KINDS);
    assert!(seen.kinds.values().all(|&count| count == 100));
    assert_eq!(
        seen.span,
        Some((Wall(1000), Wall(1000 + KINDS as i64 * 100 - 1)))
    );
    assert_eq!(seen.next_seq, KINDS as u64 * 100 + 1);
    assert_eq!(seen.damage, []);
    assert!(seen.files.len() > 1);
    assert!(seen.files.iter().all(|file| file.role == Role::Log));
    let records: u64 = seen.files.iter().map(|file| file.records).sum();
    assert_eq!(records, KINDS as u64 * 100);
    assert_eq!(verify(&dir), Ok(vec![]));
}

#[test]
fn a_copy_without_its_lock_and_of_another_owner_can_be_read() {
    let (temp, dir) = state();
    let mut journal = open(&dir);
    for n in 0..20 {
        journal.append(Wall(5), &numbered(n)).unwrap();
    }
    journal.flush().unwrap();
    let copy = temp.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(dir.join("0000000001.log"), copy.join("0000000001.log")).unwrap();
    let before: Vec<_> = fs::read_dir(&copy)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(stat(&copy).unwrap().kinds["started"], 20);
    let after: Vec<_> = fs::read_dir(&copy)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(before, after, "reading leaves nothing behind");
}

#[test]
fn damage_is_named_and_the_rest_is_shown() {
    let (_temp, dir) = state();
    let mut journal = open(&dir);
    for batch in 0..3 {
        for n in batch * 10..batch * 10 + 10 {
            journal.append(Wall(5), &numbered(n)).unwrap();
        }
        journal.flush().unwrap();
    }
    drop(journal);
    let path = dir.join("0000000001.log");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"?", 64 + 3 * 48 + 10).unwrap();
    let damage = verify(&dir).unwrap();
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].why, Why::Frame(BadFrame::Checksum));
    let text = damage[0].to_string();
    assert_eq!(
        text,
        format!(
            "{} at offset {}: a record's checksum is wrong (48 bytes not readable, 1 record missing)",
            path.display(),
            64 + 3 * 48
        )
    );
    let mut out = Vec::new();
    assert_eq!(dump(&dir, false, &mut out).unwrap(), damage);
    assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 29);
    // The daemon stops there, and goes on if it is told to, with the file kept.
    let stopped = DiskJournal::open(&dir, &options(), false).unwrap();
    let error = stopped.replay(|_, _| ()).unwrap_err();
    assert!(error.to_string().contains(&text), "{error}");
    let go_on = Options {
        on_damage: OnDamage::Continue,
        ..options()
    };
    let opened = DiskJournal::open(&dir, &go_on, false).unwrap();
    let (mut journal, report) = opened.replay(|_, _| ()).unwrap();
    let kept = dir.join("0000000001.log.damaged");
    assert_eq!(report.kept, [kept.display().to_string()]);
    // A compaction ends it.
    journal.compact_begin(Wall(6)).unwrap();
    journal.compact_commit().unwrap();
    assert_eq!(verify(&dir), Ok(vec![]));
    assert!(!path.exists());
    assert!(kept.exists());
}

#[test]
fn what_cannot_be_read_is_not_counted() {
    // The next start copies what nothing proves flushed, and its header knows how far that goes: here farther
    // than the file.
    let (_temp, dir) = state();
    let mut journal = open(&dir);
    for n in 0..20 {
        journal.append(Wall(1), &numbered(n)).unwrap();
    }
    journal.flush().unwrap();
    drop(journal);
    drop(open(&dir));
    let file = dir.join("0000000002.log");
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(64 + 48 * 5).unwrap();
    let seen = stat(&dir).unwrap();
    assert_eq!(
        (seen.files[0].used, seen.files[0].records),
        (64 + 48 * 5, 5)
    );
    assert_eq!(seen.damage[0].bytes, 48 * 15);

    let (_temp, dir) = state();
    let mut journal = open(&dir);
    journal.compact_begin(Wall(1)).unwrap();
    journal.compact_copy((0..20).map(numbered)).unwrap();
    journal.compact_switch().unwrap();
    drop(journal);
    let base = dir.join("0000000002.base");
    let base = fs::OpenOptions::new().write(true).open(base).unwrap();
    base.write_all_at(&[9; 48], 64 + 48 * 5).unwrap();
    let seen = stat(&dir).unwrap();
    assert_eq!((seen.files[0].records, seen.kinds["started"]), (19, 19));
}

#[test]
fn dumps_are_lines_with_every_field() {
    let (_temp, dir) = state();
    let mut journal = open(&dir);
    let record = Record::Concluded {
        job: settled::core::ids::JobId(3),
        outcome: settled::core::record::Outcome::Done,
        end: None,
        disposal: settled::core::record::Disposal::Move {
            dir: b"new\nline \"quoted\" \xff".to_vec(),
            rel: "gr\u{fc}n\u{7f}".into(),
        },
        version: settled::core::ask::Version::default(),
        ctime_ns: 0,
        output: Vec::new(),
    };
    journal.append(Wall(-5), &record).unwrap();
    journal.flush().unwrap();
    let dumped = |json| {
        let mut out = Vec::new();
        dump(&dir, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let has = |line: String, parts: &[&str]| {
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in parts {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    };
    has(
        dumped(false),
        &[
            "file=\"0000000001.log\" offset=64 seq=1 wall_ns=-5 kind=\"concluded\" job=3 ",
            " to=\"new\\nline \\\"quoted\\\" \\xff\" rel=\"gr\\xc3\\xbcn\\x7f\"",
        ],
    );
    has(
        dumped(true),
        &[
            "{\"file\":\"0000000001.log\",\"offset\":64,\"seq\":1,\"wall_ns\":-5,\"kind\":\"concluded\",\"job\":3,",
            "\"to\":\"new\\u000aline \\\"quoted\\\" \u{fffd}\",",
            "\"to_hex\":\"6e65770a6c696e65202271756f7465642220ff\",",
            "\"rel\":\"gr\u{fc}n\\u007f\"",
        ],
    );
}

/// Every kind's lines, through a parser that is not this program's.
#[test]
fn json_is_json() {
    let (_temp, dir) = state();
    let mut journal = open(&dir);
    let mut random = Random(3);
    for n in 0..KINDS * 50 {
        journal.append(Wall(1), &random.record_of(n)).unwrap();
    }
    journal.flush().unwrap();
    let mut out = Vec::new();
    dump(&dir, true, &mut out).unwrap();
    let lines = dir.join("lines");
    fs::write(&lines, out).unwrap();
    let script = "import json,sys\nn=0\nfor l in open(sys.argv[1],'rb'):\n d=json.loads(l); n+=1\n \
                  assert {'file','offset','seq','wall_ns','kind'} <= d.keys()\nprint(n)";
    let parsed = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&lines)
        .output();
    match parsed {
        Ok(parsed) => assert_eq!(
            String::from_utf8_lossy(&parsed.stdout).trim(),
            (KINDS * 50).to_string(),
            "{}",
            String::from_utf8_lossy(&parsed.stderr)
        ),
        Err(error) => eprintln!("not run: python3: {error}"),
    }
}

#[test]
fn an_empty_directory_is_no_journal_and_a_missing_one_says_so() {
    let (_temp, dir) = state();
    assert!(matches!(stat(&dir), Err(JournalError::Storage(_))));
    fs::create_dir(&dir).unwrap();
    let error = verify(&dir).unwrap_err();
    assert_eq!(error, JournalError::NotAJournal(dir.display().to_string()));
}

/// Beside a writer that appends, rotates and compacts as fast as it can, no look ever sees damage or a hole.
#[test]
fn a_live_directory_never_looks_damaged() {
    let (_temp, dir) = state();
    let mut journal = open(&dir);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (dir, done) = (&dir, &done);
        scope.spawn(move || {
            let (mut n, mut first) = (0, 0);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..40 {
                    journal.append(Wall(1), &numbered(n)).unwrap();
                    n += 1;
                }
                journal.flush().unwrap();
                if n - first > 6000 {
                    journal.compact_begin(Wall(1)).unwrap();
                    first = n - 1000;
                    (first..n).for_each(|n| journal.compact_push(&numbered(n)).unwrap());
                    journal.compact_commit().unwrap();
                }
            }
        });
        let looked = std::panic::catch_unwind(|| {
            let (mut highest, mut looks) = (0, 0);
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
            // Several compactions and many segments.
            while looks < 150 || highest < 30_000 {
                assert!(std::time::Instant::now() < deadline, "{looks} {highest}");
                let seen = stat(dir).unwrap();
                assert_eq!(seen.damage, []);
                assert!(seen.next_seq >= highest);
                highest = seen.next_seq;
                looks += 1;
            }
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        looked.unwrap();
    });
}

/// What `settled journal` ends with, and what it says.
#[test]
fn the_command_tells_by_its_status() {
    let run = |verb: &str, state: &Path| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_settled"))
            .args(["journal", verb, "--state"])
            .arg(state)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (temp, dir) = state();
    let mut journal = open(&dir);
    for n in 0..20 {
        journal.append(Wall(1), &numbered(n)).unwrap();
        journal.flush().unwrap();
    }
    drop(journal);
    let (status, text, error) = run("verify", &dir);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert_eq!(text, format!("{}: good\n", dir.display()));
    let (status, text, error) = run("stat", &dir);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(
        text.contains("20 records\n") && text.contains("started: 20\n"),
        "{text}"
    );
    let (status, text, error) = run("dump", &dir);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert_eq!(text.lines().count(), 20);

    let file = dir.join("0000000001.log");
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&[9; 48], 64 + 48 * 5).unwrap();
    for verb in ["verify", "stat"] {
        let (status, text, _) = run(verb, &dir);
        assert_eq!(status, Some(65), "{verb}");
        assert!(
            text.contains("damage: ") && text.contains("offset 304"),
            "{text}"
        );
    }
    // Among the records there is nothing that is none.
    let (status, text, error) = run("dump", &dir);
    assert_eq!((status, text.lines().count()), (Some(65), 19));
    assert!(error.starts_with("damage: "), "{error}");

    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let missing = temp.path().join("missing");
    for (state, says) in [
        (&empty, "holds no journal"),
        (&missing, "No such file"),
        (&dir.join("lock"), "is not a directory"),
    ] {
        let (status, text, error) = run("verify", state);
        assert_eq!((status, text.as_str()), (Some(66), ""), "{error}");
        assert!(error.contains(says), "{error}");
    }
}
