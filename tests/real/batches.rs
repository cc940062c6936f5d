//! Batches: several files for one command, as arguments or on standard input, and one bad file among them.

use crate::bed::{Bed, bytes, until};
use crate::kit::{self, Job, SLOW, jobs, ledger, put, wait_concluded, wait_ledger};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// One line with how many files there are and all arguments.
const TELL: &str = r#"ledger=$1; shift
line="batch $SETTLED_BATCH"
for arg; do line="$line [$arg]"; done
printf '%s\n' "$line" >> "$ledger"
"#;

/// A line for the batch and one for each file; fails if one is called `poison*`. The rest as `sh` text.
fn each_file(and: &str) -> String {
    format!(
        "ledger=$1; shift\nlines=\"batch $# $SETTLED_ATTEMPT ${{SETTLED_RECOVERED:-0}}\"\nbad=0\n\
         for path; do name=${{path##*/}}; lines=\"$lines\nfile $name\"; case $name in poison*) bad=1;; esac; done\n\
         printf '%s\\n' \"$lines\" >> \"$ledger\"\n{and}\n"
    )
}

fn batches_of(bed: &Bed) -> Vec<usize> {
    let lines = ledger(bed);
    let batches = lines.iter().filter(|line| line.starts_with("batch "));
    batches
        .map(|line| {
            line.split(' ')
                .nth(1)
                .expect("a number")
                .parse()
                .expect("a number")
        })
        .collect()
}

#[test]
fn arguments_of_a_file_are_repeated_and_others_are_not() {
    let bed = Bed::new();
    for name in ["a b.csv", "-rf", "c.csv"] {
        put(&bed, name, "x");
    }
    let run = kit::shell_key(
        &bed,
        TELL,
        &["--watch={watch}", "--in={name}", "{{}}", "{stem}"],
    );
    kit::configure(
        &bed,
        &run,
        "order = \"name\"\nbatch = { max = 3, wait = \"1h\" }",
    );
    let _daemon = kit::start(&bed);
    wait_concluded(&bed, 3);
    assert_eq!(
        ledger(&bed),
        ["batch 3 [--watch=w] [--in=-rf] [--in=a b.csv] [--in=c.csv] [{}] [-rf] [a b] [c]"]
    );
}

#[test]
fn a_batch_has_no_more_than_max_and_waits_for_the_rest() {
    let bed = Bed::new();
    let run = kit::shell_key(&bed, TELL, &["{name}"]);
    kit::configure(&bed, &run, "batch = { max = 4, wait = \"1h\" }");
    let daemon = kit::start(&bed);
    for number in 0..10 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_concluded(&bed, 8);
    kit::wait_state(&daemon, "state: watching, 0 running, 2 ready");
    assert_eq!(batches_of(&bed), [4, 4]);
    for number in 10..12 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_concluded(&bed, 12);
    assert_eq!(batches_of(&bed), [4, 4, 4]);
}

#[test]
fn a_batch_that_is_not_full_goes_when_its_first_has_waited() {
    let bed = Bed::new();
    let run = kit::shell_key(&bed, TELL, &["{name}"]);
    kit::configure(&bed, &run, "batch = { max = 100, wait = \"1s\" }");
    let _daemon = kit::start(&bed);
    put(&bed, "one", "x");
    let jobs = wait_concluded(&bed, 1);
    let waited = jobs[0].started[0].1 - jobs[0].settled_ns;
    assert!(waited >= 990_000_000, "it waited {waited} ns");
    // A batch of one is one.
    assert_eq!(ledger(&bed), ["batch 1 [one]"]);
}

