//! What a person asks to be changed: it is done, it outlives a restart, and whoever may not ask for it is told.

use crate::ask::{Bare, daemon_row, of_kind, rows, settled, told};
use crate::bed::{Bed, until};
use crate::kit::{configure, ledger, put, shell_key, start, wait_ledger};
use std::fs;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Writes down each run; fails with what a file `status` beside the ledger says.
const JOB: &str = "echo \"ran $2 $SETTLED_ATTEMPT $SETTLED_JOB\" >>\"$1\"\n\
    exit $(cat \"$(dirname \"$1\")/status\" 2>/dev/null || echo 0)\n";

fn path(bed: &Bed, name: &str) -> String {
    bed.inside(name).display().to_string()
}

fn explain(bed: &Bed, name: &str) -> String {
    told(bed, &["explain", &path(bed, name)])
}

fn runs(bed: &Bed) -> usize {
    ledger(bed).len()
}

/// The exit status, and what is said on standard error.
fn refused(bed: &Bed, words: &[&str]) -> (Option<i32>, String) {
    let said = settled(bed, words);
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    (said.status.code(), why)
}

fn ends_with(bed: &Bed, status: &str) {
    fs::write(bed.path("status"), status).expect("a file");
}

#[test]
fn a_file_that_was_concluded_is_run_again_whatever_is_killed_in_between() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "");
    ends_with(&bed, "65");
    let mut daemon = start(&bed);
    put(&bed, "a", "1");
    until("a dead job", || explain(&bed, "a").contains("outcome:"));
    let (code, why) = refused(&bed, &["retry", &path(&bed, "nothing")]);
    assert_eq!(code, Some(66), "{why}");
    assert!(why.contains("no file of this path was concluded"), "{why}");

    let text = told(&bed, &["retry", &path(&bed, "a")]);
    assert!(text.contains("taken for a new arrival"), "{text}");
    let lines = wait_ledger(&bed, "ran", 2);
    let job = |line: &str| line.rsplit(' ').next().expect("a job").to_owned();
    assert_ne!(job(&lines[0]), job(&lines[1]), "a job of its own");

    // By its job, which is over; and nothing is lost if the daemon goes before it is run.
    until("a second end", || {
        of_kind(&rows(&bed, &["list", "--state", "dead"]), "file").len() == 2
    });
    told(&bed, &["pause", "w"]);
    let text = told(&bed, &["retry", &job(&lines[1])]);
    assert!(text.contains("taken for a new arrival"), "{text}");
    daemon.kill();
    let _daemon = start(&bed);
    until("the job that is owed", || daemon_row(&bed)["owed"] == 1);
    assert_eq!(runs(&bed), 2, "it is paused");
    told(&bed, &["resume", "w"]);
    wait_ledger(&bed, "ran", 3);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    assert_eq!(runs(&bed), 3);
}

#[test]
fn a_job_that_waits_for_its_next_attempt_has_it_now_and_is_counted_anew() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nattempts = 2\nbackoff = {{ first = \"1h\", max = \"1h\" }}\n{run}\n",
        bed.path("in"),
    ));
    ends_with(&bed, "3");
    let mut daemon = start(&bed);
    put(&bed, "a", "1");
    let backoff = |attempt: u32| {
        let rows = of_kind(&rows(&bed, &["list", "--state", "backoff"]), "file");
        rows.len() == 1 && rows[0]["attempt"] == attempt
    };
    until("one that waits", || backoff(1));
    // Two attempts in all are made, if nobody asks; each time asked there are two again.
    for attempt in 2..5 {
        told(&bed, &["retry", &path(&bed, "a")]);
        until("the next attempt's end", || backoff(attempt));
    }
    assert_eq!(runs(&bed), 4);
    // What was asked for is remembered: the count begins anew, and nothing is waited for.
    told(&bed, &["pause", "w"]);
    let job = of_kind(&rows(&bed, &["list"]), "file")[0]["job"].clone();
    let job = job.as_str().expect("a job").to_owned();
    let text = told(&bed, &["retry", &job]);
    assert!(text.contains("ready for attempt 5"), "{text}");
    daemon.kill();
    let _daemon = start(&bed);
    until("a ready job", || {
        of_kind(&rows(&bed, &["list", "--state", "ready"]), "file").len() == 1
    });
    ends_with(&bed, "0");
    told(&bed, &["resume", "w"]);
    wait_ledger(&bed, "ran", 5);
    until("its end", || daemon_row(&bed)["owed"] == 0);
}

