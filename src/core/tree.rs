//! The watched directories: ids, names, parents, watch descriptors. Structure only; what to do about
//! events and listings is `observe`'s.

use super::ask::{DirTimes, Place, Version};
use super::files::FileKey;
use super::ids::{AskId, DirId, MountId};
use super::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// How far a directory has come with its scout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Nothing asked, nothing wanted.
    Idle,
    /// In its lane.
    Queued,
    /// Asked: the answer is on its way.
    Asked,
    /// Asked, and doubt came up meanwhile: to be asked again after the answer.
    AskedStale,
}

/// One directory.
#[derive(Debug)]
pub struct Dir {
    /// Index of its watch.
    pub watch: u32,
    /// Parent; 0 for a root.
    pub parent: DirId,
    /// Name in the parent; empty for a root.
    pub name: Box<[u8]>,
    /// Inode number, 0 until it was opened or listed.
    pub ino: u64,
    /// Birth time, 0 if unknown.
    pub btime_ns: i64,
    /// Inode number and birth time of the directory that lay here when it was recorded, if that was another one
    /// and none was listed completely since.
    pub displaced: Option<(u64, i64)>,
    /// Its inotify watch.
    pub wd: Option<i32>,
    /// See [`Bind`].
    pub bind: Bind,
    /// Bound at least once in this life of the daemon.
    pub bound: bool,
    /// No inotify watch was to be had: it is polled. Set by [`Tree::set_unwatched`].
    pub unwatched: bool,
    /// It is there, and a short while ago it could not be read: what comes into it is not heard. Set by
    /// [`Tree::set_deaf`].
    pub deaf: bool,
    /// Its record is in the journal.
    pub recorded: bool,
    /// Counts towards the watch's running scan.
    pub in_scan: bool,
    /// Mark of its own listing under way or last done.
    pub mark: u8,
    /// Mark of its parent's listing that last saw it.
    pub seen: u8,
    /// Failed attempts to read it in a row; those before its next try is due count as none.
    pub failures: u8,
    /// When its next try is due, if it has failed.
    pub retry_at: Mono,
    /// See [`Names`].
    pub names_at: Option<Names>,
    /// The listing that is wanted may be spared if its names have not moved.
    pub sparing: bool,
    /// The listing under way had something that could not be told.
    pub flawed: bool,
    /// When its listing under way was asked for.
    pub bound_at: Mono,
    /// Number of the last event that was heard of it.
    pub heard: u64,
    /// Number of the last event that gave it its place.
    pub placed: u64,
    /// Number of the last event before it was asked for.
    pub asked_at: u64,
    /// The question on its way: answers to an older one are about a directory that had this id before.
    pub asked: AskId,
}

/// When the names in a directory changed last, by the clock of the filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Inode number, birth time and change time.
    pub times: DirTimes,
    /// Since when this is known.
    pub since: Mono,
    /// When it was asked for the listing that was complete, and after which any change would have moved the time.
    pub listed: Option<Mono>,
}

/// A place where paths start: a root, or a mount point below it.
#[derive(Clone, Debug)]
pub struct Base {
    /// Absolute path.
    pub path: Vec<u8>,
    /// The mount.
    pub mount: MountId,
}

/// All directories of all watches.
#[derive(Debug, Default)]
pub struct Tree {
    dirs: BTreeMap<DirId, Dir>,
    by_name: BTreeMap<FileKey, DirId>,
    by_wd: BTreeSet<(i32, DirId)>,
    /// How many different ones are in it.
    wds: usize,
    by_ident: BTreeMap<(u32, u64, i64), DirId>,
    bases: BTreeMap<DirId, Base>,
    unwatched: BTreeSet<(u32, DirId)>,
    deaf: BTreeSet<(u32, DirId)>,
    free: BTreeSet<DirId>,
    last: u32,
}

impl Tree {
    /// Makes a directory known.
    pub fn add(&mut self, watch: u32, parent: DirId, name: &[u8]) -> DirId {
        let id = match self.free.pop_first() {
            Some(id) => id,
            None => {
                self.last += 1;
                DirId(self.last)
            }
        };
        self.insert(id, watch, parent, name);
        id
    }

