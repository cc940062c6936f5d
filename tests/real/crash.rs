//! SIGKILL and restart: nothing lost; only attempts cut short are repeated, and they say so.

use crate::bed::{Bed, counts, until};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn killed_again_and_again_while_files_keep_coming() {
    const FILES: usize = 2000;
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\nconcurrency = 4\n");
    let inside = bed.path("in");
    let writer = std::thread::spawn(move || {
        for index in 0..FILES {
            fs::write(
                inside.join(format!("f{index:05}")),
                format!("{index}").repeat(50),
            )
            .expect("a file");
        }
    });
    let mut kills = 0;
    for target in [100, 300, 600, 900, 1200, 1500, 1800] {
        let mut daemon = bed.start();
        until("progress", || bed.runs().len() >= target);
        daemon.kill();
        kills += 1;
    }
    writer.join().expect("the writer");
    let mut daemon = bed.start();
    until("every file run", || counts(&bed.runs()).len() == FILES);
    assert_eq!(daemon.stop(), Some(0));

    let runs = bed.runs();
    let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for run in &runs {
        by_name.entry(run.name()).or_default().push(run);
    }
    let mut repeated = 0;
    for (name, runs) in &by_name {
        let first = runs[0];
        assert!(!first.recovered || first.attempt > 1, "{name:?}: {runs:?}");
        for again in &runs[1..] {
            repeated += 1;
            assert!(
                again.recovered,
                "{name:?} was run again and does not say so: {runs:?}"
            );
            assert!(again.attempt > first.attempt);
            assert_eq!(
                again.job, first.job,
                "a repeated attempt keeps its job: {runs:?}"
            );
        }
    }
    // At most what ran when it was killed, each time.
    assert!(
        repeated <= kills * 4,
        "{repeated} repeated after {kills} kills"
    );
}

#[test]
fn attempts_and_back_off_go_on_where_they_were() {
    let bed = Bed::new();
    bed.configure(
        &["exit=1"],
        "attempts = 3\nbackoff = { first = \"700ms\", max = \"700ms\" }\n",
    );
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    daemon.wait_log("again in");
    daemon.kill();
    let mut daemon = bed.start();
    bed.wait_runs(2);
    until("the second failure is known", || {
        daemon.log_count("again in") > 0
    });
    daemon.kill();
    let daemon = bed.start();
    let runs = bed.wait_runs(3);
    daemon.wait_log("dead");
    assert_eq!(
        runs.iter().map(|run| run.attempt).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(
        runs.iter()
            .all(|run| !run.recovered && run.job == runs[0].job)
    );
}

#[test]
fn a_job_in_back_off_is_not_run_early_by_a_restart() {
    let bed = Bed::new();
    bed.configure(
        &["exit-first=1"],
        "backoff = { first = \"1h\", max = \"1h\" }\nconcurrency = 1\n",
    );
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    daemon.wait_log("again in");
    daemon.kill();
    let _daemon = bed.start();
    assert_eq!(bed.fence("fence").len(), 1);
}

#[test]
fn a_running_attempt_is_repeated_and_says_so() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(&[&format!("until={}", go.display())], "settle = \"0\"\n");
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    daemon.kill();
    fs::write(&go, "").expect("a sign");
    let daemon = bed.start();
    let runs = bed.wait_runs(2);
    daemon.wait_log("done");
    assert!(!runs[0].recovered && runs[1].recovered);
    assert_eq!((runs[0].attempt, runs[1].attempt), (1, 2));
    assert_eq!(runs[0].job, runs[1].job);
}

#[test]
fn draining_waits_for_what_runs_and_starts_nothing_new() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(
        &[&format!("until={}", go.display())],
        "settle = \"0\"\nconcurrency = 1\ndone = \"delete\"\n",
    );
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    fs::write(bed.inside("b"), "x").expect("a file");
    daemon.signal(libc::SIGTERM);
    daemon.wait_log("nothing new is started");
    fs::write(&go, "").expect("a sign");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!bed.inside("a").exists(), "its disposition was completed");
    assert_eq!(bed.runs().len(), 1);
    let _daemon = bed.start();
    let runs = bed.wait_runs(2);
    assert_eq!((runs[1].attempt, runs[1].recovered), (1, false));
}

