//! The journal on real files: the state directory, the lock, a full disk, processes that are killed.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{Random, number, numbered};
use settled::core::record::Record;
use settled::core::time::Wall;
use settled::journal::error::{BadDirectory, JournalError};
use settled::journal::segment::{Disk, DiskJournal};
use settled::journal::storage::{Fault, File, Storage};
use settled::journal::{Opened, Options, Report};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

const SMALL: u32 = 64 * 1024;

fn options() -> Options {
    Options {
        segment_bytes: SMALL,
        reserve_bytes: 8 * 1024,
        now: Wall(1),
        ..Options::default()
    }
}

fn open(dir: &Path) -> (DiskJournal, Report, Vec<Record>) {
    let mut records = Vec::new();
    let opened = DiskJournal::open(dir, &options(), false).unwrap();
    let (journal, report) = opened.replay(|_, record| records.push(record)).unwrap();
    (journal, report, records)
}

fn state() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    (temp, dir)
}

#[test]
fn what_was_appended_comes_back_over_many_segments_and_starts() {
    let (_temp, dir) = state();
    let mut random = Random(1);
    let mut told = Vec::new();
    let mut id = None;
    for _ in 0..4 {
        let (mut journal, report, records) = open(&dir);
        assert_eq!(records, told);
        assert_eq!(report.cut_bytes, 0);
        assert_eq!(*id.get_or_insert(journal.id()), journal.id());
        for _ in 0..900 {
            let record = random.record();
            journal.append(Wall(told.len() as i64), &record).unwrap();
            told.push(record);
            if random.below(5) == 0 {
                journal.flush().unwrap();
            }
        }
        journal.flush().unwrap();
    }
    let (_, _, records) = open(&dir);
    assert_eq!(records, told);
    assert!(fs::read_dir(&dir).unwrap().count() > 8);
}

#[test]
fn the_directory_is_made_for_its_owner_alone() {
    let (_temp, dir) = state();
    drop(open(&dir));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o700);
    // Its group may read where somebody opens the directory to it, and may not lock.
    assert_eq!(mode(&dir.join("0000000001.log")), 0o640);
    assert_eq!(mode(&dir.join("lock")), 0o600);
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let (_temp, dir) = state();
    fs::create_dir(&dir).unwrap();
    for mode in [0o770, 0o702, 0o777] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        let error = DiskJournal::open(&dir, &options(), false).unwrap_err();
        assert_eq!(
            error,
            JournalError::Directory(dir.display().to_string(), BadDirectory::Writable(mode))
        );
        assert!(error.to_string().contains("chmod go-w"));
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing was made");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    drop(open(&dir));
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let (_temp, dir) = state();
    fs::write(&dir, "").unwrap();
    let error = DiskJournal::open(&dir, &options(), false).unwrap_err();
    assert_eq!(
        error,
        JournalError::Directory(dir.display().to_string(), BadDirectory::NotADirectory)
    );
}

#[test]
fn a_second_opener_is_told_who_is_there() {
    let (_temp, dir) = state();
    let (journal, _, _) = open(&dir);
    let error = DiskJournal::open(&dir, &options(), false).unwrap_err();
    assert_eq!(
        error,
        JournalError::Held {
            path: dir.display().to_string(),
            pid: Some(std::process::id()),
        }
    );
    assert!(error.to_string().contains(&std::process::id().to_string()));
    drop(journal);
    drop(open(&dir));
}

#[test]
fn no_descriptor_of_the_journal_survives_exec() {
    let (_temp, dir) = state();
    let (mut journal, _, _) = open(&dir);
    journal.append(Wall(1), &numbered(1)).unwrap();
    journal.flush().unwrap();
    let listed = std::process::Command::new("ls")
        .args(["-l", "/proc/self/fd"])
        .output()
        .unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(text.contains("->"), "{text}");
    assert!(!text.contains(dir.to_str().unwrap()), "{text}");
}