#[test]
fn a_dead_job_that_holds_up_others_is_tried_again() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "concurrency = 1\non_dead = \"halt\"");
    ends_with(&bed, "65");
    let _daemon = start(&bed);
    put(&bed, "a", "1");
    until("a dead job", || {
        of_kind(&rows(&bed, &["list", "--state", "halted"]), "file").len() == 1
    });
    put(&bed, "b", "1");
    until("one behind it", || {
        explain(&bed, "b").contains("holds it up")
    });
    ends_with(&bed, "0");
    told(&bed, &["retry", &path(&bed, "a")]);
    let lines = wait_ledger(&bed, "ran", 3);
    assert!(lines[1].starts_with("ran a 2 ") && lines[2].starts_with("ran b 1 "));
}

#[test]
fn what_is_given_up_is_not_run_again() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "done = \"delete\"");
    let mut daemon = start(&bed);
    told(&bed, &["pause", "w"]);
    put(&bed, "a", "1");
    put(&bed, "b", "1");
    until("two that wait", || daemon_row(&bed)["owed"] == 2);
    let text = told(&bed, &["forget", &path(&bed, "a")]);
    assert!(text.contains("given up"), "{text}");
    let (code, why) = refused(&bed, &["forget", &path(&bed, "a")]);
    assert_eq!(
        (code, why.contains("nothing is owed")),
        (Some(66), true),
        "{why}"
    );
    daemon.kill();
    let _daemon = start(&bed);
    told(&bed, &["rescan", "w"]);
    told(&bed, &["resume", "w"]);
    wait_ledger(&bed, "ran", 1);
    until("the end of the other", || daemon_row(&bed)["owed"] == 0);
    let lines = ledger(&bed);
    assert!(
        lines.len() == 1 && lines[0].starts_with("ran b "),
        "{lines:?}"
    );
    assert!(bed.inside("a").exists());
    let text = explain(&bed, "a");
    assert!(
        text.contains("held") && text.contains("kept where it is"),
        "{text}"
    );
    // Until somebody asks for it.
    told(&bed, &["retry", &path(&bed, "a")]);
    wait_ledger(&bed, "ran", 2);
}

#[test]
fn a_paused_watch_starts_nothing_until_it_is_resumed() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "");
    let mut daemon = start(&bed);
    let (code, why) = refused(&bed, &["pause", "other"]);
    assert_eq!(code, Some(66), "{why}");
    let text = told(&bed, &["pause", "w"]);
    assert!(text.contains("nothing of it is started"), "{text}");
    assert!(told(&bed, &["pause", "w"]).contains("paused already"));
    put(&bed, "a", "1");
    until("one that is ready", || {
        explain(&bed, "a").contains("its watch is paused")
    });
    for again in 0..2 {
        let rows = rows(&bed, &["status"]);
        assert_eq!(of_kind(&rows, "watch")[0]["paused"], true);
        if again == 0 {
            daemon.kill();
            daemon = start(&bed);
            daemon.signal(libc::SIGHUP);
            daemon.wait_log("reloaded");
        }
    }
    assert_eq!(runs(&bed), 0);
    assert_eq!(daemon_row(&bed)["owed"], 1);
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log("state: watching, paused");
    told(&bed, &["resume", "w"]);
    daemon.wait_log("resumed");
    wait_ledger(&bed, "ran", 1);
}

#[test]
fn what_no_event_told_of_is_found_when_asked() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "observe = \"inotify\"");
    fs::create_dir(bed.path("outside-it")).expect("a directory");
    let _daemon = start(&bed);
    put(&bed, "a", "1");
    wait_ledger(&bed, "ran", 1);
    until("all is over", || daemon_row(&bed)["owed"] == 0);
    // A write by another name tells nothing of this one.
    fs::hard_link(bed.inside("a"), bed.path("outside-it/a")).expect("a link");
    fs::write(bed.path("outside-it/a"), "other, and longer").expect("a file");
    let text = told(&bed, &["rescan"]);
    assert!(text.contains("one watch is listed again"), "{text}");
    wait_ledger(&bed, "ran", 2);
    let (code, why) = refused(&bed, &["rescan", "other"]);
    assert_eq!(code, Some(66), "{why}");
}

