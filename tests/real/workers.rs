//! Workers: real ones, that behave and that do not.

use crate::bed::{Bed, Daemon, bytes, until};
use crate::kit::{self, jobs, ledger, put, unhex, wait_concluded, wait_ledger};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// `worker = [...]` for the tests' worker with these words.
pub fn python(bed: &Bed, words: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/worker.py");
    // The system's own where there is one: what stands before it in PATH may take its time.
    let system = "/usr/bin/python3";
    let here = Path::new(system).exists();
    let mut argv = vec![
        if here { system } else { "python3" }.to_owned(),
        script.to_owned(),
        bed.path("ledger").display().to_string(),
    ];
    argv.extend(words.iter().map(|word| (*word).to_owned()));
    format!("worker = {argv:?}")
}

/// A worker in `sh` that fails as the loop's body says; `$job` and `$path` are what it has.
pub fn shell(bed: &Bed, body: &str) -> String {
    let text = format!(
        "ledger=$1\necho start $$ >> \"$ledger\"\nwhile IFS= read -r line; do\n\
         job=${{line#*\\\"job\\\":\\\"}} job=${{job%%\\\"*}}\npath=${{line#*\\\"path\\\":\\\"}} path=${{path%%\\\"*}}\n\
         echo \"got $$ ${{path##*/}}\" >> \"$ledger\"\n{body}\ndone\n"
    );
    let argv = vec![
        "/bin/sh".to_owned(),
        kit::script(bed, "worker.sh", &text),
        bed.path("ledger").display().to_string(),
    ];
    format!("worker = {argv:?}")
}

pub fn started(bed: &Bed, action: &str, keys: &str) -> Daemon {
    kit::configure(bed, action, keys);
    kit::start(bed)
}

/// What the worker was given: name, attempt, recovered, how many it then had; in that order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub pid: i32,
    pub name: OsString,
    pub attempt: u32,
    pub recovered: bool,
    pub unanswered: usize,
}

pub fn got(bed: &Bed) -> Vec<Got> {
    let lines = ledger(bed);
    let fields = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|f| f[0] == "got")
        .map(|f| Got {
            pid: f[1].parse().expect("a pid"),
            name: unhex(f[2]),
            attempt: f[3].parse().expect("a number"),
            recovered: f[4] == "1",
            unanswered: f[5].parse().expect("a number"),
        })
        .collect()
}

pub fn starts(bed: &Bed) -> usize {
    ledger(bed)
        .iter()
        .filter(|line| line.starts_with("start "))
        .count()
}

/// The outcome of each name.
pub fn by_name(bed: &Bed, count: usize) -> BTreeMap<OsString, String> {
    wait_concluded(bed, count)
        .into_iter()
        .map(|job| (job.name.clone(), job.outcome().unwrap_or("owed").to_owned()))
        .collect()
}

#[test]
fn a_shell_worker_with_a_poisoned_file() {
    const FILES: usize = 100;
    let bed = Bed::new();
    for number in 0..FILES {
        put(&bed, format!("f{number}"), "x");
    }
    put(&bed, "poison", "x");
    let worker = shell(
        &bed,
        "case $path in */poison*) exit 1;; esac\nprintf '{\"job\":\"%s\",\"result\":\"done\"}\\n' \"$job\"",
    );
    let daemon = started(&bed, &worker, "attempts = 2\nwindow = 8\n");
    let outcomes = by_name(&bed, FILES + 1);
    for (name, outcome) in &outcomes {
        let expected = if name == "poison" { "dead" } else { "done" };
        assert_eq!(outcome, expected, "{name:?}");
    }
    let poison = kit::job(&bed, "poison");
    // Whether others were with it is chance, each time; only what it failed with alone is its own.
    let mut own = 0;
    for (_, how, counted) in &poison.ended {
        own += u64::from(how == "the worker was lost");
        let known = how == "the worker was lost" || how == "failed together with others";
        assert!(known && *counted == own, "{poison:?}");
    }
    assert_eq!(own, 1, "before the one that it died of: {poison:?}");
    assert!(daemon.log_count("a worker ended (exit status 1)") >= 2);
    let lost = jobs(&bed)
        .iter()
        .filter(|job| job.name != "poison" && job.ended.iter().any(|(_, _, counted)| *counted > 0))
        .count();
    assert_eq!(lost, 0, "neighbours have lost no attempt");
}

