//! The lines between the daemon and its workers, `settled-worker(7)`: jobs in their encoding, answers decoded.
//!
//! Names are bytes, JSON's strings are not. A byte that is no part of valid UTF-8 travels as the lone surrogate
//! U+DC80..U+DCFF that ends in it, as PEP 383 has it; and because many languages refuse lone surrogates, the same
//! name follows in hexadecimal, as the member `NAME_hex`.

use super::ids::JobId;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::time::Duration;

/// Longest line of a worker, in bytes, without its newline.
pub const ANSWER_MAX: usize = 64 * 1024;

/// Longest message of an answer, in bytes; what is beyond is cut off.
pub const MESSAGE_MAX: usize = 4096;

/// Longest wait that a worker can ask for; a longer one counts as this.
pub const AFTER_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Longest sentence about a line that is none, in bytes.
const WORDS_MAX: usize = 200;

/// A job as a worker is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLine<'a> {
    /// As users see it, see [`Named`].
    pub job: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// An earlier attempt was cut short, and may have done a part of the work.
    pub recovered: bool,
    /// The name of its watch.
    pub watch: &'a str,
    /// The file's absolute path.
    pub path: &'a [u8],
    /// The path below the watch's root.
    pub rel: &'a [u8],
    /// Its last component.
    pub name: &'a [u8],
    /// The absolute path of its directory.
    pub dir: &'a [u8],
    /// The key; empty where the watch has none.
    pub key: &'a [u8],
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// Appends a job's line with its newline.
pub fn push_job(to: &mut Vec<u8>, job: &JobLine<'_>) {
    push_object(to, job);
    to.push(b'\n');
}

/// Appends the line of a batch with its newline.
pub fn push_batch<'a>(to: &mut Vec<u8>, jobs: impl IntoIterator<Item = JobLine<'a>>) {
    to.extend_from_slice(b"{\"jobs\":[");
    for (number, job) in jobs.into_iter().enumerate() {
        if number > 0 {
            to.push(b',');
        }
        push_object(to, &job);
    }
    to.extend_from_slice(b"]}\n");
}

fn push_object(to: &mut Vec<u8>, job: &JobLine<'_>) {
    to.extend_from_slice(b"{\"job\":");
    push_string(to, job.job.as_bytes());
    push_number(to, "attempt", job.attempt);
    let recovered: &[u8] = if job.recovered { b"true" } else { b"false" };
    push_name(to, "recovered", "");
    to.extend_from_slice(recovered);
    push_name(to, "watch", "");
    push_string(to, job.watch.as_bytes());
    push_bytes(to, "path", job.path);
    push_bytes(to, "rel", job.rel);
    push_bytes(to, "name", job.name);
    push_bytes(to, "dir", job.dir);
    push_bytes(to, "key", job.key);
    push_number(to, "size", job.size);
    let seconds = job.mtime_ns.div_euclid(1_000_000_000);
    push_number(to, "mtime", seconds);
    push_number(to, "mtime_ns", job.mtime_ns);
    to.push(b'}');
}

fn push_name(to: &mut Vec<u8>, name: &str, suffix: &str) {
    to.extend_from_slice(b",\"");
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(suffix.as_bytes());
    to.extend_from_slice(b"\":");
}

fn push_number(to: &mut Vec<u8>, name: &str, number: impl ToString) {
    push_name(to, name, "");
    to.extend_from_slice(number.to_string().as_bytes());
}

fn push_bytes(to: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    push_name(to, name, "");
    if push_string(to, bytes) {
        return;
    }
    push_name(to, name, "_hex");
    to.push(b'"');
    for &byte in bytes {
        to.extend_from_slice(&hex(byte));
    }
    to.push(b'"');
}

/// Appends a string in quotes. `false` if it was not UTF-8.
fn push_string(to: &mut Vec<u8>, bytes: &[u8]) -> bool {
    to.push(b'"');
    let whole = std::str::from_utf8(bytes);
    match whole {
        Ok(text) => push_text(to, text),
        Err(_) => {
            for chunk in bytes.utf8_chunks() {
                push_text(to, chunk.valid());
                for &byte in chunk.invalid() {
                    to.extend_from_slice(b"\\udc");
                    to.extend_from_slice(&hex(byte));
                }
            }
        }
    }
    to.push(b'"');
    whole.is_ok()
}

