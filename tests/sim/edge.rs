//! What the loop's effects set going: scouts that answer late, children that end when they like.

use crate::children::{self, Child, Fate, Phase};
use crate::disk::*;
use crate::oracle::{Oracle, Rule, Truth};
use crate::scouts::{self, Step, Task};
use crate::story;
use crate::story::show;
use crate::world::{SECOND, Tick, World};
use crate::writers::Doing;
use settled::core::ask::{Answer, Question};
use settled::core::ids::{AskId, JobId};
use settled::core::{ChildEnd, Input, ScoutId, Stdin};
use std::collections::BTreeSet;

impl World {
    // ---- scouts ----

    pub fn ask(&mut self, ask: AskId, scout: ScoutId, question: Question) {
        self.roots.asked(ask, &question);
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
                        .broken(Rule::Evidence, "a lease is asked on a remote filesystem");
                }
                self.looks_in_vain(place.path());
            }
            Question::Dispose { private, act, .. } => {
                self.active = self.now;
                self.oracle.disposing(private, act);
            }
            _ => {}
        }
        self.inbox_ask.insert(ask, scout);
        let entry = self.scouts.entry(scout).or_default();
        let lists = matches!(question, Question::Bind { .. } | Question::Moved { .. });
        entry.tasks.push_back(Task::new(ask, question));
        // A watch that has none may have a listing of its own beside those. The looks of running jobs come on top.
        let (what, most) = if lists {
            ("listings", 15 + self.oracle.watches.len().max(1))
        } else {
            ("looks", 560)
        };
        let kind = |task: &&Task| match task.question {
            Question::Bind { .. } | Question::Moved { .. } => lists,
            Question::Probe { .. } => !lists,
            // One for each file that waits for it.
            Question::Dispose { .. } | Question::Resolve { .. } | Question::Exports => false,
        };
        if entry.tasks.len() > most && entry.tasks.iter().filter(kind).count() > most {
            self.oracle.broken(
                Rule::Bounded,
                format!("more than {most} {what} at one scout"),
            );
        }
        self.wake_scout(scout, 0);
    }

    /// A path is to be looked at. While nothing is heard but the answers to looks, there is nothing new to be seen but
    /// by the passing of time, and the waits grow.
    fn looks_in_vain(&mut self, path: Vec<u8>) {
        const MOST: u64 = 12;
        let (looks, since) = self.idle_looks.entry(path).or_insert((0, self.now));
        if self.now - *since > SECOND {
            (*looks, *since) = (0, self.now);
        }
        *looks += 1;
        if *looks > MOST {
            self.oracle.broken(
                Rule::Bounded,
                format!("more than {MOST} looks at one path in a second in which nothing happened"),
            );
        }
    }

    pub fn wake_scout(&mut self, id: ScoutId, extra: u64) {
        let wait = extra
            + match self.rng.below(12) {
                0..=8 => self.rng.range(20_000, 400_000),
                9 | 10 => self.rng.range(400_000, 20_000_000),
                _ => self.rng.range(1_000_000, 400_000_000),
            };
        let slow = match self.setup.faults.scout_slow {
            slow if slow > 0 && !self.calm => self.more.below(slow),
            _ => 0,
        };
        let wait = wait + slow;
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

    pub fn scout_step(&mut self, id: ScoutId, life: u32) {
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
        let Some(at) = scout.next_task(&mut self.more) else {
            return;
        };
        let Some(task) = scout.tasks.get_mut(at) else {
            return;
        };
        let ask = task.ask;
        let mut task =
            std::mem::replace(task, Task::new(ask, Question::Resolve { path: Vec::new() }));
        let step = self.one_step(&mut task);
        let copies = faults.copies > 0 && task.has_copied();
        if let Question::Bind { place, .. } = &task.question
            && matches!(step.answers.first(), Some(Answer::Bound(Ok(_))))
        {
            self.does(&Doing::Lists(place.path()));
        }
        if let Question::Dispose { place, .. } = &task.question
            && task.has_hidden()
        {
            self.does(&Doing::Hides(place.path()));
        }
        if let Question::Resolve { path } = &task.question {
            self.does(&Doing::Finds(path.clone()));
        }
        self.scout_looked(&task);
        let Some(scout) = self.scouts.get_mut(&id) else {
            return;
        };
        if let Some(place) = scout.tasks.get_mut(at) {
            *place = task;
        }
        if step.done {
            scout.tasks.remove(at);
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
        let copying = if copies {
            self.more.below(faults.copies)
        } else {
            0
        };
        self.wake_scout(id, copying);
    }

    /// One step of a question, under the oracle's eyes where it changes something.
    pub fn one_step(&mut self, task: &mut Task) -> Step {
        let disposal = match &task.question {
            Question::Dispose { act, private, .. } => {
                let job = Oracle::job_of(private);
                Some((job, act.clone(), self.setup.disk.contents()))
            }
            _ => None,
        };
        let step = scouts::step(
            task,
            &mut self.setup.disk,
            &mut self.rng,
            &self.setup.aliases,
        );
        if let Some((job, act, before)) = disposal {
            if let Some(uid) = step.unlinked {
                story!(self.now, "mover: inode {uid} is unlinked for good");
                self.oracle.unlinked(uid, &act, &self.setup.disk);
            }
            self.oracle
                .moved(job, &before, &step, &act, &self.setup.disk);
        }
        step
    }

    // ---- children ----

    pub fn spawn(&mut self, order: settled::core::SpawnOrder) {
        self.active = self.now;
        if order.stdin == Stdin::Worker {
            return self.spawn_worker(order);
        }
        self.tally.runs += 1;
        self.tally.batched += u64::from(order.jobs.len() > 1);
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
        let temper = self.setup.temper;
        if temper.consumes + temper.lingers > 0 && fate == Fate::Exit(0) {
            let roll = self.more.below(1000);
            if roll < temper.consumes {
                fate = Fate::Consume;
            } else if roll < temper.consumes + temper.lingers {
                fate = Fate::Linger;
            }
        }
        let child = Child {
            order,
            fate,
            life: self.life,
            phase: Phase::Starting,
            got: Vec::new(),
            heard: BTreeSet::new(),
            worker: None,
            killed: false,
            watch,
        };
        self.beside(&child.order.jobs);
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

    pub fn child_looks(&mut self, id: usize) {
        if self.children[id].phase != Phase::Starting {
            return;
        }
        if self.children[id].life == self.life && self.is_held(self.children[id].order.slot) {
            let held = settled::core::NotStarted::Failed(settled::core::StartStep::Setup, 11);
            self.child_ends(id, ChildEnd::NotStarted(held, 0));
            return;
        }
        if let Fate::FailsToStart(step, errno) = self.children[id].fate {
            let end = ChildEnd::NotStarted(settled::core::NotStarted::Failed(step, errno), 0);
            self.child_ends(id, end);
            return;
        }
        match children::look(&self.setup.disk, &self.children[id].order) {
            Err((why, file)) => {
                story!(self.now, "child {id} looks: {why:?} ({file})");
                self.child_ends(id, ChildEnd::NotStarted(why, file));
            }
            Ok(uids) => {
                for (number, uid) in uids.iter().enumerate() {
                    let truth = Truth::of(&self.setup.disk, *uid);
                    story!(
                        self.now,
                        "child {id} reads content {}, fate {:?}",
                        truth.content,
                        self.children[id].fate
                    );
                    let child = &mut self.children[id];
                    child.got.push((*uid, truth.content, truth.version));
                    let (watch, job) = (child.watch, child.order.jobs[number]);
                    self.oracle.dispatched(watch, job, &truth, &self.setup.disk);
                }
                self.children[id].phase = Phase::Running;
                for number in 0..uids.len() {
                    let path = self.children[id].order.files[number].place.path();
                    self.does(&Doing::Runs(path));
                }
                let many = uids.len() as u64;
                let which = if many > 1 { self.works.below(many) } else { 0 };
                let uid = uids[which as usize];
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
                    Fate::Consume => ChildEnd::Exit(0),
                    Fate::Linger => {
                        self.linger(uid, wait);
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

    /// A command leaves something behind that writes when the command has long ended.
    fn linger(&mut self, uid: Uid, runs: u64) {
        let disk = &mut self.setup.disk;
        if let Some((dir, name)) = disk.paths_of(uid).first().cloned()
            && let Ok(handle) = disk.open_write(dir, &name, false, false)
        {
            let wait = runs + self.more.below(4 * SECOND);
            self.at(wait, Tick::LetsGo(handle));
        }
    }

    pub fn lets_go(&mut self, handle: Handle) {
        story!(self.now, "what a command left behind writes and closes");
        self.active = self.now;
        self.setup.disk.write(handle, 2);
        self.setup.disk.close(handle);
    }

    /// A command takes its own file away.
    fn consume(&mut self, id: usize) {
        let child = &self.children[id];
        let disk = &mut self.setup.disk;
        for ((uid, _, _), file) in child.got.iter().zip(&child.order.files) {
            let path = file.place.path();
            if disk.resolve(&path) == Ok(*uid)
                && let Ok((dir, name)) = disk.parent(&path)
            {
                story!(self.now, "child {id} takes its file away");
                // Nothing can be done about what is not there.
                let _gone = disk.unlink(dir, name);
            }
        }
    }

    pub fn child_ends(&mut self, id: usize, end: ChildEnd) {
        if !matches!(self.children[id].phase, Phase::Starting | Phase::Running) {
            return;
        }
        story!(self.now, "child {id} ends: {end:?}");
        self.children[id].phase = Phase::Ended(end);
        if self.children[id].fate == Fate::Consume && end == ChildEnd::Exit(0) {
            self.consume(id);
        }
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
                    output: vec![b'o'; self.setup.faults.output],
                },
            );
        }
    }

    /// The processes of an earlier life that hold a slot.
    pub fn holders(&self, slot: u32) -> Vec<usize> {
        let holds = |child: &Child| {
            child.worker.is_none()
                && child.life != self.life
                && child.order.slot == slot
                && matches!(child.phase, Phase::Starting | Phase::Running)
        };
        (0..self.children.len())
            .filter(|id| holds(&self.children[*id]))
            .collect()
    }

    pub fn ask_slot(&mut self, slot: u32, signal: Option<i32>) {
        let taken = self.is_held(slot);
        if let Some(signal) = signal {
            story!(self.now, "who holds slot {slot} is sent {signal}");
            self.oracle.orphan_signalled(slot, signal, taken);
            for id in self.holders(slot) {
                self.signal(id, signal);
            }
            for id in self.worker_holders(slot) {
                self.signal_worker(id, signal);
            }
        }
        self.input(0, Input::Slot { slot, taken });
    }

    pub fn kill(&mut self, run: settled::core::ids::RunId, signal: i32) {
        if let Some(id) = self.worker_of(run) {
            return self.kill_worker(id, signal);
        }
        let Some(id) = self
            .children
            .iter()
            .position(|c| c.worker.is_none() && c.life == self.life && c.order.run == run)
        else {
            self.oracle
                .broken(Rule::Limits, format!("{run:?} is killed and never ran"));
            return;
        };
        self.children[id].killed = true;
        self.signal(id, signal);
    }

    /// The attempts of this life whose end the core has not been told.
    pub fn alive(&self) -> impl Iterator<Item = &Child> {
        self.children
            .iter()
            .filter(|c| c.life == self.life && c.phase != Phase::Reaped)
    }

    /// None of these jobs is being worked on.
    pub fn beside(&mut self, jobs: &[JobId]) {
        let beside = |old: &Child| {
            old.order.jobs.iter().any(|job| jobs.contains(job))
                && matches!(old.phase, Phase::Starting | Phase::Running)
        };
        if self.children.iter().any(beside) {
            let what = format!("{jobs:?} are run beside an attempt of one of them");
            self.oracle.broken(Rule::Serial, what);
        }
    }

    /// A scout has looked at a file: what was true then.
    fn scout_looked(&mut self, task: &Task) {
        let Question::Probe { place, .. } = &task.question else {
            return;
        };
        let disk = &self.setup.disk;
        let found = disk
            .resolve(&place.base)
            .and_then(|base| disk.walk(base, &place.rel));
        if let (true, Ok(uid)) = (self.setup.works, found)
            && !disk.inodes[uid].dir
        {
            let truth = Truth::of(disk, uid);
            self.looks.insert(task.ask, (place.path(), truth));
        }
    }

    fn signal(&mut self, id: usize, signal: i32) {
        let heeds = match self.children[id].fate {
            Fate::Hang { heeds } => heeds,
            _ => self.rng.chance(1, 2),
        };
        if signal == 9 || heeds {
            let wait = self.rng.below(50_000_000);
            let lies = signal != 9 && self.setup.temper.lies > 0;
            let end = if lies && self.more.chance(self.setup.temper.lies, 1000) {
                ChildEnd::Exit(0)
            } else {
                ChildEnd::Signal(signal)
            };
            self.at(wait, Tick::ChildEnds(id, end));
        }
    }
}
