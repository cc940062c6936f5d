//! What a person is told, and that it is told once: `[alert]` and `expect`.

use crate::bed::{Bed, Daemon, until, until_in};
use crate::kit::{self, SLOW, put, wait_concluded};
use crate::telling::{TELL, alert_block, told, wait_told};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

/// `[daemon]`, `[alert]` with these keys and a watch `w` with those.
fn configure(bed: &Bed, alert: &str, watch: &str) {
    let alert = match alert {
        "" => String::new(),
        keys => alert_block(bed, keys),
    };
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nsocket = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\n{alert}[watch.w]\npath = {:?}\n\
         settle = \"0\"\nbackoff = {{ first = \"10ms\", max = \"10ms\" }}\n{watch}\n",
        bed.path("state"),
        bed.path("control.sock"),
        bed.path("in"),
    ));
}

fn exits(status: u8) -> String {
    format!("run = [\"/bin/sh\", \"-c\", \"exit {status}\"]\n")
}

/// The records of what is expected, in the journal's order: count and whether it was told.
fn expected(bed: &Bed) -> Vec<(u64, String)> {
    let dump = Command::new(env!("CARGO_BIN_EXE_settled"))
        .args(["journal", "dump", "--json", "--state"])
        .arg(bed.path("state"))
        .output()
        .expect("the built program");
    assert!(dump.status.success(), "{dump:?}");
    let text = String::from_utf8(dump.stdout).expect("text");
    let rows = text.lines().map(|line| {
        let row: BTreeMap<String, Value> = serde_json::from_str(line).expect("JSON");
        row
    });
    rows.filter(|row| row["kind"] == "expected")
        .map(|row| {
            let told = row["told"].as_str().expect("a word").to_owned();
            (row["count"].as_u64().expect("a number"), told)
        })
        .collect()
}

#[test]
fn dead_jobs_are_told_and_what_dies_meanwhile_is_added_up() {
    let bed = Bed::new();
    configure(&bed, "dead = 1\nevery = \"2s\"", &exits(65));
    let _daemon = kit::start(&bed);
    put(&bed, "first", "text");
    let first = wait_told(&bed, "dead", 1);
    assert_eq!((first[0].watch.as_str(), first[0].count), ("w", 1));
    assert_eq!(first[0].path, bed.inside("first").display().to_string());
    assert!(first[0].text.contains("dead"));
    assert_eq!(first[0].json["job"], first[0].job.as_str());
    assert_eq!(first[0].json["path"], first[0].path.as_str());
    assert_eq!(first[0].json["alert"], "dead");
    assert!(first[0].json["at_ns"].as_i64() >= first[0].json["since_ns"].as_i64());
    for n in 0..5 {
        put(&bed, format!("more{n}"), "text");
    }
    wait_concluded(&bed, 6);
    until_in(SLOW, "all are told", || {
        wait_told(&bed, "dead", 2)
            .iter()
            .map(|told| told.count)
            .sum::<u64>()
            == 6
    });
    let all = told(&bed);
    assert!(all.len() < 6, "they were added up: {all:?}");
}

#[test]
fn so_many_dead_jobs_it_takes() {
    let bed = Bed::new();
    configure(&bed, "dead = 3\nevery = \"0\"", &exits(65));
    let _daemon = kit::start(&bed);
    for name in ["a", "b"] {
        put(&bed, name, "text");
    }
    wait_concluded(&bed, 2);
    assert!(told(&bed).is_empty());
    put(&bed, "c", "text");
    assert_eq!(wait_told(&bed, "dead", 1)[0].count, 3);
}

#[test]
fn a_file_that_is_held_open_is_told_once() {
    let bed = Bed::new();
    configure(&bed, "waiting = \"1s\"\nevery = \"0\"", &exits(0));
    let daemon = kit::start(&bed);
    let held = fs::File::create(bed.inside("held")).expect("a file");
    let all = wait_told(&bed, "waiting", 1);
    assert_eq!(all[0].path, bed.inside("held").display().to_string());
    assert!(all[0].text.contains("open for writing"), "{}", all[0].text);
    // It is looked at again and again.
    put(&bed, "other", "text");
    wait_concluded(&bed, 1);
    drop(held);
    wait_concluded(&bed, 2);
    assert_eq!(wait_told(&bed, "waiting", 1).len(), 1);
    assert_eq!(daemon.log_count("has not settled for"), 1);
}

