//! Renames come in halves, which other directories' events and listings may part.

use super::Core;
use super::ask::Version;
use super::compare::is_aside;
use super::files::{CTIME_UNKNOWN, FileKey, Known, version_digest};
use super::ids::DirId;
use super::record::Record;
use super::time::Mono;
use super::timers::Timer;
use super::tree::Bind;
use super::watch::Watch;
use std::time::Duration;

/// The halves of a rename are queued by one system call; this bounds how long they may be read apart.
const RENAME_WAIT: Duration = Duration::from_millis(200);
/// Between looks whether a directory that could not be read is still so, or a scan still under way.
const DEAF_WAIT: Duration = Duration::from_secs(2);

/// A name that went away by a rename; its new name may follow.
#[derive(Clone, Debug)]
pub(super) struct HalfRename {
    pub(super) dir: DirId,
    pub(super) name: Vec<u8>,
    pub(super) is_dir: bool,
    /// When.
    since: Mono,
    /// Number of its event.
    heard: u64,
    /// What is remembered or owed under the name: a listing may find it under the new one.
    version: Option<u64>,
    /// What a candidate under the name was seen to be, with nothing heard of it since.
    pub(super) seen: Option<(Version, i64)>,
}

impl Core {
    /// The file that a candidate was is renamed: an answer on its way is about that one. What it was, as far as it was seen
    /// and nothing was heard of it since.
    pub(super) fn left_its_name(&mut self, key: FileKey) -> Option<(Version, i64)> {
        self.catch_up(key);
        let candidate = self.candidates.get(&key);
        let seen = candidate.filter(|candidate| candidate.fresh);
        let seen = seen.and_then(|candidate| candidate.seen());
        self.see(key, None);
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.fresh = false;
            candidate.stale = candidate.asked.is_some();
        }
        seen
    }

    /// A candidate came by a rename, and is what was seen under its former name, until it is looked at: a scan may end
    /// before that, and what it misses of this file is where this one is now.
    pub(super) fn seen_before(&mut self, to: FileKey, seen: Option<(Version, i64)>) {
        let Some(candidate) = self.candidates.get_mut(&to).filter(|_| seen.is_some()) else {
            return;
        };
        candidate.seen_at = self.now.mono;
        self.see(to, seen);
    }

    pub(super) fn half_rename(
        &mut self,
        watch: u32,
        dir: DirId,
        cookie: u32,
        name: &[u8],
        is_dir: bool,
    ) {
        let key = FileKey::new(dir, name);
        let seen = match is_dir {
            true => None,
            false => self.left_its_name(key),
        };
        let version = self.version_at(key).filter(|_| !is_dir);
        // The same half may be told of a directory's old place and of its new one: the later is where it went from.
        self.drop_half(cookie, watch);
        self.half_at.insert(key, (cookie, watch));
        if let Some(version) = version {
            self.half_of.insert((watch, version), (cookie, watch));
        }
        self.renames.insert(
            (cookie, watch),
            HalfRename {
                dir,
                name: name.to_vec(),
                is_dir,
                since: self.now.mono,
                heard: self.last_event,
                version,
                seen,
            },
        );
        self.timers.set(
            Timer::Rename { cookie, watch },
            self.now.mono.after(RENAME_WAIT),
        );
    }

    /// The version that is owed or remembered under a name.
    pub(super) fn version_at(&self, key: FileKey) -> Option<u64> {
        let owed = self.job_of.get(&key).and_then(|id| self.jobs.get(id));
        if let Some(job) = owed {
            return Some(version_digest(&job.version));
        }
        let known = self.files.get(key).filter(|known| !known.gone)?;
        Some(known.version)
    }

    /// A file, last known as the version `before`, was looked at under the name that it had before a rename whose
    /// other half is not there yet: what it is now is to be found under its new name. Another file that has come under
    /// the name meanwhile is not what went, and whoever was asked when the name had been left, after the event with the
    /// number `heard`, has seen another.
    pub(super) fn half_learns(&mut self, key: FileKey, before: u64, heard: u64) {
        let Some(at) = self.half_at.get(&key).copied() else {
            return;
        };
        let version = self.version_at(key);
        let Some(half) = self
            .renames
            .get_mut(&at)
            .filter(|half| !half.is_dir && half.version == Some(before) && half.heard > heard)
        else {
            return;
        };
        half.version = version;
        let (_, watch) = at;
        if self.half_of.get(&(watch, before)) == Some(&at) {
            self.half_of.remove(&(watch, before));
        }
        if let Some(version) = version {
            self.half_of.insert((watch, version), at);
        }
    }

    /// Whether that version went from that name by a rename whose other half may come.
    pub(super) fn half_is_of(&self, key: FileKey, version: u64) -> bool {
        let half = self.half_at.get(&key).and_then(|at| self.renames.get(at));
        half.is_some_and(|half| half.version == Some(version))
    }

    pub(super) fn drop_half(&mut self, cookie: u32, watch: u32) -> Option<HalfRename> {
        let half = self.renames.remove(&(cookie, watch))?;
        self.half_at.remove(&FileKey::new(half.dir, &half.name));
        if let Some(version) = half.version
            && self.half_of.get(&(watch, version)) == Some(&(cookie, watch))
        {
            self.half_of.remove(&(watch, version));
        }
        self.timers.clear(Timer::Rename { cookie, watch });
        Some(half)
    }

    pub(super) fn take_half(
        &mut self,
        cookie: u32,
        watch: u32,
        is_dir: bool,
    ) -> Option<HalfRename> {
        self.drop_half(cookie, watch)
            .filter(|half| half.is_dir == is_dir)
    }

    /// A listing found a file: if it is the one whose name went away a moment ago, its new directory was not
    /// watched yet when it came, and no event tells.
    pub(super) fn find_half(&mut self, watch: u32, dir: DirId, name: &[u8], version: &Version) {
        if self.half_of.is_empty() || version.btime_ns == 0 {
            return;
        }
        let found = self.half_of.get(&(watch, version_digest(version)));
        let Some((cookie, watch)) = found.copied() else {
            return;
        };
        // A listing from before it went shows it under the name that it had.
        if self.half_at.get(&FileKey::new(dir, name)) == Some(&(cookie, watch)) {
            return;
        }
        if let Some(half) = self.drop_half(cookie, watch) {
            self.carry(FileKey::new(half.dir, &half.name), dir, name);
        }
    }

    /// Something has come under a name that went away by a rename a moment ago. The kernel queues both
    /// halves with the directories locked, so the other half comes no more: what had the name is gone now,
    /// not when its time is up, which would take what has come for it. A directory may be the same one that
    /// went and is back: which one it is, its listing tells.
    pub(super) fn name_is_back(&mut self, dir: DirId, name: &[u8]) {
        let key = FileKey::new(dir, name);
        let Some((cookie, watch)) = self.half_at.get(&key).copied() else {
            return;
        };
        if let Some(half) = self.drop_half(cookie, watch)
            && !half.is_dir
        {
            // Unless it went where nobody watches yet: what is being listed may show it.
            if !self.half_is_aside(cookie, watch, key, half) {
                // Or unless this half was told late, for its directory's watch descriptor was not known yet: then the scan
                // under way finds the file under the name that it had come under before.
                self.replaced(key);
            }
            self.file_gone(key);
        }
    }

    /// Something has come under the name from which a concluded file went by a rename, while directories are listed that may
    /// have it: it is remembered beside its name for as long as they are. `false` if there is nothing to wait for.
    fn half_is_aside(&mut self, cookie: u32, watch: u32, key: FileKey, half: HalfRename) -> bool {
        let lists = self.tree.mount(half.dir).is_some_and(|on| self.lists(on));
        let known = self.files.get(key).copied();
        let known = known.filter(|known| !known.gone && half.version == Some(known.version));
        let Some((dir, name)) = known
            .filter(|_| lists)
            .and_then(|known| self.put_aside(watch, known))
        else {
            return false;
        };
        self.half_at
            .insert(FileKey::new(dir, &name), (cookie, watch));
        if let Some(version) = half.version {
            self.half_of.insert((watch, version), (cookie, watch));
        }
        let half = HalfRename { dir, name, ..half };
        self.renames.insert((cookie, watch), half);
        self.timers.set(
            Timer::Rename { cookie, watch },
            self.now.mono.after(RENAME_WAIT),
        );
        true
    }

    /// A listing shows something under a name. `true` if it went away by a rename before the listing was asked for:
    /// it has come back, and no event told, for its directory had no watch descriptor or another one meanwhile.
    pub(super) fn listed_after_half(&mut self, dir: DirId, name: &[u8]) -> bool {
        let asked_at = self.tree.get(dir).map_or(0, |node| node.asked_at);
        let half = self.half_at.get(&FileKey::new(dir, name));
        let back = half
            .and_then(|at| self.renames.get(at))
            .is_some_and(|half| half.heard <= asked_at);
        if back {
            self.name_is_back(dir, name);
        }
        back
    }

    /// The second half has not come: the name left the watch, or went where nobody watches yet.
    pub(super) fn rename_due(&mut self, cookie: u32, watch: u32) {
        let listing = self
            .renames
            .get(&(cookie, watch))
            .and_then(|half| self.tree.mount(half.dir))
            .is_some_and(|mount| self.lists(mount));
        // A directory that is polled may have it: then a scan that began after it went tells.
        let told = self.is_told(watch);
        let compared = self
            .watches
            .get(watch as usize)
            .and_then(|state| state.compared);
        let polling = self
            .renames
            .get(&(cookie, watch))
            .is_some_and(|half| !told && compared.is_none_or(|began| began <= half.since));
        // So may one that cannot be read for the moment.
        let deaf = self.tree.any_deaf(watch);
        if listing || polling || deaf {
            let wait = if deaf { DEAF_WAIT } else { RENAME_WAIT };
            self.timers
                .set(Timer::Rename { cookie, watch }, self.now.mono.after(wait));
            return;
        }
        let Some(half) = self.drop_half(cookie, watch) else {
            return;
        };
        let scan = self.watches.get(watch as usize);
        let compares = scan.is_some_and(|state| state.scan.is_some());
        if compares && is_aside(&half.name) {
            // What was listed may have shown it, and is compared when the scan ends.
        } else if !half.is_dir {
            let key = FileKey::new(half.dir, &half.name);
            let later = self
                .candidates
                .get(&key)
                .is_some_and(|candidate| candidate.since > half.since);
            // Unless something else came under the name meanwhile, and nothing told.
            if !later && self.version_at(key) == half.version {
                // Where to, a scan that is under way may tell: of a directory whose coming was not heard.
                self.deleted_while_listed(watch, key);
                self.file_gone(key);
            }
        } else if let Some(dir) = self.tree.child(half.dir, &half.name) {
            self.dir_gone(dir);
        }
    }

    /// A directory is gone. `true` if something went from it, or from below it, by a rename whose other half may come: then
    /// it is kept until that is known, for what goes along is known by the names there. With `mkdir new; mv old/* new;
    /// rmdir old` nobody watches `new` yet, and its listing comes after the word that `old` is gone.
    pub(super) fn is_left_behind(&mut self, dir: DirId) -> bool {
        // So it is where events are missing, and a scan tells what has gone from it; or where that may be in a directory
        // that cannot be read for the moment.
        let node = self.tree.get(dir);
        let unseen = node.is_some_and(|node| {
            let state = self.watches.get(node.watch as usize);
            state.is_some_and(|state| state.scan.is_some()) || self.tree.any_deaf(node.watch)
        });
        let halves = self.any_half_below(dir);
        let left = halves || unseen && self.holds_any(dir);
        if left {
            self.unbind_below(dir);
            for id in self.tree.subtree(dir) {
                let asked = self.tree.get(id).map(|node| node.bind);
                if matches!(asked, Some(Bind::Asked | Bind::AskedStale)) {
                    // Whoever was asked may have opened it before it went.
                    self.bind_is_void(id);
                    self.queue_bind(id);
                }
            }
            self.timers
                .set(Timer::Left(dir), self.now.mono.after(RENAME_WAIT));
        }
        left
    }

    fn any_half_below(&self, dir: DirId) -> bool {
        if self.half_at.is_empty() {
            return false;
        }
        let mut below = self.tree.subtree(dir).into_iter();
        below.any(|id| self.half_at.range(FileKey::range(id)).next().is_some())
    }

    /// Whether what went from a directory that is gone has been found.
    pub(super) fn left_due(&mut self, dir: DirId) {
        let Some(node) = self.tree.get(dir) else {
            return;
        };
        // An overflow has taken the halves; the scan that comes of it tells as well.
        let scans = self
            .watches
            .get(node.watch as usize)
            .is_some_and(Watch::is_to_scan);
        let deaf = self.tree.any_deaf(node.watch);
        let tells = scans || deaf || self.any_half_below(dir);
        if node.bound || node.deaf || self.timers.is_set(Timer::Bind(dir)) {
            // There is one under its name again: its listings say what is there.
        } else if tells || node.bind != Bind::Idle {
            // There may be many of them, and a scan may take long.
            let wait = if deaf || scans {
                DEAF_WAIT
            } else {
                RENAME_WAIT
            };
            self.timers.set(Timer::Left(dir), self.now.mono.after(wait));
        } else {
            self.dir_gone(dir);
        }
    }

    /// A selected file has another selected name: what is remembered and what is owed goes along.
    pub(super) fn carry(&mut self, from: FileKey, to_dir: DirId, to_name: &[u8]) {
        let to = FileKey::new(to_dir, to_name);
        if from == to {
            return;
        }
        // A candidate under the old name stays: something may have come there since.
        let mark = self.tree.get(to_dir).map_or(0, |node| node.mark);
        let known = self.files.get(from).copied().filter(|known| !known.gone);
        let job = self.job_of.get(&from).copied();
        let hidden = job.and_then(|id| self.jobs.get(&id));
        if hidden.is_some_and(|job| job.hidden) {
            // What went is a file that had come under the name, of which nothing is known.
            return;
        }
        // What was asked for is under the new name like any other file.
        self.wanted_is_gone(from);
        if known.is_none() && job.is_none() {
            return;
        }
        // Whatever had the new name was replaced.
        self.replaced(to);
        self.wanted_is_gone(to);
        self.known_gone(to);
        self.job_gone(to);
        // What was heard of the new name may be news of the file that has it now.
        let _ = self.left_its_name(to);
        self.queue_probe(to);
        self.lose_file(to);
        // What a candidate under the old name was seen to be is what went; nothing there may be taken for it.
        self.see(from, None);
        if let Some(candidate) = self.candidates.get_mut(&from) {
            candidate.asked = None;
            self.queue_probe(from);
        }
        self.record_dir(to_dir);
        self.append(Record::Renamed {
            dir: from.dir(),
            name_hash: from.hash(),
            to_dir,
            to_name: to_name.to_vec(),
        });
        if let Some(known) = known {
            if let Some(watch) = self.tree.get(to_dir).map(|node| node.watch) {
                self.is_known_now(watch, known.version);
            }
            self.files.take(from);
            self.files.put(
                to,
                Known {
                    mark,
                    away: false,
                    ctime: CTIME_UNKNOWN,
                    ..known
                },
            );
        }
        if let Some(id) = job {
            self.rename_job(id, from, to, to_dir, to_name, mark);
            self.release_key(from);
        }
        if let Some(watch) = self.tree.get(to_dir).map(|node| node.watch) {
            self.goes_on_being_sought(watch, from, to);
        }
    }
}
