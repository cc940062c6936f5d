//! Order and keys: one at a time, or a few, in order, over restarts; and what a dead job holds up.

use crate::bed::{Bed, Daemon, until};
use crate::kit::{self, job, ledger, put, wait_concluded, wait_ledger};
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

/// Says `begin NAME ATTEMPT RECOVERED KEY` and `end NAME KEY`; `gate*` waits for a sign in between, and a file whose text
/// is a number exits with that.
fn gated(bed: &Bed) -> String {
    let text = format!(
        "name=${{2##*/}}\necho \"begin $name $SETTLED_ATTEMPT ${{SETTLED_RECOVERED:-0}} $SETTLED_KEY\" >> \"$1\"\n\
         case $name in gate*) while [ ! -e {} ]; do sleep 0.02; done;; esac\n\
         echo \"end $name $SETTLED_KEY\" >> \"$1\"\nexit $(cat \"$2\")\n",
        bed.path("go").display()
    );
    kit::shell_key(bed, &text, &["{path}"])
}

fn keyed(bed: &Bed, keys: &str) -> Daemon {
    for key in ["k1", "k2", "k3"] {
        fs::create_dir(bed.inside(key)).expect("a directory");
    }
    let keys = format!("recursive = true\nkey = \"{{dir1}}\"\n{keys}");
    kit::configure(bed, &gated(bed), &keys);
    kit::start(bed)
}

/// A file that was last changed so many seconds after a moment long ago.
fn put_at(bed: &Bed, name: &str, seconds: u64) {
    let outside = bed.path("outside");
    fs::write(&outside, "0").expect("a file");
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    let file = File::options()
        .write(true)
        .open(&outside)
        .expect("the file");
    file.set_modified(at).expect("its time");
    drop(file);
    fs::rename(outside, bed.inside(name)).expect("a rename");
}

fn begun(bed: &Bed, key: &str) -> Vec<String> {
    let lines = ledger(bed);
    let of_key = lines
        .iter()
        .filter(|line| line.starts_with("begin ") && line.ends_with(key));
    of_key
        .map(|line| line.split(' ').nth(1).expect("a name").to_owned())
        .collect()
}

fn in_order_over_a_crash(order: &str, expected: [&str; 3]) {
    let bed = Bed::new();
    let mut daemon = keyed(&bed, &format!("serial = true\norder = {order:?}\n"));
    for key in ["k1", "k2"] {
        put_at(&bed, &format!("{key}/gate"), 0);
    }
    wait_ledger(&bed, "begin", 2);
    let mut settled = 2;
    for (name, seconds) in [("f3", 1), ("f1", 3), ("f2", 2)] {
        for key in ["k1", "k2"] {
            put_at(&bed, &format!("{key}/{name}"), seconds);
            settled += 1;
            until("it has settled", || {
                daemon.log_count("\" settled") == settled
            });
        }
    }
    daemon.kill();
    let daemon = kit::start(&bed);
    until("the two of the earlier life are known", || {
        daemon.log_count("has outlived the daemon") == 2
    });
    // Another key goes on while theirs are held.
    put_at(&bed, "k3/fence", 0);
    wait_ledger(&bed, "end", 1);
    assert_eq!((begun(&bed, "k1").len(), begun(&bed, "k2").len()), (1, 1));
    fs::write(bed.path("go"), "").expect("a sign");
    wait_concluded(&bed, 9);
    for key in ["k1", "k2"] {
        let mut all = vec!["gate", "gate"];
        all.extend(expected);
        assert_eq!(begun(&bed, key), all, "{order}, {key}");
    }
    // Never two of a key at once: but for the one that was killed, each ends before the next begins.
    let mut open = std::collections::BTreeMap::new();
    for line in ledger(&bed) {
        let words: Vec<&str> = line.split(' ').collect();
        let key = (*words.last().expect("a key")).to_owned();
        if words[0] == "end" {
            open.remove(&key);
        } else if let Some(other) = open.insert(key, words[1].to_owned()) {
            panic!("{line:?} while {other} ran");
        }
    }
}

