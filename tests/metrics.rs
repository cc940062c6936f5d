//! The metrics of the program are the ones of settled-metrics(7), and the dashboard uses no others.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use settled::core::counts::{AttemptResult, JOB_STATES, OUTCOMES};
use settled::metrics::families::{FAMILIES, Family};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names that samples of a family have.
fn samples(family: &Family) -> Vec<String> {
    let suffixes = family.kind.suffixes().iter();
    suffixes.map(|s| format!("{}{s}", family.name)).collect()
}

#[test]
fn metrics_are_the_ones_in_settled_metrics_7() {
    let page = read("man/settled-metrics.7");
    let start = page.find("\n.Sh METRICS").unwrap();
    let end = start + page[start..].find("\n.Ss ").unwrap();
    let mut documented = Vec::new();
    for item in page[start..end].split("\n.It Va ").skip(1) {
        let (head, body) = item.split_once('\n').unwrap();
        let (name, rest) = head.split_once(" Pq ").unwrap();
        let (kind, labels) = rest.split_once(": ").unwrap_or((rest, ""));
        let labels: Vec<&str> = labels.split(", ").filter(|l| !l.is_empty()).collect();
        documented.push((name, kind, labels));
        let family = FAMILIES.iter().find(|family| family.name == name);
        let help = family.map_or("", |family| family.help);
        let body = body.replace('\n', " ");
        assert!(body.starts_with(&format!("{help}.")), "{name}: {body}");
    }
    let known: Vec<_> = FAMILIES
        .iter()
        .map(|family| (family.name, family.kind.word(), family.labels.to_vec()))
        .collect();
    assert_eq!(known, documented, "program, then manual");
}

#[test]
fn the_words_of_labels_are_the_ones_in_settled_metrics_7() {
    let page = read("man/settled-metrics.7");
    let words = |title: &str| -> Vec<String> {
        let start = page.find(&format!("\n.Ss {title}\n")).unwrap();
        let list = page[start..].split("\n.El").next().unwrap();
        let items = list.lines().filter_map(|line| line.strip_prefix(".It Li "));
        items.map(str::to_owned).collect()
    };
    let outcomes: Vec<_> = OUTCOMES.iter().map(|(_, word)| *word).collect();
    let results: Vec<_> = AttemptResult::ALL.iter().map(|(_, word)| *word).collect();
    assert_eq!(outcomes, words("Outcomes"), "program, then manual");
    assert_eq!(results, words("Results of attempts"));
    assert_eq!(JOB_STATES.to_vec(), words("States of jobs"));
}

/// Every word in `text` that could be a metric of ours.
fn used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("settled_"));
    ours.map(str::to_owned).collect()
}

fn strings<'v>(value: &'v Value, of: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| strings(value, of, found)),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == of => found.push(text),
                    value => strings(value, of, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_examples_use_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/settled.json")).unwrap();
    let mut queries = Vec::new();
    strings(&dashboard, "expr", &mut queries);
    strings(&dashboard, "definition", &mut queries);
    let page = read("man/settled-metrics.7");
    queries.extend(
        page.split(".Bd -literal")
            .skip(1)
            .filter_map(|b| b.split("\n.Ed").next()),
    );
    assert!(queries.len() > 20);
    let known: BTreeSet<String> = FAMILIES.iter().flat_map(samples).collect();
    let mut all = BTreeSet::new();
    for query in queries {
        let used = used(query);
        assert!(!used.is_empty(), "{query}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
        all.extend(used);
    }
    // What nobody can see on it is of little use: all but what is not drawn over time.
    let shown = |family: &&Family| samples(family).iter().any(|sample| all.contains(sample));
    let hidden: Vec<&str> = FAMILIES
        .iter()
        .filter(|family| !shown(family))
        .map(|family| family.name)
        .collect();
    let left_out = [
        "settled_build",
        "settled_attempts_started",
        "settled_retries",
        "settled_journal_flushed_bytes",
        "settled_mount_slow",
    ];
    assert_eq!(hidden, left_out);
}

#[test]
fn the_dashboards_words_for_outcomes_are_the_programs() {
    let text = read("packaging/grafana/settled.json");
    let mut found = 0;
    for (label, words) in [("outcome", OUTCOMES.map(|(_, word)| word).to_vec())] {
        for rest in text.split(&format!("{label}=\\\"")).skip(1) {
            let word = rest.split('\\').next().unwrap();
            assert!(words.contains(&word), "{label}={word:?}");
            found += 1;
        }
    }
    assert!(found > 0);
}
