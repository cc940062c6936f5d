//! Those who put files there: every way an arrival can happen, in small steps with pauses between.

use crate::disk::{Disk, Handle};
use crate::rng::Rng;
use crate::story;
use crate::story::show;
use std::collections::VecDeque;

/// One step of a writer.
#[derive(Clone, Debug)]
pub enum Op {
    Pause(u64),
    Mkdir(Vec<u8>),
    Create(Vec<u8>),
    Reopen(Vec<u8>),
    Truncate(Vec<u8>),
    Write(u64),
    Close,
    /// A second mapping handle: the file stays dirty after `Close`.
    Map,
    Unmap,
    Rename(Vec<u8>, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Unlink(Vec<u8>),
    Tmpfile(Vec<u8>),
    LinkAt(Vec<u8>),
    Rmdir(Vec<u8>),
    RemoveTree(Vec<u8>),
    /// Same size, mtime put back.
    RewriteAndRestore(Vec<u8>),
    Chmod(Vec<u8>),
    /// The daemon may not read it, until it may.
    Forbid(Vec<u8>),
    Permit(Vec<u8>),
    /// It may rename nothing in this directory, until it may.
    Protect(Vec<u8>),
    Unprotect(Vec<u8>),
    Lock,
    Unlock,
    Flock,
    Unflock,
    /// Waits until the daemon does that, but not for long.
    Until(Doing),
}

/// What the daemon does to a path, from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Lists this directory.
    Lists(Vec<u8>),
    /// Runs a command for this file.
    Runs(Vec<u8>),
    /// Gives this file its private name, to dispose of it.
    Hides(Vec<u8>),
    /// Looks where the root of a watch is that is configured with this path.
    Finds(Vec<u8>),
}

/// How long a writer waits for the daemon to do something.
const UNTIL: u64 = 12_000_000_000;

#[derive(Debug)]
pub struct Writer {
    pub ops: VecDeque<Op>,
    /// What it waits for.
    pub until: Option<Doing>,
    handle: Option<Handle>,
    map: Option<Handle>,
    /// On another machine.
    pub remote: bool,
    /// On a client of this machine's NFS server.
    pub served: bool,
}

impl Writer {
    pub fn new(ops: Vec<Op>, remote: bool) -> Writer {
        Writer {
            ops: ops.into(),
            until: None,
            handle: None,
            map: None,
            remote,
            served: false,
        }
    }

    /// Does steps up to the next pause; its length, or nothing when the script is over.
    pub fn go(&mut self, id: usize, disk: &mut Disk) -> Option<u64> {
        self.until = None;
        loop {
            match self.ops.pop_front() {
                Some(Op::Pause(ns)) => return Some(ns),
                Some(Op::Until(doing)) => {
                    self.until = Some(doing);
                    return Some(UNTIL);
                }
                Some(op) => {
                    (disk.mute, disk.served) = (self.remote, self.served);
                    let result = self.one(&op, disk);
                    (disk.mute, disk.served) = (false, false);
                    story!(
                        disk.mono,
                        "writer {id}: {}{}",
                        words(&op),
                        match result {
                            Ok(()) => String::new(),
                            Err(errno) => format!(" (errno {errno})"),
                        }
                    );
                }
                None => {
                    (disk.mute, disk.served) = (self.remote, self.served);
                    for handle in self.handle.take().into_iter().chain(self.map.take()) {
                        self.unlock(disk, handle);
                        disk.close(handle);
                        story!(disk.mono, "writer {id}: closes what it left open");
                    }
                    (disk.mute, disk.served) = (false, false);
                    return None;
                }
            }
        }
    }

    fn unlock(&self, disk: &mut Disk, handle: Handle) {
        let inode = disk.opens[handle].inode;
        disk.inodes[inode].locked = false;
        disk.inodes[inode].flocked = false;
    }

