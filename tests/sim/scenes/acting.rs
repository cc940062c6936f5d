//! Scenes of what is done with a file once it has settled: attempts, dispositions, and what is remembered of them.

use super::{Cue, arrives, within};
use crate::children::Temper;
use crate::rng::Rng;
use crate::setup::{Faults, Setup, WorkerTemper, template};
use crate::writers::{Doing, Op, Stage};
use settled::plan::{
    Action, Delivery, Disposition, Existing, Observe, OnChange, OnDead, Orphans, Rate, WatchPlan,
    WorkerPlan,
};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// Adds to a dense world what it draws.
pub fn play(seed: u64, stage: &Stage, setup: &mut Setup) {
    let mut rng = Rng::new(seed ^ 0x00AC_715C);
    let rng = &mut rng;
    match rng.below(24) {
        0 | 1 => second_names(rng, stage, setup),
        2 => asked_to_wait(rng, stage, setup),
        3 => bad_disk(rng, setup),
        4 | 5 => two_upgrades(rng, stage, setup),
        6 | 7 => no_right(rng, stage, setup),
        8..=10 => rights_tried_out(rng, stage, setup),
        11..=13 => name_taken(rng, stage, setup),
        14 => short_memory(rng, stage, setup),
        _ => {}
    }
}

/// Every file is run at once, and by itself.
fn at_once(plan: &mut WatchPlan) {
    plan.action = Action::Run(vec![template("run"), template("{path}")]);
    plan.recursive = true;
    plan.existing = Existing::Run;
    plan.observe = Observe::Auto;
    plan.settle = Some(Duration::ZERO);
    plan.delivery = Delivery::AtLeastOnce;
    plan.on_dead = OnDead::Continue;
    plan.concurrency = 4;
    plan.attempts = 8;
    plan.max_age = None;
    (plan.batch, plan.rate, plan.key_concurrency) = (None, None, None);
    (plan.serial, plan.key) = (false, None);
}

/// Uploads that have a second name in a staging area, through which their writer goes on with them: while their commands
/// run, and while large ones are on their way to an archive on another disk. No event tells of it.
fn second_names(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    let away: &[u8] = if stage.outside.starts_with(b"/mnt/") {
        b"/srv/done"
    } else {
        b"/mnt/other/done"
    };
    let deletes = rng.chance(1, 4);
    let settle = *rng.pick(&[None, Some(Duration::ZERO)]);
    setup.faults.copies = 3 * SECOND;
    setup.replan(0, |plan| {
        plan.settle = settle;
        plan.on_change = OnChange::Run;
        plan.done = if deletes {
            Disposition::Delete
        } else {
            Disposition::Move {
                to: template(&String::from_utf8_lossy(away)),
                flatten: false,
            }
        };
    });
    let dir = rng.pick(&stage.dirs[..2]).clone();
    for writer in 0..2 {
        let mut ops = vec![Op::Pause(rng.range(SECOND, 5 * SECOND))];
        let mut others = Vec::new();
        for n in 0..3 {
            let name = format!("l{writer}{n}.dat");
            let (path, other) = (within(&dir, &name), within(&stage.outside, &name));
            arrives(rng, &mut ops, &path);
            ops.push(Op::Link(path, other.clone()));
            others.push(other);
        }
        ops.push(Op::Pause(rng.range(0, 2 * SECOND)));
        for _ in 0..rng.range(3, 9) {
            ops.push(Op::Pause(rng.range(20 * MILLISECOND, 900 * MILLISECOND)));
            ops.push(Op::Reopen(rng.pick(&others).clone()));
            ops.push(Op::Write(rng.range(1, 9)));
            ops.push(Op::Close);
        }
        setup.enters(ops);
    }
}

/// A service tells its worker to come again in a while; meanwhile the machine's clock is set right, by up to an hour, the
/// journal is compacted, and the daemon is started anew.
fn asked_to_wait(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    let Some(watch) =
        (setup.plan.watches.iter()).position(|plan| matches!(plan.action, Action::Worker(_)))
    else {
        return;
    };
    setup.worker.retries = 700;
    setup.replan(watch, |plan| {
        plan.attempts = 8;
        plan.max_age = None;
        plan.delivery = Delivery::AtLeastOnce;
    });
    let mut ops = vec![Op::Pause(rng.range(SECOND, 3 * SECOND))];
    for n in 0..8 {
        arrives(rng, &mut ops, &within(&stage.dirs[1], &format!("w{n}.dat")));
        ops.push(Op::Pause(rng.below(300 * MILLISECOND)));
    }
    setup.enters(ops);
    let mut at = rng.range(6 * SECOND, 9 * SECOND);
    let back = rng.range(600, 3600) * SECOND;
    setup.cues.push((at, Cue::Clock(-(back as i64))));
    for cue in [Cue::Compact, Cue::Compact, Cue::Crash] {
        at += rng.below(SECOND);
        setup.cues.push((at, cue));
    }
}

