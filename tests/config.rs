//! The configuration: what is accepted becomes the plan that was meant, and everything else is an
//! error with file, line, key and remedy.
#![allow(clippy::unwrap_used)]

#[path = "config/changes.rs"]
mod changes;
#[path = "config/command_line.rs"]
mod command_line;
#[path = "config/dispatch.rs"]
mod dispatch;
#[path = "config/errors.rs"]
mod errors;

use settled::config::{ConfigErrors, load, load_noting};
use settled::core::select::Verdict;
use settled::plan::{
    Backoff, Disposition, Existing, Level, LogTo, Observe, OnChange, OnCtime, Order, Plan,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A directory with configuration files in it.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        path
    }
}

fn loaded(text: &str) -> Plan {
    let files = Files::new();
    load(&files.write("s.toml", text)).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn refused(text: &str) -> ConfigErrors {
    let files = Files::new();
    match load(&files.write("s.toml", text)) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors,
    }
}

/// Each error as `LINE: [SECTION] KEY: WHAT`.
fn lines(errors: &ConfigErrors) -> Vec<String> {
    let text = errors.to_string();
    let strip = |line: &str| {
        line.split_once("s.toml:")
            .unwrap_or(("", line))
            .1
            .to_owned()
    };
    text.lines().map(strip).collect()
}

const WHOLE: &str = r#"
[daemon]
state       = "/var/lib/settled"
log         = "syslog"
log_level   = "debug"
concurrency = 7
remember    = "36h"
drain       = "5s"
mount_silent = "30s"

[defaults]
attempts = 3
backoff  = { first = "2s", max = "5m" }

[watch.triggers]
path        = "/srv/etl/triggers/"
include     = ["*.trigger"]
run         = ["/bin/sh", "{path}"]
concurrency = 1
done        = "delete"

[watch.invoices]
path      = "/srv/sftp/incoming"
recursive = true
include   = ["*.csv", "*.xml"]
exclude   = ["draft-*"]
ignore_case = true
builtin_excludes = false
min_size = "1"
max_size = "4MB"
min_age = "1s"
ignore_older = "30d"
settle    = "2s"
flock = true
observe = "both"
poll = "500ms"
existing = "skip"
on_ctime = "run"
on_change = "accept"
formerly = "bills"
run       = ["/usr/local/bin/load-invoice", "--source", "{key}", "{path}"]
key       = "{dir1|slug}"
serial    = true
order     = "name"
env = { LANG = "C", SOURCE = "{dir1}" }
cwd = "/tmp"
timeout   = "10m"
kill_after = "3s"
attempts = 9
done      = { move = "/srv/archive/{date}", flatten = true }
dead      = { move = "/srv/failed" }
"#;