    fn open(&mut self, disk: &mut Disk, path: &[u8], create: bool, trunc: bool) -> Result<(), i32> {
        if let Some(old) = self.handle.take() {
            self.unlock(disk, old);
            disk.close(old);
        }
        let (dir, name) = disk.parent(path)?;
        self.handle = Some(disk.open_write(dir, name, create, trunc)?);
        Ok(())
    }

    fn one(&mut self, op: &Op, disk: &mut Disk) -> Result<(), i32> {
        match op {
            Op::Pause(_) | Op::Until(_) => {}
            Op::Mkdir(path) => {
                let (dir, name) = disk.parent(path)?;
                disk.mkdir(dir, name)?;
            }
            Op::Create(path) => self.open(disk, path, true, true)?,
            Op::Reopen(path) => self.open(disk, path, false, false)?,
            Op::Truncate(path) => self.open(disk, path, false, true)?,
            Op::Write(bytes) => {
                if let Some(handle) = self.handle {
                    disk.write(handle, *bytes);
                }
            }
            Op::Close => {
                if let Some(handle) = self.handle.take() {
                    self.unlock(disk, handle);
                    disk.close(handle);
                }
            }
            Op::Map => {
                if let Some(handle) = self.handle
                    && self.map.is_none()
                {
                    // The mapping keeps the open file alive: its close-write comes at munmap.
                    let Some(dent) = disk.opens[handle].dent else {
                        return Ok(());
                    };
                    if disk.names[dent].alive {
                        let (dir, name) = (disk.names[dent].parent, disk.names[dent].name.clone());
                        self.map = Some(disk.open_write(dir, &name, false, false)?);
                    }
                }
            }
            Op::Unmap => {
                if let Some(map) = self.map.take() {
                    disk.write(map, 0);
                    disk.close(map);
                }
            }
            Op::Rename(from, to) => {
                let (dir, name) = disk.parent(from)?;
                let (to_dir, to_name) = disk.parent(to)?;
                disk.rename(dir, name, to_dir, to_name, false)?;
            }
            Op::Link(from, to) => {
                let uid = disk.resolve(from)?;
                let (dir, name) = disk.parent(to)?;
                if disk.inodes[uid].dir {
                    return Err(1);
                }
                disk.link(uid, dir, name)?;
            }
            Op::Unlink(path) => {
                let (dir, name) = disk.parent(path)?;
                disk.unlink(dir, name)?;
            }
            Op::Tmpfile(path) => {
                if let Some(old) = self.handle.take() {
                    self.unlock(disk, old);
                    disk.close(old);
                }
                let dir = disk.resolve(path)?;
                self.handle = Some(disk.tmpfile(dir)?);
            }
            Op::LinkAt(path) => {
                if let Some(handle) = self.handle {
                    let (dir, name) = disk.parent(path)?;
                    disk.link(disk.opens[handle].inode, dir, name)?;
                }
            }
            Op::Rmdir(path) => {
                let (dir, name) = disk.parent(path)?;
                disk.rmdir(dir, name)?;
            }
            Op::RemoveTree(path) => {
                let uid = disk.resolve(path)?;
                if disk.inodes[uid].dir {
                    remove_below(disk, uid)?;
                    let (dir, name) = disk.parent(path)?;
                    disk.rmdir(dir, name)?;
                }
            }
            Op::RewriteAndRestore(path) => {
                let (dir, name) = disk.parent(path)?;
                let uid = disk.lookup(dir, name).ok_or(2)?;
                let mtime = disk.inodes[uid].mtime;
                let handle = disk.open_write(dir, name, false, false)?;
                disk.write(handle, 0);
                disk.set_mtime(uid, mtime);
                disk.close(handle);
            }
            Op::Chmod(path) => {
                let uid = disk.resolve(path)?;
                if !disk.inodes[uid].dir {
                    disk.chmod(uid);
                }
            }
            Op::Forbid(path) | Op::Permit(path) => {
                let uid = disk.resolve(path)?;
                disk.forbid(uid, matches!(op, Op::Forbid(_)));
            }
            Op::Protect(path) | Op::Unprotect(path) => {
                let uid = disk.resolve(path)?;
                disk.inodes[uid].unwritable = matches!(op, Op::Protect(_));
            }
            Op::Lock | Op::Unlock | Op::Flock | Op::Unflock => {
                if let Some(handle) = self.handle {
                    let inode = &mut disk.inodes[disk.opens[handle].inode];
                    match op {
                        Op::Lock => inode.locked = true,
                        Op::Unlock => inode.locked = false,
                        Op::Flock => inode.flocked = true,
                        _ => inode.flocked = false,
                    }
                }
            }
        }
        Ok(())
    }
}

