//! `top`, on a terminal and without one.

use crate::ask::{daemon_row, settled, told};
use crate::bed::{Bed, until};
use crate::kit::{configure, put, shell_key, start, wait_ledger};
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const UNTIL_GO: &str =
    "while [ ! -e \"$(dirname \"$1\")/go\" ]; do sleep 0.02; done; echo \"ran $2\" >>\"$1\"\n";

fn busy(bed: &Bed) -> crate::bed::Daemon {
    configure(
        bed,
        &shell_key(bed, UNTIL_GO, &["{name}"]),
        "concurrency = 1",
    );
    let daemon = start(bed);
    put(bed, "a", "1");
    until("a running job", || daemon_row(bed)["running"] == 1);
    daemon
}

#[test]
fn without_a_terminal_it_looks_so_many_times() {
    let bed = Bed::new();
    let mut daemon = busy(&bed);
    let text = told(&bed, &["top"]);
    assert_eq!(text.matches("watch w ").count(), 1, "{text}");
    assert!(text.contains("1 running, the oldest for"), "{text}");
    assert!(text.contains("attempt 1 is running, process "), "{text}");
    let text = told(&bed, &["top", "--count", "3", "--interval", "100ms"]);
    assert_eq!(text.matches("watch w ").count(), 3, "{text}");
    let text = told(&bed, &["top", "--watch", "other"]);
    assert!(!text.contains("attempt 1"), "{text}");
    fs::write(bed.path("go"), "").expect("a file");
    wait_ledger(&bed, "ran", 1);
    daemon.stop();
    assert_eq!(settled(&bed, &["top"]).status.code(), Some(69));
}

/// By script(1), which gives it a terminal of its own.
#[test]
fn a_terminal_is_drawn_on_and_left_as_it_was() {
    let bed = Bed::new();
    let _daemon = busy(&bed);
    let command = format!(
        "{} top --interval 100ms -c {}; echo after: $?; stty -a",
        env!("CARGO_BIN_EXE_settled"),
        bed.path("settled.toml").display()
    );
    let mut script = Command::new("script")
        .args(["-qfc", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of util-linux");
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    let mut out = script.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = out.read(&mut bytes) {
            let more = String::from_utf8_lossy(&bytes[..read]).into_owned();
            sink.lock().expect("no panic elsewhere").push_str(&more);
        }
    });
    let shown = || text.lock().expect("no panic elsewhere").clone();
    until("two frames", || shown().matches("\x1b[H").count() >= 2);
    assert!(shown().contains("attempt 1 is running"), "{:?}", shown());
    script
        .stdin
        .as_mut()
        .expect("a pipe")
        .write_all(b"q")
        .expect("script listens");
    until("the shell's word", || shown().contains("after: 0"));
    let ended = script.wait().expect("a child");
    reader.join().expect("no panic");
    assert!(ended.success());
    let text = shown();
    let (_, after) = text.split_once("\x1b[?1049l").expect("the screen is left");
    assert!(
        after.contains(" icanon") && after.contains(" echo "),
        "{after}"
    );
    fs::write(bed.path("go"), "").expect("a file");
    wait_ledger(&bed, "ran", 1);
}
