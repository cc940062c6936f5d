//! What `explain` and `list` tell outlives compaction, for as long as it is remembered.

use crate::ask::{daemon_row, of_kind, rows, told};
use crate::bed::{Bed, Daemon, until};
use crate::kit::{put, shell_key, start};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Two watches: the files of `w` stay where they are, those of `m` are moved or deleted.
fn configure(bed: &Bed, remember: &str) {
    let job = "case \"$2\" in\n\
        bad*) echo \"line one of $2\"; echo \"line two\"; exit 65;;\n\
        again*) echo \"not now, $2\"; exit 3;;\n\
        later*) echo \"not yet, $2\"; exit 75;;\n\
        esac\n";
    let run = shell_key(bed, job, &["{name}"]);
    let state = bed.path("state");
    let (stay, moved) = (bed.path("in"), bed.path("moved"));
    let (archive, failed) = (bed.path("archive"), bed.path("failed"));
    bed.configure_text(&format!(
        "[daemon]\nstate = {state:?}\nlog = \"stderr\"\nlog_level = \"debug\"\n\
         remember = {remember:?}\n\
         [watch.w]\npath = {stay:?}\nsettle = \"0\"\nrecursive = true\nattempts = 2\n\
         exclude = [\"fill-*\", \"later*\"]\nbackoff = {{ first = \"10ms\", max = \"10ms\" }}\n{run}\n\
         [watch.later]\npath = {stay:?}\nsettle = \"0\"\ninclude = [\"later*\"]\nattempts = 3\n\
         backoff = {{ first = \"1h\", max = \"1h\" }}\n{run}\n\
         [watch.fill]\npath = {stay:?}\nsettle = \"0\"\ninclude = [\"fill-*\"]\n\
         done = \"delete\"\n{run}\n\
         [watch.m]\npath = {moved:?}\nsettle = \"0\"\ndone = {{ move = {archive:?} }}\n\
         dead = {{ move = {failed:?} }}\n{run}\n"
    ));
}

/// With a journal that is compacted as soon as it has some lines behind its base.
pub fn start_compacting(bed: &Bed) -> Daemon {
    let config = bed.path("settled.toml");
    let args = [OsStr::new("run"), OsStr::new("-c"), config.as_os_str()];
    let daemon = bed.spawn_with(&args, &[("SETTLED_TEST_COMPACT_BYTES", "4000")]);
    daemon.wait_log("ready:");
    daemon
}

/// The number of the newest base.
pub fn base(bed: &Bed) -> u32 {
    let names = fs::read_dir(bed.path("state")).expect("the state directory");
    let names = names.flatten().map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_suffix(".base")?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// Gives the journal something to be compacted for, until it is.
fn compact(bed: &Bed, daemon: &Daemon, round: &str) {
    let before = base(bed);
    let mut count = 0;
    until("a compaction", || {
        put(bed, format!("fill-{round}-{count}"), "x");
        count += 1;
        base(bed) > before
    });
    until("the end of all that filled it", || {
        let left = fs::read_dir(bed.inside("")).expect("a directory");
        left.flatten()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with("fill-"))
    });
    assert_eq!(daemon.log_count("compaction failed"), 0);
    assert_eq!(daemon.log_count("damage"), 0);
}

/// What is told of jobs that are over, but for those that fill the journal.
fn listed(bed: &Bed) -> Vec<Value> {
    let all = "done,dead,superseded,gone,held";
    let mut rows = of_kind(&rows(bed, &["list", "--state", all]), "file");
    rows.retain(|row| row["watch"] != "fill");
    rows.sort_by_key(|row| row["job"].to_string());
    rows
}

