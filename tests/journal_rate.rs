//! How fast the journal is, against the least that a program could do. A table, no assertion:
//! `cargo test --release --test journal_rate -- --ignored --nocapture`. `JOURNAL_RATE_DIR` chooses the disk.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{SETTLED_BYTES, settled as record};
use settled::core::time::Wall;
use settled::journal::Options;
use settled::journal::segment::DiskJournal;
use settled::sys::map::Map;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn place() -> tempfile::TempDir {
    let base = std::env::var_os("JOURNAL_RATE_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).unwrap()
}

/// A file of zeros, on the disk, written in pieces of this size (large ones make large folios, which suit
/// `pwrite` and do not suit a mapping).
fn zeros(path: &Path, bytes: usize, piece: usize) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    for at in (0..bytes).step_by(piece) {
        file.write_all_at(&vec![0; piece], at as u64).unwrap();
    }
    file.sync_all().unwrap();
    file
}

/// The others write within this much, over and over, as long as the journal's segment.
const LENGTH: usize = 4 * 1024 * 1024;

trait Contender {
    fn batch(&mut self, records: u64);
}

struct TheJournal(
    settled::journal::Journal<settled::journal::segment::Disk>,
    u64,
);
impl Contender for TheJournal {
    fn batch(&mut self, records: u64) {
        for _ in 0..records {
            self.1 += 1;
            self.0.append(Wall(1), &record(self.1)).unwrap();
        }
        self.0.flush().unwrap();
    }
}

/// `pwrite` of ready bytes, then `fdatasync`.
struct Pwrite(File, usize);
impl Contender for Pwrite {
    fn batch(&mut self, records: u64) {
        let bytes = vec![1; records as usize * SETTLED_BYTES];
        if self.1 + bytes.len() > LENGTH {
            self.1 = 0;
        }
        self.0.write_all_at(&bytes, self.1 as u64).unwrap();
        self.1 += bytes.len();
        self.0.sync_data().unwrap();
    }
}

/// Stores into a mapping, then `msync` or `fdatasync`.
struct Mapped(File, Map, usize, bool);
impl Contender for Mapped {
    fn batch(&mut self, records: u64) {
        let bytes = vec![1; records as usize * SETTLED_BYTES];
        if self.2 + bytes.len() > LENGTH {
            self.2 = 0;
        }
        self.1.populate_write(self.2, bytes.len()).unwrap();
        self.1.write(self.2, &bytes).unwrap();
        if self.3 {
            self.1.sync(self.2, bytes.len()).unwrap();
        } else {
            self.0.sync_data().unwrap();
        }
        self.2 += bytes.len();
    }
}