#[test]
fn in_the_order_of_names_over_a_crash() {
    in_order_over_a_crash("name", ["f1", "f2", "f3"]);
}

#[test]
fn in_the_order_of_times_over_a_crash() {
    in_order_over_a_crash("mtime", ["f3", "f2", "f1"]);
}

#[test]
fn in_the_order_of_arrival_over_a_crash() {
    in_order_over_a_crash("arrival", ["f3", "f1", "f2"]);
}

#[test]
fn what_the_first_scan_finds_comes_behind_what_the_journal_has() {
    let bed = Bed::new();
    let mut daemon = keyed(&bed, "serial = true\nconcurrency = 1\n");
    put_at(&bed, "k2/gate", 0);
    wait_ledger(&bed, "begin", 1);
    // Owed, and not begun, for the other one has the only place.
    put_at(&bed, "k1/old", 1);
    kit::wait_state(&daemon, "1 ready");
    daemon.kill();
    put_at(&bed, "k1/new", 0);
    // So that the scan is not over when it has found the file.
    for number in 0..1000 {
        fs::create_dir(bed.inside(format!("k3/{number}"))).expect("a directory");
    }
    fs::write(bed.path("go"), "").expect("a sign");
    let _daemon = kit::start(&bed);
    wait_concluded(&bed, 3);
    assert_eq!(begun(&bed, "k1"), ["old", "new"]);
}

#[test]
fn a_few_of_a_key_at_once_and_no_more() {
    let bed = Bed::new();
    let daemon = keyed(&bed, "key_concurrency = 2\n");
    for number in 0..5 {
        put(&bed, format!("k1/gate{number}"), "0");
    }
    put(&bed, "k2/gate", "0");
    wait_ledger(&bed, "begin", 3);
    kit::wait_state(&daemon, "state: watching, 3 running, 3 ready");
    assert_eq!((begun(&bed, "k1").len(), begun(&bed, "k2").len()), (2, 1));
    fs::write(bed.path("go"), "").expect("a sign");
    wait_concluded(&bed, 6);
}

#[test]
fn a_job_that_waits_for_its_next_attempt_keeps_its_key() {
    let bed = Bed::new();
    for key in ["k1", "k2"] {
        fs::create_dir(bed.inside(key)).expect("a directory");
    }
    let run = kit::shell_key(
        &bed,
        "echo \"begin ${2##*/} $SETTLED_ATTEMPT\" >> \"$1\"; case $2 in */bad) [ $SETTLED_ATTEMPT = 3 ] || exit 1;; esac\n",
        &["{path}"],
    );
    let backoff = "backoff = { first = \"10ms\", max = \"10ms\" }\n";
    kit::configure(
        &bed,
        &run,
        "recursive = true\nkey = \"{dir1}\"\nserial = true\n",
    );
    let text = fs::read_to_string(bed.path("settled.toml")).expect("the configuration");
    let slower = text.replacen(
        backoff,
        "backoff = { first = \"500ms\", max = \"500ms\" }\n",
        1,
    );
    fs::write(bed.path("settled.toml"), slower).expect("a configuration");
    let daemon = kit::start(&bed);
    put(&bed, "k1/bad", "x");
    daemon.wait_log("again in");
    put(&bed, "k1/good", "x");
    wait_concluded(&bed, 2);
    assert_eq!(
        ledger(&bed),
        ["begin bad 1", "begin bad 2", "begin bad 3", "begin good 1"]
    );
}

