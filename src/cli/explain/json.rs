//! What was found out, a JSON object for each row.

use super::{Known, disposition};
use crate::core::view::shown as as_text;
use crate::core::words::{attempt_words, outcome_word};
use crate::journal::history::Past;
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Serialize)]
struct AttemptRow {
    attempt: u32,
    started_ns: i64,
    ended_ns: i64,
    end: String,
    output: String,
}

/// A job as the journal has it.
#[derive(Serialize)]
struct PastRow {
    watch: String,
    job: String,
    path: String,
    settled_ns: i64,
    size: u64,
    attempts: Vec<AttemptRow>,
    outcome: String,
    concluded_ns: i64,
    disposition: String,
    target: String,
    target_is_there: Option<bool>,
}

pub(super) fn as_json(path: &[u8], known: &Known) -> String {
    let mut out = String::new();
    let mut push = |name: &str, value: serde_json::Result<serde_json::Value>| {
        // Rows of text and numbers: nothing in them that JSON has not.
        if let Ok(value) = value {
            let _ = writeln!(out, "{}", serde_json::json!({ name: value }));
        }
    };
    let (text, hex) = as_text(path);
    let mut asked = serde_json::json!({"path": text, "daemon": known.no_daemon.is_none()});
    if let (false, Some(object)) = (hex.is_empty(), asked.as_object_mut()) {
        object.insert("path_hex".into(), hex.into());
    }
    push("asked", Ok(asked));
    for finding in &known.findings {
        push("finding", serde_json::to_value(finding));
    }
    if let Some(nearest) = &known.nearest {
        push("nearest", serde_json::to_value(nearest));
    }
    if let Some(disk) = &known.look.disk {
        push("disk", serde_json::to_value(disk));
    }
    if let Some(holders) = &known.holders {
        for (pid, name, how) in &holders.found {
            push(
                "holder",
                Ok(serde_json::json!({"pid": pid, "name": name, "how": how})),
            );
        }
    }
    if let Some(past) = &known.past {
        for (kind, jobs) in [("job", &past.jobs), ("brought", &past.brought)] {
            for job in jobs {
                push(kind, serde_json::to_value(past_row(known, past.id, job)));
            }
        }
    }
    for note in &known.notes {
        push("note", Ok(note.as_str().into()));
    }
    out
}

fn past_row(known: &Known, id: u32, past: &Past) -> PastRow {
    let attempts = past.attempts.iter().map(|made| AttemptRow {
        attempt: made.number,
        started_ns: made.started.0,
        ended_ns: made.end.map_or(0, |(_, at)| at.0),
        end: made
            .end
            .map(|(end, _)| attempt_words(end))
            .unwrap_or_default(),
        output: String::from_utf8_lossy(&made.output).into_owned(),
    });
    let target = past.target();
    PastRow {
        watch: past.watch.clone(),
        job: format!("{id:08x}-{}", past.job),
        path: as_text(&past.rel).0,
        settled_ns: past.settled.0,
        size: past.size,
        attempts: attempts.collect(),
        outcome: past
            .concluded
            .map_or("", |(outcome, _)| outcome_word(outcome))
            .into(),
        concluded_ns: past.concluded.map_or(0, |(_, at)| at.0),
        disposition: disposition(past),
        target: target
            .as_deref()
            .map(|path| as_text(path).0)
            .unwrap_or_default(),
        target_is_there: target.and_then(|path| known.is_there(&path)),
    }
}