fn remove_below(disk: &mut Disk, dir: usize) -> Result<(), i32> {
    let names: Vec<Vec<u8>> = disk.inodes[dir].entries.keys().cloned().collect();
    for name in names {
        let Some(uid) = disk.lookup(dir, &name) else {
            continue;
        };
        if disk.inodes[uid].dir {
            remove_below(disk, uid)?;
            disk.rmdir(dir, &name)?;
        } else {
            disk.unlink(dir, &name)?;
        }
    }
    Ok(())
}

fn words(op: &Op) -> String {
    match op {
        Op::Pause(ns) => format!("pauses {ns} ns"),
        Op::Mkdir(p) => format!("mkdir {}", show(p)),
        Op::Create(p) => format!("creates {}", show(p)),
        Op::Reopen(p) => format!("opens {} for writing", show(p)),
        Op::Truncate(p) => format!("opens {} with O_TRUNC", show(p)),
        Op::Write(n) => format!("writes {n} bytes"),
        Op::Close => "closes".into(),
        Op::Map => "maps it".into(),
        Op::Unmap => "writes through the mapping and unmaps".into(),
        Op::Rename(a, b) => format!("renames {} to {}", show(a), show(b)),
        Op::Link(a, b) => format!("links {} as {}", show(a), show(b)),
        Op::Unlink(p) => format!("unlinks {}", show(p)),
        Op::Tmpfile(p) => format!("O_TMPFILE in {}", show(p)),
        Op::LinkAt(p) => format!("linkat {}", show(p)),
        Op::Rmdir(p) => format!("rmdir {}", show(p)),
        Op::RemoveTree(p) => format!("rm -r {}", show(p)),
        Op::RewriteAndRestore(p) => format!("rewrites {} and restores its mtime", show(p)),
        Op::Chmod(p) => format!("chmod {}", show(p)),
        Op::Forbid(p) => format!("lets nobody read {}", show(p)),
        Op::Permit(p) => format!("lets everybody read {}", show(p)),
        Op::Protect(p) => format!("lets nobody write in {}", show(p)),
        Op::Unprotect(p) => format!("lets everybody write in {}", show(p)),
        Op::Lock => "locks".into(),
        Op::Unlock => "unlocks".into(),
        Op::Flock => "flocks".into(),
        Op::Unflock => "lets the flock go".into(),
        Op::Until(doing) => format!("waits until it {doing:?}"),
    }
}

/// Where a schedule plays.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Directories that are watched, or below one.
    pub dirs: Vec<Vec<u8>>,
    /// Directories on the same filesystem that are not.
    pub outside: Vec<u8>,
    /// Roots, which may go away and come back.
    pub roots: Vec<Vec<u8>>,
    pub names: u64,
    /// Renaming and removing directories.
    pub dir_ops: bool,
    /// Roots that go away.
    pub root_ops: bool,
    /// Rewrites that stat cannot tell.
    pub disguises: bool,
}

fn join(dir: &[u8], name: &str) -> Vec<u8> {
    let mut path = dir.to_vec();
    path.push(b'/');
    path.extend_from_slice(name.as_bytes());
    path
}

