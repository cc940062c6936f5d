//! What is remembered of files: small, ordered, and keyed so that a directory's files lie together.

use super::ask::Version;
use super::ids::DirId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Directory id in the upper 32 bits, 96 bits of the SHA-256 of the name below: the files of one directory
/// are one range, and a renamed directory takes its files along without a single key changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey(u128);

impl FileKey {
    /// The key of `name` in `dir`.
    pub fn new(dir: DirId, name: &[u8]) -> FileKey {
        FileKey::from_hash(dir, name_hash(name))
    }

    /// The key of a name known by its hash only.
    pub fn from_hash(dir: DirId, hash: [u8; 12]) -> FileKey {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&dir.0.to_be_bytes());
        bytes[4..].copy_from_slice(&hash);
        FileKey(u128::from_be_bytes(bytes))
    }

    /// The directory.
    pub fn dir(self) -> DirId {
        DirId((self.0 >> 96) as u32)
    }

    /// The hash of the name.
    pub fn hash(self) -> [u8; 12] {
        let mut hash = [0; 12];
        hash.copy_from_slice(&self.0.to_be_bytes()[4..]);
        hash
    }

    /// All keys of one directory.
    pub fn range(dir: DirId) -> std::ops::RangeInclusive<FileKey> {
        let low = u128::from(dir.0) << 96;
        FileKey(low)..=FileKey(low | (u128::MAX >> 32))
    }
}

/// The first 96 bits of the SHA-256 of a name: collisions cannot be made by choosing names.
pub fn name_hash(name: &[u8]) -> [u8; 12] {
    let mut hash = [0; 12];
    hash.copy_from_slice(&Sha256::digest(name)[..12]);
    hash
}

