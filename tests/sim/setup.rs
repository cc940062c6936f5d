//! Draws a schedule: plans, filesystems, writers, faults.

use crate::children::Temper;
use crate::disk::Disk;
use crate::oracle::Covers;
use crate::rng::Rng;
use crate::scenes::{self, Cue};
use crate::scouts::Aliases;
use crate::writers::{Stage, Writer, drop_box, extra, restless, rotation, script, shuffle};
use settled::core::template::Template;
use settled::plan::*;
use std::time::Duration;

/// Everything that is fixed before the first step.
pub struct Setup {
    pub plan: Plan,
    pub covers: Vec<Covers>,
    pub disk: Disk,
    pub aliases: Aliases,
    pub writers: Vec<Writer>,
    pub roots: Vec<Vec<u8>>,
    pub temper: Temper,
    pub faults: Faults,
    /// What befalls the daemon when, after the beginning.
    pub cues: Vec<(u64, Cue)>,
    /// One watch, whose directories stay where they are.
    pub plain: bool,
    /// A file that is away for half a minute is certain to be missed.
    pub misses: bool,
    /// Batches, workers, bounds: what dispatch has besides.
    pub works: bool,
    pub worker: WorkerTemper,
}

/// How likely a worker does what it should not, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerTemper {
    /// It cannot be started, or is never ready.
    pub fails: u64,
    /// Nonsense, answers for others, answers twice.
    pub odd: u64,
    pub dies: u64,
    pub hangs: u64,
    pub retries: u64,
    pub dead: u64,
}

/// How hostile the world is. Rates are in ten thousand, per turn of the daemon unless said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub crash: u64,
    pub drain: u64,
    pub reload: u64,
    pub rescan: u64,
    pub room: u64,
    pub clock: u64,
    /// Per scout step.
    pub scout_dies: u64,
    pub scout_stuck: u64,
    /// The longest that each of its steps takes besides.
    pub scout_slow: u64,
    /// Times that something is made unreadable for a while.
    pub unreadable: u64,
    /// The loop is late now and then.
    pub stalls: u64,
    /// The journal's disk is full for a while.
    pub full: u64,
    /// A write or flush of the journal fails.
    pub fails: u64,
    /// Bytes of the first segment that are used up from the start.
    pub fill: usize,
    /// Bytes that a command says.
    pub output: usize,
    /// The longest that a copy to another disk takes besides.
    pub copies: u64,
}

pub fn template(text: &str) -> Template {
    Template::parse(text).expect("a template")
}

fn watch(rng: &mut Rng, name: &str, path: &[u8]) -> WatchPlan {
    let mut plan = WatchPlan::placeholder(name);
    plan.path = path.to_vec();
    plan.action = Action::Run(vec![template("run"), template("{path}")]);
    plan.recursive = !rng.chance(1, 5);
    plan.settle = *rng.pick(&[
        None,
        None,
        Some(Duration::ZERO),
        Some(Duration::from_secs(2)),
        Some(Duration::from_millis(300)),
    ]);
    plan.observe = *rng.pick(&[
        Observe::Auto,
        Observe::Auto,
        Observe::Auto,
        Observe::Poll,
        Observe::Both,
    ]);
    plan.poll = Duration::from_secs(*rng.pick(&[2, 5, 10]));
    plan.existing = *rng.pick(&[Existing::Run, Existing::Run, Existing::Skip]);
    // See `exporting`.
    plan.exported = Some(false);
    plan.flock = rng.chance(1, 4);
    plan.on_ctime = if rng.chance(1, 6) {
        OnCtime::Run
    } else {
        OnCtime::Ignore
    };
    plan.on_change = if rng.chance(1, 5) {
        OnChange::Accept
    } else {
        OnChange::Run
    };
    plan.serial = rng.chance(1, 3);
    plan.key = plan
        .serial
        .then(|| template(["{dir1}", "{stem}", "k"][rng.below(3) as usize]));
    plan.order = *rng.pick(&[Order::Arrival, Order::Name, Order::Mtime]);
    plan.concurrency = rng.range(1, 4) as u32;
    plan.timeout = rng.chance(1, 2).then(|| Duration::from_secs(3));
    plan.kill_after = Duration::from_secs(1);
    plan.orphans = Orphans::Wait;
    plan.attempts = rng.range(1, 4) as u32;
    plan.backoff = Backoff {
        first: Duration::from_millis(500),
        max: Duration::from_secs(4),
    };
    plan
}

