//! Where the watched directories are: roots are found, lost and found again; mounts come and go.

use super::ask::{Resolved, Version};
use super::ids::{DirId, MountId};
use super::observe::{errno_text, is_below};
use super::timers::Timer;
use super::tree::Base;
use super::watch::Root;
use super::{Asked, Core, Mount, ScoutId};
use crate::core::ask::Question;
use crate::plan::{Level, Observe};
use std::time::Duration;

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

    /// Something happened that may have moved the root: an answer that is on its way may be of before.
    fn resolve_anew(&mut self, watch: u32) {
        if let Some(state) = self.watches.get_mut(watch as usize) {
            state.resolve_again = state.state == Root::Resolving;
            self.resolve_root(watch);
        }
    }

    /// The root directory is another one now, or will be the same again after a while in which everything below
    /// it seemed to be gone.
    pub(super) fn root_moved(&mut self, watch: u32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        state.scan_again = true;
        self.resolve_anew(watch);
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
    pub(super) fn dir_moved(&mut self, watch: u32, path: &[u8]) {
        for other in 0..self.watches.len() as u32 {
            let state = &mut self.watches[other as usize];
            if other != watch && state.active && is_below(&state.plan.path, path) {
                state.scan_again = true;
                self.resolve_anew(other);
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
                    let scans = state.scan.is_some();
                    self.set_base(dir, resolved);
                    self.queue_bind(dir);
                    if !scans {
                        // It may be the first that has to be polled; the end of a scan sees to it by itself.
                        self.set_poll(watch);
                    }
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
                    self.say_exported(watch);
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
    pub(super) fn set_base(&mut self, dir: DirId, resolved: Resolved) -> bool {
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
        self.renamed = Some(self.now.mono);
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
        self.exports_elsewhere();
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
                self.resolve_anew(watch);
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
}
