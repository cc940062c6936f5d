//! The world around one core: time passes, writers write, scouts answer, children end, the loop turns,
//! and now and then everything of the daemon is gone at once.

use crate::children::{self, Child, Fate, Phase};
use crate::disk::*;
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::scouts::{self, Scouts, Task};
use crate::setup::Setup;
use crate::story;
use crate::story::show;
use settled::core::ask::{Answer, Question};
use settled::core::ids::{AskId, MountId};
use settled::core::record::Record;
use settled::core::time::{Mono, Now, Wall};
use settled::core::{ChildEnd, Command, Core, Effect, Input, Mount, ScoutId};
use std::collections::BTreeMap;

const SECOND: u64 = 1_000_000_000;
const JOURNAL: u32 = 0x5E77_1ED0;

#[derive(Clone, Debug)]
enum Tick {
    Writer(usize),
    Scout(ScoutId, u32),
    ChildLooks(usize),
    ChildEnds(usize, ChildEnd),
    Restart,
    Readable(Uid),
    Unreadable,
    Unstick(ScoutId, u32),
    Silent(ScoutId, u32),
    Calm,
}

/// What came of a schedule, for the totals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub turns: u64,
    pub records: u64,
    pub runs: u64,
    pub crashes: u64,
    pub overflows: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.turns += other.turns;
        self.records += other.records;
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.overflows += other.overflows;
    }
}

pub struct World {
    setup: Setup,
    rng: Rng,
    now: u64,
    seq: u64,
    heap: BTreeMap<(u64, u64), Tick>,
    core: Option<Core>,
    life: u32,
    journal: Vec<(Wall, Record)>,
    inbox: BTreeMap<(u64, u64), Input>,
    inbox_ask: BTreeMap<AskId, ScoutId>,
    notify_since: Option<u64>,
    latency: u64,
    scouts: Scouts,
    children: Vec<Child>,
    oracle: Oracle,
    calm: bool,
    active: u64,
    room: bool,
    tally: Tally,
}

impl World {
    pub fn new(seed: u64, setup: Setup) -> World {
        let oracle = Oracle::new(setup.covers.clone());
        let mut world = World {
            rng: Rng::new(seed ^ 0xABCD),
            setup,
            now: SECOND,
            seq: 0,
            heap: BTreeMap::new(),
            core: None,
            life: 0,
            journal: Vec::new(),
            inbox: BTreeMap::new(),
            inbox_ask: BTreeMap::new(),
            notify_since: None,
            latency: 0,
            scouts: Scouts::new(),
            children: Vec::new(),
            oracle,
            calm: false,
            active: 0,
            room: true,
            tally: Tally::default(),
        };
        for writer in 0..world.setup.writers.len() {
            world.at(0, Tick::Writer(writer));
        }
        let first = world.rng.below(2 * SECOND);
        world.at(first, Tick::Restart);
        let calm = 10 * SECOND + world.rng.below(30 * SECOND);
        world.at(calm, Tick::Calm);
        if world.setup.faults.unreadable > 0 {
            for _ in 0..world.setup.faults.unreadable {
                let when = world.rng.below(calm);
                world.at(when, Tick::Unreadable);
            }
        }
        world
    }

    fn at(&mut self, after: u64, tick: Tick) {
        self.seq += 1;
        self.heap.insert((self.now + after, self.seq), tick);
    }

