//! The processes that touch the disk for the daemon: one thing after another, but listings between all others, each step
//! at a time of its own, so that the world moves between a listing's names, and between a mover's looks and acts.

use crate::disk::*;
use crate::rng::Rng;
use crate::story;
use crate::story::show;
use settled::core::ScoutId;
use settled::core::ask::*;
use settled::core::ids::{AskId, MountId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A step's result: more answers, and whether the question is done.
pub struct Step {
    pub answers: Vec<Answer>,
    pub done: bool,
    /// Content that the mover unlinked for good, for the oracle.
    pub unlinked: Option<Uid>,
    /// What it began to unlink, move or copy, for the oracle.
    pub acted: Option<Uid>,
}

#[derive(Debug)]
enum State {
    Fresh,
    /// Bind: the directory is open; names still to be listed.
    Listing {
        dir: Uid,
        names: VecDeque<Vec<u8>>,
    },
    /// Dispose: the file has its private name in this directory.
    Private {
        dir: Uid,
    },
    /// A copy lies at the target; the source is still to be unlinked.
    Copied {
        dir: Uid,
    },
}

/// One question under way.
#[derive(Debug)]
pub struct Task {
    pub ask: AskId,
    pub question: Question,
    state: State,
}

impl Task {
    pub fn new(ask: AskId, question: Question) -> Task {
        Task {
            ask,
            question,
            state: State::Fresh,
        }
    }
}

impl Task {
    /// It has given a file its private name, or found it under that.
    pub fn has_hidden(&self) -> bool {
        matches!(self.state, State::Private { .. })
    }

    /// It has copied a file, and is about to take the original away.
    pub fn has_copied(&self) -> bool {
        matches!(self.state, State::Copied { .. })
    }
}

/// A scout process.
#[derive(Debug, Default)]
pub struct Scout {
    pub tasks: VecDeque<Task>,
    /// A step is scheduled.
    pub busy: bool,
    /// Its mount does not answer until then.
    pub stuck_until: u64,
    /// Answers before this time are not delivered: a socket keeps its order.
    pub last_answer: u64,
}

impl Scout {
    /// Which task goes on. Listings are made between the other questions, those below different bases in turns; what has
    /// begun to dispose of a file is not interrupted.
    pub fn next_task(&self, rng: &mut Rng) -> Option<usize> {
        let lists = |task: &Task| matches!(task.question, Question::Bind { .. });
        let begun = |task: &Task| !lists(task) && !matches!(task.state, State::Fresh);
        if let Some(at) = self.tasks.iter().position(begun) {
            return Some(at);
        }
        if !self.tasks.front().is_some_and(lists) {
            return (!self.tasks.is_empty()).then_some(0);
        }
        let other = self.tasks.iter().position(|task| !lists(task));
        if other.is_some() && rng.chance(1, 2) {
            return other;
        }
        let mut bases = BTreeSet::new();
        let firsts: Vec<usize> = (self.tasks.iter().enumerate())
            .filter(|(_, task)| match &task.question {
                Question::Bind { place, .. } => bases.insert(&place.base),
                _ => false,
            })
            .map(|(at, _)| at)
            .collect();
        firsts.get(rng.below(firsts.len() as u64) as usize).copied()
    }
}

pub type Scouts = BTreeMap<ScoutId, Scout>;

/// Symbolic links in configured paths.
pub type Aliases = Vec<(Vec<u8>, Vec<u8>)>;

fn fault_base(disk: &Disk, place: &Place) -> Result<Uid, Fault> {
    let uid = disk.resolve(&place.base).map_err(Fault::Base)?;
    let inode = &disk.inodes[uid];
    if !inode.dir {
        return Err(Fault::Base(ENOTDIR));
    }
    if MountId(disk.fss[inode.fs].mount) != place.mount {
        return Err(Fault::Base(0));
    }
    Ok(uid)
}

fn find(disk: &Disk, place: &Place) -> Result<Uid, Fault> {
    let base = fault_base(disk, place)?;
    disk.walk(base, &place.rel).map_err(Fault::Here)
}

/// Directory and name of a file's place.
fn split(disk: &Disk, place: &Place) -> Result<(Uid, Vec<u8>), Fault> {
    let base = fault_base(disk, place)?;
    let slash = place.rel.iter().rposition(|&b| b == b'/');
    let (dir, name) = match slash {
        Some(at) => (&place.rel[..at], &place.rel[at + 1..]),
        None => (&b""[..], &place.rel[..]),
    };
    let dir = disk.walk(base, dir).map_err(Fault::Here)?;
    if !disk.inodes[dir].dir {
        return Err(Fault::Here(ENOTDIR));
    }
    Ok((dir, name.to_vec()))
}

fn one(answer: Answer) -> Step {
    Step {
        answers: vec![answer],
        done: true,
        unlinked: None,
        acted: None,
    }
}

fn lease_of(disk: &Disk, uid: Uid) -> Held {
    let inode = &disk.inodes[uid];
    match disk.fss[inode.fs].lease_errno {
        0 if inode.writers > 0 => Held::By(0),
        0 => Held::Free,
        errno => Held::CannotAsk(errno),
    }
}

/// Does the next step of `task`.
pub fn step(task: &mut Task, disk: &mut Disk, rng: &mut Rng, aliases: &Aliases) -> Step {
    match &task.question {
        Question::Moved { place } => one(Answer::Moved(moved(disk, place))),
        Question::Exports => one(Answer::Exports(exports(disk))),
        Question::Resolve { path } => one(Answer::Resolved(resolve(disk, path, aliases))),
        Question::Probe {
            place,
            lock,
            flock,
            lease,
        } => one(Answer::Probed(probe(disk, place, *lock, *flock, *lease))),
        Question::Bind { place, watch } => {
            let (place, watch) = (place.clone(), *watch);
            bind(&mut task.state, &place, watch, disk, rng)
        }
        Question::Dispose {
            place,
            private,
            expect,
            lease,
            act,
        } => {
            let (place, private, expect) = (place.clone(), private.clone(), *expect);
            let (lease, act) = (*lease, act.clone());
            disk.moving = true;
            let step = dispose(
                &mut task.state,
                disk,
                rng,
                &place,
                &private,
                expect,
                lease,
                &act,
            );
            disk.moving = false;
            step
        }
    }
}

fn resolve(disk: &Disk, path: &[u8], aliases: &Aliases) -> Result<Resolved, i32> {
    let mut real = path.to_vec();
    for (from, to) in aliases {
        if below(&real, from) {
            let mut path = to.clone();
            path.extend_from_slice(&real[from.len()..]);
            real = path;
        }
    }
    let uid = disk.resolve(&real)?;
    let inode = &disk.inodes[uid];
    if !inode.dir {
        return Err(ENOTDIR);
    }
    Ok(Resolved {
        path: real,
        mount: MountId(disk.fss[inode.fs].mount),
        ident: disk.version(uid),
    })
}

fn moved(disk: &Disk, place: &Place) -> Result<DirTimes, Fault> {
    let uid = find(disk, place)?;
    let inode = &disk.inodes[uid];
    if inode.unreadable {
        return Err(Fault::Here(EACCES));
    }
    Ok(DirTimes {
        ino: inode.ino,
        btime_ns: inode.btime,
        ctime_ns: inode.names_at,
    })
}

fn exports(disk: &Disk) -> Exports {
    let trees = disk.fss.iter().filter_map(|fs| {
        Some(ExportedTree {
            mount: MountId(fs.mount),
            path: fs.exported.clone()?,
            export: fs.exported.clone()?,
            why: "a client".into(),
        })
    });
    Exports {
        trees: Ok(trees.collect()),
        wds: Vec::new(),
    }
}

fn probe(disk: &Disk, place: &Place, lock: bool, flock: bool, lease: bool) -> Result<Facts, Fault> {
    let uid = find(disk, place)?;
    let inode = &disk.inodes[uid];
    if (lock || flock || lease) && inode.unreadable && !inode.dir {
        return Err(Fault::Here(EACCES));
    }
    let ask = |wanted: bool, held: bool| match (wanted && !inode.dir, held) {
        (false, _) => Held::NotAsked,
        (true, true) => Held::By(0),
        (true, false) => Held::Free,
    };
    Ok(Facts {
        stat: disk.stat(uid),
        lock: ask(lock, inode.locked),
        flock: ask(flock, inode.flocked),
        lease: if lease && !inode.dir {
            lease_of(disk, uid)
        } else {
            Held::NotAsked
        },
    })
}

fn bind(state: &mut State, place: &Place, watch: bool, disk: &mut Disk, rng: &mut Rng) -> Step {
    match state {
        State::Fresh => {
            let dir = match find(disk, place) {
                Ok(uid) if !disk.inodes[uid].dir => Err(Fault::Here(ENOTDIR)),
                Ok(uid) if disk.inodes[uid].unreadable => Err(Fault::Here(EACCES)),
                other => other,
            };
            let dir = match dir {
                Ok(dir) => dir,
                Err(fault) => return one(Answer::Bound(Err(fault))),
            };
            let wd = watch.then(|| disk.add_watch(dir));
            let ident = disk.version(dir);
            *state = State::Listing {
                dir,
                names: listing(disk, dir, rng),
            };
            Step {
                answers: vec![Answer::Bound(Ok(Bound {
                    wd,
                    ident,
                    ctime_ns: disk.inodes[dir].names_at,
                }))],
                done: false,
                unlinked: None,
                acted: None,
            }
        }
        State::Listing { dir, names } => {
            let dir = *dir;
            let mut entries = Vec::new();
            for _ in 0..rng.range(1, 6) {
                let Some(name) = names.pop_front() else { break };
                if let Some(uid) = disk.lookup(dir, &name) {
                    entries.push(Entry {
                        name,
                        stat: Ok(disk.stat(uid)),
                    });
                }
            }
            // What came meanwhile may show up, or not.
            for (name, dent) in &disk.inodes[dir].entries {
                if rng.chance(1, 24)
                    && !names.contains(name)
                    && !entries.iter().any(|entry| &entry.name == name)
                {
                    entries.push(Entry {
                        name: name.clone(),
                        stat: Ok(disk.stat(disk.names[*dent].inode)),
                    });
                }
            }
            let mut answers = Vec::new();
            if !entries.is_empty() {
                answers.push(Answer::Entries(entries));
            }
            let cut = disk.cuts > 0 && disk.more.chance(disk.cuts, 1000);
            let done = cut || names.is_empty();
            if cut {
                answers.push(Answer::Listed(Err(Fault::Here(EIO))));
            } else if done {
                answers.push(Answer::Listed(match find(disk, place) {
                    Ok(uid) if uid == dir => Ok(()),
                    Ok(_) => Err(Fault::Here(ENOENT)),
                    Err(fault) => Err(fault),
                }));
            }
            Step {
                answers,
                done,
                unlinked: None,
                acted: None,
            }
        }
        _ => unreachable!("a listing does not dispose"),
    }
}

/// The names that are there now, in the directory's own order.
fn listing(disk: &Disk, dir: Uid, rng: &mut Rng) -> VecDeque<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = disk.inodes[dir].entries.keys().cloned().collect();
    for at in (1..names.len()).rev() {
        names.swap(at, rng.below(at as u64 + 1) as usize);
    }
    names.into()
}

