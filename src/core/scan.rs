//! First scan, overflow, doubt and poll are one operation: list, and compare with what is known.

use super::ask::{Bound, Entry, Fault, Kind, Stat, Version};
use super::awaits::Awaits;
use super::files::{FileKey, version_digest};
use super::ids::DirId;
use super::settle::Signal;
use super::time::Mono;
use super::timers::Timer;
use super::tree::{Bind, Tree};
use super::watch::Root;
use super::{Asked, Core, ScoutId};
use crate::core::ask::Question;
use crate::core::observe::errno_text;
use crate::plan::Level;
use std::collections::BTreeSet;
use std::time::Duration;

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const ENOSPC: i32 = 28;
const ELOOP: i32 = 40;
const EXDEV: i32 = 18;

/// How often in a row a directory cannot be read before what was renamed meanwhile is not expected there any longer: a
/// minute, see `retry_bind`.
const DEAF_FAULTS: u8 = 6;
/// How often in a row a root that was found is looked for again at once when it cannot be reached.
const BASE_FAULTS: u8 = 4;

/// A scan of one watch under way.
#[derive(Debug)]
pub struct Scan {
    /// Directories not yet listed.
    pub outstanding: usize,
    /// All of its directories.
    pub dirs: u64,
    /// Remembered files and owed jobs that a complete listing did not show, with their version digests.
    pub missing: BTreeSet<(FileKey, u64)>,
    /// The same of names that a listing showed with another version: what had them may have been renamed.
    pub displaced: BTreeSet<(FileKey, u64)>,
    /// Directories that a complete listing of their parent did not show.
    pub missing_dirs: Vec<DirId>,
    /// When it began.
    pub started: Mono,
    /// Everything is listed: the candidates whose version must be known before it can be told what was renamed.
    pub awaits: Option<Awaits>,
    /// How long scouts were at its directories.
    pub cost: Duration,
}

impl Core {
    /// Lists the whole watch. One that is under way is followed by another.
    pub(super) fn start_scan(&mut self, watch: u32) {
        let Some(root) = self.watches.get(watch as usize).map(|state| state.root) else {
            return;
        };
        let dirs = self.entered(watch, root);
        self.scan_dirs(watch, dirs, false);
    }

    /// Lists these directories, and whatever is found below them that is new; where `sparing`, not those whose names have
    /// not moved.
    fn scan_dirs(&mut self, watch: u32, dirs: Vec<DirId>, sparing: bool) {
        let started = self.now.mono;
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if !state.active {
            return;
        }
        // While it is being looked where the root is, nothing can be listed: afterwards.
        if state.scan.is_some() || state.state != Root::Bound {
            state.scan_again = true;
            return;
        }
        // What a scan of this life saw may have been renamed since.
        state.history |= state.scanned;
        state.scan = Some(Scan {
            outstanding: 0,
            dirs: 0,
            missing: BTreeSet::new(),
            displaced: BTreeSet::new(),
            missing_dirs: Vec::new(),
            started,
            awaits: None,
            cost: Duration::ZERO,
        });
        self.timers.clear(Timer::Poll(watch));
        for dir in dirs {
            let idle = self.tree.get(dir).map(|node| node.bind) == Some(Bind::Idle);
            self.queue_bind(dir);
            if let Some(node) = self.tree.get_mut(dir) {
                // Whatever wanted it before has a reason to have it listed.
                node.sparing = sparing && idle;
            }
        }
    }

    /// `top` and the known directories below it that the watch's plan enters, parents first.
    pub(super) fn entered(&self, watch: u32, top: DirId) -> Vec<DirId> {
        let mut all = vec![top];
        let mut next = 0;
        while let Some(&dir) = all.get(next) {
            next += 1;
            all.extend(self.tree.children(dir).into_iter().filter(|child| {
                self.tree
                    .get(*child)
                    .is_some_and(|node| self.enters(watch, dir, &node.name))
            }));
        }
        all
    }