#[test]
fn an_alert_command_that_fails_or_hangs_is_logged_and_ended_and_nothing_waits_for_it() {
    let bed = Bed::new();
    configure(
        &bed,
        "dead = 1\nevery = \"0\"\ntimeout = \"1s\"",
        &exits(65),
    );
    let hang = "[ \"$SETTLED_WATCH\" = w ] && case \"$SETTLED_PATH\" in *hang) exec sleep 600;; esac; exit 3\n";
    kit::script(&bed, "tell.sh", hang);
    let daemon = kit::start(&bed);
    put(&bed, "hang", "text");
    until("the command runs", || {
        !kit::children_with(&daemon, "sleep").is_empty()
    });
    put(&bed, "next", "text");
    wait_concluded(&bed, 2);
    daemon.wait_log("the alert command (dead): timed out; it is not repeated");
    daemon.wait_log("the alert command (dead): exit status 3; it is not repeated");
    until("it is gone", || {
        kit::children_with(&daemon, "sleep").is_empty()
    });
}

#[test]
fn what_has_not_come_is_told_once_over_restarts_and_again_after_it_came() {
    let bed = Bed::new();
    let expect = "expect = { every = \"3s\" }\n";
    configure(&bed, "every = \"0\"", &format!("{}{expect}", exits(0)));
    let mut daemon = kit::start(&bed);
    let all = wait_told(&bed, "expected", 1);
    assert_eq!((all[0].watch.as_str(), all[0].count), ("w", 1));
    assert!(all[0].text.contains("0 of 1 in 3 s"), "{}", all[0].text);
    until("it is written down", || {
        expected(&bed)
            .last()
            .is_some_and(|(_, told)| told == "told")
    });
    daemon.kill();
    // It is overdue still, and was told.
    let mut daemon = kit::start(&bed);
    daemon.wait_log("ready:");
    put(&bed, "late", "text");
    daemon.wait_log("what was expected has come after all");
    assert_eq!(wait_told(&bed, "expected", 1).len(), 1);
    // From then on it is expected anew.
    wait_told(&bed, "expected", 2);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(wait_told(&bed, "expected", 2).len(), 2);
}

#[test]
fn an_alert_that_a_crash_cut_short_is_not_forgotten() {
    let bed = Bed::new();
    let expect = "expect = { every = \"2s\" }\n";
    configure(&bed, "every = \"0\"", &format!("{}{expect}", exits(0)));
    kit::script(&bed, "tell.sh", "exec sleep 600\n");
    let mut daemon = kit::start(&bed);
    let mut sleeping = Vec::new();
    until_in(SLOW, "the command runs", || {
        sleeping = kit::children_with(&daemon, "sleep");
        !sleeping.is_empty()
    });
    daemon.kill();
    sleeping.into_iter().for_each(kit::kill);
    assert_eq!(
        expected(&bed).last().map(|(_, told)| told.as_str()),
        Some("owed")
    );
    kit::script(&bed, "tell.sh", TELL);
    let _daemon = kit::start(&bed);
    wait_told(&bed, "expected", 1);
    until("it is written down", || {
        expected(&bed)
            .last()
            .is_some_and(|(_, told)| told == "told")
    });
}

fn status(bed: &Bed, words: &[&str]) -> String {
    ask(bed, "status", words)
}

fn ask(bed: &Bed, command: &str, words: &[&str]) -> String {
    let said = Command::new(env!("CARGO_BIN_EXE_settled"))
        .args([command, "-c"])
        .arg(bed.path("settled.toml"))
        .args(words)
        .output()
        .expect("the built program");
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).expect("text")
}

/// Where the watch stands with what is expected of it.
fn status_of(bed: &Bed) -> Value {
    let text = status(bed, &["--json"]);
    let mut rows = text.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        row["watch"]["expected"].clone()
    });
    rows.find(|row| !row.is_null()).expect("a watch with it")
}

/// The daemon in a time zone in which it is half a minute past noon.
fn start_past_noon(bed: &Bed) -> Daemon {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs() as i64;
    let wanted = 12 * 3600 + 30;
    // tzset(3): what is added to local time to get UTC, less than a day.
    let west = (now.rem_euclid(86_400) - wanted).rem_euclid(86_400);
    let zone = format!("XYZ{}:{:02}:{:02}", west / 3600, west / 60 % 60, west % 60);
    let config = bed.path("settled.toml");
    let daemon = bed.spawn_with(
        &[OsStr::new("run"), OsStr::new("-c"), config.as_os_str()],
        &[("TZ", &zone)],
    );
    daemon.wait_log("ready:");
    daemon
}