fn push_text(to: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = special(rest) {
        let (plain, from) = rest.split_at(at);
        to.extend_from_slice(plain);
        let Some((&byte, after)) = from.split_first() else {
            break;
        };
        match byte {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            b'\n' => to.extend_from_slice(b"\\n"),
            b'\t' => to.extend_from_slice(b"\\t"),
            _ => {
                to.extend_from_slice(b"\\u00");
                to.extend_from_slice(&hex(byte));
            }
        }
        rest = after;
    }
    to.extend_from_slice(rest);
}

/// Where the first byte is that needs an escape. Whole blocks are judged at once, which is several times as fast.
fn special(text: &[u8]) -> Option<usize> {
    const BLOCK: usize = 16;
    let special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    let plain = text
        .chunks_exact(BLOCK)
        .take_while(|block| !block.iter().fold(false, |any, byte| any | special(byte)))
        .count();
    let from = plain * BLOCK;
    let at = text.get(from..)?.iter().position(special)?;
    Some(from + at)
}

fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| match digit {
        0..=9 => b'0' + digit,
        _ => b'a' + digit - 10,
    })
}

/// What a worker said in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It can be fed.
    Ready,
    /// See [`Answers`].
    Answers(Answers),
}

/// What a worker says of one or several jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Which; at least one. Whether they are jobs, and this worker's, is not known here.
    pub jobs: Vec<Named>,
    /// See [`Answer`].
    pub answer: Answer,
    /// What it has to say about it, at most [`MESSAGE_MAX`] bytes, with the bytes of names in it as they were; empty
    /// where it said nothing.
    pub message: Vec<u8>,
}

/// How a worker's job went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// To be tried again, not before so long, at most [`AFTER_MAX`]; as the watch's back-off has it where `None`.
    Retry(Option<Duration>),
    /// It failed for good.
    Dead,
}

/// A job as a worker names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `JOURNAL-NUMBER`, exactly as jobs are written.
    Job {
        /// The journal's number.
        journal: u32,
        /// The job.
        job: JobId,
    },
    /// No job that this program ever wrote; its beginning, for the log.
    Other(String),
}

impl Named {
    fn read(bytes: &[u8]) -> Named {
        Named::job(bytes)
            .unwrap_or_else(|| Named::Other(beginning(&String::from_utf8_lossy(bytes)).to_owned()))
    }