/// The jobs that `explain` tells of, as rows and as lines.
fn explained(bed: &Bed, path: &str) -> (Vec<Value>, Vec<Value>, Vec<String>) {
    let path = bed.path(path).display().to_string();
    let rows = rows(bed, &["explain", &path]);
    let text = told(bed, &["explain", &path]);
    let lines = text.lines().map(str::trim_start).filter(|line| {
        ["job:", "attempt ", "|", "outcome:", "file:", "from:"]
            .iter()
            .any(|word| line.starts_with(word))
    });
    let lines = lines.map(str::to_owned).collect();
    (of_kind(&rows, "job"), of_kind(&rows, "brought"), lines)
}

fn named<'a>(rows: &'a [Value], name: &str) -> Vec<&'a Value> {
    let ends = |row: &&Value| {
        row["path"]
            .as_str()
            .is_some_and(|path| path.ends_with(name))
    };
    rows.iter().filter(ends).collect()
}

const PATHS: [&str; 9] = [
    "in/good.csv",
    "in/bad.csv",
    "in/again.csv",
    "in/sub/good.csv",
    "in/twice.csv",
    "moved/good.csv",
    "moved/bad.csv",
    "archive/good.csv",
    "failed/bad.csv",
];

#[test]
fn explain_and_list_tell_the_same_before_and_after_a_compaction() {
    let bed = Bed::new();
    for dir in ["moved", "in/sub"] {
        fs::create_dir(bed.path(dir)).expect("a directory");
    }
    configure(&bed, "30d");
    let mut daemon = start(&bed);
    for name in [
        "good.csv",
        "bad.csv",
        "again.csv",
        "sub/good.csv",
        "twice.csv",
        "old.csv",
    ] {
        put(&bed, name, "12345");
    }
    put(&bed, "later.csv", "1");
    for name in ["good.csv", "bad.csv"] {
        fs::write(bed.path("aside"), "54321").expect("a file");
        fs::rename(bed.path("aside"), bed.path("moved").join(name)).expect("a rename");
    }
    until("all but one over", || {
        daemon_row(&bed)["owed"] == 1 && listed(&bed).len() >= 8
    });
    put(&bed, "twice.csv", "123456");
    until("the second of it", || {
        named(&listed(&bed), "/twice.csv").len() == 2
    });
    // Renamed when all is over: it goes by both names.
    fs::rename(bed.inside("old.csv"), bed.inside("new.csv")).expect("a rename");
    until("the new name", || {
        explained(&bed, "in/new.csv").0.len() == 1
    });

    let before = listed(&bed);
    let dead: Vec<&Value> = before.iter().filter(|row| row["state"] == "dead").collect();
    assert_eq!(dead.len(), 3, "{before:#?}");
    let said = PATHS.map(|path| explained(&bed, path));
    assert!(
        said.iter()
            .all(|(jobs, brought, _)| jobs.len() + brought.len() > 0)
    );
    let (jobs, _, lines) = &said[1];
    assert_eq!(
        jobs[0]["attempts"][0]["output"],
        "line one of bad.csv\nline two\n"
    );
    assert!(lines.iter().any(|line| line == "| line two"), "{lines:?}");
    assert_eq!(said[2].0[0]["attempts"].as_array().map(Vec::len), Some(2));
    assert_eq!(said[5].0[0]["target_is_there"], true);
    daemon.kill();

    let mut same = before;
    let renamed = |row: &mut Value| {
        let text = row["path"]
            .as_str()
            .map(|path| path.replace("/old.csv", "/new.csv"));
        row["path"] = text.into();
    };
    // What was renamed since is told of by the name it has.
    same.iter_mut().for_each(renamed);
    let check = |round: &str| {
        assert_eq!(listed(&bed), same, "{round}");
        for (path, said) in PATHS.iter().zip(&said) {
            assert_eq!(&explained(&bed, path), said, "{path} {round}");
        }
        for path in ["in/old.csv", "in/new.csv"] {
            let (jobs, ..) = explained(&bed, path);
            assert_eq!(jobs.len(), 1, "{path} {round}");
            assert_eq!(jobs[0]["path"], "new.csv");
        }
    };
    let mut daemon = start_compacting(&bed);
    compact(&bed, &daemon, "one");
    check("after a compaction");
    compact(&bed, &daemon, "two");
    check("after a second one");
    // What was owed at both of them has its attempts from before.
    let later = bed.inside("later.csv").display().to_string();
    told(&bed, &["retry", &later]);
    until("its second attempt", || {
        let (jobs, ..) = explained(&bed, "in/later.csv");
        jobs.iter().any(|job| {
            job["attempts"].as_array().is_some_and(|made| {
                made.len() == 2
                    && made
                        .iter()
                        .all(|made| made["output"] == "not yet, later.csv\n")
            })
        })
    });
    assert_eq!(daemon.stop(), Some(0));

    // Remembered no longer than they are there: those that went go, and of those that stay the last version stays.
    configure(&bed, "0s");
    fs::remove_file(bed.inside("bad.csv")).expect("a file");
    let mut daemon = start_compacting(&bed);
    let mut left = Vec::new();
    let mut round = 0;
    until("what is gone forgotten", || {
        compact(&bed, &daemon, &format!("more{round}"));
        round += 1;
        left = listed(&bed);
        let gone = ["in/bad.csv", "moved/good.csv", "moved/bad.csv"];
        gone.iter().all(|name| named(&left, name).is_empty())
    });
    for (name, count) in [
        ("in/good.csv", 1),
        ("in/again.csv", 1),
        ("in/sub/good.csv", 1),
    ] {
        assert_eq!(named(&left, name).len(), count, "{name}: {left:#?}");
    }
    assert_eq!(named(&left, "/twice.csv").len(), 1);
    assert_eq!(named(&left, "/new.csv").len(), 1);
    for name in ["in/bad.csv", "moved/good.csv", "moved/bad.csv"] {
        assert_eq!(explained(&bed, name).0, Vec::<Value>::new(), "{name}");
    }
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn damage_that_a_compaction_meets_is_told_and_kept_and_stops_nothing() {
    let bed = Bed::new();
    fs::create_dir(bed.path("moved")).expect("a directory");
    configure(&bed, "30d");
    let mut daemon = start(&bed);
    for name in ["good.csv", "bad.csv"] {
        put(&bed, name, "12345");
        until("its end", || {
            listed(&bed)
                .iter()
                .any(|row| row["path"].to_string().contains(name))
        });
    }
    daemon.kill();
    let mut daemon = start_compacting(&bed);
    let mut logs: Vec<_> = fs::read_dir(bed.path("state"))
        .expect("the state directory")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .collect();
    logs.sort();
    let hit = logs.iter().find_map(|path| {
        let bytes = fs::read(path).expect("a segment");
        let at = bytes.windows(8).position(|part| part == b"good.csv")?;
        Some((path.clone(), at as u64))
    });
    let (path, at) = hit.expect("the record");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a segment");
    file.write_all_at(b"GOOD", at).expect("a write");
    let before = base(&bed);
    let mut count = 0;
    until("a compaction", || {
        put(&bed, format!("fill-{count}"), "x");
        count += 1;
        base(&bed) > before
    });
    daemon.wait_log("damage was found while it was compacted");
    assert!(
        bed.path("state")
            .join(format!("{}.damaged", name_of(&path)))
            .exists()
    );
    // What lay around it is told, what was decided stands, and the next start meets nothing of it.
    until("the bad one told of", || {
        named(&listed(&bed), "/bad.csv").len() == 1
    });
    assert_eq!(named(&listed(&bed), "/good.csv").len(), 0);
    assert_eq!(daemon.stop(), Some(0));
    let mut daemon = start(&bed);
    put(&bed, "next.csv", "1");
    until("the next one", || {
        named(&listed(&bed), "/next.csv").len() == 1
    });
    assert_eq!(
        named(&listed(&bed), "/good.csv").len(),
        0,
        "it was run again"
    );
    assert_eq!(daemon.stop(), Some(0));
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
