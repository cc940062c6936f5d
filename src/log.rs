//! The log: journald, syslog or standard error. It never blocks the loop: what cannot be written now waits in
//! a bounded buffer, what does not fit is dropped and counted, and the count is the first thing said when
//! there is room again (`dropped lines: N`).

mod target;
mod text;

use crate::core::LogLine;
use crate::core::time::Mono;
use crate::plan::{Level, LogTo};
use crate::sys::clock;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
pub use target::Targets;
use target::{Sent, Target};
pub(crate) use text::escape;

/// Bytes that may wait.
const BUFFER: usize = 256 * 1024;
/// Between the first refusal and the next try; doubles while nothing moves.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait between tries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why there is no log: a sentence with a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// A rendered record on its way.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// How many lines they are.
    lines: usize,
    /// 0 for a line; for a note of dropped lines, how many it tells of.
    tells_of: u64,
}

/// Another place for lines, open.
#[derive(Debug)]
pub struct Elsewhere {
    to: LogTo,
    target: Target,
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    level: Level,
    to: LogTo,
    target: Target,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
    /// Lines are written together, by [`Log::flush`].
    gathers: bool,
    /// Dropped and not yet said.
    untold: u64,
    dropped: u64,
    /// The last thing written is half a line.
    torn: bool,
    /// The last record was refused for good: do not answer that with another one.
    failing: bool,
    wait: Duration,
    retry_at: Option<Mono>,
}

impl Log {
    /// Opens the log at the usual places.
    ///
    /// # Errors
    /// The socket is not there or refuses, or standard error is closed: a sentence with a remedy.
    pub fn open(to: LogTo, level: Level) -> Result<Log, OpenError> {
        Log::open_at(to, level, &Targets::default())
    }

