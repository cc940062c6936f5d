//! `status` and `list`: what they say is what is.

use crate::ask::{Bare, daemon_row, of_kind, rows, settled, told};
use crate::bed::{Bed, bytes, until};
use crate::kit::{configure, put, shell_key, start, wait_ledger};
use serde_json::Value;
use std::fs;

/// A job that runs until a file `go` is there.
const UNTIL_GO: &str =
    "while [ ! -e \"$(dirname \"$1\")/go\" ]; do sleep 0.02; done; echo \"ran $2\" >>\"$1\"\n";

fn states(rows: &[(String, Value)]) -> Vec<(String, String)> {
    let mut states: Vec<(String, String)> = of_kind(rows, "file")
        .iter()
        .map(|row| {
            let path = row["path"].as_str().expect("a path");
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            (name, row["state"].as_str().expect("a state").to_owned())
        })
        .collect();
    states.sort();
    states
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(name, state)| ((*name).to_owned(), (*state).to_owned()))
        .collect()
}

#[test]
fn status_says_what_is_watched_and_what_runs() {
    let bed = Bed::new();
    configure(
        &bed,
        &shell_key(&bed, UNTIL_GO, &["{name}"]),
        "concurrency = 1",
    );
    let mut daemon = start(&bed);
    put(&bed, "a", "1");
    put(&bed, "b", "2");
    until("one that runs and one that waits", || {
        let row = daemon_row(&bed);
        row["running"] == 1 && row["owed"] == 2
    });
    // Whoever asked before may not have been seen to go yet.
    until("one client", || daemon_row(&bed)["clients"] == 1);
    let rows = rows(&bed, &["status"]);
    let row = &of_kind(&rows, "daemon")[0];
    assert_eq!(row["pid"], daemon.pid());
    assert_eq!(row["mode"], "running");
    assert!(row["longest_turn_us"].as_u64() > Some(0), "{row}");
    let watch = &of_kind(&rows, "watch")[0];
    assert_eq!(watch["watch"], "w");
    assert_eq!(watch["state"], "watching");
    assert_eq!((&watch["running"], &watch["ready"]), (&1.into(), &1.into()));
    assert_eq!(of_kind(&rows, "mount").len(), 1);

    // The same in words, and the same words as in the log.
    let text = told(&bed, &["status"]);
    assert!(text.contains("watching, 1 running, 1 ready"), "{text}");
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log("state: watching, 1 running, 1 ready");
    daemon.wait_log("state: attempt 1 is running");
    daemon.wait_log("the longest turn of the loop");
    fs::write(bed.path("go"), "").expect("a file");
    wait_ledger(&bed, "ran", 2);
    assert_eq!(daemon.stop(), Some(0));
    assert!(
        !crate::ask::socket(&bed).exists(),
        "the socket's name stays"
    );
}

#[test]
fn list_filters_by_state_name_watch_and_age() {
    let bed = Bed::new();
    configure(
        &bed,
        &shell_key(
            &bed,
            &format!("case \"$2\" in bad*) echo no good; exit 65;; esac\n{UNTIL_GO}"),
            &["{name}"],
        ),
        "concurrency = 1\ndone = \"delete\"",
    );
    let _daemon = start(&bed);
    put(&bed, "bad.csv", "1");
    until("a dead job", || {
        states(&rows(&bed, &["list", "--state", "dead"])) == pairs(&[("bad.csv", "dead")])
    });
    put(&bed, "first.csv", "1");
    until("a running job", || daemon_row(&bed)["running"] == 1);
    put(&bed, "second.txt", "1");
    put(&bed, bytes(b"\xff.csv"), "1");
    let held = fs::File::create(bed.inside("held.csv")).expect("a file");
    until("all of them", || {
        let row = daemon_row(&bed);
        row["owed"] == 3 && row["candidates"] == 1
    });
    let list = |words: &[&str]| {
        let mut all = vec!["list"];
        all.extend(words);
        states(&rows(&bed, &all))
    };
    let all = [
        ("first.csv", "running"),
        ("held.csv", "waiting"),
        ("second.txt", "ready"),
        ("\u{fffd}.csv", "ready"),
    ];
    assert_eq!(list(&[]), pairs(&all));
    assert_eq!(list(&["--state", "running"]), pairs(&all[..1]));
    assert_eq!(list(&["--state", "running,waiting"]), pairs(&all[..2]));
    assert_eq!(list(&["--name", "*.txt"]), pairs(&all[2..3]));
    // One that the daemon does not match itself.
    assert_eq!(list(&["--name", "{second,x}.t?t"]), pairs(&all[2..3]));
    assert_eq!(list(&["--watch", "w", "--name", "h*"]), pairs(&all[1..2]));
    assert_eq!(list(&["--watch", "other"]), []);
    assert_eq!(list(&["--older-than", "1h"]), []);
    assert_eq!(list(&["--newer-than", "1h"]), pairs(&all));
    let row = of_kind(&rows(&bed, &["list", "--state", "running"]), "file").remove(0);
    let pid = row["pid"].as_i64().expect("a process");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a running process");
    assert!(line.contains("first.csv"), "{line}");
    let odd = of_kind(&rows(&bed, &["list", "--name", "?.csv"]), "file").remove(0);
    assert!(
        odd["path_hex"]
            .as_str()
            .expect("bytes")
            .ends_with("ff2e637376")
    );

    let text = told(&bed, &["list", "--state", "dead"]);
    assert!(text.contains("dead: exit status 65"), "{text}");
    let wrong = settled(&bed, &["list", "--state", "undead"]);
    assert_eq!(wrong.status.code(), Some(64));
    drop(held);
    fs::write(bed.path("go"), "").expect("a file");
    wait_ledger(&bed, "ran", 4);
    until("an empty list", || list(&[]).is_empty());
    until("four that are done", || {
        list(&["--state", "done"]).len() == 4
    });
}

