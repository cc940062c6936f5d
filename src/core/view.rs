//! What is told of the state to who asks: the rows of the control socket's answers (settled(1)). Both ends use them, so
//! they are read as well as written; a member that is not known is ignored, one that is missing is as if empty.
//!
//! Times are nanoseconds since 1970. A path that is not UTF-8 is shown with replacement characters, and once more in
//! hexadecimal with `_hex` behind the member's name.

use super::ids::RunId;
use serde::{Deserialize, Serialize};

macro_rules! rows {
    ($($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$what])* pub $field: $kind,)*
        }
    )*};
}

rows! {
    /// The daemon as a whole: all that can be told without going through what it remembers.
    DaemonRow {
        /// Of the program.
        version: String,
        /// The daemon's process.
        pid: u32,
        /// The journal's id: the first half of every job's name.
        journal: String,
        /// The state directory.
        state: String,
        /// The configuration; empty where it came from the command line.
        config: String,
        /// `running`, `draining`, `terminating`, `killing`, `leaving` or `stopped`.
        mode: String,
        /// When it was started.
        started_ns: i64,
        /// When this was told.
        now_ns: i64,
        /// There is no room for the journal.
        no_room: bool,
        /// Attempts that are being made.
        running: u64,
        /// Jobs that are owed, those included.
        owed: u64,
        /// Candidates.
        candidates: u64,
        /// Directories that are watched.
        directories: u64,
        /// inotify watches.
        inotify_watches: u64,
        /// Files that are remembered.
        remembered: u64,
        /// How many of those are gone.
        gone: u64,
        /// Questions to scouts that are not answered.
        questions: u64,
        /// Memory that the daemon has, in KiB.
        memory_kib: u64,
        /// The longest turn of the loop since the start, without its flush, in microseconds.
        longest_turn_us: u64,
        /// When that was.
        longest_turn_ns: i64,
        /// The longest flush of the journal since the start, in microseconds.
        longest_flush_us: u64,
        /// Log lines that could not be written.
        dropped_log_lines: u64,
        /// Clients of the control socket, this one included.
        clients: u64,
        /// When the configuration was read last and taken.
        loaded_ns: i64,
    }
    /// A watch.
    WatchRow {
        /// Its name.
        watch: String,
        /// Its root.
        path: String,
        /// The same, if that is not UTF-8.
        #[serde(skip_serializing_if = "String::is_empty")] path_hex: String,
        /// In words.
        state: String,
        /// How it is observed, in words.
        observed: String,
        /// It is in the configuration.
        configured: bool,
        /// Nothing of it is started.
        paused: bool,
        /// A listing is under way.
        listing: bool,
        /// Attempts that are being made.
        running: u64,
        /// Jobs that are ready.
        ready: u64,
        /// Dead jobs that hold up others.
        halted: u64,
        /// Where it stands with `expect`; null without that.
        expected: Option<ExpectRow>,
    }
    /// What should arrive at a watch, and what has.
    ExpectRow {
        /// What, in words.
        text: String,
        /// How many files.
        count: u64,
        /// How many have come since `opens_ns`.
        came: u64,
        /// What settled before does not count.
        opens_ns: i64,
        /// Until when they have to come.
        closes_ns: i64,
        /// That is over, and too few had come.
        missed: bool,
        /// When a file settled last, as far as that is remembered.
        last_ns: i64,
        /// When the time before that was over; 0 if none has been since the daemon's start.
        judged_ns: i64,
        /// How many had come in it.
        judged_came: u64,
        /// They were too few.
        judged_missed: bool,
    }
    /// A mount that has to do with a watch.
    MountRow {
        /// Where it is mounted.
        path: String,
        /// The same, if that is not UTF-8.
        #[serde(skip_serializing_if = "String::is_empty")] path_hex: String,
        /// Its type.
        fstype: String,
        /// Whether it answers, in words.
        state: String,
        /// It does not.
        silent: bool,
        /// Questions that it was asked and has not answered.
        asked: u64,
        /// Questions that wait to be asked.
        waiting: u64,
    }
    /// A file that something is to happen to: a candidate, or a job.
    FileRow {
        /// The watch.
        watch: String,
        /// Where it is.
        path: String,
        /// The same, if that is not UTF-8.
        #[serde(skip_serializing_if = "String::is_empty")] path_hex: String,
        /// One word: see [`super::words::STATES`].
        state: String,
        /// The same as a sentence, as the log has it.
        text: String,
        /// Since when.
        since_ns: i64,
        /// The job as users see it; empty for a candidate.
        job: String,
        /// Its key.
        key: String,
        /// Attempts that were begun.
        attempt: u32,
        /// The process, where there is one.
        pid: i32,
        /// Bytes; where it was looked at.
        size: u64,
        /// Modification time.
        mtime_ns: i64,
        /// When it settled.
        settled_ns: i64,
        /// Its process, to be looked up.
        #[serde(skip)] run: Option<RunId>,
    }
    /// Something that was observed, and when.
    Fact {
        /// A sentence.
        text: String,
        /// When; in the future for what is due.
        at_ns: i64,
    }
    /// What one watch has to say about a path.
    Finding {
        /// The watch.
        watch: String,
        /// Its root.
        root: String,
        /// The path below it.
        rel: String,
        /// The same, if that is not UTF-8.
        #[serde(skip_serializing_if = "String::is_empty")] rel_hex: String,
        /// Where it is does not answer: whoever looks at it there waits.
        silent: bool,
        /// It selects the name.
        selected: bool,
        /// Which rule does not: `built-in`, `exclude`, `include`, `own`, `recursive`, `private` or `not-configured`.
        rule: String,
        /// The pattern of that rule, or the path.
        pattern: String,
        /// The directory on the way that the rule is about, below the root; empty where it is the path itself.
        at: String,
        /// The watch, in words.
        state: String,
        /// The path's directory, in words.
        directory: String,
        /// The path is a directory that is watched.
        is_directory: bool,
        /// The candidate.
        candidate: Option<FileRow>,
        /// Its evidence.
        evidence: Vec<Fact>,
        /// The job.
        job: Option<FileRow>,
        /// What it waits for, or what happens to it.
        waits: Vec<Fact>,
        /// When it was concluded last.
        concluded_ns: i64,
        /// What stands for the version that was concluded, and for its change time: digests. Empty and 0 where there is none.
        version: String,
        /// See there.
        ctime: u32,
        /// A change time that moves alone is nothing to the watch: `on_ctime = "ignore"`.
        ignores_ctime: bool,
        /// When it was seen gone.
        gone_ns: i64,
        /// Another directory lies where it was.
        away: bool,
        /// Size and age that are selected, where that is limited, in words.
        limits: String,
    }
    /// No watch has the path: the one whose root has most in common with it.
    Nearest {
        /// The watch.
        watch: String,
        /// Its root.
        root: String,
        /// Why not, in words.
        text: String,
        /// Where the path is does not answer.
        silent: bool,
    }
}

/// A path as it can be shown, and in hexadecimal if it cannot.
pub fn shown(path: &[u8]) -> (String, String) {
    match std::str::from_utf8(path) {
        Ok(text) => (text.to_owned(), String::new()),
        Err(_) => (
            String::from_utf8_lossy(path).into_owned(),
            path.iter().map(|byte| format!("{byte:02x}")).collect(),
        ),
    }
}

/// The bytes of a path that was shown so.
pub fn bytes_of(text: &str, hex: &str) -> Vec<u8> {
    if hex.is_empty() {
        return text.as_bytes().to_vec();
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => digit(*high) << 4 | digit(*low),
            _ => 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_whatever_bytes_they_have() {
        for path in [&b"/srv/a b"[..], b"/srv/\xff\n\x00", b""] {
            let (text, hex) = shown(path);
            assert_eq!(bytes_of(&text, &hex), path);
        }
    }
}
