//! `[alert]`, and `expect` of a watch.

use super::error::{At, Spot};
use super::read::{Reader, Value};
use super::values::{fill, span};
use crate::plan::{AlertPlan, ExpectPlan, When};
use std::time::Duration;
use toml::de::DeTable;

/// The keys of `[alert]`.
const KEYS: [&str; 7] = [
    "run",
    "dead",
    "waiting",
    "mount_silent",
    "slow_flush",
    "every",
    "timeout",
];
const EXPECT_KEYS: [&str; 5] = ["every", "by", "from", "count", "calendar"];
const EXAMPLE: &str = "expect = { by = \"06:00\", calendar = \"mon-fri\" }";
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MOST: u32 = 1_000_000_000;

/// Reads the block; `None` if something in it is wrong, which is noted.
pub(super) fn alert(reader: &mut Reader, table: &DeTable, spot: &Spot) -> Option<AlertPlan> {
    let mut whole = true;
    let (mut run, mut dead, mut waiting, mut silent) = (None, None, None, None);
    let (mut flush, mut every, mut timeout) = (None, None, None);
    for (key, value) in table {
        let name: &str = key.get_ref();
        whole &= match name {
            "run" => fill(&mut run, command(reader, name, value)),
            "dead" => fill(&mut dead, reader.number(name, value, 0, MOST)),
            "waiting" => fill(&mut waiting, span(reader, name, value)),
            "mount_silent" => fill(&mut silent, span(reader, name, value)),
            "slow_flush" => fill(&mut flush, span(reader, name, value)),
            "every" => fill(&mut every, span(reader, name, value)),
            "timeout" => fill(
                &mut timeout,
                reader.duration(name, value, Duration::from_secs(1)),
            ),
            _ => {
                reader.unknown(key, &KEYS, &[]);
                false
            }
        };
    }
    if run.is_none() && whole {
        let what = "is missing; name a program, as in run = [\"/usr/local/bin/page-someone\"]";
        reader.problems.add(spot, "alert", "run", what);
    }
    let s = Duration::from_secs;
    let or = |key: Option<At<Duration>>, default| key.map_or(default, |at| at.value);
    Some(AlertPlan {
        run: run.filter(|_| whole)?.value,
        dead: dead.map_or(1, |at| at.value),
        waiting: or(waiting, s(3600)),
        mount_silent: or(silent, s(60)),
        slow_flush: or(flush, s(1)),
        every: or(every, s(60)),
        timeout: or(timeout, s(60)),
    })
}

fn command(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Vec<Vec<u8>>>> {
    let list = reader.strings(key, value, "[\"/usr/local/bin/page-someone\"]")?;
    let words: Vec<Vec<u8>> = list
        .value
        .iter()
        .map(|word| word.value.clone().into_bytes())
        .collect();
    let program = words.first().map_or(&b""[..], Vec::as_slice);
    let parsed = match program {
        [] => Err("names no program; write one, as in [\"/usr/local/bin/page-someone\"]".into()),
        [b'/', ..] => Ok(words),
        name if !name.contains(&b'/') => Ok(words),
        _ => Err("is relative; write an absolute path, or a bare name to be found in PATH".into()),
    };
    reader.checked(key, value, parsed)
}

/// `expect = { every = "24h" }`, or `{ by = "06:00", ... }`.
pub(super) fn expect(reader: &mut Reader, key: &str, value: &Value) -> Option<At<ExpectPlan>> {
    let table = reader.table(key, value, EXAMPLE)?;
    let mut whole = true;
    let (mut every, mut by, mut from, mut count, mut days) = (None, None, None, None, None);
    for (name, value) in table {
        let inner = format!("{key}.{}", name.get_ref());
        whole &= match name.get_ref().as_ref() {
            "every" => fill(
                &mut every,
                reader.duration(&inner, value, Duration::from_secs(1)),
            ),
            "by" => fill(&mut by, text(reader, &inner, value, time_of_day)),
            "from" => fill(&mut from, text(reader, &inner, value, time_of_day)),
            "count" => fill(&mut count, reader.count(&inner, value, MOST)),
            "calendar" => fill(&mut days, text(reader, &inner, value, calendar)),
            _ => {
                reader.unknown_in(key, name, &EXPECT_KEYS, &[]);
                false
            }
        };
    }
    if !whole {
        return None;
    }
    let only = from.is_some() || days.is_some();
    let when = match (every, by) {
        (Some(every), None) if !only => Ok(When::Every(every.value)),
        (Some(_), None) => Err("has from or calendar, which belong to by; remove them".into()),
        (None, Some(by)) => Ok(When::By {
            by_s: by.value,
            from_s: from.map(|from| from.value),
            days: days.map_or(0x7f, |days| days.value),
        }),
        _ => Err(format!("wants one of every and by, as in {EXAMPLE}")),
    };
    let count = count.map_or(1, |count| count.value);
    let parsed = when.map(|when| ExpectPlan { when, count });
    reader.checked(key, value, parsed)
}

fn text<T>(
    reader: &mut Reader,
    key: &str,
    value: &Value,
    parse: fn(&str) -> Result<T, String>,
) -> Option<At<T>> {
    let parsed = parse(reader.text(key, value)?);
    reader.checked(key, value, parsed)
}

/// `"06:00"` in seconds after midnight.
fn time_of_day(text: &str) -> Result<u32, String> {
    let number = |digits: &str, most: u32| {
        let two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        let parsed: Option<u32> = digits.parse().ok();
        parsed.filter(|n| two && *n <= most)
    };
    text.split_once(':')
        .and_then(|(h, m)| Some(number(h, 23)? * 3600 + number(m, 59)? * 60))
        .ok_or_else(|| format!("{text:?} is not a time of day; write one as in \"06:00\""))
}

/// `"mon-fri"`, `"mon,wed,fri"` or `"daily"`: bit 0 is Monday.
fn calendar(text: &str) -> Result<u8, String> {
    let wrong = || {
        format!("{text:?} is no calendar; write days as in \"mon-fri\", \"tue,sat\" or \"daily\"")
    };
    if text == "daily" {
        return Ok(0x7f);
    }
    let day = |word: &str| {
        let word = word.trim();
        DAYS.iter().position(|day| *day == word).ok_or_else(wrong)
    };
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let mut at = first;
        loop {
            days |= 1 << at;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendars_are_days_and_ranges_of_days() {
        for (text, days) in [
            ("daily", Ok(0x7f)),
            ("mon-fri", Ok(0x1f)),
            ("sat-sun", Ok(0x60)),
            ("fri-mon", Ok(0x71)),
            ("mon, wed,fri", Ok(0x15)),
            ("sun", Ok(0x40)),
        ] {
            assert_eq!(calendar(text), days, "{text}");
        }
        for text in ["", "mo", "mon-", "mon-fri-sun", "mon;tue", "Mon"] {
            assert!(calendar(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_of_day_have_two_digits_each() {
        assert_eq!(time_of_day("06:00"), Ok(6 * 3600));
        assert_eq!(time_of_day("23:59"), Ok(23 * 3600 + 59 * 60));
        for text in ["6:00", "24:00", "06:60", "0600", "06:00:00", "+6:00", ""] {
            assert!(time_of_day(text).is_err(), "{text}");
        }
    }
}