fn pause(rng: &mut Rng, ops: &mut Vec<Op>) {
    let ns = match rng.below(10) {
        0..=3 => return,
        4 => rng.range(1_000, 100_000),
        5 | 6 => rng.range(100_000, 20_000_000),
        7 => rng.range(20_000_000, 400_000_000),
        8 => rng.range(400_000_000, 1_500_000_000),
        _ => rng.range(1_000_000_000, 4_000_000_000),
    };
    ops.push(Op::Pause(ns));
}

/// A script of a few arrivals.
pub fn script(rng: &mut Rng, stage: &Stage, arrivals: u64) -> Vec<Op> {
    let mut ops = vec![Op::Pause(rng.below(3_000_000_000))];
    for _ in 0..arrivals {
        arrival(rng, stage, &mut ops);
        pause(rng, &mut ops);
    }
    ops
}

/// Files whose names change again and again.
pub fn restless(rng: &mut Rng, stage: &Stage) -> Vec<Op> {
    let dir = rng.pick(&stage.dirs).clone();
    let mut ops = vec![Op::Pause(rng.below(3_000_000_000))];
    let mut paths = Vec::new();
    for n in 0..4 {
        let path = join(&dir, &format!("r{n}.dat"));
        ops.push(Op::Create(path.clone()));
        ops.push(Op::Write(rng.range(1, 9)));
        ops.push(Op::Close);
        paths.push(path);
    }
    for n in 0..rng.range(5, 20) {
        ops.push(Op::Pause(rng.range(100_000_000, 900_000_000)));
        let at = rng.below(4) as usize;
        let to = join(&dir, &format!("r{}-{n}.dat", rng.below(9)));
        ops.push(Op::Rename(paths[at].clone(), to.clone()));
        paths[at] = to;
    }
    ops
}

/// Renames into a directory that the daemon may not read for a while.
pub fn drop_box(rng: &mut Rng, stage: &Stage) -> Vec<Op> {
    let dir = rng.pick(&stage.dirs).clone();
    let (file, inner) = (join(&dir, "b.dat"), join(&dir, "b0"));
    let within = join(&rng.pick(&stage.dirs).clone(), "b1");
    let mut ops = vec![
        Op::Pause(rng.below(3_000_000_000)),
        Op::Create(file.clone()),
        Op::Write(rng.range(1, 9)),
        Op::Close,
    ];
    if stage.dir_ops {
        ops.push(Op::Mkdir(inner.clone()));
        ops.push(Op::Create(join(&inner, "b.dat")));
        ops.push(Op::Write(rng.range(1, 9)));
        ops.push(Op::Close);
    }
    ops.push(Op::Pause(rng.range(2_000_000_000, 6_000_000_000)));
    ops.push(Op::Mkdir(within.clone()));
    ops.push(Op::Forbid(within.clone()));
    ops.push(Op::Pause(rng.below(1_000_000_000)));
    ops.push(Op::Rename(file, join(&within, "b.dat")));
    ops.push(Op::Rename(inner, join(&within, "b2")));
    ops.push(Op::Pause(rng.range(1_000_000_000, 9_000_000_000)));
    ops.push(Op::Permit(within));
    ops
}