#[test]
fn a_reload_is_answered_when_it_is_done_and_says_what_changed() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "");
    let daemon = start(&bed);
    assert!(told(&bed, &["reload"]).contains("nothing has changed"));
    configure(&bed, &run, "timeout = \"5m\"\ninclude = [\"*.csv\"]");
    let text = told(&bed, &["reload"]);
    assert!(text.contains("watch w: timeout, include changed"), "{text}");
    daemon.wait_log("watch=w reload: timeout, include changed");
    put(&bed, "a.txt", "1");
    put(&bed, "a.csv", "1");
    wait_ledger(&bed, "ran", 1);
    assert!(explain(&bed, "a.txt").contains("no pattern of include"));

    // A bad one changes nothing, and says why.
    configure(&bed, &run, "timeout = \"soon\"");
    let (code, why) = refused(
        &bed,
        &[
            "reload",
            "--socket",
            &crate::ask::socket(&bed).display().to_string(),
        ],
    );
    assert_eq!(code, Some(78), "{why}");
    assert!(
        why.contains("settled.toml:") && why.contains("soon"),
        "{why}"
    );
    put(&bed, "b.csv", "1");
    wait_ledger(&bed, "ran", 2);

    // Another watch, and a socket elsewhere: this answer still comes.
    fs::create_dir(bed.path("more")).expect("a directory");
    let old = crate::ask::socket(&bed);
    let new = bed.path("new.sock");
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nsocket = {new:?}\nlog = \"stderr\"\nlog_level = \"debug\"\n\
         [watch.more]\npath = {:?}\n{run}\n",
        bed.path("state"),
        bed.path("more"),
    ));
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_settled"))
        .args(["reload", "--socket"])
        .arg(&old)
        .output()
        .expect("the built program");
    assert!(said.status.success(), "{said:?}");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    for words in [
        "socket changed",
        "watch more: a new watch",
        "watch w: the watch is gone",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!old.exists());
    assert_eq!(of_kind(&rows(&bed, &["status"]), "watch").len(), 2);
}

#[test]
fn what_runs_is_neither_run_again_nor_given_up() {
    let bed = Bed::new();
    let job =
        "while [ ! -e \"$(dirname \"$1\")/go\" ]; do sleep 0.02; done; echo \"ran $2\" >>\"$1\"\n";
    configure(&bed, &shell_key(&bed, job, &["{name}"]), "");
    let _daemon = start(&bed);
    put(&bed, "a", "1");
    until("a running job", || daemon_row(&bed)["running"] == 1);
    for command in ["retry", "forget"] {
        let (code, why) = refused(&bed, &[command, &path(&bed, "a")]);
        assert_eq!(code, Some(75), "{why}");
        assert!(why.contains("is running"), "{why}");
    }
    // One that fails keeps nothing from the others.
    let (code, why) = refused(&bed, &["retry", "/nowhere", &path(&bed, "a")]);
    assert_eq!(why.lines().count(), 2, "{why}");
    assert!(code != Some(0));
    fs::write(bed.path("go"), "").expect("a file");
    wait_ledger(&bed, "ran", 1);
}

/// The same configuration with another socket, and more keys of the watch.
fn move_socket(bed: &Bed, socket: &Path, keys: &str) {
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nsocket = {socket:?}\nlog = \"stderr\"\nlog_level = \"debug\"\n\
         [watch.w]\npath = {:?}\nrun = [\"true\"]\n{keys}\n",
        bed.path("state"),
        bed.path("in"),
    ));
}

#[test]
fn a_socket_that_moves_is_served_there_and_its_clients_go_on() {
    let bed = Bed::new();
    move_socket(&bed, &bed.path("one.sock"), "");
    let _daemon = start(&bed);
    let stream = UnixStream::connect(bed.path("one.sock")).expect("a listening daemon");
    let mut client = Bare {
        stream: BufReader::new(stream),
    };
    client.send(b"{\"ask\":\"status\"}\n");
    assert!(client.answer().len() > 1);

    // The configuration says already where it will be: the daemon is found all the same.
    move_socket(&bed, &bed.path("two.sock"), "");
    assert_eq!(daemon_row(&bed)["mode"], "running");
    let text = told(&bed, &["reload"]);
    assert!(text.contains("[daemon] socket changed"), "{text}");
    assert!(!bed.path("one.sock").exists());
    assert!(bed.path("two.sock").exists());
    client.send(b"{\"ask\":\"status\"}\n");
    assert!(client.answer().len() > 1, "who was connected stays so");
    assert_eq!(daemon_row(&bed)["mode"], "running");

    // A place that cannot be had is refused by its key, and nothing changes.
    fs::write(bed.path("three.sock"), "not a socket").expect("a file");
    move_socket(&bed, &bed.path("three.sock"), "timeout = \"7m\"");
    let (code, why) = refused(&bed, &["reload"]);
    assert_eq!(code, Some(78), "{why}");
    for words in ["[daemon] socket:", "is no socket", "two.sock as before"] {
        assert!(why.contains(words), "{why}");
    }
    client.send(b"{\"ask\":\"status\"}\n");
    assert!(client.answer().len() > 1);
    fs::remove_file(bed.path("three.sock")).expect("the file");
    let text = told(&bed, &["reload"]);
    assert!(text.contains("watch w: timeout changed"), "{text}");
    assert!(!bed.path("two.sock").exists());
}

