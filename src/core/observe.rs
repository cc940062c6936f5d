//! Events become hints. Roots are found, lost and found again; mounts come and go.

use super::ask::{Resolved, Version};
use super::files::{CTIME_UNKNOWN, FileKey, Known, version_digest};
use super::ids::{AskId, DirId, MountId};
use super::record::Record;
use super::select::Verdict;
use super::settle::Signal;
use super::time::Mono;
use super::timers::Timer;
use super::tree::{Base, Bind};
use super::watch::Root;
use super::{Asked, Core, Mount, ScoutId, mask};
use crate::core::ask::Question;
use crate::plan::{Level, Observe};
use std::time::Duration;

/// Events kept for watch descriptors that no answer has named yet.
const STASH_MAX: usize = 4096;
/// The halves of a rename are queued by one system call; this bounds how long they may be read apart.
const RENAME_WAIT: Duration = Duration::from_millis(200);
/// Names that the daemon gives to files while it disposes of them.
pub(super) const PRIVATE_PREFIX: &[u8] = b".settled-";

/// An event of a watch descriptor not known yet.
#[derive(Clone, Debug)]
pub(super) struct Stashed {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

/// A name that went away by a rename; its new name may follow.
#[derive(Clone, Debug)]
pub(super) struct HalfRename {
    pub(super) dir: DirId,
    pub(super) name: Vec<u8>,
    is_dir: bool,
    /// When.
    since: Mono,
    /// What is remembered or owed under the name: a listing may find it under the new one.
    version: Option<u64>,
}

impl Core {
    // ---- roots ----

    /// Looks where the root is. Always asked by a resolver of its own: the path may lie on a hung mount.
    pub(super) fn begin_watch(&mut self, watch: u32) {
        let Some(state) = self.watches.get(watch as usize) else {
            return;
        };
        if !state.active {
            return;
        }
        if state.root == DirId(0) {
            let root = self.tree.add(watch, DirId(0), b"");
            self.watches[watch as usize].root = root;
        }
        self.resolve_root(watch);
    }

    pub(super) fn resolve_root(&mut self, watch: u32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if !state.active || state.state == Root::Resolving {
            return;
        }
        state.state = Root::Resolving;
        let (dir, path) = (state.root, state.plan.path.clone());
        self.ask(
            ScoutId::Resolver(watch),
            Question::Resolve { path },
            Asked::Resolve { watch, dir },
        );
    }

    /// The root directory is another one now, or will be the same again after a while in which everything below
    /// it seemed to be gone.
    fn root_moved(&mut self, watch: u32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        state.scan_again = true;
        state.resolve_again = state.state == Root::Resolving;
        self.resolve_root(watch);
        let path = self.path_of(watch, self.watches[watch as usize].root, b"");
        self.dir_moved(watch, &path);
    }

    /// A listing shows the directory where another watch has its root: if it is another one, that watch looks.
    pub(super) fn root_listed(&mut self, watch: u32, dir: DirId, name: &[u8], ident: &Version) {
        if self.watches.len() < 2 {
            return;
        }
        let path = self.path_of(watch, dir, name);
        let swapped = self.watches.iter().enumerate().any(|(other, state)| {
            let root = self.tree.get(state.root);
            other != watch as usize
                && state.state == Root::Bound
                && state.plan.path == path
                && root.is_some_and(|root| (root.ino, root.btime_ns) != (ident.ino, ident.btime_ns))
        });
        if swapped {
            self.dir_moved(watch, &path);
        }
    }

    /// A directory came or went under a path: the roots of other watches below it hear nothing of that themselves.
    fn dir_moved(&mut self, watch: u32, path: &[u8]) {
        for other in 0..self.watches.len() as u32 {
            let state = &mut self.watches[other as usize];
            if other != watch && state.active && is_below(&state.plan.path, path) {
                state.scan_again = true;
                state.resolve_again = state.state == Root::Resolving;
                self.resolve_root(other);
            }
        }
    }