#[test]
fn a_time_of_day_is_by_the_daemons_zone_and_what_came_in_time_is_not_missed() {
    let bed = Bed::new();
    let expect = "expect = { by = \"12:01\", count = 2 }\n";
    configure(&bed, "every = \"0\"", &format!("{}{expect}", exits(0)));
    let daemon = start_past_noon(&bed);
    put(&bed, "one", "text");
    wait_concluded(&bed, 1);
    let all = wait_told(&bed, "expected", 1);
    assert!(
        all[0].text.contains("1 of 2 by 12:01 on "),
        "{}",
        all[0].text
    );
    until("the next day's is open", || {
        expected(&bed).last() == Some(&(0, "not".into()))
    });
    let row = status_of(&bed);
    assert_eq!(row["text"], "2 by 12:01, every day");
    assert_eq!((&row["judged_came"], &row["came"]), (&1.into(), &0.into()));
    assert_eq!(row["judged_missed"], true);
    assert_eq!(row["missed"], false);
    let day = 86_400_000_000_000_i64;
    let until_ns = row["judged_ns"].as_i64().map(|judged| judged + day);
    assert_eq!(row["closes_ns"].as_i64(), until_ns);
    let text = status(&bed, &[]);
    assert!(
        text.contains("missed:   by ") && text.contains("1 of 2 had come"),
        "{text}"
    );
    assert!(text.contains("awaited:  0 of 2 by "), "{text}");
    drop(daemon);

    let bed = Bed::new();
    let expect = "expect = { by = \"12:01\", from = \"11:59\" }\n";
    configure(&bed, "every = \"0\"", &format!("{}{expect}", exits(0)));
    let _daemon = start_past_noon(&bed);
    put(&bed, "one", "text");
    wait_concluded(&bed, 1);
    // Its own window, and then the next day's.
    until_in(SLOW, "two windows", || expected(&bed).len() == 2);
    assert!(told(&bed).is_empty());
    let row = status_of(&bed);
    assert_eq!(row["judged_missed"], false);
    assert_eq!(row["judged_came"], 1);
    let (last, judged) = (row["last_ns"].as_i64(), row["judged_ns"].as_i64());
    assert!(last > Some(0) && last < judged, "{row}");
    let text = status(&bed, &[]);
    assert!(
        text.contains("in time:  by ") && text.contains("1 of 1 had come"),
        "{text}"
    );
}

#[test]
fn without_a_command_it_is_logged_once() {
    let bed = Bed::new();
    let expect = "expect = { every = \"1s\" }\n";
    configure(&bed, "", &format!("{}{expect}", exits(0)));
    let mut daemon = kit::start(&bed);
    daemon.wait_log("expected, and has not come: 0 of 1");
    until("it is written down", || {
        expected(&bed)
            .last()
            .is_some_and(|(_, told)| told == "told")
    });
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(daemon.log_count("expected, and has not come"), 1);
}

#[test]
fn a_job_that_is_held_for_the_operator_is_told() {
    let bed = Bed::new();
    let sleeps = "run = [\"sleep\", \"600\"]\ndelivery = \"at-most-once\"\n";
    configure(&bed, "every = \"0\"", sleeps);
    let mut daemon = kit::start(&bed);
    put(&bed, "a", "text");
    let mut sleeping = Vec::new();
    until_in(SLOW, "the job runs", || {
        sleeping = kit::children_with(&daemon, "sleep");
        !sleeping.is_empty()
    });
    daemon.kill();
    sleeping.into_iter().for_each(kit::kill);
    let _daemon = kit::start(&bed);
    let all = wait_told(&bed, "held", 1);
    assert_eq!((all[0].watch.as_str(), all[0].count), ("w", 1));
    assert_eq!(all[0].path, bed.inside("a").display().to_string());
    assert!(
        all[0].text.contains("held for the operator"),
        "{:?}",
        all[0]
    );
    assert_eq!(kit::job(&bed, "a").outcome(), Some("held"));
}

