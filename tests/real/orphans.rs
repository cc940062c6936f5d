//! What outlives the daemon: nothing is run a second time beside a living first, or that is ended.

use crate::bed::{Bed, Daemon, until, until_in};
use crate::kit::{self, SLOW, job, ledger, put, wait_concluded, wait_ledger};
use std::collections::BTreeMap;
use std::fs;

/// Says `begin NAME PID ATTEMPT RECOVERED` with whether a process of the attempt before is still there, does what the
/// text says, and says `end NAME`. `$go` is a sign that can be waited for with `wait_for "$go"`.
fn watched(bed: &Bed, then: &str) -> String {
    let text = format!(
        "ledger=$1 path=$2 name=${{2##*/}} go={}\nwait_for() {{ while [ ! -e \"$1\" ]; do sleep 0.05; done; }}\n\
         lives() {{ [ -n \"$1\" ] && grep -q '^State:.[^Z]' /proc/$1/status 2>/dev/null; }}\n\
         old=$(cat \"$ledger.$name\" 2>/dev/null); lives $old && beside=1 || beside=0\necho $$ > \"$ledger.$name\"\n\
         echo \"begin $name $$ $SETTLED_ATTEMPT ${{SETTLED_RECOVERED:-0}} $beside\" >> \"$ledger\"\n{then}\n\
         echo \"end $name\" >> \"$ledger\"\n",
        bed.path("go").display()
    );
    kit::shell_key(bed, &text, &["{path}"])
}

/// With room for this many children.
fn started(bed: &Bed, action: &str, keys: &str, children: usize) -> Daemon {
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nconcurrency = {children}\n\n\
         [watch.w]\npath = {:?}\nsettle = \"0\"\n{action}\n{keys}",
        bed.path("state"),
        bed.path("in"),
    ));
    kit::start(bed)
}

fn begun(bed: &Bed) -> Vec<Vec<String>> {
    let lines = ledger(bed);
    let begun = lines.iter().filter(|line| line.starts_with("begin "));
    begun
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect()
}

fn pid_of(begun: &[String]) -> i32 {
    begun[2].parse().expect("a pid")
}

#[test]
fn of_fifty_that_run_none_is_run_beside_itself_after_a_crash() {
    const FILES: usize = 50;
    let bed = Bed::new();
    let action = watched(&bed, "wait_for \"$go\"");
    let mut daemon = started(&bed, &action, "", FILES);
    for number in 0..FILES {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "begin", FILES);
    daemon.kill();
    let daemon = kit::start(&bed);
    until_in(SLOW, "all are known to be alive", || {
        daemon.log_count("has outlived the daemon") == FILES
    });
    // Something new runs meanwhile.
    put(&bed, "new", "x");
    wait_ledger(&bed, "begin", FILES + 1);
    assert_eq!(begun(&bed).len(), FILES + 1);
    fs::write(bed.path("go"), "").expect("a sign");
    let jobs = wait_concluded(&bed, FILES + 1);
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("done".into(), FILES + 1)])
    );
    let all = begun(&bed);
    assert_eq!(all.len(), 2 * FILES + 1);
    for again in &all[FILES + 1..] {
        assert_eq!(again[3..], ["2", "1", "0"], "{again:?}");
    }
    // Each has ended before it began again.
    let mut runs = BTreeMap::new();
    for line in ledger(&bed) {
        let words: Vec<&str> = line.split(' ').collect();
        let open = runs.entry(words[1].to_owned()).or_insert(0);
        *open += if words[0] == "begin" { 1 } else { -1 };
        assert!((0..=1).contains(open), "{line}");
    }
}

#[test]
fn killed_twice_while_they_run_they_are_still_known() {
    let bed = Bed::new();
    let action = watched(&bed, "wait_for \"$go\"");
    let mut daemon = started(&bed, &action, "", 8);
    for number in 0..8 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "begin", 8);
    daemon.kill();
    for _ in 0..2 {
        let mut daemon = kit::start(&bed);
        until("all are known to be alive", || {
            daemon.log_count("has outlived the daemon") == 8
        });
        daemon.kill();
    }
    fs::write(bed.path("go"), "").expect("a sign");
    let _daemon = kit::start(&bed);
    wait_concluded(&bed, 8);
    let all = begun(&bed);
    assert_eq!(all.len(), 16);
    assert!(all[8..].iter().all(|again| again[5] == "0"), "{all:?}");
}