/// Runs a story in a process of its own, which has to end by SIGKILL, and gives what it printed.
fn killed(story: &str, dir: &Path) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stories", "--nocapture", "--test-threads=1"])
        .env("JOURNAL_STORY", story)
        .env("JOURNAL_DIR", dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(9), "{text}{error}");
    text
}

/// What [`killed`] runs.
#[test]
fn stories() {
    let Ok(story) = std::env::var("JOURNAL_STORY") else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os("JOURNAL_DIR").unwrap());
    match story.split_once(' ').unwrap_or((&story, "")) {
        ("hold", _) => {
            let _journal = open(&dir);
            kill_self();
        }
        ("append", _) => {
            let (mut journal, _, _) = open(&dir);
            for n in 0..10 {
                journal.append(Wall(1), &numbered(n)).unwrap();
            }
            journal.flush().unwrap();
            for n in 10..20 {
                journal.append(Wall(1), &numbered(n)).unwrap();
            }
            kill_self();
        }
        ("kill-at-flush", n) => append_until_killed(&dir, n.parse().unwrap()),
        other => panic!("{other:?}"),
    }
}

fn kill_self() -> ! {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    unreachable!()
}

#[test]
fn killed_between_append_and_flush() {
    let (_temp, dir) = state();
    killed("append", &dir);
    let (_, report, records) = open(&dir);
    let numbers: Vec<u64> = records.iter().map(number).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert_eq!(report.damage, []);
}

/// The real storage, with a process that is killed between the write into the mapping and its flush.
struct KilledAtFlush(Disk, u32);

impl Storage for KilledAtFlush {
    fn list(&mut self) -> Result<Vec<(File, u64)>, Fault> {
        self.0.list()
    }
    fn noted(&mut self) -> Result<Option<u32>, Fault> {
        self.0.noted()
    }
    fn path(&self, file: File) -> String {
        self.0.path(file)
    }
    fn read_at(&mut self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, Fault> {
        self.0.read_at(file, offset, into)
    }
    fn allocate(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        self.0.allocate(file, offset, length)
    }

    fn reserve(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        self.0.reserve(file, offset, length)
    }
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write(file, offset, bytes)
    }
    fn flush(&mut self, file: File) -> Result<(), Fault> {
        self.1 -= 1;
        if self.1 == 0 {
            kill_self();
        }
        self.0.flush(file)
    }
    fn rename(&mut self, from: File, to: File) -> Result<(), Fault> {
        self.0.rename(from, to)
    }
    fn sync_dir(&mut self) -> Result<(), Fault> {
        self.0.sync_dir()
    }
    fn truncate(&mut self, file: File, length: u64) -> Result<(), Fault> {
        self.0.truncate(file, length)
    }
    fn remove(&mut self, file: File) -> Result<(), Fault> {
        self.0.remove(file)
    }
    fn keep_aside(&mut self, file: File) -> Result<String, Fault> {
        self.0.keep_aside(file)
    }
    fn release(&mut self, file: File) {
        self.0.release(file);
    }
}

fn append_until_killed(dir: &Path, kill_at: u32) {
    let storage = KilledAtFlush(Disk::lock(dir, false).unwrap(), kill_at);
    let opened = Opened::new(storage, options()).unwrap();
    let (mut journal, _) = opened.replay(|_, _| ()).unwrap();
    let mut random = Random(u64::from(kill_at));
    for n in 0.. {
        journal.append(Wall(1), &numbered(n)).unwrap();
        if random.below(90) == 0 {
            journal.flush().unwrap();
            println!("flushed {}", n + 1);
        }
        if n == 700 {
            journal.compact_begin(Wall(1)).unwrap();
            (0..=n).for_each(|n| journal.compact_push(&numbered(n)).unwrap());
            journal.compact_commit().unwrap();
            println!("flushed {}", n + 1);
        }
    }
}

