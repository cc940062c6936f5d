//! Log lines as bytes.

use crate::core::LogLine;
use crate::core::time::{Wall, civil_date};
use crate::plan::Level;
use std::fmt::Write;

/// Longest text, in bytes before escaping.
const TEXT: usize = 48 * 1024;
/// Longest path, in bytes before escaping; the kernel takes 4096.
const PATH: usize = 8 * 1024;
/// Longest name of a watch or a job.
const NAME: usize = 1024;
/// Put behind what was cut.
const CUT: &str = " [cut]";

/// syslog(3)'s number.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info => 6,
        Level::Debug => 7,
    }
}

/// For people.
pub(super) fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
    }
}

/// `watch=NAME job=ID path="PATH" text`, without those that are empty: one line, whatever is in the parts.
pub(super) fn sentence(line: &LogLine) -> String {
    let mut out = String::with_capacity(line.text.len() + line.path.len() + 64);
    for (name, value) in [("watch", &line.watch), ("job", &line.job)] {
        if !value.is_empty() {
            let plain = |c: char| c.is_alphanumeric() || "-_.:/".contains(c);
            let quoted = !value.chars().all(plain);
            field(&mut out, name, value.as_bytes(), NAME, quoted);
        }
    }
    if !line.path.is_empty() {
        field(&mut out, "path", &line.path, PATH, true);
    }
    let (text, cut) = cut_text(&line.text, TEXT);
    escape(&mut out, text.as_bytes(), false);
    out.push_str(cut);
    out
}

fn field(out: &mut String, name: &str, value: &[u8], limit: usize, quoted: bool) {
    let quote = if quoted { "\"" } else { "" };
    out.push_str(name);
    out.push('=');
    out.push_str(quote);
    escape(out, value.get(..limit).unwrap_or(value), quoted);
    out.push_str(quote);
    out.push_str(if value.len() > limit { "[cut] " } else { " " });
}

/// Appends `bytes` so that they can neither end a line nor steer a terminal nor, inside quotes, end them:
/// control characters, those that reorder text, and bytes that are not UTF-8 become `\n`, `\x1b`, `\u{202e}`.
pub(crate) fn escape(out: &mut String, bytes: &[u8], quoted: bool) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        if text
            .bytes()
            .all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
        {
            out.push_str(text);
        } else {
            escape_text(out, text, quoted);
        }
        chunk.invalid().iter().for_each(|b| push_hex(out, *b));
    }
}

