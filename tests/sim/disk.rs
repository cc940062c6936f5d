//! A disk as Linux shows it: inodes, names, open files, and what inotify(7) says of each change.

use crate::notify::Notify;
use crate::rng::Rng;
use settled::core::ask::{Kind, Stat, Version};
use settled::core::mask;
use std::collections::BTreeMap;

pub const ENOENT: i32 = 2;
pub const EIO: i32 = 5;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const EXDEV: i32 = 18;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EINVAL: i32 = 22;
pub const ENOTEMPTY: i32 = 39;

/// An inode, for ever: the number on disk is used again, this is not.
pub type Uid = usize;
/// A name in a directory, for ever.
pub type Dent = usize;
/// An open file description.
pub type Handle = usize;

#[derive(Clone, Debug)]
pub struct Inode {
    pub ino: u64,
    pub btime: i64,
    pub generation: u32,
    pub dir: bool,
    pub fs: usize,
    pub size: u64,
    pub mtime: i64,
    pub ctime: i64,
    /// Which content: a new number for each change.
    pub content: u64,
    pub nlink: u32,
    /// Local writers, mappings included: what a lease sees.
    pub writers: u32,
    /// Writers on other machines: what it does not see.
    pub remote_writers: u32,
    pub locked: bool,
    pub flocked: bool,
    pub opens: u32,
    /// When the content last changed (`CLOCK_BOOTTIME`).
    pub changed: u64,
    /// When a name was last given to it by link or rename.
    pub placed: u64,
    /// The mtime was put back after a change: stat cannot tell.
    pub disguised: bool,
    /// It was last written through a name that is not heard.
    pub unheard: bool,
    pub unreadable: bool,
    /// Since when.
    pub unreadable_since: u64,
    /// A directory in which the daemon may rename nothing.
    pub unwritable: bool,
    pub entries: BTreeMap<Vec<u8>, Dent>,
    /// When they changed last, by a clock that ticks every two seconds.
    pub names_at: i64,
    pub parent: Option<Uid>,
    pub wd: Option<i32>,
    pub dead: bool,
}

#[derive(Clone, Debug)]
pub struct Name {
    pub parent: Uid,
    pub name: Vec<u8>,
    pub inode: Uid,
    pub alive: bool,
}

#[derive(Clone, Debug)]
pub struct Open {
    pub inode: Uid,
    pub dent: Option<Dent>,
    /// For O_TMPFILE: the directory whose watch hears of `#ino`.
    pub tmp_dir: Option<Uid>,
    pub remote: bool,
    pub wrote: bool,
    pub open: bool,
}

#[derive(Clone, Debug)]
pub struct Fs {
    pub mount: u64,
    pub point: Vec<u8>,
    pub root: Uid,
    pub remote: bool,
    pub cache_s: u32,
    /// Leases: 0 can be asked, else the errno.
    pub lease_errno: i32,
    /// Listings may be spared where the names have not moved.
    pub sparing: bool,
    /// Exported over NFS from here on down, by this machine.
    pub exported: Option<Vec<u8>>,
}

/// Content that has a name, and an inode that has it.
pub type Contents = BTreeMap<u64, Uid>;

/// What the oracle is told.
#[derive(Clone, Debug)]
pub enum Change {
    /// New content (or a new mtime).
    Content(Uid),
    /// A new name for a file that was there.
    Linked { inode: Uid, dent: Dent },
    /// A name moved from `was` in the directory at `from`, if that had a path.
    Moved {
        inode: Uid,
        from: Option<Vec<u8>>,
        was: Vec<u8>,
        dent: Dent,
    },
    /// A close after writing nothing.
    IdleClose(Uid),
    /// A close after something was written.
    Close(Uid),
    /// Only ctime moved.
    Ctime(Uid),
    /// A directory that nobody could read for so many nanoseconds can be read.
    Readable(Uid, u64),
}

