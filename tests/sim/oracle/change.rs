//! The disk changed.

use super::*;

/// For so long what went into a directory that cannot be read is known for certain when it can be.
const UNREADABLE: u64 = 60_000_000_000;

impl Oracle {
    /// Counts how often each version may be concluded: once for each time a name of it came to be.
    pub fn observe(&mut self, disk: &mut Disk) {
        // What is written in one go is one version: nobody has seen another.
        let mut written = BTreeSet::new();
        for change in std::mem::take(&mut disk.changes) {
            match change {
                Change::Content(uid) if !written.insert(uid) => {}
                Change::Content(uid) => {
                    for (parent, name) in disk.paths_of(uid) {
                        self.allow(disk, uid, parent, &name, None);
                    }
                }
                Change::Linked { inode, dent } => {
                    let name = disk.names[dent].clone();
                    self.allow(disk, inode, name.parent, &name.name, None);
                }
                Change::Moved {
                    inode,
                    from,
                    was,
                    dent,
                } => {
                    let name = disk.names[dent].clone();
                    let old = from;
                    if disk.inodes[inode].dir {
                        let old = old.map(|mut path| {
                            path.push(b'/');
                            path.extend_from_slice(&was);
                            path
                        });
                        self.allow_below(disk, inode, old.as_deref());
                    } else {
                        // Between a watched directory and a polled one, a rename is a removal and an arrival.
                        let torn = disk.notify.watches_max < 100;
                        let old = old.filter(|_| !torn).map(|path| (path, was));
                        if self.misses && disk.inodes[inode].nlink == 1 {
                            self.away_and_back(disk, inode, &name, old.as_ref());
                        }
                        if let Some(old) = &old {
                            self.moved_on(disk, inode, &name, old);
                        }
                        self.allow(disk, inode, name.parent, &name.name, old);
                    }
                }
                Change::IdleClose(uid) => {
                    // A close-write or chmod that moved nothing: may be taken for a rewrite.
                    for (parent, name) in disk.paths_of(uid) {
                        self.allow(disk, uid, parent, &name, None);
                    }
                }
                Change::Close(uid) => {
                    // The one of a writer that was unheard of while what it had written was concluded: with a ctime that has
                    // moved for another reason it may be taken for a rewrite.
                    let version = disk.version(uid);
                    for (index, _) in self.watches.iter().enumerate() {
                        let key = (index, version);
                        if self.counts.get(&key).is_some_and(|count| count.done > 0) {
                            *self.allowed.entry(key).or_default() += 1;
                        }
                    }
                }
                Change::Readable(uid, long) => {
                    // "What is in it by then is taken for new" (settled(8), CAVEATS).
                    if long >= UNREADABLE {
                        self.allow_below(disk, uid, None);
                    }
                }
                Change::Ctime(uid) => {
                    if self
                        .watches
                        .iter()
                        .any(|watch| watch.plan.on_ctime == OnCtime::Run)
                        && !disk.inodes[uid].dir
                    {
                        for (parent, name) in disk.paths_of(uid) {
                            self.allow(disk, uid, parent, &name, None);
                        }
                    }
                }
            }
        }
    }

    /// "A file is gone only by an event from its directory, or by a listing that was complete [...] and on a remote mount
    /// was confirmed by a second one": where listings tell, and a file was moved on in the course of each of two that
    /// followed each other, both may have missed it. Between two that do, there is the watch's `poll` at least.
    fn moved_on(&mut self, disk: &Disk, uid: Uid, name: &Name, old: &(Vec<u8>, Vec<u8>)) {
        let Some(dir) = disk.path_of_dir(name.parent) else {
            return;
        };
        let remote = disk.fss.iter().any(|fs| fs.remote);
        for (index, watch) in self.watches.iter().enumerate() {
            let stays = watch.file(&old.0, &old.1) && watch.file(&dir, &name.name);
            if !stays
                || dir == old.0
                || !remote && watch.plan.observe != settled::plan::Observe::Poll
            {
                continue;
            }
            let key = (index, disk.version(uid));
            let before = self.moved_at.insert(key, disk.mono);
            let poll = u64::try_from(watch.plan.poll.as_nanos()).unwrap_or(u64::MAX);
            if before.is_some_and(|at| disk.mono - at >= poll) {
                *self.allowed.entry(key).or_default() += 1;
            }
        }
    }

    /// A path that was seen gone and is there again is a new arrival.
    fn away_and_back(
        &mut self,
        disk: &Disk,
        uid: Uid,
        name: &Name,
        old: Option<&(Vec<u8>, Vec<u8>)>,
    ) {
        let dir = disk.path_of_dir(name.parent);
        let version = disk.version(uid);
        // Where listings tell, a file is seen gone when two of them in a row missed it: that may take longer.
        if disk.notify.watches_max < 100 || disk.fss.iter().any(|fs| fs.remote) {
            return;
        }
        for (index, watch) in self.watches.iter().enumerate() {
            if !matches!(
                watch.plan.observe,
                settled::plan::Observe::Auto | settled::plan::Observe::Inotify
            ) {
                continue;
            }
            let was = old.is_some_and(|(dir, name)| watch.file(dir, name));
            let is = dir.as_ref().is_some_and(|dir| watch.file(dir, &name.name));
            let key = (index, version);
            match (was, is) {
                (true, false) => {
                    let done = self.counts.get(&key).map_or(0, |count| count.done);
                    if done > 0 {
                        self.left.insert(key, (disk.mono, self.moment.life, done));
                    }
                }
                (false, true) => {
                    if let Some((at, life, done)) = self.left.remove(&key)
                        && life == self.moment.life
                        && disk.mono - at >= 28_000_000_000
                    {
                        self.back.insert(key, done + 1);
                    }
                }
                _ => {}
            }
        }
    }

    fn allow(
        &mut self,
        disk: &Disk,
        uid: Uid,
        parent: Uid,
        name: &[u8],
        old: Option<(Vec<u8>, Vec<u8>)>,
    ) {
        let Some(dir) = disk.path_of_dir(parent) else {
            return;
        };
        let version = disk.version(uid);
        for (index, watch) in self.watches.iter().enumerate() {
            let was = old
                .as_ref()
                .is_some_and(|(dir, name)| watch.file(dir, name));
            if !was && watch.file(&dir, name) {
                *self.allowed.entry((index, version)).or_default() += 1;
            }
        }
    }

    fn allow_below(&mut self, disk: &Disk, dir: Uid, old: Option<&[u8]>) {
        for (name, dent) in &disk.inodes[dir].entries {
            let uid = disk.names[*dent].inode;
            let below = old.map(|path| [path, b"/", name].concat());
            if disk.inodes[uid].dir {
                self.allow_below(disk, uid, below.as_deref());
            } else {
                let was = old.map(|path| (path.to_vec(), name.clone()));
                self.allow(disk, uid, dir, name, was);
            }
        }
    }
}