/// What dispatch has besides: at most a few of it at a time.
fn dispatching(rng: &mut Rng, plan: &mut WatchPlan) {
    let batch = BatchPlan {
        max: rng.range(1, 5) as u32,
        wait: Duration::from_millis(*rng.pick(&[0, 200, 2000])),
        split: rng.chance(2, 3),
        stdin: rng.chance(1, 3),
    };
    match rng.below(4) {
        0 => {
            plan.batch = Some(batch);
            if batch.stdin {
                plan.action = Action::Run(vec![template("run")]);
            }
        }
        1 | 2 => {
            plan.action = Action::Worker(WorkerPlan {
                argv: vec![template("worker"), template("{watch}")],
                workers: rng.range(1, 2) as u32,
                window: rng.range(1, 5) as u32,
                ready: rng.chance(1, 3).then(|| Duration::from_secs(2)),
            });
            let stdin = false;
            plan.batch = rng.chance(1, 3).then_some(BatchPlan { stdin, ..batch });
        }
        _ => {}
    }
    if !plan.serial && rng.chance(1, 3) {
        plan.key = Some(template(["{dir1}", "{stem}", "k"][rng.below(3) as usize]));
        plan.key_concurrency = Some(rng.range(1, 3) as u32);
    }
    if rng.chance(1, 4) {
        plan.on_dead = OnDead::Halt;
    }
    if rng.chance(1, 4) {
        plan.delivery = Delivery::AtMostOnce;
    }
    if rng.chance(1, 4) {
        plan.rate = Some(Rate {
            count: rng.range(1, 4) as u32,
            per: Duration::from_millis(*rng.pick(&[500, 1000, 2000])),
        });
    }
    if rng.chance(1, 4) {
        plan.permanent = vec![*rng.pick(&[1, 75])];
        plan.temporary = vec![65];
    }
    if rng.chance(1, 5) {
        plan.max_age = Some(Duration::from_secs(rng.range(1, 6)));
    }
    if rng.chance(1, 2) {
        plan.orphans = Orphans::Kill;
    }
}

/// This machine serves a part of its disk over NFS, and says so in its table or in the configuration.
fn exporting(
    rng: &mut Rng,
    disk: &mut Disk,
    plans: &mut [WatchPlan],
    covers: &mut [Covers],
    writers: &mut [Writer],
) {
    let exported = rng.chance(3, 4);
    disk.fss[0].exported = exported.then(|| b"/srv".to_vec());
    for (plan, cover) in plans.iter_mut().zip(covers) {
        plan.exported = if exported {
            *rng.pick(&[None, None, Some(true)])
        } else {
            None
        };
        cover.plan.exported = plan.exported;
    }
    for writer in writers {
        writer.served = exported && rng.chance(2, 3);
    }
}

fn dispositions(rng: &mut Rng, plan: &mut WatchPlan) {
    let one = |rng: &mut Rng, delete: bool, plan: &mut WatchPlan| match rng.below(5) {
        0 | 1 => Disposition::Keep,
        2 if delete => Disposition::Delete,
        3 => {
            // In the watched tree: excluded from it.
            let to = [plan.path.clone(), b"/done".to_vec()].concat();
            plan.excluded.push(b"done".to_vec());
            Disposition::Move {
                to: template(&String::from_utf8_lossy(&to)),
                flatten: rng.chance(1, 3),
            }
        }
        4 => Disposition::Move {
            to: template("/mnt/other/done"),
            flatten: rng.chance(1, 3),
        },
        _ => Disposition::Move {
            to: template("/srv/done"),
            flatten: rng.chance(1, 3),
        },
    };
    plan.done = one(rng, true, plan);
    plan.dead = one(rng, false, plan);
}

/// From this seed on more happens at once: names that change hands, directories that cannot be read, scouts that are late.
/// What is rare elsewhere is not so here.
pub const DENSE: u64 = 1_000_000_000;

