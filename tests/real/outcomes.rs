//! What an attempt's end means: for good, for now, once at most, not for ever.

use crate::bed::{Bed, Daemon, until};
use crate::kit::{self, Job, job, ledger, put, wait_concluded, wait_ledger};
use std::collections::BTreeMap;
use std::fs;

/// Says `begin NAME ATTEMPT PID`, waits where its file's name says so, and exits with what is in the file.
fn obedient(bed: &Bed) -> String {
    kit::shell_key(
        bed,
        "echo \"begin ${2##*/} $SETTLED_ATTEMPT $$\" >> \"$1\"\n\
         case $2 in */wait*) exec sleep 1000;; */kill*) kill -9 $$;; esac\nexit $(cat \"$2\")\n",
        &["{path}"],
    )
}

fn started(bed: &Bed, keys: &str) -> Daemon {
    kit::configure(bed, &obedient(bed), keys);
    kit::start(bed)
}

fn attempts(bed: &Bed, name: &str) -> usize {
    let lines = ledger(bed);
    lines
        .iter()
        .filter(|line| line.split(' ').nth(1) == Some(name))
        .count()
}

#[test]
fn permanent_and_temporary_statuses_mean_what_they_say() {
    let bed = Bed::new();
    let _daemon = started(
        &bed,
        "attempts = 3\npermanent = [3, 4]\ntemporary = [5, 65]\n",
    );
    let cases = [
        ("three", "3", 1),
        ("four", "4", 1),
        ("five", "5", 3),
        ("data", "65", 3),
        ("tempfail", "75", 3),
        ("one", "1", 3),
    ];
    for (name, status, _) in cases {
        put(&bed, name, status);
    }
    let jobs = wait_concluded(&bed, cases.len());
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("dead".into(), cases.len())])
    );
    for (name, status, times) in cases {
        let job = job(&bed, name);
        assert_eq!(attempts(&bed, name), times, "{name}");
        assert_eq!(job.concluded[0].1, format!("exit {status}"));
        assert!(
            job.ended
                .iter()
                .all(|(_, how, _)| *how == format!("exit {status}"))
        );
        assert!(bed.inside(name).exists());
    }
}

const ONCE: &str = "delivery = \"at-most-once\"\nattempts = 3\n";

/// Held, begun once, its file where it was, said in the log; and nothing runs it again.
fn held(bed: &Bed, daemon: &Daemon, name: &str, how: &str) {
    let held: Job = job(bed, name);
    assert_eq!(held.concluded, [("held".into(), how.into())], "{held:?}");
    assert_eq!(
        (held.started.len(), attempts(bed, name)),
        (1, 1),
        "{held:?}"
    );
    assert!(bed.inside(name).exists());
    let said = daemon.log();
    assert!(
        said.iter().any(|line| line.contains(&format!("/in/{name}\"")) && line.contains("held: attempt 1")),
        "{said:?}"
    );
}

#[test]
fn at_most_once_a_killed_daemon_holds_what_ran() {
    let bed = Bed::new();
    let mut daemon = started(&bed, ONCE);
    put(&bed, "wait", "0");
    let lines = wait_ledger(&bed, "begin", 1);
    let pid: i32 = lines[0]
        .split(' ')
        .nth(3)
        .expect("a pid")
        .parse()
        .expect("a pid");
    daemon.kill();
    let mut daemon = kit::start(&bed);
    // Not even held while it may still be done.
    until("it is known to be alive", || {
        daemon.log_count("has outlived the daemon") == 1
    });
    assert_eq!(job(&bed, "wait").outcome(), None);
    kit::kill(pid);
    wait_concluded(&bed, 1);
    held(&bed, &daemon, "wait", "cut short");
    daemon.kill();
    let daemon = kit::start(&bed);
    put(&bed, "after", "0");
    wait_concluded(&bed, 2);
    assert_eq!(attempts(&bed, "wait"), 1);
    assert_eq!(daemon.log_count("held: attempt"), 0, "once is enough");
    // Replaced, it is another version.
    put(&bed, "wait", "1");
    wait_ledger(&bed, "begin", 3);
}