/// 64 bits that stand for a version. Without the filesystem's identity: device numbers move at remount
/// and reboot, and inode, birth time, size and mtime in nanoseconds together are witness enough.
pub fn version_digest(version: &Version) -> u64 {
    let mut hash = Sha256::new();
    hash.update(version.ino.to_le_bytes());
    hash.update(version.btime_ns.to_le_bytes());
    hash.update(version.generation.to_le_bytes());
    hash.update(version.size.to_le_bytes());
    hash.update(version.mtime_ns.to_le_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

/// The file was renamed, which changes its change time, and was not looked at since. Also what [`ctime_digest`]
/// makes of 0.
pub const CTIME_UNKNOWN: u32 = 0;

/// 32 bits that stand for a change time.
pub fn ctime_digest(ctime_ns: i64) -> u32 {
    let x = (ctime_ns as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x >> 32) as u32
}

/// One remembered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// [`version_digest`] of what was concluded.
    pub version: u64,
    /// [`ctime_digest`] of it.
    pub ctime: u32,
    /// When it was concluded or seen gone: seconds since 1970, enough until 2106.
    pub at_s: u32,
    /// Seen gone: whatever comes under this name is new.
    pub gone: bool,
    /// Another directory lies where this file's was, or another filesystem: it was not seen gone, and counts as
    /// concluded when it is back.
    pub away: bool,
    /// Mark of the last listing that saw it.
    pub mark: u8,
}

/// All remembered files.
#[derive(Debug, Default)]
pub struct Files {
    known: BTreeMap<FileKey, Known>,
    /// How many are gone or away: those that are forgotten in time.
    gone: usize,
}

impl Known {
    fn fades(&self) -> bool {
        self.gone || self.away
    }
}

impl Files {
    /// What is remembered under `key`, gone or not.
    pub fn get(&self, key: FileKey) -> Option<&Known> {
        self.known.get(&key)
    }

    /// Remembers.
    pub fn put(&mut self, key: FileKey, known: Known) {
        self.gone += usize::from(known.fades());
        if let Some(old) = self.known.insert(key, known) {
            self.gone -= usize::from(old.fades());
        }
    }

    /// Forgets.
    pub fn take(&mut self, key: FileKey) -> Option<Known> {
        let known = self.known.remove(&key)?;
        self.gone -= usize::from(known.fades());
        Some(known)
    }

    /// A listing saw the file. What is remembered now, if it was away before.
    pub fn mark(&mut self, key: FileKey, mark: u8) -> Option<Known> {
        let known = self.known.get_mut(&key)?;
        known.mark = mark;
        if !std::mem::take(&mut known.away) {
            return None;
        }
        self.gone -= usize::from(!known.gone);
        Some(*known)
    }

    /// The file was seen gone. `true` if this is news.
    pub fn set_gone(&mut self, key: FileKey, at_s: u32) -> bool {
        match self.known.get_mut(&key) {
            Some(known) if !known.gone => {
                self.gone += usize::from(!known.away);
                known.gone = true;
                known.at_s = at_s;
                true
            }
            _ => false,
        }
    }

    /// The file's directory lies elsewhere. What is remembered now, if this is news.
    pub fn set_away(&mut self, key: FileKey, at_s: u32) -> Option<Known> {
        match self.known.get_mut(&key) {
            Some(known) if !known.fades() => {
                known.away = true;
                known.at_s = at_s;
                self.gone += 1;
                Some(*known)
            }
            _ => None,
        }
    }

    /// Any file of `dir` that is away.
    pub fn any_away(&self, dir: DirId) -> bool {
        self.known
            .range(FileKey::range(dir))
            .any(|(_, known)| known.away && !known.gone)
    }

    /// Files of `dir` that are not gone and that the listing with `mark` did not see.
    pub fn unmarked(&self, dir: DirId, mark: u8) -> Vec<(FileKey, u64)> {
        self.known
            .range(FileKey::range(dir))
            .filter(|(_, known)| !known.gone && known.mark != mark)
            .map(|(key, known)| (*key, known.version))
            .collect()
    }

    /// Keys of `dir`, those seen gone included.
    pub fn of_dir(&self, dir: DirId) -> Vec<FileKey> {
        self.known
            .range(FileKey::range(dir))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Anything at all remembered in `dir`.
    pub fn any_in(&self, dir: DirId) -> bool {
        self.known.range(FileKey::range(dir)).next().is_some()
    }

    /// Forgets what has been gone or away since before `before_s`.
    pub fn expire(&mut self, before_s: u32) {
        if self.gone > 0 {
            self.known
                .retain(|_, known| !known.fades() || known.at_s >= before_s);
            self.gone = self.known.values().filter(|known| known.fades()).count();
        }
    }

    /// How many are remembered, and how many of them are gone or away.
    pub fn count(&self) -> (usize, usize) {
        (self.known.len(), self.gone)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (FileKey, &Known)> {
        self.known.iter().map(|(key, known)| (*key, known))
    }

    /// All of them from `key` on (exclusive), for work in slices.
    pub fn after(&self, key: Option<FileKey>) -> impl Iterator<Item = (FileKey, &Known)> {
        let low = match key {
            Some(key) => std::ops::Bound::Excluded(key),
            None => std::ops::Bound::Unbounded,
        };
        self.known
            .range((low, std::ops::Bound::Unbounded))
            .map(|(key, known)| (*key, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_range() {
        let (a, b) = (DirId(1), DirId(2));
        let mut files = Files::default();
        let known = Known {
            version: 1,
            ctime: 2,
            at_s: 3,
            gone: false,
            away: false,
            mark: 0,
        };
        for name in [&b"x"[..], b"y", b"\xff\xfe"] {
            files.put(FileKey::new(a, name), known);
            files.put(FileKey::new(b, name), known);
        }
        assert_eq!(files.of_dir(a).len(), 3);
        assert!(files.of_dir(a).iter().all(|key| key.dir() == a));
        assert_eq!(files.mark(FileKey::new(a, b"x"), 7), None);
        assert_eq!(files.unmarked(a, 7).len(), 2);
        assert!(files.set_gone(FileKey::new(a, b"y"), 10));
        assert!(!files.set_gone(FileKey::new(a, b"y"), 11));
        assert_eq!(files.count(), (6, 1));
        files.expire(10);
        assert_eq!(files.count(), (6, 1));
        files.expire(11);
        assert_eq!(files.count(), (5, 0));
        let key = FileKey::new(b, b"x");
        assert_eq!(FileKey::from_hash(key.dir(), key.hash()), key);
    }

    #[test]
    fn an_entry_fits_its_budget() {
        // A B-tree leaf is filled to at least half and in practice to about two thirds:
        // 16 + 20 bytes (24 with padding) stay below 64 with that.
        assert!(size_of::<FileKey>() + size_of::<Known>() <= 40);
    }
}