#[test]
fn the_shipped_workers_work() {
    for name in ["worker.py", "worker.sh"] {
        let bed = Bed::new();
        for number in 0..20 {
            put(&bed, format!("f{number}"), &"line\n".repeat(number));
        }
        let runner = if name == "worker.py" {
            "python3"
        } else {
            "/bin/sh"
        };
        let argv = [runner.to_owned(), kit::example(name).display().to_string()];
        let ready = if name == "worker.py" {
            "ready = \"60s\"\n"
        } else {
            ""
        };
        let daemon = started(
            &bed,
            &format!("worker = {argv:?}"),
            &format!("window = 4\n{ready}"),
        );
        let jobs = wait_concluded(&bed, 20);
        assert_eq!(kit::outcomes(&jobs), BTreeMap::from([("done".into(), 20)]));
        until("what it says is logged", || {
            daemon.log_count(": 19 lines") == 1
        });
    }
}

#[test]
fn one_that_dies_hangs_or_talks_nonsense_costs_its_own_job_an_attempt_and_no_other() {
    let bed = Bed::new();
    let bad = [
        "die-a",
        "kill-b",
        "hang-c",
        "stubborn-d",
        "nonsense-e",
        "long-f",
    ];
    let daemon = started(
        &bed,
        &python(&bed, &[]),
        "attempts = 2\nwindow = 1\ntimeout = \"2s\"\nkill_after = \"500ms\"\n",
    );
    // One after another, so that an answer in between ends the back-off of the restarts.
    for (number, name) in bad.iter().enumerate() {
        put(&bed, name, "x");
        put(&bed, format!("f-{number}"), "x");
        wait_concluded(&bed, 2 * number + 2);
    }
    let outcomes = by_name(&bed, bad.len() * 2);
    for (name, outcome) in &outcomes {
        let name = name.to_str().expect("a name");
        let expected = if name.starts_with("f-") {
            "done"
        } else {
            "dead"
        };
        assert_eq!(outcome, expected, "{name}");
    }
    for (name, how) in [
        ("die-a", "the worker was lost"),
        ("kill-b", "the worker was lost"),
        ("hang-c", "timed out"),
        ("stubborn-d", "timed out"),
        ("nonsense-e", "the worker was lost"),
        ("long-f", "the worker was lost"),
    ] {
        let job = kit::job(&bed, name);
        assert_eq!(job.ended, [(1, how.into(), 1)], "{job:?}");
        assert_eq!(job.concluded, [("dead".into(), how.into())], "{job:?}");
    }
    assert!(daemon.log_count("the line is too long") == 2);
    assert!(daemon.log_count("what settled-worker(7) does not know") == 4);
    for job in jobs(&bed)
        .iter()
        .filter(|job| job.outcome() == Some("done"))
    {
        assert_eq!(job.started.len(), 1, "{job:?}");
    }
}

#[test]
fn one_that_answers_twice_or_for_what_it_does_not_have_is_not_believed() {
    let bed = Bed::new();
    for name in ["twice-a", "foreign-b", "c", "twice-d"] {
        put(&bed, name, "x");
    }
    let daemon = started(&bed, &python(&bed, &[]), "window = 2\n");
    let outcomes = by_name(&bed, 4);
    assert!(
        outcomes.values().all(|outcome| outcome == "done"),
        "{outcomes:?}"
    );
    until("each of its words is warned of", || {
        daemon.log_count("which it does not have; ignored") == 7
    });
    assert_eq!(starts(&bed), 1, "it was not ended for that");
    put(&bed, "after", "x");
    assert_eq!(by_name(&bed, 5).len(), 5);
}