/// Two watches over one tree, each with a ledger line of its own; all that is under `keys` is of the second.
fn two_watches(bed: &Bed, keys: &str) {
    let script = crate::kit::script(bed, "job.sh", JOB);
    let run = |of: &str| {
        let words = [
            "/bin/sh",
            &script,
            &bed.path("ledger").display().to_string(),
            of,
        ];
        format!("run = {words:?}")
    };
    bed.configure_text(&format!(
        "[watch.one]\npath = {root:?}\nsettle = \"0\"\ninclude = [\"*.csv\"]\n{}\n\
         [watch.two]\npath = {root:?}\nsettle = \"0\"\n{}\n{keys}\n",
        run("one"),
        run("two"),
        root = bed.path("in"),
    ));
}

#[test]
fn of_two_watches_the_one_that_has_the_file_is_meant_or_the_one_that_is_named() {
    let bed = Bed::new();
    two_watches(&bed, "");
    let _daemon = start(&bed);
    // The first does not select it.
    put(&bed, "a.txt", "1");
    wait_ledger(&bed, "ran", 1);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    told(&bed, &["retry", &path(&bed, "a.txt")]);
    let lines = wait_ledger(&bed, "ran", 2);
    assert!(lines[1].starts_with("ran two "), "{lines:?}");

    // Both have run it: by its path it is not known which is meant, by its job it is.
    put(&bed, "b.csv", "1");
    let lines = wait_ledger(&bed, "ran", 4);
    until("its ends", || daemon_row(&bed)["owed"] == 0);
    let (code, why) = refused(&bed, &["retry", &path(&bed, "b.csv")]);
    assert_eq!(code, Some(75), "{why}");
    for words in ["one (concluded)", "two (concluded)", "--watch NAME"] {
        assert!(why.contains(words), "{why}");
    }
    told(&bed, &["retry", "--watch", "two", &path(&bed, "b.csv")]);
    let again = wait_ledger(&bed, "ran", 5);
    assert!(again[4].starts_with("ran two "), "{again:?}");
    until("its end", || daemon_row(&bed)["owed"] == 0);
    let of_one = lines.iter().find(|line| line.starts_with("ran one "));
    let job = of_one.and_then(|line| line.rsplit(' ').next());
    let job = job.expect("a job").to_owned();
    let (code, why) = refused(&bed, &["retry", "--watch", "two", &job]);
    assert_eq!(code, Some(66), "{why}");
    told(&bed, &["retry", &job]);
    let again = wait_ledger(&bed, "ran", 6);
    assert!(again[5].starts_with("ran one "), "{again:?}");
    until("its end", || daemon_row(&bed)["owed"] == 0);

    // What waits is given up in the watch in which it waits, whatever the other has concluded.
    told(&bed, &["pause", "one"]);
    put(&bed, "c.csv", "1");
    wait_ledger(&bed, "ran", 7);
    until("one that waits", || {
        let row = daemon_row(&bed);
        row["owed"] == 1 && row["running"] == 0
    });
    let (code, why) = refused(&bed, &["forget", "--watch", "two", &path(&bed, "c.csv")]);
    assert_eq!(code, Some(66), "{why}");
    let (code, why) = refused(&bed, &["retry", &path(&bed, "c.csv")]);
    assert_eq!(code, Some(75), "{why}");
    told(&bed, &["forget", &path(&bed, "c.csv")]);
    assert_eq!(daemon_row(&bed)["owed"], 0);
    let (code, why) = refused(&bed, &["retry", "--watch", "three", "/nowhere"]);
    assert_eq!(code, Some(66), "{why}");
    assert!(why.contains("no watch of the name"), "{why}");
}

