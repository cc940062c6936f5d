//! Scenes about what is seen of the disk, and when. What is a matter of microseconds between a writer and the daemon is
//! not left to chance: the writer waits until the daemon is at it.

use super::{arrives, within};
use crate::children::Temper;
use crate::rng::Rng;
use crate::setup::{Faults, Setup, template};
use crate::writers::{Doing, Op, Stage, Writer};
use settled::plan::{Disposition, Existing, Observe, OnChange, OnCtime};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
const MICROSECOND: u64 = 1_000;

/// Adds to a dense world what it draws.
pub fn play(seed: u64, stage: &Stage, setup: &mut Setup) {
    let mut rng = Rng::new(seed ^ 0x0B5E_27E5);
    let rng = &mut rng;
    let scene: Scene = match rng.below(16) {
        0..=3 => moved_on,
        4..=7 => renamed_at_birth,
        8 => replaced_at_work,
        9 => restored,
        10 | 11 => aside_for_a_moment,
        12 | 13 => root_swapped,
        14 => emptied,
        _ => return,
    };
    if rng.chance(1, 2) {
        // By itself, where nothing else goes wrong.
        setup.writers.clear();
        setup.temper = Temper::default();
        setup.faults = Faults::default();
    }
    scene(rng, stage, setup);
}

type Scene = fn(&mut Rng, &Stage, &mut Setup);

/// Between `low` and `high`, short times as often as long ones.
fn pause(rng: &mut Rng, ops: &mut Vec<Op>, low: u64, high: u64) {
    let doublings = (high / low).ilog2();
    let least = low << rng.below(u64::from(doublings) + 1);
    ops.push(Op::Pause(rng.range(least, high.min(least * 2))));
}

/// A name in one of the watched directories, and that directory.
fn somewhere(rng: &mut Rng, stage: &Stage, name: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = rng.pick::<Vec<u8>>(&stage.dirs).clone();
    (within(&dir, name), dir)
}

/// Files that are moved on through polled directories as people work on them, while a listing of all of these is under way:
/// it has been where a file goes, and comes too late to where it was; or it sees a file in one directory after the other.
fn moved_on(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    polled(setup, Observe::Poll, 2);
    if rng.chance(3, 4) {
        // Longer than it is from one listing to the next.
        setup.replan(0, |plan| plan.settle = Some(Duration::from_secs(4)));
    }
    for n in 0..rng.range(2, 5) {
        let mut dirs = stage.dirs.clone();
        let twice = rng.chance(1, 2);
        if twice {
            // In the order in which they are listed.
            dirs.remove(rng.below(dirs.len() as u64) as usize);
        } else {
            dirs.swap(0, rng.below(3) as usize + 1);
        }
        let names = ["new", "seen", "done"].map(|stage| format!("{stage}{n}.dat"));
        let mut paths = dirs.iter().zip(&names).map(|(dir, name)| within(dir, name));
        let (Some(first), Some(second), Some(third)) = (paths.next(), paths.next(), paths.next())
        else {
            return;
        };
        let mut ops = vec![Op::Pause(rng.below(2 * SECOND))];
        arrives(rng, &mut ops, &first);
        ops.push(Op::Pause(rng.range(6 * SECOND, 14 * SECOND)));
        if twice {
            ops.push(Op::Until(Doing::Lists(dirs[0].clone())));
            pause(rng, &mut ops, 50 * MICROSECOND, 5 * MILLISECOND);
            ops.push(Op::Rename(first, second.clone()));
            ops.push(Op::Until(Doing::Lists(dirs[1].clone())));
            pause(rng, &mut ops, 50 * MICROSECOND, 5 * MILLISECOND);
            ops.push(Op::Rename(second, third));
        } else {
            ops.push(Op::Until(Doing::Lists(dirs[1].clone())));
            pause(rng, &mut ops, 10 * MICROSECOND, 2 * MILLISECOND);
            ops.push(Op::Rename(first, second));
        }
        setup.enters(ops);
    }
}

/// The whole tree is listed every so often, and nothing is told unless `observe` says so.
fn polled(setup: &mut Setup, observe: Observe, seconds: u64) {
    for watch in 0..setup.covers.len() {
        setup.replan(watch, |plan| {
            plan.recursive = true;
            plan.existing = Existing::Run;
            plan.on_ctime = OnCtime::Ignore;
            plan.observe = observe;
            plan.poll = Duration::from_secs(seconds);
            plan.done = Disposition::Keep;
        });
    }
}

