//! What a journal that was damaged may give back is replayed to the end.
#![allow(clippy::unwrap_used)]

use settled::core::Core;
use settled::core::ask::Version;
use settled::core::ids::{DirId, JobId, WatchId};
use settled::core::record::Record;
use settled::core::time::{Mono, Now, Wall};
use std::fs;

/// The record that moved the upper one away first may be missing.
#[test]
fn directories_below_each_other_have_an_end() {
    let dir = |dir, parent| Record::Dir {
        dir: DirId(dir),
        watch: WatchId(1),
        parent: DirId(parent),
        name: b"d".to_vec(),
        ino: 1,
        btime_ns: 1,
    };
    let watch = Record::Watch {
        watch: WatchId(1),
        name: "in".into(),
    };
    let settled = |dir| Record::Settled {
        job: JobId(1),
        dir: DirId(dir),
        name: b"f".to_vec(),
        version: Version::default(),
        ctime_ns: 1,
        reruns: 0,
    };
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("settled.toml");
    let text =
        "[watch.in]\npath = \"/srv/in\"\nrun = [\"true\"]\nserial = true\nkey = \"{dir1}\"\n";
    fs::write(&file, text).unwrap();
    let plan = settled::config::load(&file).unwrap();
    for dirs in [
        // 2 was moved below 3, and that 3 had been moved out of 2 before is lost.
        vec![dir(1, 0), dir(2, 1), dir(3, 2), dir(2, 3)],
        vec![dir(1, 0), dir(3, 2), dir(2, 3)],
        vec![dir(1, 0), dir(3, 3)],
        // So is that the root became another one, and its number another directory's.
        vec![dir(1, 0), dir(3, 1), dir(1, 3)],
    ] {
        let mut core = Core::new(plan.clone(), 7);
        core.replay(Wall(1), watch.clone());
        for record in dirs.into_iter().chain([settled(3)]) {
            core.replay(Wall(1), record);
        }
        let now = Now {
            mono: Mono(1),
            wall: Wall(1),
            utc_offset_s: 0,
        };
        assert!(core.snapshot().count() > 2);
        core.start(now, Vec::new());
        core.due(now);
        assert!(!core.effects().is_empty());
    }
}

/// A job may outlive its directory. While a process of it lives, nobody else gets its key, over a compaction and a crash.
#[test]
fn a_job_whose_directory_is_gone_keeps_its_key_and_its_watch() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("settled.toml");
    let text = "[watch.in]\npath = \"/srv/in\"\nrun = [\"true\"]\nserial = true\nkey = \"k\"\n";
    fs::write(&file, text).unwrap();
    let plan = settled::config::load(&file).unwrap();
    let dir = |dir, parent, name: &[u8]| Record::Dir {
        dir: DirId(dir),
        watch: WatchId(1),
        parent: DirId(parent),
        name: name.to_vec(),
        ino: dir.into(),
        btime_ns: 1,
    };
    let settled = |job, dir| Record::Settled {
        job: JobId(job),
        dir: DirId(dir),
        name: b"f".to_vec(),
        version: Version::default(),
        ctime_ns: 1,
        reruns: 0,
    };
    let key = |job| Record::Key {
        job: JobId(job),
        key: b"k".to_vec(),
    };
    let mut before = Core::new(plan.clone(), 7);
    for record in [
        Record::Watch {
            watch: WatchId(1),
            name: "in".into(),
        },
        dir(1, 0, b""),
        dir(2, 1, b"sub"),
        settled(1, 2),
        key(1),
        Record::Started {
            job: JobId(1),
            attempt: 1,
            slot: 3,
        },
        Record::DirGone { dir: DirId(2) },
        settled(2, 1),
        key(2),
    ] {
        before.replay(Wall(1), record);
    }
    let mut core = Core::new(plan, 7);
    for record in before.snapshot() {
        core.replay(Wall(1), record);
    }
    let again: Vec<Record> = core.snapshot().collect();
    assert_eq!(before.snapshot().collect::<Vec<_>>(), again);
    let of_job = |wanted| {
        again.iter().any(|record| {
            matches!(record, Record::Dir { dir: DirId(2), watch, .. } if *watch == WatchId(wanted))
        })
    };
    assert!(of_job(1), "{again:?}");
    // The number of a directory that has a job is nobody else's.
    let ends = again
        .iter()
        .position(|record| matches!(record, Record::DirGone { dir: DirId(2) }));
    let job = again
        .iter()
        .position(|record| matches!(record, Record::Settled { job: JobId(1), .. }));
    assert!(job.unwrap() < ends.unwrap(), "{again:?}");
}

/// What was asked to be run again, and has settled or not, is so over a compaction.
#[test]
fn what_was_asked_for_is_replayed() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("settled.toml");
    let text = "[watch.in]\npath = \"/srv/in\"\nrun = [\"true\"]\nexpect = { every = \"1d\" }\n";
    fs::write(&file, text).unwrap();
    let plan = settled::config::load(&file).unwrap();
    let hash = settled::core::files::name_hash;
    let remembered = |name: &[u8]| Record::Remembered {
        dir: DirId(1),
        name_hash: hash(name),
        version: 5,
        ctime: 6,
        state: 0,
        at: Wall(1_000_000_000),
    };
    let forgotten = |name: &[u8]| Record::Forgotten {
        dir: DirId(1),
        name_hash: hash(name),
    };
    let settled = |job, name: &[u8]| Record::Settled {
        job: JobId(job),
        dir: DirId(1),
        name: name.to_vec(),
        version: Version::default(),
        ctime_ns: 1,
        reruns: 0,
    };
    let mut core = Core::new(plan.clone(), 7);
    for record in [
        Record::Watch {
            watch: WatchId(1),
            name: "in".into(),
        },
        Record::Dir {
            dir: DirId(1),
            watch: WatchId(1),
            parent: DirId(0),
            name: Vec::new(),
            ino: 1,
            btime_ns: 1,
        },
        remembered(b"pending"),
        remembered(b"owed"),
        remembered(b"taken-back"),
        remembered(b"gone"),
        forgotten(b"pending"),
        forgotten(b"owed"),
        forgotten(b"taken-back"),
        forgotten(b"gone"),
        settled(1, b"owed"),
        settled(2, b"came"),
        remembered(b"taken-back"),
        Record::Gone {
            dir: DirId(1),
            name_hash: hash(b"gone"),
        },
    ] {
        core.replay(Wall(1), record);
    }
    let first: Vec<Record> = core.snapshot().collect();
    let orders = |records: &[Record]| {
        let of = records
            .iter()
            .filter(|record| matches!(record, Record::Forgotten { .. }));
        of.cloned().collect::<Vec<_>>()
    };
    assert_eq!(orders(&first), [forgotten(b"owed"), forgotten(b"pending")]);
    assert!(first.contains(&remembered(b"taken-back")));
    let mut again = Core::new(plan, 7);
    for record in &first {
        again.replay(Wall(1), record.clone());
    }
    assert_eq!(again.snapshot().collect::<Vec<_>>(), first);
}
