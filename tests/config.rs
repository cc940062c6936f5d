//! The configuration: what is accepted becomes the plan that was meant, and everything else is an
//! error with file, line, key and remedy.
#![allow(clippy::unwrap_used)]

use settled::config::{ConfigErrors, load, load_noting};
use settled::core::select::Verdict;
use settled::plan::{
    Backoff, Disposition, Existing, Level, LogTo, Observe, OnChange, OnCtime, Order, Plan,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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
    let run: Vec<&str> = invoices.run.iter().map(|t| t.text()).collect();
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

/// One error each: text of the block's fourth line, the key it is said of, and a part of what is said.
#[test]
fn each_error_names_its_line_and_key() {
    for (line, key, part) in [
        ("pth = 1", "pth", "unknown key (nearest known key 'path')"),
        (
            "recursiv = true",
            "recursiv",
            "nearest known key 'recursive'",
        ),
        ("includes = []", "includes", "nearest known key 'include'"),
        (
            "delivr = {}",
            "delivr",
            "nearest known key 'deliver', which is not built in this version",
        ),
        (
            "deliver = { to = \"/x\" }",
            "deliver",
            "not built in this version",
        ),
        ("worker = [\"x\"]", "worker", "not built in this version"),
        (
            "verify = [\"image\"]",
            "verify",
            "not built in this version",
        ),
        ("output = \"/x\"", "output", "not built in this version"),
        ("rate = \"20/s\"", "rate", "not built in this version"),
        ("user = \"x\"", "user", "not built in this version"),
        (
            "recursive = 1",
            "recursive",
            "is a number; write true or false",
        ),
        ("serial = true", "serial", "needs a key"),
        ("settle = 2", "settle", "write a duration in quotes"),
        ("settle = \"2\"", "settle", "\"2\" is not a duration"),
        ("poll = \"0\"", "poll", "too short"),
        ("poll = \"1ms\"", "poll", "at least \"10ms\""),
        ("min_size = \"10K\"", "min_size", "\"10K\" is not a size"),
        (
            "min_size = { image = \"10KiB\" }",
            "min_size",
            "not built in this version",
        ),
        ("min_size = -1", "min_size", "\"-1\" is not a size"),
        (
            "min_size = \"2\"\nmax_size = 1",
            "min_size",
            "more than max_size",
        ),
        (
            "min_age = \"2s\"\nignore_older = \"2s\"",
            "min_age",
            "not less than ignore_older",
        ),
        (
            "observe = \"inotfy\"",
            "observe",
            "nearest known value 'inotify'",
        ),
        ("existing = \"no\"", "existing", "none of run, skip"),
        ("order = \"size\"", "order", "none of arrival, name, mtime"),
        ("concurrency = 0", "concurrency", "write a number from 1 to"),
        (
            "concurrency = 99999999999999999999",
            "concurrency",
            "out of range",
        ),
        (
            "attempts = \"5\"",
            "attempts",
            "is a string; write a number",
        ),
        ("attempts = 1.5", "attempts", "is a fraction"),
        (
            "backoff = { first = \"2s\", max = \"1s\" }",
            "backoff",
            "raise max",
        ),
        (
            "backoff = { frist = \"2s\" }",
            "backoff.frist",
            "nearest known key 'first'",
        ),
        ("backoff = \"1s\"", "backoff", "write a table"),
        ("backoff = { first = \"0\" }", "backoff.first", "too short"),
        ("include = \"*.csv\"", "include", "write an array"),
        ("include = []", "include", "selects nothing"),
        (
            "include = [\"*.csv\", \"[a\"]",
            "include[1]",
            "unclosed character class",
        ),
        ("exclude = [\"x/\"]", "exclude[0]", "trailing slash"),
        (
            "exclude = [1]",
            "exclude[0]",
            "is a number; write it in quotes",
        ),
        ("key = \"{pth}\"", "key", "nearest known field {path}"),
        ("key = \"{sha256}\"", "key", "not built in this version"),
        ("key = \"{attempt}\"", "key", "cannot use {attempt}"),
        ("done = \"kep\"", "done", "\"kep\" is none of"),
        (
            "done = { mov = \"/x\" }",
            "done.mov",
            "nearest known key 'move'",
        ),
        (
            "done = { flatten = true }",
            "done",
            "does not say where to move",
        ),
        (
            "done = { move = \"archive\" }",
            "done.move",
            "is not absolute",
        ),
        (
            "done = { move = \"{name}/x\" }",
            "done.move",
            "is not absolute",
        ),
        ("done = { move = \"/a/../{name}\" }", "done.move", "'..'"),
        (
            "done = { move = \"/a/{key}\" }",
            "done.move",
            "{key} needs a key",
        ),
        ("dead = { move = \"/srv/a\" }", "dead", "sees them again"),
        ("env = { A = \"{key}\" }", "env.A", "{key} needs a key"),
        (
            "env = { \"A=B\" = \"x\" }",
            "env.A=B",
            "cannot name a variable",
        ),
        (
            "env = { SETTLED_X = \"x\" }",
            "env.SETTLED_X",
            "set for each job",
        ),
        ("env = { A = 1 }", "env.A", "write it in quotes"),
        ("cwd = \"tmp\"", "cwd", "is not absolute"),
        ("formerly = \"a\"", "formerly", "still there"),
        ("formerly = \"a b\"", "formerly", "cannot name a watch"),
        ("timeout = \"99999d\"", "timeout", "longer than"),
    ] {
        let text = format!("[watch.a]\npath = \"/srv/a\"\nrun = [\"x\"]\n{line}\n");
        let errors = refused(&text);
        let said = lines(&errors);
        assert_eq!(said.len(), 1, "{line}: {said:#?}");
        // A move's own key carries the path of the table in which it stands.
        let begin = format!("4: [watch.a] {key}: ");
        let begin_of_block = format!("4: [watch.a] {}: ", key.split('.').next().unwrap());
        assert!(
            said[0].starts_with(&begin) || said[0].starts_with(&begin_of_block) && key == "dead",
            "{line}: {said:?}"
        );
        assert!(said[0].contains(part), "{line}: {said:?}");
        assert_eq!(errors.exit_code(), 78);
        assert!(!errors.unreadable);
    }
}

#[test]
fn errors_outside_of_keys() {
    for (text, begin) in [
        ("", "1: no watch; add a block [watch.NAME]"),
        ("[daemon]\n", "1: no watch"),
        (
            "\n[wach.a]\n",
            "2: wach: unknown key (nearest known key 'watch')",
        ),
        ("\n[tail.a]\n", "2: tail: not built in this version"),
        ("[alert]\n", "1: alert: not built in this version"),
        (
            "[daemon]\n\nmetrics_textfile = \"/x\"",
            "3: [daemon] metrics_textfile: not built",
        ),
        (
            "[daemon]\nstat = \"/x\"",
            "2: [daemon] stat: unknown key (nearest known key 'state')",
        ),
        (
            "[daemon]\nstate = \"x\"",
            "2: [daemon] state: \"x\" is not absolute",
        ),
        (
            "[daemon]\nlog = \"file\"",
            "2: [daemon] log: \"file\" is none of journald, syslog, stderr",
        ),
        (
            "daemon = 3",
            "1: [daemon] is a number; write a table, as in [daemon]",
        ),
        ("[watch]\npath = \"/x\"", "2: [watch] path: is not a block"),
        ("[[watch]]\n", "1: [watch] is an array"),
        (
            "[watch.\"a b\"]\npath=\"/a\"\nrun=[\"x\"]",
            "1: [watch] \"a b\" cannot name a watch",
        ),
        ("[watch.a]\nrun=[\"x\"]", "1: [watch.a] path: is missing"),
        ("[watch.a]\npath=\"/a\"", "1: [watch.a] run: is missing"),
        (
            "[watch.a]\npath=\"/a\"\nrun=[]",
            "3: [watch.a] run: is empty",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=\"x\"",
            "3: [watch.a] run: is a string; write an array",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\n\"x\",\n\"{key}\"]",
            "5: [watch.a] run[1]: {key} needs a key",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\n\"\"]",
            "4: [watch.a] run[0]: is empty",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\"bin/x\"]",
            "3: [watch.a] run[0]: \"bin/x\" is relative",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\"x\\u0000\"]",
            "3: [watch.a] run[0]: a NUL byte",
        ),
        (
            "[watch.a]\npath=\"a\"\nrun=[\"x\"]",
            "2: [watch.a] path: \"a\" is not absolute",
        ),
        (
            "[watch.a]\npath=\"/a/../b\"\nrun=[\"x\"]",
            "2: [watch.a] path: \"/a/../b\" has '..' in it",
        ),
        (
            "[watch.a]\npath=\"/var/lib/settled/x\"\nrun=[\"x\"]",
            "2: [watch.a] path: lies in the state directory",
        ),
        ("[watch.a]\npath=\"/a\n", "2: not TOML: "),
        (
            "[watch.a]\npath=\"/a\"\npath=\"/b\"",
            "3: not TOML: duplicate key",
        ),
        (
            "[defaults]\nformerly = \"x\"\n[watch.a]\npath=\"/a\"\nrun=[\"x\"]",
            "2: [defaults] formerly: belongs to one watch",
        ),
        (
            "[defaults]\natempts = 3\n[watch.a]\npath=\"/a\"\nrun=[\"x\"]",
            "2: [defaults] atempts: unknown key (nearest known key 'attempts')",
        ),
    ] {
        let said = lines(&refused(text));
        assert_eq!(said.len(), 1, "{text}: {said:#?}");
        assert!(said[0].starts_with(begin), "{text}: {said:?}");
    }
}

#[test]
fn all_errors_at_once_in_the_order_of_their_lines() {
    let errors = refused(
        "[daemon]\nconcurrency = 0\n[watch.b]\nrun = [\"x\"]\nserial = true\n[watch.a]\npath = \"x\"\nrun = 3\nsettle = \"x\"\nnice = 3\n",
    );
    let said = lines(&errors);
    let heads: Vec<&str> = said.iter().map(|l| l.split(": ").next().unwrap()).collect();
    assert_eq!(heads, ["2", "3", "5", "7", "8", "9", "10"], "{said:#?}");
    let path = errors.list[0].file.display().to_string();
    assert!(errors.to_string().lines().all(|l| l.starts_with(&path)));
}

#[test]
fn an_error_stays_on_its_line_whatever_the_keys_are() {
    let errors = refused("[watch.a]\npath=\"/a\"\nrun=[\"x\"]\n\"b\\n\\u001b[31m\" = 1\n");
    let text = errors.to_string();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("b\\n\\u{1b}[31m"), "{text}");
}

