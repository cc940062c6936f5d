//! The world around one core: time passes, writers write, scouts answer, children end, the loop turns,
//! and now and then everything of the daemon is gone at once.

use crate::children::{Child, Phase};
use crate::disk::*;
use crate::notify::Event;
use crate::oracle::{Moment, Oracle, Rule, Truth};
use crate::rng::Rng;
use crate::roots::Roots;
use crate::scenes::Cue;
use crate::scouts::Scouts;
use crate::setup::Setup;
use crate::store::Store;
use crate::story;
use crate::story::{bits, show, words};
use crate::workers::{Say, Worker};
use settled::core::ask::Answer;
use settled::core::ids::{AskId, MountId};
use settled::core::time::{Mono, Now, Wall};
use settled::core::{ChildEnd, Command, Core, Input, Mount, ScoutId};
use settled::plan::Observe;
use std::collections::{BTreeMap, BTreeSet};

pub const SECOND: u64 = 1_000_000_000;
pub const JOURNAL: u32 = 0x5E77_1ED0;
/// The calm lasts no longer than this: the hour after which what is remembered is looked through, and some more.
const REST: u64 = 4_000 * SECOND;

#[derive(Clone, Debug)]
pub enum Tick {
    Writer(usize),
    Scout(ScoutId, u32),
    ChildLooks(usize),
    ChildEnds(usize, ChildEnd),
    WorkerRuns(usize),
    WorkerSays(usize, Say),
    WorkerEnds(usize, ChildEnd),
    /// Somebody takes the files of halted jobs away.
    Relief,
    LetsGo(Handle),
    DiskFree,
    Restart,
    Readable(Uid),
    Unreadable,
    Unstick(ScoutId, u32),
    Silent(ScoutId, u32),
    Calm,
    Cue(Cue),
}

/// What came of a schedule, for the totals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub turns: u64,
    pub records: u64,
    pub runs: u64,
    pub crashes: u64,
    pub overflows: u64,
    /// Of the runs, those with several jobs.
    pub batched: u64,
    pub workers: u64,
    pub fed: u64,
    pub answered: u64,
    /// Workers that ended with several jobs unanswered.
    pub lost: u64,
    pub halts: u64,
    pub held: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.turns += other.turns;
        self.records += other.records;
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.overflows += other.overflows;
        self.batched += other.batched;
        self.workers += other.workers;
        self.fed += other.fed;
        self.answered += other.answered;
        self.lost += other.lost;
        self.halts += other.halts;
        self.held += other.held;
    }
}

pub struct World {
    pub setup: Setup,
    pub rng: Rng,
    /// For what came to the world later, so that it does not disturb what was there.
    pub more: Rng,
    /// The same for dispatch.
    pub works: Rng,
    pub now: u64,
    pub seq: u64,
    pub heap: BTreeMap<(u64, u64), Tick>,
    pub core: Option<Core>,
    pub life: u32,
    pub store: Store,
    pub inbox: BTreeMap<(u64, u64), Input>,
    pub inbox_ask: BTreeMap<AskId, ScoutId>,
    /// Watch descriptors that this life has been told of.
    pub bound: BTreeSet<i32>,
    pub roots: Roots,
    pub notify_since: Option<u64>,
    pub latency: u64,
    pub scouts: Scouts,
    pub children: Vec<Child>,
    pub workers: Vec<Worker>,
    /// What was true when a scout looked whose answer is on its way.
    pub looks: BTreeMap<AskId, (Vec<u8>, Truth)>,
    pub oracle: Oracle,
    pub calm: bool,
    pub active: u64,
    /// When it has to have come to rest.
    pub rest_by: u64,
    pub room: bool,
    /// When to look for room again, while there is none.
    pub room_again: Option<u64>,
    /// Of each path that was looked at since anything else was heard: how often since when.
    pub idle_looks: BTreeMap<Vec<u8>, (u64, u64)>,
    pub tally: Tally,
}

