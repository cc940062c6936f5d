//! The end of a scan: what was missing, what was renamed, what is new.

use super::Core;
use super::files::{CTIME_UNKNOWN, FileKey, Known, version_digest};
use super::ids::DirId;
use super::moves::Moves;
use super::record::Record;
use super::replay::{lost_name, remembered};
use super::settle::Waits;
use super::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// What names that versions are remembered under beside those of files begin with.
const ASIDE: &str = ".settled-was-";

impl Core {
    /// Ends every scan of which nothing is outstanding. Between inputs, not within one: what came with the last
    /// listing is known then.
    pub(super) fn end_scans(&mut self) {
        for watch in 0..self.watches.len() as u32 {
            self.end_scan(watch);
        }
    }

    fn end_scan(&mut self, watch: u32) {
        let Some(state) = self.watches.get(watch as usize) else {
            return;
        };
        if state.scan.as_ref().is_none_or(|scan| scan.outstanding > 0) || self.awaits(watch) {
            return;
        }
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let Some(scan) = state.scan.take() else {
            return;
        };
        let cost = u64::try_from(scan.cost.as_nanos()).unwrap_or(u64::MAX) / scan.dirs.max(1);
        // One that took long because the mount did not answer says nothing about the next.
        let before = std::mem::replace(&mut state.last_cost_ns, cost);
        state.dir_cost_ns = cost.min(before);
        state.scan_dirs = scan.dirs;
        let first_ever = !std::mem::replace(&mut state.scanned_ever, true);
        let first = !std::mem::replace(&mut state.scanned, true);
        let id = state.id;
        // Whatever made another one necessary may have moved files between the listings of this one.
        let again = std::mem::take(&mut state.scan_again);
        if !again {
            // The next scan may be years away. Where it is at once, what comes meanwhile waits for no new sieve, and what
            // no file that is remembered or owed can have become goes on by the one that is there.
            state.sieve = None;
            state.compared = Some(scan.started);
            let mut scan = scan;
            let wanted = self.out_of_sight(watch, &scan.missing_dirs);
            scan.displaced.extend(wanted);
            self.find_deleted(watch);
            self.find_renamed(watch, scan.started, scan.missing, scan.displaced);
            self.dirs_missing(watch, scan.missing_dirs);
            self.look_at_halted(watch);
        }
        if first_ever {
            self.append(Record::Scanned { watch: id });
        }
        if again {
            self.release_strangers(watch);
        } else {
            self.release(watch, Waits::ScanEnd);
        }
        if first {
            self.release_jobs(watch);
        }
        if again {
            self.start_scan(watch);
        } else {
            self.set_poll(watch);
        }
    }

    pub(super) fn is_in(&self, watch: u32, dir: DirId) -> bool {
        self.tree.get(dir).is_some_and(|node| node.watch == watch)
    }

    // ---- renamed, gone, new ----