#[test]
fn nobody_is_told_of_a_job_that_was_given_up_by_a_person() {
    let bed = Bed::new();
    let keys = "backoff = { first = \"1h\", max = \"1h\" }\n";
    let watch = format!("attempts = 9\n{}", exits(3));
    configure(&bed, "dead = 1\nevery = \"0\"", &watch);
    let text = fs::read_to_string(bed.path("settled.toml")).expect("a configuration");
    let backoff = "backoff = { first = \"10ms\", max = \"10ms\" }\n";
    bed.configure_text(&text.replace(backoff, keys));
    let _daemon = kit::start(&bed);
    put(&bed, "a", "text");
    until("it waits", || {
        let rows = ask(&bed, "list", &["--state", "backoff", "--json"]);
        rows.contains("\"file\"")
    });
    let path = bed.inside("a").display().to_string();
    assert!(ask(&bed, "forget", &[&path]).contains("given up"));
    assert_eq!(wait_concluded(&bed, 1)[0].outcome(), Some("held"));
    // What is told after it is the first that is told.
    bed.configure_text(&text.replace("exit 3", "exit 65"));
    assert!(ask(&bed, "reload", &[]).contains("run"));
    put(&bed, "b", "text");
    let all = wait_told(&bed, "dead", 1);
    assert_eq!(all.len(), 1);
    assert!(
        told(&bed).iter().all(|told| told.alert == "dead"),
        "{all:?}"
    );
}

#[test]
fn a_stop_ends_an_alert_command_and_does_not_wait_for_the_end_of_it() {
    let bed = Bed::new();
    configure(
        &bed,
        "dead = 1\nevery = \"0\"\ntimeout = \"1h\"",
        &exits(65),
    );
    let text = fs::read_to_string(bed.path("settled.toml")).expect("a configuration");
    bed.configure_text(&text.replace("[daemon]\n", "[daemon]\ndrain = \"1h\"\n"));
    kit::script(&bed, "tell.sh", "trap '' TERM; exec sleep 3600\n");
    let mut daemon = kit::start(&bed);
    put(&bed, "a", "text");
    let mut of = Vec::new();
    until("the command runs", || {
        of = kit::children_with(&daemon, "sleep");
        !of.is_empty()
    });
    assert_eq!(daemon.stop(), Some(0));
    until("it is gone", || !kit::alive(of[0]));
}

#[test]
fn a_dead_job_that_holds_up_those_behind_it_is_told() {
    let bed = Bed::new();
    let halts = format!(
        "{}key = \"k\"\nserial = true\non_dead = \"halt\"\n",
        exits(65)
    );
    configure(&bed, "every = \"0\"", &halts);
    let mut daemon = kit::start(&bed);
    put(&bed, "a", "text");
    let all = wait_told(&bed, "dead", 1);
    assert_eq!(all[0].path, bed.inside("a").display().to_string());
    put(&bed, "behind", "text");
    daemon.wait_log("behind\" settled");
    // It is dead still after a restart, and was told.
    assert_eq!(daemon.stop(), Some(0));
    let _daemon = kit::start(&bed);
    until("it holds up the other", || {
        let row = status(&bed, &["--json"]);
        row.contains("\"halted\":1") && row.contains("\"ready\":1")
    });
    assert_eq!(told(&bed).len(), 1, "{:?}", told(&bed));
}

/// A small filesystem for the state; only root can mount one.
struct Small<'b>(&'b Bed);

impl Small<'_> {
    fn mount(bed: &Bed) -> Option<Small<'_>> {
        fs::create_dir(bed.path("state")).expect("a mount point");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "small"]);
        let status = mount.arg(bed.path("state")).status().expect("mount");
        status.success().then_some(Small(bed))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount.arg("-l").arg(self.0.path("state")).status();
    }
}

#[test]
fn a_full_disk_is_told_while_it_is_full() {
    let bed = Bed::new();
    let Some(disk) = Small::mount(&bed) else {
        eprintln!("not tested: nothing can be mounted here");
        return;
    };
    configure(&bed, "every = \"0\"", &exits(0));
    // Small segments, and never a compaction.
    let daemon = kit::start(&bed);
    let ballast = disk.0.path("state/ballast");
    fs::write(&ballast, vec![0u8; 4 << 20]).expect_err("more than there is room for");
    let mut written = 0;
    until_in(SLOW, "it says that there is no room", || {
        let ended = kit::jobs(&bed)
            .into_iter()
            .filter(|job| job.outcome().is_some());
        if ended.count() + 10 > written {
            for _ in 0..20 {
                put(&bed, format!("f{written:06}"), "x");
                written += 1;
            }
        }
        daemon.log_count("no room for the journal") > 0
    });
    let all = wait_told(&bed, "no-room", 1);
    assert_eq!((all[0].watch.as_str(), all[0].count), ("", 1));
    assert!(all[0].text.contains("nothing new is started"));
    fs::remove_file(&ballast).expect("room");
    wait_concluded(&bed, written);
    assert_eq!(told(&bed).len(), 1);
}