    fn clock(&self) -> Now {
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
                && self.now > self.active + 140 * SECOND
                && self.quiet();
            if idle {
                self.finish();
                break;
            }
            if self.tally.turns > 60_000 || self.now > 4_000 * SECOND {
                self.oracle.broken(format!(
                    "it does not come to rest ({} turns)",
                    self.tally.turns
                ));
                break;
            }
            match (world, daemon) {
                (Some(world), Some(daemon)) if daemon <= world => self.turn_at(daemon),
                (Some(world), _) => self.tick(world),
                (None, Some(daemon)) => self.turn_at(daemon),
                (None, None) => {
                    if !self.calm || self.core.is_none() {
                        self.oracle.broken("the world has stopped".into());
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
        [input, deadline].into_iter().flatten().min()
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
            Tick::Restart => self.start(),
            Tick::Readable(uid) => {
                story!(self.now, "inode {uid} can be read again");
                self.setup.disk.inodes[uid].unreadable = false;
            }
            Tick::Unreadable => {
                if !self.calm {
                    let uid = self.rng.below(self.setup.disk.inodes.len() as u64) as usize;
                    story!(self.now, "inode {uid} cannot be read for a while");
                    self.setup.disk.inodes[uid].unreadable = true;
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
                    self.input(0, Input::MountSilent(mount, true));
                }
            }
            Tick::Unstick(id, life) => {
                if let (ScoutId::Mount(mount), true) = (id, life == self.life) {
                    self.input(0, Input::MountSilent(mount, false));
                }
                self.wake_scout(id, 0);
            }
            Tick::Calm => self.calm_down(),
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
        for inode in &mut self.setup.disk.inodes {
            inode.unreadable = false;
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
        if self.setup.disk.unheard {
            // Promised at the next listing, not before.
            self.input(0, Input::Command(Command::Rescan));
        }
        if !self.room {
            self.room = true;
            self.input(0, Input::JournalRoom(true));
        }
    }

    // ---- the loop ----

    fn input(&mut self, after: u64, input: Input) {
        if self.core.is_none() {
            return;
        }
        self.seq += 1;
        self.inbox.insert((self.now + after, self.seq), input);
    }

    fn start(&mut self) {
        self.life += 1;
        story!(
            self.now,
            "==== daemon starts, life {}, {} records",
            self.life,
            self.journal.len()
        );
        let mut core = Core::new(self.setup.plan.clone(), JOURNAL);
        for (at, record) in &self.journal {
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
                fstype: "sim".into(),
                remote_writers: fs.remote,
                attribute_cache_s: fs.cache_s,
            })
            .collect();
        core.start(self.clock(), mounts);
        core.due(self.clock());
        self.core = Some(core);
        self.room = true;
        self.perform(&[]);
    }

    fn turn_at(&mut self, at: u64) {
        self.advance(at.max(self.now));
        self.tally.turns += 1;
        self.notify_since = None;
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
            match &input {
                Input::Answer(ask, answer) if answer.is_last() => {
                    self.inbox_ask.remove(ask);
                }
                Input::Ended { run, .. } => ended.push(*run),
                _ => {}
            }
            core.step(now, input);
        }
        for child in &mut self.children {
            if child.life == self.life && ended.contains(&child.order.run) {
                child.phase = Phase::Reaped;
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
                let plan = Box::new(self.setup.plan.clone());
                core.step(now, Input::Command(Command::Reload(plan)));
            }
            if roll(&mut self.rng, faults.drain) {
                story!(self.now, "command drain");
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
        core.due(now);
        let late = core.deadline().is_some_and(|at| at.0 <= self.now);
        self.core = Some(core);
        if late {
            self.oracle
                .broken("a deadline is left in the past: the loop would spin".into());
        }
        self.perform(&vec![(); fed]);
    }

    /// One flush, then the other effects; a crash at any point of it.
    fn perform(&mut self, fed: &[()]) {
        let Some(core) = self.core.as_mut() else {
            return;
        };
        let effects = core.effects();
        let crash = !self.calm && self.rng.chance(self.setup.faults.crash, 10_000);
        let known = self.setup.disk.names.len();
        if effects.len() > 400 + 20 * fed.len() + 20 * known {
            self.oracle.broken(format!(
                "{} effects in one turn of {} inputs",
                effects.len(),
                fed.len()
            ));
        }
        for effect in &effects {
            match effect {
                Effect::Append(record) => story!(self.now, "  record {record:?}"),
                Effect::Log(level, line) => {
                    story!(
                        self.now,
                        "  log {level:?}: {} {} {}",
                        show(&line.path),
                        line.job,
                        line.text
                    );
                }
                Effect::Ask(ask, scout, question) => {
                    story!(
                        self.now,
                        "  ask {} {scout:?} {}",
                        ask.0,
                        question_words(question)
                    );
                }
                Effect::Spawn(order) => {
                    story!(self.now, "  spawn run {} of {:?}", order.run.0, order.job);
                }
                other => story!(self.now, "  {other:?}"),
            }
        }
        if crash && self.rng.chance(1, 3) {
            story!(self.now, "!!!! crash before the flush");
            self.crash();
            return;
        }
        let wall = Wall(self.setup.disk.wall);
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append(record) => {
                    self.active = self.now;
                    self.oracle.record(&record, &self.setup.disk);
                    self.tally.records += 1;
                    self.journal.push((wall, record));
                }
                other => others.push(other),
            }
        }
        let performed = if crash {
            self.rng.below(others.len() as u64 + 1) as usize
        } else {
            others.len()
        };
        let mut stop = false;
        for effect in others.into_iter().take(performed) {
            match effect {
                Effect::Ask(ask, scout, question) => self.ask(ask, scout, question),
                Effect::Unwatch(wd) => self.setup.disk.rm_watch(wd),
                Effect::Spawn(order) => self.spawn(*order),
                Effect::Kill(run, signal) => self.kill(run, signal),
                Effect::Stop(_) => stop = true,
                Effect::Append(_) | Effect::Log(..) | Effect::Ready => {}
            }
        }
        if stop || crash {
            story!(self.now, "!!!! {}", if crash { "crash" } else { "stopped" });
            self.crash();
        } else if self.rng.chance(1, 50) {
            self.compare();
        } else if self.rng.chance(1, 100) {
            self.compact();
        }
    }

    /// The state as records takes the journal's place. All of it is taken in one turn, the one in which the
    /// compaction begins: `Gone` and `Renamed` may not be told to a state that has them already.
    fn compact(&mut self) {
        let Some(core) = self.core.as_ref() else {
            return;
        };
        story!(self.now, "the journal is compacted");
        let wall = Wall(self.setup.disk.wall);
        self.journal = core.snapshot().map(|record| (wall, record)).collect();
    }

    fn crash(&mut self) {
        self.core = None;
        self.tally.crashes += 1;
        self.inbox.clear();
        self.inbox_ask.clear();
        self.notify_since = None;
        self.setup.disk.close_notify();
        // A scout may end what it is at, or not; nobody hears of it.
        for scout in self.scouts.values_mut() {
            if self.rng.chance(1, 2) {
                scout.tasks.clear();
            } else {
                scout.tasks.truncate(1);
            }
        }
        let old: Scouts = std::mem::take(&mut self.scouts);
        for (id, mut scout) in old {
            if let Some(task) = scout.tasks.front_mut() {
                loop {
                    let step = scouts::step(
                        task,
                        &mut self.setup.disk,
                        &mut self.rng,
                        &self.setup.aliases,
                    );
                    if step.done || self.rng.chance(1, 3) {
                        break;
                    }
                }
                story!(self.now, "the old scout {id:?} went on for a while");
            }
        }
        self.setup.disk.close_notify();
        // Children are ended, or end by themselves before the next life.
        let mut last = self.rng.below(3 * SECOND);
        for id in 0..self.children.len() {
            match self.children[id].phase {
                Phase::Starting | Phase::Running => {
                    let hangs = matches!(self.children[id].fate, Fate::Hang { .. });
                    if hangs || self.rng.chance(1, 2) {
                        story!(self.now, "child {id} dies with the daemon");
                        self.children[id].phase = Phase::Ended(ChildEnd::Signal(9));
                    } else {
                        last = last.max(11 * SECOND);
                    }
                }
                Phase::Ended(_) | Phase::Reaped => {}
            }
        }
        self.at(last, Tick::Restart);
    }

    // ---- scouts ----

    fn ask(&mut self, ask: AskId, scout: ScoutId, question: Question) {
        match &question {
            Question::Probe { place, lease, .. } => {
                self.active = self.now;
                let remote = self
                    .setup
                    .disk
                    .fss
                    .iter()
                    .any(|fs| fs.remote && fs.mount == place.mount.0);
                if *lease && remote {
                    self.oracle
                        .broken("a lease is asked on a remote filesystem".into());
                }
            }
            Question::Dispose { private, act, .. } => {
                self.active = self.now;
                self.oracle.disposing(private, act);
            }
            _ => {}
        }
        self.inbox_ask.insert(ask, scout);
        let entry = self.scouts.entry(scout).or_default();
        entry.tasks.push_back(Task::new(ask, question));
        self.wake_scout(scout, 0);
    }

    fn wake_scout(&mut self, id: ScoutId, extra: u64) {
        let wait = extra
            + match self.rng.below(12) {
                0..=8 => self.rng.range(20_000, 400_000),
                9 | 10 => self.rng.range(400_000, 20_000_000),
                _ => self.rng.range(1_000_000, 400_000_000),
            };
        let life = self.life;
        let Some(scout) = self.scouts.get_mut(&id) else {
            return;
        };
        if scout.busy || scout.tasks.is_empty() || scout.stuck_until > self.now {
            return;
        }
        scout.busy = true;
        self.at(wait, Tick::Scout(id, life));
    }

    fn scout_step(&mut self, id: ScoutId, life: u32) {
        if life != self.life {
            return;
        }
        let faults = self.setup.faults;
        let Some(scout) = self.scouts.get_mut(&id) else {
            return;
        };
        scout.busy = false;
        if !self.calm && self.rng.chance(faults.scout_stuck, 10_000) {
            let silent = self.rng.range(SECOND, 8 * SECOND);
            story!(self.now, "scout {id:?} does not answer for {silent} ns");
            scout.stuck_until = self.now + silent;
            self.at(silent, Tick::Unstick(id, life));
            self.at(2 * SECOND, Tick::Silent(id, life));
            return;
        }
        if !self.calm && self.rng.chance(faults.scout_dies, 10_000) {
            // What it has not answered to the end is asked again; what it said is lost or was heard.
            story!(self.now, "scout {id:?} dies and is asked again");
            for task in &mut scout.tasks {
                *task = Task::new(task.ask, task.question.clone());
            }
            self.wake_scout(id, 0);
            return;
        }
        let Some(task) = scout.tasks.front_mut() else {
            return;
        };
        let ask = task.ask;
        let step = scouts::step(
            task,
            &mut self.setup.disk,
            &mut self.rng,
            &self.setup.aliases,
        );
        if let Some(uid) = step.unlinked {
            story!(self.now, "mover: inode {uid} is unlinked for good");
        }
        if step.done {
            scout.tasks.pop_front();
        }
        let delay = match self.rng.below(10) {
            0..=7 => self.rng.below(200_000),
            8 => self.rng.below(20_000_000),
            _ => self.rng.below(500_000_000),
        };
        let at = (self.now + delay).max(scout.last_answer);
        scout.last_answer = at;
        for answer in step.answers {
            self.seq += 1;
            self.inbox
                .insert((at, self.seq), Input::Answer(ask, answer));
        }
        self.wake_scout(id, 0);
    }

    // ---- children ----

    fn spawn(&mut self, order: settled::core::SpawnOrder) {
        self.active = self.now;
        self.tally.runs += 1;
        let watch = self
            .oracle
            .watches
            .iter()
            .position(|w| w.plan.name == order.watch)
            .unwrap_or(0);
        let plan = &self.oracle.watches[watch].plan;
        let mut fate = children::fate(&mut self.rng, self.setup.temper);
        if matches!(fate, Fate::Hang { .. }) && plan.timeout.is_none() {
            fate = Fate::Exit(1);
        }
        let child = Child {
            order,
            fate,
            life: self.life,
            phase: Phase::Starting,
            got: None,
            watch,
        };
        let alive: Vec<&Child> = self
            .children
            .iter()
            .filter(|c| c.life == self.life && c.phase != Phase::Reaped)
            .collect();
        let concurrency = self.setup.plan.daemon.concurrency;
        self.oracle.spawned(&child, &alive, concurrency);
        self.children.push(child);
        let wait = match self.rng.below(6) {
            0..=4 => self.rng.range(100_000, 3_000_000),
            _ => self.rng.range(3_000_000, 800_000_000),
        };
        let id = self.children.len() - 1;
        self.at(wait, Tick::ChildLooks(id));
    }

    fn child_looks(&mut self, id: usize) {
        if self.children[id].phase != Phase::Starting {
            return;
        }
        if let Fate::FailsToStart(step, errno) = self.children[id].fate {
            let end = ChildEnd::NotStarted(settled::core::NotStarted::Failed(step, errno));
            self.child_ends(id, end);
            return;
        }
        match children::look(&self.setup.disk, &self.children[id].order) {
            Err(why) => {
                story!(self.now, "child {id} looks: {why:?}");
                self.child_ends(id, ChildEnd::NotStarted(why));
            }
            Ok(uid) => {
                let content = self.setup.disk.inodes[uid].content;
                let version = self.setup.disk.version(uid);
                story!(
                    self.now,
                    "child {id} reads content {content}, fate {:?}",
                    self.children[id].fate
                );
                self.children[id].got = Some((uid, content, version));
                self.children[id].phase = Phase::Running;
                self.oracle
                    .dispatched(&self.children[id], uid, &self.setup.disk);
                let wait = match self.rng.below(8) {
                    0..=4 => self.rng.range(200_000, 30_000_000),
                    5 | 6 => self.rng.range(30_000_000, 900_000_000),
                    _ => self.rng.range(SECOND, 6 * SECOND),
                };
                let end = match self.children[id].fate {
                    Fate::Exit(status) => ChildEnd::Exit(status),
                    Fate::Signal(signal) => ChildEnd::Signal(signal),
                    Fate::Edit => {
                        self.edit(uid);
                        ChildEnd::Exit(0)
                    }
                    Fate::Hang { .. } | Fate::FailsToStart(..) => return,
                };
                self.at(wait, Tick::ChildEnds(id, end));
            }
        }
    }

    /// A command that edits its own file.
    fn edit(&mut self, uid: Uid) {
        let disk = &mut self.setup.disk;
        if let Some((dir, name)) = disk.paths_of(uid).first().cloned()
            && let Ok(handle) = disk.open_write(dir, &name, false, false)
        {
            story!(self.now, "the child edits {}", show(&name));
            disk.write(handle, 1);
            disk.close(handle);
        }
    }

    fn child_ends(&mut self, id: usize, end: ChildEnd) {
        if !matches!(self.children[id].phase, Phase::Starting | Phase::Running) {
            return;
        }
        story!(self.now, "child {id} ends: {end:?}");
        self.children[id].phase = Phase::Ended(end);
        if end == ChildEnd::Exit(0) {
            self.oracle.succeeded(&self.children[id]);
        }
        if self.children[id].life == self.life && self.core.is_some() {
            let run = self.children[id].order.run;
            let wait = self.rng.below(2_000_000);
            self.input(
                wait,
                Input::Ended {
                    run,
                    end,
                    output: Vec::new(),
                },
            );
        }
    }

    fn kill(&mut self, run: settled::core::ids::RunId, signal: i32) {
        let Some(id) = self
            .children
            .iter()
            .position(|c| c.life == self.life && c.order.run == run)
        else {
            self.oracle
                .broken(format!("{run:?} is killed and never ran"));
            return;
        };
        let heeds = match self.children[id].fate {
            Fate::Hang { heeds } => heeds,
            _ => self.rng.chance(1, 2),
        };
        if signal == 9 || heeds {
            let wait = self.rng.below(50_000_000);
            self.at(wait, Tick::ChildEnds(id, ChildEnd::Signal(signal)));
        }
    }

    // ---- checks ----

    /// The journal replayed, and the state written as records and replayed, are the same state.
    fn compare(&mut self) {
        let Some(core) = self.core.as_ref() else {
            return;
        };
        let wall = Wall(self.setup.disk.wall);
        let fresh = || Core::new(self.setup.plan.clone(), JOURNAL);
        let snapshot: Vec<Record> = core.snapshot().collect();
        let mut from_snapshot = fresh();
        for record in &snapshot {
            from_snapshot.replay(wall, record.clone());
        }
        let mut from_journal = fresh();
        for (at, record) in &self.journal {
            from_journal.replay(*at, record.clone());
        }
        let a = normal(from_snapshot.snapshot());
        let b = normal(from_journal.snapshot());
        if a != b {
            let only = |x: &[String], y: &[String]| {
                x.iter()
                    .filter(|line| !y.contains(line))
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n    ")
            };
            self.oracle.broken(format!(
                "the journal and the state differ:\n  only in the state:\n    {}\n  only in the journal:\n    {}",
                only(&a, &b),
                only(&b, &a)
            ));
        }
    }

    /// The calm is over: nothing may be left to do.
    fn finish(&mut self) {
        self.compare();
        self.oracle.finish(&self.setup.disk);
        let now = self.clock();
        let Some(core) = self.core.as_mut() else {
            return;
        };
        let owed: Vec<Record> = core
            .snapshot()
            .filter(|record| matches!(record, Record::Settled { dir, .. } if dir.0 != 0))
            .collect();
        if !owed.is_empty() {
            self.oracle.broken(format!("jobs are still owed: {owed:?}"));
        }
        let mut plan = self.setup.plan.clone();
        plan.daemon.log_level = settled::plan::Level::Debug;
        let polls = core
            .deadline()
            .is_some_and(|at| at.0 < self.now + 1000 * SECOND);
        let unwatched = self.setup.disk.notify.watches_max < 100;
        let remote = self.setup.disk.fss.iter().any(|fs| fs.remote);
        if polls
            && !unwatched
            && !remote
            && plan
                .watches
                .iter()
                .all(|w| matches!(w.observe, settled::plan::Observe::Auto))
        {
            self.oracle.broken(format!(
                "a timer is left at {:?}, and nothing is to be done",
                core.deadline()
            ));
        }
        core.step(now, Input::Command(Command::LogState));
        let lines: Vec<String> = core
            .effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Log(_, line) => Some(format!("{} {}", show(&line.path), line.text)),
                _ => None,
            })
            .collect();
        if let Some(state) = lines.iter().find(|line| line.contains("state: ")) {
            let clean = [
                " 0 running",
                " 0 jobs owed",
                " 0 candidates",
                " 0 questions",
            ];
            if clean.iter().any(|part| !state.contains(part)) {
                self.oracle.broken(format!(
                    "something is left at the end: {}",
                    lines.join("; ")
                ));
            }
        }
        if !unwatched {
            self.check_watches();
        }
    }