#[test]
fn retry_and_dead_are_its_own_words() {
    let bed = Bed::new();
    for name in ["retry-a", "dead-b", "later-c"] {
        put(&bed, name, "x");
    }
    kit::configure(
        &bed,
        &python(&bed, &[]),
        "backoff = { first = \"1h\", max = \"2h\" }\nattempts = 3\n",
    );
    let text = fs::read_to_string(bed.path("settled.toml")).expect("the configuration");
    let short = "backoff = { first = \"10ms\", max = \"10ms\" }\n";
    fs::write(bed.path("settled.toml"), text.replacen(short, "", 1)).expect("a configuration");
    let _daemon = kit::start(&bed);
    let outcomes = by_name(&bed, 3);
    assert_eq!(outcomes[&OsString::from("retry-a")], "done");
    assert_eq!(outcomes[&OsString::from("dead-b")], "dead");
    assert_eq!(outcomes[&OsString::from("later-c")], "done");
    let retried = kit::job(&bed, "retry-a");
    assert_eq!(
        retried.ended,
        [(1, "the worker asked for a retry".into(), 1)]
    );
    let later = kit::job(&bed, "later-c");
    let waited = later.started[1].1 - later.started[0].1;
    assert!(
        waited >= 1_990_000_000,
        "its own wait was kept: {waited} ns"
    );
    let dead = kit::job(&bed, "dead-b");
    assert_eq!(dead.started.len(), 1);
    assert_eq!(dead.output, "no good", "its words are kept");
}

#[test]
fn nothing_is_fed_to_one_that_is_not_ready() {
    let bed = Bed::new();
    let sign = bed.path("sign");
    let daemon = started(
        &bed,
        &python(&bed, &[&format!("ready={}", sign.display())]),
        "ready = \"1h\"\nwindow = 4\n",
    );
    put(&bed, "a", "x");
    wait_ledger(&bed, "start", 1);
    kit::wait_state(&daemon, "state: watching, 0 running, 1 ready");
    assert_eq!(got(&bed), []);
    fs::write(&sign, "").expect("a sign");
    assert_eq!(by_name(&bed, 1).len(), 1);
}

#[test]
fn one_that_is_never_ready_is_ended_and_costs_no_attempt() {
    let bed = Bed::new();
    let sign = bed.path("sign");
    let daemon = started(
        &bed,
        &python(&bed, &[&format!("ready={}", sign.display())]),
        "ready = \"1s\"\nattempts = 1\n",
    );
    put(&bed, "a", "x");
    let lines = wait_ledger(&bed, "start", 2);
    let first: i32 = lines[0]
        .split(' ')
        .nth(1)
        .expect("a pid")
        .parse()
        .expect("a pid");
    assert!(
        !kit::alive(first),
        "the first was ended before the second began"
    );
    assert_eq!(got(&bed), []);
    assert!(daemon.log_count("a worker ended (timed out)") >= 1);
    fs::write(&sign, "").expect("a sign");
    let jobs = wait_concluded(&bed, 1);
    assert_eq!((jobs[0].outcome(), jobs[0].ended.len()), (Some("done"), 0));
}

#[test]
fn one_that_cannot_stay_is_started_again_ever_more_rarely_and_the_rest_goes_on() {
    let bed = Bed::new();
    fs::create_dir(bed.path("other")).expect("a second directory");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nattempts = 1\n{}\n[watch.other]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("in"),
        python(&bed, &["never", "ready"]) + "\nready = \"60s\"",
        bed.path("other"),
        bed.run_key(&[]),
    ));
    let daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_ledger(&bed, "start", 3);
    fs::write(bed.path("other/o"), "x").expect("a file");
    bed.wait_runs(1);
    until("each wait is twice the one before", || {
        ["0.5 s", "1.0 s", "2.0 s"].iter().all(|wait| {
            daemon.log_count(&format!("the next is started in {wait} at the earliest")) == 1
        })
    });
    let owed = kit::job(&bed, "a");
    assert_eq!((owed.outcome(), owed.started.len()), (None, 0), "{owed:?}");
}