#[test]
fn drain_that_is_over_cuts_short() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\ndrain = \"200ms\"\n\n[watch.w]\npath = {:?}\n\
         settle = \"0\"\nattempts = 1\n{}",
        bed.path("state"),
        bed.path("in"),
        bed.run_key(&[&format!("until={}", go.display())]),
    ));
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    assert_eq!(daemon.stop(), Some(0));
    fs::write(&go, "").expect("a sign");
    let daemon = bed.start();
    let runs = bed.wait_runs(2);
    daemon.wait_log("done");
    assert!(runs[1].recovered, "{runs:?}");
}

#[test]
fn a_second_signal_stops_now() {
    let bed = Bed::new();
    let never = bed.path("never");
    bed.configure(
        &["ignore-term", &format!("until={}", never.display())],
        "settle = \"0\"\n",
    );
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    let pid = bed.wait_runs(1)[0].pid;
    daemon.signal(libc::SIGINT);
    daemon.wait_log("nothing new is started");
    daemon.signal(libc::SIGINT);
    assert_eq!(daemon.wait().code(), Some(0));
    until("its child is gone", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
}

#[test]
fn a_disposition_cut_short_is_completed() {
    let bed = Bed::new();
    bed.configure(
        &[],
        &format!(
            "settle = \"0\"\ndone = {{ move = {:?} }}\n",
            bed.path("done")
        ),
    );
    for index in 0..300 {
        fs::write(bed.inside(format!("f{index}")), format!("{index}")).expect("a file");
    }
    let moved = || fs::read_dir(bed.path("done")).map_or(0, Iterator::count);
    for target in [20, 100, 200] {
        let mut daemon = bed.start();
        until("progress", || moved() >= target);
        daemon.kill();
    }
    let mut daemon = bed.start();
    until("every file moved", || moved() == 300);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(
        fs::read_dir(bed.inside("")).expect("a directory").count(),
        0
    );
    for index in 0..300 {
        let path = bed.path("done").join(format!("f{index}"));
        assert_eq!(
            fs::read_to_string(path).expect("a moved file"),
            format!("{index}")
        );
    }
}

#[test]
fn compaction_bounds_the_journal_and_forgets_nothing() {
    const FILES: usize = 1500;
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\nconcurrency = 4\n");
    let config = bed.path("settled.toml");
    let args = ["run".as_ref(), "-c".as_ref(), config.as_os_str()];
    let env = [("SETTLED_TEST_COMPACT_BYTES", "65536")];
    let bases = || {
        fs::read_dir(bed.path("state")).map_or(0, |dir| {
            dir.flatten()
                .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "base"))
                .count()
        })
    };
    for life in 0..3 {
        let mut daemon = bed.spawn_with(&args, &env);
        daemon.wait_log("ready:");
        for index in 0..FILES / 3 {
            fs::write(bed.inside(format!("f{life}-{index:05}")), "x").expect("a file");
        }
        let expected = FILES / 3 * (life + 1);
        until("every file run", || counts(&bed.runs()).len() == expected);
        until("a base was written", || bases() > 0);
        assert_eq!(daemon.log_count("compaction failed"), 0);
        daemon.kill();
    }
    let mut daemon = bed.spawn_with(&args, &env);
    let known = format!("{FILES} files remembered");
    daemon.wait_log(&known);
    assert_eq!(daemon.stop(), Some(0));
    let bytes: u64 = fs::read_dir(bed.path("state"))
        .expect("the state directory")
        .flatten()
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    // 1,500 files make more than 600 KiB of records; what is live is a fifth of that.
    assert!(bytes < 500 << 10, "{bytes} bytes in the state directory");
    let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for run in bed.runs() {
        by_name.entry(run.name()).or_default().push(run);
    }
    for runs in by_name.values() {
        assert!(runs[1..].iter().all(|run| run.recovered), "{runs:?}");
    }
}