#[test]
fn a_worker_has_one_of_a_key_at_a_time_in_order() {
    let bed = Bed::new();
    let go = bed.path("go");
    for key in ["k1", "k2"] {
        fs::create_dir(bed.inside(key)).expect("a directory");
    }
    let worker = crate::workers::python(&bed, &[&format!("until={}", go.display())]);
    kit::configure(
        &bed,
        &worker,
        "recursive = true\nkey = \"{dir1}\"\nserial = true\norder = \"name\"\nwindow = 10\n",
    );
    let daemon = kit::start(&bed);
    for key in ["k1", "k2"] {
        put(&bed, format!("{key}/gate"), "x");
    }
    wait_ledger(&bed, "got", 2);
    for number in [3, 1, 4, 2] {
        for key in ["k1", "k2"] {
            put(&bed, format!("{key}/f{number}"), "x");
        }
    }
    kit::wait_state(&daemon, "8 ready");
    assert_eq!(
        ledger(&bed)
            .iter()
            .filter(|line| line.starts_with("got "))
            .count(),
        2
    );
    fs::write(&go, "").expect("a sign");
    let jobs = wait_concluded(&bed, 10);
    let mut starts: Vec<_> = jobs
        .iter()
        .map(|job| (job.started[0].1, job.name.clone()))
        .collect();
    starts.sort();
    let names: Vec<_> = starts.into_iter().map(|(_, name)| name).collect();
    for number in 1..=4 {
        let at = |name: &str| {
            names
                .iter()
                .rposition(|other| other == name)
                .expect("a job")
        };
        assert!(
            number == 1
                || at(&format!("f{number}"))
                    > names
                        .iter()
                        .position(|n| *n == *format!("f{}", number - 1))
                        .expect("a job"),
            "{names:?}"
        );
    }
}

/// `k1/bad` is dead and holds up `k1/behind`; `k2` goes on.
fn halted(bed: &Bed) -> Daemon {
    let daemon = keyed(
        bed,
        "serial = true\norder = \"name\"\non_dead = \"halt\"\nattempts = 1\n",
    );
    put(bed, "k1/bad", "3");
    daemon.wait_log("dead, and everything behind it waits");
    put(bed, "k1/behind", "0");
    fence(bed, "one");
    daemon
}

/// Everything that could run has run.
fn fence(bed: &Bed, name: &str) {
    for number in 0..2 {
        let name = format!("fence-{name}-{number}");
        put(bed, format!("k2/{name}"), "0");
        until("the fence's end", || {
            ledger(bed)
                .iter()
                .any(|line| line.starts_with(&format!("end {name}")))
        });
    }
    assert_eq!(begun(bed, "k1").last().map(String::as_str), Some("bad"));
}

#[test]
fn a_dead_job_holds_up_its_key_until_its_file_is_removed() {
    let bed = Bed::new();
    let daemon = halted(&bed);
    fs::remove_file(bed.inside("k1/bad")).expect("the file");
    wait_ledger(&bed, "begin", 4);
    assert_eq!(begun(&bed, "k1"), ["bad", "behind"]);
    until("both are concluded", || {
        job(&bed, "behind").outcome() == Some("done") && job(&bed, "bad").outcome().is_some()
    });
    assert_eq!(daemon.log_count("dead, and everything"), 1);
}

#[test]
fn a_dead_job_holds_up_its_key_until_its_file_is_replaced() {
    let bed = Bed::new();
    let _daemon = halted(&bed);
    put(&bed, "k1/bad", "0");
    until("both are done", || {
        let ends = ledger(&bed);
        let count = ends
            .iter()
            .filter(|line| line.starts_with("end ") && line.ends_with("k1"))
            .count();
        count == 3
    });
    let jobs = wait_concluded(&bed, 5);
    let bad: Vec<_> = jobs
        .iter()
        .filter(|job| job.name == "bad")
        .map(|job| job.outcome())
        .collect();
    assert_eq!(bad, [Some("superseded"), Some("done")]);
}

fn reload(bed: &Bed, daemon: &Daemon, from: &str, to: &str) {
    let text = fs::read_to_string(bed.path("settled.toml")).expect("the configuration");
    assert!(text.contains(from));
    fs::write(bed.path("settled.toml"), text.replace(from, to)).expect("a configuration");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
}