#[test]
fn paths_go_to_standard_input_each_ended_by_nul() {
    let bed = Bed::new();
    let names: Vec<OsString> = vec![
        "plain".into(),
        "two  words".into(),
        "line\nfeed".into(),
        "-n".into(),
        "quote\"'\\".into(),
        bytes(b"caf\xe9"),
        bytes(b"\xff\xfe"),
    ];
    for name in &names {
        put(&bed, name, "x");
    }
    let run = kit::shell_key(
        &bed,
        "cat > \"$1.$SETTLED_BATCH\"; ls -l /proc/self/fd > \"$1.fds\"\n",
        &[],
    );
    kit::configure(
        &bed,
        &run,
        "batch = { max = 7, wait = \"1h\", stdin = true }",
    );
    let _daemon = kit::start(&bed);
    wait_concluded(&bed, names.len());
    let given = fs::read(bed.path("ledger.7")).expect("what it was given");
    assert_eq!(given.last(), Some(&0), "the last is ended, too");
    let got: BTreeSet<OsString> = given[..given.len() - 1]
        .split(|byte| *byte == 0)
        .map(|path| OsString::from_vec(path.to_vec()))
        .collect();
    let expected = names
        .iter()
        .map(|name| bed.inside(name).into_os_string())
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn more_paths_than_a_pipe_holds_reach_standard_input() {
    const FILES: usize = 2000;
    let bed = Bed::new();
    let long = "x".repeat(100);
    for number in 0..FILES {
        fs::write(bed.inside(format!("{long}{number:04}")), "x").expect("a file");
    }
    let run = kit::shell_key(&bed, "tr '\\0' '\\n' >> \"$1\"\n", &[]);
    kit::configure(
        &bed,
        &run,
        "concurrency = 1\nbatch = { max = 2000, wait = \"1h\", stdin = true }",
    );
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, FILES);
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("done".into(), FILES)])
    );
    let lines = ledger(&bed);
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), FILES);
    assert_eq!(lines.len(), FILES);
}

/// How often each file was given to a command.
fn times(bed: &Bed) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for line in ledger(bed) {
        if let Some(name) = line.strip_prefix("file ") {
            *times.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    times
}

#[test]
fn with_split_one_poisoned_file_among_300_dies_alone() {
    const FILES: usize = 300;
    let bed = Bed::new();
    for number in 0..FILES {
        put(&bed, format!("f{number:03}"), "x");
    }
    put(&bed, "poison", "x");
    let run = kit::shell_key(&bed, &each_file("exit $bad"), &["{path}"]);
    kit::configure(
        &bed,
        &run,
        "attempts = 2\nconcurrency = 4\nbatch = { max = 100, wait = \"100ms\", split = true }",
    );
    let daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, FILES + 1);
    for job in &jobs {
        let expected = if job.name == "poison" { "dead" } else { "done" };
        assert_eq!(job.outcome(), Some(expected), "{job:?}");
        let counted = job.ended.last().map_or(0, |(_, _, counted)| *counted);
        let poison = u64::from(job.name == "poison");
        assert_eq!(counted, poison, "neighbours have lost no attempt: {job:?}");
    }
    let times = times(&bed);
    // Once in its batch, then alone, `attempts` times.
    assert_eq!(times["poison"], 3);
    let twice = times.values().filter(|times| **times == 2).count();
    assert!((1..100).contains(&twice), "{twice} shared its batch");
    assert!(
        times
            .iter()
            .all(|(name, times)| *times <= 2 || name == "poison")
    );
    let batches = batches_of(&bed);
    assert_eq!(
        batches.iter().filter(|files| **files > 1).sum::<usize>(),
        FILES + 1 - alone(&jobs, &batches)
    );
    assert_eq!(daemon.log_count("; dead"), 1);
}

/// Files that never were in a batch with others.
fn alone(jobs: &[Job], batches: &[usize]) -> usize {
    let ones = batches.iter().filter(|files| **files == 1).count();
    let again: usize = jobs.iter().map(|job| job.started.len() - 1).sum();
    ones - again
}

