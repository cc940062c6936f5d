//! Which candidates the end of a scan asks for: kept as they change, because there may be a million of them.

use super::Core;
use super::ask::Version;
use super::files::{FileKey, version_digest};
use super::settle::{Candidate, Waits};
use std::collections::{BTreeMap, BTreeSet};

/// What candidates are looked up by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The digest of the version that each was last seen as, where a birth time tells files apart.
    versions: BTreeSet<(u64, FileKey)>,
    /// Those of which something was heard since, and some that were looked at after that.
    unfresh: BTreeSet<FileKey>,
    /// Those that wait for what lets many go on at once, and some that did.
    held: BTreeSet<FileKey>,
    /// How often any of them was seen.
    sightings: u64,
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

    /// A candidate was looked at, or something was heard of it since.
    pub(super) fn set_fresh(&mut self, key: FileKey, fresh: bool) {
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        candidate.fresh = fresh;
        if fresh {
            self.seen.unfresh.remove(&key);
        } else {
            self.seen.unfresh.insert(key);
        }
    }

    /// Anything may have happened to any of them.
    pub(super) fn none_is_fresh(&mut self) {
        for candidate in self.candidates.values_mut() {
            candidate.fresh = false;
        }
        self.seen.unfresh = self.candidates.keys().copied().collect();
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
        self.seen.unfresh.remove(&key);
        self.seen.held.remove(&key);
        self.candidates.remove(&key)
    }

    /// The candidates of a watch of which something was heard since they were looked at.
    pub(super) fn unfresh(&self, watch: u32) -> impl Iterator<Item = FileKey> {
        self.seen.unfresh.iter().copied().filter(move |key| {
            self.is_in(watch, key.dir())
                && self
                    .candidates
                    .get(key)
                    .is_some_and(|candidate| !candidate.fresh)
        })
    }

    /// The candidates of a watch that wait for `what`, which holds many.
    pub(super) fn held(
        &self,
        watch: u32,
        what: Waits,
    ) -> impl Iterator<Item = (FileKey, &Candidate)> {
        self.seen.held.iter().filter_map(move |key| {
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