#[derive(Debug)]
pub struct Disk {
    pub inodes: Vec<Inode>,
    pub names: Vec<Name>,
    pub opens: Vec<Open>,
    pub fss: Vec<Fs>,
    pub notify: Notify,
    pub mono: u64,
    pub wall: i64,
    pub changes: Vec<Change>,
    free_inos: Vec<u64>,
    last_ino: u64,
    last_stamp: i64,
    last_content: u64,
    last_cookie: u32,
    flips: u64,
    pub reuse_inos: bool,
    /// For what the faults below need.
    pub more: Rng,
    /// Listings that fail in the middle, in a thousand steps.
    pub cuts: u64,
    /// Events that are lost without a word, in a hundred; the halves of renames are not.
    pub loses: u64,
    /// What happens now is the mover's doing: no arrival.
    pub moving: bool,
    /// What happens now happens on another machine: no events.
    pub mute: bool,
    /// What happens now is done by the NFS server of this machine for a client: no lease sees who writes, and closes come
    /// when they like.
    pub served: bool,
    /// Something was written that no event tells of: through another link than the watched one.
    pub unheard: bool,
}

impl Disk {
    pub fn new(queue_max: usize, watches_max: usize) -> Disk {
        Disk {
            inodes: Vec::new(),
            names: Vec::new(),
            opens: Vec::new(),
            fss: Vec::new(),
            notify: Notify::new(queue_max, watches_max),
            mono: 0,
            wall: 0,
            changes: Vec::new(),
            free_inos: Vec::new(),
            last_ino: 10,
            last_stamp: 0,
            last_content: 0,
            last_cookie: 0,
            flips: 0,
            reuse_inos: true,
            more: Rng::new(0),
            cuts: 0,
            loses: 0,
            moving: false,
            mute: false,
            served: false,
            unheard: false,
        }
    }

    pub fn add_fs(&mut self, point: &[u8], remote: bool, cache_s: u32, lease_errno: i32) -> usize {
        let fs = self.fss.len();
        let mount = 20 + fs as u64;
        self.fss.push(Fs {
            mount,
            point: point.to_vec(),
            root: 0,
            remote,
            cache_s,
            lease_errno,
            sparing: false,
            exported: None,
        });
        let root = self.new_inode(fs, true);
        self.fss[fs].root = root;
        self.inodes[root].nlink = 1;
        fs
    }

    /// Times on disk never repeat: each change has its own nanosecond, whatever the clock does.
    fn stamp(&mut self) -> i64 {
        self.last_stamp += 1;
        self.wall + self.last_stamp
    }

    fn new_inode(&mut self, fs: usize, dir: bool) -> Uid {
        let reused = if self.reuse_inos {
            self.free_inos.pop()
        } else {
            None
        };
        let ino = reused.unwrap_or_else(|| {
            self.last_ino += 1;
            self.last_ino
        });
        let stamp = self.stamp();
        self.last_content += 1;
        self.inodes.push(Inode {
            ino,
            btime: stamp,
            generation: 0,
            dir,
            fs,
            size: 0,
            mtime: stamp,
            ctime: stamp,
            content: self.last_content,
            nlink: 0,
            writers: 0,
            remote_writers: 0,
            locked: false,
            flocked: false,
            opens: 0,
            changed: self.mono,
            placed: 0,
            disguised: false,
            unheard: false,
            unreadable: false,
            unreadable_since: 0,
            unwritable: false,
            entries: BTreeMap::new(),
            names_at: 0,
            parent: None,
            wd: None,
            dead: false,
        });
        self.inodes.len() - 1
    }

    pub fn version(&self, uid: Uid) -> Version {
        let inode = &self.inodes[uid];
        Version {
            ino: inode.ino,
            btime_ns: inode.btime,
            generation: inode.generation,
            size: inode.size,
            mtime_ns: inode.mtime,
        }
    }

    pub fn stat(&self, uid: Uid) -> Stat {
        Stat {
            kind: if self.inodes[uid].dir {
                Kind::Dir
            } else {
                Kind::File
            },
            version: self.version(uid),
            ctime_ns: self.inodes[uid].ctime,
        }
    }

    // ---- paths ----

    fn fs_of(&self, path: &[u8]) -> Option<(usize, usize)> {
        self.fss
            .iter()
            .enumerate()
            .filter(|(_, fs)| below(path, &fs.point))
            .max_by_key(|(_, fs)| fs.point.len())
            .map(|(at, fs)| (at, fs.point.strip_suffix(b"/").unwrap_or(&fs.point).len()))
    }

