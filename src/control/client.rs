//! The other end: asks, and reads the answer line by line.

use super::{Line, Refusal, Request};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A daemon that has not sent a byte for this long hangs, or is stopped.
const PATIENCE: Duration = Duration::from_secs(30);
/// No line of an answer is longer.
const LINE_MAX: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listens: the socket, and what connect(2) says.
    Nobody(PathBuf, io::Error),
    /// The connection broke, or brought something else than an answer.
    Broken(String),
    /// The daemon refuses.
    Refused(Refusal),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoAnswer::Nobody(path, error) => {
                write!(f, "no daemon answers at {}: {error}", path.display())
            }
            NoAnswer::Broken(text) => f.write_str(text),
            NoAnswer::Refused(refusal) if refusal.remedy.is_empty() => {
                f.write_str(&refusal.message)
            }
            NoAnswer::Refused(refusal) => write!(f, "{}; {}", refusal.message, refusal.remedy),
        }
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`NoAnswer::Nobody`].
    pub fn open(path: &Path) -> Result<Connection, NoAnswer> {
        let nobody = |error| NoAnswer::Nobody(path.to_owned(), error);
        let stream = UnixStream::connect(path).map_err(nobody)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(nobody)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(nobody)?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    /// Asks, and calls `each` with the text and the meaning of each line up to the end. `false` from it ends the reading.
    ///
    /// # Errors
    /// All but [`NoAnswer::Nobody`].
    pub fn ask(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(&str, Line) -> bool,
    ) -> Result<(), NoAnswer> {
        let broken = |error: &dyn std::fmt::Display| NoAnswer::Broken(error.to_string());
        let mut line = serde_json::to_vec(request).map_err(|error| broken(&error))?;
        line.push(b'\n');
        // Who was refused at the door is told so, and cannot write: what can be read says why.
        let written = self.stream.get_mut().write_all(&line);
        let mut text = String::new();
        loop {
            text.clear();
            let read = (&mut self.stream).take(LINE_MAX).read_line(&mut text);
            match (read, &written) {
                (Ok(0), Err(error)) | (Err(_), Err(error)) => return Err(broken(error)),
                (Ok(0), Ok(())) => {
                    return Err(NoAnswer::Broken(
                        "the daemon closed the connection in the middle of its answer".into(),
                    ));
                }
                (Err(error), Ok(())) => {
                    return Err(NoAnswer::Broken(format!(
                        "the daemon does not answer: {error}"
                    )));
                }
                (Ok(_), _) => {}
            }
            let text = text.trim_end_matches('\n');
            match serde_json::from_str::<Line>(text) {
                Ok(Line::End(_)) => return Ok(()),
                Ok(Line::Error(refusal)) => return Err(NoAnswer::Refused(refusal)),
                Ok(line) => {
                    if !each(text, line) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    return Err(NoAnswer::Broken(format!(
                        "the daemon's answer is not understood ({error}); is it of another version?"
                    )));
                }
            }
        }
    }
}