/// Directories that are made under one name and get another at once, as unpacking and cloning do it; their files come
/// later.
fn renamed_at_birth(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    let mut ops = vec![Op::Pause(rng.below(4 * SECOND))];
    for n in 0..rng.range(3, 9) {
        let (mut dir, _) = somewhere(rng, stage, &format!("w{n}.part"));
        ops.push(Op::Mkdir(dir.clone()));
        ops.push(Op::Until(Doing::Lists(dir.clone())));
        for step in 0..rng.range(1, 2) {
            pause(rng, &mut ops, 10 * MICROSECOND, 5 * MILLISECOND);
            let (next, _) = somewhere(rng, stage, &format!("w{n}.{step}"));
            ops.push(Op::Rename(dir, next.clone()));
            dir = next;
        }
        pause(rng, &mut ops, 300 * MILLISECOND, 2 * SECOND);
        arrives(rng, &mut ops, &within(&dir, "w.dat"));
    }
    setup.enters(ops);
}

/// Directories whose files are done with are emptied into new ones, and removed, in one go: nobody watches the new one when
/// the files go.
fn emptied(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    for watch in 0..setup.covers.len() {
        setup.replan(watch, |plan| {
            plan.recursive = true;
            plan.existing = Existing::Run;
            plan.observe = Observe::Auto;
            plan.done = Disposition::Keep;
        });
    }
    // Where nobody tells of the new one, what goes there has left the watch.
    setup.disk.loses = 0;
    let mut ops = Vec::new();
    for n in 0..rng.range(1, 4) {
        let (mut dir, _) = somewhere(rng, stage, &format!("e{n}"));
        ops.push(Op::Mkdir(dir.clone()));
        let names: Vec<_> = (0..rng.range(1, 6)).map(|n| format!("x{n}.dat")).collect();
        for name in &names {
            arrives(rng, &mut ops, &within(&dir, name));
        }
        for step in 0..rng.range(1, 2) {
            ops.push(Op::Pause(rng.range(4 * SECOND, 14 * SECOND)));
            let (next, _) = somewhere(rng, stage, &format!("e{n}.{step}"));
            ops.push(Op::Mkdir(next.clone()));
            for name in &names {
                ops.push(Op::Rename(within(&dir, name), within(&next, name)));
            }
            ops.push(Op::Rmdir(dir));
            dir = next;
        }
    }
    setup.enters(ops);
}

/// One job after another in a polled tree, each on a file that somebody may edit in place; while one runs, its file is
/// replaced by that of a job which waits.
fn replaced_at_work(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    polled(setup, Observe::Poll, 2);
    for watch in 0..setup.covers.len() {
        setup.replan(watch, |plan| {
            plan.on_change = OnChange::Accept;
            plan.serial = true;
            plan.key = Some(template("k"));
            plan.key_concurrency = None;
        });
    }
    for n in 0..rng.range(2, 4) {
        let turn = rng.below(2);
        let (first, _) = somewhere(rng, stage, &format!("{turn}{n}.dat"));
        let (second, _) = somewhere(rng, stage, &format!("1{n}.new"));
        let mut ops = vec![Op::Pause(rng.below(SECOND))];
        arrives(rng, &mut ops, &first);
        arrives(rng, &mut ops, &second);
        ops.push(Op::Until(Doing::Runs(first.clone())));
        pause(rng, &mut ops, 10 * MICROSECOND, 40 * MILLISECOND);
        ops.push(Op::Rename(second, first));
        setup.enters(ops);
    }
}

/// A file on a share is put aside by another machine, of which nothing is told, written anew on this one, and then the old
/// one comes back in its place.
fn restored(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    polled(setup, Observe::Both, 10);
    // Where the rename itself is missed, the close under its name is all that is known.
    setup.disk.notify.queue_max = 16384;
    setup.disk.loses = 0;
    for fs in &mut setup.disk.fss {
        fs.remote = true;
    }
    for n in 0..rng.range(1, 4) {
        let (path, _) = somewhere(rng, stage, &format!("r{n}.dat"));
        let (aside, _) = somewhere(rng, stage, &format!("r{n}.old"));
        let start = rng.range(8 * SECOND, 20 * SECOND);
        let there = vec![Op::Pause(start), Op::Rename(path.clone(), aside.clone())];
        setup.writers.push(Writer::new(there, true));
        let mut ops = Vec::new();
        arrives(rng, &mut ops, &path);
        ops.push(Op::Pause(start));
        pause(rng, &mut ops, MILLISECOND, 500 * MILLISECOND);
        arrives(rng, &mut ops, &path);
        pause(rng, &mut ops, MILLISECOND, 2 * SECOND);
        ops.push(Op::Rename(aside, path));
        setup.enters(ops);
    }
}