#[test]
fn every_key_reaches_the_plan() {
    let plan = loaded(WHOLE);
    assert_eq!(plan.daemon.state, Path::new("/var/lib/settled"));
    assert_eq!(plan.daemon.log, LogTo::Syslog);
    assert_eq!(plan.daemon.log_level, Level::Debug);
    assert_eq!(plan.daemon.concurrency, 7);
    assert_eq!(plan.daemon.remember, Duration::from_secs(36 * 3600));
    assert_eq!(plan.daemon.drain, Duration::from_secs(5));
    assert_eq!(plan.daemon.mount_silent, Duration::from_secs(30));
    let [invoices, triggers] = plan.watches.as_slice() else {
        panic!("two watches in the order of their names");
    };
    assert_eq!(invoices.name, "invoices");
    assert_eq!(invoices.path, b"/srv/sftp/incoming");
    assert!(invoices.recursive && invoices.flock && invoices.serial);
    assert_eq!(invoices.select.file(b"x/A.CSV"), Verdict::Yes);
    assert_eq!(invoices.select.file(b".a.csv"), Verdict::Yes);
    assert_eq!(
        invoices.select.file(b"draft-1.csv"),
        Verdict::Excluded("draft-*".into())
    );
    assert_eq!(invoices.select.min_size, Some(1));
    assert_eq!(invoices.select.max_size, Some(4_000_000));
    assert_eq!(invoices.select.min_age, Some(Duration::from_secs(1)));
    assert_eq!(
        invoices.select.ignore_older,
        Some(Duration::from_secs(30 * 86_400))
    );
    assert_eq!(invoices.settle, Some(Duration::from_secs(2)));
    assert_eq!(invoices.observe, Observe::Both);
    assert_eq!(invoices.poll, Duration::from_millis(500));
    assert_eq!(invoices.existing, Existing::Skip);
    assert_eq!(invoices.on_ctime, OnCtime::Run);
    assert_eq!(invoices.on_change, OnChange::Accept);
    assert_eq!(invoices.formerly.as_deref(), Some("bills"));
    let run: Vec<&str> = invoices.argv().iter().map(|t| t.text()).collect();
    assert_eq!(
        run,
        ["/usr/local/bin/load-invoice", "--source", "{key}", "{path}"]
    );
    assert_eq!(invoices.key.as_ref().unwrap().text(), "{dir1|slug}");
    assert_eq!(invoices.order, Order::Name);
    let env: Vec<_> = invoices
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.text()))
        .collect();
    assert_eq!(env, [("LANG", "C"), ("SOURCE", "{dir1}")]);
    assert_eq!(invoices.cwd.as_deref(), Some(b"/tmp".as_slice()));
    assert_eq!(invoices.concurrency, 7);
    assert_eq!(invoices.timeout, Some(Duration::from_secs(600)));
    assert_eq!(invoices.kill_after, Duration::from_secs(3));
    assert_eq!(invoices.attempts, 9);
    let Disposition::Move { to, flatten: true } = &invoices.done else {
        panic!("{:?}", invoices.done);
    };
    assert_eq!(to.text(), "/srv/archive/{date}");
    assert!(matches!(
        &invoices.dead,
        Disposition::Move { flatten: false, .. }
    ));
    // From [defaults], and from the path without its slash.
    assert_eq!(triggers.path, b"/srv/etl/triggers");
    assert_eq!(triggers.attempts, 3);
    let backoff = Backoff {
        first: Duration::from_secs(2),
        max: Duration::from_secs(300),
    };
    assert_eq!(triggers.backoff, backoff);
    assert_eq!(triggers.concurrency, 1);
    assert_eq!(triggers.done, Disposition::Delete);
}

#[test]
fn defaults_are_those_of_the_manual() {
    let plan = loaded("[watch.a]\npath = \"/srv/a\"\nrun = [\"true\"]\n");
    let daemon = &plan.daemon;
    assert_eq!(daemon.state, Path::new("/var/lib/settled"));
    assert_eq!(daemon.log, LogTo::Stderr);
    assert_eq!(daemon.log_level, Level::Info);
    assert_eq!(
        (daemon.concurrency, daemon.remember.as_secs()),
        (16, 30 * 86_400)
    );
    assert_eq!(
        (daemon.drain.as_secs(), daemon.mount_silent.as_secs()),
        (60, 60)
    );
    let [a] = plan.watches.as_slice() else {
        panic!("one watch");
    };
    assert!(!a.recursive && !a.flock && !a.serial && a.excluded.is_empty());
    assert_eq!(a.select.file(b"x"), Verdict::Yes);
    assert_eq!(a.select.file(b"x.tmp"), Verdict::BuiltIn("*.tmp"));
    assert_eq!((a.settle, a.timeout, a.cwd.clone()), (None, None, None));
    assert_eq!((a.observe, a.existing), (Observe::Auto, Existing::Run));
    assert_eq!((a.on_ctime, a.on_change), (OnCtime::Ignore, OnChange::Run));
    assert_eq!(
        (a.order, a.attempts, a.concurrency),
        (Order::Arrival, 5, 16)
    );
    assert_eq!((a.poll.as_secs(), a.kill_after.as_secs()), (1, 10));
    assert_eq!(
        (a.backoff.first.as_secs(), a.backoff.max.as_secs()),
        (1, 600)
    );
    assert_eq!((&a.done, &a.dead), (&Disposition::Keep, &Disposition::Keep));
}