#[test]
fn renamed_while_down_is_known_again_though_another_has_come_for_it() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\nrecursive = true\nconcurrency = 1\n");
    for dir in ["a", "b"] {
        fs::create_dir(bed.inside(dir)).expect("a directory");
    }
    fs::write(bed.inside("b/one"), "x").expect("a file");
    let mut daemon = bed.start();
    bed.wait_runs(1);
    daemon.wait_log("done");
    daemon.kill();
    fs::rename(bed.inside("b/one"), bed.inside("a/two")).expect("a rename");
    fs::write(bed.inside("b/one"), "something else").expect("a file");
    let mut daemon = bed.start();
    assert_eq!(bed.wait_runs(2)[1].path, bed.inside("b/one"));
    assert_eq!(bed.fence("fence").len(), 2, "the renamed one was run again");
    daemon.kill();
    let _daemon = bed.start();
    bed.fence("other");
    let runs = bed.runs();
    assert!(runs.iter().all(|run| run.name() != "two"), "{runs:?}");
}

/// As logrotate does it: every file takes the next one's name, and a new one comes for the first.
#[test]
fn rotated_while_down_only_the_new_file_is_run() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\nconcurrency = 1\n");
    let files = 12;
    let name = |n: usize| bed.inside(format!("log.{n}"));
    for n in 0..files {
        fs::write(name(n), format!("written as {n}")).expect("a file");
    }
    let mut daemon = bed.start();
    bed.wait_runs(files);
    assert_eq!(daemon.stop(), Some(0));
    for n in (0..files).rev() {
        fs::rename(name(n), name(n + 1)).expect("a rename");
    }
    fs::write(name(0), "the new one").expect("a file");
    let _daemon = bed.start();
    let runs = bed.fence("fence");
    let names: Vec<_> = runs[files..].iter().map(|run| run.path.clone()).collect();
    assert_eq!(names, [name(0)]);
}

#[test]
fn files_that_changed_names_in_a_ring_while_down_are_not_run_again() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\nconcurrency = 1\n");
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        fs::write(bed.inside(name), name).expect("a file");
    }
    let mut daemon = bed.start();
    bed.wait_runs(names.len());
    assert_eq!(daemon.stop(), Some(0));
    fs::rename(bed.inside("e"), bed.inside("spare")).expect("a rename");
    for pair in names.windows(2).rev() {
        fs::rename(bed.inside(pair[0]), bed.inside(pair[1])).expect("a rename");
    }
    fs::rename(bed.inside("spare"), bed.inside("a")).expect("a rename");
    let _daemon = bed.start();
    let runs = bed.fence("fence");
    assert_eq!(runs.len(), names.len(), "{:?}", &runs[names.len()..]);
}

/// Its archive cannot be reached yet, the daemon is killed, and the files are rotated before the next start: what was done
/// with is archived under whatever name it has by then, and run no second time.
#[test]
fn rotated_while_down_what_was_done_with_is_archived_all_the_same() {
    let bed = Bed::new();
    let archive = bed.path("archive");
    fs::write(&archive, "no directory").expect("a file");
    let text = format!(
        "settle = \"0\"\nconcurrency = 1\nrecursive = true\ndone = {{ move = {archive:?} }}\n"
    );
    bed.configure(&[], &text);
    // All of them are listed before it can be told what was renamed.
    for n in 0..2000 {
        fs::create_dir(bed.inside(format!("dir.{n}"))).expect("a directory");
    }
    let name = |n: usize| bed.inside(format!("log.{n}"));
    let files = 3;
    for n in 0..files {
        fs::write(name(n), format!("written as {n}")).expect("a file");
    }
    let mut daemon = bed.start();
    bed.wait_runs(files);
    until("no file can be archived", || {
        daemon.log_count("its disposition failed") == files
    });
    daemon.kill();
    for n in (0..files).rev() {
        fs::rename(name(n), name(n + 1)).expect("a rename");
    }
    fs::write(name(0), "the new one").expect("a file");
    fs::remove_file(&archive).expect("no file");
    let _daemon = bed.start();
    let left = || (0..=files).filter(|n| name(*n).exists()).count();
    // A file that has its private name is neither here nor there.
    let there = || fs::read_dir(&archive).map_or(0, |entries| entries.count());
    until("everything is archived", || left() == 0 && there() > files);
    let mut there: Vec<String> = fs::read_dir(&archive)
        .expect("the archive")
        .map(|entry| fs::read_to_string(entry.expect("a name").path()).expect("a text"))
        .collect();
    there.sort();
    let mut all: Vec<String> = (0..files).map(|n| format!("written as {n}")).collect();
    all.insert(0, "the new one".into());
    assert_eq!(there, all);
    assert_eq!(bed.runs().len(), files + 1);
}