#[test]
fn without_split_an_attempt_counts_for_each_of_the_batch() {
    let bed = Bed::new();
    for name in ["a", "b", "c", "d", "poison"] {
        put(&bed, name, "x");
    }
    let run = kit::shell_key(&bed, &each_file("exit $bad"), &["{path}"]);
    kit::configure(
        &bed,
        &run,
        "attempts = 2\nbatch = { max = 5, wait = \"1s\" }",
    );
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, 5);
    for job in &jobs {
        assert_eq!(job.outcome(), Some("dead"), "{job:?}");
        assert_eq!(job.ended, [(1, "exit 1".into(), 1)], "{job:?}");
        assert_eq!(job.started.len(), 2);
    }
}

#[test]
fn a_batch_that_asks_for_another_try_is_not_split() {
    let bed = Bed::new();
    for name in ["a", "b", "c"] {
        put(&bed, name, "x");
    }
    let run = kit::shell_key(
        &bed,
        &each_file("[ $SETTLED_ATTEMPT = 1 ] && exit 75; exit 0"),
        &["{path}"],
    );
    kit::configure(
        &bed,
        &run,
        "batch = { max = 3, wait = \"500ms\", split = true }",
    );
    let _daemon = kit::start(&bed);
    for job in wait_concluded(&bed, 3) {
        assert_eq!(job.outcome(), Some("done"));
        assert_eq!(job.ended, [(1, "exit 75".into(), 1)], "{job:?}");
    }
    assert_eq!(batches_of(&bed), [3, 3]);
}

#[test]
fn a_batch_that_hangs_is_split_too() {
    let bed = Bed::new();
    for name in ["a", "b", "poison"] {
        put(&bed, name, "x");
    }
    let run = kit::shell_key(
        &bed,
        &each_file("[ $bad = 0 ] || exec sleep 1000"),
        &["{path}"],
    );
    kit::configure(
        &bed,
        &run,
        "attempts = 1\ntimeout = \"2s\"\nkill_after = \"1s\"\nbatch = { max = 3, wait = \"1h\", split = true }",
    );
    let daemon = kit::start(&bed);
    // Alone they have no batch to wait for.
    let mut jobs = Vec::new();
    until("all are concluded", || {
        jobs = kit::jobs(&bed);
        jobs.len() == 3 && jobs.iter().all(|job| job.outcome().is_some())
    });
    for job in jobs {
        let expected = if job.name == "poison" { "dead" } else { "done" };
        assert_eq!(job.outcome(), Some(expected), "{job:?}");
    }
    // The line in the log comes after the record.
    daemon.wait_log("timed out");
    assert_eq!(daemon.log_count("timed out"), 1);
}

#[test]
fn a_batch_cut_short_is_repeated_and_says_so() {
    let bed = Bed::new();
    for name in ["a", "b", "c"] {
        put(&bed, name, "x");
    }
    let go = bed.path("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let run = kit::shell_key(&bed, &each_file(&wait), &["{path}"]);
    kit::configure(&bed, &run, "batch = { max = 3, wait = \"500ms\" }");
    let mut daemon = kit::start(&bed);
    wait_ledger(&bed, "batch", 1);
    daemon.kill();
    fs::write(&go, "").expect("a sign");
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, 3);
    assert_eq!(kit::outcomes(&jobs), BTreeMap::from([("done".into(), 3)]));
    assert!(jobs.iter().all(|job| job.started.len() == 2));
    let lines = ledger(&bed);
    let batches: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("batch"))
        .collect();
    assert_eq!(batches[0], "batch 3 1 0");
    assert!(
        batches[1..].iter().all(|line| line.ends_with("2 1")),
        "{batches:?}"
    );
}

