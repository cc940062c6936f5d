//! What can go wrong with the journal, each as the one sentence that a person reads.

use super::format::{BadFrame, BadHeader};
use super::storage::{Fault, File};
use std::fmt;

/// What is wrong at a place where a record should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The file's header is not readable.
    Header(BadHeader),
    /// The header belongs to another journal or another file.
    Foreign,
    /// No record: zeros, a wrong length, a wrong checksum, or nothing that the disk can read.
    Frame(BadFrame),
    /// The checksum matches, the sequence number does not follow.
    Sequence {
        /// The one that would follow.
        expected: u64,
        /// The one that is there.
        found: u64,
    },
    /// The checksum matches, the body is not a record of its kind.
    Body(u16),
    /// Records between two files are missing: a file was removed.
    Missing,
    /// The base has no end: it is not the whole state.
    NoEnd,
    /// A segment with this number was there once; neither it nor a later one is there now.
    Lost(u32),
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Why::Header(BadHeader::Unreadable) => out.write_str("the disk cannot read the header"),
            Why::Header(BadHeader::Short) => out.write_str("the file is shorter than its header"),
            Why::Header(BadHeader::Magic) => out.write_str("the header does not begin as it must"),
            Why::Header(BadHeader::Checksum) => out.write_str("the header's checksum is wrong"),
            Why::Header(BadHeader::Version(version)) => write!(out, "format version {version}"),
            Why::Header(BadHeader::Field) => out.write_str("a field of the header makes no sense"),
            Why::Foreign => out.write_str("the header belongs to another journal or file"),
            Why::Frame(BadFrame::Unreadable) => out.write_str("the disk cannot read this place"),
            Why::Frame(BadFrame::Empty) => out.write_str("zeros in place of a record"),
            Why::Frame(BadFrame::Length(length)) => write!(out, "a record of {length} bytes"),
            Why::Frame(BadFrame::Cut) => out.write_str("the file ends inside a record"),
            Why::Frame(BadFrame::Checksum) => out.write_str("a record's checksum is wrong"),
            Why::Sequence { expected, found } => {
                write!(out, "record {found} in place of record {expected}")
            }
            Why::Body(kind) => write!(out, "a record of kind {kind} with an impossible body"),
            Why::Missing => out.write_str("the records before this file are missing"),
            Why::Lost(number) => write!(
                out,
                "the segments behind this are missing: {} was there once",
                File::Log(*number)
            ),
            Why::NoEnd => out.write_str("the base has no end"),
        }
    }
}

/// A place that was flushed once and cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: File,
    /// Its full path.
    pub path: String,
    /// Where the damage begins, in bytes from the file's start.
    pub offset: u64,
    /// How many bytes are not readable.
    pub bytes: u64,
    /// What is wrong at `offset`.
    pub why: Why,
    /// How many records are known to be missing, from the sequence numbers around the place; 0 where
    /// it cannot be told.
    pub missing: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(
            out,
            "{} at offset {}: {} ({} bytes not readable",
            self.path, self.offset, self.why, self.bytes
        )?;
        match self.missing {
            0 => out.write_str(")"),
            1 => out.write_str(", 1 record missing)"),
            missing => write!(out, ", {missing} records missing)"),
        }
    }
}

/// Why a directory cannot hold a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadDirectory {
    /// Something else is there.
    NotADirectory,
    /// Group or others may write to it; its mode.
    Writable(u32),
    /// Somebody else owns it; their user id.
    Owner(u32),
    /// It is on a filesystem of this type, where neither locks nor mapped files can be trusted.
    Filesystem(&'static str),
}

/// Why the journal cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// A call failed.
    Storage(Fault),
    /// A write or flush failed: nothing is known about the bytes since the last good flush. Every later
    /// call fails with the same.
    Final(Fault),
    /// There is no room for another segment now. Nothing was written; what was appended before stands.
    NoRoom(Fault),
    /// The record is longer than a record may be; nothing was written.
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The most a record may have.
        max: u32,
    },
    /// A file was written by a newer program.
    Newer {
        /// Its full path.
        path: String,
        /// Its format version.
        version: u16,
    },
    /// A record was written by a newer program.
    UnknownKind {
        /// The file's full path.
        path: String,
        /// Where the record begins.
        offset: u64,
        /// Its kind.
        kind: u16,
    },
    /// Places that cannot be read, and `OnDamage::Stop`.
    Damaged(Vec<Damage>),
    /// Another daemon holds the state directory.
    Held {
        /// The directory.
        path: String,
        /// Its process, where the lock file says.
        pid: Option<u32>,
    },
    /// The directory cannot hold a journal.
    Directory(String, BadDirectory),
    /// The kernel lacks `MADV_POPULATE_WRITE` (before Linux 5.14).
    OldKernel,
    /// There is no journal here.
    NotAJournal(String),
    /// A compaction step without a beginning, or a second beginning.
    NotCompacting(bool),
}

impl From<Fault> for JournalError {
    fn from(fault: Fault) -> JournalError {
        JournalError::Storage(fault)
    }
}

impl std::error::Error for JournalError {}

impl fmt::Display for JournalError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            JournalError::Storage(fault) => write!(out, "{fault}"),
            JournalError::Final(fault) => write!(
                out,
                "{fault}; what was not flushed may be lost: stop, and let the next start recover"
            ),
            JournalError::NoRoom(fault) => {
                write!(out, "{fault}; make room there and work goes on by itself")
            }
            JournalError::TooLong { bytes, max } => {
                write!(out, "a record of {bytes} bytes is longer than {max}")
            }
            JournalError::Newer { path, version } => write!(
                out,
                "{path} has format version {version}; this program reads up to {}: use a newer one",
                super::format::VERSION
            ),
            JournalError::UnknownKind { path, offset, kind } => write!(
                out,
                "{path} at offset {offset}: a record of kind {kind} with something that this program does not \
                 know: use a newer one"
            ),
            JournalError::Damaged(damage) => {
                if let Some(first) = damage.first() {
                    write!(out, "the journal is damaged: {first}")?;
                }
                if damage.len() > 1 {
                    write!(out, ", and {} more places", damage.len() - 1)?;
                }
                out.write_str(
                    "; 'settled journal verify' names all; going on means looking at every file anew",
                )
            }
            JournalError::Held { path, pid } => {
                write!(out, "{path} is in use by another settled")?;
                match pid {
                    Some(pid) => write!(out, ", process {pid}"),
                    None => out.write_str(", whose process is not known"),
                }?;
                out.write_str(": stop it, or use another state directory")
            }
            JournalError::Directory(path, bad) => match bad {
                BadDirectory::NotADirectory => write!(out, "{path} is not a directory"),
                BadDirectory::Writable(mode) => write!(
                    out,
                    "{path} can be written by others (mode {mode:04o}): chmod go-w {path}"
                ),
                BadDirectory::Owner(uid) => write!(
                    out,
                    "{path} belongs to user {uid}: it must belong to the user that settled runs as, \
                     or to root"
                ),
                BadDirectory::Filesystem(kind) => write!(
                    out,
                    "{path} is on {kind}, where a flush, a lock or a mapped file cannot be relied on: \
                     put the state on a local filesystem"
                ),
            },
            JournalError::OldKernel => out
                .write_str("this kernel has no MADV_POPULATE_WRITE: Linux 5.14 or later is needed"),
            JournalError::NotAJournal(path) => write!(out, "{path} holds no journal"),
            JournalError::NotCompacting(true) => out.write_str("a compaction is under way already"),
            JournalError::NotCompacting(false) => out.write_str("no compaction is under way"),
        }
    }
}