// ---- the mover ----

fn same(disk: &Disk, uid: Uid, expect: &Version) -> bool {
    !disk.inodes[uid].dir && disk.version(uid) == *expect
}

/// The private name goes back, or where the name is taken, to the first free numbered one.
fn put_back(disk: &mut Disk, dir: Uid, private: &[u8], name: &[u8]) {
    if disk.rename(dir, private, dir, name, true).is_err() {
        for n in 1..100 {
            if disk
                .rename(dir, private, dir, &numbered(name, n), true)
                .is_ok()
            {
                return;
            }
        }
    }
}

fn make_dirs(disk: &mut Disk, path: &[u8]) -> Result<Uid, i32> {
    match disk.resolve(path) {
        Ok(uid) => Ok(uid),
        Err(ENOENT) => {
            let slash = path.iter().rposition(|&b| b == b'/').ok_or(ENOENT)?;
            let parent = make_dirs(disk, &path[..slash.max(1)])?;
            disk.mkdir(parent, &path[slash + 1..])
        }
        Err(errno) => Err(errno),
    }
}

fn target(disk: &mut Disk, dir: &[u8], rel: &[u8], make: bool) -> Result<(Uid, Vec<u8>), i32> {
    let mut path = dir.to_vec();
    path.push(b'/');
    path.extend_from_slice(rel);
    let slash = path.iter().rposition(|&b| b == b'/').ok_or(ENOENT)?;
    let parent = if make {
        make_dirs(disk, &path[..slash])?
    } else {
        disk.resolve(&path[..slash])?
    };
    if !disk.inodes[parent].dir {
        return Err(ENOTDIR);
    }
    Ok((parent, path[slash + 1..].to_vec()))
}