    /// Opens the log at other places.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_at(to: LogTo, level: Level, places: &Targets) -> Result<Log, OpenError> {
        Ok(Log {
            level,
            to,
            target: Target::open(to, places).map_err(OpenError)?,
            queue: VecDeque::new(),
            queued_bytes: 0,
            gathers: false,
            untold: 0,
            dropped: 0,
            torn: false,
            failing: false,
            wait: FIRST_WAIT,
            retry_at: None,
        })
    }

    /// A log that is open at the usual place and takes what comes after [`Log::moves_to`]; `None` if it is there already.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn elsewhere(&self, to: LogTo) -> Result<Option<Elsewhere>, OpenError> {
        self.elsewhere_at(to, &Targets::default())
    }

    fn elsewhere_at(&self, to: LogTo, places: &Targets) -> Result<Option<Elsewhere>, OpenError> {
        if to == self.to {
            return Ok(None);
        }
        let target = Target::open(to, places).map_err(OpenError)?;
        Ok(Some(Elsewhere { to, target }))
    }

    /// From now on lines go there. What the former place does not take at once is dropped, and counted at the new one.
    pub fn moves_to(&mut self, elsewhere: Elsewhere) {
        self.gathers = false;
        self.write();
        if std::mem::take(&mut self.torn) {
            // Half a line is there; whoever comes back is not to go on with it. If that cannot be said now, it cannot.
            let _ended = self.target.send(b"\n");
        }
        for waiting in self.queue.drain(..) {
            let lines = waiting.lines as u64;
            self.untold = self.untold.saturating_add(waiting.tells_of.max(lines));
            if waiting.tells_of == 0 {
                self.dropped = self.dropped.saturating_add(lines);
            }
        }
        self.queued_bytes = 0;
        (self.failing, self.wait, self.retry_at) = (false, FIRST_WAIT, None);
        (self.to, self.target) = (elsewhere.to, elsewhere.target);
    }

    /// From now on lines of this level and more urgent ones are written.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Whether a line of this level is written; saves making it where not.
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Until the next [`Log::flush`] lines may be kept, so that many go out with one call where the target takes that. To
    /// be called only where that flush is sure to come.
    pub fn gather(&mut self) {
        self.gathers = self.target.joins() > 0;
    }

    /// Writes a line, or keeps it, or counts it. Control characters and bytes that are not UTF-8 are
    /// escaped: one line in is one line out. Texts above 48 KiB are cut (8 KiB in all for syslog), and say so.
    pub fn line(&mut self, level: Level, line: &LogLine) {
        if !self.enabled(level) {
            return;
        }
        let bytes = self.target.render(level, line);
        let note = (self.untold > 0).then(|| self.note());
        let joins = self.target.joins();
        let needed = bytes.len() + note.as_ref().map_or(0, Vec::len);
        // The note goes only with a line behind it: else a full buffer would hold notes and nothing else.
        if self.queued_bytes.saturating_add(needed) > BUFFER {
            self.untold = self.untold.saturating_add(1);
            self.dropped = self.dropped.saturating_add(1);
        } else {
            if let Some(note) = note {
                self.push_note(note);
            }
            // What goes out together goes out whole, before what does not go with it.
            if self.gathers && self.queued_bytes > 0 && self.queued_bytes + bytes.len() > joins {
                self.write_or_wait();
            }
            self.push(bytes, 0);
        }
        if !self.gathers || self.queued_bytes >= joins {
            self.write_or_wait();
        }
    }

    fn write_or_wait(&mut self) {
        if !self.write() && self.retry_at.is_none() {
            self.retry_at = Some(clock::boottime().after(self.wait));
        }
    }

    /// Writes what was gathered, and tries again what waits, if it is time to ([`Log::wants_wakeup`]); costs nothing if
    /// not. At the end of the process call it with the end of time.
    pub fn flush(&mut self, now: Mono) {
        if std::mem::take(&mut self.gathers) && self.queued_bytes > 0 && self.retry_at.is_none() {
            self.write_or_wait();
        }
        if self.retry_at.is_none_or(|at| now < at) {
            return;
        }
        let before = self.queued_bytes;
        if self.write() {
            return;
        }
        self.wait = if self.queued_bytes < before {
            FIRST_WAIT
        } else {
            (self.wait * 2).min(LONGEST_WAIT)
        };
        self.retry_at = Some(now.after(self.wait));
    }

    /// When [`Log::flush`] wants to be called at the latest (a point of `CLOCK_BOOTTIME`); `None` if nothing
    /// waits.
    pub fn wants_wakeup(&self) -> Option<Mono> {
        self.retry_at
    }

    /// Records that wait.
    pub fn pending(&self) -> usize {
        self.queue.iter().map(|waiting| waiting.lines).sum()
    }

    /// Lines dropped since the start, those included whose loss was told.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn note(&self) -> Vec<u8> {
        let text = format!("dropped lines: {}", self.untold);
        let line = LogLine {
            text,
            ..LogLine::default()
        };
        let mut bytes = self.target.render(Level::Warning, &line);
        if self.torn {
            bytes.insert(0, b'\n');
        }
        bytes
    }

    fn push_note(&mut self, note: Vec<u8>) {
        let lost = std::mem::take(&mut self.untold);
        self.push(note, lost);
    }

    fn push(&mut self, bytes: Vec<u8>, tells_of: u64) {
        self.queued_bytes += bytes.len();
        let joins = self.target.joins();
        if self.gathers
            && let Some(last) = self.queue.back_mut()
            && (last.tells_of, tells_of, last.written) == (0, 0, 0)
            && last.bytes.len() + bytes.len() <= joins
        {
            last.bytes.extend_from_slice(&bytes);
            last.lines += 1;
            return;
        }
        self.queue.push_back(Waiting {
            bytes,
            written: 0,
            lines: 1,
            tells_of,
        });
    }

    /// Writes what can be written; `false` if something still waits.
    fn write(&mut self) -> bool {
        loop {
            if !self.write_queue() {
                return false;
            }
            self.retry_at = None;
            self.wait = FIRST_WAIT;
            // All that was kept is out, and the target takes lines: now say what was not kept.
            if self.untold == 0 || self.failing {
                return true;
            }
            let note = self.note();
            self.push_note(note);
        }
    }

    fn write_queue(&mut self) -> bool {
        while let Some(front) = self.queue.front_mut() {
            let rest = front.bytes.get(front.written..).unwrap_or_default();
            match self.target.send(rest) {
                Sent::Part(count) if count < rest.len() => {
                    front.written += count;
                    self.torn = true;
                    continue;
                }
                Sent::Part(_) => (self.torn, self.failing) = (false, false),
                Sent::NotNow => return false,
                Sent::Never => {
                    self.failing = true;
                    // The lines that a note tells of are in the total already, but still to be told.
                    let lines = front.lines as u64;
                    self.untold = self.untold.saturating_add(front.tells_of.max(lines));
                    if front.tells_of == 0 {
                        self.dropped = self.dropped.saturating_add(lines);
                    }
                }
            }
            if let Some(done) = self.queue.pop_front() {
                self.queued_bytes = self.queued_bytes.saturating_sub(done.bytes.len());
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