/// A few names that change hands all the time, among files that have settled: each rename takes the place of another, in
/// turns that are shorter than the way of an answer.
pub fn shuffle(rng: &mut Rng, stage: &Stage) -> Vec<Op> {
    let dirs = [rng.pick(&stage.dirs).clone(), rng.pick(&stage.dirs).clone()];
    let slots: Vec<Vec<u8>> = (0..5)
        .map(|n| join(&dirs[n % 2], &format!("s{n}.dat")))
        .collect();
    let mut ops = vec![Op::Pause(rng.below(2_000_000_000))];
    for slot in slots.iter().take(3) {
        ops.push(Op::Create(slot.clone()));
        ops.push(Op::Write(rng.range(1, 9)));
        ops.push(Op::Close);
    }
    ops.push(Op::Pause(rng.range(500_000_000, 7_000_000_000)));
    for _ in 0..rng.range(4, 24) {
        let (one, other) = (rng.pick(&slots).clone(), rng.pick(&slots).clone());
        match rng.below(12) {
            0 => {
                ops.push(Op::Create(one));
                ops.push(Op::Write(rng.range(1, 9)));
                ops.push(Op::Close);
            }
            1 => {
                ops.push(Op::Reopen(one));
                ops.push(Op::Close);
            }
            2 => ops.push(Op::Chmod(one)),
            3 => ops.push(Op::Rename(one, join(&stage.outside, "s.dat"))),
            4 => ops.push(Op::Rename(join(&stage.outside, "s.dat"), one)),
            5 if stage.dir_ops => {
                ops.push(Op::Rename(dirs[0].clone(), join(&dirs[1], "t")));
                ops.push(Op::Pause(rng.below(300_000_000)));
                ops.push(Op::Rename(join(&dirs[1], "t"), dirs[0].clone()));
            }
            _ => ops.push(Op::Rename(one, other)),
        }
        match rng.below(8) {
            0..=2 => {}
            3 | 4 => ops.push(Op::Pause(rng.range(10_000, 2_000_000))),
            5 | 6 => ops.push(Op::Pause(rng.range(2_000_000, 300_000_000))),
            _ => ops.push(Op::Pause(rng.range(300_000_000, 3_000_000_000))),
        }
    }
    ops
}

/// A log's rotation: every file takes the next one's name at once, and a new one comes for the first, or the last does.
pub fn rotation(rng: &mut Rng, stage: &Stage) -> Vec<Op> {
    let dirs = [rng.pick(&stage.dirs).clone(), rng.pick(&stage.dirs).clone()];
    let names: Vec<Vec<u8>> = (0..rng.range(2, 7))
        .map(|n| join(rng.pick::<Vec<u8>>(&dirs), &format!("r{n}.dat")))
        .collect();
    let spare = join(&stage.outside, "r.dat");
    let mut ops = vec![Op::Pause(rng.below(2_000_000_000))];
    for name in &names {
        ops.push(Op::Create(name.clone()));
        ops.push(Op::Write(rng.range(1, 9)));
        ops.push(Op::Close);
    }
    for _ in 0..rng.range(1, 4) {
        ops.push(Op::Pause(rng.range(100_000_000, 14_000_000_000)));
        let ring = rng.chance(1, 3);
        if let Some(last) = names.last().filter(|_| ring) {
            ops.push(Op::Rename(last.clone(), spare.clone()));
        }
        for pair in names.windows(2).rev() {
            ops.push(Op::Rename(pair[0].clone(), pair[1].clone()));
            if rng.chance(1, 8) {
                ops.push(Op::Pause(rng.below(300_000_000)));
            }
        }
        if ring {
            ops.push(Op::Rename(spare.clone(), names[0].clone()));
        } else if rng.chance(3, 4) {
            ops.push(Op::Create(names[0].clone()));
            ops.push(Op::Write(rng.range(1, 9)));
            ops.push(Op::Close);
        }
    }
    ops
}

