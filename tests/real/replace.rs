//! Files that change under the daemon's hands: between settling and attempt, while their job runs, before
//! their disposition.

use crate::bed::{Bed, Daemon, fnv, until};
use crate::kit;
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

/// A daemon that runs one job at a time; each waits for `go` to exist.
fn gated(words: &[&str], keys: &str) -> (Bed, Daemon, PathBuf) {
    let bed = Bed::new();
    let go = bed.path("go");
    let until = format!("until={}", go.display());
    let mut all = vec![until.as_str()];
    all.extend(words);
    bed.configure(&all, &format!("settle = \"0\"\nconcurrency = 1\n{keys}"));
    let daemon = bed.start();
    (bed, daemon, go)
}

/// Occupies the one place, so that what settles next stays queued.
fn blocker(bed: &Bed) {
    fs::write(bed.inside("blocker"), "x").expect("a file");
    bed.wait_runs(1);
}

#[test]
fn replaced_while_queued_runs_as_the_new_one_only() {
    let (bed, daemon, go) = gated(&[], "");
    blocker(&bed);
    fs::write(bed.inside("a"), "old").expect("a file");
    until("a is queued", || {
        daemon
            .log()
            .iter()
            .any(|l| l.contains("settled") && l.contains("/in/a"))
    });
    fs::write(bed.path("new"), "new!").expect("a file");
    fs::rename(bed.path("new"), bed.inside("a")).expect("a rename over it");
    fs::write(&go, "").expect("a sign");
    bed.wait_runs(2);
    let runs = bed.fence("fence");
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(runs[1].hash, fnv(b"new!"));
    daemon.wait_log("superseded");
}

#[test]
fn replaced_without_a_word_while_queued_is_seen_by_the_look_before_the_attempt() {
    // Through another hard link, outside: no event names the file.
    let (bed, daemon, go) = gated(&[], "");
    blocker(&bed);
    fs::write(bed.path("outside"), "old").expect("a file");
    fs::hard_link(bed.path("outside"), bed.inside("a")).expect("a link");
    until("a is queued", || {
        daemon
            .log()
            .iter()
            .any(|l| l.contains("settled") && l.contains("/in/a"))
    });
    fs::write(bed.path("outside"), "newer").expect("a write through the other name");
    fs::write(&go, "").expect("a sign");
    bed.wait_runs(2);
    let runs = bed.fence("fence");
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(
        runs[1].hash,
        fnv(b"newer"),
        "never the old version's size with the new content"
    );
    daemon.wait_log("superseded");
}

#[test]
fn removed_while_queued_is_gone() {
    let (bed, daemon, go) = gated(&[], "");
    blocker(&bed);
    fs::write(bed.inside("a"), "x").expect("a file");
    until("a is queued", || {
        daemon
            .log()
            .iter()
            .any(|l| l.contains("settled") && l.contains("/in/a"))
    });
    fs::remove_file(bed.inside("a")).expect("it");
    daemon.wait_log("gone before its attempt");
    fs::write(&go, "").expect("a sign");
    assert_eq!(bed.fence("fence").len(), 1);
}

#[test]
fn replaced_before_its_disposition_the_new_one_is_not_deleted() {
    let (bed, _daemon, go) = gated(&[], "done = \"delete\"\n");
    fs::write(bed.inside("a"), "old").expect("a file");
    bed.wait_runs(1);
    fs::write(bed.path("new"), "new!").expect("a file");
    fs::rename(bed.path("new"), bed.inside("a")).expect("a rename over it");
    fs::write(&go, "").expect("a sign");
    let runs = bed.wait_runs(2);
    assert_eq!(
        runs[1].hash,
        fnv(b"new!"),
        "the new version got its own run"
    );
    until("it is deleted after that", || !bed.inside("a").exists());
    assert_eq!(bed.fence("fence").len(), 2);
}

#[test]
fn changed_in_place_before_its_disposition_it_is_not_deleted_either() {
    let (bed, _daemon, go) = gated(&[], "done = \"delete\"\n");
    fs::write(bed.path("outside"), "old").expect("a file");
    fs::hard_link(bed.path("outside"), bed.inside("a")).expect("a link");
    bed.wait_runs(1);
    // No event: only the look before the disposition can tell.
    fs::write(bed.path("outside"), "newer").expect("a write through the other name");
    fs::write(&go, "").expect("a sign");
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].hash, fnv(b"newer"));
    until("it is deleted after that", || !bed.inside("a").exists());
    assert_eq!(
        fs::read(bed.path("outside")).expect("the other name"),
        b"newer"
    );
}