/// The disk of the journal has a bad place, where the journal is compacted to at first; soon after it was compacted
/// elsewhere the machine goes off.
fn bad_disk(rng: &mut Rng, setup: &mut Setup) {
    (setup.faults.fails, setup.faults.full, setup.faults.fill) = (0, 0, 0);
    for round in 0..3 {
        let mut at = 4 * round * SECOND + rng.range(2 * SECOND, 5 * SECOND);
        for cue in [Cue::CompactOnBadDisk, Cue::Compact, Cue::CompactAndOff(2)] {
            setup.cues.push((at, cue));
            at += rng.below(300 * MILLISECOND);
        }
    }
}

/// The daemon is started anew twice within seconds, while long commands run: those of one watch are not to outlive it, and
/// no more of them are begun than a service bears; those of the other are waited for.
fn two_upgrades(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    if setup.covers.len() < 2 {
        return;
    }
    setup.plan.daemon.concurrency = 6;
    setup.temper.hangs = 600;
    (setup.temper.fails, setup.temper.edits) = (0, 0);
    let kills = rng.below(2) as usize;
    for watch in 0..2 {
        setup.replan(watch, |plan| {
            at_once(plan);
            plan.timeout = Some(Duration::from_secs(20));
            if watch == kills {
                plan.orphans = Orphans::Kill;
                plan.rate = Some(Rate {
                    count: 1,
                    per: Duration::from_secs(3),
                });
            } else {
                plan.orphans = Orphans::Wait;
            }
        });
    }
    let mut ops = vec![Op::Pause(rng.range(SECOND / 2, 2 * SECOND))];
    for n in 0..6 {
        arrives(rng, &mut ops, &within(&stage.dirs[1], &format!("u{n}.dat")));
        ops.push(Op::Pause(rng.below(2 * SECOND)));
    }
    setup.enters(ops);
    let mut at = rng.range(4 * SECOND, 9 * SECOND);
    for _ in 0..2 {
        setup.cues.push((at, Cue::Crash));
        at += rng.range(SECOND, 6 * SECOND);
    }
}

/// Nothing may be renamed in a directory, because somebody has forgotten the right: until that is put right every disposition
/// of what came there waits. Meanwhile it is renamed itself, another one comes in its place, and the daemon may be started
/// anew.
fn no_right(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    let places: [&[u8]; 2] = [b"/srv/archive", b"/mnt/other/archive"];
    let away = *rng.pick(&places);
    let deletes = rng.chance(1, 3);
    setup.replan(0, |plan| {
        at_once(plan);
        plan.done = if deletes {
            Disposition::Delete
        } else {
            Disposition::Move {
                to: template(&String::from_utf8_lossy(away)),
                flatten: false,
            }
        };
    });
    // What cannot be known of a directory's way is not asked here.
    setup.disk.notify.queue_max = 16384;
    setup.temper.fails /= 4;
    setup.temper.hangs = 0;
    (setup.plain, setup.misses) = (false, false);
    // Nobody else is there.
    setup.writers.clear();
    let dir = rng.pick(&stage.dirs[1..3]).clone();
    let aside = match rng.below(4) {
        0 => within(&stage.outside, "aside"),
        1 => within(&stage.dirs[0], "aside/b"),
        _ => within(&stage.dirs[0], "aside"),
    };
    let in_time = rng.range(SECOND / 2, 3 * SECOND);
    let mut ops = vec![
        Op::Mkdir(within(&stage.dirs[0], "aside")),
        Op::Protect(dir.clone()),
        Op::Pause(in_time),
    ];
    for n in 0..3 {
        arrives(rng, &mut ops, &within(&dir, &format!("a{n}.dat")));
    }
    let done = rng.range(3 * SECOND, 9 * SECOND);
    ops.push(Op::Pause(done));
    if rng.chance(3, 4) {
        let early = rng.below(SECOND / 4);
        setup.cues.push((in_time + done - early, Cue::Crash));
    }
    ops.push(Op::Rename(dir.clone(), aside.clone()));
    ops.push(Op::Pause(rng.below(SECOND / 2)));
    ops.push(Op::Mkdir(dir.clone()));
    if rng.chance(1, 2) {
        arrives(rng, &mut ops, &within(&dir, "b.dat"));
    }
    ops.push(Op::Pause(rng.below(6 * SECOND)));
    ops.push(Op::Unprotect(aside));
    setup.enters(ops);
}