    pub(super) fn resolved(&mut self, watch: u32, dir: DirId, result: Result<Resolved, i32>) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if dir != state.root {
            match result {
                Ok(resolved) => {
                    self.set_base(dir, resolved);
                    self.queue_bind(dir);
                }
                Err(_) => self.retry_bind(dir, 1),
            }
            return;
        }
        if !state.active {
            state.state = Root::Unknown;
            return;
        }
        if std::mem::take(&mut state.resolve_again) {
            state.state = Root::Unknown;
            self.resolve_root(watch);
            return;
        }
        match result {
            Ok(resolved) => {
                state.state = Root::Bound;
                let was_missing = std::mem::take(&mut state.said_missing);
                let owed = state.scan.is_none() && std::mem::take(&mut state.scan_again);
                let changed = self.set_base(dir, resolved);
                if changed || was_missing {
                    self.log_path(Level::Info, watch, dir, b"", "watching".into());
                }
                let watched = self
                    .tree
                    .get(dir)
                    .is_some_and(|node| node.wd.is_some() || node.unwatched);
                if changed || was_missing || owed || !watched {
                    self.start_scan(watch);
                    self.redo_disposals(watch);
                }
            }
            Err(errno) => self.root_missing(watch, errno),
        }
    }

    /// Notes where `dir` is. `true` if that is another place or another directory than before.
    fn set_base(&mut self, dir: DirId, resolved: Resolved) -> bool {
        let same_base = self.tree.bases().any(|(id, base)| {
            id == dir && base.path == resolved.path && base.mount == resolved.mount
        });
        let same_dir = self.tree.get(dir).is_some_and(|node| {
            node.ino == resolved.ident.ino && node.btime_ns == resolved.ident.btime_ns
        });
        if !same_base {
            for id in self.tree.subtree(dir) {
                self.unwatch(id);
            }
        }
        self.tree.set_base(
            dir,
            Base {
                path: resolved.path,
                mount: resolved.mount,
            },
        );
        self.identify(dir, &resolved.ident);
        !same_base || !same_dir
    }

    /// Whether the root is where it is taken to be. Else what is not found below it may be there in a moment.
    pub(super) fn is_bound(&self, watch: u32) -> bool {
        self.watches
            .get(watch as usize)
            .is_some_and(|state| state.state == Root::Bound)
    }

    /// The root cannot be reached: nothing below it changes state, and it is looked for.
    pub(super) fn root_missing(&mut self, watch: u32, errno: i32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        state.state = Root::Missing;
        let wait = state.plan.poll.max(Duration::from_millis(100));
        let first = !std::mem::replace(&mut state.said_missing, true);
        let root = state.root;
        self.timers
            .set(Timer::Root(watch), self.now.mono.after(wait));
        if first {
            self.log_path(
                Level::Warning,
                watch,
                root,
                b"",
                format!(
                    "the directory cannot be watched: {}; waiting for it",
                    errno_text(errno)
                ),
            );
        }
    }

    pub(super) fn unwatch(&mut self, dir: DirId) {
        if let Some(wd) = self.tree.set_wd(dir, None) {
            self.out.push(super::Effect::Unwatch(wd));
        }
    }

    // ---- mounts ----

    pub(super) fn set_mounts(&mut self, mounts: Vec<Mount>) {
        self.mounts = mounts.into_iter().map(|mount| (mount.id, mount)).collect();
    }

    /// The mount table changed: whoever may be concerned looks again.
    pub(super) fn mounts_changed(&mut self, mounts: Vec<Mount>) {
        let old: Vec<(MountId, Vec<u8>)> = self
            .mounts
            .values()
            .map(|mount| (mount.id, mount.point.clone()))
            .collect();
        self.set_mounts(mounts);
        let touched: Vec<Vec<u8>> = old
            .iter()
            .filter(|(id, point)| {
                self.mounts
                    .get(id)
                    .is_none_or(|mount| &mount.point != point)
            })
            .map(|(_, point)| point.clone())
            .chain(
                self.mounts
                    .values()
                    .filter(|mount| {
                        !old.iter()
                            .any(|(id, point)| *id == mount.id && *point == mount.point)
                    })
                    .map(|mount| mount.point.clone()),
            )
            .collect();
        for watch in 0..self.watches.len() as u32 {
            let state = &self.watches[watch as usize];
            if !state.active {
                continue;
            }
            let path = self.path_of(watch, state.root, b"");
            let above = touched
                .iter()
                .any(|point| is_below(&path, point) || is_below(&state.plan.path, point));
            let below = touched
                .iter()
                .any(|point| point != &path && is_below(point, &path));
            if above {
                self.resolve_root(watch);
            }
            if below {
                let inner: Vec<DirId> = self
                    .tree
                    .bases()
                    .map(|(id, _)| id)
                    .filter(|id| *id != self.watches[watch as usize].root)
                    .filter(|id| self.tree.get(*id).is_some_and(|node| node.watch == watch))
                    .collect();
                for id in inner {
                    self.tree.clear_base(id);
                }
                self.start_scan(watch);
            }
        }
    }