#[test]
fn at_most_once_holds_what_a_signal_or_a_timeout_ended() {
    let bed = Bed::new();
    let daemon = started(&bed, &format!("{ONCE}timeout = \"1s\"\n"));
    put(&bed, "wait", "0");
    put(&bed, "kill", "0");
    wait_concluded(&bed, 2);
    held(&bed, &daemon, "wait", "timed out");
    held(&bed, &daemon, "kill", "signal 9");
}

#[test]
fn at_most_once_holds_what_a_lost_worker_had_and_all_of_it() {
    let bed = Bed::new();
    let go = bed.path("go");
    let worker = crate::workers::python(&bed, &[&format!("until={}", go.display())]);
    kit::configure(&bed, &worker, &format!("{ONCE}window = 2\n"));
    let daemon = kit::start(&bed);
    for name in ["a", "b", "c"] {
        put(&bed, name, "x");
    }
    let lines = wait_ledger(&bed, "got", 2);
    kit::wait_state(&daemon, "1 ready");
    let pid = lines[0]
        .split(' ')
        .nth(1)
        .expect("a pid")
        .parse()
        .expect("a pid");
    fs::write(&go, "").expect("a sign");
    kit::kill(pid);
    let jobs = wait_concluded(&bed, 3);
    // It may have answered between the sign and its end; nothing was handed out twice in any case.
    assert!(jobs.iter().all(|job| job.started.len() == 1), "{jobs:?}");
    let counts = kit::outcomes(&jobs);
    assert_eq!(counts.values().sum::<usize>(), 3);
    assert!(
        !counts.contains_key("owed") && !counts.contains_key("dead"),
        "{counts:?}"
    );
}

#[test]
fn at_most_once_tries_again_what_asks_for_it_and_nothing_else() {
    let bed = Bed::new();
    let _daemon = started(&bed, &format!("{ONCE}temporary = [9]\n"));
    for (name, status) in [
        ("tempfail", "75"),
        ("nine", "9"),
        ("one", "1"),
        ("fine", "0"),
    ] {
        put(&bed, name, status);
    }
    wait_concluded(&bed, 4);
    for (name, times, outcome) in [
        ("tempfail", 3, "dead"),
        ("nine", 3, "dead"),
        ("one", 1, "dead"),
        ("fine", 1, "done"),
    ] {
        assert_eq!(attempts(&bed, name), times, "{name}");
        assert_eq!(job(&bed, name).outcome(), Some(outcome), "{name}");
    }
}

#[test]
fn at_least_once_repeats_what_a_signal_ended() {
    let bed = Bed::new();
    let _daemon = started(&bed, "attempts = 3\n");
    put(&bed, "kill", "0");
    wait_concluded(&bed, 1);
    assert_eq!(attempts(&bed, "kill"), 3);
}

#[test]
fn a_job_that_is_too_old_is_not_tried_again() {
    let bed = Bed::new();
    let daemon = started(&bed, "attempts = 1000\nmax_age = \"1ms\"\n");
    put(&bed, "bad", "1");
    daemon.wait_log("; dead");
    assert_eq!(
        attempts(&bed, "bad"),
        1,
        "its first attempt it has in any case"
    );

    let bed = Bed::new();
    let daemon = started(&bed, "attempts = 3\nmax_age = \"1h\"\n");
    put(&bed, "bad", "1");
    daemon.wait_log("; dead");
    assert_eq!(attempts(&bed, "bad"), 3, "young enough for all of them");
}

#[test]
fn the_age_of_a_job_counts_over_a_crash() {
    let bed = Bed::new();
    let mut daemon = started(&bed, "attempts = 1000000\nmax_age = \"3s\"\n");
    put(&bed, "bad", "1");
    wait_ledger(&bed, "begin", 3);
    daemon.kill();
    let daemon = kit::start(&bed);
    daemon.wait_log("; dead");
    let bad = job(&bed, "bad");
    assert!(
        bad.concluded_ns - bad.settled_ns >= 2_900_000_000,
        "not before its time: {bad:?}"
    );
    let before = bad.started[bad.started.len() - 2].1;
    assert!(
        before - bad.settled_ns < 3_000_000_000,
        "and no attempt more: {bad:?}"
    );
}
