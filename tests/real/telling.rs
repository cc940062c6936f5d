//! `[alert]`: a command that writes down what it is told.

use crate::bed::{Bed, until_in};
use crate::kit::{self, SLOW};
use serde_json::Value;
use std::fs;

/// Writes down what it is told: its variables in one line, and what it reads in the next.
pub const TELL: &str = "{ printf '%s|' \"$SETTLED_ALERT\" \"$SETTLED_WATCH\" \"$SETTLED_PATH\" \"$SETTLED_JOB\" \
                    \"$SETTLED_COUNT\" \"$SETTLED_TEXT\"; echo; cat; } >> \"$1.part\" && cat \"$1.part\" >> \"$1\" && \
                    rm \"$1.part\"\n";

/// An alert as its command saw it.
#[derive(Debug)]
pub struct Told {
    pub alert: String,
    pub watch: String,
    pub path: String,
    pub job: String,
    pub count: u64,
    pub text: String,
    pub json: Value,
}

pub fn told(bed: &Bed) -> Vec<Told> {
    let text = fs::read_to_string(bed.path("told")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let whole = lines.chunks_exact(2).map(|pair| {
        let f: Vec<&str> = pair[0].split('|').collect();
        Told {
            alert: f[0].into(),
            watch: f[1].into(),
            path: f[2].into(),
            job: f[3].into(),
            count: f[4].parse().expect("a number"),
            text: f[5].into(),
            json: serde_json::from_str(pair[1]).expect("JSON"),
        }
    });
    whole.collect()
}

pub fn wait_told(bed: &Bed, alert: &str, count: usize) -> Vec<Told> {
    let mut all = Vec::new();
    until_in(SLOW, &format!("{count} alerts of {alert}"), || {
        all = told(bed);
        all.retain(|told| told.alert == alert);
        all.len() >= count
    });
    all
}

/// `[alert]` with that command and these keys.
pub fn alert_block(bed: &Bed, keys: &str) -> String {
    let tell = kit::script(bed, "tell.sh", TELL);
    let file = bed.path("told");
    format!("[alert]\nrun = [\"/bin/sh\", {tell:?}, {file:?}]\n{keys}\n")
}