    /// Makes a directory known under an id from the journal, or renames it there.
    pub fn restore(&mut self, id: DirId, watch: u32, parent: DirId, name: &[u8]) {
        self.last = self.last.max(id.0);
        self.free.remove(&id);
        if self.dirs.contains_key(&id) {
            self.rename(id, parent, name);
        } else {
            self.insert(id, watch, parent, name);
        }
        if let Some(dir) = self.dirs.get_mut(&id) {
            dir.recorded = true;
        }
    }

    /// A number that no directory gets.
    pub fn reserve(&mut self, id: DirId) {
        self.last = self.last.max(id.0);
        self.free.remove(&id);
    }

    fn insert(&mut self, id: DirId, watch: u32, parent: DirId, name: &[u8]) {
        self.dirs.insert(
            id,
            Dir {
                watch,
                parent,
                name: name.into(),
                ino: 0,
                btime_ns: 0,
                displaced: None,
                wd: None,
                bind: Bind::Idle,
                bound: false,
                unwatched: false,
                deaf: false,
                recorded: false,
                in_scan: false,
                mark: 0,
                seen: 0,
                failures: 0,
                retry_at: Mono(0),
                names_at: None,
                sparing: false,
                flawed: false,
                bound_at: Mono(0),
                heard: 0,
                placed: 0,
                asked_at: 0,
                asked: AskId(0),
            },
        );
        if parent != DirId(0) {
            self.by_name.insert(FileKey::new(parent, name), id);
        }
    }

    /// The directory.
    pub fn get(&self, id: DirId) -> Option<&Dir> {
        self.dirs.get(&id)
    }

    /// The directory, to be changed.
    pub fn get_mut(&mut self, id: DirId) -> Option<&mut Dir> {
        self.dirs.get_mut(&id)
    }

    /// The directory `name` in `parent`.
    pub fn child(&self, parent: DirId, name: &[u8]) -> Option<DirId> {
        self.by_name.get(&FileKey::new(parent, name)).copied()
    }

    /// Directories right below `parent`.
    pub fn children(&self, parent: DirId) -> Vec<DirId> {
        self.by_name
            .range(FileKey::range(parent))
            .map(|(_, id)| *id)
            .collect()
    }

    /// `dir` and everything below it, parents first.
    pub fn subtree(&self, dir: DirId) -> Vec<DirId> {
        let mut all = vec![dir];
        let mut next = 0;
        while let Some(&id) = all.get(next) {
            all.extend(self.children(id));
            next += 1;
        }
        all
    }

    /// Gives a directory another parent and name. A directory that is there already goes out of the
    /// names, not out of the tree: the caller removes it first.
    pub fn rename(&mut self, id: DirId, parent: DirId, name: &[u8]) {
        let Some(dir) = self.dirs.get_mut(&id) else {
            return;
        };
        let old = FileKey::new(dir.parent, &dir.name);
        dir.parent = parent;
        dir.name = name.into();
        if self.by_name.get(&old) == Some(&id) {
            self.by_name.remove(&old);
        }
        if parent != DirId(0) {
            self.by_name.insert(FileKey::new(parent, name), id);
        }
    }

    /// Removes one directory (its children first, see [`Tree::subtree`]). Its id is used again only if
    /// `reuse`. Returns its watch descriptor if it was the last user of it.
    pub fn remove(&mut self, id: DirId, reuse: bool) -> Option<i32> {
        let wd = self.set_wd(id, None);
        let dir = self.dirs.remove(&id)?;
        let key = FileKey::new(dir.parent, &dir.name);
        if self.by_name.get(&key) == Some(&id) {
            self.by_name.remove(&key);
        }
        let ident = (dir.watch, dir.ino, dir.btime_ns);
        if self.by_ident.get(&ident) == Some(&id) {
            self.by_ident.remove(&ident);
        }
        self.bases.remove(&id);
        self.unwatched.remove(&(dir.watch, id));
        self.deaf.remove(&(dir.watch, id));
        if reuse {
            self.free.insert(id);
        }
        wd
    }

    /// Sets the watch descriptor. Returns the old one if nobody uses it any longer.
    pub fn set_wd(&mut self, id: DirId, wd: Option<i32>) -> Option<i32> {
        let dir = self.dirs.get_mut(&id)?;
        let old = std::mem::replace(&mut dir.wd, wd);
        if let Some(old) = old {
            self.by_wd.remove(&(old, id));
            self.wds -= usize::from(!self.is_wd(old));
        }
        if let Some(wd) = wd {
            self.wds += usize::from(!self.is_wd(wd));
            self.by_wd.insert((wd, id));
        }
        old.filter(|&old| Some(old) != wd && self.of_wd(old).is_empty())
    }