#[test]
fn what_a_command_left_behind_counts_as_itself() {
    let bed = Bed::new();
    let rest = "( wait_for \"$go.rest\"; echo \"rest $name\" >> \"$ledger\" ) > /dev/null 2>&1 &\nwait_for \"$go\"";
    let action = watched(&bed, rest);
    let mut daemon = started(&bed, &action, "", 4);
    put(&bed, "f", "x");
    wait_ledger(&bed, "begin", 1);
    daemon.kill();
    fs::write(bed.path("go"), "").expect("a sign");
    wait_ledger(&bed, "end", 1);
    let pid = pid_of(&begun(&bed)[0]);
    until("the command itself is gone", || !kit::alive(pid));
    let daemon = kit::start(&bed);
    daemon.wait_log("has outlived the daemon");
    put(&bed, "g", "x");
    wait_ledger(&bed, "end", 2);
    assert_eq!(begun(&bed).len(), 2);
    fs::write(bed.path("go.rest"), "").expect("a sign");
    wait_concluded(&bed, 2);
    let words: Vec<_> = ledger(&bed)
        .iter()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let rest = words
        .iter()
        .position(|line| line == "rest f")
        .expect("its rest");
    let again = words
        .iter()
        .rposition(|line| line == "begin f")
        .expect("its repetition");
    assert!(rest < again, "{words:?}");
}

#[test]
fn asked_to_it_ends_what_has_outlived_the_daemon() {
    let bed = Bed::new();
    let text = "[ $SETTLED_ATTEMPT = 2 ] || case $name in stubborn) trap '' TERM; while :; do sleep 0.1; done;; *) exec sleep 1000;; esac";
    let action = watched(&bed, text);
    let mut daemon = started(
        &bed,
        &action,
        "orphans = \"kill\"\nkill_after = \"1s\"\n",
        4,
    );
    put(&bed, "stubborn", "x");
    put(&bed, "meek", "x");
    wait_ledger(&bed, "begin", 2);
    daemon.kill();
    let first: Vec<i32> = begun(&bed).iter().map(|begun| pid_of(begun)).collect();
    assert!(first.iter().all(|pid| kit::alive(*pid)), "they outlive it");
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, 2);
    assert_eq!(kit::outcomes(&jobs), BTreeMap::from([("done".into(), 2)]));
    let all = begun(&bed);
    assert_eq!(all.len(), 4);
    assert!(
        all[2..].iter().all(|again| again[3..] == ["2", "1", "0"]),
        "{all:?}"
    );
    assert!(!first.iter().any(|pid| kit::alive(*pid)));
}

#[test]
fn jobs_of_a_worker_that_outlives_the_daemon_wait_for_its_end() {
    let bed = Bed::new();
    let worker = crate::workers::python(&bed, &["linger", "until=/nonexistent"]);
    let mut daemon = started(&bed, &worker, "window = 2\n", 4);
    put(&bed, "a", "x");
    put(&bed, "b", "x");
    let lines = wait_ledger(&bed, "got", 2);
    let pid: i32 = lines[0]
        .split(' ')
        .nth(1)
        .expect("a pid")
        .parse()
        .expect("a pid");
    daemon.kill();
    let worker = crate::workers::python(&bed, &[]);
    let daemon = started(&bed, &worker, "window = 2\n", 4);
    until("both are known to be with it", || {
        daemon.log_count("has outlived the daemon") == 2
    });
    put(&bed, "c", "x");
    wait_ledger(&bed, "did", 1);
    assert_eq!(
        (job(&bed, "a").started.len(), job(&bed, "b").started.len()),
        (1, 1)
    );
    kit::kill(pid);
    let jobs = wait_concluded(&bed, 3);
    assert_eq!(kit::outcomes(&jobs), BTreeMap::from([("done".into(), 3)]));
}

#[test]
fn a_file_taken_away_while_its_orphan_runs_is_not_waited_for_for_ever() {
    let bed = Bed::new();
    let action = watched(&bed, "wait_for \"$go\"");
    let mut daemon = started(&bed, &action, "", 4);
    put(&bed, "f", "x");
    wait_ledger(&bed, "begin", 1);
    daemon.kill();
    fs::remove_file(bed.inside("f")).expect("the file");
    let _daemon = kit::start(&bed);
    fs::write(bed.path("go"), "").expect("a sign");
    wait_concluded(&bed, 1);
    assert_eq!(job(&bed, "f").outcome(), Some("gone"));
    assert_eq!(begun(&bed).len(), 1);
}