#[test]
fn one_that_cannot_be_executed_costs_no_attempt_and_is_tried_again() {
    let bed = Bed::new();
    let program = bed.path("later.sh");
    let daemon = started(
        &bed,
        &format!("worker = [{:?}, {:?}]", program, bed.path("ledger")),
        "attempts = 1\n",
    );
    put(&bed, "a", "x");
    daemon.wait_log("a worker ended (the program cannot be executed: No such file or directory");
    let owed = kit::job(&bed, "a");
    assert_eq!(owed.outcome(), None);
    // In one step, and executable: nothing is written to it when it is found.
    let text = "#!/bin/sh\nwhile read -r line; do job=${line#*\\\"job\\\":\\\"} job=${job%%\\\"*}\n\
                printf '{\"job\":\"%s\",\"result\":\"done\"}\\n' \"$job\"; done\n";
    let new = kit::script(&bed, "new.sh", text);
    let status = std::process::Command::new("chmod")
        .args(["+x", &new])
        .status();
    assert!(status.expect("chmod").success());
    fs::rename(new, program).expect("a rename");
    let jobs = wait_concluded(&bed, 1);
    assert_eq!(jobs[0].outcome(), Some("done"), "{jobs:?}");
}

#[test]
fn the_window_is_kept_and_used() {
    let bed = Bed::new();
    let go = bed.path("go");
    let daemon = started(
        &bed,
        &python(&bed, &[&format!("until={}", go.display())]),
        "window = 5\n",
    );
    for number in 0..12 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "got", 5);
    kit::wait_state(&daemon, "7 ready");
    assert_eq!(got(&bed).len(), 5);
    fs::write(&go, "").expect("a sign");
    assert_eq!(by_name(&bed, 12).len(), 12);
    assert!(got(&bed).iter().all(|got| got.unanswered <= 5));
}

#[test]
fn several_workers_share_the_work() {
    let bed = Bed::new();
    let go = bed.path("go");
    let daemon = started(
        &bed,
        &python(&bed, &[&format!("until={}", go.display())]),
        "workers = 3\nwindow = 2\n",
    );
    for number in 0..9 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "got", 6);
    kit::wait_state(&daemon, "3 ready");
    let all = got(&bed);
    assert_eq!(all.len(), 6);
    let mut each: BTreeMap<i32, usize> = BTreeMap::new();
    all.iter()
        .for_each(|got| *each.entry(got.pid).or_default() += 1);
    assert_eq!(each.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    fs::write(&go, "").expect("a sign");
    by_name(&bed, 9);
    assert_eq!(starts(&bed), 3);
}

#[test]
fn names_arrive_in_their_bytes() {
    let bed = Bed::new();
    let names: BTreeSet<OsString> = [
        &b"plain"[..],
        b"caf\xe9.txt",
        b"\xff\xfe",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"line\nfeed\t\x01\x7f",
        b"quote\"back\\slash\",\"job\":\"1",
        "ä€😀\u{2028}".as_bytes(),
    ]
    .iter()
    .map(|name| bytes(name))
    .collect();
    for name in &names {
        put(&bed, name, "x");
    }
    let _daemon = started(&bed, &python(&bed, &[]), "window = 3\nattempts = 1\n");
    let outcomes = by_name(&bed, names.len());
    assert!(
        outcomes.values().all(|outcome| outcome == "done"),
        "{outcomes:?}"
    );
    let given: BTreeSet<OsString> = got(&bed).into_iter().map(|got| got.name).collect();
    assert_eq!(given, names);
}