    /// Notes whether an inotify watch was refused.
    pub fn set_unwatched(&mut self, id: DirId, unwatched: bool) {
        let Some(dir) = self.dirs.get_mut(&id) else {
            return;
        };
        dir.unwatched = unwatched;
        if unwatched {
            self.unwatched.insert((dir.watch, id));
        } else {
            self.unwatched.remove(&(dir.watch, id));
        }
    }

    /// Whether there is any such directory in a watch.
    pub fn any_unwatched(&self, watch: u32) -> bool {
        self.unwatched
            .range((watch, DirId(0))..=(watch, DirId(u32::MAX)))
            .next()
            .is_some()
    }

    /// Directories of a watch for which no inotify watch was to be had.
    pub fn unwatched(&self, watch: u32) -> Vec<DirId> {
        self.unwatched
            .range((watch, DirId(0))..=(watch, DirId(u32::MAX)))
            .map(|(_, id)| *id)
            .collect()
    }

    /// How many those are.
    pub fn count_unwatched(&self, watch: u32) -> u64 {
        self.unwatched
            .range((watch, DirId(0))..=(watch, DirId(u32::MAX)))
            .count() as u64
    }

    /// Notes whether a directory is deaf. `true` if this is news.
    pub fn set_deaf(&mut self, id: DirId, deaf: bool) -> bool {
        let Some(dir) = self.dirs.get_mut(&id).filter(|dir| dir.deaf != deaf) else {
            return false;
        };
        dir.deaf = deaf;
        if deaf {
            self.deaf.insert((dir.watch, id));
        } else {
            self.deaf.remove(&(dir.watch, id));
        }
        true
    }

    /// Whether there is any such directory in a watch.
    pub fn any_deaf(&self, watch: u32) -> bool {
        self.deaf
            .range((watch, DirId(0))..=(watch, DirId(u32::MAX)))
            .next()
            .is_some()
    }

    /// Every directory that a watch descriptor stands for: one for each watch that sees it.
    pub fn of_wd(&self, wd: i32) -> Vec<DirId> {
        self.by_wd
            .range((wd, DirId(0))..=(wd, DirId(u32::MAX)))
            .map(|(_, id)| *id)
            .collect()
    }

    /// Notes which directory it is on disk.
    pub fn set_ident(&mut self, id: DirId, ident: &Version) {
        let Some(dir) = self.dirs.get_mut(&id) else {
            return;
        };
        let old = (dir.watch, dir.ino, dir.btime_ns);
        let new = (dir.watch, ident.ino, ident.btime_ns);
        dir.ino = ident.ino;
        dir.btime_ns = ident.btime_ns;
        if old == new {
            return;
        }
        if self.by_ident.get(&old) == Some(&id) {
            self.by_ident.remove(&old);
        }
        // Without a birth time a reused inode number would look like a rename.
        if ident.btime_ns != 0 {
            self.by_ident.insert(new, id);
        }
    }

    /// The directory of `watch` that is this one on disk, wherever it was last seen.
    pub fn by_ident(&self, watch: u32, ident: &Version) -> Option<DirId> {
        if ident.btime_ns == 0 {
            return None;
        }
        self.by_ident
            .get(&(watch, ident.ino, ident.btime_ns))
            .copied()
    }

    /// Makes `dir` a place where paths start.
    pub fn set_base(&mut self, dir: DirId, base: Base) {
        self.bases.insert(dir, base);
    }

    /// `dir` is no such place any longer.
    pub fn clear_base(&mut self, dir: DirId) {
        self.bases.remove(&dir);
    }

    /// The places where paths start.
    pub fn bases(&self) -> impl Iterator<Item = (DirId, &Base)> {
        self.bases.iter().map(|(id, base)| (*id, base))
    }

    /// Where `name` in `dir` is (`dir` itself for an empty name), if its base is known.
    pub fn place(&self, dir: DirId, name: &[u8]) -> Option<Place> {
        let (base, _) = self.base_of(dir)?;
        Some(Place {
            base: base.path.clone(),
            mount: base.mount,
            rel: self.names(None, dir, name, |id| self.bases.contains_key(&id)),
        })
    }