/// The rest of a dense world.
fn thicken(
    seed: u64,
    stage: &Stage,
    disk: &mut Disk,
    faults: &mut Faults,
    temper: &mut Temper,
    writers: &mut Vec<Writer>,
) {
    let mut rng = Rng::new(seed ^ 0x00DE_75E0);
    let rng = &mut rng;
    for _ in 0..rng.range(1, 4) {
        let ops = match rng.below(6) {
            0 => drop_box(rng, stage),
            1 => restless(rng, stage),
            2 => extra(rng, stage),
            3 => rotation(rng, stage),
            _ => shuffle(rng, stage),
        };
        writers.push(Writer::new(ops, false));
    }
    if rng.chance(1, 3) {
        disk.notify.queue_max = *rng.pick(&[1, 3, 7]);
    }
    let mut rate = |of: u64, n: u64, rate: &mut u64| {
        if rng.chance(1, of) {
            *rate = (*rate).max(n);
        }
    };
    rate(2, 200, &mut faults.scout_stuck);
    rate(3, 200, &mut faults.scout_dies);
    rate(3, 8, &mut faults.unreadable);
    rate(2, 600, &mut faults.stalls);
    rate(3, 300, &mut faults.rescan);
    rate(3, 300, &mut faults.crash);
    rate(4, 300, &mut temper.edits);
    rate(3, 500, &mut temper.fails);
    if rng.chance(1, 4) {
        disk.cuts = 60;
    }
}