    pub(super) fn joins_scan(&mut self, dir: DirId) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        if node.in_scan {
            return;
        }
        if let Some(scan) = self
            .watches
            .get_mut(node.watch as usize)
            .and_then(|watch| watch.scan.as_mut())
        {
            node.in_scan = true;
            scan.outstanding += 1;
            scan.dirs += 1;
        }
    }

    pub(super) fn left_scan(&mut self, dir: DirId) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        if !std::mem::take(&mut node.in_scan) {
            return;
        }
        let watch = node.watch;
        if let Some(scan) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|watch| watch.scan.as_mut())
        {
            scan.outstanding -= 1;
        }
    }

    /// The directory was removed while it was asked for: the watch descriptor goes, unless another uses it.
    pub(super) fn bound_for_nobody(&mut self, bound: Bound) {
        if let Some(Ok(wd)) = bound.wd
            && self.tree.of_wd(wd).is_empty()
        {
            self.out.push(super::Effect::Unwatch(wd));
        }
    }

    /// The scout has the directory open and watched, and lists it now.
    pub(super) fn bound(&mut self, dir: DirId, bound: Bound) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        let watch = node.watch;
        if !node.recorded && self.moved_here(dir, &bound.ident) {
            return;
        }
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        let again = std::mem::replace(&mut node.bound, true);
        match bound.wd {
            Some(Ok(wd)) if self.dead_wds.contains(&wd) => {
                // Another user of it has heard its end before this answer came.
                let is_root = node.parent == DirId(0);
                self.tree.set_unwatched(dir, false);
                self.unstash(wd);
                self.unwatch(dir);
                self.queue_bind(dir);
                if is_root {
                    self.resolve_root(watch);
                }
            }
            Some(Ok(wd)) => {
                self.tree.set_unwatched(dir, false);
                if let Some(old) = self.tree.set_wd(dir, Some(wd)) {
                    self.out.push(super::Effect::Unwatch(old));
                }
                self.unstash(wd);
                self.share(dir, wd);
            }
            Some(Err(errno)) => {
                self.tree.set_unwatched(dir, true);
                self.no_watch(watch, dir, errno);
            }
            None => {}
        }
        self.identify(dir, &bound.ident);
        self.times_are(dir, &bound);
        self.redo_disposals_in(dir, !again);
    }

    /// A new directory turns out to be one that is known under another name: that is where it is now, with all
    /// that is remembered of it. `true` if so; it is asked for again then.
    fn moved_here(&mut self, new: DirId, ident: &Version) -> bool {
        let Some(node) = self.tree.get(new) else {
            return false;
        };
        let (watch, parent, name) = (node.watch, node.parent, node.name.clone());
        let Some(old) = self.tree.by_ident(watch, ident).filter(|old| *old != new) else {
            return false;
        };
        let known = self.tree.get(old).is_some_and(|node| node.recorded);
        // A directory may be seen twice through a mount; then it is not one that was renamed.
        let mount = |dir| self.tree.mount(dir);
        let apart = mount(old) != mount(new)
            || self
                .tree
                .bases()
                .any(|(base, _)| base == old || base == new);
        if !known || apart || parent == DirId(0) || self.tree.is_below(parent, old) {
            return false;
        }
        let asked_at = self.tree.get(new).map_or(0, |node| node.asked_at);
        if self
            .tree
            .get(old)
            .is_some_and(|node| node.placed > asked_at)
        {
            // An event that came after the question has said where it is.
            self.bind_is_void(new);
            self.queue_bind(new);
            return true;
        }
        self.dir_gone(new);
        let was_in = self.tree.get(old).map(|node| node.parent);
        self.move_dir(old, parent, &name);
        if let Some(was_in) = was_in {
            self.queue_bind(was_in);
        }
        true
    }

    /// Notes which directory it is on disk, in the journal too where that knows it: after a restart
    /// a rename is told from a new directory by it.
    pub(super) fn identify(&mut self, dir: DirId, ident: &Version) {
        let was = self.tree.get(dir).map(|node| (node.ino, node.btime_ns));
        let other = was.is_some_and(|was| was.0 != 0 && was != (ident.ino, ident.btime_ns));
        if other {
            self.heard_of_others(dir);
        }
        if other && self.timers.is_set(Timer::Left(dir)) {
            // The one that lay here was heard to go: what is missing in this one is compared when the scan ends.
            self.tree.set_ident(dir, ident);
            if self.tree.get(dir).is_some_and(|node| node.recorded) {
                self.record_dir_again(dir);
            }
            return;
        }
        if let Some(node) = self.tree.get_mut(dir)
            && node.recorded
            && (node.ino, node.btime_ns) != (ident.ino, ident.btime_ns)
        {
            // Recorded when its listing has said which files are away: a start before that must not take
            // the listing of another directory for word that they are gone.
            let now = (ident.ino, ident.btime_ns);
            let recorded = Tree::recorded_ident(node);
            node.displaced = (recorded.0 != 0 && recorded != now).then_some(recorded);
            if recorded.0 == 0 {
                self.tree.set_ident(dir, ident);
                self.record_dir_again(dir);
                return;
            }
        }
        self.tree.set_ident(dir, ident);
    }

    /// The first complete listing of a directory that lies where another one lay, by a mount, an unmount or
    /// otherwise: what it does not show was not seen gone, and is concluded still when it is back.
    fn listed_displaced(&mut self, dir: DirId, missing: &[(FileKey, u64)], gone_dirs: &[DirId]) {
        self.disposals_away(dir);
        self.files_away(missing.iter().map(|(key, _)| *key));
        self.jobs_away(missing.iter().map(|(key, _)| *key));
        for id in gone_dirs {
            for below in self.tree.subtree(*id) {
                self.disposals_away(below);
                self.files_away(self.files.of_dir(below));
                let jobs: Vec<FileKey> = self
                    .job_of
                    .range(FileKey::range(below))
                    .map(|(key, _)| *key)
                    .collect();
                self.jobs_away(jobs);
            }
        }
        if let Some(node) = self.tree.get_mut(dir) {
            node.displaced = None;
        }
        self.record_dir_again(dir);
    }

    /// Another watch had this watch descriptor already, and heard events that this directory's listing may
    /// have missed: it is listed again, now that its own events reach it.
    fn share(&mut self, dir: DirId, wd: i32) {
        let Some(asked_at) = self.tree.get(dir).map(|node| node.asked_at) else {
            return;
        };
        let missed = self.tree.of_wd(wd).into_iter().any(|other| {
            other != dir
                && self
                    .tree
                    .get(other)
                    .is_some_and(|node| node.heard > asked_at)
        });
        if missed {
            self.queue_bind(dir);
        }
    }

    fn no_watch(&mut self, watch: u32, dir: DirId, errno: i32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if std::mem::replace(&mut state.said_no_watch, true) {
            return;
        }
        let text = if errno == ENOSPC {
            "no inotify watch left: directories without one are polled; raise the sysctl \
             fs.inotify.max_user_watches"
                .to_owned()
        } else {
            format!("no inotify watch: {}; it is polled", errno_text(errno))
        };
        self.log_path(Level::Warning, watch, dir, b"", text);
    }

    /// A part of a listing.
    pub(super) fn entries(&mut self, dir: DirId, entries: Vec<Entry>) {
        let Some(node) = self.tree.get(dir) else {
            return;
        };
        let (watch, mark) = (node.watch, node.mark);
        for Entry { name, stat } in entries {
            match stat {
                Ok(stat) if stat.kind == Kind::Dir => {
                    self.listed_dir(watch, dir, &name, mark, &stat)
                }
                Ok(stat) if stat.kind == Kind::File => {
                    self.listed_file(watch, dir, &name, mark, stat);
                }
                Ok(_) => {}
                Err(_) => {
                    // There, but not to be looked at: not missing.
                    if let Some(node) = self.tree.get_mut(dir) {
                        node.flawed = true;
                    }
                    let key = FileKey::new(dir, &name);
                    self.file_seen(key, mark, None);
                    self.mark_job(key, mark);
                    if let Some(child) = self.tree.child(dir, &name)
                        && let Some(node) = self.tree.get_mut(child)
                    {
                        node.seen = mark;
                    }
                }
            }
        }
    }

    fn listed_dir(&mut self, watch: u32, dir: DirId, name: &[u8], mark: u8, stat: &Stat) {
        self.root_listed(watch, dir, name, &stat.version);
        if self.listed_after_half(dir, name) && self.tree.child(dir, name).is_some() {
            // Whether it is the one that went, its own listing tells.
            self.found_dir(watch, dir, name);
            return;
        }
        if let Some(child) = self.tree.child(dir, name) {
            if let Some(node) = self.tree.get_mut(child) {
                node.seen = mark;
                // Bound already, or on its way: its own events and the scan that asked for this
                // listing see to it.
                if node.bound || node.bind != Bind::Idle {
                    let known = (node.ino, node.btime_ns);
                    if known == (stat.version.ino, stat.version.btime_ns) || node.bind != Bind::Idle
                    {
                        return;
                    }
                }
            }
            self.found_dir(watch, dir, name);
            return;
        }
        if !self.enters(watch, dir, name) {
            return;
        }
        let asked_at = self.tree.get(dir).map_or(0, |node| node.asked_at);
        let moved = self.tree.by_ident(watch, &stat.version);
        if moved
            .and_then(|id| self.tree.get(id))
            .is_some_and(|node| node.placed > asked_at)
        {
            // An event that came after the question has said where it is: the listing is about before.
            self.queue_bind(dir);
            return;
        }
        // The same directory under another name before: it was renamed while nobody looked.
        match moved {
            Some(moved)
                if self
                    .tree
                    .get(moved)
                    .is_some_and(|node| node.parent != DirId(0)) =>
            {
                let was_in = self.tree.get(moved).map(|node| node.parent);
                self.move_dir(moved, dir, name);
                // Another one may lie under the name that it had, and have been taken for it.
                if let Some(was_in) = was_in {
                    self.queue_bind(was_in);
                }
            }
            _ => {
                self.found_dir(watch, dir, name);
                if let Some(child) = self.tree.child(dir, name) {
                    self.tree.set_ident(child, &stat.version);
                }
            }
        }
    }

    fn listed_file(&mut self, watch: u32, dir: DirId, name: &[u8], mark: u8, stat: Stat) {
        if !self.selects(watch, dir, name) {
            return;
        }
        let key = FileKey::new(dir, name);
        if self.told.contains(&key) {
            self.file_seen(key, mark, None);
            self.mark_job(key, mark);
            return;
        }
        self.listed_after_half(dir, name);
        self.find_half(watch, dir, name, &stat.version);
        self.note_displaced(watch, key, &stat.version);
        self.file_seen(key, mark, Some(&stat.version));
        self.mark_job(key, mark);
        if self.is_concluded(watch, key, &stat, false) {
            return;
        }
        if self
            .watches
            .get(watch as usize)
            .is_some_and(|watch| watch.is_baseline())
            && !self.job_of.contains_key(&key)
        {
            self.baseline(dir, name, &stat);
            return;
        }
        self.hint(watch, dir, name, Signal::Scan, Some(stat));
    }

    pub(super) fn note_displaced(&mut self, watch: u32, key: FileKey, found: &Version) {
        let found = version_digest(found);
        let owed = self.job_of.get(&key).and_then(|id| self.jobs.get(id));
        let owed = owed.map(|job| version_digest(&job.version));
        let known = self.files.get(key).filter(|known| !known.gone);
        let known = known.map(|known| known.version);
        if let Some(scan) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|watch| watch.scan.as_mut())
        {
            let gone = owed
                .into_iter()
                .chain(known.filter(|known| Some(*known) != owed));
            scan.displaced.extend(
                gone.filter(|version| *version != found)
                    .map(|version| (key, version)),
            );
        }
    }

    /// An event says that another file has come under a name while a scan is under way, whose listing is not asked
    /// about that name: what had it may have been renamed, and nothing told.
    pub(super) fn name_is_taken(&mut self, watch: u32, key: FileKey) {
        let Some(version) = self.version_at(key) else {
            return;
        };
        if let Some(scan) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|watch| watch.scan.as_mut())
        {
            scan.displaced.insert((key, version));
        }
    }

    /// An event says that the file `from` is `to` now, and what is remembered and owed went along. If a listing of the
    /// scan under way had shown something else under the name, that was not its file: it is sought from where it is now.
    pub(super) fn goes_on_being_sought(&mut self, watch: u32, from: FileKey, to: FileKey) {
        let owed = self.job_of.get(&to).and_then(|id| self.jobs.get(id));
        let owed = owed.map(|job| version_digest(&job.version));
        let known = self.files.get(to).map(|known| known.version);
        let Some(scan) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|watch| watch.scan.as_mut())
        else {
            return;
        };
        for version in owed.into_iter().chain(known) {
            if scan.displaced.contains(&(from, version)) || scan.missing.contains(&(from, version))
            {
                scan.displaced.insert((to, version));
            }
        }
    }

    /// A listing is complete: what it did not show is missing.
    pub(super) fn listed(&mut self, dir: DirId) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        node.failures = 0;
        node.retry_at = Mono(0);
        let (watch, mark, displaced) = (node.watch, node.mark, node.displaced);
        let mut missing = self.files.unmarked(dir, mark);
        missing.extend(self.unmarked_jobs(dir, mark));
        let gone_dirs: Vec<DirId> = self
            .tree
            .children(dir)
            .into_iter()
            .filter(|id| self.tree.get(*id).is_some_and(|child| child.seen != mark))
            .collect();
        self.listed_clean(dir, missing.is_empty() && gone_dirs.is_empty());
        if displaced.is_some() {
            self.listed_displaced(dir, &missing, &gone_dirs);
            self.redo_disposals_in(dir, true);
        }
        if self.tree.set_deaf(dir, false) {
            // What was missed elsewhere meanwhile may be here. To have opened it is not enough: its listing may fail each time.
            self.start_scan(watch);
        }
        let later = !self.is_told(watch) || self.tree.any_deaf(watch);
        let scan = self
            .watches
            .get_mut(watch as usize)
            .and_then(|watch| watch.scan.as_mut());
        match scan {
            Some(scan) => {
                scan.missing.extend(missing);
                scan.missing_dirs.extend(gone_dirs);
            }
            // Renamed, perhaps, and no event tells: the next scan sees both names, or misses it, too.
            None if later => {}
            None => {
                for (key, version) in missing {
                    self.vanished(key, version);
                }
                for id in gone_dirs {
                    self.dir_missing(id);
                }
            }
        }
        self.bind_ended(dir);
    }

    /// A directory could not be watched or listed. That says nothing about what is in it.
    pub(super) fn bind_failed(&mut self, dir: DirId, fault: Fault) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        let (watch, is_root) = (node.watch, node.parent == DirId(0));
        let unreadable = match fault {
            Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(ELOOP | EXDEV) | Fault::Base(_) => false,
            Fault::Here(_) | Fault::Crossed(_) => true,
        };
        // Scans that follow each other ask for it more often than its tries do, and make no minute shorter.
        let early = unreadable && node.failures > 0 && self.now.mono < node.retry_at;
        if !early {
            node.failures = node.failures.saturating_add(1);
        }
        let failures = node.failures;
        let deaf = unreadable && failures < DEAF_FAULTS;
        if self.tree.set_deaf(dir, deaf) && !deaf {
            // What was missed meanwhile is decided without it.
            self.start_scan(watch);
        }
        match fault {
            Fault::Base(errno) => {
                if let Some(state) = self.watches.get_mut(watch as usize) {
                    state.scan_again = true;
                }
                if failures < BASE_FAULTS {
                    self.resolve_root(watch);
                } else {
                    // Found each time, and never reached.
                    self.root_missing(watch, errno);
                }
            }
            Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(ELOOP) => {
                if is_root {
                    self.resolve_root(watch);
                } else if !self.parent_tells(dir) && !self.any_away(dir) {
                    // No event will tell; the parent's listing does.
                    self.retry_bind(dir, failures);
                }
            }
            Fault::Crossed(EXDEV) => {
                let path = self.path_of(watch, dir, b"");
                self.ask(
                    ScoutId::Resolver(watch),
                    Question::Resolve { path },
                    Asked::Resolve { watch, dir },
                );
            }
            Fault::Here(errno) | Fault::Crossed(errno) => {
                if failures == 1 && !early {
                    let text = match errno {
                        EACCES => {
                            "the directory cannot be read: Permission denied; give the daemon's \
                                   user read and search permission; trying again"
                                .to_owned()
                        }
                        _ => format!(
                            "the directory cannot be listed: {}; trying again",
                            errno_text(errno)
                        ),
                    };
                    self.log_path(Level::Error, watch, dir, b"", text);
                }
                self.retry_bind(dir, failures);
            }
        }
        self.bind_ended(dir);
    }

    /// Whether the return of a directory is told by its parent: by events, or by the parent's own return.
    fn parent_tells(&self, dir: DirId) -> bool {
        self.tree
            .get(dir)
            .and_then(|node| self.tree.get(node.parent))
            .is_some_and(|parent| parent.wd.is_some() || parent.failures > 0)
    }

    pub(super) fn retry_bind(&mut self, dir: DirId, failures: u8) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        if node.retry_at <= self.now.mono {
            let wait = Duration::from_secs(1 << failures.min(6));
            node.retry_at = self.now.mono.after(wait);
        }
        self.timers.set(Timer::Bind(dir), node.retry_at);
    }

    /// What was told of a directory's names while it was listed.
    pub(super) fn forget_told(&mut self, dir: DirId) {
        while let Some(key) = self.told.range(FileKey::range(dir)).next().copied() {
            self.told.remove(&key);
        }
    }

    pub(super) fn bind_ended(&mut self, dir: DirId) {
        self.forget_told(dir);
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        let (watch, again) = (node.watch, node.bind == Bind::AskedStale);
        node.bind = Bind::Idle;
        if again {
            self.queue_bind(dir);
        } else {
            self.left_scan(dir);
        }
        if self.tree.get(dir).is_some_and(|node| node.unwatched) && !self.polls(watch) {
            self.set_poll(watch);
        }
    }

    /// Whether events tell of everything that happens in a watch.
    pub(super) fn is_told(&self, watch: u32) -> bool {
        !self.polls(watch) && !self.tree.any_unwatched(watch)
    }

    pub(super) fn set_poll(&mut self, watch: u32) {
        if self.is_told(watch) || self.timers.is_set(Timer::Poll(watch)) {
            return;
        }
        // What it costs is known when it ends, which sets the time of the next.
        let Some(state) = self
            .watches
            .get(watch as usize)
            .filter(|state| state.scan.is_none())
        else {
            return;
        };
        let dirs = match self.polls(watch) {
            true => state.scan_dirs,
            false => self.tree.count_unwatched(watch),
        };
        // At most a tenth of the time is spent listing.
        let listing =
            Duration::from_nanos(state.dir_cost_ns.saturating_mul(dirs).saturating_mul(9));
        let wait = state.plan.poll.max(listing);
        self.timers
            .set(Timer::Poll(watch), self.now.mono.after(wait));
    }

    /// A listing is due.
    pub(super) fn poll_due(&mut self, watch: u32) {
        if self.polls(watch) {
            let root = self.watches.get(watch as usize).map(|state| state.root);
            let dirs = root.map(|root| self.entered(watch, root));
            self.scan_dirs(watch, dirs.unwrap_or_default(), true);
        } else {
            let dirs = self.tree.unwatched(watch);
            self.scan_dirs(watch, dirs, false);
        }
    }
}