#[test]
fn more_attempts_let_a_dead_job_be_tried_again_before_what_waits_behind_it() {
    let bed = Bed::new();
    let daemon = halted(&bed);
    reload(&bed, &daemon, "attempts = 1", "attempts = 3");
    until("it was tried again, twice, and is dead again", || {
        daemon.log_count("dead, and everything behind it waits") == 2
    });
    assert_eq!(begun(&bed, "k1"), ["bad", "bad", "bad"]);
    assert_eq!(job(&bed, "bad").outcome(), None);
    fs::remove_file(bed.inside("k1/bad")).expect("the file");
    until("what was behind it is done", || {
        job(&bed, "behind").outcome() == Some("done")
    });
}

#[test]
fn a_plan_that_goes_on_concludes_the_dead_job() {
    let bed = Bed::new();
    let daemon = halted(&bed);
    reload(
        &bed,
        &daemon,
        "on_dead = \"halt\"",
        "on_dead = \"continue\"",
    );
    until("both are concluded", || {
        job(&bed, "behind").outcome() == Some("done") && job(&bed, "bad").outcome() == Some("dead")
    });
    assert_eq!(begun(&bed, "k1"), ["bad", "behind"]);
}

#[test]
fn a_halt_holds_over_a_crash() {
    let bed = Bed::new();
    let mut daemon = halted(&bed);
    daemon.kill();
    let _daemon = kit::start(&bed);
    fence(&bed, "two");
    assert_eq!(begun(&bed, "k1"), ["bad"]);
    fs::remove_file(bed.inside("k1/bad")).expect("the file");
    until("what was behind it is done", || {
        job(&bed, "behind").outcome() == Some("done")
    });
}

#[test]
fn a_file_removed_while_the_daemon_is_down_releases_its_key() {
    let bed = Bed::new();
    let mut daemon = halted(&bed);
    daemon.kill();
    fs::remove_file(bed.inside("k1/bad")).expect("the file");
    let _daemon = kit::start(&bed);
    until("what was behind it is done", || {
        job(&bed, "behind").outcome() == Some("done")
    });
}

#[test]
fn without_keys_a_dead_job_holds_up_its_watch() {
    let bed = Bed::new();
    fs::create_dir(bed.path("other")).expect("a directory");
    kit::configure(&bed, &gated(&bed), "on_dead = \"halt\"\nattempts = 1\n");
    let text = fs::read_to_string(bed.path("settled.toml")).expect("the configuration");
    let other = format!(
        "{text}\n[watch.other]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("other"),
        bed.run_key(&[])
    );
    fs::write(bed.path("settled.toml"), other).expect("a configuration");
    let daemon = kit::start(&bed);
    put(&bed, "bad", "3");
    daemon.wait_log("dead, and everything behind it waits");
    put(&bed, "behind", "0");
    kit::wait_state(&daemon, "state: watching, 0 running, 1 ready");
    fs::write(bed.path("other/o"), "x").expect("a file");
    bed.wait_runs(1);
    assert_eq!(begun(&bed, "").len(), 1);
    fs::remove_file(bed.inside("bad")).expect("the file");
    until("what was behind it is done", || {
        job(&bed, "behind").outcome() == Some("done")
    });
}

/// The file that was done with before is put back under the name.
#[test]
fn a_dead_job_is_over_when_the_file_before_it_is_put_back() {
    let bed = Bed::new();
    kit::configure(&bed, &gated(&bed), "on_dead = \"halt\"\nattempts = 1\n");
    let daemon = kit::start(&bed);
    put(&bed, "f", "0");
    kit::wait_concluded(&bed, 1);
    fs::hard_link(bed.inside("f"), bed.path("good")).expect("a link");
    put(&bed, "f", "3");
    daemon.wait_log("dead, and everything behind it waits");
    put(&bed, "behind", "0");
    kit::wait_state(&daemon, "state: watching, 0 running, 1 ready");
    fs::rename(bed.path("good"), bed.inside("f")).expect("a rename");
    until("what was behind it is done", || {
        job(&bed, "behind").outcome() == Some("done")
    });
    // Twice: the good one once, the bad one once.
    assert_eq!(begun(&bed, "").len(), 3);
}