impl World {
    pub fn new(seed: u64, setup: Setup) -> World {
        let mut oracle = Oracle::new(setup.covers.clone());
        oracle.misses = setup.misses;
        let disk = &setup.disk;
        oracle.hears = disk.notify.queue_max > 1000
            && disk.notify.watches_max > 1000
            && disk.loses == 0
            && !disk.fss.iter().any(|fs| fs.remote)
            && (setup.covers.iter()).all(|cover| cover.plan.observe != Observe::Poll);
        let mut world = World {
            rng: Rng::new(seed ^ 0xABCD),
            more: Rng::new(seed ^ 0x1234_5678),
            works: Rng::new(seed ^ 0x0F0F_1111_2222),
            setup,
            now: SECOND,
            seq: 0,
            heap: BTreeMap::new(),
            core: None,
            life: 0,
            store: Store::new(seed),
            inbox: BTreeMap::new(),
            inbox_ask: BTreeMap::new(),
            bound: BTreeSet::new(),
            roots: Roots::default(),
            notify_since: None,
            latency: 0,
            scouts: Scouts::new(),
            children: Vec::new(),
            workers: Vec::new(),
            looks: BTreeMap::new(),
            oracle,
            calm: false,
            active: 0,
            rest_by: REST,
            room: true,
            room_again: None,
            idle_looks: BTreeMap::new(),
            tally: Tally::default(),
        };
        for writer in 0..world.setup.writers.len() {
            world.at(0, Tick::Writer(writer));
        }
        let first = world.rng.below(2 * SECOND);
        world.at(first, Tick::Restart);
        let calm = 10 * SECOND + world.rng.below(30 * SECOND);
        world.at(calm, Tick::Calm);
        world.cues();
        if world.setup.faults.unreadable > 0 {
            for _ in 0..world.setup.faults.unreadable {
                let when = world.rng.below(calm);
                world.at(when, Tick::Unreadable);
            }
        }
        world
    }

    pub fn at(&mut self, after: u64, tick: Tick) {
        self.seq += 1;
        self.heap.insert((self.now + after, self.seq), tick);
    }

    pub fn clock(&self) -> Now {
        Now {
            mono: Mono(self.now),
            wall: Wall(self.setup.disk.wall),
            utc_offset_s: 0,
        }
    }

    fn advance(&mut self, to: u64) {
        self.setup.disk.wall += (to - self.now) as i64;
        self.now = to;
        self.setup.disk.mono = to;
    }

    /// Runs the schedule to its end. The violation, if there is one.
    pub fn run(mut self) -> (Tally, Option<String>) {
        self.oracle.observe(&mut self.setup.disk);
        loop {
            if self.oracle.violation.is_some() {
                break;
            }
            let world = self.heap.keys().next().map(|(at, _)| *at);
            let daemon = self.daemon_due();
            let idle = self.calm
                && self.core.is_some()
                && (self.now > self.active + 140 * SECOND && self.quiet()
                    || world.is_none() && daemon.is_none());
            if idle {
                self.oracle.looked_again(&self.setup.disk);
            }
            if idle && std::mem::take(&mut self.setup.disk.unheard) {
                // Promised at the next listing, not before.
                self.input(0, Input::Command(Command::Rescan));
                self.active = self.now;
                // What that finds is run, and a command may change a file unheard again.
                self.rest_by = self.now + REST;
                continue;
            }
            if idle {
                self.finish();
                break;
            }
            if self.tally.turns > 60_000 || self.now > self.rest_by {
                self.oracle.broken(
                    Rule::Rest,
                    format!("it does not come to rest ({} turns)", self.tally.turns),
                );
                break;
            }
            match (world, daemon) {
                (Some(world), Some(daemon)) if daemon <= world => self.turn_at(daemon),
                (Some(world), _) => self.tick(world),
                (None, Some(daemon)) => self.turn_at(daemon),
                (None, None) => {
                    if !self.calm || self.core.is_none() {
                        self.oracle.broken(Rule::Rest, "the world has stopped");
                    } else {
                        self.finish();
                    }
                    break;
                }
            }
            self.oracle.observe(&mut self.setup.disk);
            if self.notify_since.is_none() && !self.setup.disk.notify.queue.is_empty() {
                self.notify_since = Some(self.now);
            }
        }
        (self.tally.halts, self.tally.held) = self.oracle.halts_and_held();
        self.tally.overflows = self.setup.disk.notify.overflows;
        (self.tally, self.oracle.violation)
    }