#[test]
fn no_limit_is_written_as_zero() {
    let plan = loaded(
        "[defaults]\ntimeout = \"1s\"\n[watch.a]\npath = \"/a\"\nrun = [\"x\"]\ntimeout = \"0\"\nsettle = \"0\"\n",
    );
    assert_eq!(plan.watches[0].timeout, None);
    assert_eq!(plan.watches[0].settle, Some(Duration::ZERO));
}

#[test]
fn included_files_add_watches() {
    let files = Files::new();
    let main = files.write(
        "s.toml",
        "[daemon]\ninclude = [\"conf.d/*.toml\", \"conf.d/b.toml\", \"none/*\"]\n[defaults]\nattempts = 2\n",
    );
    files.write("conf.d/b.toml", "[watch.b]\npath = \"/b\"\nrun = [\"x\"]\n");
    files.write("conf.d/a.toml", "[watch.a]\npath = \"/a\"\nrun = [\"x\"]\n");
    files.write("conf.d/.hidden.toml", "nonsense");
    files.write("conf.d/a.toml.bak", "nonsense");
    let loaded = load_noting(&main).unwrap();
    let names: Vec<&str> = loaded
        .plan
        .watches
        .iter()
        .map(|w| w.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(loaded.plan.watches.iter().all(|w| w.attempts == 2));
    assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
    assert!(loaded.notes[0].contains("\"none/*\" matches no file"));
}

#[test]
fn errors_in_included_files_name_them() {
    let files = Files::new();
    let main = files.write(
        "s.toml",
        "[daemon]\ninclude = [\"a.toml\", \"missing.toml\", \"*/x.toml\", \"b.toml\"]\n[watch.a]\npath = \"/a\"\nrun = [\"x\"]\n",
    );
    files.write(
        "a.toml",
        "\n\n[watch.a]\npath = \"/a\"\nrun = [\"x\"]\n[defaults]\n",
    );
    files.write(
        "b.toml",
        "[watch.b]\npath = \"/b\"\nrun = [\"x\"]\nkye = \"x\"\n",
    );
    let text = load(&main).unwrap_err().to_string();
    let dir = files.0.path().display().to_string();
    let said: Vec<String> = text.lines().map(|l| l.replace(&dir, "")).collect();
    let begins = [
        "/s.toml:2: [daemon] include: \"*/x.toml\": only the last part can be a pattern",
        "/a.toml:3: [watch.a] there is a watch of this name in /s.toml:3 already",
        "/a.toml:6: [defaults] belongs to the file that includes this one",
        "/missing.toml: cannot be read: No such file",
        "/b.toml:4: [watch.b] kye: unknown key (nearest known key 'key')",
    ];
    assert_eq!(said.len(), begins.len(), "{said:#?}");
    for begin in begins {
        assert!(
            said.iter().any(|l| l.starts_with(begin)),
            "{begin}: {said:#?}"
        );
    }
}

#[test]
fn files_that_cannot_be_read_or_trusted() {
    let files = Files::new();
    let missing = load(&files.path("none.toml")).unwrap_err();
    assert_eq!(missing.exit_code(), 66);
    assert!(missing.to_string().contains("No such file"), "{missing}");
    let directory = load(files.0.path()).unwrap_err();
    assert_eq!(directory.exit_code(), 66);
    assert!(
        directory
            .to_string()
            .contains("is a directory; name a file")
    );
    let fifo = files.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let fifo = load(&fifo).unwrap_err();
    assert!(fifo.unreadable && fifo.to_string().contains("not a regular file"));

    let text = "[watch.a]\npath = \"/a\"\nrun = [\"x\"]\n";
    let open = files.write("open.toml", text);
    for mode in [0o666, 0o664, 0o646] {
        std::fs::set_permissions(&open, PermissionsExt::from_mode(mode)).unwrap();
        let errors = load(&open).unwrap_err();
        assert_eq!(errors.exit_code(), 78);
        assert!(errors.to_string().contains("chmod go-w"), "{errors}");
    }
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(load(&open).is_ok());
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&open, Some(12345), None).unwrap();
        let errors = load(&open).unwrap_err();
        assert!(
            errors.to_string().contains("belongs to user 12345"),
            "{errors}"
        );
    }

    let latin = files.write("s.toml", b"[watch.a]\n# caf\xe9\n");
    let errors = load(&latin).unwrap_err();
    assert_eq!(
        lines(&errors),
        ["2: is not UTF-8 from here; TOML is UTF-8 text"]
    );
}

