//! What is remembered of files: small, ordered, and keyed so that a directory's files lie together.

use super::ask::Version;
use super::ids::DirId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Directory id in the upper 32 bits, 96 bits of the SHA-256 of the name below: the files of one directory
/// are one range, and a renamed directory takes its files along without a single key changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey(u128);

impl FileKey {
    /// Not above any other.
    pub const FIRST: FileKey = FileKey(0);
    /// Not below any other.
    pub const LAST: FileKey = FileKey(u128::MAX);

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

/// Files that lie together in a leaf, at most.
const LEAF_MAX: usize = 256;
/// A leaf's memory grows and shrinks by this many files.
const LEAF_STEP: usize = 16;

/// A run of files in order. The two lists go together; apart, neither needs padding.
#[derive(Debug, Default)]
struct Leaf {
    keys: Vec<FileKey>,
    known: Vec<Known>,
}

impl Leaf {
    fn place(&self, key: FileKey) -> Result<usize, usize> {
        self.keys.binary_search(&key)
    }

    fn insert(&mut self, at: usize, key: FileKey, known: Known) {
        if self.keys.len() == self.keys.capacity() {
            self.keys.reserve_exact(LEAF_STEP);
            self.known.reserve_exact(LEAF_STEP);
        }
        self.keys.insert(at, key);
        self.known.insert(at, known);
    }

    fn split_off(&mut self, at: usize) -> Leaf {
        let new = Leaf {
            keys: self.keys.split_off(at),
            known: self.known.split_off(at),
        };
        self.trim();
        new
    }

    fn append(&mut self, mut next: Leaf) {
        self.keys.reserve_exact(next.keys.len());
        self.known.reserve_exact(next.keys.len());
        self.keys.append(&mut next.keys);
        self.known.append(&mut next.known);
    }

    fn trim(&mut self) {
        if self.keys.capacity() - self.keys.len() > 2 * LEAF_STEP {
            self.keys.shrink_to(self.keys.len() + LEAF_STEP);
            self.known.shrink_to(self.keys.len() + LEAF_STEP);
        }
    }

    fn iter(&self, from: usize) -> impl Iterator<Item = (FileKey, &Known)> {
        let keys = self.keys.iter().skip(from).copied();
        keys.zip(self.known.iter().skip(from))
    }
}

/// All remembered files: a tree of one level, because a `BTreeMap` of a million of them takes 67 to 84 bytes for
/// each and twice the time at start.
#[derive(Debug, Default)]
pub struct Files {
    /// By a key that is not above any in the leaf, and above all in the leaf before. None is empty.
    leaves: BTreeMap<FileKey, Leaf>,
    count: usize,
    /// How many are gone or away: those that are forgotten in time.
    gone: usize,
}

impl Known {
    fn fades(&self) -> bool {
        self.gone || self.away
    }
}

impl Files {
    fn leaf(&self, key: FileKey) -> Option<(FileKey, &Leaf)> {
        let (low, leaf) = self.leaves.range(..=key).next_back()?;
        Some((*low, leaf))
    }

    fn leaf_mut(&mut self, key: FileKey) -> Option<(FileKey, &mut Leaf)> {
        let (low, leaf) = self.leaves.range_mut(..=key).next_back()?;
        Some((*low, leaf))
    }

    fn get_mut(&mut self, key: FileKey) -> Option<&mut Known> {
        let (_, leaf) = self.leaf_mut(key)?;
        let at = leaf.place(key).ok()?;
        leaf.known.get_mut(at)
    }

    /// What is remembered under `key`, gone or not.
    pub fn get(&self, key: FileKey) -> Option<&Known> {
        let (_, leaf) = self.leaf(key)?;
        leaf.known.get(leaf.place(key).ok()?)
    }