    fn quiet(&self) -> bool {
        self.inbox.is_empty()
            && self.scouts.values().all(|scout| scout.tasks.is_empty())
            && self
                .children
                .iter()
                .all(|child| !matches!(child.phase, Phase::Starting | Phase::Running))
    }

    /// When the loop turns next.
    fn daemon_due(&self) -> Option<u64> {
        let core = self.core.as_ref()?;
        let inbox = self.inbox.keys().next().map(|(at, _)| *at);
        let input = [inbox, self.notify_since]
            .into_iter()
            .flatten()
            .min()
            .map(|at| (at + self.latency).max(self.now));
        let deadline = core.deadline().map(|at| at.0.max(self.now));
        let room = self.room_again.map(|at| at.max(self.now));
        [input, deadline, room].into_iter().flatten().min()
    }

    fn tick(&mut self, at: u64) {
        let Some((key, _)) = self.heap.iter().next() else {
            return;
        };
        let key = *key;
        let Some(tick) = self.heap.remove(&key) else {
            return;
        };
        self.advance(at);
        match tick {
            Tick::Writer(id) => {
                self.active = self.now;
                if let Some(wait) = self.setup.writers[id].go(id, &mut self.setup.disk) {
                    // In the calm nobody pauses for long.
                    self.at(wait, Tick::Writer(id));
                }
            }
            Tick::Scout(id, life) => self.scout_step(id, life),
            Tick::ChildLooks(id) => self.child_looks(id),
            Tick::ChildEnds(id, end) => self.child_ends(id, end),
            Tick::LetsGo(handle) => self.lets_go(handle),
            Tick::WorkerRuns(id) => self.worker_runs(id),
            Tick::WorkerSays(id, say) => self.worker_says(id, say),
            Tick::WorkerEnds(id, end) => self.worker_ends(id, end),
            Tick::Relief => self.relief(),
            Tick::DiskFree => {
                story!(self.now, "the journal's disk has room again");
                self.store.disk_full(false);
            }
            Tick::Restart => self.start(),
            Tick::Readable(uid) => {
                story!(self.now, "inode {uid} can be read again");
                self.setup.disk.forbid(uid, false);
            }
            Tick::Unreadable => {
                if !self.calm {
                    let uid = self.rng.below(self.setup.disk.inodes.len() as u64) as usize;
                    story!(self.now, "inode {uid} cannot be read for a while");
                    self.setup.disk.forbid(uid, true);
                    let wait = self.rng.below(5 * SECOND);
                    self.at(wait, Tick::Readable(uid));
                }
            }
            Tick::Silent(id, life) => {
                if let (ScoutId::Mount(mount), true) = (id, life == self.life)
                    && self
                        .scouts
                        .get(&id)
                        .is_some_and(|s| s.stuck_until > self.now)
                {
                    self.oracle.silent.insert(mount);
                    self.input(0, Input::MountSilent(mount, true));
                }
            }
            Tick::Unstick(id, life) => {
                if let (ScoutId::Mount(mount), true) = (id, life == self.life) {
                    self.oracle.silent.remove(&mount);
                    self.input(0, Input::MountSilent(mount, false));
                }
                self.wake_scout(id, 0);
            }
            Tick::Calm => self.calm_down(),
            Tick::Cue(cue) => self.cue(cue),
        }
    }