#[test]
fn own_paths_inside_a_watch_are_left_out() {
    let plan = loaded(
        r#"
[daemon]
state = "/srv/a/.state/settled"
[watch.a]
path = "/srv/a"
recursive = true
run = ["x"]
done = { move = "/srv/a/done/{date}" }
dead = { move = "/srv/b/dead" }
[watch.b]
path = "/srv/b"
recursive = true
run = ["x"]
done = { move = "/srv/a/done/deeper/{name}" }
[watch.c]
path = "/"
recursive = true
run = ["x"]
[watch.d]
path = "/srv/a/done-not"
run = ["x"]
"#,
    );
    let excluded: Vec<(&str, Vec<String>)> = plan
        .watches
        .iter()
        .map(|w| {
            let text = |p: &Vec<u8>| String::from_utf8(p.clone()).unwrap();
            (w.name.as_str(), w.excluded.iter().map(text).collect())
        })
        .collect();
    let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    assert_eq!(
        excluded,
        [
            ("a", owned(&[".state/settled", "done"])),
            ("b", owned(&["dead"])),
            (
                "c",
                owned(&["srv/a/.state/settled", "srv/a/done", "srv/b/dead"])
            ),
            ("d", owned(&[])),
        ]
    );
}

#[test]
fn files_that_would_go_round_are_refused_and_chains_are_not() {
    let two = |a: &str, b: &str| {
        format!(
            "[watch.a]\npath = \"/srv/a\"\nrun = [\"x\"]\nrecursive = true\ndone = {{ move = \"{a}\" }}\n[watch.b]\npath = \"/srv/b\"\nrun = [\"x\"]\ndone = {{ move = \"{b}\" }}\n"
        )
    };
    // A chain: what is done in a is work for b.
    let chain = loaded(&two("/srv/b", "/srv/c"));
    assert!(chain.watches.iter().all(|w| w.excluded.is_empty()));
    let circle = lines(&refused(&two("/srv/b", "/srv/a")));
    assert_eq!(circle.len(), 2, "{circle:?}");
    assert!(
        circle[0].starts_with("5: [watch.a] done: moves files into watch b"),
        "{circle:?}"
    );
    assert!(
        circle[1].starts_with("9: [watch.b] done: moves files into watch a"),
        "{circle:?}"
    );
    for (target, line) in [
        (
            "/srv/a",
            "5: [watch.a] done: moves files to where this watch sees them again",
        ),
        ("/srv/a/{date}", "5: [watch.a] done: moves files"),
        ("{dir}/done", "5: [watch.a] done: moves files"),
    ] {
        let said = lines(&refused(&two(target, "/srv/c")));
        assert!(
            said.len() == 1 && said[0].starts_with(line),
            "{target}: {said:?}"
        );
    }
    // Not entered: a hidden directory, and any directory of a watch that is not recursive.
    for (target, other) in [
        ("{dir}/.done", "/srv/c"),
        ("/srv/c", "/srv/b/{date}"),
        ("/srv/c", "{dir}/done"),
    ] {
        loaded(&two(target, other));
    }
}

#[test]
fn histories_have_one_heir() {
    let said = lines(&refused(
        "[watch.a]\npath=\"/a\"\nrun=[\"x\"]\nformerly=\"z\"\n[watch.b]\npath=\"/b\"\nrun=[\"x\"]\nformerly=\"z\"\n",
    ));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("8: [watch.b] formerly: watch a takes the history of z"));
}