    /// Missing files that are there under another name were renamed while nobody looked.
    fn find_renamed(
        &mut self,
        watch: u32,
        started: Mono,
        missing: BTreeSet<(FileKey, u64)>,
        displaced: BTreeSet<(FileKey, u64)>,
    ) {
        // Went by a rename whose other half was not heard, or before this one was: two directories' events may
        // be told in another order when the watch descriptor of one was not known yet.
        let halves: Vec<(FileKey, u64)> = self
            .half_of
            .range((watch, 0)..=(watch, u64::MAX))
            .filter_map(|((_, version), half)| {
                let half = self.renames.get(half)?;
                Some((FileKey::new(half.dir, &half.name), *version))
            })
            .collect();
        let missed = self
            .watches
            .get_mut(watch as usize)
            .map(|state| std::mem::take(&mut state.missed))
            .unwrap_or_default();
        if missing.is_empty() && displaced.is_empty() && halves.is_empty() {
            return;
        }
        let wanted = halves.iter().chain(&displaced).chain(&missing);
        let found = self.seen_as(watch, wanted.map(|(_, digest)| *digest));
        let mut found: BTreeMap<u64, FileKey> = found
            .into_iter()
            .filter_map(|(digest, keys)| {
                // Seen under one name and then under another: it is where it was seen last.
                let sighted = |key: &FileKey| Some(self.candidates.get(key)?.sighted);
                Some((digest, keys.into_iter().max_by_key(sighted)?))
            })
            .collect();
        let deaf = self.tree.any_deaf(watch);
        let told = self.is_told(watch);
        // Displaced ones go first: a missing one may have had its new name since.
        let displaced = halves
            .into_iter()
            .chain(displaced)
            .map(|(key, digest)| (key, digest, true));
        let missing = missing
            .into_iter()
            .map(|(key, digest)| (key, digest, false));
        let mut moves = Moves::new(started);
        let mut lost = Vec::new();
        for (key, digest, taken) in displaced.chain(missing) {
            // Noted and then replaced: it is remembered elsewhere now, and sought from there.
            if self.version_at(key) != Some(digest) && !self.knows(key, digest) {
                continue;
            }
            match found.remove(&digest) {
                Some(to) if to == key => {}
                Some(to) => moves.add(key, digest, to),
                None if taken => {}
                None => lost.push((key, digest)),
            }
        }
        self.carry_all(moves);
        for (key, digest) in lost {
            if !deaf && (told || missed.contains(&(key, digest))) {
                self.vanished(key, digest);
            } else if let Some(state) = self.watches.get_mut(watch as usize) {
                // It may have been renamed from a directory not yet listed into one that was, or is where nobody
                // can look for the moment.
                state.missed.insert((key, digest));
            }
        }
    }

    /// A name is deleted, or left by a rename whose other half has not come. While a scan is under way, what is remembered
    /// under it may be of a file that was renamed before, or has gone where only a listing shows it: the scan's end tells. It
    /// is noted in memory alone, since few of what goes is that: over a crash such a file is a new one.
    pub(super) fn deleted_while_listed(&mut self, watch: u32, key: FileKey) {
        let known = self.files.get(key).copied().filter(|known| !known.gone);
        let Some(known) = known.filter(|_| !self.job_of.contains_key(&key)) else {
            return;
        };
        let state = self.watches.get_mut(watch as usize);
        if let Some(state) = state.filter(|state| state.scan.is_some()) {
            state.deleted.insert(known.version, known);
        }
    }

    /// What was remembered under a name that was deleted, and is there under another one.
    fn find_deleted(&mut self, watch: u32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let mut deleted = std::mem::take(&mut state.deleted);
        if deleted.is_empty() {
            return;
        }
        let found: Vec<(FileKey, u64)> = (self.candidates_of(watch))
            .filter_map(|(key, candidate)| {
                let (version, _) = candidate.seen.as_deref()?;
                let version = (version.btime_ns != 0).then(|| version_digest(version))?;
                deleted.contains_key(&version).then_some((key, version))
            })
            .collect();
        for (key, version) in found {
            // Under the very name it is one that is there again.
            let back = self.files.get(key);
            let back = back.is_some_and(|known| known.gone && known.version == version);
            if !back && let Some(known) = deleted.remove(&version) {
                self.adopt(key, known);
            }
        }
    }

