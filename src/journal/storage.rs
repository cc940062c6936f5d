//! What the journal asks of the place where its files live, so that a simulated one can own the crash.

use super::format::Role;
use std::fmt;

/// A file of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// A segment in use, or used up.
    Log(u32),
    /// The whole state before segment `n`.
    Base(u32),
    /// The next segment, being made or ready: allocated, zeros.
    Spare,
    /// A base that is being written.
    NewBase,
}

impl File {
    /// The file with this name, if it is one of the journal's.
    pub fn parse(name: &[u8]) -> Option<File> {
        let name = std::str::from_utf8(name).ok()?;
        let file = match name.split_once('.')? {
            ("spare", "log") => File::Spare,
            ("new", "base") => File::NewBase,
            (number, "log") => File::Log(number.parse().ok()?),
            (number, "base") => File::Base(number.parse().ok()?),
            _ => return None,
        };
        // Only the one spelling that `Display` gives: "+1.log" is somebody else's.
        (file.to_string() == name).then_some(file)
    }

    /// What its header must say it is.
    pub fn role(self) -> Role {
        match self {
            File::Log(_) | File::Spare => Role::Log,
            File::Base(_) | File::NewBase => Role::Base,
        }
    }

    /// Its number, where its name has one.
    pub fn number(self) -> Option<u32> {
        match self {
            File::Log(number) | File::Base(number) => Some(number),
            File::Spare | File::NewBase => None,
        }
    }
}

impl fmt::Display for File {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            File::Log(number) => write!(out, "{number:010}.log"),
            File::Base(number) => write!(out, "{number:010}.base"),
            File::Spare => out.write_str("spare.log"),
            File::NewBase => out.write_str("new.base"),
        }
    }
}

/// A call on a file that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was tried, as a verb: "write", "flush", "rename".
    pub act: &'static str,
    /// Full path of the file or directory.
    pub path: String,
    /// errno(3).
    pub errno: i32,
}

/// errno(3) where it changes what the journal does next; the numbers are those of Linux everywhere.
pub mod errno {
    /// No such file.
    pub const ENOENT: i32 = 2;
    /// I/O error.
    pub const EIO: i32 = 5;
    /// File too large (`RLIMIT_FSIZE`).
    pub const EFBIG: i32 = 27;
    /// No space left.
    pub const ENOSPC: i32 = 28;
    /// Read-only filesystem.
    pub const EROFS: i32 = 30;
    /// A number does not fit.
    pub const EOVERFLOW: i32 = 75;
    /// Quota exceeded.
    pub const EDQUOT: i32 = 122;
}

impl Fault {
    /// There is no room now, and there may be later.
    pub fn is_no_room(&self) -> bool {
        matches!(self.errno, errno::ENOSPC | errno::EDQUOT | errno::EFBIG)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.errno);
        write!(out, "cannot {} {}: {text}", self.act, self.path)
    }
}

/// The place where the journal's files live.
///
/// What a crash may do, and so what a simulated storage should do:
/// * bytes given to `write` or `allocate` can be read back at once, and survive for certain only after
///   `flush` of that file has succeeded; until then any subset of them may survive, in any order;
/// * after a failed `flush` nothing is known about the bytes since the last good one, whatever reads say;
/// * new names, renames and removals are seen at once and survive for certain only after `sync_dir`;
///   until then any subset may survive; each is atomic;
/// * `truncate` shortens a file at some time between the call and the file's next `flush`.
pub trait Storage {
    /// The journal's files and their sizes in bytes, in any order. Other files are left out.
    fn list(&mut self) -> Result<Vec<(File, u64)>, Fault>;
    /// The number of a segment whose name was durable once: where neither it nor a later one is there, it was lost.
    fn noted(&mut self) -> Result<Option<u32>, Fault> {
        Ok(None)
    }
    /// Full path of a file, for messages.
    fn path(&self, file: File) -> String;
    /// Reads at an offset, not through a mapping; fewer bytes than asked for only at the end of the file.
    fn read_at(&mut self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, Fault>;
    /// Makes the file if need be and writes zeros over a range of it, so that its blocks exist; what it
    /// covers may have had other bytes. Does not wait for the disk.
    fn allocate(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault>;
    /// The same without the writing, where the place can do that: the range has blocks and reads as zeros, at the
    /// price that the flush of what is first written to a block has more to do.
    fn reserve(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        self.allocate(file, offset, length)
    }
    /// Writes inside what is allocated (segments) or at the end (bases; makes the file at offset 0).
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> Result<(), Fault>;
    /// Makes everything written to the file durable.
    fn flush(&mut self, file: File) -> Result<(), Fault>;
    /// Gives the file another name; an existing file of that name is replaced.
    fn rename(&mut self, from: File, to: File) -> Result<(), Fault>;
    /// Makes names durable.
    fn sync_dir(&mut self) -> Result<(), Fault>;
    /// Shortens the file.
    fn truncate(&mut self, file: File, length: u64) -> Result<(), Fault>;
    /// Removes the file; one that is not there is no error.
    fn remove(&mut self, file: File) -> Result<(), Fault>;
    /// Keeps the file's present content under another name that nothing here ever touches again, and
    /// gives its path. Once kept it is not kept again.
    fn keep_aside(&mut self, file: File) -> Result<String, Fault>;
    /// The file will not be used for a while: its descriptor and mapping may go.
    fn release(&mut self, file: File);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_other_names_are_not_ours() {
        for file in [
            File::Log(1),
            File::Log(u32::MAX),
            File::Base(12),
            File::Spare,
            File::NewBase,
        ] {
            assert_eq!(File::parse(file.to_string().as_bytes()), Some(file));
        }
        for name in [
            "1.log",
            "+000000001.log",
            "0000000001.log.damaged",
            "4294967296.log",
            "lock",
            "spare",
            "spare.base",
            "",
        ] {
            assert_eq!(File::parse(name.as_bytes()), None, "{name}");
        }
        assert_eq!(File::parse(b"\xff.log"), None);
    }
}
