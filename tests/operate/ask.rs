//! Asking: by the built program, and over the bare socket.

use crate::bed::Bed;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

pub fn socket(bed: &Bed) -> PathBuf {
    bed.path("state").join("control.sock")
}

/// The built program with these words and this bed's configuration.
pub fn settled(bed: &Bed, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_settled"))
        .args(words)
        .arg("-c")
        .arg(bed.path("settled.toml"))
        .output()
        .expect("the built program")
}

/// What it writes, if it succeeds.
pub fn told(bed: &Bed, words: &[&str]) -> String {
    let said = settled(bed, words);
    assert!(said.status.success(), "settled {words:?}: {said:?}");
    String::from_utf8(said.stdout).expect("text")
}

/// The rows that it writes with `--json`, each with its kind.
pub fn rows(bed: &Bed, words: &[&str]) -> Vec<(String, Value)> {
    let mut words = words.to_vec();
    words.push("--json");
    parse(&told(bed, &words))
}

pub fn parse(text: &str) -> Vec<(String, Value)> {
    text.lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("JSON");
            let (kind, value) = row
                .as_object()
                .and_then(|row| row.iter().next())
                .expect("an object of one row");
            (kind.clone(), value.clone())
        })
        .collect()
}

/// The rows of one kind.
pub fn of_kind(rows: &[(String, Value)], kind: &str) -> Vec<Value> {
    rows.iter()
        .filter(|(of, _)| of == kind)
        .map(|(_, value)| value.clone())
        .collect()
}

pub fn daemon_row(bed: &Bed) -> Value {
    of_kind(&rows(bed, &["status"]), "daemon").remove(0)
}

/// A connection of its own.
pub struct Bare {
    pub stream: BufReader<UnixStream>,
}

impl Bare {
    pub fn open(bed: &Bed) -> Bare {
        let stream = UnixStream::connect(socket(bed)).expect("a listening daemon");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket");
        Bare {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // Who was refused at the door cannot write: what is read says why.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Option<Value> {
        let mut text = String::new();
        match self.stream.read_line(&mut text) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&text).expect("JSON")),
            // It was closed with something unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line within a minute: {error}"),
        }
    }

    /// Lines up to the end of an answer.
    pub fn answer(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            let last = line.get("end").is_some() || line.get("error").is_some();
            lines.push(line);
            if last {
                break;
            }
        }
        lines
    }
}
