//! Many files at once: each run once, none twice, none partial, whatever happens to the events.

use crate::bed::{Bed, Daemon, Run, until_in};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILES: usize = 20_000;
const DIRS: usize = 16;
const SLOW: Duration = Duration::from_secs(300);

fn name(index: usize) -> String {
    format!("d{:02}/f{index:05}", index % DIRS)
}

/// The content says which file it is, so that a partial or foreign one shows.
fn content(index: usize) -> Vec<u8> {
    format!("file {index} ").repeat(20).into_bytes()
}

/// One of two writers: every second file, half of them by rename.
fn write_half(root: &Path, first: usize, files: usize) {
    for index in (first..files).step_by(2) {
        let path = root.join(name(index));
        if index % 4 < 2 {
            fs::write(&path, content(index)).expect("a file");
        } else {
            let temporary = path.with_extension("tmp");
            fs::write(&temporary, content(index)).expect("a file");
            fs::rename(&temporary, &path).expect("a rename");
        }
    }
}

fn two_writers(root: PathBuf, files: usize) -> [std::thread::JoinHandle<()>; 2] {
    [0, 1].map(|first| {
        let root = root.clone();
        std::thread::spawn(move || write_half(&root, first, files))
    })
}

fn make_dirs(bed: &Bed) {
    for dir in 0..DIRS {
        fs::create_dir(bed.inside(format!("d{dir:02}"))).expect("a directory");
    }
}

fn burst_bed(keys: &str) -> Bed {
    let bed = Bed::new();
    let text = format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"warning\"\n\n[watch.w]\npath = {:?}\nrecursive = true\n\
         settle = \"0\"\nconcurrency = 4\n{}{keys}",
        bed.path("state"),
        bed.path("in"),
        bed.run_key(&[]),
    );
    bed.configure_text(&text);
    make_dirs(&bed);
    bed
}

fn start(bed: &Bed, env: &[(&str, &str)]) -> Daemon {
    let config = bed.path("settled.toml");
    bed.spawn_with(
        &[OsStr::new("run"), OsStr::new("-c"), config.as_os_str()],
        env,
    )
}

/// Every file once, whole.
fn each_once(bed: &Bed, files: usize) {
    let runs = bed.wait_runs_in(SLOW, files);
    let mut seen: BTreeMap<PathBuf, Vec<&Run>> = BTreeMap::new();
    for run in &runs {
        seen.entry(run.path.clone()).or_default().push(run);
    }
    for index in 0..files {
        let runs = seen.remove(&bed.inside(name(index))).unwrap_or_default();
        assert_eq!(runs.len(), 1, "{}: {runs:?}", name(index));
        assert_eq!(
            runs[0].size,
            Some(content(index).len() as u64),
            "{}",
            name(index)
        );
        assert_eq!(runs[0].hash, crate::bed::fnv(&content(index)));
    }
    assert!(seen.is_empty(), "{seen:?}");
}

/// After everything is quiet a full listing must find nothing that is owed.
fn nothing_more(bed: &Bed, daemon: &mut Daemon, files: usize) {
    assert_eq!(daemon.stop(), Some(0));
    let again = start(bed, &[]);
    fs::write(bed.inside("last"), "last").expect("a file");
    let runs = bed.wait_runs_in(SLOW, files + 1);
    assert_eq!(runs.len(), files + 1);
    drop(again);
}

#[test]
fn twenty_thousand_files_by_two_writers() {
    let bed = burst_bed("");
    let mut daemon = start(&bed, &[]);
    for writer in two_writers(bed.path("in"), FILES) {
        writer.join().expect("a writer");
    }
    each_once(&bed, FILES);
    nothing_more(&bed, &mut daemon, FILES);
}

