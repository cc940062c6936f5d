//! `explain PATH` for every kind of path: what it says is what is.

use crate::ask::{daemon_row, of_kind, rows, settled, told};
use crate::bed::{Bed, until};
use crate::carried::{base, start_compacting};
use crate::kit::{put, shell_key, start};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

fn configure(bed: &Bed, action: &str, keys: &str) {
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nrecursive = true\n\
         include = [\"*.csv\",\n  \"*.xml\"]\n\
         exclude = [\"draft-*\",\n  \"attic/**\"]\n\
         backoff = {{ first = \"1h\", max = \"1h\" }}\n{action}\n{keys}\n",
        bed.path("in"),
    ));
}

fn explain(bed: &Bed, name: &str) -> String {
    let path = bed.inside(name).display().to_string();
    told(bed, &["explain", &path])
}

/// The number of the line in the configuration that has this text.
fn line_of(bed: &Bed, text: &str) -> String {
    let config = bed.path("settled.toml");
    let all = fs::read_to_string(&config).expect("a configuration");
    let at = all.lines().position(|line| line.contains(text));
    format!("{}:{}", config.display(), at.expect("such a line") + 1)
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
}

#[test]
fn a_path_that_is_left_out_is_told_by_which_rule_and_where_that_is_written() {
    let bed = Bed::new();
    configure(&bed, "run = [\"true\"]", "");
    fs::create_dir(bed.inside("attic")).expect("a directory");
    let _daemon = start(&bed);
    fs::write(bed.inside("draft-1.csv"), "x").expect("a file");
    has(
        &explain(&bed, "draft-1.csv"),
        &[
            "no: exclude \"draft-*\" matches it",
            &line_of(&bed, "draft-*"),
            "a regular file of 1 bytes",
            "never seen to settle",
        ],
    );
    has(
        &explain(&bed, "attic/a.csv"),
        &["no: ", "attic/**", &line_of(&bed, "attic/**")],
    );
    has(
        &explain(&bed, "a.txt"),
        &[
            "no: no pattern of include matches it",
            &line_of(&bed, "*.csv"),
            &line_of(&bed, "*.xml"),
        ],
    );
    has(
        &explain(&bed, "a.csv.part"),
        &["no: \"*.part\" of the built-in list"],
    );
    has(
        &explain(&bed, "nothing.csv"),
        &[
            "yes, by include \"*.csv\"",
            "nothing has this name",
            "never seen to settle",
        ],
    );
    symlink("/etc/passwd", bed.inside("link.csv")).expect("a link");
    has(&explain(&bed, "link.csv"), &["no regular file"]);
    // No watch at all: the nearest, and why not.
    let path = bed.path("elsewhere/a.csv").display().to_string();
    has(
        &told(&bed, &["explain", &path]),
        &[
            "none has this path",
            "w at",
            "the path does not lie below its root",
        ],
    );
    // By a link to the root it is the same path.
    symlink(bed.path("in"), bed.path("way")).expect("a link");
    let path = bed.path("way/draft-1.csv").display().to_string();
    has(
        &told(&bed, &["explain", &path]),
        &["leads to", "no: exclude \"draft-*\""],
    );
}

#[test]
fn what_waits_says_for_what_and_who_holds_it() {
    let bed = Bed::new();
    configure(&bed, "run = [\"true\"]", "");
    let _daemon = start(&bed);
    let held = fs::File::create(bed.inside("held.csv")).expect("a file");
    let mut text = String::new();
    until("the file found held", || {
        text = explain(&bed, "held.csv");
        text.contains("somebody has it open for writing")
    });
    let own = format!("process {} (", std::process::id());
    has(
        &text,
        &[
            "evidence:",
            "linked into place, or being written",
            &own,
            "has it open for writing",
            "it is looked at again",
        ],
    );
    let path = bed.inside("held.csv").display().to_string();
    let rows = rows(&bed, &["explain", &path]);
    let holder = &of_kind(&rows, "holder")[0];
    assert_eq!(holder["pid"], std::process::id());
    let finding = &of_kind(&rows, "finding")[0];
    assert_eq!(finding["candidate"]["state"], "waiting");
    assert_eq!(finding["selected"], true);
    drop(held);
    until("the file's conclusion", || {
        text = explain(&bed, "held.csv");
        text.contains("outcome:")
    });
    has(&text, &["exit status 0", "done", "kept where it is"]);
}