    fn calm_down(&mut self) {
        if self
            .heap
            .values()
            .any(|tick| matches!(tick, Tick::Writer(_)))
        {
            // Writers end first; no new ones come.
            self.at(SECOND, Tick::Calm);
            return;
        }
        story!(self.now, "---- calm ----");
        self.calm = true;
        self.active = self.now;
        for uid in 0..self.setup.disk.inodes.len() {
            self.setup.disk.forbid(uid, false);
            self.setup.disk.inodes[uid].unwritable = false;
        }
        for root in self.setup.roots.clone() {
            let mut at = 0;
            while at < root.len() {
                at = root[at + 1..]
                    .iter()
                    .position(|&b| b == b'/')
                    .map_or(root.len(), |n| at + 1 + n);
                if self.setup.disk.resolve(&root[..at]).is_err()
                    && let Ok((dir, name)) = self.setup.disk.parent(&root[..at])
                {
                    let name = name.to_vec();
                    let _ = self.setup.disk.mkdir(dir, &name);
                    story!(self.now, "mkdir {}", show(&root[..at]));
                }
            }
        }
        self.setup.disk.cuts = 0;
        if self.setup.works {
            self.at(20 * SECOND, Tick::Relief);
        }
        self.store.disk_full(false);
        if !self.room && self.setup.faults.full == 0 {
            self.room = true;
            self.input(0, Input::JournalRoom(true));
        }
    }

    /// Dead jobs that hold others up: somebody takes their files away.
    fn relief(&mut self) {
        let halted = self.oracle.halted();
        for version in &halted {
            for uid in 0..self.setup.disk.inodes.len() {
                if self.setup.disk.inodes[uid].dir || self.setup.disk.version(uid) != *version {
                    continue;
                }
                for (dir, name) in self.setup.disk.paths_of(uid) {
                    story!(self.now, "the file of a halted job goes: {}", show(&name));
                    let _gone = self.setup.disk.unlink(dir, &name);
                    self.active = self.now;
                }
            }
        }
        self.at(20 * SECOND, Tick::Relief);
    }

    // ---- the loop ----

    pub fn input(&mut self, after: u64, input: Input) {
        if self.core.is_none() {
            return;
        }
        self.seq += 1;
        self.inbox.insert((self.now + after, self.seq), input);
    }

    fn start(&mut self) {
        self.life += 1;
        self.idle_looks.clear();
        if !self.calm && self.setup.faults.crash > 0 && self.rng.chance(1, 8) {
            self.store.soon_off(&mut self.rng, 12);
        }
        let more = match self.store.open(Wall(self.setup.disk.wall)) {
            Ok(Ok(more)) => more,
            Ok(Err(error)) => {
                story!(self.now, "!!!! crash while the journal is opened: {error}");
                self.crash();
                return;
            }
            Err(wrong) => {
                self.oracle.broken(Rule::Journal, wrong);
                return;
            }
        };
        story!(
            self.now,
            "==== daemon starts, life {}, {} records",
            self.life,
            self.store.sure.len()
        );
        for (at, record) in &more {
            story!(self.now, "  has survived: {record:?}");
            self.oracle.record(record, at.0, &self.setup.disk);
        }
        self.oracle.silent.clear();
        self.oracle.moment = Moment {
            now: self.now,
            life: self.life,
            ..Moment::default()
        };
        let mut core = Core::new(self.setup.plan.clone(), JOURNAL);
        for (at, record) in &self.store.sure {
            core.replay(*at, record.clone());
        }
        let mounts = self
            .setup
            .disk
            .fss
            .iter()
            .map(|fs| Mount {
                id: MountId(fs.mount),
                point: fs.point.clone(),
                fstype: if fs.sparing { "nfs4" } else { "sim" }.into(),
                remote_writers: fs.remote,
                attribute_cache_s: fs.cache_s,
            })
            .collect();
        core.start(self.clock(), mounts);
        core.due(self.clock());
        self.core = Some(core);
        self.room = true;
        self.room_again = None;
        if self.setup.faults.full > 0 && !self.calm && self.more.chance(1, 2) {
            // No spare segment has been made yet.
            self.disk_fills();
        }
        if self.setup.faults.fill > 0 {
            let wall = Wall(self.setup.disk.wall);
            if let Err(error) = self.store.fill(wall, self.setup.faults.fill) {
                story!(self.now, "!!!! crash while the journal is filled: {error}");
                self.crash();
                return;
            }
        }
        self.perform(&[]);
    }