    /// What is remembered or owed of files whose directory is away or was not seen, as far as there is a candidate
    /// that may be one of them: whatever it waits for, no later comparison has both.
    fn out_of_sight(&self, watch: u32, missing_dirs: &[DirId]) -> Vec<(FileKey, u64)> {
        // A directory that could not be listed says nothing; a file that was in it and is found elsewhere does.
        let unlisted = self
            .tree
            .of_watch(watch)
            .into_iter()
            .filter(|dir| self.tree.get(*dir).is_some_and(|node| node.failures > 0));
        let unseen: BTreeSet<DirId> = missing_dirs
            .iter()
            .flat_map(|dir| self.tree.subtree(*dir))
            .chain(unlisted)
            .collect();
        let (_, fading) = self.files.count();
        if unseen.is_empty() && fading == 0 {
            return Vec::new();
        }
        let wanted: BTreeSet<u64> = (self.candidates_of(watch))
            .filter_map(|(_, candidate)| Some(version_digest(&candidate.seen.as_ref()?.0)))
            .collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        // All files are gone over for what is away; hashing and looking up is for few of them.
        let known = self
            .files
            .iter()
            .filter(|(key, known)| {
                !known.gone
                    && (known.away || !unseen.is_empty() && unseen.contains(&key.dir()))
                    && wanted.contains(&known.version)
                    && self.is_in(watch, key.dir())
            })
            .map(|(key, known)| (key, known.version));
        let owed = unseen
            .iter()
            .flat_map(|dir| self.job_of.range(FileKey::range(*dir)))
            .filter_map(|(key, id)| {
                let version = version_digest(&self.jobs.get(id)?.version);
                wanted.contains(&version).then_some((*key, version))
            });
        known.chain(owed).collect()
    }

    /// Something else comes under a name. While a scan is under way what was remembered there may be a file that was
    /// renamed before it, under a name not listed yet: it is remembered beside the name until the scan's end, and
    /// over a crash until the next one's. So it is where one scan does not show everything.
    pub(super) fn replaced(&mut self, key: FileKey) {
        let Some(known) = self.files.get(key).copied().filter(|known| !known.gone) else {
            return;
        };
        let Some(watch) = self.tree.get(key.dir()).map(|node| node.watch) else {
            return;
        };
        let unseen = !self.is_told(watch) || self.tree.any_deaf(watch);
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        // At a start a job may end before the first scan begins.
        if !state.is_to_scan() && (state.scanned || !state.active) && !unseen {
            return;
        }
        self.put_aside(watch, known);
    }

    /// Remembers a version beside the names: where, unless it is remembered there already.
    pub(super) fn put_aside(&mut self, watch: u32, known: Known) -> Option<(DirId, Vec<u8>)> {
        let state = self.watches.get_mut(watch as usize)?;
        // In the root, which is there as long as anything is looked for.
        let (root, name) = (state.root, aside(known.version));
        let aside = FileKey::new(root, &name);
        if self.files.get(aside).is_some_and(|known| !known.gone) {
            return None;
        }
        let mark = self.tree.get(root).map_or(0, |root| root.mark);
        let known = Known {
            // No listing shows it.
            mark: mark.wrapping_add(u8::MAX / 2),
            away: false,
            ..known
        };
        if let Some(scan) = &mut state.scan {
            scan.missing.insert((aside, known.version));
        }
        self.record_dir(root);
        self.files.put(aside, known);
        self.append(remembered(aside, &known));
        Some((root, name))
    }

    /// [`Core::replaced`], if what comes is another version.
    pub(super) fn replaced_by(&mut self, key: FileKey, version: u64) {
        let known = self.files.get(key);
        if known.is_some_and(|known| known.version != version) {
            self.replaced(key);
        }
    }

    /// Whether that version is remembered under a name.
    pub(super) fn knows(&self, key: FileKey, version: u64) -> bool {
        let known = self.files.get(key);
        known.is_some_and(|known| !known.gone && known.version == version)
    }

    /// What was remembered under another name is this candidate's file.
    pub(super) fn adopt(&mut self, key: FileKey, known: Known) {
        let owed = self.job_of.get(&key).and_then(|id| self.jobs.get(id));
        if owed.is_some_and(|job| version_digest(&job.version) == known.version) {
            return;
        }
        // The job that is owed here is another file's.
        self.lose_file_unheard(key);
        let mark = self.tree.get(key.dir()).map_or(0, |node| node.mark);
        let known = Known {
            mark,
            away: false,
            ctime: CTIME_UNKNOWN,
            ..known
        };
        self.record_dir(key.dir());
        if let Some(watch) = self.tree.get(key.dir()).map(|node| node.watch) {
            self.is_known_now(watch, known.version);
        }
        self.files.put(key, known);
        self.append(remembered(key, &known));
        self.queue_probe(key);
    }