#[test]
fn what_was_run_is_told_with_its_attempts_output_and_where_the_file_is_now() {
    let bed = Bed::new();
    let job = "case \"$2\" in\n\
        bad*) echo \"line one of $2\"; exit 65;;\n\
        again*) echo \"not now\"; exit 3;;\n\
        esac\n";
    let archive = bed.path("archive");
    configure(
        &bed,
        &shell_key(&bed, job, &["{name}"]),
        &format!("done = {{ move = {archive:?} }}\nattempts = 2"),
    );
    let mut daemon = start(&bed);
    for name in ["good.csv", "bad.csv", "again.csv"] {
        put(&bed, name, "12345");
    }
    let mut text = String::new();
    until("a move", || {
        text = explain(&bed, "good.csv");
        text.contains("(it is there)")
    });
    let target = archive.join("good.csv").display().to_string();
    has(
        &text,
        &["settled with 5 bytes", "exit status 0", "done", &target],
    );
    // And the other way round.
    let text = told(&bed, &["explain", &target]);
    has(&text, &["none has this path", "brought here by job"]);

    until("a dead one", || explain(&bed, "bad.csv").contains("dead"));
    has(
        &explain(&bed, "bad.csv"),
        &["attempt 1:", "exit status 65", "| line one of bad.csv"],
    );
    until("one that is tried again", || {
        explain(&bed, "again.csv").contains("waits for attempt 2")
    });
    has(
        &explain(&bed, "again.csv"),
        &["exit status 3", "| not now", "its next attempt is due"],
    );
    // All of it without a daemon, from the journal and the configuration.
    daemon.kill();
    let path = bed.inside("bad.csv").display().to_string();
    let said = settled(&bed, &["explain", &path]);
    assert_eq!(said.status.code(), Some(69));
    let text = String::from_utf8(said.stdout).expect("text");
    has(
        &text,
        &[
            "no daemon answers",
            "systemctl start settled",
            "yes, by include",
            "exit status 65",
            "dead",
        ],
    );
}

#[test]
fn what_is_ready_says_what_is_before_it() {
    let bed = Bed::new();
    let job = "while [ ! -e \"$(dirname \"$1\")/go\" ]; do sleep 0.02; done\n";
    configure(
        &bed,
        &shell_key(&bed, job, &["{name}"]),
        "concurrency = 1\nkey = \"{stem}\"\nserial = true\norder = \"name\"",
    );
    let _daemon = start(&bed);
    put(&bed, "a.csv", "1");
    until("a running job", || daemon_row(&bed)["running"] == 1);
    put(&bed, "a.xml", "1");
    put(&bed, "b.csv", "1");
    until("two that wait", || daemon_row(&bed)["owed"] == 3);
    has(
        &explain(&bed, "a.csv"),
        &["attempt 1 is running", "process "],
    );
    has(
        &explain(&bed, "a.xml"),
        &["has the key \"a\" and is before it"],
    );
    has(&explain(&bed, "b.csv"), &["as many as concurrency lets it"]);
    fs::write(bed.path("go"), "").expect("a file");
    until("the end of all", || daemon_row(&bed)["owed"] == 0);
}

#[test]
fn a_root_that_is_reached_through_a_link_has_its_history_by_either_path() {
    let bed = Bed::new();
    fs::create_dir(bed.path("real")).expect("a directory");
    symlink(bed.path("real"), bed.path("link")).expect("a link");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\n{}\n",
        bed.path("link"),
        shell_key(&bed, "echo \"seen $2\"\n", &["{name}"]),
    ));
    let _daemon = start(&bed);
    // The second is no UTF-8: what is told of it as text is not what it is.
    for name in [&b"a.csv"[..], b"b\xff.csv"] {
        let name = OsStr::from_bytes(name);
        let aside = bed.path("aside");
        fs::write(&aside, "12345").expect("a file");
        fs::rename(&aside, bed.path("real").join(name)).expect("a rename");
        for dir in ["link", "real"] {
            let path = bed.path(dir).join(name);
            let mut text = String::new();
            until("its end", || {
                let said = Command::new(env!("CARGO_BIN_EXE_settled"))
                    .arg("explain")
                    .arg(&path)
                    .arg("-c")
                    .arg(bed.path("settled.toml"))
                    .output()
                    .expect("the built program");
                text = String::from_utf8(said.stdout).expect("text");
                // By the first path it is waited for; by the other one it is there.
                dir == "real" || text.contains("outcome:")
            });
            has(&text, &["settled with 5 bytes", "attempt 1:", "outcome:"]);
        }
    }
}

