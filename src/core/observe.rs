//! Events become hints; directories and files come, move and go.

use super::files::{FileKey, version_digest};
use super::ids::{AskId, DirId};
use super::record::Record;
use super::select::Verdict;
use super::settle::Signal;
use super::timers::Timer;
use super::tree::Bind;
use super::watch::{Root, Watch};
use super::{Core, mask};
use crate::plan::Level;

/// Events kept for watch descriptors that no answer has named yet.
const STASH_MAX: usize = 4096;
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

impl Core {
    // ---- events ----

    pub(super) fn event(&mut self, wd: i32, bits: u32, cookie: u32, name: Vec<u8>) {
        self.exports_event(wd, bits, &name);
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
            // Told by its parent, too, unless that could not be watched: what was asked under its path while it was
            // elsewhere has found nothing.
            let parent = self.tree.get(dir).map(|node| node.parent);
            let told = parent.and_then(|parent| self.tree.get(parent));
            if !is_root && bits & mask::MOVE_SELF != 0 && told.is_none_or(|node| node.wd.is_none())
            {
                self.queue_bind(dir);
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
                let scan = self.watches.get(watch as usize);
                if scan.is_some_and(Watch::is_to_scan) && self.holds_any(old) {
                    // A rename takes the place of an empty directory only: this one has been elsewhere, and nothing
                    // told, or is here again. Its listing says which of them this is.
                    self.bind_is_void(old);
                    self.came(watch, dir, name);
                    self.start_scan(watch);
                    return;
                }
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
            && !self.is_left_behind(child)
        {
            self.dir_gone(child);
        }
    }

    /// Whether anything is known of what is in a directory, but that it went.
    pub(super) fn holds_any(&self, dir: DirId) -> bool {
        self.files.any_in(dir)
            || self.job_of.range(FileKey::range(dir)).next().is_some()
            || !self.tree.children(dir).is_empty()
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
            self.name_is_taken(watch, FileKey::new(dir, name));
        }
        if bits & mask::MOVED_FROM != 0 {
            // A file that is not selected has nothing to carry along.
            if self.selects(watch, dir, name) {
                self.half_rename(watch, dir, cookie, name, false);
            } else if name.starts_with(PRIVATE_PREFIX) {
                self.from_private = Some(cookie);
            }
        } else if bits & mask::MOVED_TO != 0 {
            let from = self.take_half(cookie, watch, false);
            if name.starts_with(PRIVATE_PREFIX) {
                // Disposed of, perhaps by another watch.
                if let Some(from) = from {
                    let from = FileKey::new(from.dir, &from.name);
                    self.is_hidden_as(from, name);
                    self.look_if_halted(from);
                }
                return;
            }
            let seen = from.as_ref().and_then(|from| from.seen);
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
            if self.from_private == Some(cookie) {
                self.is_hidden_as(to, name);
            }
            self.seen_before(to, seen);
            if let Some(from) = from {
                self.scan_awaits_instead(watch, from, to);
            }
        } else if bits & mask::CLOSE_WRITE != 0 {
            self.hint(watch, dir, name, Signal::Close, None);
        } else if bits & mask::CREATE != 0 {
            self.hint(watch, dir, name, Signal::Link, None);
        } else if bits & mask::DELETE != 0 {
            self.deleted_while_listed(watch, FileKey::new(dir, name));
            self.file_gone(FileKey::new(dir, name));
        }
    }

    /// Events are missing: what is on disk decides.
    pub(super) fn overflow(&mut self) {
        self.overflows += 1;
        self.ask_exports();
        // The other halves may be among what is missing: the scan finds out.
        self.half_at.clear();
        self.half_of.clear();
        for (cookie, watch) in std::mem::take(&mut self.renames).into_keys() {
            self.timers.clear(Timer::Rename { cookie, watch });
        }
        // What was kept for directories on their way is among what they list now.
        self.stash.clear();
        self.stash_lost = false;
        self.heard_of_any();
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
        let plan = &state.plan;
        let rel;
        let rel = match plan.excluded.is_empty() && plan.select.is_of_names() {
            true => name,
            false => {
                rel = self.tree.rel(dir, name);
                &rel
            }
        };
        !own(&plan.excluded, rel) && plan.select.file(rel) == Verdict::Yes
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
        for id in self.entered(watch, child) {
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
        self.renamed = Some(self.now.mono);
        let mark = self.tree.get(to).map_or(0, |node| node.mark);
        if let Some(node) = self.tree.get_mut(moved) {
            node.seen = mark;
            if node.recorded {
                self.record_dir_again(moved);
            }
        }
        // Selection may depend on the path, and something may have happened on the way.
        for id in self.tree.subtree(moved) {
            let Some(node) = self.tree.get(id) else {
                continue;
            };
            if id != moved && !self.enters(node.watch, node.parent, &node.name) {
                self.dir_gone(id);
                continue;
            }
            self.bind_is_void(id);
            self.queue_bind(id);
        }
    }

    /// A directory and everything below it is gone.
    pub(super) fn dir_gone(&mut self, dir: DirId) {
        let below = self.tree.subtree(dir);
        let deaf = (below.iter().filter_map(|id| self.tree.get(*id))).find(|node| node.deaf);
        let deaf = deaf.map(|node| node.watch);
        for id in below.into_iter().rev() {
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
            self.wanted.take_dir(id);
            self.timers.clear(Timer::Left(id));
            self.timers.clear(Timer::Bind(id));
            self.left_scan(id);
            // A job may still run of a file that was here, under whatever name: its directory must not become another.
            let recorded = self.tree.get(id).is_some_and(|node| node.recorded);
            if let Some(wd) = self.tree.remove(id, !recorded) {
                self.out.push(super::Effect::Unwatch(wd));
            }
            if recorded {
                self.append(Record::DirGone { dir: id });
            }
            self.redo_disposals_in(id, true);
        }
        if let Some(watch) = deaf {
            // What waits for what it could not tell is decided without it.
            self.start_scan(watch);
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
        let mount = self.tree.mount(dir);
        let (Some(mount), Some(node)) = (mount, self.tree.get_mut(dir)) else {
            return;
        };
        // Whoever wants it, wants it listed; a poll says otherwise afterwards.
        node.sparing = false;
        match node.bind {
            Bind::Queued | Bind::AskedStale => {}
            Bind::Asked => node.bind = Bind::AskedStale,
            Bind::Idle => {
                node.bind = Bind::Queued;
                let watch = node.watch;
                self.lane(mount).binds.push_back(watch, dir);
            }
        }
        self.joins_scan(dir);
    }

    // ---- files that move or go ----

    /// A file went away under this name.
    pub(super) fn file_gone(&mut self, key: FileKey) {
        self.wanted_is_gone(key);
        self.drop_candidate(key);
        // What is remembered under the name may be of a file that was renamed before, and nothing told: what went is the
        // file of the job that is owed there.
        let owed = self.job_of.get(&key).and_then(|id| self.jobs.get(id));
        if let Some(version) = owed.map(|job| version_digest(&job.version)) {
            self.replaced_by(key, version);
        }
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