    /// The absolute path of that place.
    pub fn path(&self, dir: DirId, name: &[u8]) -> Option<Vec<u8>> {
        let (base, is_base) = self.base_of(dir)?;
        if is_base && name.is_empty() {
            return Some(base.path.clone());
        }
        let above = base.path.strip_suffix(b"/").unwrap_or(&base.path);
        Some(self.names(Some(above), dir, name, |id| self.bases.contains_key(&id)))
    }

    /// Whether that place has this absolute path; `None` if its base is not known.
    pub fn is_at(&self, dir: DirId, name: &[u8], path: &[u8]) -> Option<bool> {
        let (base, _) = self.base_of(dir)?;
        let mut rest = path;
        let mut last = name;
        let mut at = dir;
        loop {
            if !last.is_empty() {
                match rest
                    .strip_suffix(last)
                    .and_then(|rest| rest.strip_suffix(b"/"))
                {
                    Some(above) => rest = above,
                    None => return Some(false),
                }
            }
            if self.bases.contains_key(&at) {
                let whole = rest.len() == path.len();
                let above = base.path.strip_suffix(b"/").unwrap_or(&base.path);
                return Some(rest == if whole { &base.path } else { above });
            }
            let node = self.dirs.get(&at)?;
            last = &node.name;
            at = node.parent;
        }
    }

    /// The mount on which `dir` is, if its base is known.
    pub fn mount(&self, dir: DirId) -> Option<MountId> {
        Some(self.base_of(dir)?.0.mount)
    }

    /// The base above `dir`, and whether it is `dir` itself.
    fn base_of(&self, dir: DirId) -> Option<(&Base, bool)> {
        let mut at = dir;
        loop {
            if let Some(base) = self.bases.get(&at) {
                return Some((base, at == dir));
            }
            let node = self.dirs.get(&at)?;
            if node.parent == DirId(0) {
                return None;
            }
            at = node.parent;
        }
    }

    /// Path of `name` in `dir` below the watch's root.
    pub fn rel(&self, dir: DirId, name: &[u8]) -> Vec<u8> {
        self.names(None, dir, name, |_| false)
    }

    /// The names from the first directory that `is_top` (or a root) down to `name` in `dir`, with slashes between them,
    /// and behind `above`, if there is one, with one more.
    fn names(
        &self,
        above: Option<&[u8]>,
        dir: DirId,
        name: &[u8],
        is_top: impl Fn(DirId) -> bool,
    ) -> Vec<u8> {
        let upwards = || {
            let mut at = dir;
            let own = Some(name).filter(|name| !name.is_empty());
            let is_top = &is_top;
            own.into_iter().chain(std::iter::from_fn(move || {
                let node = self.dirs.get(&at).filter(|_| !is_top(at))?;
                at = node.parent;
                (at != DirId(0)).then_some(&*node.name)
            }))
        };
        let length: usize = upwards().map(|name| name.len() + 1).sum();
        let length = match above {
            Some(above) => above.len() + length,
            None => length.saturating_sub(1),
        };
        let mut path = Vec::with_capacity(length);
        path.extend_from_slice(above.unwrap_or_default());
        path.resize(length, b'/');
        let mut end = length;
        for name in upwards() {
            let start = end.saturating_sub(name.len());
            if let Some(place) = path.get_mut(start..end) {
                place.copy_from_slice(name);
            }
            end = start.saturating_sub(1);
        }
        path
    }

    /// Whether `dir` is `above` or lies below it.
    pub fn is_below(&self, dir: DirId, above: DirId) -> bool {
        let mut at = dir;
        loop {
            if at == above {
                return true;
            }
            match self.dirs.get(&at) {
                Some(node) if node.parent != DirId(0) => at = node.parent,
                _ => return false,
            }
        }
    }

