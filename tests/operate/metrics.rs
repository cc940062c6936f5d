//! `settled metrics`: the numbers of a running daemon, by the socket.

use crate::ask::{settled, told};
use crate::bed::{Bed, until};
use crate::kit::{configure, put};

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
