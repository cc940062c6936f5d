//! Workers over the ends of lives: their own, the daemon's, and those of configurations.
//!
//! `SETTLED_WORKER_KILLS` says how often workers are killed at random under load: 20 times if it is not set; 2,000 is the
//! full measure and takes some minutes.

use crate::bed::{Bed, until, until_in};
use crate::kit::{self, SLOW, children_with, jobs, ledger, put, wait_concluded, wait_ledger};
use crate::workers::{by_name, got, python, started, starts};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

#[test]
fn a_drain_waits_for_its_answers_and_repeats_nothing() {
    let bed = Bed::new();
    let go = bed.path("go");
    let mut daemon = started(
        &bed,
        &python(&bed, &[&format!("until={}", go.display())]),
        "window = 3\n",
    );
    for name in ["a", "b", "c", "d", "e"] {
        put(&bed, name, "x");
    }
    wait_ledger(&bed, "got", 3);
    kit::wait_state(&daemon, "2 ready");
    daemon.signal(libc::SIGTERM);
    daemon.wait_log("nothing new is started");
    fs::write(&go, "").expect("a sign");
    assert_eq!(daemon.wait().code(), Some(0));
    wait_ledger(&bed, "end", 1);
    assert_eq!(got(&bed).len(), 3);
    let done = jobs(&bed)
        .iter()
        .filter(|job| job.outcome() == Some("done"))
        .count();
    assert_eq!(done, 3, "what it had is concluded");
    let _daemon = kit::start(&bed);
    let outcomes = by_name(&bed, 5);
    assert!(
        outcomes.values().all(|outcome| outcome == "done"),
        "{outcomes:?}"
    );
    let all = got(&bed);
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(all.iter().all(|got| got.attempt == 1 && !got.recovered));
}

#[test]
fn a_worker_that_does_not_end_at_the_end_of_its_input_is_ended() {
    let bed = Bed::new();
    let mut daemon = started(&bed, &python(&bed, &["linger"]), "kill_after = \"500ms\"\n");
    put(&bed, "a", "x");
    by_name(&bed, 1);
    let pid = got(&bed)[0].pid;
    assert_eq!(daemon.stop(), Some(0));
    assert!(!kit::alive(pid));
}

#[test]
fn a_daemon_that_is_killed_hands_out_again_what_was_unanswered_and_says_so() {
    let bed = Bed::new();
    let go = bed.path("go");
    let mut daemon = started(
        &bed,
        &python(&bed, &[&format!("until={}", go.display())]),
        "window = 3\n",
    );
    for name in ["a", "b", "c", "d", "e"] {
        put(&bed, name, "x");
    }
    wait_ledger(&bed, "got", 3);
    let first = got(&bed)[0].pid;
    daemon.kill();
    fs::write(&go, "").expect("a sign");
    until("the worker has seen the end of its input", || {
        !kit::alive(first)
    });
    let _daemon = kit::start(&bed);
    let outcomes = by_name(&bed, 5);
    assert!(
        outcomes.values().all(|outcome| outcome == "done"),
        "{outcomes:?}"
    );
    let all = got(&bed);
    let had: BTreeSet<_> = all[..3].iter().map(|got| got.name.clone()).collect();
    assert_eq!(all.len(), 8, "{all:?}");
    for got in &all[3..] {
        let again = had.contains(&got.name);
        assert_eq!(
            (got.recovered, got.attempt),
            (again, 1 + u32::from(again)),
            "{got:?}"
        );
    }
}