#[test]
fn without_a_daemon_the_journal_tells() {
    let bed = Bed::new();
    configure(
        &bed,
        &shell_key(&bed, UNTIL_GO, &["{name}"]),
        "concurrency = 1",
    );
    let mut daemon = start(&bed);
    put(&bed, "a", "1");
    put(&bed, "b", "1");
    until("two jobs", || daemon_row(&bed)["owed"] == 2);
    daemon.kill();
    let said = settled(&bed, &["list", "--json"]);
    assert_eq!(said.status.code(), Some(69));
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(why.contains("systemctl start settled"), "{why}");
    let text = String::from_utf8(said.stdout).expect("text");
    assert_eq!(
        states(&crate::ask::parse(&text)),
        pairs(&[("a", "running"), ("b", "ready")])
    );
    let said = settled(&bed, &["status"]);
    assert_eq!(said.status.code(), Some(69));
    assert!(said.stdout.is_empty());
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(why.contains("no daemon answers"), "{why}");

    // The name of its socket is still there, and the next one takes its place.
    let _daemon = start(&bed);
    assert_eq!(of_kind(&rows(&bed, &["status"]), "daemon").len(), 1);
    fs::write(bed.path("go"), "").expect("a file");
    wait_ledger(&bed, "ran", 2);
}

#[test]
fn one_connection_asks_more_than_once() {
    let bed = Bed::new();
    configure(&bed, "run = [\"true\"]", "");
    let _daemon = start(&bed);
    let mut bare = Bare::open(&bed);
    // In one piece, and byte by byte.
    bare.send(b"{\"ask\":\"status\"}\n{\"ask\":\"list\"}\n");
    assert_eq!(bare.answer().len(), 4);
    assert_eq!(bare.answer().len(), 1);
    for byte in b"{\"ask\":\"explain\",\"path\":\"/nowhere\"}\n" {
        bare.send(&[*byte]);
    }
    let answer = bare.answer();
    assert_eq!(answer.len(), 2);
    assert_eq!(answer[0]["nearest"]["watch"], "w");
}

#[test]
fn a_list_begins_with_what_has_waited_for_longest() {
    let bed = Bed::new();
    fs::create_dir(bed.path("other")).expect("a directory");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"1h\"\nrun = [\"true\"]\n\
         [watch.other]\npath = {:?}\nsettle = \"0\"\nrun = [\"false\"]\nbackoff = {{ first = \"1h\", max = \"1h\" }}\n",
        bed.path("in"),
        bed.path("other"),
    ));
    let _daemon = bed.start();
    let count = 24;
    for n in 0..count {
        fs::write(bed.inside(format!("{n:02}")), "x").expect("a file");
        // The next one is younger.
        until("it is known", || {
            of_kind(&rows(&bed, &["list", "--state", "waiting"]), "file").len() == n + 1
        });
        let name = format!("{:02}", count - n);
        fs::write(bed.path("other").join(name), "x").expect("a file");
    }
    let mut files = Vec::new();
    until("all are listed", || {
        files = of_kind(&rows(&bed, &["list"]), "file");
        let there = |state: &str| files.iter().filter(|row| row["state"] == state).count();
        there("waiting") == count && there("backoff") == count
    });
    let (waiting, jobs) = files.split_at(count);
    let names: Vec<String> = (0..count).map(|n| format!("{n:02}")).collect();
    let listed: Vec<&str> = waiting
        .iter()
        .filter_map(|row| row["path"].as_str()?.rsplit('/').next())
        .collect();
    assert_eq!(listed, names);
    let settled: Vec<i64> = jobs
        .iter()
        .filter_map(|row| row["settled_ns"].as_i64())
        .collect();
    assert_eq!(settled.len(), count);
    assert!(settled.is_sorted(), "{settled:?}");
    // The text has the same order as the rows.
    let text = told(&bed, &["list", "--state", "waiting"]);
    let at = |name: &str| text.find(&bed.inside(name).display().to_string());
    let places: Vec<_> = names.iter().map(|name| at(name)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted());
}