pub fn draw(seed: u64) -> Setup {
    let mut rng = Rng::new(seed);
    let rng = &mut rng;
    let mut more = Rng::new(seed ^ 0x0DD5);
    let queue_max = *rng.pick(&[1, 2, 7, 64, 16384, 16384, 16384, 16384]);
    let watches_max = if rng.chance(1, 8) {
        rng.range(0, 4) as usize
    } else {
        8192
    };
    let mut disk = Disk::new(queue_max, watches_max);
    disk.wall = 1_750_000_000_000_000_000;
    disk.reuse_inos = rng.chance(3, 4);
    let lease_errno = *rng.pick(&[0, 0, 0, 0, 22]);
    disk.add_fs(b"/", false, 0, lease_errno);
    let mnt = disk.mkdir(disk.fss[0].root, b"mnt").expect("mkdir");
    let srv = disk.mkdir(disk.fss[0].root, b"srv").expect("mkdir");
    disk.mkdir(mnt, b"other").expect("mkdir");
    let remote = rng.chance(1, 4);
    disk.add_fs(b"/mnt/other", remote, if remote { 3 } else { 0 }, 0);

    // Where it plays: the local disk, or the other one.
    let far = rng.chance(1, 4);
    let (top, base, top_dir) = if far {
        (disk.fss[1].root, b"/mnt/other".to_vec(), 1)
    } else {
        (srv, b"/srv".to_vec(), 0)
    };
    let root = [base.clone(), b"/in".to_vec()].concat();
    let outside = [base, b"/out".to_vec()].concat();
    disk.mkdir(top, b"out").expect("mkdir");
    let mut dirs = vec![root.clone()];
    for sub in [&b"/d0"[..], b"/d1", b"/d0/e"] {
        dirs.push([root.clone(), sub.to_vec()].concat());
    }
    let root_exists = !rng.chance(1, 6);
    let uid = disk.mkdir(top, b"in").expect("mkdir");
    let d0 = disk.mkdir(uid, b"d0").expect("mkdir");
    disk.mkdir(uid, b"d1").expect("mkdir");
    disk.mkdir(d0, b"e").expect("mkdir");

    let mut aliases = Vec::new();
    let mut covers = Vec::new();
    let mut plans = Vec::new();
    let mut first = watch(rng, "a", &root);
    dispositions(rng, &mut first);
    covers.push(Covers {
        root: root.clone(),
        plan: first.clone(),
    });
    plans.push(first);
    if rng.chance(1, 3) {
        let (path, real) = match rng.below(3) {
            0 => (root.clone(), root.clone()),
            1 => {
                aliases.push((b"/alias".to_vec(), root.clone()));
                (b"/alias".to_vec(), root.clone())
            }
            _ => (dirs[1].clone(), dirs[1].clone()),
        };
        let mut second = watch(rng, "b", &path);
        if rng.chance(1, 2) {
            dispositions(rng, &mut second);
        }
        // The archive of each lies in the other's tree too.
        if path == root || path == b"/alias" {
            let both: Vec<Vec<u8>> = plans[0]
                .excluded
                .iter()
                .chain(&second.excluded)
                .cloned()
                .collect();
            plans[0].excluded = both.clone();
            covers[0].plan.excluded = both.clone();
            second.excluded = both;
        } else if !second.excluded.is_empty() {
            plans[0].excluded.push(b"d0/done".to_vec());
            covers[0].plan.excluded.push(b"d0/done".to_vec());
        }
        covers.push(Covers {
            root: real,
            plan: second.clone(),
        });
        plans.push(second);
    }
    let roots: Vec<Vec<u8>> = vec![root.clone()];
    let stage = Stage {
        dirs,
        outside,
        roots: roots.clone(),
        names: rng.range(1, 6),
        dir_ops: rng.chance(1, 2),
        root_ops: rng.chance(1, 4),
        disguises: rng.chance(1, 4),
    };
    // What is there before the daemon is.
    for n in 0..rng.below(4) {
        let dir = rng.pick(&stage.dirs).clone();
        let (dir, name) = (disk.resolve(&dir), format!("f{n}.dat"));
        if let Ok(dir) = dir
            && let Ok(handle) = disk.open_write(dir, name.as_bytes(), true, true)
        {
            disk.write(handle, 4);
            disk.close(handle);
        }
    }
    if !root_exists {
        let _ = disk.rename(top, b"in", disk.fss[top_dir].root, b"later", false);
    }
    let mut writers = Vec::new();
    for _ in 0..rng.range(1, 4) {
        let arrivals = rng.range(1, 10);
        let from_afar = far && remote && rng.chance(2, 3);
        writers.push(Writer::new(script(rng, &stage, arrivals), from_afar));
    }
    if !root_exists {
        use crate::writers::Op;
        let later = if far {
            b"/mnt/other/later".to_vec()
        } else {
            b"/later".to_vec()
        };
        let wait = rng.below(8_000_000_000);
        writers.push(Writer::new(
            vec![Op::Pause(wait), Op::Rename(later, root.clone())],
            false,
        ));
    }
    let mut rate = |of: u64, n: u64| if rng.chance(1, of) { n } else { 0 };
    let faults = Faults {
        crash: rate(2, 150),
        drain: rate(6, 60),
        reload: rate(8, 100),
        rescan: rate(8, 100),
        room: rate(8, 150),
        clock: rate(6, 100),
        scout_dies: rate(5, 100),
        scout_stuck: rate(6, 60),
        unreadable: rate(6, 3),
        stalls: rate(3, 300),
        ..Faults::default()
    };
    let temper = Temper {
        fails: *rng.pick(&[0, 100, 500]),
        hangs: *rng.pick(&[0, 0, 100]),
        edits: *rng.pick(&[0, 0, 100]),
        ..Temper::default()
    };
    let all_roots = covers.iter().map(|cover| cover.root.clone()).collect();
    let mut faults = faults;
    let mut temper = temper;
    let mut crowded = false;
    if more.chance(1, 2) {
        let mut rate = |of: u64, n: u64| if more.chance(1, of) { n } else { 0 };
        temper.consumes = rate(4, 200);
        temper.lingers = rate(4, 200);
        temper.lies = rate(2, 400);
        faults.fails = rate(4, 60);
        faults.full = rate(5, 300);
        faults.fill = if faults.full > 0 || rate(4, 1) > 0 {
            46_000 + 1000 * rate(2, 14) as usize + 100 * more.below(30) as usize
        } else {
            0
        };
        if faults.full > 0 {
            faults.room = 0;
        }
        faults.output = more.below(200) as usize;
        disk.cuts = if more.chance(1, 4) { 40 } else { 0 };
        let heard = |plan: &WatchPlan| matches!(plan.observe, Observe::Poll | Observe::Both);
        if covers.iter().all(|cover| heard(&cover.plan)) && more.chance(1, 2) {
            disk.loses = 25;
        }
        if remote && more.chance(1, 2) {
            disk.fss[1].cache_s = 9;
        }
        for _ in 0..more.below(3) {
            writers.push(Writer::new(extra(&mut more, &stage), false));
        }
        if faults.full == 0 && more.chance(1, 8) {
            // One key for all, which fail, have to wait, and are renamed while they do.
            temper.fails = 500;
            faults.room = 2500;
            for (plan, cover) in plans.iter_mut().zip(&mut covers) {
                plan.serial = true;
                plan.key = Some(template("k"));
                plan.order = Order::Name;
                plan.attempts = 4;
                cover.plan = plan.clone();
            }
            writers.push(Writer::new(restless(&mut more, &stage), false));
        }
        let wide = if more.chance(1, 12) { 30 } else { 0 };
        for n in 0..wide {
            // Where the root is not there yet, there is none to be wide.
            if let Ok(root) = disk.resolve(&root) {
                disk.mkdir(root, format!("m{n}").as_bytes()).expect("mkdir");
            }
        }
        // Twice as many as may be looked at at a time.
        let crowd = if more.chance(1, 500) { 1_200 } else { 0 };
        // One at a time, and each tried again and again, that many take longer than the calm lasts.
        let one_by_one = plans.iter().any(|plan| plan.serial) && temper.fails > 0;
        let crowd = if one_by_one { 0 } else { crowd };
        crowded = crowd > 0;
        for n in 0..crowd {
            if let Ok(root) = disk.resolve(&root)
                && let Ok(handle) = disk.open_write(root, format!("c{n}").as_bytes(), true, true)
            {
                disk.close(handle);
                faults.full = 0;
            }
        }
    }
    let mut work = Rng::new(seed ^ 0x0D15_BA7C);
    let works = !crowded && work.chance(1, 2);
    let mut worker = WorkerTemper::default();
    if works {
        for (plan, cover) in plans.iter_mut().zip(&mut covers) {
            dispatching(&mut work, plan);
            let root = std::mem::take(&mut cover.root);
            *cover = Covers {
                root,
                plan: plan.clone(),
            };
        }
        let mut rate = |of: u64, n: u64| if work.chance(1, of) { n } else { 0 };
        worker = WorkerTemper {
            fails: rate(4, 200),
            odd: rate(2, 100),
            dies: rate(2, 100),
            hangs: rate(3, 100),
            retries: rate(2, 200),
            dead: rate(3, 100),
        };
    }
    let mut aging = Rng::new(seed ^ 0x00A6_E0DD);
    if works && aging.chance(1, 16) {
        // Jobs that fail until they are too old to be tried again, whatever is compacted and crashes meanwhile.
        temper.fails = 800;
        faults.crash = faults.crash.max(150);
        for (plan, cover) in plans.iter_mut().zip(&mut covers) {
            plan.max_age = Some(Duration::from_secs(aging.range(6, 12)));
            plan.attempts = 8;
            plan.backoff = Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_secs(4),
            };
            cover.plan = plan.clone();
        }
    }
    let mut dropping = Rng::new(seed ^ 0x00D2_09B0);
    if dropping.chance(1, 16) {
        writers.push(Writer::new(drop_box(&mut dropping, &stage), false));
    }
    let mut shuffling = Rng::new(seed ^ 0x05_4A_FF_1E);
    if shuffling.chance(1, 8) {
        for _ in 0..shuffling.range(1, 2) {
            writers.push(Writer::new(shuffle(&mut shuffling, &stage), false));
        }
    }
    let mut rotating = Rng::new(seed ^ 0x0020_7A7E);
    if rotating.chance(1, 8) {
        writers.push(Writer::new(rotation(&mut rotating, &stage), false));
    }
    if seed >= DENSE && !crowded {
        thicken(
            seed,
            &stage,
            &mut disk,
            &mut faults,
            &mut temper,
            &mut writers,
        );
    }
    let mut nfs = Rng::new(seed ^ 0x0E_F5);
    disk.fss[1].sparing = remote && nfs.chance(1, 2);
    if !far && nfs.chance(1, 10) {
        exporting(&mut nfs, &mut disk, &mut plans, &mut covers, &mut writers);
    }
    let plain = covers.len() == 1 && !stage.dir_ops && !stage.root_ops;
    let stays = root_exists && !stage.dir_ops && !stage.root_ops;
    let misses =
        stays && (!far || !remote) && faults.drain == 0 && disk.cuts == 0 && disk.loses == 0;
    let mut setup = Setup {
        cues: Vec::new(),
        plain,
        misses,
        works,
        worker,
        plan: Plan {
            daemon: DaemonPlan {
                state_force: false,
                on_damage: settled::plan::OnDamage::Stop,
                state: "/var/lib/settled".into(),
                socket: "/run/settled/control.sock".into(),
                socket_group: None,
                log: LogTo::Stderr,
                log_level: if crate::story::kept() {
                    Level::Debug
                } else {
                    Level::Error
                },
                concurrency: rng.range(1, 6) as u32,
                remember: Duration::from_secs(30 * 86400),
                drain: Duration::from_secs(2),
                mount_silent: Duration::from_secs(2),
                metrics_textfile: None,
                metrics_every: Duration::from_secs(15),
            },
            watches: plans,
            alert: None,
        },
        covers,
        disk,
        aliases,
        writers,
        roots: all_roots,
        temper,
        faults,
    };
    if seed >= DENSE && !crowded {
        scenes::play(seed, &stage, &mut setup);
    }
    setup
}