#[test]
fn a_change_time_that_moved_alone_is_told_as_what_is_ignored() {
    let bed = Bed::new();
    configure(&bed, "run = [\"true\"]", "on_ctime = \"ignore\"");
    let _daemon = start(&bed);
    const MOVED: &str = "its change time has moved since it was concluded";
    put(&bed, "a.csv", "12345");
    until("its end", || explain(&bed, "a.csv").contains("outcome:"));
    assert!(!explain(&bed, "a.csv").contains(MOVED));
    let file = bed.inside("a.csv");
    let before = fs::symlink_metadata(&file).expect("a file");
    until("another change time", || {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
        let now = fs::symlink_metadata(&file).expect("a file");
        (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec())
    });
    // The daemon may be looking at it for the event.
    let mut text = String::new();
    until("it to be told", || {
        text = explain(&bed, "a.csv");
        text.contains(MOVED)
    });
    has(
        &text,
        &["on_ctime = \"ignore\"", &line_of(&bed, "on_ctime")],
    );
    // Another size or time is no matter of the change time.
    fs::write(&file, "123456").expect("a file");
    assert!(!explain(&bed, "a.csv").contains(MOVED));
}

#[test]
fn files_below_a_directory_that_was_renamed_keep_their_history() {
    let bed = Bed::new();
    configure(
        &bed,
        &shell_key(&bed, "echo \"seen $2\"; exit 65\n", &["{name}"]),
        "",
    );
    fs::create_dir_all(bed.inside("above/a")).expect("a directory");
    let mut daemon = start(&bed);
    put(&bed, "aside.csv", "1");
    until("its end", || {
        explain(&bed, "aside.csv").contains("outcome:")
    });
    fs::rename(bed.inside("aside.csv"), bed.inside("above/a/g.csv")).expect("a rename");
    fs::write(bed.path("new"), "12345").expect("a file");
    fs::rename(bed.path("new"), bed.inside("above/a/f.csv")).expect("a rename");
    for name in ["above/a/f.csv", "above/a/g.csv"] {
        until("its end", || explain(&bed, name).contains("outcome:"));
    }
    // By itself, and by a directory above it.
    fs::rename(bed.inside("above/a"), bed.inside("above/b")).expect("a rename");
    until("the name", || {
        explain(&bed, "above/b").contains("yes, as a directory")
    });
    fs::rename(bed.inside("above"), bed.inside("over")).expect("a rename");
    until("the name", || {
        explain(&bed, "over/b").contains("yes, as a directory")
    });
    let check = |when: &str| {
        for (name, size) in [("f.csv", 5), ("g.csv", 1)] {
            let path = bed.inside("over/b").join(name).display().to_string();
            let text = told(&bed, &["explain", &path]);
            assert!(text.contains("| seen "), "{when}: {text}");
            let jobs = of_kind(&rows(&bed, &["explain", &path]), "job");
            assert_eq!(jobs.len(), 1, "{when}: {jobs:?}");
            assert_eq!(jobs[0]["path"], format!("over/b/{name}"), "{when}");
            assert_eq!(jobs[0]["size"], size, "{when}");
            assert_eq!(jobs[0]["outcome"], "dead", "{when}");
            assert_eq!(jobs[0]["attempts"][0]["end"], "exit status 65", "{when}");
        }
        // Nobody has such a file.
        let path = bed.inside("over/c/f.csv").display().to_string();
        assert!(told(&bed, &["explain", &path]).contains("never seen to settle"));
    };
    check("at once");
    daemon.kill();
    let mut daemon = start_compacting(&bed);
    let before = base(&bed);
    let mut count = 0;
    until("a compaction", || {
        put(&bed, format!("{count}.xml"), "x");
        count += 1;
        base(&bed) > before
    });
    check("from its summary");
    assert_eq!(daemon.stop(), Some(0));
}
