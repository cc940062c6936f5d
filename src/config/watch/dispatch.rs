//! Keys that bound jobs: batches, rates, exit statuses.

use crate::config::error::At;
use crate::config::read::{Reader, Value, is_a};
use crate::config::values::{fill, span};
use crate::plan::{Delivery, OnDead, Orphans, Rate};
use std::time::Duration;
use toml::de::DeValue;

/// The words of `on_dead`.
pub(crate) const ON_DEAD: [(&str, OnDead); 2] =
    [("continue", OnDead::Continue), ("halt", OnDead::Halt)];
/// The words of `delivery`.
pub(super) const DELIVERY: [(&str, Delivery); 2] = [
    ("at-least-once", Delivery::AtLeastOnce),
    ("at-most-once", Delivery::AtMostOnce),
];
/// The words of `claim`.
pub(super) const CLAIM: [(&str, bool); 2] = [("none", false), ("lock", true)];
/// The words of `orphans`.
pub(super) const ORPHANS: [(&str, Orphans); 2] = [("wait", Orphans::Wait), ("kill", Orphans::Kill)];

/// What is in a batch, and how long the first of it waits, without being told.
const BATCH: u32 = 100;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Most jobs of a batch, and most that one worker may have: each is remembered until it is answered.
pub(super) const MOST_TOGETHER: u32 = 10_000;
/// Most starts of one unit of time.
const MOST_STARTS: u32 = 1_000_000;
/// sysexits.h: the exit status that means to try again, whatever the configuration says.
const EX_TEMPFAIL: i32 = 75;

/// `batch` as it was written.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(super) max: u32,
    pub(super) wait: Duration,
    pub(super) split: bool,
    pub(super) stdin: bool,
}

pub(super) fn batch(reader: &mut Reader, key: &str, value: &Value) -> Option<At<RawBatch>> {
    let table = reader.table(key, value, "batch = { max = 500, wait = \"1s\" }")?;
    let mut whole = true;
    let (mut max, mut wait, mut split, mut stdin) = (None, None, None, None);
    for (name, value) in table {
        let inner = format!("{key}.{}", name.get_ref());
        whole &= match name.get_ref().as_ref() {
            "max" => fill(&mut max, reader.count(&inner, value, MOST_TOGETHER)),
            "wait" => fill(&mut wait, span(reader, &inner, value)),
            "split" => fill(&mut split, reader.flag(&inner, value)),
            "stdin" => fill(&mut stdin, reader.flag(&inner, value)),
            _ => {
                reader.unknown_in(key, name, &["max", "wait", "split", "stdin"], &[]);
                false
            }
        };
    }
    if !whole {
        return None;
    }
    let raw = RawBatch {
        max: max.map_or(BATCH, |m| m.value),
        wait: wait.map_or(BATCH_WAIT, |w| w.value),
        split: split.is_some_and(|s| s.value),
        stdin: stdin.is_some_and(|s| s.value),
    };
    reader.checked(key, value, Ok(raw))
}

pub(super) fn rate(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Rate>> {
    let parsed = match value.get_ref() {
        DeValue::String(text) => parse_rate(text),
        other => Err(format!("{}; {RATE_REMEDY}", is_a(other))),
    };
    reader.checked(key, value, parsed)
}

const RATE_REMEDY: &str =
    "write how many starts in a second, minute or hour, as in \"20/s\", \"100/m\" or \"5/h\"";

/// `"20/s"`. The error is a sentence with the remedy.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("{text:?} is not a rate; {RATE_REMEDY}");
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    match count.parse() {
        Ok(count) if (1..=MOST_STARTS).contains(&count) => Ok(Rate {
            count,
            per: Duration::from_secs(seconds),
        }),
        _ => Err(format!(
            "{text:?} is out of range; write a number from 1 to {MOST_STARTS} before the '/'"
        )),
    }
}

/// A list of exit statuses.
pub(super) fn codes(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Vec<i32>>> {
    let mut codes = Vec::new();
    let mut whole = true;
    for (n, element) in reader.array(key, value, "[1, 2]")?.iter().enumerate() {
        let place = format!("{key}[{n}]");
        match reader.number(&place, element, 0, 255) {
            Some(At { value: 0, .. }) => {
                let what = "0 always means done; name exit statuses from 1 to 255";
                reader.wrong(&place, element, what);
                whole = false;
            }
            Some(code) if code.value == EX_TEMPFAIL && key == "permanent" => {
                let what = "75 always means try again; let the command exit with another status";
                reader.wrong(&place, element, what);
                whole = false;
            }
            Some(code) => codes.push(code.value),
            None => whole = false,
        }
    }
    if !whole {
        return None;
    }
    codes.sort_unstable();
    codes.dedup();
    reader.checked(key, value, Ok(codes))
}