/// A few things that take longer: what happens to a file that has settled.
pub fn extra(rng: &mut Rng, stage: &Stage) -> Vec<Op> {
    let mut ops = vec![Op::Pause(rng.below(3_000_000_000))];
    for round in 0..rng.range(1, 3) {
        let dir = rng.pick(&stage.dirs).clone();
        let path = join(&dir, &format!("x{round}.dat"));
        ops.push(Op::Create(path.clone()));
        ops.push(Op::Write(rng.range(1, 9)));
        ops.push(Op::Close);
        ops.push(Op::Pause(rng.range(1_000_000_000, 7_000_000_000)));
        match rng.below(5) {
            0 | 1 => {
                // Into a directory made a moment ago, of which nobody has heard yet.
                let other = rng.pick(&stage.dirs).clone();
                let new = join(&other, &format!("y{round}"));
                ops.push(Op::Mkdir(new.clone()));
                if rng.chance(1, 2) {
                    ops.push(Op::Pause(rng.below(2_000_000)));
                }
                ops.push(Op::Rename(path, join(&new, "x.dat")));
            }
            2 => {
                // Opened and closed for nothing, then rewritten.
                ops.push(Op::Reopen(path.clone()));
                ops.push(Op::Close);
                ops.push(Op::Pause(rng.below(300_000_000)));
                ops.push(Op::Reopen(path));
                ops.push(Op::Write(3));
                ops.push(Op::Close);
            }
            3 => {
                // Opened again while its job runs, and kept.
                ops.push(Op::Reopen(path));
                ops.push(Op::Pause(rng.range(500_000_000, 4_000_000_000)));
                ops.push(Op::Write(3));
                ops.push(Op::Close);
            }
            _ => {
                // Away for long, and back.
                let away = join(&stage.outside, &format!("x{round}"));
                ops.push(Op::Rename(path.clone(), away.clone()));
                ops.push(Op::Pause(if rng.chance(1, 2) {
                    rng.range(1_000_000_000, 20_000_000_000)
                } else {
                    rng.range(28_000_000_000, 40_000_000_000)
                }));
                ops.push(Op::Rename(away, path));
            }
        }
        pause(rng, &mut ops);
    }
    ops
}