#[test]
fn killed_at_every_flush_keeps_what_was_flushed() {
    for kill_at in 1..40 {
        let (_temp, dir) = state();
        let text = killed(&format!("kill-at-flush {kill_at}"), &dir);
        let promised = text
            .lines()
            .filter_map(|line| line.strip_prefix("flushed "))
            .next_back();
        let promised: u64 = promised.map_or(0, |n| n.parse().unwrap());
        assert!(kill_at < 20 || promised > 0);
        let (_, report, records) = open(&dir);
        let numbers: Vec<u64> = records.iter().map(number).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() as u64 >= promised, "killed at {kill_at}");
        assert_eq!(report.damage, []);
    }
}

/// A filesystem of its own that is soon full; gone with this value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// With a place for a state directory in it. Needs root: `None` where that is not given.
    fn mount(kib: u32) -> Option<(SmallDisk, PathBuf)> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: needs root to mount a small filesystem");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        nix::mount::mount(
            Some("none"),
            temp.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(format!("size={kib}k,mode=0755").as_str()),
        )
        .unwrap();
        let dir = temp.path().join("state");
        Some((SmallDisk(temp), dir))
    }

    /// Somebody else fills it.
    fn fill(&self) {
        let filled = fs::write(self.hog(), vec![1; 1024 * 1024]);
        assert_eq!(filled.unwrap_err().raw_os_error(), Some(28));
    }

    fn hog(&self) -> PathBuf {
        self.0.path().join("hog")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_pauses_and_keeps_its_reserve() {
    let Some((disk, dir)) = SmallDisk::mount(512) else {
        return;
    };
    let (mut journal, _, _) = open(&dir);
    let mut count = 0;
    disk.fill();
    while journal.has_room() {
        journal.append(Wall(1), &numbered(count)).unwrap();
        count += 1;
        journal.flush().unwrap();
        assert!(count < 100_000, "has_room never became false");
    }
    let reason = journal.no_room().unwrap();
    assert!(matches!(reason, JournalError::NoRoom(_)), "{reason}");
    assert!(!journal.try_make_room());
    // What runs already can still be recorded: 8 KiB of it.
    let reserved = 8 * 1024 / 48 - 1;
    for _ in 0..reserved {
        journal.append(Wall(1), &numbered(count)).unwrap();
        count += 1;
    }
    journal.flush().unwrap();
    // Then there is an end, and it is a clean one.
    let error = loop {
        match journal.append(Wall(1), &numbered(count)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::NoRoom(_)), "{error}");
    journal.flush().unwrap();
    // When there is room again, it goes on.
    fs::remove_file(disk.hog()).unwrap();
    assert!(journal.try_make_room());
    assert_eq!(journal.no_room(), None);
    for _ in 0..100 {
        journal.append(Wall(1), &numbered(count)).unwrap();
        count += 1;
    }
    journal.flush().unwrap();
    drop(journal);
    // A start on a full disk finds the segment that was prepared.
    disk.fill();
    let (_, _, records) = open(&dir);
    let numbers: Vec<u64> = records.iter().map(number).collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

/// No room for one more segment, and most of what lies in those there are is history.
#[test]
fn a_full_disk_is_compacted_free() {
    let Some((_disk, dir)) = SmallDisk::mount(512) else {
        return;
    };
    let (mut journal, _, _) = open(&dir);
    let mut count = 0;
    while journal.append(Wall(1), &numbered(count)).is_ok() {
        count += 1;
    }
    journal.flush().unwrap();
    assert!(!journal.try_make_room());
    assert!(journal.compaction_may_make_room());
    // A state that does not fit: nothing changes, and the next try takes no more than the first.
    for _ in 0..20 {
        journal.compact_begin(Wall(2)).unwrap();
        let all = journal.compact_copy((0..count).map(numbered));
        assert!(matches!(all, Err(JournalError::NoRoom(_))), "{all:?}");
    }
    // Outcomes have a little room meanwhile.
    journal.append(Wall(3), &numbered(count)).unwrap();
    count += 1;
    journal.flush().unwrap();
    journal.compact_begin(Wall(4)).unwrap();
    // The base's room is not taken from it.
    assert!(!journal.try_make_room());
    journal
        .compact_copy((count - 9..count).map(numbered))
        .unwrap();
    journal.compact_switch().unwrap();
    assert!(journal.try_make_room());
    assert_eq!(journal.no_room(), None);
    for _ in 0..3000 {
        journal.append(Wall(5), &numbered(count)).unwrap();
        count += 1;
    }
    journal.flush().unwrap();
    drop(journal);
    let (_, report, records) = open(&dir);
    assert_eq!(report.damage, []);
    let numbers: Vec<u64> = records.iter().map(number).collect();
    assert_eq!(numbers, (count - 3009..count).collect::<Vec<_>>());
}

#[test]
fn a_read_only_disk_says_so_and_can_be_looked_at() {
    let Some((disk, dir)) = SmallDisk::mount(512) else {
        return;
    };
    let (mut journal, _, _) = open(&dir);
    journal.append(Wall(1), &numbered(1)).unwrap();
    journal.flush().unwrap();
    drop(journal);
    nix::mount::mount(
        None::<&str>,
        disk.0.path(),
        None::<&str>,
        nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .unwrap();
    let error = DiskJournal::open(&dir, &options(), false).unwrap_err();
    assert!(
        error.to_string().contains("Read-only file system"),
        "{error}"
    );
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    let seen = settled::journal::inspect::stat(&dir).unwrap();
    assert_eq!(seen.kinds["started"], 1);
}

#[test]
fn a_first_start_on_a_full_disk_says_so() {
    let Some((_disk, dir)) = SmallDisk::mount(32) else {
        return;
    };
    let opened = DiskJournal::open(&dir, &options(), false).unwrap();
    let error = opened.replay(|_, _| ()).unwrap_err();
    assert!(matches!(error, JournalError::NoRoom(_)), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
}

#[test]
fn a_long_record_is_refused_and_leaves_no_trace() {
    let (_temp, dir) = state();
    let (mut journal, _, _) = open(&dir);
    journal.append(Wall(1), &numbered(1)).unwrap();
    let long = Record::Retarget {
        job: settled::core::ids::JobId(1),
        rel: vec![b'x'; SMALL as usize],
    };
    let error = journal.append(Wall(1), &long).unwrap_err();
    assert!(matches!(error, JournalError::TooLong { .. }), "{error}");
    journal.append(Wall(1), &numbered(2)).unwrap();
    journal.flush().unwrap();
    drop(journal);
    assert_eq!(open(&dir).2, [numbered(1), numbered(2)]);
}

#[test]
fn the_lock_goes_with_the_process_and_not_with_its_file() {
    let (_temp, dir) = state();
    killed("hold", &dir);
    assert!(dir.join("lock").exists());
    drop(open(&dir));
}

/// A flush of one record writes a page or two, not the large folio that a careless allocation leaves.
#[test]
fn a_small_flush_writes_little() {
    let (_temp, dir) = state();
    let opened = DiskJournal::open(&dir, &Options::default(), false).unwrap();
    let (mut journal, _) = opened.replay(|_, _| ()).unwrap();
    // Until the next segment is there, flushes write more than what they were asked for.
    let mut number = 0;
    let mut flush = || {
        number += 1;
        journal.append(Wall(1), &numbered(number)).unwrap();
        journal.flush().unwrap();
    };
    (0..40).for_each(|_| flush());
    let before = written();
    (0..100).for_each(|_| flush());
    let each = (written() - before) / 100;
    assert!(each <= 2 * 4096, "{each} bytes a flush");
}

/// Zeros spare small flushes a commit of the filesystem; large batches are better off without them.
#[test]
fn large_batches_are_written_once() {
    let (_temp, dir) = state();
    let opened = DiskJournal::open(&dir, &Options::default(), false).unwrap();
    let (mut journal, _) = opened.replay(|_, _| ()).unwrap();
    let (mut number, mut flushed) = (0, 0);
    let mut flushes = |count: usize, records: usize| {
        let before = written();
        flushed = 0;
        for _ in 0..count {
            for _ in 0..records {
                journal.append(Wall(1), &numbered(number)).unwrap();
                number += 1;
            }
            flushed += journal.flush().unwrap().bytes;
        }
        (written() - before, flushed)
    };
    // A segment and more, so that the next one is begun under this load.
    flushes(50, 2000);
    let (large, bytes) = flushes(100, 2000);
    assert!(large < bytes * 5 / 4, "{large} bytes written for {bytes}");
    // The same blocks take small batches as well.
    flushes(30, 1);
    flushes(3, 2000);
    flushes(30, 1);
    drop(journal);
    let opened = DiskJournal::open(&dir, &Options::default(), false).unwrap();
    let mut found = 0;
    let (_, report) = opened.replay(|_, _| found += 1).unwrap();
    assert_eq!((found, report.damage), (number, vec![]));
}

/// What a start that was cut short has left is zeros again, and has the length that is asked for.
#[test]
fn what_is_reserved_reads_as_zeros() {
    for parent in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        let temp = tempfile::tempdir_in(parent).unwrap();
        let dir = temp.path().join("state");
        let mut disk = Disk::lock(&dir, false).unwrap();
        fs::write(dir.join("spare.log"), vec![7; 300_000]).unwrap();
        disk.reserve(File::Spare, 0, 65536).unwrap();
        disk.reserve(File::Spare, 65536, 65536).unwrap();
        assert!(fs::read(dir.join("spare.log")).unwrap() == vec![0; 131_072]);
        disk.write(File::Spare, 65530, b"over a page").unwrap();
        disk.flush(File::Spare).unwrap();
        let bytes = fs::read(dir.join("spare.log")).unwrap();
        assert_eq!(&bytes[65529..65542], b"\0over a page\0");
    }
}

/// proc_pid_io(5): bytes of this thread, counted when a page is made dirty.
fn written() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

/// The copy of a daemon that was killed goes on for a moment, while the next daemon has begun a compaction of its
/// own: what the old one still writes must not get into the new one's base.
#[test]
fn a_compaction_that_outlives_its_daemon_spoils_nothing() {
    let (_temp, dir) = state();
    let (mut old, _, _) = open(&dir);
    for n in 0..40 {
        old.append(Wall(2), &numbered(n)).unwrap();
    }
    old.flush().unwrap();
    old.compact_begin(Wall(3)).unwrap();
    // From here on it is what the forked copy is when the daemon is gone.
    old.leave_lock();
    let (mut new, _, records) = open(&dir);
    assert_eq!(records.len(), 40);
    for n in 40..70 {
        new.append(Wall(4), &numbered(n)).unwrap();
    }
    new.flush().unwrap();
    new.compact_begin(Wall(5)).unwrap();
    for n in 0..70 {
        new.compact_push(&numbered(n)).unwrap();
    }
    new.compact_end().unwrap();
    // Whether it ends well or not: nobody takes note of it any more.
    let _ = old.compact_copy((0..40).map(numbered));
    new.compact_switch().unwrap();
    drop(new);
    let (_, report, records) = open(&dir);
    assert_eq!(report.damage, []);
    let numbers: Vec<u64> = records.iter().map(number).collect();
    assert_eq!(numbers, (0..70).collect::<Vec<_>>());
}

/// A daemon killed just after it has forked a copy: the copy has the lock for a moment longer.
#[test]
fn the_lock_of_a_daemon_that_is_gone_is_waited_for() {
    let (_temp, dir) = state();
    drop(open(&dir));
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    fs::write(dir.join("lock"), format!("{}\n", gone.id())).unwrap();
    let file = fs::File::open(dir.join("lock")).unwrap();
    let file = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(file);
    });
    drop(open(&dir));
    leaving.join().unwrap();
}