#[test]
fn the_example_is_accepted_but_for_what_is_not_built() {
    let example = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/example.toml"
    ))
    .unwrap();
    let errors = refused(&example);
    for error in &errors.list {
        assert!(error.what.contains("not built in this version"), "{error}");
    }
    let keys: Vec<String> = errors
        .list
        .iter()
        .map(|e| format!("{} {}", e.section, e.key))
        .collect();
    assert_eq!(
        keys,
        [
            "daemon metrics_textfile",
            "watch.triggers output",
            "watch.to-enrich deliver",
            "watch.cameras verify",
            "watch.cameras min_size",
            "watch.cameras dedup",
            "watch.cameras on_new_dir",
            "watch.cameras worker",
            "watch.cameras workers",
            "watch.cameras window",
            "watch.cameras rate",
            "watch.cameras duplicate",
            "watch.cameras invalid",
            " tail",
            " alert",
        ]
    );
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

/// No text makes the reader panic: thousands of mutations of a valid file, loaded as files are.
#[test]
fn no_text_is_too_wrong() {
    let example = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/example.toml"
    ))
    .unwrap();
    let files = Files::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 11).unwrap() % below
    };
    let snippets: [&[u8]; 20] = [
        b"\"",
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b"\n",
        b"\\",
        b"\0",
        b"\xff",
        b"..",
        b"/",
        b"{{",
        b"|slug",
        b"*",
        b"-1",
        b"99999999999999999999",
        b"\xc3\xa9",
        b"[[",
        b"'''",
    ];
    let (mut good, mut bad) = (0, 0);
    for round in 0..4_000 {
        let mut text = if round % 2 == 0 {
            WHOLE.as_bytes().to_vec()
        } else {
            example.clone()
        };
        for _ in 0..1 + random(4) {
            let at = random(text.len());
            match random(5) {
                0 => text[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(text.remove(at)),
                2 => {
                    let snippet = snippets[random(snippets.len())];
                    text.splice(at..at, snippet.iter().copied());
                }
                3 => {
                    let end = (at + random(30)).min(text.len());
                    let piece = text[at..end].to_vec();
                    let to = random(text.len());
                    text.splice(to..to, piece);
                }
                _ => {
                    let end = (at + random(30)).min(text.len());
                    text.drain(at..end);
                }
            }
            if text.is_empty() {
                text.push(b'\n');
            }
        }
        match load(&files.write("s.toml", &text)) {
            Ok(_) => good += 1,
            Err(errors) => {
                bad += 1;
                assert!(!errors.list.is_empty());
                let shown = errors.to_string();
                assert_eq!(shown.lines().count(), errors.list.len(), "{shown}");
            }
        }
    }
    assert!(
        good > 20 && bad > 2_000,
        "mutations must be both: {good} good, {bad} bad"
    );
}