#[test]
fn a_batch_is_one_line() {
    let bed = Bed::new();
    for number in 0..8 {
        put(&bed, format!("f{number}"), "x");
    }
    put(&bed, bytes(b"\xff"), "x");
    let _daemon = started(
        &bed,
        &python(&bed, &[]),
        "window = 9\nbatch = { max = 9, wait = \"1s\" }\n",
    );
    let outcomes = by_name(&bed, 9);
    assert!(
        outcomes.values().all(|outcome| outcome == "done"),
        "{outcomes:?}"
    );
    let batches: usize = ledger(&bed)
        .iter()
        .filter_map(|line| line.strip_prefix("batch "))
        .map(|rest| {
            rest.split(' ')
                .nth(1)
                .expect("a number")
                .parse::<usize>()
                .expect("a number")
        })
        .sum();
    assert_eq!(batches, 9);
    let lines = ledger(&bed)
        .iter()
        .filter(|line| line.starts_with("batch "))
        .count();
    assert!(
        lines < 9,
        "{lines} lines for nine files that were there together"
    );
}

#[test]
fn jobs_of_one_that_died_with_several_are_handed_out_alone_and_say_so() {
    let bed = Bed::new();
    let go = bed.path("go");
    let daemon = started(
        &bed,
        &python(&bed, &[&format!("until={}", go.display())]),
        "window = 4\nattempts = 1\n",
    );
    for name in ["a", "b", "c", "d"] {
        put(&bed, name, "x");
    }
    wait_ledger(&bed, "got", 4);
    let pid = got(&bed)[0].pid;
    kit::kill(pid);
    daemon.wait_log("with 4 jobs unanswered");
    let lines = wait_ledger(&bed, "got", 5);
    assert_eq!(lines.len(), 5);
    put(&bed, "e", "x");
    kit::wait_state(&daemon, "4 ready");
    assert_eq!(
        got(&bed).len(),
        5,
        "nothing else is in the window of one that is alone"
    );
    fs::write(&go, "").expect("a sign");
    let outcomes = by_name(&bed, 5);
    assert!(
        outcomes.values().all(|outcome| outcome == "done"),
        "{outcomes:?}"
    );
    for got in &got(&bed)[4..] {
        let again = got.name != "e";
        assert_eq!(
            (got.recovered, got.attempt),
            (again, 1 + u32::from(again)),
            "{got:?}"
        );
        assert!(!again || got.unanswered == 1, "{got:?}");
    }
    for job in jobs(&bed) {
        assert!(
            job.ended.iter().all(|(_, _, counted)| *counted == 0),
            "{job:?}"
        );
    }
}

#[test]
fn what_is_replaced_before_it_is_handed_over_is_handed_over_as_it_is_then() {
    let bed = Bed::new();
    let go = bed.path("go");
    let daemon = started(
        &bed,
        &python(&bed, &[&format!("until={}", go.display())]),
        "window = 1\n",
    );
    put(&bed, "a", "x");
    wait_ledger(&bed, "got", 1);
    put(&bed, "b", "old");
    put(&bed, "c", "old");
    kit::wait_state(&daemon, "2 ready");
    put(&bed, "b", "newer");
    fs::remove_file(bed.inside("c")).expect("a file");
    fs::write(&go, "").expect("a sign");
    let all = wait_concluded(&bed, 4);
    let of = |name: &str| -> Vec<_> {
        let named = all.iter().filter(|job| job.name == name);
        named
            .map(|job| job.outcome().unwrap_or("owed").to_owned())
            .collect()
    };
    assert_eq!(of("b"), ["superseded", "done"]);
    assert_eq!(of("c"), ["gone"]);
    let names: Vec<_> = got(&bed).into_iter().map(|got| got.name).collect();
    assert_eq!(names, ["a", "b"]);
}