    /// All directories of a watch, in order of their ids.
    pub fn of_watch(&self, watch: u32) -> Vec<DirId> {
        self.dirs
            .iter()
            .filter(|(_, dir)| dir.watch == watch)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Inode number and birth time that the journal is to know of a directory.
    pub fn recorded_ident(node: &Dir) -> (u64, i64) {
        node.displaced.unwrap_or((node.ino, node.btime_ns))
    }

    /// How many directories, and how many watch descriptors.
    pub fn count(&self) -> (usize, usize) {
        (self.dirs.len(), self.wds)
    }

    fn is_wd(&self, wd: i32) -> bool {
        let mut users = self.by_wd.range((wd, DirId(0))..=(wd, DirId(u32::MAX)));
        users.next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        Base {
            path: b"/srv".to_vec(),
            mount: MountId(1),
        }
    }

    #[test]
    fn paths_follow_renames() {
        let mut tree = Tree::default();
        let root = tree.add(0, DirId(0), b"");
        assert_eq!(tree.place(root, b"f"), None);
        tree.set_base(root, base());
        let a = tree.add(0, root, b"a");
        let b = tree.add(0, a, b"b");
        assert_eq!(tree.rel(b, b"f"), b"a/b/f");
        assert_eq!(tree.rel(b, b""), b"a/b");
        assert_eq!(tree.rel(root, b""), b"");
        assert_eq!(
            tree.place(b, b"f").map(|p| p.path()),
            Some(b"/srv/a/b/f".to_vec())
        );
        tree.rename(a, root, b"z");
        assert_eq!(tree.rel(b, b"f"), b"z/b/f");
        assert_eq!(tree.child(root, b"a"), None);
        assert_eq!(tree.child(root, b"z"), Some(a));
        assert!(tree.is_below(b, a) && !tree.is_below(a, b));
        assert_eq!(tree.subtree(root), vec![root, a, b]);
    }

    #[test]
    fn a_path_is_known_again() {
        let mut tree = Tree::default();
        let root = tree.add(0, DirId(0), b"");
        assert_eq!(tree.is_at(root, b"f", b"/srv/f"), None);
        assert_eq!(tree.path(root, b"f"), None);
        let (a, mount) = (tree.add(0, root, b"a"), tree.add(0, root, b"m"));
        let below = tree.add(0, mount, b"b");
        for top in [&b"/"[..], b"/srv"] {
            tree.set_base(
                root,
                Base {
                    path: top.to_vec(),
                    ..base()
                },
            );
            let inner = Base {
                path: b"/srv/m".to_vec(),
                mount: MountId(2),
            };
            tree.set_base(mount, inner);
            for dir in [root, a, mount, below] {
                for name in [&b"f"[..], b""] {
                    let place = tree.place(dir, name);
                    let path = place.as_ref().map(Place::path);
                    assert_eq!(tree.path(dir, name), path);
                    assert_eq!(tree.mount(dir), place.map(|place| place.mount));
                    let path = path.unwrap_or_default();
                    assert_eq!(tree.is_at(dir, name, &path), Some(true), "{path:?}");
                    for other in [
                        &b"/"[..],
                        b"",
                        b"/srv",
                        b"/srv/",
                        b"/srv/a",
                        b"/srv/a/f",
                        b"/srv/g",
                        b"f",
                    ] {
                        assert_eq!(tree.is_at(dir, name, other), Some(other == path));
                    }
                }
            }
        }
        assert_eq!(tree.path(below, b"f"), Some(b"/srv/m/b/f".to_vec()));
    }

    #[test]
    fn a_watch_descriptor_is_shared() {
        let mut tree = Tree::default();
        let one = tree.add(0, DirId(0), b"");
        let two = tree.add(1, DirId(0), b"");
        tree.set_wd(one, Some(5));
        tree.set_wd(two, Some(5));
        assert_eq!(tree.of_wd(5), vec![one, two]);
        assert_eq!(tree.count(), (2, 1));
        tree.set_wd(two, Some(5));
        assert_eq!(tree.count(), (2, 1));
        assert_eq!(tree.remove(one, true), None);
        assert_eq!(tree.remove(two, true), Some(5));
        assert_eq!(tree.count(), (0, 0));
        assert_eq!(tree.add(0, DirId(0), b""), one);
    }

    #[test]
    fn identity_needs_a_birth_time() {
        let mut tree = Tree::default();
        let root = tree.add(0, DirId(0), b"");
        let ident = |ino, btime_ns| Version {
            ino,
            btime_ns,
            ..Version::default()
        };
        tree.set_ident(root, &ident(7, 0));
        assert_eq!(tree.by_ident(0, &ident(7, 0)), None);
        tree.set_ident(root, &ident(7, 9));
        assert_eq!(tree.by_ident(0, &ident(7, 9)), Some(root));
        assert_eq!(tree.by_ident(1, &ident(7, 9)), None);
    }
}