#[test]
fn a_serial_batch_has_jobs_of_one_key_in_their_order() {
    let bed = Bed::new();
    for key in ["k1", "k2", "k3"] {
        fs::create_dir(bed.inside(key)).expect("a directory");
        for number in [3, 1, 2, 0] {
            put(&bed, format!("{key}/{number}"), "x");
        }
    }
    let run = kit::shell_key(&bed, TELL, &["{key}", "{rel}"]);
    kit::configure(
        &bed,
        &run,
        "recursive = true\nkey = \"{dir1}\"\nserial = true\norder = \"name\"\nbatch = { max = 4, wait = \"2s\" }",
    );
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, 12);
    assert_eq!(kit::outcomes(&jobs), BTreeMap::from([("done".into(), 12)]));
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in ledger(&bed) {
        let args: Vec<&str> = line.split(' ').skip(2).collect();
        let key = args[0].trim_matches(['[', ']']);
        for rel in &args[1..] {
            let rel = rel.trim_matches(['[', ']']);
            assert!(rel.starts_with(key), "{line}");
            given.entry(key.into()).or_default().push(rel.into());
        }
    }
    for (key, rels) in given {
        let sorted: Vec<_> = (0..4).map(|number| format!("{key}/{number}")).collect();
        assert_eq!(rels, sorted);
    }
}

#[test]
fn a_batch_of_many_long_paths_is_cut_where_the_kernel_would_refuse_it() {
    const FILES: usize = 3000;
    let bed = Bed::new();
    let deep = ["d".repeat(200), "e".repeat(200)].join("/");
    fs::create_dir_all(bed.inside(&deep)).expect("directories");
    for number in 0..FILES {
        fs::write(bed.inside(format!("{deep}/{number}")), "x").expect("a file");
    }
    let run = kit::shell_key(
        &bed,
        "ledger=$1; shift; echo batch $# >> \"$ledger\"\n",
        &["{path}"; 9],
    );
    kit::configure(
        &bed,
        &run,
        "attempts = 1\nrecursive = true\nbatch = { max = 10000, wait = \"2s\" }",
    );
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, FILES);
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("done".into(), FILES)])
    );
    assert_eq!(batches_of(&bed).iter().sum::<usize>(), FILES * 9);
    assert!(jobs.iter().all(|job| job.started.len() == 1));
}

#[test]
fn every_file_of_many_small_batches_is_done_once() {
    const FILES: usize = 3000;
    let bed = Bed::new();
    let run = kit::shell_key(&bed, &each_file(""), &["{path}"]);
    kit::configure(
        &bed,
        &run,
        "concurrency = 3\nbatch = { max = 50, wait = \"20ms\" }",
    );
    let _daemon = kit::start(&bed);
    for number in 0..FILES {
        fs::write(bed.inside(format!("f{number}")), "x").expect("a file");
    }
    let deadline = SLOW.max(Duration::from_secs(1));
    crate::bed::until_in(deadline, "every file was given", || {
        times(&bed).len() == FILES
    });
    assert!(times(&bed).values().all(|times| *times == 1));
    let concluded = wait_concluded(&bed, FILES);
    assert_eq!(jobs(&bed).len(), concluded.len());
    assert!(
        batches_of(&bed)
            .iter()
            .all(|files| (1..=50).contains(files))
    );
}

#[test]
fn the_daemon_killed_again_and_again_loses_no_file_of_a_batch() {
    const FILES: usize = 600;
    let bed = Bed::new();
    for number in 0..FILES {
        put(&bed, format!("f{number:03}"), "x");
    }
    put(&bed, "poison", "x");
    let run = kit::shell_key(&bed, &each_file("exit $bad"), &["{path}"]);
    kit::configure(
        &bed,
        &run,
        "attempts = 2\nconcurrency = 2\nbatch = { max = 7, wait = \"10ms\", split = true }",
    );
    for target in [50, 150, 250, 350, 450] {
        let mut daemon = kit::start(&bed);
        crate::bed::until_in(SLOW, "progress", || times(&bed).len() >= target);
        daemon.kill();
    }
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, FILES + 1);
    for job in &jobs {
        let expected = if job.name == "poison" { "dead" } else { "done" };
        assert_eq!(job.outcome(), Some(expected), "{job:?}");
        let counted = job.ended.iter().filter(|(_, _, counted)| *counted > 0);
        assert_eq!(
            counted.count(),
            usize::from(job.name == "poison"),
            "{job:?}"
        );
    }
    let repeated = times(&bed).values().filter(|times| **times > 1).count();
    assert!(repeated <= 5 * 14 + 7, "{repeated} were given out again");
}