    /// The inode at an absolute path.
    pub fn resolve(&self, path: &[u8]) -> Result<Uid, i32> {
        let (fs, skip) = self.fs_of(path).ok_or(ENOENT)?;
        self.walk(self.fss[fs].root, &path[skip..])
    }

    pub fn walk(&self, from: Uid, rel: &[u8]) -> Result<Uid, i32> {
        let mut at = from;
        for name in rel.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            if !self.inodes[at].dir {
                return Err(ENOTDIR);
            }
            at = self.lookup(at, name).ok_or(ENOENT)?;
        }
        Ok(at)
    }

    pub fn lookup(&self, dir: Uid, name: &[u8]) -> Option<Uid> {
        let dent = self.inodes[dir].entries.get(name)?;
        Some(self.names[*dent].inode)
    }

    /// Parent directory and name of a path.
    pub fn parent<'a>(&self, path: &'a [u8]) -> Result<(Uid, &'a [u8]), i32> {
        let slash = path.iter().rposition(|&b| b == b'/').ok_or(ENOENT)?;
        let dir = self.resolve(&path[..slash.max(1)])?;
        if !self.inodes[dir].dir {
            return Err(ENOTDIR);
        }
        Ok((dir, &path[slash + 1..]))
    }

    /// The absolute path of a directory, or nothing if it is cut off.
    pub fn path_of_dir(&self, dir: Uid) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = dir;
        let fs = &self.fss[self.inodes[dir].fs];
        while at != fs.root {
            let parent = self.inodes[at].parent?;
            let (name, _) = self.inodes[parent]
                .entries
                .iter()
                .find(|(_, dent)| self.names[**dent].inode == at)?;
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        let mut path = fs.point.strip_suffix(b"/").unwrap_or(&fs.point).to_vec();
        for part in parts {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    /// Whether nobody can be asked who has it open for writing.
    pub fn blind(&self, uid: Uid) -> bool {
        let fs = &self.fss[self.inodes[uid].fs];
        fs.remote || fs.lease_errno != 0
    }

    /// The content of every file that has a name.
    pub fn contents(&self) -> Contents {
        self.inodes
            .iter()
            .enumerate()
            .filter(|(_, inode)| !inode.dir && inode.nlink > 0)
            .map(|(uid, inode)| (inode.content, uid))
            .collect()
    }

    /// All live names of an inode, as paths.
    pub fn paths_of(&self, uid: Uid) -> Vec<(Uid, Vec<u8>)> {
        self.names
            .iter()
            .filter(|name| name.alive && name.inode == uid)
            .map(|name| (name.parent, name.name.clone()))
            .collect()
    }

    // ---- events ----

    fn tell(&mut self, dir: Uid, bits: u32, cookie: u32, name: &[u8]) {
        if self.mute {
            return;
        }
        let Some(wd) = self.inodes[dir].wd else {
            return;
        };
        if self.loses > 0
            && bits & (mask::CREATE | mask::CLOSE_WRITE | mask::DELETE) != 0
            && self.more.chance(self.loses, 100)
        {
            if let Some(uid) = self.lookup(dir, name) {
                self.inodes[uid].unheard = true;
            }
            // Another watch on the directory may not poll.
            self.unheard = true;
            return;
        }
        self.notify.push(wd, bits, cookie, name);
    }

    fn forget_watch(&mut self, dir: Uid) {
        if let Some(wd) = self.inodes[dir].wd.take() {
            self.notify.remove(wd);
            if !self.mute {
                self.notify.push(wd, mask::IGNORED, 0, b"");
            }
        }
    }

    // ---- names ----

    fn names_change(&mut self, dir: Uid) {
        let tick = self.mono - self.mono % 2_000_000_000;
        self.inodes[dir].names_at = self.inodes[dir].names_at.max(tick as i64);
    }

    fn put_name(&mut self, dir: Uid, name: &[u8], inode: Uid) -> Dent {
        let dent = self.names.len();
        self.names.push(Name {
            parent: dir,
            name: name.to_vec(),
            inode,
            alive: true,
        });
        self.inodes[dir].entries.insert(name.to_vec(), dent);
        self.names_change(dir);
        if self.inodes[inode].dir {
            self.inodes[inode].parent = Some(dir);
        }
        let stamp = self.stamp();
        self.inodes[dir].mtime = stamp;
        dent
    }

    fn drop_name(&mut self, dir: Uid, name: &[u8]) -> Option<Uid> {
        let dent = self.inodes[dir].entries.remove(name)?;
        self.names_change(dir);
        self.names[dent].alive = false;
        let stamp = self.stamp();
        self.inodes[dir].mtime = stamp;
        Some(self.names[dent].inode)
    }

    fn release(&mut self, uid: Uid) {
        let inode = &mut self.inodes[uid];
        if inode.nlink == 0 && inode.opens == 0 && !inode.dead {
            inode.dead = true;
            let ino = inode.ino;
            if inode.dir {
                // DELETE_SELF and IGNORED.
                if let Some(wd) = self.inodes[uid].wd {
                    if !self.mute {
                        self.notify.push(wd, mask::DELETE_SELF, 0, b"");
                    }
                    self.forget_watch(uid);
                }
            }
            self.free_inos.push(ino);
        }
    }

    pub fn mkdir(&mut self, dir: Uid, name: &[u8]) -> Result<Uid, i32> {
        if self.inodes[dir].dead {
            return Err(ENOENT);
        }
        if self.lookup(dir, name).is_some() {
            return Err(EEXIST);
        }
        let fs = self.inodes[dir].fs;
        let uid = self.new_inode(fs, true);
        self.inodes[uid].nlink = 1;
        self.put_name(dir, name, uid);
        self.tell(dir, mask::CREATE | mask::ISDIR, 0, name);
        Ok(uid)
    }

    pub fn rmdir(&mut self, dir: Uid, name: &[u8]) -> Result<(), i32> {
        let uid = self.lookup(dir, name).ok_or(ENOENT)?;
        if !self.inodes[uid].dir {
            return Err(ENOTDIR);
        }
        if !self.inodes[uid].entries.is_empty() {
            return Err(ENOTEMPTY);
        }
        self.drop_name(dir, name);
        self.inodes[uid].nlink = 0;
        self.flips += 1;
        // Which of the two comes first depends on who else has the directory open.
        if self.flips.is_multiple_of(2) {
            self.tell(dir, mask::DELETE | mask::ISDIR, 0, name);
            self.release(uid);
        } else {
            self.release(uid);
            self.tell(dir, mask::DELETE | mask::ISDIR, 0, name);
        }
        Ok(())
    }

    pub fn unlink(&mut self, dir: Uid, name: &[u8]) -> Result<(), i32> {
        let uid = self.lookup(dir, name).ok_or(ENOENT)?;
        if self.inodes[uid].dir {
            return Err(EISDIR);
        }
        self.drop_name(dir, name);
        self.inodes[uid].nlink -= 1;
        self.touch_ctime(uid);
        self.tell(dir, mask::DELETE, 0, name);
        self.release(uid);
        Ok(())
    }

    fn touch_ctime(&mut self, uid: Uid) {
        let stamp = self.stamp();
        self.inodes[uid].ctime = stamp;
        self.changes.push(Change::Ctime(uid));
    }

    pub fn link(&mut self, uid: Uid, dir: Uid, name: &[u8]) -> Result<(), i32> {
        if self.inodes[uid].fs != self.inodes[dir].fs {
            return Err(EXDEV);
        }
        if self.inodes[dir].dead {
            return Err(ENOENT);
        }
        if self.lookup(dir, name).is_some() {
            return Err(EEXIST);
        }
        self.inodes[uid].nlink += 1;
        let dent = self.put_name(dir, name, uid);
        self.touch_ctime(uid);
        self.inodes[uid].placed = self.mono;
        self.changes.push(Change::Linked { inode: uid, dent });
        self.tell(dir, mask::CREATE, 0, name);
        Ok(())
    }

    pub fn rename(
        &mut self,
        from: Uid,
        name: &[u8],
        to: Uid,
        to_name: &[u8],
        noreplace: bool,
    ) -> Result<(), i32> {
        let uid = self.lookup(from, name).ok_or(ENOENT)?;
        if self.inodes[from].fs != self.inodes[to].fs {
            return Err(EXDEV);
        }
        if self.inodes[to].dead {
            return Err(ENOENT);
        }
        let is_dir = self.inodes[uid].dir;
        if is_dir {
            let mut at = Some(to);
            while let Some(dir) = at {
                if dir == uid {
                    return Err(EINVAL);
                }
                at = self.inodes[dir].parent;
            }
        }
        let over = self.lookup(to, to_name);
        if let Some(over) = over {
            if noreplace {
                return Err(EEXIST);
            }
            if over == uid {
                return Ok(());
            }
            match (is_dir, self.inodes[over].dir) {
                (true, false) => return Err(ENOTDIR),
                (false, true) => return Err(EISDIR),
                (true, true) if !self.inodes[over].entries.is_empty() => return Err(ENOTEMPTY),
                _ => {}
            }
            self.drop_name(to, to_name);
        }
        let old_dent = self.inodes[from].entries.get(name).copied().ok_or(ENOENT)?;
        self.inodes[from].entries.remove(name);
        self.names_change(from);
        self.names_change(to);
        // The dentry moves along: whoever has it open is heard under the new name.
        self.names[old_dent].parent = to;
        self.names[old_dent].name = to_name.to_vec();
        self.inodes[to].entries.insert(to_name.to_vec(), old_dent);
        if is_dir {
            self.inodes[uid].parent = Some(to);
        }
        self.touch_ctime(uid);
        if !self.moving {
            self.inodes[uid].placed = self.mono;
        }
        let path = self.path_of_dir(from);
        self.changes.push(Change::Moved {
            inode: uid,
            from: path,
            was: name.to_vec(),
            dent: old_dent,
        });
        self.last_cookie += 1;
        let cookie = self.last_cookie;
        let bit = if is_dir { mask::ISDIR } else { 0 };
        self.tell(from, mask::MOVED_FROM | bit, cookie, name);
        self.tell(to, mask::MOVED_TO | bit, cookie, to_name);
        if is_dir {
            self.tell(uid, mask::MOVE_SELF, 0, b"");
        }
        if let Some(over) = over {
            self.inodes[over].nlink -= 1;
            self.release(over);
        }
        Ok(())
    }

    // ---- files ----

    fn handle(&mut self, inode: Uid, dent: Option<Dent>, remote: bool) -> Handle {
        self.inodes[inode].opens += 1;
        if remote {
            self.inodes[inode].remote_writers += 1;
        } else {
            self.inodes[inode].writers += 1;
        }
        self.opens.push(Open {
            inode,
            dent,
            tmp_dir: None,
            remote,
            wrote: false,
            open: true,
        });
        self.opens.len() - 1
    }

    /// `O_WRONLY | O_CREAT`, and `O_TRUNC` where asked.
    pub fn open_write(
        &mut self,
        dir: Uid,
        name: &[u8],
        create: bool,
        trunc: bool,
    ) -> Result<Handle, i32> {
        if self.inodes[dir].dead {
            return Err(ENOENT);
        }
        let remote = self.mute || self.served;
        match self.inodes[dir].entries.get(name).copied() {
            Some(dent) => {
                let uid = self.names[dent].inode;
                if self.inodes[uid].dir {
                    return Err(EISDIR);
                }
                let handle = self.handle(uid, Some(dent), remote);
                if trunc && self.inodes[uid].size > 0 {
                    self.inodes[uid].size = 0;
                    self.changed(uid);
                    self.opens[handle].wrote = true;
                }
                Ok(handle)
            }
            None if create => {
                let fs = self.inodes[dir].fs;
                let uid = self.new_inode(fs, false);
                self.inodes[uid].nlink = 1;
                let dent = self.put_name(dir, name, uid);
                self.changes.push(Change::Content(uid));
                self.tell(dir, mask::CREATE, 0, name);
                Ok(self.handle(uid, Some(dent), remote))
            }
            None => Err(ENOENT),
        }
    }

    pub fn tmpfile(&mut self, dir: Uid) -> Result<Handle, i32> {
        if self.inodes[dir].dead {
            return Err(ENOENT);
        }
        let fs = self.inodes[dir].fs;
        let uid = self.new_inode(fs, false);
        let handle = self.handle(uid, None, false);
        self.opens[handle].tmp_dir = Some(dir);
        Ok(handle)
    }

    fn changed(&mut self, uid: Uid) {
        let stamp = self.stamp();
        self.last_content += 1;
        let inode = &mut self.inodes[uid];
        inode.mtime = stamp;
        inode.ctime = stamp;
        inode.content = self.last_content;
        inode.changed = self.mono;
        inode.disguised = false;
        self.changes.push(Change::Content(uid));
    }

    /// Appends; or rewrites in place with the same size.
    pub fn write(&mut self, handle: Handle, bytes: u64) {
        let uid = self.opens[handle].inode;
        let heard = self.opens[handle]
            .dent
            .is_some_and(|dent| self.names[dent].alive);
        self.inodes[uid].unheard = self.inodes[uid].nlink > u32::from(heard);
        self.unheard |= self.inodes[uid].unheard;
        self.inodes[uid].size += bytes;
        self.opens[handle].wrote = true;
        self.changed(uid);
        if self.served && bytes.is_multiple_of(2) {
            // The server closes what it holds, and the client goes on.
            self.tell_close(handle);
        }
    }

    fn tell_close(&mut self, handle: Handle) {
        if let Some(dent) = self.opens[handle].dent
            && self.names[dent].alive
        {
            let Name { parent, name, .. } = self.names[dent].clone();
            self.tell(parent, mask::CLOSE_WRITE, 0, &name);
        }
    }

    /// utimensat(2) with an old time: content new, size and mtime as before.
    pub fn set_mtime(&mut self, uid: Uid, mtime: i64) {
        let stamp = self.stamp();
        let inode = &mut self.inodes[uid];
        inode.mtime = mtime;
        inode.ctime = stamp;
        inode.changed = self.mono;
        inode.disguised = true;
        self.changes.push(Change::Content(uid));
        self.changes.push(Change::IdleClose(uid));
    }

    pub fn chmod(&mut self, uid: Uid) {
        self.touch_ctime(uid);
        self.changes.push(Change::IdleClose(uid));
    }

    /// close(2); a mapping keeps the writer.
    pub fn close(&mut self, handle: Handle) {
        let Open {
            inode,
            dent,
            tmp_dir,
            remote,
            wrote,
            open,
        } = self.opens[handle].clone();
        if !open {
            return;
        }
        self.opens[handle].open = false;
        self.inodes[inode].opens -= 1;
        if remote {
            self.inodes[inode].remote_writers -= 1;
            if self.served {
                // Sooner or later it closes what it holds for the last time.
                self.tell_close(handle);
            }
        } else {
            self.inodes[inode].writers -= 1;
            match (dent, tmp_dir) {
                (Some(dent), _) if self.names[dent].alive => {
                    let Name { parent, name, .. } = self.names[dent].clone();
                    self.tell(parent, mask::CLOSE_WRITE, 0, &name);
                }
                (None, Some(dir)) => {
                    let name = format!("#{}", self.inodes[inode].ino);
                    self.tell(dir, mask::CLOSE_WRITE, 0, name.as_bytes());
                }
                _ => {}
            }
        }
        self.changes.push(match wrote {
            true => Change::Close(inode),
            false => Change::IdleClose(inode),
        });
        self.release(inode);
    }

    /// inotify_add_watch(2).
    pub fn add_watch(&mut self, dir: Uid) -> Result<i32, i32> {
        if let Some(wd) = self.inodes[dir].wd {
            return Ok(wd);
        }
        let wd = self.notify.add(dir)?;
        self.inodes[dir].wd = Some(wd);
        Ok(wd)
    }

    /// inotify_rm_watch(2).
    pub fn rm_watch(&mut self, wd: i32) {
        if let Some(dir) = self.notify.dir_of(wd) {
            self.forget_watch(dir);
        }
    }

    /// Whether it can be read.
    pub fn forbid(&mut self, uid: Uid, unreadable: bool) {
        let inode = &mut self.inodes[uid];
        if std::mem::replace(&mut inode.unreadable, unreadable) == unreadable {
            return;
        }
        if unreadable {
            inode.unreadable_since = self.mono;
        } else if inode.dir {
            let long = self.mono - inode.unreadable_since;
            self.changes.push(Change::Readable(uid, long));
        }
    }

    /// The inotify instance is closed.
    pub fn close_notify(&mut self) {
        for inode in &mut self.inodes {
            inode.wd = None;
        }
        self.notify.close();
    }
}

/// Whether `path` is `above` or lies below it.
pub fn below(path: &[u8], above: &[u8]) -> bool {
    let above = above.strip_suffix(b"/").unwrap_or(above);
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