    fn turn_at(&mut self, at: u64) {
        self.advance(at.max(self.now));
        self.tally.turns += 1;
        self.notify_since = None;
        self.oracle.moment.now = self.now;
        self.oracle.seen.clear();
        self.oracle.moment.paused = !self.room || self.oracle.moment.stopping;
        let faults = self.setup.faults;
        self.latency = match self.rng.below(20) {
            0..=13 => self.rng.below(300_000),
            14..=18 => self.rng.below(5_000_000),
            _ => self.rng.below(300_000_000),
        };
        if self.rng.chance(faults.stalls, 10_000) && !self.calm {
            self.latency = self.rng.below(4 * SECOND);
        }
        // Answers are collected first, then the event queue is drained, then events are fed first.
        let mut inputs = Vec::new();
        while let Some((key, _)) = self.inbox.iter().next()
            && key.0 <= self.now
        {
            let key = *key;
            inputs.extend(self.inbox.remove(&key));
        }
        let events = std::mem::take(&mut self.setup.disk.notify.queue);
        if self.rng.chance(faults.clock, 10_000) && !self.calm {
            let jump = self.rng.below(7200 * SECOND) as i64 - 3600 * SECOND as i64;
            story!(self.now, "the wall clock jumps by {jump} ns");
            self.setup.disk.wall += jump;
        }
        let now = self.clock();
        let Some(mut core) = self.core.take() else {
            return;
        };
        let fed = events.len() + inputs.len();
        if self.setup.faults.full > 0 {
            self.check_room(&mut core, now);
        }
        if !events.is_empty() {
            self.idle_looks.clear();
        }
        for event in events {
            match event {
                Some(event) => {
                    story!(
                        self.now,
                        "event wd {} {} cookie {} {}",
                        event.wd,
                        bits(event.mask),
                        event.cookie,
                        show(&event.name)
                    );
                    self.heard(&event);
                    self.roots.heard(event.wd, event.mask);
                    core.step(
                        now,
                        Input::Event {
                            wd: event.wd,
                            mask: event.mask,
                            cookie: event.cookie,
                            name: event.name,
                        },
                    );
                }
                None => {
                    story!(self.now, "event queue overflow");
                    core.step(now, Input::Overflow);
                }
            }
        }
        let mut ended = Vec::new();
        for input in inputs {
            story!(self.now, "input {}", words(&input));
            if !matches!(input, Input::Answer(_, Answer::Probed(_))) {
                self.idle_looks.clear();
            }
            match &input {
                Input::Answer(ask, Answer::Probed(Ok(facts))) => {
                    self.oracle.told(facts);
                    if let Some((path, truth)) = self.looks.remove(ask) {
                        self.oracle.seen.push((path, *facts, truth));
                    }
                }
                Input::Answer(_, Answer::Bound(Ok(bound))) => {
                    self.bound.extend(bound.wd.and_then(Result::ok));
                }
                _ => {}
            }
            if let Input::Answer(ask, answer) = &input {
                self.roots.told(*ask, answer);
            }
            match &input {
                Input::Answer(ask, answer) if answer.is_last() => {
                    self.inbox_ask.remove(ask);
                }
                Input::WorkerLine { run, line } => self.line_told(*run, line.as_deref()),
                Input::Ended { run, end, .. } => {
                    ended.push(*run);
                    if let Some(id) = self.worker_of(*run) {
                        self.worker_end_told(id, *end);
                    }
                    let mut children = self.children.iter();
                    if let Some(child) = children
                        .find(|c| c.worker.is_none() && c.life == self.life && c.order.run == *run)
                    {
                        self.oracle.told_end(child, *end);
                        if *end == ChildEnd::Exit(0) {
                            self.oracle.child_ended(child, &self.setup.disk);
                        }
                    }
                }
                _ => {}
            }
            core.step(now, input);
        }
        for child in &mut self.children {
            if child.life == self.life && ended.contains(&child.order.run) {
                child.phase = Phase::Reaped;
            }
        }
        for worker in &mut self.workers {
            if worker.life == self.life && ended.contains(&worker.order.run) {
                worker.phase = Phase::Reaped;
            }
        }
        if !self.calm {
            let roll = |rng: &mut Rng, rate: u64| rng.chance(rate, 10_000);
            if roll(&mut self.rng, faults.rescan) {
                story!(self.now, "command rescan");
                core.step(now, Input::Command(Command::Rescan));
            }
            if roll(&mut self.rng, faults.reload) {
                story!(self.now, "command reload");
                self.oracle.moment.reloaded = true;
                let plan = Box::new(self.setup.plan.clone());
                core.step(now, Input::Command(Command::Reload(plan)));
            }
            if roll(&mut self.rng, faults.drain) {
                story!(self.now, "command drain");
                self.oracle.moment.stopping = true;
                core.step(now, Input::Command(Command::Drain));
                if self.rng.chance(1, 3) {
                    core.step(now, Input::Command(Command::StopNow));
                }
            }
            if roll(&mut self.rng, faults.room) {
                self.room = !self.room;
                story!(self.now, "journal room {}", self.room);
                core.step(now, Input::JournalRoom(self.room));
            }
        }
        self.oracle.moment.closed = !self.room || self.oracle.moment.stopping;
        core.due(now);
        let late = core.deadline().is_some_and(|at| at.0 <= self.now);
        self.core = Some(core);
        if late {
            self.oracle.broken(
                Rule::Bounded,
                "a deadline is left in the past: the loop would spin",
            );
        }
        self.perform(&vec![(); fed]);
    }