/// Files may not be read for a while, again and again, as somebody tries rights out, who has them open meanwhile; they are
/// for a worker that is killed again and again, and their mount is slow.
fn rights_tried_out(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    if setup.disk.resolve(&stage.dirs[1]).is_err() {
        return;
    }
    setup.works = true;
    setup.worker = WorkerTemper {
        dies: 100,
        ..WorkerTemper::default()
    };
    // By itself, where nothing else goes wrong.
    setup.writers.clear();
    setup.temper = Temper::default();
    setup.faults = Faults {
        scout_slow: 250 * MILLISECOND,
        ..Faults::default()
    };
    setup.replan(0, |plan| {
        at_once(plan);
        plan.action = Action::Worker(WorkerPlan {
            argv: vec![template("worker"), template("{watch}")],
            workers: 1,
            window: 4,
            ready: None,
        });
        // There is always something to be handed over.
        plan.rate = Some(Rate {
            count: 2,
            per: Duration::from_secs(1),
        });
    });
    let mut ops = vec![Op::Pause(rng.range(SECOND / 2, 3 * SECOND))];
    let names: Vec<Vec<u8>> = (0..14)
        .map(|n| within(&stage.dirs[1], &format!("p{n}.dat")))
        .collect();
    for name in &names {
        arrives(rng, &mut ops, name);
    }
    // Long enough to settle, and not to be done with.
    ops.push(Op::Pause(rng.range(2 * SECOND, 4 * SECOND)));
    for _ in 0..rng.range(15, 30) {
        ops.push(Op::Pause(rng.range(50 * MILLISECOND, 400 * MILLISECOND)));
        let first = rng.below(names.len() as u64 / 2) as usize;
        ops.extend(names[first..].iter().cloned().map(Op::Forbid));
        ops.push(Op::Pause(rng.range(200 * MILLISECOND, SECOND)));
        ops.extend(names[first..].iter().cloned().map(Op::Permit));
    }
    setup.enters(ops);
    let mut at = rng.range(4 * SECOND, 6 * SECOND);
    for _ in 0..rng.range(10, 25) {
        setup.cues.push((at, Cue::KillWorkers));
        at += rng.range(SECOND / 4, 2 * SECOND);
    }
    for _ in 0..7 {
        let mut ops = vec![Op::Pause(rng.range(5 * SECOND, 7 * SECOND))];
        for _ in 0..rng.range(6, 20) {
            ops.push(Op::Reopen(rng.pick(&names).clone()));
            ops.push(Op::Pause(rng.range(300 * MILLISECOND, 2 * SECOND)));
            ops.push(Op::Close);
            ops.push(Op::Pause(rng.below(300 * MILLISECOND)));
        }
        setup.enters(ops);
    }
}

/// Uploads whose writers go on with them through a second name when their commands have run, so that no disposition gets
/// hold of them; just as one is tried, another upload comes under the name, and is renamed at once. The daemon is killed
/// now and then.
fn name_taken(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    // Where it can be told that they go on.
    let Ok(root) = setup.disk.resolve(&stage.dirs[0]) else {
        return;
    };
    let fs = &setup.disk.fss[setup.disk.inodes[root].fs];
    if fs.remote || fs.lease_errno != 0 {
        return;
    }
    setup.replan(0, |plan| {
        at_once(plan);
        plan.on_change = OnChange::Run;
        plan.done = Disposition::Move {
            to: template("/srv/archive"),
            flatten: false,
        };
    });
    // By itself.
    setup.writers.clear();
    setup.faults = Faults {
        crash: 1000,
        ..Faults::default()
    };
    setup.plan.daemon.concurrency = 6;
    setup.temper = Temper::default();
    // Every event is heard.
    setup.disk.notify.watches_max = 8192;
    setup.disk.loses = 0;
    for fs in &mut setup.disk.fss {
        (fs.remote, fs.sparing, fs.cache_s) = (false, false, 0);
    }
    setup.disk.notify.queue_max = 16384;
    let dir = rng.pick(&stage.dirs[..2]).clone();
    for n in 0..rng.range(2, 5) {
        let name = format!("t{n}.dat");
        let (path, other) = (within(&dir, &name), within(&stage.outside, &name));
        let mut first = vec![Op::Pause(rng.range(SECOND, 4 * SECOND))];
        arrives(rng, &mut first, &path);
        first.push(Op::Link(path.clone(), other.clone()));
        first.push(Op::Until(Doing::Runs(path.clone())));
        first.push(Op::Reopen(other));
        first.push(Op::Pause(rng.range(SECOND / 2, 4 * SECOND)));
        setup.enters(first);
        let mut second = vec![Op::Until(Doing::Hides(path.clone()))];
        arrives(rng, &mut second, &path);
        second.push(Op::Rename(path, within(&dir, &format!("t{n}.new"))));
        setup.enters(second);
    }
}

/// Nothing is remembered for long of files that are gone, and all of them go as soon as they are done with; the journal is
/// compacted and the daemon started anew between two uploads.
fn short_memory(rng: &mut Rng, stage: &Stage, setup: &mut Setup) {
    setup.plan.daemon.remember = Duration::from_secs(1);
    // What went when the clock showed more is forgotten already.
    setup.faults.clock = 0;
    setup.replan(0, |plan| {
        at_once(plan);
        plan.done = Disposition::Delete;
    });
    setup.writers.clear();
    setup.temper = Temper::default();
    let mut ops = Vec::new();
    let mut at = rng.range(2 * SECOND, 4 * SECOND);
    for n in 0..rng.range(3, 6) {
        arrives(rng, &mut ops, &within(&stage.dirs[1], &format!("m{n}.dat")));
        at += rng.range(2 * SECOND, 5 * SECOND);
        for cue in [Cue::Compact, Cue::Compact, Cue::Crash] {
            setup.cues.push((at, cue));
            at += rng.range(SECOND / 10, SECOND);
        }
        ops.push(Op::Pause(rng.range(4 * SECOND, 6 * SECOND)));
    }
    setup.enters(ops);
}