    /// [`Core::lose_file`], where no record of what comes under the name says so.
    pub(super) fn lose_file_unheard(&mut self, key: FileKey) {
        let Some(id) = self.job_of.get(&key).copied() else {
            return;
        };
        self.lose_file(key);
        if let Some(job) = self.jobs.get(&id).filter(|job| job.displaced) {
            let record = lost_name(job);
            self.append(record);
        }
    }

    /// Complete listings of their parents did not show these directories.
    fn dirs_missing(&mut self, watch: u32, dirs: Vec<DirId>) {
        let deaf = self.tree.any_deaf(watch);
        let told = self.is_told(watch);
        let missed = self
            .watches
            .get_mut(watch as usize)
            .map(|state| std::mem::take(&mut state.missed_dirs))
            .unwrap_or_default();
        for dir in dirs {
            let still = self.tree.get(dir).is_some_and(|node| {
                self.tree
                    .get(node.parent)
                    .is_some_and(|parent| parent.mark != node.seen)
            });
            if !still {
                continue;
            }
            if !deaf && (told || missed.contains(&dir)) {
                self.dir_missing(dir);
            } else if let Some(state) = self.watches.get_mut(watch as usize) {
                // Renamed while the scan was under way, perhaps; see `find_renamed`.
                state.missed_dirs.insert(dir);
            }
        }
    }

    /// A complete listing did not show this directory. It is kept while anything below it is away.
    pub(super) fn dir_missing(&mut self, dir: DirId) {
        if self.any_away(dir) {
            self.unbind_below(dir);
        } else if !self.is_left_behind(dir) {
            self.dir_gone(dir);
        }
    }

    /// Wherever a directory is now: its watch there is nobody's, and when it is back it is bound again.
    pub(super) fn unbind_below(&mut self, dir: DirId) {
        for id in self.tree.subtree(dir) {
            self.unwatch(id);
            if let Some(node) = self.tree.get_mut(id) {
                node.bound = false;
            }
        }
    }

    /// A complete listing did not show this version. What came under the name since then stays.
    pub(super) fn vanished(&mut self, key: FileKey, version: u64) {
        if self.half_is_of(key, version) {
            // It went by a rename: where to, its other half, a listing or the end of the wait for them says.
            return;
        }
        let mark = self.tree.get(key.dir()).map_or(0, |node| node.mark);
        let known = self.files.get(key);
        if known.is_some_and(|known| known.version == version && known.mark != mark && !known.away)
        {
            self.known_gone(key);
        }
        let owed = self.job_of.get(&key).and_then(|id| self.jobs.get(id));
        if owed.is_some_and(|job| version_digest(&job.version) == version && job.mark != mark) {
            self.job_gone(key);
        }
    }

    /// The scan that ended is followed by another: of what waits for its end, everything goes on that no file that is
    /// remembered or owed can have become. It may have been one when it began to wait.
    fn release_strangers(&mut self, watch: u32) {
        let waiting: Vec<(FileKey, u64)> = (self.held(watch, Waits::ScanEnd))
            .filter_map(|(key, candidate)| {
                let (version, _) = candidate.seen.as_deref()?;
                Some((key, version_digest(version)))
            })
            .collect();
        for (key, version) in waiting {
            if !self.may_be_known(watch, version) {
                self.queue_probe(key);
            }
        }
    }
}

/// The name in the root under which a version is remembered that others have come in place of. No file that is selected has
/// such a name.
fn aside(version: u64) -> Vec<u8> {
    format!("{ASIDE}{version:016x}").into_bytes()
}

/// Whether a name is one of those.
pub(super) fn is_aside(name: &[u8]) -> bool {
    name.starts_with(ASIDE.as_bytes())
}