    pub(super) fn mount_silent(&mut self, mount: MountId, silent: bool) {
        let point = match self.mounts.get(&mount) {
            Some(mount) => mount.point.clone(),
            None => Vec::new(),
        };
        self.lane(mount).silent = silent;
        self.log(Level::Warning, |line| {
            line.path = point;
            line.text = if silent {
                "the mount does not answer; work on it is held, everything else goes on".into()
            } else {
                "the mount answers again".into()
            };
        });
    }

    /// Whether every writer on this mount is local, so that events and leases tell the truth.
    pub(super) fn lease_can_be_trusted(&self, mount: MountId) -> bool {
        self.mounts
            .get(&mount)
            .is_some_and(|mount| !mount.remote_writers)
    }

    /// Whether the whole tree of a watch is listed again and again.
    pub(super) fn polls(&self, watch: u32) -> bool {
        let Some(state) = self.watches.get(watch as usize) else {
            return false;
        };
        match state.plan.observe {
            Observe::Inotify => false,
            Observe::Poll | Observe::Both => true,
            Observe::Auto => self.tree.bases().any(|(dir, base)| {
                self.tree.get(dir).is_some_and(|node| node.watch == watch)
                    && !self.lease_can_be_trusted(base.mount)
            }),
        }
    }

    // ---- events ----

    pub(super) fn event(&mut self, wd: i32, bits: u32, cookie: u32, name: Vec<u8>) {
        if bits & mask::IGNORED != 0 && self.binds_asked > 0 {
            // An answer on its way may still name it.
            self.dead_wds.insert(wd);
        }
        let dirs = self.tree.of_wd(wd);
        if dirs.is_empty() {
            if self.binds_asked == 0 {
                return;
            }
            if self.stash.len() < STASH_MAX {
                self.stash.push_back(Stashed {
                    wd,
                    mask: bits,
                    cookie,
                    name,
                });
            } else {
                self.stash_lost = true;
            }
            return;
        }
        self.last_event += 1;
        for dir in dirs {
            if let Some(node) = self.tree.get_mut(dir) {
                node.heard = self.last_event;
            }
            self.event_in(dir, wd, bits, cookie, &name);
        }
    }

    /// A watch descriptor has become known: what was kept for it is news now.
    pub(super) fn unstash(&mut self, wd: i32) {
        let (mine, others) = std::mem::take(&mut self.stash)
            .into_iter()
            .partition(|event| event.wd == wd);
        self.stash = others;
        let mine: std::collections::VecDeque<Stashed> = mine;
        for event in mine {
            self.event(event.wd, event.mask, event.cookie, event.name);
        }
    }

    fn event_in(&mut self, dir: DirId, wd: i32, bits: u32, cookie: u32, name: &[u8]) {
        let Some(node) = self.tree.get(dir) else {
            return;
        };
        let (watch, is_root) = (node.watch, node.parent == DirId(0));
        if name.is_empty() {
            if bits & mask::IGNORED != 0 && node.wd == Some(wd) {
                self.tree.set_wd(dir, None);
                // Deleted, then its parent tells, too; or another user took the watch away while this one
                // was on its way to it.
                self.queue_bind(dir);
            }
            let lost = mask::DELETE_SELF | mask::MOVE_SELF | mask::UNMOUNT | mask::IGNORED;
            if is_root && bits & lost != 0 {
                self.root_moved(watch);
            }
            return;
        }
        if bits & mask::ISDIR != 0 {
            self.dir_event(watch, dir, bits, cookie, name);
        } else {
            self.file_event(watch, dir, bits, cookie, name);
        }
    }

