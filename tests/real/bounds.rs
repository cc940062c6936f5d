//! Bounds: how many at once, how many in a second, and nobody starved.

use crate::bed::{Bed, until};
use crate::kit::{self, job, put, wait_concluded};
use std::collections::BTreeMap;
use std::fs;

/// Two watches, `w` over `in` and `other`, with these keys for both.
fn two(bed: &Bed, daemon: &str, words: &[&str], keys: &str) {
    fs::create_dir(bed.path("other")).expect("a second directory");
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\n{daemon}\n\
         [watch.w]\npath = {:?}\nsettle = \"0\"\n{keys}{}\n[watch.other]\npath = {:?}\nsettle = \"0\"\n{keys}{}",
        bed.path("state"),
        bed.path("in"),
        bed.run_key(words),
        bed.path("other"),
        bed.run_key(words),
    ));
}

#[test]
fn a_rate_delays_and_discards_nothing() {
    const FILES: usize = 60;
    let bed = Bed::new();
    for number in 0..FILES {
        put(&bed, format!("f{number}"), "x");
    }
    let run = kit::shell_key(&bed, "exit 0\n", &["{path}"]);
    kit::configure(&bed, &run, "rate = \"20/s\"\nconcurrency = 16\n");
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, FILES);
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("done".into(), FILES)])
    );
    let mut starts: Vec<i64> = jobs.iter().map(|job| job.started[0].1).collect();
    starts.sort_unstable();
    // In every second no more than what the bound says; a start may be a hundredth of a second early.
    for (first, start) in starts.iter().enumerate() {
        for (more, later) in starts[first..].iter().enumerate() {
            let least = i64::try_from(more).expect("few") * 50_000_000 - 15_000_000;
            assert!(
                later - start >= least,
                "{more} more after {} ns",
                later - start
            );
        }
    }
}

#[test]
fn a_rate_bounds_files_and_not_batches_and_workers_too() {
    for action in ["batch", "worker"] {
        const FILES: usize = 40;
        let bed = Bed::new();
        for number in 0..FILES {
            put(&bed, format!("f{number}"), "x");
        }
        if action == "batch" {
            let run = kit::shell_key(&bed, "exit 0\n", &["{path}"]);
            kit::configure(
                &bed,
                &run,
                "rate = \"20/s\"\nbatch = { max = 10, wait = \"10ms\" }\n",
            );
        } else {
            let worker = crate::workers::python(&bed, &[]);
            kit::configure(&bed, &worker, "rate = \"20/s\"\nwindow = 40\n");
        }
        let _daemon = kit::start(&bed);
        let jobs = wait_concluded(&bed, FILES);
        assert_eq!(
            kit::outcomes(&jobs),
            BTreeMap::from([("done".into(), FILES)])
        );
        let starts = jobs.iter().map(|job| job.started[0].1);
        let span = starts.clone().max().expect("a start") - starts.min().expect("a start");
        // The last batch pays afterwards.
        assert!(
            span >= 1_400_000_000,
            "{action}: all of {FILES} in {span} ns"
        );
    }
}

#[test]
fn the_bound_of_the_daemon_holds_over_all_watches() {
    let bed = Bed::new();
    let go = bed.path("go");
    two(
        &bed,
        "concurrency = 3\n",
        &[&format!("until={}", go.display())],
        "",
    );
    let daemon = kit::start(&bed);
    for number in 0..4 {
        fs::write(bed.inside(format!("f{number}")), "x").expect("a file");
        fs::write(bed.path(&format!("other/f{number}")), "x").expect("a file");
    }
    bed.wait_runs(3);
    until("the other five are ready", || {
        daemon.signal(libc::SIGUSR1);
        daemon
            .log()
            .iter()
            .any(|line| line.contains("state: 3 running, 8 jobs owed"))
    });
    let memory = |line: &String| {
        let (_, text) = line.split_once("state: ")?;
        text.strip_suffix(" MiB of memory")?.parse::<f64>().ok()
    };
    assert!(daemon.log().iter().filter_map(memory).all(|mib| mib > 1.0));
    assert!(daemon.log().iter().any(|line| memory(line).is_some()));
    assert_eq!(bed.runs().len(), 3);
    fs::write(&go, "").expect("a sign");
    bed.wait_runs(8);
}

#[test]
fn each_watch_has_its_own_bound() {
    let bed = Bed::new();
    let go = bed.path("go");
    two(
        &bed,
        "concurrency = 16\n",
        &[&format!("until={}", go.display())],
        "concurrency = 2\n",
    );
    let daemon = kit::start(&bed);
    for number in 0..4 {
        fs::write(bed.inside(format!("f{number}")), "x").expect("a file");
        fs::write(bed.path(&format!("other/f{number}")), "x").expect("a file");
    }
    bed.wait_runs(4);
    until("all are known", || {
        daemon.signal(libc::SIGUSR1);
        daemon
            .log()
            .iter()
            .any(|line| line.contains("state: 4 running, 8 jobs owed"))
    });
    let runs = bed.runs();
    assert_eq!(runs.len(), 4);
    assert_eq!(runs.iter().filter(|run| run.watch == "other").count(), 2);
    fs::write(&go, "").expect("a sign");
    bed.wait_runs(8);
}

#[test]
fn a_burst_in_one_watch_does_not_hold_up_another() {
    const BURST: usize = 4000;
    let bed = Bed::new();
    two(&bed, "concurrency = 2\n", &[], "");
    let daemon = kit::start(&bed);
    for number in 0..BURST {
        fs::write(bed.inside(format!("f{number}")), "x").expect("a file");
    }
    bed.wait_runs(50);
    fs::write(bed.path("other/one"), "x").expect("a file");
    let mut before = 0;
    until("the one was run", || {
        let runs = bed.runs();
        before = runs
            .iter()
            .position(|run| run.watch == "other")
            .unwrap_or(runs.len());
        before < runs.len()
    });
    assert!(
        before < BURST / 2,
        "{before} of the burst were run before it"
    );
    let one = job(&bed, "one");
    assert_eq!(one.started.len(), 1);
    bed.wait_runs_in(kit::SLOW, BURST + 1);
    drop(daemon);
}

#[test]
fn a_burst_through_a_worker_does_not_hold_up_another_watch() {
    const BURST: usize = 4000;
    let bed = Bed::new();
    fs::create_dir(bed.path("other")).expect("a second directory");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nwindow = 16\n{}\n[watch.other]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("in"),
        crate::workers::python(&bed, &["slow=0.005"]),
        bed.path("other"),
        bed.run_key(&[]),
    ));
    let _daemon = kit::start(&bed);
    for number in 0..BURST {
        fs::write(bed.inside(format!("f-{number}")), "x").expect("a file");
    }
    kit::wait_ledger(&bed, "did", 50);
    fs::write(bed.path("other/one"), "x").expect("a file");
    bed.wait_runs(1);
    let did = kit::ledger(&bed)
        .iter()
        .filter(|line| line.starts_with("did "))
        .count();
    assert!(did < BURST, "{did} were done first");
}