fn escape_text(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' if quoted => out.extend(['\\', c]),
            c if c.is_ascii_control() => push_hex(out, c as u8),
            c if c.is_control() || is_format(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
}

/// Line and paragraph separators, and the marks that change the direction of text.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing into a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// At most `limit` bytes of `text`, and what to put behind it.
pub(super) fn cut_text(text: &str, limit: usize) -> (&str, &'static str) {
    if text.len() <= limit {
        return (text, "");
    }
    let mut end = limit.saturating_sub(CUT.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (text.get(..end).unwrap_or_default(), CUT)
}

/// `2026-11-21T06:30:00.123Z`.
pub(super) fn utc_stamp(at: Wall) -> String {
    let day_ms = at.0.div_euclid(1_000_000).rem_euclid(86_400_000);
    let (hour, minute) = (day_ms / 3_600_000, day_ms / 60_000 % 60);
    let (second, ms) = (day_ms / 1_000 % 60, day_ms % 1_000);
    let date = civil_date(at, 0);
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// `Nov  1 06:30:00`, local time: RFC 3164, 4.1.2.
pub(super) fn syslog_stamp(at: Wall, utc_offset_s: i32) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = civil_date(at, utc_offset_s);
    let mut parts = date
        .rsplit('-')
        .map(|part| part.parse::<usize>().unwrap_or(1));
    let (day, month) = (parts.next().unwrap_or(1), parts.next().unwrap_or(1));
    let month = MONTHS
        .get(month.saturating_sub(1))
        .copied()
        .unwrap_or("Jan");
    let local = at.0.div_euclid(1_000_000_000) + i64::from(utc_offset_s);
    let second = local.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{month} {day:2} {hour:02}:{minute:02}:{second:02}")
}

/// One datagram of journald's native protocol, of at most `limit` bytes: the message is cut to fit. Values
/// that are not plain text go in the form with a length, so that any byte is safe.
pub(super) fn journal_fields(level: Level, line: &LogLine, limit: usize) -> Vec<u8> {
    let mut out = Vec::new();
    journal_field(&mut out, "PRIORITY", &[b'0' + priority(level)]);
    journal_field(&mut out, "SYSLOG_IDENTIFIER", b"settled");
    for (name, value, most) in [
        ("SETTLED_WATCH", line.watch.as_bytes(), NAME),
        ("SETTLED_JOB", line.job.as_bytes(), NAME),
        ("SETTLED_PATH", line.path.as_slice(), PATH),
    ] {
        if !value.is_empty() {
            journal_field(&mut out, name, value.get(..most).unwrap_or(value));
        }
    }
    // The name, the sign between, and the newline, or eight bytes of length and two newlines.
    let around = "MESSAGE".len() + 10;
    let message = sentence(line);
    let room = limit.saturating_sub(out.len() + around);
    let (text, cut) = cut_text(&message, room);
    journal_field(&mut out, "MESSAGE", [text, cut].concat().as_bytes());
    out
}

fn journal_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    let text = std::str::from_utf8(value);
    if text.is_ok_and(|t| !t.contains(char::is_control)) {
        out.push(b'=');
    } else {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn line(text: &str, path: &[u8]) -> LogLine {
        LogLine {
            text: text.into(),
            watch: "in".into(),
            path: path.into(),
            job: "J-7".into(),
        }
    }

    #[test]
    fn nothing_in_a_line_can_end_it_or_its_quotes() {
        let evil = b"/a\" text\n<3>error\r\x1b[2J\x00\\\xff\xc3\x28\xc2\x85\xe2\x80\xae\xe2\x80\xa8\t\x7f\xc3\xa9";
        assert_eq!(
            sentence(&line("one\ntwo \"q\" \\", evil)),
            "watch=in job=J-7 path=\"/a\\\" text\\n<3>error\\r\\x1b[2J\\x00\\\\\\xff\\xc3(\\u{85}\\u{202e}\\u{2028}\\t\\x7fé\" one\\ntwo \"q\" \\"
        );
        let mut odd = line("t", b"");
        odd.watch = "two words\" job=x".into();
        odd.job.clear();
        assert_eq!(sentence(&odd), "watch=\"two words\\\" job=x\" t");
        assert_eq!(
            sentence(&LogLine {
                text: "t".into(),
                ..LogLine::default()
            }),
            "t"
        );
        // Every single byte, valid or not, stays on its line.
        for byte in 0..=255 {
            let text = sentence(&line("t", &[b'/', byte]));
            assert!(!text.contains(char::is_control), "{byte}");
        }
    }

    #[test]
    fn long_parts_are_cut_at_a_character_and_say_so() {
        let long = sentence(&line(&"é".repeat(100_000), &[b'p'; 100_000]));
        assert!(long.len() < TEXT + PATH + 100);
        assert!(long.ends_with("é [cut]") && long.contains("p\"[cut] é"));
        assert_eq!(cut_text("abcdefgh", 8), ("abcdefgh", ""));
        assert_eq!(cut_text("abcdefghi", 8), ("ab", CUT));
        assert_eq!(cut_text("éééééé", 9), ("é", CUT));
        assert_eq!(cut_text("abc", 0), ("", CUT));
    }

    #[test]
    fn stamps() {
        let at = Wall(1_795_242_600_123_456_789);
        assert_eq!(utc_stamp(at), "2026-11-21T06:30:00.123Z");
        assert_eq!(utc_stamp(Wall(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(syslog_stamp(at, 0), "Nov 21 06:30:00");
        assert_eq!(syslog_stamp(at, 20 * 3600), "Nov 22 02:30:00");
        assert_eq!(syslog_stamp(Wall(0), 3600), "Jan  1 01:00:00");
    }

    /// What journald reads: the reference is its description of the native protocol, not the code above.
    pub(in super::super) fn decode(mut rest: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').unwrap();
            let (head, tail) = rest.split_at(end);
            if let Some(sign) = head.iter().position(|b| *b == b'=') {
                let name = String::from_utf8(head[..sign].to_vec()).unwrap();
                fields.push((name, head[sign + 1..].to_vec()));
                rest = &tail[1..];
            } else {
                let (length, tail) = tail[1..].split_at(8);
                let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                let name = String::from_utf8(head.to_vec()).unwrap();
                fields.push((name, tail[..length].to_vec()));
                assert_eq!(tail[length], b'\n');
                rest = &tail[length + 1..];
            }
        }
        fields
    }

    #[test]
    fn journal_datagrams_carry_any_byte_and_keep_their_limit() {
        let all: Vec<u8> = (0..=255).collect();
        let fields = decode(&journal_fields(Level::Warning, &line("t", &all), 60_000));
        let value = |name: &str| {
            let found = fields.iter().find(|(n, _)| n == name);
            found.map(|(_, v)| v.as_slice()).unwrap_or_default()
        };
        assert_eq!(value("PRIORITY"), b"4");
        assert_eq!(value("SYSLOG_IDENTIFIER"), b"settled");
        assert_eq!(value("SETTLED_WATCH"), b"in");
        assert_eq!(value("SETTLED_JOB"), b"J-7");
        assert_eq!(value("SETTLED_PATH"), all);
        assert!(value("MESSAGE").starts_with(b"watch=in job=J-7 path=\""));

        for limit in [400, 401, 1_000, 20_000] {
            let bytes = journal_fields(Level::Error, &line(&"x".repeat(90_000), b"/p\n"), limit);
            assert!(
                bytes.len() <= limit && bytes.len() > limit - 20,
                "{}",
                bytes.len()
            );
            let fields = decode(&bytes);
            assert!(fields.last().unwrap().1.ends_with(b"x [cut]"));
        }
    }
}
