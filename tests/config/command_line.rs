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
