//! Durations and sizes: text to numbers, and numbers to text.

use std::time::Duration;

/// Units of durations in nanoseconds, smallest first.
const TIMES: [(&str, u64); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of sizes in bytes.
const SIZES: [(&str, u64); 11] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A hundred years: longer waits are mistakes, and sums of times stay far from their limits.
const LONGEST_DAYS: u64 = 36_500;

/// `"500ms"`, `"2s"`, `"10m"`, `"36h"`, `"30d"` or `"0"`. The error is a sentence with the remedy.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || {
        format!(
            "{text:?} is not a duration; write a whole number and ms, s, m, h or d, as in \"2s\""
        )
    };
    let (digits, unit) = split(text).ok_or_else(wrong)?;
    let (_, scale) = TIMES.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
    let longest = Duration::from_secs(LONGEST_DAYS * 86_400);
    let number: u64 = digits.parse().unwrap_or(u64::MAX);
    match number.checked_mul(*scale).map(Duration::from_nanos) {
        Some(span) if span <= longest => Ok(span),
        _ => Err(format!("{text:?} is longer than {LONGEST_DAYS}d")),
    }
}

/// `"123"`, `"10KiB"`, `"4MB"`: bytes. The error is a sentence with the remedy.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is not a size; write a whole number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in \"10KiB\""
        )
    };
    let (digits, unit) = split(text).ok_or_else(wrong)?;
    let (_, scale) = SIZES.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|n| n.checked_mul(*scale))
        .ok_or_else(|| format!("{text:?} is more bytes than any file has"))
}

/// The digits and what follows them.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(at)?;
    (!digits.is_empty()).then_some((digits, unit))
}

/// A duration as a user would write it: the largest unit that divides it.
pub fn show_duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos == 0 {
        return "0".into();
    }
    TIMES
        .iter()
        .rev()
        .find(|(_, scale)| nanos.is_multiple_of(u128::from(*scale)))
        .map_or_else(
            || format!("{nanos}ns"),
            |(unit, scale)| format!("{}{unit}", nanos / u128::from(*scale)),
        )
}

/// A size as a user would write it: the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    SIZES
        .iter()
        .rev()
        .filter(|(unit, _)| unit.len() == 3)
        .find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale))
        .map_or_else(
            || format!("{bytes}B"),
            |(unit, scale)| format!("{}{unit}", bytes / scale),
        )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_both_ways() {
        for (text, ms) in [
            ("0", 0),
            ("500ms", 500),
            ("2s", 2_000),
            ("10m", 600_000),
            ("36h", 129_600_000),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["0", "500ms", "1500ms", "90s", "10m", "36h", "36500d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_secs(3600)), "1h");
        for wrong in [
            "",
            "2",
            "s",
            "-1s",
            "1.5s",
            "2 s",
            "2S",
            "1h30m",
            "36501d",
            "99999999999999999999s",
            "٣s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_both_ways() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("7B", 7),
            ("10KiB", 10_240),
            ("4MB", 4_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(show_size(10_240), "10KiB");
        assert_eq!(show_size(1 << 30), "1GiB");
        assert_eq!(show_size(123), "123B");
        assert_eq!(show_size(0), "0B");
        for wrong in ["", "K", "10K", "10kib", "-1", "1.5MB", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