/// A file on a share is rewritten and taken away on this machine, and another one writes a new one in its place, of which
/// nothing is told; later that one is aside for a moment, just as a listing comes by.
fn aside_for_a_moment(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    polled(setup, Observe::Both, 5);
    let settle = Some(Duration::from_millis(300));
    let on_change = *rng.pick(&[OnChange::Run, OnChange::Accept]);
    for watch in 0..setup.covers.len() {
        setup.replan(watch, |plan| {
            plan.settle = settle;
            plan.on_change = on_change;
        });
    }
    setup.disk.notify.queue_max = 16384;
    for fs in &mut setup.disk.fss {
        fs.remote = true;
    }
    for n in 0..rng.range(1, 3) {
        let dir = rng.pick::<Vec<u8>>(&stage.dirs[1..]).clone();
        let path = within(&dir, &format!("k{n}.dat"));
        let away = within(&stage.outside, &format!("k{n}.dat"));
        let aside = within(&stage.dirs[0], &format!("k{n}.old"));
        let start = rng.range(4 * SECOND, 12 * SECOND);
        let mut here = Vec::new();
        arrives(rng, &mut here, &path);
        here.push(Op::Pause(start));
        here.push(Op::Until(Doing::Lists(dir.clone())));
        here.push(Op::Pause(rng.range(SECOND / 2, SECOND)));
        here.push(Op::Reopen(path.clone()));
        here.push(Op::Write(rng.range(1, 9)));
        here.push(Op::Close);
        pause(rng, &mut here, MILLISECOND, 200 * MILLISECOND);
        here.push(Op::Rename(path.clone(), away));
        setup.enters(here);
        let mut there = vec![
            Op::Pause(start),
            Op::Until(Doing::Lists(dir.clone())),
            Op::Pause(rng.range(SECOND, SECOND + SECOND / 4)),
        ];
        arrives(rng, &mut there, &path);
        there.push(Op::Pause(2 * SECOND));
        there.push(Op::Until(Doing::Lists(stage.dirs[0].clone())));
        there.push(Op::Rename(path.clone(), aside.clone()));
        there.push(Op::Until(Doing::Lists(dir)));
        pause(rng, &mut there, MILLISECOND, 10 * MILLISECOND);
        there.push(Op::Rename(aside, path));
        setup.writers.push(Writer::new(there, true));
    }
}

/// Somebody tries whether things go on with an empty directory in place of the watched one, again and again, and just as it
/// is being looked for. Meanwhile files that are done with are opened for writing, and closed as they were.
fn root_swapped(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    setup.faults.rescan = 1500;
    (setup.plain, setup.misses) = (false, false);
    setup.replan(0, |plan| {
        plan.recursive = true;
        plan.existing = Existing::Run;
        plan.observe = Observe::Auto;
        plan.settle = Some(Duration::ZERO);
        plan.done = Disposition::Keep;
    });
    let (Some(root), watched) = (stage.roots.first(), setup.plan.watches[0].path.clone()) else {
        return;
    };
    let aside = [root, &b"-aside"[..]].concat();
    let names: Vec<_> = (0..8)
        .map(|n| within(&stage.dirs[n % 2], &format!("s{n}.dat")))
        .collect();
    let mut ops = vec![Op::Pause(rng.range(SECOND, 2 * SECOND))];
    for name in &names {
        arrives(rng, &mut ops, name);
    }
    ops.push(Op::Pause(rng.range(2 * SECOND, 4 * SECOND)));
    for _ in 0..rng.range(4, 16) {
        ops.push(Op::Until(Doing::Finds(watched.clone())));
        for _ in 0..rng.below(8) {
            pause(rng, &mut ops, 10 * MICROSECOND, 2 * MILLISECOND);
            ops.push(Op::Reopen(rng.pick(&names).clone()));
            ops.push(Op::Close);
        }
        pause(rng, &mut ops, 10 * MICROSECOND, 8 * MILLISECOND);
        ops.push(Op::Rename(root.clone(), aside.clone()));
        ops.push(Op::Mkdir(root.clone()));
        pause(rng, &mut ops, 200 * MICROSECOND, 800 * MILLISECOND);
        ops.push(Op::Rmdir(root.clone()));
        ops.push(Op::Rename(aside.clone(), root.clone()));
        ops.push(Op::Pause(rng.below(SECOND)));
    }
    setup.enters(ops);
}