#[allow(clippy::too_many_arguments)]
fn dispose(
    state: &mut State,
    disk: &mut Disk,
    rng: &mut Rng,
    place: &Place,
    private: &[u8],
    expect: Version,
    lease: bool,
    act: &Act,
) -> Step {
    let answer = |answer: Disposal| one(Answer::Disposed(Ok(answer)));
    let go_on = Step {
        answers: Vec::new(),
        done: false,
        unlinked: None,
        acted: None,
    };
    match *state {
        State::Fresh => {
            let (dir, name) = match split(disk, place) {
                Ok(found) => found,
                Err(fault) => return one(Answer::Disposed(Err(fault))),
            };
            if disk.lookup(dir, private).is_some() {
                *state = State::Private { dir };
                return go_on;
            }
            let Some(uid) = disk.lookup(dir, &name) else {
                if let Act::Move { dir: to, rel } = act
                    && let Ok((to, name)) = target(disk, to, rel, false)
                    && let Some(uid) = disk.lookup(to, &name)
                    && (same(disk, uid, &expect)
                        || (disk.inodes[uid].size == expect.size
                            && disk.inodes[uid].mtime == expect.mtime_ns))
                {
                    return answer(Disposal::Done);
                }
                return answer(Disposal::Gone);
            };
            if !same(disk, uid, &expect) {
                return answer(Disposal::Changed);
            }
            if disk.inodes[dir].unwritable {
                return answer(Disposal::Failed {
                    errno: EACCES,
                    step: "rename to the private name".into(),
                });
            }
            if rng.chance(1, 40) {
                return answer(Disposal::Failed {
                    errno: 5,
                    step: "rename to the private name".into(),
                });
            }
            // Between look and act: the private name may get another file than the one looked at.
            if disk.rename(dir, &name, dir, private, true).is_err() {
                return answer(Disposal::Gone);
            }
            story!(disk.mono, "mover: {} is {} now", show(&name), show(private));
            *state = State::Private { dir };
            go_on
        }
        State::Private { dir } => {
            let slash = place
                .rel
                .iter()
                .rposition(|&b| b == b'/')
                .map_or(0, |at| at + 1);
            let name = place.rel[slash..].to_vec();
            let Some(uid) = disk.lookup(dir, private) else {
                return answer(Disposal::Gone);
            };
            if !same(disk, uid, &expect) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Changed);
            }
            if lease && let Held::By(_) = lease_of(disk, uid) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Busy);
            }
            match act {
                Act::Delete => {
                    story!(disk.mono, "mover: unlinks {}", show(private));
                    if disk.unlink(dir, private).is_err() {
                        return answer(Disposal::Gone);
                    }
                    Step {
                        unlinked: Some(uid),
                        acted: Some(uid),
                        ..answer(Disposal::Done)
                    }
                }
                Act::Move { dir: to, rel } => {
                    let (to, to_name) = match target(disk, to, rel, true) {
                        Ok(found) => found,
                        Err(errno) => {
                            put_back(disk, dir, private, &name);
                            return answer(Disposal::Failed {
                                errno,
                                step: "open target directory".into(),
                            });
                        }
                    };
                    if let Some(there) = disk.lookup(to, &to_name) {
                        if there != uid && disk.inodes[there].content == disk.inodes[uid].content {
                            // Copied before a crash.
                            *state = State::Copied { dir };
                            return go_on;
                        }
                        let mut free = 1;
                        while disk.lookup(to, &numbered(&to_name, free)).is_some() {
                            free += 1;
                        }
                        if rng.chance(1, 2) {
                            put_back(disk, dir, private, &name);
                        }
                        return answer(Disposal::Taken(free));
                    }
                    if disk.inodes[to].fs == disk.inodes[dir].fs {
                        story!(
                            disk.mono,
                            "mover: {} goes to {}",
                            show(private),
                            show(&to_name)
                        );
                        let _ = disk.rename(dir, private, to, &to_name, true);
                        return Step {
                            acted: Some(uid),
                            ..answer(Disposal::Done)
                        };
                    }
                    story!(
                        disk.mono,
                        "mover: copies {} to {}",
                        show(private),
                        show(&to_name)
                    );
                    if let Ok(handle) = disk.open_write(to, &to_name, true, false) {
                        let copy = disk.opens[handle].inode;
                        disk.inodes[copy].size = disk.inodes[uid].size;
                        disk.inodes[copy].content = disk.inodes[uid].content;
                        disk.inodes[copy].mtime = disk.inodes[uid].mtime;
                        disk.close(handle);
                    }
                    *state = State::Copied { dir };
                    Step {
                        acted: Some(uid),
                        ..go_on
                    }
                }
            }
        }
        State::Copied { dir } => {
            let slash = place.rel.iter().rposition(|&b| b == b'/');
            let name = place.rel[slash.map_or(0, |at| at + 1)..].to_vec();
            let Some(uid) = disk.lookup(dir, private) else {
                return answer(Disposal::Gone);
            };
            if !same(disk, uid, &expect) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Changed);
            }
            if lease && let Held::By(_) = lease_of(disk, uid) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Busy);
            }
            let _ = disk.unlink(dir, private);
            Step {
                unlinked: Some(uid),
                ..answer(Disposal::Done)
            }
        }
        State::Listing { .. } => unreachable!("a disposal does not list"),
    }
}