    fn dir_event(&mut self, watch: u32, dir: DirId, bits: u32, cookie: u32, name: &[u8]) {
        if bits & (mask::MOVED_TO | mask::CREATE) != 0 {
            self.name_is_back(dir, name);
        }
        if self.watches.len() > 1 {
            let path = self.path_of(watch, dir, name);
            self.dir_moved(watch, &path);
        }
        if bits & mask::MOVED_FROM != 0 {
            self.half_rename(watch, dir, cookie, name, true);
        } else if bits & mask::MOVED_TO != 0 {
            let from = self.take_half(cookie, watch, true);
            let moved = from.and_then(|from| self.tree.child(from.dir, &from.name));
            if let Some(old) = self.tree.child(dir, name)
                && moved.is_some_and(|moved| moved != old)
            {
                self.dir_gone(old);
            }
            match moved {
                Some(moved) if self.enters(watch, dir, name) => {
                    if let Some(node) = self.tree.get_mut(moved) {
                        node.placed = self.last_event;
                    }
                    self.move_dir(moved, dir, name);
                }
                Some(moved) => self.dir_gone(moved),
                None => self.came(watch, dir, name),
            }
        } else if bits & mask::CREATE != 0 {
            self.came(watch, dir, name);
        } else if bits & mask::DELETE != 0
            && let Some(child) = self.tree.child(dir, name)
        {
            self.dir_gone(child);
        }
    }

    /// A directory has come under a name; listings from before say nothing about where it is.
    fn came(&mut self, watch: u32, dir: DirId, name: &[u8]) {
        self.found_dir(watch, dir, name);
        let child = self.tree.child(dir, name);
        if let Some(node) = child.and_then(|child| self.tree.get_mut(child)) {
            node.placed = self.last_event;
        }
    }

    fn file_event(&mut self, watch: u32, dir: DirId, bits: u32, cookie: u32, name: &[u8]) {
        let named = mask::MOVED_FROM | mask::MOVED_TO | mask::CREATE | mask::DELETE;
        if bits & named != 0
            && self
                .tree
                .get(dir)
                .is_some_and(|node| matches!(node.bind, Bind::Asked | Bind::AskedStale))
        {
            self.told.insert(FileKey::new(dir, name));
        }
        if bits & (mask::MOVED_TO | mask::CREATE) != 0 {
            self.name_is_back(dir, name);
        }
        if bits & mask::MOVED_FROM != 0 {
            // A file that is not selected has nothing to carry along.
            if self.selects(watch, dir, name) {
                self.left_its_name(FileKey::new(dir, name));
                self.half_rename(watch, dir, cookie, name, false);
            } else if name.starts_with(PRIVATE_PREFIX) {
                self.from_private = Some(cookie);
            }
        } else if bits & mask::MOVED_TO != 0 {
            let from = self.take_half(cookie, watch, false);
            if name.starts_with(PRIVATE_PREFIX) {
                return;
            }
            let from = from.map(|from| FileKey::new(from.dir, &from.name));
            if let Some(from) = from {
                if self.selects(watch, dir, name) {
                    self.carry(from, dir, name);
                } else {
                    self.file_gone(from);
                }
            }
            self.hint(watch, dir, name, Signal::Moved, None);
            let to = FileKey::new(dir, name);
            if let Some(candidate) = self.candidates.get_mut(&to) {
                // A close before was of the file that had the name before; and the rename itself has set the ctime
                // by which a close tells a rewrite.
                candidate.closed = false;
                // A file that a disposition gives back is no more complete than it was.
                if self.from_private == Some(cookie) {
                    candidate.signal = Signal::Close;
                }
            }
            if let Some(from) = from {
                self.scan_awaits_instead(watch, from, to);
            }
        } else if bits & mask::CLOSE_WRITE != 0 {
            self.hint(watch, dir, name, Signal::Close, None);
        } else if bits & mask::CREATE != 0 {
            self.hint(watch, dir, name, Signal::Link, None);
        } else if bits & mask::DELETE != 0 {
            self.file_gone(FileKey::new(dir, name));
        }
    }

