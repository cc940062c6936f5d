//! Directories that this machine exports over NFS, by a table of its server: in a mount namespace of the daemon's own, in
//! which `/var/lib` is a directory of the test. No server runs.

use crate::bed::{Bed, Daemon, until};
use crate::kit::put;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The built program with `/var/lib` from the bed, or nothing where no namespace can be made.
fn settled(bed: &Bed, arguments: &[&str]) -> Option<Command> {
    let made = Command::new("unshare").args(["-m", "true"]).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no permission to make a mount namespace");
        return None;
    }
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" /var/lib && shift && exec \"$@\"";
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(bed.path("lib"))
        .arg(env!("CARGO_BIN_EXE_settled"))
        .args(arguments)
        .arg("-c")
        .arg(bed.path("settled.toml"));
    Some(command)
}

/// What exportfs(8) does: it writes another file and renames it.
fn export(bed: &Bed, text: &str) {
    let etab = etab(bed);
    let new = etab.with_extension("tmp");
    fs::write(&new, text).expect("a table");
    fs::rename(&new, &etab).expect("a rename");
}

fn etab(bed: &Bed) -> PathBuf {
    let dir = bed.path("lib/nfs");
    fs::create_dir_all(&dir).expect("a directory");
    dir.join("etab")
}

/// Two watches: `w` over `in`, and `other` over a directory that is never taken for exported.
fn configure(bed: &Bed, keys: &str) {
    let other = bed.path("other");
    fs::create_dir_all(&other).expect("a directory");
    let run = bed.run_key(&[]);
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\n{run}{keys}\n[watch.other]\npath = {other:?}\nexported = false\n{run}",
        bed.path("in"),
    ));
}

fn start(bed: &Bed) -> Option<Daemon> {
    let daemon = bed.spawn_command(settled(bed, &["run"])?, &[]);
    daemon.wait_log("ready:");
    Some(daemon)
}

fn line(bed: &Bed) -> String {
    // With an escape, as exportfs(8) writes what is not plain.
    let path = bed
        .path("in")
        .display()
        .to_string()
        .replace("/in", "/\\151n");
    format!("{path}\t*(rw,sync,wdelay,hide,nocrossmnt)\n")
}

fn has_run(bed: &Bed, name: &str) -> bool {
    bed.runs().iter().any(|run| run.name() == name)
}

/// Two files that come to rest one after the other in the watch that is not exported: what settled as quickly in `w` has
/// been run when they have.
fn others_pass(bed: &Bed, names: [&str; 2]) {
    for name in names {
        fs::write(bed.path("other").join(name), "x").expect("a file");
        until("a run in the other watch", || has_run(bed, name));
    }
}

#[test]
fn the_servers_table_is_followed_while_the_daemon_runs() {
    let bed = Bed::new();
    configure(&bed, "");
    export(&bed, "");
    let Some(daemon) = start(&bed) else { return };
    fs::write(bed.inside("before"), "x").expect("a file");
    bed.wait_runs(1);
    assert_eq!(daemon.log_count("exported over NFS"), 0);

    export(&bed, &line(&bed));
    daemon.wait_log("exported over NFS");
    fs::write(bed.inside("closed"), "x").expect("a file");
    put(&bed, "renamed", "x");
    others_pass(&bed, ["a", "b"]);
    assert!(!has_run(&bed, "closed") && !has_run(&bed, "renamed"));
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log("state: exported over NFS (");

    export(&bed, &line(&bed).replace("rw", "ro"));
    daemon.wait_log("not exported over NFS any more");
    until("both are run", || {
        has_run(&bed, "closed") && has_run(&bed, "renamed")
    });
}

#[test]
fn a_table_that_cannot_be_read_is_told_and_waited_for() {
    let bed = Bed::new();
    configure(&bed, "");
    fs::create_dir(etab(&bed)).expect("a directory in its place");
    let Some(daemon) = start(&bed) else { return };
    daemon.wait_log("the NFS export tables cannot be read: /var/lib/nfs/etab: Is a directory");
    fs::write(bed.inside("a"), "x").expect("a file");
    others_pass(&bed, ["b", "c"]);
    assert!(!has_run(&bed, "a"));
    fs::remove_dir(etab(&bed)).expect("an empty directory");
    export(&bed, "");
    until("the file is run", || has_run(&bed, "a"));
}

#[test]
fn check_says_what_is_exported_and_why() {
    let bed = Bed::new();
    configure(&bed, "settle = \"2s\"\n");
    export(&bed, &line(&bed));
    let Some(mut command) = settled(&bed, &["check"]) else {
        return;
    };
    let mut said = || {
        let output = command.stdin(Stdio::null()).output().expect("settled");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = said();
    let why = format!(
        "exported:  over NFS ({} to *(rw,sync,wdelay,hide,nocrossmnt) in /var/lib/nfs/etab)",
        bed.path("in").canonicalize().expect("a path").display()
    );
    assert!(text.contains(&why), "{text}");
    assert!(
        text.contains("warning:   settle: 2s is less than 40s: NFSv3 clients"),
        "{text}"
    );
    assert_eq!(text.matches("exported:").count(), 1, "{text}");

    configure(&bed, "");
    let text = said();
    assert!(
        text.contains("settle:    40s without a change after no writer was seen"),
        "{text}"
    );
    assert!(!text.contains("warning:"), "{text}");

    configure(&bed, "exported = false\n");
    let text = said();
    assert!(
        text.contains("exported:  not taken for it (exported = false), though "),
        "{text}"
    );
    assert!(!text.contains("40s"), "{text}");
}
