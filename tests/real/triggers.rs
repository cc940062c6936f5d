//! The trigger queue that is shipped, with its paths replaced: strictly one after another, output in a log, removed when
//! done, kept and reported when failed.

use crate::bed::{Bed, Daemon, until};
use crate::kit::{self, put, wait_concluded};
use std::fs;
use std::process::Command;

fn queue(bed: &Bed) -> Daemon {
    let shipped = fs::read_to_string(kit::example("triggers.toml")).expect("the shipped file");
    let (root, log) = ("/srv/etl/triggers", "/var/log/settled/triggers.log");
    assert_eq!(
        (shipped.matches(root).count(), shipped.matches(log).count()),
        (1, 1)
    );
    let here = shipped
        .replace(root, &bed.path("in").display().to_string())
        .replace(log, &bed.path("triggers.log").display().to_string());
    bed.configure_text(&here);
    kit::start(bed)
}

fn log(bed: &Bed) -> Vec<String> {
    let text = fs::read_to_string(bed.path("triggers.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn triggers_run_one_after_another_and_are_removed() {
    const TRIGGERS: usize = 20;
    let bed = Bed::new();
    let mut daemon = queue(&bed);
    // By a process of its own: what another test forks from this one meanwhile has its files open for writing, too,
    // until it executes its program, and such a trigger settles later than the next.
    let writer = format!(
        "n=0; while [ $n -lt {TRIGGERS} ]; do \
         echo \"echo begin $n; sleep 0.02; echo end $n >&2\" > t$n && mv t$n t$n.trigger || exit; n=$((n + 1)); done"
    );
    let written = Command::new("sh")
        .args(["-c", &writer])
        .current_dir(bed.path("in"))
        .status();
    // As writers do: it is a trigger when it has moved to its name.
    assert!(written.expect("sh").success());
    wait_concluded(&bed, TRIGGERS);
    until("all are removed", || {
        fs::read_dir(bed.path("in")).expect("the directory").count() == 0
    });
    assert_eq!(daemon.stop(), Some(0));
    let expected: Vec<_> = (0..TRIGGERS)
        .flat_map(|n| [format!("begin {n}"), format!("end {n}")])
        .collect();
    assert_eq!(
        log(&bed),
        expected,
        "one after another, in the order of arrival"
    );
}

#[test]
fn a_trigger_that_fails_is_kept_and_reported_and_the_next_runs() {
    let bed = Bed::new();
    let daemon = queue(&bed);
    put(&bed, "bad.trigger", "echo cannot do it; exit 1\n");
    put(&bed, "good.trigger", "echo fine\n");
    wait_concluded(&bed, 2);
    until("the good one is removed", || {
        !bed.inside("good.trigger").exists()
    });
    assert!(bed.inside("bad.trigger").exists());
    until("it is reported", || {
        daemon.log().iter().any(|line| {
            line.contains(" error ")
                && line.contains("/bad.trigger\"")
                && line.contains("exit status 1; dead")
        })
    });
    until("their output is in the log", || {
        log(&bed) == ["cannot do it", "fine"]
    });
    // Mended, it is a new one.
    put(&bed, "bad.trigger", "echo now it can\n");
    until("it is removed", || !bed.inside("bad.trigger").exists());
    until("its output is in the log", || {
        log(&bed).last().is_some_and(|line| line == "now it can")
    });
}

#[test]
fn triggers_that_wait_are_run_after_a_crash_in_their_order() {
    let bed = Bed::new();
    let mut daemon = queue(&bed);
    let go = bed.path("go");
    put(
        &bed,
        "first.trigger",
        &format!(
            "echo begin first; while [ ! -e {} ]; do sleep 0.05; done; echo end first\n",
            go.display()
        ),
    );
    until("it runs", || log(&bed) == ["begin first"]);
    for name in ["c", "a", "b"] {
        put(&bed, format!("{name}.trigger"), &format!("echo {name}\n"));
        until("it has settled", || {
            daemon
                .log()
                .iter()
                .any(|line| line.contains(&format!("/{name}.trigger\" settled")))
        });
    }
    daemon.kill();
    let mut daemon = queue(&bed);
    daemon.wait_log("has outlived the daemon");
    fs::write(&go, "").expect("a sign");
    until("all are removed", || {
        fs::read_dir(bed.path("in")).expect("the directory").count() == 0
    });
    assert_eq!(daemon.stop(), Some(0));
    let mut lines = log(&bed);
    lines.retain(|line| line.len() == 1);
    assert_eq!(lines, ["c", "a", "b"]);
}