    /// Each directory of a watched tree has its inotify watch, and no other has.
    fn check_watches(&mut self) {
        let mut wanted = Vec::new();
        for (uid, inode) in self.setup.disk.inodes.iter().enumerate() {
            if !inode.dir || inode.dead {
                continue;
            }
            let Some(path) = self.setup.disk.path_of_dir(uid) else {
                continue;
            };
            let should = self.oracle.watches.iter().any(|watch| {
                watch.plan.observe != settled::plan::Observe::Poll && watch.rel_dir(&path).is_some()
            });
            if should != inode.wd.is_some() {
                wanted.push(format!(
                    "{} {}",
                    show(&path),
                    if should {
                        "is not watched"
                    } else {
                        "is watched for nobody"
                    }
                ));
            }
        }
        if !wanted.is_empty() {
            self.oracle.broken(wanted.join("; "));
        }
    }
}

/// The records as sorted lines. Of a job that was concluded, its attempts matter no longer.
fn normal(records: impl Iterator<Item = Record>) -> Vec<String> {
    let records: Vec<Record> = records.collect();
    let over = |job| {
        records
            .iter()
            .any(|record| matches!(record, Record::Concluded { job: id, .. } if *id == job))
    };
    // A directory that is gone takes what was owed in it along; what runs there still is not written.
    let nowhere = |job| {
        records.iter().any(|record| {
            matches!(record, Record::Settled { job: id, dir, .. } if *id == job
                && !records.iter().any(|r| matches!(r, Record::Dir { dir: d, .. } if d == dir)))
        })
    };
    let records = records.iter().filter(|record| match record {
        Record::Started { job, .. } | Record::Ended { job, .. } => !over(*job) && !nowhere(*job),
        Record::Settled { job, .. } | Record::Concluded { job, .. } => !nowhere(*job),
        _ => true,
    });
    let mut lines: Vec<String> = records.map(|record| format!("{record:?}")).collect();
    lines.sort();
    lines
}