#[test]
fn a_job_after_which_its_file_had_another_is_not_run_again() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "");
    let _daemon = start(&bed);
    put(&bed, "a", "1");
    wait_ledger(&bed, "ran", 1);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    put(&bed, "a", "another one");
    let lines = wait_ledger(&bed, "ran", 2);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    let job = |line: &str| line.rsplit(' ').next().expect("a job").to_owned();
    let (first, second) = (job(&lines[0]), job(&lines[1]));
    let (code, why) = refused(&bed, &["retry", &first]);
    assert_eq!(code, Some(75), "{why}");
    assert!(why.contains(&format!("job {second} came after")), "{why}");
    told(&bed, &["retry", &second]);
    wait_ledger(&bed, "ran", 3);
}

/// What has come of what the watch expects.
fn came(bed: &Bed) -> serde_json::Value {
    of_kind(&rows(bed, &["status"]), "watch")[0]["expected"]["came"].clone()
}

#[test]
fn what_is_asked_for_is_not_what_was_expected() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "expect = { every = \"1d\", count = 9 }");
    let mut daemon = start(&bed);
    put(&bed, "a", "1");
    put(&bed, "b", "1");
    wait_ledger(&bed, "ran", 2);
    until("their ends", || daemon_row(&bed)["owed"] == 0);
    assert_eq!(came(&bed), 2);
    told(&bed, &["retry", &path(&bed, "a")]);
    wait_ledger(&bed, "ran", 3);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    assert_eq!(came(&bed), 2, "it came once");
    // The journal counts the same; and so does what was made small.
    daemon.kill();
    for compact in ["1000000000000", "1"] {
        let config = bed.path("settled.toml");
        let words = ["run".as_ref(), "-c".as_ref(), config.as_os_str()];
        daemon = bed.spawn_with(&words, &[("SETTLED_TEST_COMPACT_BYTES", compact)]);
        daemon.wait_log("ready:");
        assert_eq!(came(&bed), 2);
        daemon.kill();
    }
    // An order that was taken and not carried out is one in the next life, too.
    daemon = start(&bed);
    told(&bed, &["pause", "w"]);
    configure(
        &bed,
        &run.replace("run =", "min_age = \"1h\"\nrun ="),
        "expect = { every = \"1d\", count = 9 }",
    );
    told(&bed, &["reload"]);
    told(&bed, &["retry", &path(&bed, "b")]);
    until("it waits", || explain(&bed, "b").contains("min_age"));
    daemon.kill();
    configure(&bed, &run, "expect = { every = \"1d\", count = 9 }");
    let _daemon = start(&bed);
    until("it is owed", || daemon_row(&bed)["owed"] == 1);
    assert_eq!(came(&bed), 2);
    told(&bed, &["resume", "w"]);
    wait_ledger(&bed, "ran", 4);
    // Whatever comes under the name of one that went is one that came.
    put(&bed, "b", "another");
    wait_ledger(&bed, "ran", 5);
    assert_eq!(came(&bed), 3);
}

#[test]
fn what_is_asked_for_may_be_old_and_has_to_have_its_size() {
    let bed = Bed::new();
    let run = shell_key(&bed, JOB, &["{name}"]);
    configure(&bed, &run, "");
    let mut daemon = start(&bed);
    put(&bed, "a", "1");
    wait_ledger(&bed, "ran", 1);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    let file = fs::File::options().write(true).open(bed.inside("a"));
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(48 * 3600);
    file.and_then(|file| file.set_modified(before))
        .expect("a time");
    wait_ledger(&bed, "ran", 2);
    until("its end", || daemon_row(&bed)["owed"] == 0);
    configure(&bed, &run, "ignore_older = \"1d\"");
    told(&bed, &["reload"]);
    told(&bed, &["retry", &path(&bed, "a")]);
    wait_ledger(&bed, "ran", 3);
    until("its end", || daemon_row(&bed)["owed"] == 0);

    configure(&bed, &run, "min_size = 2");
    told(&bed, &["reload"]);
    for again in 0..2 {
        told(&bed, &["retry", &path(&bed, "a")]);
        daemon.wait_log("asked to be run again, and is not: its 1 bytes");
        if again == 0 {
            daemon.kill();
            configure(&bed, &run, "");
            daemon = start(&bed);
            // It is as concluded as it was.
            told(&bed, &["rescan"]);
            put(&bed, "b", "1");
            wait_ledger(&bed, "ran", 4);
            configure(&bed, &run, "min_size = 2");
            told(&bed, &["reload"]);
        }
    }
    let lines = ledger(&bed);
    assert!(lines[3].starts_with("ran b "), "{lines:?}");
    assert_eq!(lines.len(), 4);
}