    fn job(bytes: &[u8]) -> Option<Named> {
        let (journal, rest) = bytes.split_at_checked(8)?;
        let number = rest.strip_prefix(b"-")?;
        let whole = |digits: &[u8], radix| {
            let all = digits
                .iter()
                .all(|&digit| digit.is_ascii_digit() || matches!(digit, b'a'..=b'f'));
            let text = std::str::from_utf8(digits).ok().filter(|_| all)?;
            u64::from_str_radix(text, radix).ok()
        };
        if number.len() > 1 && number.starts_with(b"0") {
            return None;
        }
        Some(Named::Job {
            journal: u32::try_from(whole(journal, 16)?).ok()?,
            job: JobId(whole(number, 10)?),
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Job { journal, job } => write!(f, "{journal:08x}-{}", job.0),
            Named::Other(text) => f.write_str(text),
        }
    }
}

/// Why a line is none of the protocol, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonsense(String);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Nonsense {}

/// Decodes a worker's line, without its newline.
///
/// # Errors
/// It is longer than [`ANSWER_MAX`], no JSON object (RFC 8259), or not one of a worker.
pub fn read_line(line: &[u8]) -> Result<Said, Nonsense> {
    if line.len() > ANSWER_MAX {
        return Err(Nonsense(format!("longer than {ANSWER_MAX} bytes")));
    }
    let members: Members = serde_json::from_slice(line)
        .map_err(|error| Nonsense(beginning(&error.to_string()).to_owned()))?;
    members
        .said()
        .map_err(|words| Nonsense(beginning(&words).to_owned()))
}

/// What fits into a sentence.
fn beginning(text: &str) -> &str {
    let end = (0..=WORDS_MAX.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The members that mean something.
#[derive(Default)]
struct Members {
    ready: Option<bool>,
    job: Option<Text>,
    jobs: Option<Vec<Text>>,
    result: Option<Text>,
    after: Option<f64>,
    message: Option<Text>,
}

impl Members {
    fn said(self) -> Result<Said, String> {
        let jobs = match (self.ready, self.job, self.jobs) {
            (Some(true), None, None) => return Ok(Said::Ready),
            (Some(false), None, None) => return Err("\"ready\" is not true".into()),
            (Some(_), ..) => return Err("both \"ready\" and a job".into()),
            (None, Some(_), Some(_)) => return Err("both \"job\" and \"jobs\"".into()),
            (None, None, None) => return Err("neither \"job\" nor \"jobs\" nor \"ready\"".into()),
            (None, None, Some(jobs)) if jobs.is_empty() => return Err("\"jobs\" is empty".into()),
            (None, None, Some(jobs)) => jobs,
            (None, Some(job), None) => vec![job],
        };
        let result = self.result.ok_or("\"result\" is missing")?.0;
        let after = self.after.map(wait).transpose()?;
        let answer = match result.as_slice() {
            b"done" => Answer::Done,
            b"retry" => Answer::Retry(after),
            b"dead" => Answer::Dead,
            other => {
                let other = String::from_utf8_lossy(other);
                return Err(format!(
                    "\"result\" is not done, retry or dead, but {other:?}"
                ));
            }
        };
        let mut message = self.message.map(|text| text.0).unwrap_or_default();
        message.truncate(MESSAGE_MAX);
        Ok(Said::Answers(Answers {
            jobs: jobs.iter().map(|job| Named::read(&job.0)).collect(),
            answer,
            message,
        }))
    }
}

fn wait(seconds: f64) -> Result<Duration, String> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(format!("\"after\" is {seconds}, and cannot be before now"));
    }
    Ok(Duration::try_from_secs_f64(seconds)
        .unwrap_or(AFTER_MAX)
        .min(AFTER_MAX))
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Members, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key_seed(TextSeed)? {
                    match name.0.as_slice() {
                        b"ready" => next(&mut map, &mut members.ready, "ready")?,
                        b"job" => next(&mut map, &mut members.job, "job")?,
                        b"jobs" => next(&mut map, &mut members.jobs, "jobs")?,
                        b"result" => next(&mut map, &mut members.result, "result")?,
                        b"after" => next(&mut map, &mut members.after, "after")?,
                        b"message" => next(&mut map, &mut members.message, "message")?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(members)
            }
        }
        from.deserialize_map(Object)
    }
}

/// Reads a member's value; null is as good as no such member.
fn next<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    to: &mut Option<T>,
    name: &str,
) -> Result<(), A::Error> {
    if to.is_some() {
        return Err(A::Error::custom(format_args!("\"{name}\" is there twice")));
    }
    *to = map.next_value()?;
    Ok(())
}

/// A string as bytes: lone surrogates are what stands for bytes in it.
struct Text(Vec<u8>);

struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Text, D::Error> {
        Text::deserialize(from)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(names_bytes(bytes)))
            }
        }
        // As bytes, because lone surrogates are refused in a `str`.
        from.deserialize_bytes(Bytes)
    }
}

/// Undoes what [`push_string`] does to bytes that are not UTF-8: U+DC80..U+DCFF, which come here in three bytes each.
fn names_bytes(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match *rest {
            [0xed, second @ 0xb2..=0xb3, third @ 0x80..=0xbf, ..] => {
                bytes.push((second & 3) << 6 | third & 0x3f);
                rest = rest.get(3..).unwrap_or_default();
            }
            [byte, ..] => {
                bytes.push(byte);
                rest = rest.get(1..).unwrap_or_default();
            }
            [] => return bytes,
        }
    }
}

#[cfg(test)]
mod tests;