fn arrival(rng: &mut Rng, stage: &Stage, ops: &mut Vec<Op>) {
    let dir = rng.pick(&stage.dirs).clone();
    let n = rng.below(stage.names);
    let path = join(&dir, &format!("f{n}.dat"));
    let other = rng.pick(&stage.dirs).clone();
    let other = join(&other, &format!("f{}.dat", rng.below(stage.names)));
    let temp = join(&dir, &format!(".tmp{n}"));
    let out = join(&stage.outside, &format!("o{n}.dat"));
    let chunks = rng.below(3) + 1;
    let write = |rng: &mut Rng, ops: &mut Vec<Op>| {
        for _ in 0..chunks {
            ops.push(Op::Write(rng.range(1, 9)));
            pause(rng, ops);
        }
    };
    match rng.below(24) {
        0..=3 => {
            ops.push(Op::Create(path));
            pause(rng, ops);
            write(rng, ops);
            ops.push(Op::Close);
        }
        4 => {
            ops.push(Op::Create(path.clone()));
            for _ in 0..rng.range(1, 4) {
                write(rng, ops);
                ops.push(Op::Close);
                pause(rng, ops);
                ops.push(Op::Reopen(path.clone()));
            }
            ops.push(Op::Close);
        }
        5 | 6 => {
            ops.push(Op::Create(temp.clone()));
            write(rng, ops);
            ops.push(Op::Close);
            pause(rng, ops);
            ops.push(Op::Rename(temp, path));
        }
        7 | 8 => {
            ops.push(Op::Create(out.clone()));
            write(rng, ops);
            ops.push(Op::Close);
            pause(rng, ops);
            ops.push(Op::Rename(out, path));
        }
        9 => {
            ops.push(Op::Create(out.clone()));
            write(rng, ops);
            ops.push(Op::Close);
            ops.push(Op::Link(out.clone(), path));
            pause(rng, ops);
            ops.push(Op::Unlink(out));
        }
        10 => {
            ops.push(Op::Tmpfile(dir));
            write(rng, ops);
            ops.push(Op::LinkAt(path));
            pause(rng, ops);
            ops.push(Op::Close);
        }
        11 => {
            ops.push(Op::Create(path));
            ops.push(Op::Write(8));
            ops.push(Op::Map);
            pause(rng, ops);
            ops.push(Op::Close);
            pause(rng, ops);
            ops.push(Op::Unmap);
        }
        12 => {
            // Rename while still open.
            ops.push(Op::Create(temp.clone()));
            write(rng, ops);
            ops.push(Op::Rename(temp, path));
            pause(rng, ops);
            write(rng, ops);
            ops.push(Op::Close);
        }
        13 => {
            ops.push(Op::Reopen(path));
            pause(rng, ops);
            write(rng, ops);
            ops.push(Op::Close);
        }
        14 => {
            ops.push(Op::Truncate(path));
            write(rng, ops);
            ops.push(Op::Close);
        }
        15 => ops.push(Op::Rename(path, other)),
        16 => {
            ops.push(Op::Link(path.clone(), other));
            pause(rng, ops);
            ops.push(Op::Unlink(path));
        }
        17 => ops.push(Op::Unlink(path)),
        18 => {
            ops.push(Op::Rename(path.clone(), out.clone()));
            pause(rng, ops);
            ops.push(Op::Rename(out, path));
        }
        19 => {
            ops.push(Op::Create(path));
            ops.push(if rng.chance(1, 2) {
                Op::Lock
            } else {
                Op::Flock
            });
            write(rng, ops);
            ops.push(Op::Unlock);
            ops.push(Op::Unflock);
            ops.push(Op::Close);
        }
        20 if stage.disguises => {
            ops.push(if rng.chance(1, 2) {
                Op::RewriteAndRestore(path)
            } else {
                Op::Chmod(path)
            });
        }
        21 | 22 if stage.dir_ops => dir_op(rng, stage, ops),
        23 if stage.root_ops => {
            let root = rng.pick(&stage.roots).clone();
            match rng.below(3) {
                0 => {
                    ops.push(Op::RemoveTree(root.clone()));
                    pause(rng, ops);
                    ops.push(Op::Mkdir(root));
                }
                _ => {
                    let away = join(&stage.outside, "root-away");
                    ops.push(Op::Rename(root.clone(), away.clone()));
                    pause(rng, ops);
                    if rng.chance(1, 4) {
                        ops.push(Op::Mkdir(root.clone()));
                        pause(rng, ops);
                        ops.push(Op::Rmdir(root.clone()));
                    }
                    ops.push(Op::Rename(away, root));
                }
            }
        }
        _ => {
            // mkdir -p with a file at once.
            let mut at = dir;
            for depth in 0..rng.range(1, 3) {
                at = join(&at, &format!("n{}", (n + depth) % 3));
                ops.push(Op::Mkdir(at.clone()));
            }
            ops.push(Op::Create(join(&at, "f0.dat")));
            ops.push(Op::Write(3));
            ops.push(Op::Close);
        }
    }
}

fn dir_op(rng: &mut Rng, stage: &Stage, ops: &mut Vec<Op>) {
    let dir = rng.pick(&stage.dirs).clone();
    if stage.roots.contains(&dir) {
        return;
    }
    let mut other = rng.pick(&stage.dirs).clone();
    other.extend_from_slice(b"/moved");
    let out = join(&stage.outside, "dir");
    match rng.below(5) {
        0 => ops.push(Op::RemoveTree(dir)),
        1 => {
            ops.push(Op::Rename(dir.clone(), other.clone()));
            pause(rng, ops);
            if rng.chance(1, 2) {
                ops.push(Op::Rename(other, dir));
            }
        }
        2 => {
            ops.push(Op::Rename(dir.clone(), out.clone()));
            pause(rng, ops);
            ops.push(Op::Rename(out, dir));
        }
        3 => {
            ops.push(Op::RemoveTree(dir.clone()));
            pause(rng, ops);
            ops.push(Op::Mkdir(dir));
        }
        _ => {
            // Prepared outside, then moved in whole.
            ops.push(Op::Mkdir(out.clone()));
            ops.push(Op::Create(join(&out, "f1.dat")));
            ops.push(Op::Write(5));
            ops.push(Op::Close);
            pause(rng, ops);
            ops.push(Op::Rename(out, other));
        }
    }
}