#[test]
fn a_directory_renamed_with_queued_and_running_jobs_in_it() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(
        &[&format!("until={}", go.display())],
        &format!(
            "settle = \"0\"\nconcurrency = 1\nrecursive = true\ndone = {{ move = {:?} }}\n",
            bed.path("done")
        ),
    );
    let daemon = bed.start();
    fs::create_dir(bed.inside("d")).expect("a directory");
    fs::write(bed.inside("d/running"), "r").expect("a file");
    assert_eq!(bed.wait_runs(1)[0].path, bed.inside("d/running"));
    fs::write(bed.inside("d/queued"), "q").expect("a file");
    until("it is queued", || {
        daemon
            .log()
            .iter()
            .any(|l| l.contains("settled") && l.contains("d/queued"))
    });
    fs::rename(bed.inside("d"), bed.inside("e")).expect("a rename");
    fs::write(&go, "").expect("a sign");
    let runs = bed.wait_runs(2);
    assert_eq!(
        runs[1].path,
        bed.inside("e/queued"),
        "queued jobs have their new path"
    );
    until("both are moved", || {
        bed.path("done/e/running").exists() && bed.path("done/e/queued").exists()
    });
    assert_eq!(bed.fence("fence").len(), 2);
}

#[test]
fn an_archive_inside_the_watched_tree_is_not_watched() {
    let bed = Bed::new();
    bed.configure(
        &[],
        &format!(
            "concurrency = 1\nrecursive = true\ndone = {{ move = {:?} }}\n",
            bed.inside("done/{date}")
        ),
    );
    let _daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    until("it is archived", || !bed.inside("a").exists());
    assert_eq!(bed.fence("fence").len(), 1);
    let days: Vec<_> = fs::read_dir(bed.inside("done"))
        .expect("the archive")
        .collect();
    assert_eq!(days.len(), 1);
}

#[test]
fn two_watches_over_one_tree_both_see_it() {
    let bed = Bed::new();
    let block = |name: &str| {
        format!(
            "[watch.{name}]\npath = {:?}\nrecursive = true\n{}\n",
            bed.path("in"),
            bed.run_key(&[])
        )
    };
    bed.configure_text(&(block("one") + &block("two")));
    let _daemon = bed.start();
    fs::create_dir(bed.inside("d")).expect("a directory");
    fs::write(bed.inside("d/a"), "x").expect("a file");
    let mut watches: Vec<_> = bed.wait_runs(2).into_iter().map(|run| run.watch).collect();
    watches.sort();
    assert_eq!(watches, ["one", "two"]);
    fs::rename(bed.inside("d"), bed.inside("e")).expect("a rename");
    fs::write(bed.inside("e/b"), "x").expect("a file");
    let runs = bed.wait_runs(4);
    assert_eq!(runs.iter().filter(|run| run.name() == "b").count(), 2);
    assert_eq!(runs.len(), 4, "{runs:?}");
}

#[test]
fn a_job_that_edits_its_own_file_is_held_after_three_times() {
    let bed = Bed::new();
    bed.configure(&["append=more"], "settle = \"0\"\n");
    let daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    daemon.wait_log("held");
    assert_eq!(bed.runs().len(), 3);
    // Somebody else's change is an arrival again.
    fs::write(bed.path("new"), "new").expect("a file");
    fs::rename(bed.path("new"), bed.inside("a")).expect("a rename over it");
    bed.wait_runs(4);
}

#[test]
fn a_job_that_may_edit_its_own_file() {
    let bed = Bed::new();
    bed.configure(
        &["append=more"],
        "concurrency = 1\non_change = \"accept\"\n",
    );
    let _daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    // Two fences: what the job's own close began has settled before the second.
    let runs = bed.fence("fence");
    assert_eq!(runs.iter().filter(|run| run.name() == "a").count(), 1);
    let runs = bed.fence("fence2");
    assert_eq!(runs.iter().filter(|run| run.name() == "a").count(), 1);
}