#[test]
#[ignore = "a measurement: takes a minute and says nothing about right or wrong"]
fn append_and_flush() {
    let dir = place();
    let options = Options::default();
    let opened = DiskJournal::open(&dir.path().join("state"), &options, true).unwrap();
    let (journal, _) = opened.replay(|_, _| ()).unwrap();
    let mapped = |name: &str, msync| {
        let file = zeros(&dir.path().join(name), LENGTH, 4096);
        let map = Map::new(&file, LENGTH).unwrap();
        Mapped(file, map, 0, msync)
    };
    let unwritten = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.path().join("e"))
        .unwrap();
    nix::fcntl::fallocate(
        &unwritten,
        nix::fcntl::FallocateFlags::empty(),
        0,
        64 * LENGTH as i64,
    )
    .unwrap();
    unwritten.sync_all().unwrap();
    let mut contenders: Vec<(&str, Box<dyn Contender>)> = vec![
        (
            "pwrite + fdatasync",
            Box::new(Pwrite(zeros(&dir.path().join("a"), LENGTH, LENGTH), 0)),
        ),
        ("the journal", Box::new(TheJournal(journal, 0))),
        ("map + fdatasync", Box::new(mapped("b", false))),
        ("map + msync", Box::new(mapped("c", true))),
    ];
    for batch in [1, 64, 1024] {
        let mut all = vec![Vec::new(); contenders.len()];
        // One batch each in turn, so that whatever else the disk is doing hits all alike.
        for round in 0..4000 {
            for n in 0..contenders.len() {
                let n = (n + round) % contenders.len();
                let before = Instant::now();
                contenders[n].1.batch(batch);
                all[n].push(before.elapsed());
            }
        }
        println!("{batch} records of {SETTLED_BYTES} bytes a flush");
        let rate = |waits: &Vec<Duration>| {
            waits.len() as f64 / waits.iter().sum::<Duration>().as_secs_f64()
        };
        let bare = rate(&all[0]);
        for ((name, _), waits) in contenders.iter().zip(&mut all) {
            let flushes = rate(waits);
            waits.sort_unstable();
            println!(
                "  {name:20} {:10.0} records/s {:6.2} of the bare one; p50 {:?} p99 {:?} max {:?}",
                flushes * batch as f64,
                flushes / bare,
                waits[waits.len() / 2],
                waits[waits.len() * 99 / 100],
                waits[waits.len() - 1],
            );
        }
    }
    // What zeros spare: the same writes over blocks that are allocated and were never written.
    let (mut waits, mut at) = (Vec::new(), 0);
    let bytes = vec![1; SETTLED_BYTES];
    for _ in 0..3000 {
        let before = Instant::now();
        unwritten.write_all_at(&bytes, at).unwrap();
        unwritten.sync_data().unwrap();
        waits.push(before.elapsed());
        at += 4096;
    }
    waits.sort_unstable();
    println!(
        "pwrite + fdatasync, fallocated, a new page each: p50 {:?}",
        waits[1500]
    );
}

/// Replay against reading the same bytes; `JOURNAL_RECORDS` says how many.
#[test]
#[ignore = "a measurement: writes a gigabyte for every eight million records"]
fn replay() {
    let count = std::env::var("JOURNAL_RECORDS").map_or(2_000_000, |text| text.parse().unwrap());
    let dir = place();
    let state = dir.path().join("state");
    let open = || DiskJournal::open(&state, &Options::default(), true).unwrap();
    let (mut journal, _) = open().replay(|_, _| ()).unwrap();
    let start = Instant::now();
    for n in 0..count {
        journal.append(Wall(1), &record(n)).unwrap();
        if n % 1000 == 999 {
            journal.flush().unwrap();
        }
    }
    journal.flush().unwrap();
    println!("written in {:.2?}", start.elapsed());
    drop(journal);
    let read = || {
        let start = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        for entry in std::fs::read_dir(&state).unwrap() {
            let mut file = File::open(entry.unwrap().path()).unwrap();
            loop {
                match std::io::Read::read(&mut file, &mut buffer).unwrap() {
                    0 => break,
                    got => bytes += got as u64,
                }
            }
        }
        (bytes, start.elapsed())
    };
    for _ in 0..3 {
        let (bytes, reading) = read();
        let start = Instant::now();
        let mut records = 0u64;
        let (journal, report) = open().replay(|_, _| records += 1).unwrap();
        let replaying = start.elapsed();
        assert_eq!((records, report.damage), (count, vec![]));
        drop(journal);
        println!(
            "{records} records, {bytes} bytes: read {reading:.2?}, replayed {replaying:.2?} ({:.2} times)",
            replaying.as_secs_f64() / reading.as_secs_f64()
        );
    }
    let (mut journal, _) = open().replay(|_, _| ()).unwrap();
    let start = Instant::now();
    journal.compact_begin(Wall(1)).unwrap();
    let mut worst = Duration::ZERO;
    for n in 0..1_000_000 {
        let before = Instant::now();
        journal.compact_push(&record(n)).unwrap();
        worst = worst.max(before.elapsed());
    }
    let pushed = start.elapsed();
    journal.compact_commit().unwrap();
    println!(
        "compaction to 1,000,000 records: pushed in {pushed:.2?}, slowest push {worst:.2?}, commit {:.2?}",
        start.elapsed().checked_sub(pushed).unwrap()
    );
}