    /// Remembers.
    pub fn put(&mut self, key: FileKey, known: Known) {
        self.gone += usize::from(known.fades());
        let last = self.leaves.last_key_value().map(|(low, _)| *low);
        let Some((low, leaf)) = self.leaf_mut(key) else {
            let mut leaf = Leaf::default();
            leaf.insert(0, key, known);
            // Whatever comes before the first finds this one.
            self.leaves.insert(FileKey(0), leaf);
            self.count += 1;
            return;
        };
        let at = match leaf.place(key) {
            Ok(at) => {
                if let Some(place) = leaf.known.get_mut(at) {
                    let old = std::mem::replace(place, known);
                    self.gone -= usize::from(old.fades());
                }
                return;
            }
            Err(at) => at,
        };
        if leaf.keys.len() < LEAF_MAX {
            leaf.insert(at, key, known);
            self.count += 1;
            return;
        }
        // What comes in order, as from a base, leaves full leaves behind.
        let middle = if at == LEAF_MAX && last == Some(low) {
            LEAF_MAX
        } else {
            LEAF_MAX / 2
        };
        let mut new = leaf.split_off(middle);
        if at > middle || at == LEAF_MAX {
            new.insert(at - middle, key, known);
        } else {
            leaf.insert(at, key, known);
        }
        self.count += 1;
        if let Some(first) = new.keys.first().copied() {
            self.leaves.insert(first, new);
        }
    }

    /// Forgets.
    pub fn take(&mut self, key: FileKey) -> Option<Known> {
        let (low, leaf) = self.leaf_mut(key)?;
        let at = leaf.place(key).ok()?;
        leaf.keys.remove(at);
        let known = leaf.known.remove(at);
        leaf.trim();
        let left = leaf.keys.len();
        self.count -= 1;
        self.gone -= usize::from(known.fades());
        if left < LEAF_MAX / 4 {
            self.join(low);
        }
        Some(known)
    }

    /// A small leaf becomes part of the one before or takes in the one behind, if both fit well.
    fn join(&mut self, low: FileKey) {
        let left = self.leaves.get(&low).map_or(0, |leaf| leaf.keys.len());
        if left == 0 {
            self.leaves.remove(&low);
            return;
        }
        let fits = |leaf: &Leaf| leaf.keys.len() + left <= LEAF_MAX / 2;
        let before = self.leaves.range(..low).next_back();
        let behind = self
            .leaves
            .range((Bound::Excluded(low), Bound::Unbounded))
            .next();
        let (to, from) = match (before, behind) {
            (Some((before, leaf)), _) if fits(leaf) => (*before, low),
            (_, Some((behind, leaf))) if fits(leaf) => (low, *behind),
            _ => return,
        };
        if let Some(from) = self.leaves.remove(&from)
            && let Some(to) = self.leaves.get_mut(&to)
        {
            to.append(from);
        }
    }

    /// A listing saw the name, and which `version` has it where that is certain. What is remembered now, if the file
    /// was away before and this is the one: another under its name says nothing about it.
    pub fn mark(&mut self, key: FileKey, mark: u8, version: Option<&Version>) -> Option<Known> {
        let known = self.get_mut(key)?;
        known.mark = mark;
        if !known.away || version.map(version_digest) != Some(known.version) {
            return None;
        }
        known.away = false;
        let known = *known;
        self.gone -= usize::from(!known.gone);
        Some(known)
    }

    /// The file was seen gone. `true` if this is news.
    pub fn set_gone(&mut self, key: FileKey, at_s: u32) -> bool {
        match self.get_mut(key) {
            Some(known) if !known.gone => {
                let away = known.away;
                known.gone = true;
                known.at_s = at_s;
                self.gone += usize::from(!away);
                true
            }
            _ => false,
        }
    }

    /// The file's directory lies elsewhere. What is remembered now, if this is news.
    pub fn set_away(&mut self, key: FileKey, at_s: u32) -> Option<Known> {
        match self.get_mut(key) {
            Some(known) if !known.fades() => {
                known.away = true;
                known.at_s = at_s;
                let known = *known;
                self.gone += 1;
                Some(known)
            }
            _ => None,
        }
    }

    fn in_dir(&self, dir: DirId) -> impl Iterator<Item = (FileKey, &Known)> {
        let (low, high) = FileKey::range(dir).into_inner();
        self.iter_from(low).take_while(move |(key, _)| *key <= high)
    }

    /// Any file of `dir` that is away.
    pub fn any_away(&self, dir: DirId) -> bool {
        self.in_dir(dir).any(|(_, known)| known.away && !known.gone)
    }

    /// Files of `dir` that are not gone and that the listing with `mark` did not see.
    pub fn unmarked(&self, dir: DirId, mark: u8) -> Vec<(FileKey, u64)> {
        self.in_dir(dir)
            .filter(|(_, known)| !known.gone && known.mark != mark)
            .map(|(key, known)| (key, known.version))
            .collect()
    }

    /// Keys of `dir`, those seen gone included.
    pub fn of_dir(&self, dir: DirId) -> Vec<FileKey> {
        self.in_dir(dir).map(|(key, _)| key).collect()
    }

