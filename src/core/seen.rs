//! What all candidates are looked up by, kept as they change, and what concerns all of them at once, of which each is told
//! when it is its turn: there may be a million.

use super::Core;
use super::ask::Version;
use super::files::{FileKey, version_digest};
use super::ids::DirId;
use super::settle::{Candidate, Waits};
use super::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// What candidates are looked up by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The digest of the version that each was last seen as, where a birth time tells files apart.
    versions: BTreeSet<(u64, FileKey)>,
    /// Those that wait for what lets many go on at once, and some that did.
    held: BTreeSet<FileKey>,
    /// How often any of them was seen.
    sightings: u64,
    /// How often anything may have happened to any of them, and when it did last.
    upheavals: u32,
    upheaval_at: Mono,
}

impl Seen {
    /// What a new candidate knows.
    pub(super) fn upheavals(&self) -> u32 {
        self.upheavals
    }

    /// Tells a candidate what may have happened to it.
    pub(super) fn tell(&self, candidate: &mut Candidate) {
        if std::mem::replace(&mut candidate.upheavals, self.upheavals) == self.upheavals {
            return;
        }
        candidate.anything_may_have_happened(self.upheaval_at);
    }
}

impl Core {
    /// What a candidate is seen to be, or that what it was is under its name no longer.
    pub(super) fn see(&mut self, key: FileKey, seen: Option<(Version, i64)>) {
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        let before = candidate.seen().map(|(version, _)| version);
        candidate.seen = seen.map(Box::new);
        let version = seen.map(|(version, _)| version);
        if version.is_some() {
            self.seen.sightings += 1;
            candidate.sighted = self.seen.sightings;
        }
        if before != version {
            if let Some(digest) = before.as_ref().and_then(told_apart) {
                self.seen.versions.remove(&(digest, key));
            }
            if let Some(digest) = version.as_ref().and_then(told_apart) {
                self.seen.versions.insert((digest, key));
            }
        }
    }

    /// A candidate was seen to be there, as what it was seen to be.
    pub(super) fn sight(&mut self, key: FileKey) {
        if let Some(candidate) = self.candidates.get_mut(&key) {
            self.seen.sightings += 1;
            candidate.sighted = self.seen.sightings;
        }
    }

    /// Anything may have happened to any of them. Each is told when it is its turn ([`Core::catch_up`]): there may be a
    /// million of them, and this many times in a second.
    pub(super) fn heard_of_any(&mut self) {
        self.seen.upheavals = self.seen.upheavals.wrapping_add(1);
        self.seen.upheaval_at = self.now.mono;
    }

    /// Another directory lies where one lay: what was heard of its names was heard of those in the other.
    pub(super) fn heard_of_others(&mut self, dir: DirId) {
        let now = self.now.mono;
        for (_, candidate) in self.candidates.range_mut(FileKey::range(dir)) {
            candidate.anything_may_have_happened(now);
        }
    }

    /// Tells a candidate what may have happened to it.
    pub(super) fn catch_up(&mut self, key: FileKey) {
        if let Some(candidate) = self.candidates.get_mut(&key) {
            self.seen.tell(candidate);
        }
    }

    /// When something was heard of a candidate last.
    pub(super) fn heard_at(&self, candidate: &Candidate) -> Mono {
        match candidate.upheavals == self.seen.upheavals {
            true => candidate.hinted,
            false => self.seen.upheaval_at,
        }
    }

    /// A candidate waits for the end of a scan, or for room.
    pub(super) fn hold(&mut self, key: FileKey, waits: Waits) {
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.waits = waits;
            self.seen.held.insert(key);
        }
    }

    /// It is one no longer.
    pub(super) fn take_candidate(&mut self, key: FileKey) -> Option<Box<Candidate>> {
        self.see(key, None);
        self.seen.held.remove(&key);
        self.candidates.remove(&key)
    }

    /// The candidates of a watch.
    pub(super) fn candidates_of(&self, watch: u32) -> impl Iterator<Item = (FileKey, &Candidate)> {
        self.tree
            .of_watch(watch)
            .into_iter()
            .flat_map(|dir| self.candidates.range(FileKey::range(dir)))
            .map(|(key, candidate)| (*key, &**candidate))
    }

    /// The candidates of a watch that wait for `what`, which holds many.
    pub(super) fn held(
        &self,
        watch: u32,
        what: Waits,
    ) -> impl Iterator<Item = (FileKey, &Candidate)> {
        let held = &self.seen.held;
        let (dirs, _) = self.tree.count();
        // Whichever is fewer is gone over: all that is held, or the directories.
        let few = held.len() < dirs;
        let of_all = held.iter().filter(move |_| few);
        let of_dirs = (!few).then(|| self.tree.of_watch(watch));
        let of_dirs =
            (of_dirs.into_iter().flatten()).flat_map(|dir| held.range(FileKey::range(dir)));
        of_all.chain(of_dirs).filter_map(move |key| {
            let candidate = self.candidates.get(key)?;
            (candidate.waits == what && self.is_in(watch, key.dir()))
                .then_some((*key, &**candidate))
        })
    }

    /// The candidates of a watch that were last seen as one of these versions.
    pub(super) fn seen_as(
        &self,
        watch: u32,
        versions: impl Iterator<Item = u64>,
    ) -> BTreeMap<u64, Vec<FileKey>> {
        let mut found: BTreeMap<u64, Vec<FileKey>> = BTreeMap::new();
        for version in versions {
            found.entry(version).or_insert_with(|| {
                self.seen
                    .versions
                    .range((version, FileKey::FIRST)..=(version, FileKey::LAST))
                    .map(|(_, key)| *key)
                    .filter(|key| self.is_in(watch, key.dir()))
                    .collect()
            });
        }
        found
    }
}

/// The digest of a version; without a birth time a reused inode number would look like a rename.
fn told_apart(version: &Version) -> Option<u64> {
    (version.btime_ns != 0).then(|| version_digest(version))
}