#[test]
fn deep_nesting_is_an_error() {
    let text = format!("[watch.a]\npath = {}", "[".repeat(100_000));
    assert!(!refused(&text).list.is_empty());
}

// The command line, as the built binary.

fn settled(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_settled"))
        .args(arguments)
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_says_what_it_understood() {
    let files = Files::new();
    let root = files.path("in");
    std::fs::create_dir(&root).unwrap();
    let root = root.display();
    let config = files.write(
        "s.toml",
        format!(
            "[daemon]\nsocket = \"/run/x\"\n[watch.a]\npath = \"{root}\"\nrecursive = true\nrun = [\"/bin/sh\", \"-c\", \"a b\", \"{{path}}\"]\ndone = {{ move = \"{root}/done/{{date}}\" }}\n[watch.b]\npath = \"{root}/none\"\nrun = [\"/no/such/program\"]\n[watch.c]\npath = \"{root}\"\nrun = [\"no-such-program-at-all\"]\n"
        ),
    );
    let output = settled(&["check", "-c", config.to_str().unwrap()]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        text.ends_with(&format!("{}: ok\n", config.display())),
        "{text}"
    );
    for part in [
        "watch a\n".to_owned(),
        format!("{root} and all directories below"),
        format!("{root}/done (settled's own)"),
        "/bin/sh -c \"a b\" {path}".into(),
        "observe:".into(),
        "settle:".into(),
        format!("warning:   path: {root}/none: No such file"),
        "warning:   run: /no/such/program: No such file".into(),
        "warning:   run: no-such-program-at-all is not found in PATH".into(),
        "s.toml:2: [daemon] socket: accepted, and not used by this version".into(),
    ] {
        assert!(text.contains(&part), "{part}\n{text}");
    }
    let a = text.split("watch b").next().unwrap();
    assert!(!a.contains("warning"), "{a}");
}

#[test]
fn check_warns_of_targets_behind_links() {
    let files = Files::new();
    std::fs::create_dir_all(files.path("real/in")).unwrap();
    std::os::unix::fs::symlink(files.path("real"), files.path("link")).unwrap();
    let (link, real) = (files.path("link"), files.path("real"));
    let config = files.write(
        "s.toml",
        format!(
            "[watch.a]\npath = \"{}/in\"\nrecursive = true\nrun = [\"/bin/true\"]\ndone = {{ move = \"{}/in/done\" }}\n",
            link.display(),
            real.display()
        ),
    );
    let text = out(&settled(&["check", "-c", config.to_str().unwrap()]));
    assert!(text.contains("through a symbolic link"), "{text}");
}

#[test]
fn exit_codes_are_those_of_sysexits() {
    let files = Files::new();
    let bad = files.write(
        "s.toml",
        "[watch.a]\npath = \"/a\"\nrun = [\"x\"]\nseetle = \"1s\"\n",
    );
    let bad = bad.to_str().unwrap();
    let missing = files.path("none");
    let missing = missing.to_str().unwrap();
    for (arguments, code, part) in [
        (
            vec!["check", "-c", bad],
            78,
            "s.toml:4: [watch.a] seetle: unknown key (nearest known key 'settle')",
        ),
        (vec!["run", "-c", bad], 78, "nearest known key 'settle'"),
        (
            vec!["check", "-c", missing],
            66,
            "cannot be read: No such file",
        ),
        (vec!["run", "-c", missing], 66, "cannot be read"),
        (vec![], 64, "Usage"),
        (vec!["wach"], 64, "watch"),
        (vec!["watch"], 64, "DIR"),
        (vec!["watch", "/x"], 64, "CMD"),
        (
            vec!["watch", "/x", "--settle", "2", "--", "x"],
            64,
            "is not a duration",
        ),
        (
            vec!["watch", "/x", "--serial", "--", "x"],
            64,
            "--serial: needs a key",
        ),
        (
            vec!["watch", "/x", "--", "x", "{key}"],
            64,
            "CMD: {key} needs a key",
        ),
        (
            vec!["watch", "/x", "--", "x", "{pth}"],
            64,
            "nearest known field {path}",
        ),
        (
            vec!["watch", "/x", "--done", "mv=/y", "--", "x"],
            64,
            "--done: \"mv=/y\" is none of keep, delete, move=DIR",
        ),
        (
            vec!["watch", "/x", "--done", "move=/x", "--", "x"],
            64,
            "--done: moves files to where",
        ),
        (
            vec!["watch", "/x", "--include", "[a", "--", "x"],
            64,
            "--include: \"[a\": unclosed",
        ),
        (
            vec!["watch", "/x", "--env", "A", "--", "x"],
            64,
            "write NAME=VALUE",
        ),
        (
            vec!["watch", "/x", "--poll", "0", "--", "x"],
            64,
            "at least 10ms",
        ),
    ] {
        let output = settled(&arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            err(&output)
        );
        assert!(
            err(&output).contains(part),
            "{arguments:?}: {}",
            err(&output)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [["--version"], ["--help"]] {
        let output = settled(&arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("settled"));
    }
    let help = out(&settled(&["watch", "--help"]));
    assert!(help.contains("nothing is appended"), "{help}");
}
