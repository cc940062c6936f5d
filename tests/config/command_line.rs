//! The command line, as the built binary.

use super::*;
use std::process::{Command, Output};

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
        "; socket /run/x;".into(),
    ] {
        assert!(text.contains(&part), "{part}\n{text}");
    }
    let a = text.split("watch b").next().unwrap();
    assert!(!a.contains("warning"), "{a}");
}

#[test]
fn check_says_each_bound_in_words() {
    let files = Files::new();
    let config = files.write(
        "s.toml",
        r#"
[watch.a]
path = "/srv/a"
run = ["/bin/sh", "{path}"]
key = "{dir1}"
key_concurrency = 3
batch = { max = 50, wait = "2s", split = true }
rate = "20/m"
output = "/srv/a/none/x.log"
umask = "027"
nice = 5
ionice = "best-effort:6"
limits = { nofile = 64, as = "2GiB", cpu = "10m", core = 0 }
permanent = [3, 4]
temporary = [9]
max_age = "24h"
on_dead = "halt"
orphans = "kill"
[watch.b]
path = "/srv/b"
worker = ["/no/such/worker"]
workers = 2
window = 10
ready = "30s"
delivery = "at-most-once"
[watch.c]
path = "/srv/c"
deliver = { to = "/srv/d", mode = "0640", owner = "7:8", verify = "size", on_conflict = "skip" }
"#,
    );
    let output = settled(&["check", "-c", config.to_str().unwrap()]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for part in [
        "batch:     up to 50 files as arguments; the first waits 2s for others; one that fails is run again file by file",
        "key:       {dir1}, 3 at once for each",
        "16 at once, in order of arrival, 20 a minute at most; no time limit; 5 attempts, 1s to 10m between them, none later than 1d after it settled",
        "process:   umask 027; nice 5; I/O class best-effort:6; limit as 2GiB; limit core 0B; limit cpu 10m; limit nofile 64",
        "output:    appended to /srv/a/none/x.log",
        "left out:  /srv/a/none/x.log (settled's own)",
        "warning:   output: /srv/a/none: No such file",
        "failure:   exit status 9: tried again",
        "failure:   exit status 3, 4: dead at once",
        "failure:   a dead job halts the jobs of this watch until",
        "failure:   what outlived an earlier daemon is ended",
        "worker:    /no/such/worker",
        "workers:   2, with up to 10 unanswered jobs each; fed when it has said that it is ready, ended if it has not within 30s",
        "failure:   an attempt that was cut short is not repeated",
        "warning:   worker: /no/such/worker: No such file",
        "deliver:   to /srv/d, with the path below the root; a file whose name is taken there is not delivered, and done",
        "copy:      compared by size; mode 0640; owner 7; group 8; times kept",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let b = text.split("watch b").nth(1).unwrap();
    let b = b.split("watch c").next().unwrap();
    assert!(b.contains("jobs:      in order of arrival; no"), "{b}");
}

/// Where nobody can become another, a configuration that asks for it is refused, and what may fail is said.
#[test]
fn who_is_not_root_is_told_what_needs_root() {
    use std::os::unix::process::CommandExt;
    let files = Files::new();
    std::fs::set_permissions(files.0.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = files.path("settled");
    std::fs::copy(env!("CARGO_BIN_EXE_settled"), &program).unwrap();
    let check = |config: &Path| {
        let mut command = Command::new(&program);
        command.args(["check", "-c"]).arg(config);
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        command.output().unwrap()
    };
    let block = "[watch.a]\npath = \"/srv/a\"\n";
    let refused = files.write(
        "s.toml",
        format!("{block}run = [\"/bin/true\"]\nuser = \"root\"\ngroup = 0\n"),
    );
    let output = check(&refused);
    let said = err(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in [
        "s.toml:4: [watch.a] user: only root",
        "s.toml:5: [watch.a] group: only root",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let warned = files.write(
        "w.toml",
        format!(
            "{block}deliver = {{ to = \"/srv/b\", owner = \"0\" }}\nnice = -1\nionice = \"realtime:0\"\nlimits = {{ nofile = 1000000000 }}\n"
        ),
    );
    let output = check(&warned);
    let said = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for part in [
        "warning:   nice: below 0 needs root",
        "warning:   ionice: realtime needs root",
        "warning:   limits: nofile 1000000000 is above the hard limit",
        "warning:   deliver.owner: to give files away needs root",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
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