/// Under its former path lies another file when the look after its command comes there: that one is not what was worked on.
#[test]
fn a_file_whose_directory_is_renamed_before_the_look_after_its_command_accepts_no_other() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(
        &[&format!("until={}", go.display())],
        "settle = \"0\"\nrecursive = true\non_change = \"accept\"\n",
    );
    fs::create_dir(bed.inside("d")).expect("a directory");
    fs::write(bed.inside("d/f"), "one").expect("a file");
    let mut daemon = bed.start();
    bed.wait_runs(1);
    let scouts = kit::scouts_of(&daemon);
    kit::send(&scouts, Signal::SIGSTOP);
    fs::write(&go, "").expect("a file");
    kit::wait_state(&daemon, " 0 running, 1 jobs owed");
    fs::rename(bed.inside("d"), bed.inside("e")).expect("a rename");
    fs::create_dir(bed.inside("d")).expect("a directory");
    fs::write(bed.inside("d/f"), "another").expect("a file");
    kit::wait_state(&daemon, " 3 directories");
    kit::send(&scouts, Signal::SIGCONT);
    bed.wait_runs(2);
    let runs = bed.fence("fence");
    let sizes: Vec<_> = runs.iter().map(|run| run.size).collect();
    assert_eq!(sizes, [Some(3), Some(7)], "{runs:?}");
    assert_eq!(daemon.stop(), Some(0));
    let mut daemon = bed.start();
    let runs = bed.fence("fence2");
    let files = runs.iter().filter(|run| run.name() == "f");
    assert_eq!(files.count(), 2, "{runs:?}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_move_never_overwrites() {
    let bed = Bed::new();
    fs::create_dir(bed.path("done")).expect("a directory");
    fs::write(bed.path("done/a.csv"), "somebody's").expect("a file");
    bed.configure(
        &[],
        &format!(
            "settle = \"0\"\ndone = {{ move = {:?} }}\n",
            bed.path("done")
        ),
    );
    let _daemon = bed.start();
    for content in ["one", "two"] {
        fs::write(bed.inside("a.csv"), content).expect("a file");
        until("it is moved", || !bed.inside("a.csv").exists());
    }
    let read = |name: &str| fs::read_to_string(bed.path("done").join(name)).expect("a moved file");
    until("both are there", || bed.path("done/a.2.csv").exists());
    assert_eq!(read("a.csv"), "somebody's");
    assert_eq!(read("a.1.csv"), "one");
    assert_eq!(read("a.2.csv"), "two");
}

#[test]
fn a_move_to_another_filesystem_copies_all_of_it() {
    let target = tempfile::tempdir_in("/dev/shm").expect("another filesystem");
    let bed = Bed::new();
    let content: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    bed.configure(
        &[],
        &format!(
            "settle = \"0\"\nrecursive = true\ndone = {{ move = {:?} }}\n",
            target.path().join("done")
        ),
    );
    let _daemon = bed.start();
    fs::create_dir(bed.inside("sub")).expect("a directory");
    fs::write(bed.inside("sub/a.bin"), &content).expect("a file");
    let moved = target.path().join("done/sub/a.bin");
    until("it is moved", || {
        !bed.inside("sub/a.bin").exists() && moved.exists()
    });
    assert!(fs::read(&moved).expect("the copy") == content);
    let left: Vec<_> = fs::read_dir(target.path().join("done/sub"))
        .expect("the target")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["a.bin"]);
}

#[test]
fn dead_files_go_where_they_are_told() {
    let bed = Bed::new();
    bed.configure(
        &["exit=65"],
        &format!(
            "settle = \"0\"\ndone = \"delete\"\ndead = {{ move = {:?}, flatten = true }}\nrecursive = true\n",
            bed.path("failed")
        ),
    );
    let daemon = bed.start();
    fs::create_dir(bed.inside("sub")).expect("a directory");
    fs::write(bed.inside("sub/a"), "x").expect("a file");
    daemon.wait_log("dead");
    until("it is moved", || bed.path("failed/a").exists());
    assert_eq!(bed.runs().len(), 1, "65 is dead at once");
}

/// Its target's disk is full: the file is put back, and copied again when the wait is over, not because it was put back.
#[test]
fn a_disposition_that_fails_backs_off() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: this needs root");
        return;
    }
    let bed = Bed::new();
    let full = kit::Small::mount(bed.path("full"), "64k");
    let others = bed.path("others");
    fs::create_dir(&others).expect("a directory");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"100ms\"\nrun = [\"true\"]\ndone = {{ move = {:?} }}\n\n\
         [watch.others]\npath = {others:?}\nsettle = \"100ms\"\nrun = [\"true\"]\ndone = \"delete\"\n",
        bed.path("in"),
        full.0,
    ));
    let mut watch = inotify::Inotify::init().expect("inotify");
    let mask = inotify::WatchMask::MOVED_FROM;
    watch
        .watches()
        .add(bed.path("in"), mask)
        .expect("a watch descriptor");
    let daemon = bed.start();
    fs::write(bed.inside("big"), vec![b'x'; 1 << 20]).expect("a file");
    daemon.wait_log("its disposition failed");
    // Each of these settles as long as the file that was put back would.
    let rounds = 40;
    for n in 0..rounds {
        let other = others.join(n.to_string());
        fs::write(&other, "x").expect("a file");
        until("it is done", || !other.exists());
    }
    let mut room = [0; 1 << 16];
    let mut tries = 0;
    while let Ok(events) = watch.read_events(&mut room) {
        let named = |event: &inotify::Event<_>| event.name == Some(OsStr::new("big"));
        tries += events.filter(named).count();
    }
    assert!((1..rounds / 2).contains(&tries), "{tries}");
    drop(daemon);
}