#[test]
fn the_kernels_queue_overflows() {
    let bed = burst_bed("");
    let mut daemon = start(&bed, &[]);
    // Every directory is watched once the first file in each was run.
    for dir in 0..DIRS {
        fs::write(bed.inside(format!("d{dir:02}/warm")), "x").expect("a file");
    }
    let warm = bed.wait_runs_in(SLOW, DIRS);
    assert_eq!(warm.len(), DIRS);
    fs::remove_file(bed.results()).expect("the results of the warm-up");
    for dir in 0..DIRS {
        fs::remove_file(bed.inside(format!("d{dir:02}/warm"))).expect("a file");
    }
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .expect("a limit")
        .trim()
        .parse()
        .expect("a number");
    daemon.signal(libc::SIGSTOP);
    // Two events a file at the least.
    assert!(
        FILES * 2 > limit,
        "raise FILES above half of max_queued_events"
    );
    for writer in two_writers(bed.path("in"), FILES) {
        writer.join().expect("a writer");
    }
    daemon.signal(libc::SIGCONT);
    each_once(&bed, FILES);
    assert!(daemon.log_count("overflowed") > 0, "there was no overflow");
    nothing_more(&bed, &mut daemon, FILES);
}

#[test]
fn half_of_all_events_are_dropped_as_by_a_queue_too_small() {
    let bed = burst_bed("");
    let mut daemon = start(&bed, &[("SETTLED_TEST_DROP", "half")]);
    for writer in two_writers(bed.path("in"), 4000) {
        writer.join().expect("a writer");
    }
    each_once(&bed, 4000);
    nothing_more(&bed, &mut daemon, 4000);
}

#[test]
fn half_of_all_events_are_dropped_in_silence_and_polling_finds_the_files() {
    let bed = burst_bed("observe = \"both\"\npoll = \"200ms\"\n");
    let mut daemon = start(&bed, &[("SETTLED_TEST_DROP", "silent-half")]);
    for writer in two_writers(bed.path("in"), 4000) {
        writer.join().expect("a writer");
    }
    each_once(&bed, 4000);
    nothing_more(&bed, &mut daemon, 4000);
}

#[test]
fn without_inotify_at_all() {
    let bed = burst_bed("observe = \"poll\"\npoll = \"200ms\"\n");
    let mut daemon = start(&bed, &[]);
    for writer in two_writers(bed.path("in"), 2000) {
        writer.join().expect("a writer");
    }
    each_once(&bed, 2000);
    nothing_more(&bed, &mut daemon, 2000);
}

#[test]
fn directories_made_and_filled_at_once() {
    let bed = burst_bed("");
    let _daemon = start(&bed, &[]);
    for index in 0..500 {
        let dir = bed.inside(format!("n{index}/b/c"));
        fs::create_dir_all(&dir).expect("directories");
        fs::write(dir.join("file"), content(index)).expect("a file");
    }
    let runs = bed.wait_runs_in(SLOW, 500);
    let mut paths: Vec<_> = runs.iter().map(|run| run.path.clone()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!((runs.len(), paths.len()), (500, 500));
    for run in &runs {
        assert!(run.size.is_some_and(|size| size > 0), "{run:?}");
    }
}

#[test]
fn no_inotify_watch_is_left() {
    // In a user namespace of its own, whose own limit (user_namespaces(7), /proc/sys/user) is lowered: the
    // one of the machine (fs.inotify.max_user_watches) stays as it is.
    let bed = burst_bed("poll = \"200ms\"\n");
    let config = bed.path("settled.toml");
    let script = "echo 4 > /proc/sys/user/max_inotify_watches && exec \"$0\" run -c \"$1\"";
    let mut child = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_settled"))
        .arg(&config)
        .stderr(fs::File::create(bed.path("log")).expect("a log"))
        .spawn()
        .expect("unshare (util-linux) has to be installed");
    for writer in two_writers(bed.path("in"), 400) {
        writer.join().expect("a writer");
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        each_once(&bed, 400);
        until_in(SLOW, "the warning", || {
            fs::read_to_string(bed.path("log"))
                .is_ok_and(|log| log.contains("fs.inotify.max_user_watches"))
        });
    }));
    let _ = child.kill();
    let _ = child.wait();
    if outcome.is_err() {
        panic!(
            "{}",
            fs::read_to_string(bed.path("log")).unwrap_or_default()
        );
    }
}