fn bits(mask: u32) -> String {
    use settled::core::mask as m;
    [
        (m::CLOSE_WRITE, "CLOSE_WRITE"),
        (m::MOVED_FROM, "MOVED_FROM"),
        (m::MOVED_TO, "MOVED_TO"),
        (m::CREATE, "CREATE"),
        (m::DELETE, "DELETE"),
        (m::DELETE_SELF, "DELETE_SELF"),
        (m::MOVE_SELF, "MOVE_SELF"),
        (m::IGNORED, "IGNORED"),
        (m::ISDIR, "ISDIR"),
    ]
    .iter()
    .filter(|(bit, _)| mask & bit != 0)
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join("|")
}

fn question_words(question: &Question) -> String {
    match question {
        Question::Resolve { path } => format!("resolve {}", show(path)),
        Question::Bind { place, watch } => format!("bind {} watch {watch}", show(&place.path())),
        Question::Probe {
            place, lock, lease, ..
        } => format!("probe {} lock {lock} lease {lease}", show(&place.path())),
        Question::Dispose { place, act, .. } => {
            format!("dispose {} {act:?}", show(&place.path()))
        }
    }
}

fn words(input: &Input) -> String {
    match input {
        Input::Answer(ask, Answer::Entries(entries)) => {
            let names: Vec<String> = entries.iter().map(|entry| show(&entry.name)).collect();
            format!("answer {} entries {}", ask.0, names.join(" "))
        }
        Input::Answer(ask, answer) => format!("answer {} {answer:?}", ask.0),
        other => format!("{other:?}"),
    }
}
