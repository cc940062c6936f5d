//! `settled metrics`: the numbers of a running daemon, by the socket.

use crate::ask::{Bare, daemon_row, settled, told};
use crate::bed::{Bed, until};
use crate::kit::{configure, put, start};
use std::fs;

#[test]
fn metrics_are_whole_and_as_openmetrics_wants_them() {
    let bed = Bed::new();
    configure(&bed, "run = [\"true\"]", "");
    let daemon = bed.start();
    for name in ["a", "b", "c"] {
        put(&bed, name, "text");
    }
    let done = "settled_outcomes_total{watch=\"w\",outcome=\"done\"} 3";
    let mut text = String::new();
    until("three are done", || {
        text = told(&bed, &["metrics"]);
        text.lines().any(|line| line == done)
    });
    assert!(text.ends_with("\n# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
    for family in settled::metrics::families::FAMILIES {
        let head = format!("# TYPE {} {}\n", family.name, family.kind.word());
        assert_eq!(text.matches(&head).count(), 1, "{head}");
    }
    let unit = "# UNIT settled_run_seconds seconds\n";
    assert!(text.contains(unit));
    // Longer than one part of an answer.
    assert!(text.len() > 8 * 1024);
    drop(daemon);
    let said = settled(&bed, &["metrics"]);
    assert_eq!(said.status.code(), Some(69), "{said:?}");
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(why.contains("systemctl start settled"), "{why}");
}

#[test]
fn many_watches_are_told_in_parts_and_nobody_has_the_whole_text_kept_for_him() {
    const WATCHES: usize = 500;
    let bed = Bed::new();
    let mut text = String::new();
    for n in 0..WATCHES {
        let dir = bed.path(&format!("in/{n:03}"));
        fs::create_dir(&dir).expect("a directory");
        text.push_str(&format!(
            "[watch.number-{n:03}]\npath = {dir:?}\nrun = [\"true\"]\n"
        ));
    }
    bed.configure_text(&text);
    let _daemon = start(&bed);
    // What a whole answer takes the daemon once, for the first time, is no part of the question.
    let whole = told(&bed, &["metrics"]);
    assert!(whole.len() > 2_000_000, "{}", whole.len());
    assert_eq!(whole.matches("# EOF").count(), 1);
    for n in [0, 7, 8, WATCHES - 1] {
        let label = format!("{{watch=\"number-{n:03}\"");
        let arrivals = format!("settled_arrivals_total{label}}} 0\n");
        assert_eq!(whole.matches(&arrivals).count(), 1, "{arrivals}");
        let buckets = format!("settled_run_seconds_bucket{label}");
        assert_eq!(whole.matches(&buckets).count(), 17);
    }
    // A family stays together.
    let mut heads: Vec<&str> = Vec::new();
    for line in whole.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let suffixes = ["_total", "_info", "_bucket", "_sum", "_count"];
        let family = suffixes.iter().find_map(|end| name.strip_suffix(end));
        let family = family.unwrap_or(name);
        if heads.last() != Some(&family) {
            assert!(!heads.contains(&family), "{family} again");
            heads.push(family);
        }
    }

    let before = daemon_row(&bed)["memory_kib"].as_u64().expect("memory");
    let mut deaf: Vec<Bare> = (0..40).map(|_| Bare::open(&bed)).collect();
    for bare in &mut deaf {
        bare.send(b"{\"ask\":\"metrics\"}\n");
    }
    for bare in &mut deaf {
        let line = bare.line().expect("the first part");
        assert!(line["text"]["text"].is_string(), "{line}");
    }
    let row = daemon_row(&bed);
    assert_eq!(row["clients"], 41);
    let after = row["memory_kib"].as_u64().expect("memory");
    println!("{before} KiB before, {after} KiB with 40 who read a part");
    println!("the longest turn: {} us", row["longest_turn_us"]);
    assert!(
        after < before + 40 * 256 + 4096,
        "{before} KiB before, {after} KiB with 40 who read a part"
    );
}