#[test]
fn a_reload_with_another_command_lets_the_old_worker_finish() {
    let bed = Bed::new();
    let go = bed.path("go");
    let until_go = format!("until={}", go.display());
    let daemon = started(&bed, &python(&bed, &[&until_go, "tag=old"]), "window = 2\n");
    put(&bed, "a", "x");
    wait_ledger(&bed, "got", 1);
    let old = got(&bed)[0].pid;
    kit::configure(&bed, &python(&bed, &["tag=new"]), "window = 2\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    put(&bed, "b", "x");
    wait_ledger(&bed, "did", 1);
    let all = got(&bed);
    assert_eq!(all.len(), 2);
    assert!(all[1].name == "b" && all[1].pid != old, "{all:?}");
    assert!(kit::alive(old), "it has a job");
    fs::write(&go, "").expect("a sign");
    assert_eq!(by_name(&bed, 2).len(), 2);
    until("the old one has ended", || !kit::alive(old));
    assert_eq!(got(&bed).len(), 2, "nothing was repeated");
    let tags: Vec<_> = wait_ledger(&bed, "start", 2)
        .iter()
        .map(|line| line.split(' ').nth(2).expect("a tag").to_owned())
        .collect();
    assert_eq!(tags, ["old", "new"]);
}

#[test]
fn a_reload_that_changes_nothing_of_it_keeps_the_worker() {
    let bed = Bed::new();
    let daemon = started(&bed, &python(&bed, &[]), "window = 2\n");
    put(&bed, "a", "x");
    by_name(&bed, 1);
    kit::configure(&bed, &python(&bed, &[]), "window = 2\nattempts = 7\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    put(&bed, "b", "x");
    by_name(&bed, 2);
    assert_eq!(starts(&bed), 1);
}

/// What the ledger says of workers at work, read from where it was left.
#[derive(Default)]
struct Load {
    read: u64,
    did: usize,
    /// Those that have been given something.
    busy: Vec<i32>,
}

impl Load {
    fn read(&mut self, bed: &Bed) {
        let Ok(mut file) = fs::File::open(bed.path("ledger")) else {
            return;
        };
        file.seek(SeekFrom::Start(self.read)).expect("an offset");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("plain text");
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        for line in text[..whole].lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let pid = words[1].parse().expect("a pid");
            self.did += usize::from(words[0] == "did");
            if words[0] == "got" && !self.busy.contains(&pid) {
                self.busy.push(pid);
            }
        }
    }
}

#[test]
fn killed_at_random_under_load_nothing_is_lost_and_nothing_concluded_twice() {
    const BACKLOG: usize = 200;
    let kills = kit::env_number("SETTLED_WORKER_KILLS", 20);
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = u64::from(seed) | 1;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).expect("31 bits") % below
    };
    let bed = Bed::new();
    let daemon = started(
        &bed,
        // So slow that what they are given lasts until the next kill: else it meets some that have nothing to do.
        &python(&bed, &["slow=0.02"]),
        "workers = 8\nwindow = 16\nattempts = 100000\n",
    );
    let mut load = Load::default();
    let (mut written, mut killed) = (0, 0);
    while killed < kills {
        load.read(&bed);
        // There are always more files than the workers have.
        while written < load.did + BACKLOG {
            put(&bed, format!("f-{written:07}"), "x");
            written += 1;
        }
        // One that is at work, and of this daemon.
        let children = children_with(&daemon, "worker.py");
        load.busy.retain(|pid| children.contains(pid));
        if let Some(pid) = load.busy.get(next(load.busy.len().max(1))).copied() {
            kit::kill(pid);
            load.busy.retain(|busy| *busy != pid);
            killed += 1;
        }
        std::thread::sleep(Duration::from_millis(next(50) as u64));
    }
    let all = wait_concluded(&bed, written);
    assert_eq!(all.len(), written, "a job for each file");
    assert_eq!(
        kit::outcomes(&all),
        BTreeMap::from([("done".into(), written)])
    );
    let names: BTreeSet<_> = all.iter().map(|job| job.name.as_bytes()).collect();
    assert_eq!(names.len(), written);
    // What a worker had when it was killed was given out again, marked; nothing else was.
    let mut repeated = 0;
    let mut given: BTreeMap<OsString, usize> = BTreeMap::new();
    let all: BTreeMap<_, _> = all.into_iter().map(|job| (job.name.clone(), job)).collect();
    for got in got(&bed) {
        let before = given.entry(got.name.clone()).or_default();
        *before += 1;
        let mut ended = all[&got.name].ended.iter();
        let last = ended.rfind(|(attempt, ..)| *attempt < u64::from(got.attempt));
        repeated += usize::from(last.is_some());
        match last.map(|(_, how, _)| how.as_str()) {
            None => assert_eq!((*before, got.recovered), (1, false), "{got:?}"),
            Some("failed together with others") => assert!(got.recovered, "{got:?}"),
            Some(how) => assert_eq!(how, "the worker was lost", "{got:?}"),
        }
    }
    println!("{kills} kills, {written} files, {repeated} given out again");
    assert!(
        repeated >= kills / 2,
        "they were killed at work: {repeated}"
    );
}

#[test]
fn the_daemon_killed_again_and_again_loses_no_job_of_a_worker_and_keeps_the_order_of_keys() {
    const FILES: usize = 400;
    const KEYS: usize = 8;
    let bed = Bed::new();
    for key in 0..KEYS {
        fs::create_dir(bed.inside(format!("k{key}"))).expect("a directory");
        for number in 0..FILES / KEYS {
            put(&bed, format!("k{key}/f{key}-{number:03}"), "x");
        }
    }
    kit::configure(
        &bed,
        &python(&bed, &["slow=0.002"]),
        "recursive = true\nkey = \"{dir1}\"\nserial = true\norder = \"name\"\nworkers = 2\nwindow = 6\n",
    );
    for target in [40, 100, 160, 220, 280] {
        let mut daemon = kit::start(&bed);
        until_in(SLOW, "progress", || {
            let lines = ledger(&bed);
            lines.iter().filter(|line| line.starts_with("did ")).count() >= target
        });
        daemon.kill();
    }
    let _daemon = kit::start(&bed);
    let all = wait_concluded(&bed, FILES);
    assert_eq!(
        kit::outcomes(&all),
        BTreeMap::from([("done".into(), FILES)])
    );
    let mut given: BTreeMap<OsString, usize> = BTreeMap::new();
    for got in got(&bed) {
        let times = given.entry(got.name.clone()).or_default();
        assert_eq!(got.recovered, got.attempt > 1, "{got:?}");
        *times += 1;
    }
    let repeated: usize = given.values().map(|times| times - 1).sum();
    assert!(
        repeated <= 5 * 12,
        "no more than what the workers had: {repeated}"
    );
    // All were there before the first began: as soon as the first of a key is over, the names' order holds.
    let mut firsts: Vec<_> = all
        .iter()
        .map(|job| (job.started[0].1, job.name.clone()))
        .collect();
    firsts.sort();
    for key in 0..KEYS {
        let prefix = format!("f{key}-");
        let of_key = firsts
            .iter()
            .filter(|(_, name)| name.as_bytes().starts_with(prefix.as_bytes()));
        let times: Vec<_> = of_key.collect();
        let ends: BTreeMap<_, _> = all
            .iter()
            .map(|job| (&job.name, job.started.last().expect("an attempt").1))
            .collect();
        for pair in times.windows(2) {
            assert!(ends[&pair[0].1] <= pair[1].0, "{pair:?} at once");
        }
    }
}