    /// The file that a candidate was is renamed: an answer on its way is about that one.
    fn left_its_name(&mut self, key: FileKey) {
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.seen = None;
            candidate.fresh = false;
            candidate.stale = candidate.asked.is_some();
        }
    }

    fn half_rename(&mut self, watch: u32, dir: DirId, cookie: u32, name: &[u8], is_dir: bool) {
        let key = FileKey::new(dir, name);
        let version = self.version_at(key).filter(|_| !is_dir);
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
                version,
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

    fn take_half(&mut self, cookie: u32, watch: u32, is_dir: bool) -> Option<HalfRename> {
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
    fn name_is_back(&mut self, dir: DirId, name: &[u8]) {
        let key = FileKey::new(dir, name);
        let Some((cookie, watch)) = self.half_at.get(&key).copied() else {
            return;
        };
        if let Some(half) = self.drop_half(cookie, watch)
            && !half.is_dir
        {
            self.file_gone(key);
        }
    }

    /// The second half has not come: the name left the watch, or went where nobody watches yet.
    pub(super) fn rename_due(&mut self, cookie: u32, watch: u32) {
        let listing = self
            .renames
            .get(&(cookie, watch))
            .and_then(|half| self.tree.place(half.dir, b""))
            .is_some_and(|place| self.lists(place.mount));
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
        if listing || polling {
            self.timers.set(
                Timer::Rename { cookie, watch },
                self.now.mono.after(RENAME_WAIT),
            );
            return;
        }
        let Some(half) = self.drop_half(cookie, watch) else {
            return;
        };
        if !half.is_dir {
            let key = FileKey::new(half.dir, &half.name);
            let later = self
                .candidates
                .get(&key)
                .is_some_and(|candidate| candidate.since > half.since);
            // Unless something else came under the name meanwhile, and nothing told.
            if !later && self.version_at(key) == half.version {
                self.file_gone(key);
            }
        } else if let Some(dir) = self.tree.child(half.dir, &half.name) {
            self.dir_gone(dir);
        }
    }

    /// Events are missing: what is on disk decides.
    pub(super) fn overflow(&mut self) {
        // The other halves may be among what is missing: the scan finds out.
        self.half_at.clear();
        self.half_of.clear();
        for (cookie, watch) in std::mem::take(&mut self.renames).into_keys() {
            self.timers.clear(Timer::Rename { cookie, watch });
        }
        // What was kept for directories on their way is among what they list now.
        self.stash.clear();
        self.stash_lost = false;
        // A close may be among it: what looked like a link may be a file half written.
        for candidate in self.candidates.values_mut() {
            candidate.signal = Signal::Scan;
            candidate.hinted = self.now.mono;
            candidate.stale = candidate.asked.is_some();
            candidate.fresh = false;
        }
        self.rescan_all("the kernel's event queue overflowed");
    }

    pub(super) fn rescan_all(&mut self, why: &str) {
        let why = why.to_owned();
        self.log(Level::Warning, |line| {
            line.text = format!("{why}: listing everything again");
        });
        for watch in 0..self.watches.len() as u32 {
            self.watches[watch as usize].history = true;
            if self.watches[watch as usize].state == Root::Missing {
                self.resolve_root(watch);
            } else {
                self.start_scan(watch);
            }
        }
    }

    // ---- selection ----

    /// Whether the directory `name` in `dir` belongs to the watch.
    pub(super) fn enters(&self, watch: u32, dir: DirId, name: &[u8]) -> bool {
        let Some(state) = self.watches.get(watch as usize) else {
            return false;
        };
        if !state.active || !state.plan.recursive || name.starts_with(PRIVATE_PREFIX) {
            return false;
        }
        let rel = self.tree.rel(dir, name);
        !own(&state.plan.excluded, &rel) && state.plan.select.enter(&rel) == Verdict::Yes
    }

    /// Whether the file `name` in `dir` is selected by its name.
    pub(super) fn selects(&self, watch: u32, dir: DirId, name: &[u8]) -> bool {
        let Some(state) = self.watches.get(watch as usize) else {
            return false;
        };
        if !state.active || name.starts_with(PRIVATE_PREFIX) {
            return false;
        }
        let rel = self.tree.rel(dir, name);
        !own(&state.plan.excluded, &rel) && state.plan.select.file(&rel) == Verdict::Yes
    }

    // ---- directories ----

    /// A directory appeared, or was there and may be another one now.
    pub(super) fn found_dir(&mut self, watch: u32, dir: DirId, name: &[u8]) {
        if !self.enters(watch, dir, name) {
            return;
        }
        let child = match self.tree.child(dir, name) {
            Some(child) => child,
            None => self.tree.add(watch, dir, name),
        };
        let mark = self.tree.get(dir).map_or(0, |node| node.mark);
        if let Some(node) = self.tree.get_mut(child) {
            node.seen = mark;
        }
        // If it is one that was away, its own directories were looked for in vain meanwhile.
        for id in self.tree.subtree(child) {
            self.queue_bind(id);
        }
    }

    /// A directory has another name, with everything in it.
    pub(super) fn move_dir(&mut self, moved: DirId, to: DirId, name: &[u8]) {
        if self.tree.is_below(to, moved) {
            // Only torn or reordered evidence can say so; the disk decides.
            self.queue_bind(moved);
            return;
        }
        self.tree.rename(moved, to, name);
        let mark = self.tree.get(to).map_or(0, |node| node.mark);
        if let Some(node) = self.tree.get_mut(moved) {
            node.seen = mark;
            if node.recorded {
                self.record_dir_again(moved);
            }
        }
        // Selection may depend on the path, and something may have happened on the way.
        for id in self.tree.subtree(moved) {
            self.bind_is_void(id);
            self.queue_bind(id);
        }
    }

    /// A directory and everything below it is gone.
    pub(super) fn dir_gone(&mut self, dir: DirId) {
        for id in self.tree.subtree(dir).into_iter().rev() {
            let candidates: Vec<FileKey> = self
                .candidates
                .range(FileKey::range(id))
                .map(|(key, _)| *key)
                .collect();
            for key in candidates {
                self.drop_candidate(key);
            }
            let jobs: Vec<FileKey> = self
                .job_of
                .range(FileKey::range(id))
                .map(|(key, _)| *key)
                .collect();
            for key in jobs {
                self.job_gone(key);
            }
            for key in self.files.of_dir(id) {
                self.files.take(key);
            }
            let busy = self.job_of.range(FileKey::range(id)).next().is_some();
            self.timers.clear(Timer::Bind(id));
            self.left_scan(id);
            let recorded = self.tree.get(id).is_some_and(|node| node.recorded);
            if let Some(wd) = self.tree.remove(id, !busy) {
                self.out.push(super::Effect::Unwatch(wd));
            }
            if recorded {
                self.append(Record::DirGone { dir: id });
            }
            self.redo_disposals_in(id, true);
        }
    }

    /// What was asked of a directory was asked under a path that may be another directory's now.
    pub(super) fn bind_is_void(&mut self, dir: DirId) {
        if let Some(node) = self.tree.get_mut(dir)
            && matches!(node.bind, Bind::Asked | Bind::AskedStale)
        {
            node.bind = Bind::Idle;
            node.asked = AskId(0);
        }
    }

    /// Puts a directory on its way to its scout.
    pub(super) fn queue_bind(&mut self, dir: DirId) {
        self.timers.clear(Timer::Bind(dir));
        let mount = self.tree.place(dir, b"").map(|place| place.mount);
        let (Some(mount), Some(node)) = (mount, self.tree.get_mut(dir)) else {
            return;
        };
        match node.bind {
            Bind::Queued | Bind::AskedStale => {}
            Bind::Asked => node.bind = Bind::AskedStale,
            Bind::Idle => {
                node.bind = Bind::Queued;
                self.lane(mount).binds.push_back(dir);
            }
        }
        self.joins_scan(dir);
    }

    // ---- files that move or go ----

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
        if known.is_none() && job.is_none() {
            return;
        }
        // Whatever had the new name was replaced.
        self.replaced(to);
        self.known_gone(to);
        self.job_gone(to);
        // What was heard of the new name may be news of the file that has it now.
        self.left_its_name(to);
        self.queue_probe(to);
        self.lose_file(to);
        // What a candidate under the old name was seen to be is what went; nothing there may be taken for it.
        if let Some(candidate) = self.candidates.get_mut(&from) {
            candidate.seen = None;
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
    }

    /// A file went away under this name.
    pub(super) fn file_gone(&mut self, key: FileKey) {
        self.drop_candidate(key);
        self.known_gone(key);
        self.job_gone(key);
    }

    /// What is remembered of a file that went away stays remembered for a while.
    pub(super) fn known_gone(&mut self, key: FileKey) {
        if self.files.set_gone(key, self.seconds()) {
            self.append(Record::Gone {
                dir: key.dir(),
                name_hash: key.hash(),
            });
            self.set_expiry();
        }
    }
}

/// Whether `path` is `above` or lies below it.
pub(super) fn is_below(path: &[u8], above: &[u8]) -> bool {
    let above = above.strip_suffix(b"/").unwrap_or(above);
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Whether `rel` is one of the daemon's own paths in a watched tree.
fn own(excluded: &[Vec<u8>], rel: &[u8]) -> bool {
    excluded.iter().any(|path| is_below(rel, path))
}

/// The text of an errno, as strerror(3) has it.
pub(super) fn errno_text(errno: i32) -> String {
    match errno {
        0 => "another filesystem is mounted there".into(),
        _ => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}