    /// Anything remembered in `dir` that was not seen gone.
    pub fn any_in(&self, dir: DirId) -> bool {
        self.in_dir(dir).any(|(_, known)| !known.gone)
    }

    /// Forgets what has been gone or away since before `before_s`.
    pub fn expire(&mut self, before_s: u32) {
        if self.gone == 0 {
            return;
        }
        let kept = |known: &Known| !known.fades() || known.at_s >= before_s;
        let mut thin = Vec::new();
        for (low, leaf) in &mut self.leaves {
            if leaf.known.iter().all(kept) {
                continue;
            }
            let before = leaf.keys.len();
            let mut known = leaf.known.iter();
            leaf.keys.retain(|_| known.next().is_none_or(kept));
            leaf.known.retain(kept);
            leaf.trim();
            self.count -= before - leaf.keys.len();
            self.gone -= before - leaf.keys.len();
            if leaf.keys.len() < LEAF_MAX / 4 {
                thin.push(*low);
            }
        }
        // From behind: what takes in its neighbour goes on to be there.
        for low in thin.into_iter().rev() {
            self.join(low);
        }
    }

    /// How many are remembered, and how many of them are gone or away.
    pub fn count(&self) -> (usize, usize) {
        (self.count, self.gone)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (FileKey, &Known)> {
        self.leaves.values().flat_map(|leaf| leaf.iter(0))
    }

    /// Those from `low` on, in order.
    pub fn iter_from(&self, low: FileKey) -> impl Iterator<Item = (FileKey, &Known)> {
        let first = self.leaf(low).map_or(low, |(first, _)| first);
        self.leaves
            .range(first..)
            .flat_map(move |(_, leaf)| leaf.iter(leaf.keys.partition_point(|key| *key < low)))
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
        assert_eq!(files.mark(FileKey::new(a, b"x"), 7, None), None);
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
        // A leaf is filled to two thirds at least half of the time, and its memory goes along with that in small
        // steps: 40 bytes stay below 64 with that.
        assert!(size_of::<FileKey>() + size_of::<Known>() <= 40);
    }

    /// Against a plain map, over thousands of files that come and go in every order.
    #[test]
    fn it_is_a_map_whatever_comes_and_goes() {
        let known = |version: u64, fades: bool| Known {
            version,
            ctime: 1,
            at_s: (version % 97) as u32,
            gone: fades,
            away: false,
            mark: (version % 3) as u8,
        };
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for order in 0..3 {
            let (mut files, mut plain) = (Files::default(), BTreeMap::new());
            for round in 0..6 {
                for n in 0..4000u64 {
                    let n = match order {
                        0 => n,
                        1 => 4000 - n,
                        _ => random(4000),
                    };
                    let mut hash = [0; 12];
                    hash[4..].copy_from_slice(&(n / 5).to_be_bytes());
                    let key = FileKey::from_hash(DirId((n % 5) as u32), hash);
                    // By turns more come than go, and the other way round.
                    if random(10) < [9, 2, 5][round % 3] {
                        let known = known(random(1000), random(4) == 0);
                        files.put(key, known);
                        plain.insert(key, known);
                    } else {
                        assert_eq!(files.take(key), plain.remove(&key));
                    }
                }
                let check = |files: &Files, plain: &BTreeMap<FileKey, Known>| {
                    assert!(
                        files
                            .iter()
                            .eq(plain.iter().map(|(key, known)| (*key, known)))
                    );
                    let gone = plain.values().filter(|known| known.gone).count();
                    assert_eq!(files.count(), (plain.len(), gone));
                    assert!(files.leaves.values().all(|leaf| !leaf.keys.is_empty()));
                    // However many went, what is left does not lie about in crumbs.
                    assert!(files.leaves.len() <= 1 + plain.len() / (LEAF_MAX / 5));
                    for dir in 0..6 {
                        let dir = DirId(dir);
                        let keys = plain.range(FileKey::range(dir)).map(|(key, _)| *key);
                        assert!(files.of_dir(dir).into_iter().eq(keys));
                    }
                };
                check(&files, &plain);
                assert!(
                    plain
                        .iter()
                        .all(|(key, known)| files.get(*key) == Some(known))
                );
                let before = 20 * round as u32;
                files.expire(before);
                plain.retain(|_, known| !known.gone || known.at_s >= before);
                check(&files, &plain);
            }
        }
    }
}