    fn disk_fills(&mut self) {
        story!(self.now, "the journal's disk is full");
        self.store.disk_full(true);
        let wait = self.more.below(6 * SECOND);
        self.at(wait, Tick::DiskFree);
    }

    /// The disk of the journal is full now and then; before anything else the loop finds out.
    fn check_room(&mut self, core: &mut Core, now: Now) {
        if !self.calm && self.more.chance(self.setup.faults.full, 10_000) {
            self.disk_fills();
        }
        if self.room_again.is_some_and(|at| at > self.now) {
            return;
        }
        let room = self.store.makes_room();
        self.room_again = (!room).then_some(self.now + SECOND);
        if room != self.room {
            story!(self.now, "journal room {room}");
            self.room = room;
            core.step(now, Input::JournalRoom(room));
        }
        self.oracle.moment.paused = !room || self.oracle.moment.stopping;
    }

    /// An event is about to be told: of a file that a child has.
    fn heard(&mut self, event: &Event) {
        let close = event.mask & settled::core::mask::CLOSE_WRITE != 0;
        if !close || !self.setup.plain || !self.bound.contains(&event.wd) {
            return;
        }
        let disk = &self.setup.disk;
        let Some(dir) = disk.notify.dir_of(event.wd) else {
            return;
        };
        let uid = disk.lookup(dir, &event.name);
        // Under the name that its job knows: of a file's other names the job knows nothing.
        let path = disk
            .path_of_dir(dir)
            .map(|path| [path.as_slice(), b"/", &event.name].concat());
        for child in &mut self.children {
            for (number, (has, _, version)) in child.got.iter().enumerate() {
                if Some(*has) == uid
                    && path.as_ref() == Some(&child.order.files[number].place.path())
                    && disk.version(*has) != *version
                {
                    child.heard.insert(number);
                }
            }
        }
    }
}
