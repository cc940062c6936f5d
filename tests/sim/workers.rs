//! Long-lived commands that are fed jobs: they answer in order or not, twice, for others, nonsense or nothing; they die,
//! hang, are never ready, and outlive the daemon (settled-worker(7)).

use crate::children::{Child, Fate, Phase};
use crate::oracle::{Rule, WorkerSeen};
use crate::story;
use crate::story::show;
use crate::world::{JOURNAL, SECOND, Tick, World};
use serde_json::Value;
use settled::core::ids::{JobId, RunId};
use settled::core::record::AttemptEnd;
use settled::core::{ChildEnd, Input, NotStarted, SpawnOrder, StartStep};
use settled::plan::{Action, WorkerPlan};
use std::collections::BTreeSet;
use std::time::Duration;

/// A worker's process.
#[derive(Debug)]
pub struct Worker {
    pub order: SpawnOrder,
    pub life: u32,
    pub phase: Phase,
    /// The oracle's name for the watch.
    pub watch: usize,
    /// What the core knows of it.
    pub seen: WorkerSeen,
    /// Its children that it has not answered itself. An answer names no attempt, so that the core takes one that is said
    /// twice for an answer to the next attempt (settled-worker(7)): that changes nothing about what the worker does.
    doing: Vec<usize>,
    /// Its lines reach the core in their order, and its end after them.
    last_said: u64,
    /// It will never end by itself.
    stubborn: bool,
    heeds: bool,
}

/// What a worker is about to do.
#[derive(Clone, Debug)]
pub enum Say {
    Ready,
    Answer {
        jobs: Vec<JobId>,
        result: &'static str,
        after: Option<f64>,
        twice: bool,
    },
    Foreign,
    Nonsense,
    TooLong,
}

/// A job as the worker is told of it.
#[derive(Debug)]
pub struct Told {
    pub job: JobId,
    pub attempt: u32,
    pub recovered: bool,
    pub watch: String,
    pub path: Vec<u8>,
    pub key: Vec<u8>,
    pub size: u64,
    pub mtime_ns: i64,
}

fn bytes(object: &Value, member: &str) -> Option<Vec<u8>> {
    if let Some(hex) = object.get(format!("{member}_hex")).and_then(Value::as_str) {
        let digit = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        return (0..hex.len()).step_by(2).map(digit).collect();
    }
    Some(object.get(member)?.as_str()?.as_bytes().to_vec())
}

fn told(object: &Value) -> Option<Told> {
    let name = object.get("job")?.as_str()?;
    let (journal, job) = name.split_once('-')?;
    let path = bytes(object, "path")?;
    let slash = path.iter().rposition(|&b| b == b'/')?;
    let rel = bytes(object, "rel")?;
    let right = journal == format!("{JOURNAL:08x}")
        && path.ends_with(&rel)
        && bytes(object, "name")? == path[slash + 1..]
        && bytes(object, "dir")? == path[..slash];
    right.then_some(Told {
        job: JobId(job.parse().ok()?),
        attempt: object.get("attempt")?.as_u64()? as u32,
        recovered: object.get("recovered")?.as_bool()?,
        watch: object.get("watch")?.as_str()?.to_owned(),
        path,
        key: bytes(object, "key")?,
        size: object.get("size")?.as_u64()?,
        mtime_ns: object.get("mtime_ns")?.as_i64()?,
    })
}

/// A line's jobs; with `batch` as a batch has them.
fn read(line: &[u8], batch: bool) -> Option<Vec<Told>> {
    let object: Value = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    if batch {
        return object.get("jobs")?.as_array()?.iter().map(told).collect();
    }
    told(&object).map(|job| vec![job])
}

fn name(job: JobId) -> String {
    format!("{JOURNAL:08x}-{}", job.0)
}

fn plan_of(action: &Action) -> Option<WorkerPlan> {
    match action {
        Action::Worker(plan) => Some(plan.clone()),
        _ => None,
    }
}

impl World {
    /// The worker of this life with that number.
    pub fn worker_of(&self, run: RunId) -> Option<usize> {
        self.workers
            .iter()
            .position(|w| w.life == self.life && w.order.run == run)
    }

    /// The workers of an earlier life that hold a slot.
    pub fn worker_holders(&self, slot: u32) -> Vec<usize> {
        let holds = |worker: &Worker| {
            worker.life != self.life
                && worker.order.slot == slot
                && matches!(worker.phase, Phase::Starting | Phase::Running)
        };
        (0..self.workers.len())
            .filter(|id| holds(&self.workers[*id]))
            .collect()
    }

    /// Whether a process of an earlier life holds a slot.
    pub fn is_held(&self, slot: u32) -> bool {
        !self.holders(slot).is_empty() || !self.worker_holders(slot).is_empty()
    }

    pub fn spawn_worker(&mut self, order: SpawnOrder) {
        self.tally.workers += 1;
        let named = |w: &crate::oracle::Covers| w.plan.name == order.watch;
        let watch = self.oracle.watches.iter().position(named).unwrap_or(0);
        let Some(plan) = plan_of(&self.oracle.watches[watch].plan.action) else {
            let text = format!("{:?} is a worker, and none is wanted", order.run);
            return self.oracle.broken(Rule::Worker, text);
        };
        let others = self.workers.iter().filter(|worker| {
            worker.life == self.life && worker.watch == watch && worker.phase != Phase::Reaped
        });
        let others = others.count();
        self.oracle.worker_spawned(watch, others, plan.workers);
        let worker = Worker {
            order,
            life: self.life,
            phase: Phase::Starting,
            watch,
            seen: WorkerSeen {
                spawned: self.now,
                ..WorkerSeen::default()
            },
            doing: Vec::new(),
            last_said: 0,
            stubborn: self.works.chance(1, 8),
            heeds: self.works.chance(1, 2),
        };
        self.workers.push(worker);
        let wait = self.works.range(100_000, 400_000_000);
        self.at(wait, Tick::WorkerRuns(self.workers.len() - 1));
    }

    pub fn worker_runs(&mut self, id: usize) {
        if self.workers[id].phase != Phase::Starting {
            return;
        }
        let slot = self.workers[id].order.slot;
        let fails = !self.calm && self.works.chance(self.setup.worker.fails, 1000);
        let why = if self.workers[id].life == self.life && self.is_held(slot) {
            Some(NotStarted::Failed(StartStep::Setup, 11))
        } else if fails {
            let step = *self.works.pick(&[StartStep::Fork, StartStep::Exec]);
            Some(NotStarted::Failed(step, 11))
        } else {
            None
        };
        if let Some(why) = why {
            return self.worker_ends(id, ChildEnd::NotStarted(why, 0));
        }
        self.workers[id].phase = Phase::Running;
        let plan = plan_of(&self.oracle.watches[self.workers[id].watch].plan.action);
        if plan.is_some_and(|plan| plan.ready.is_some()) {
            let never = !self.calm && self.works.chance(self.setup.worker.fails, 1000);
            if !never {
                let wait = self.works.below(1500) * 1_000_000;
                self.at(wait, Tick::WorkerSays(id, Say::Ready));
            }
        }
    }

    // ---- what it is told ----

    pub fn feed(&mut self, run: RunId, lines: &[u8]) {
        self.active = self.now;
        let Some(id) = self.worker_of(run) else {
            let text = format!("{run:?} is fed and never ran");
            return self.oracle.broken(Rule::Worker, text);
        };
        let batch = self.oracle.watches[self.workers[id].watch].plan.batch;
        for line in lines.split_inclusive(|&b| b == b'\n') {
            let Some(jobs) = read(line, batch.is_some()) else {
                let text = format!("no line of settled-worker(7): {}", show(line));
                return self.oracle.broken(Rule::Worker, text);
            };
            if jobs.is_empty() || jobs.len() > batch.map_or(1, |batch| batch.max as usize) {
                let text = format!("{} jobs in a line", jobs.len());
                self.oracle.broken(Rule::Worker, text);
            }
            self.tally.fed += jobs.len() as u64;
            self.take_line(id, jobs);
        }
    }

    fn take_line(&mut self, id: usize, jobs: Vec<Told>) {
        let ids: Vec<JobId> = jobs.iter().map(|told| told.job).collect();
        self.beside(&ids);
        let watch = self.workers[id].watch;
        if self.workers[id].phase == Phase::Reaped {
            let text = format!("{ids:?} are fed to one whose end was told");
            self.oracle.broken(Rule::Worker, text);
        }
        for told in &jobs {
            let running: BTreeSet<JobId> = self
                .alive()
                .flat_map(|child| child.order.jobs.iter().copied())
                .collect();
            let seen = &self.workers[id].seen;
            let truth = self
                .oracle
                .fed(watch, told, &ids, &running, seen, &self.setup.disk);
            let now = self.now;
            let seen = &mut self.workers[id].seen;
            if seen.held.is_empty() {
                seen.since = now;
            }
            seen.held.push(told.job);
            let Some(truth) = truth else { continue };
            let worker = &self.workers[id];
            let mut order = worker.order.clone();
            order.jobs = vec![told.job];
            order.attempt = told.attempt;
            order.files = vec![settled::core::SpawnFile {
                place: settled::core::ask::Place {
                    base: told.path.clone(),
                    mount: settled::core::ids::MountId(0),
                    rel: Vec::new(),
                },
                expect: truth.version,
                lease: false,
            }];
            let alive = matches!(worker.phase, Phase::Starting | Phase::Running);
            self.children.push(Child {
                order,
                fate: Fate::Exit(0),
                life: worker.life,
                phase: if alive {
                    Phase::Running
                } else {
                    Phase::Ended(ChildEnd::Signal(9))
                },
                got: vec![(truth.uid, truth.content, truth.version)],
                heard: BTreeSet::new(),
                worker: Some(id),
                killed: false,
                watch,
            });
            self.workers[id].doing.push(self.children.len() - 1);
        }
        self.plan_answers(id, ids);
    }

    /// What it is going to say of the jobs of one line, and when.
    fn plan_answers(&mut self, id: usize, mut ids: Vec<JobId>) {
        let temper = self.setup.worker;
        let hangs = self.oracle.watches[self.workers[id].watch]
            .plan
            .timeout
            .is_some();
        while !ids.is_empty() {
            let many = self.works.range(1, ids.len() as u64) as usize;
            let jobs: Vec<JobId> = ids.drain(..many).collect();
            let wait = match self.works.below(8) {
                0..=4 => self.works.range(200_000, 30_000_000),
                5 | 6 => self.works.range(30_000_000, 900_000_000),
                _ => self.works.range(SECOND, 2 * SECOND),
            };
            if self.works.chance(temper.odd, 1000) {
                let say = match self.works.below(6) {
                    0 => Say::Nonsense,
                    1 => Say::TooLong,
                    _ => Say::Foreign,
                };
                self.at(wait, Tick::WorkerSays(id, say));
            }
            if self.works.chance(temper.dies, 1000) {
                let end = *self.works.pick(&[
                    ChildEnd::Exit(0),
                    ChildEnd::Exit(1),
                    ChildEnd::Exit(75),
                    ChildEnd::Signal(11),
                ]);
                self.at(wait, Tick::WorkerEnds(id, end));
                continue;
            }
            if hangs && self.works.chance(temper.hangs, 1000) {
                continue;
            }
            let roll = self.works.below(1000);
            let (result, after) = if roll < temper.retries {
                let after = *self.works.pick(&[None, Some(0.0), Some(0.25), Some(90.0)]);
                ("retry", after)
            } else if roll < temper.retries + temper.dead {
                ("dead", None)
            } else {
                ("done", None)
            };
            let twice = self.works.chance(temper.odd, 1000);
            let say = Say::Answer {
                jobs,
                result,
                after,
                twice,
            };
            self.at(wait, Tick::WorkerSays(id, say));
        }
    }

    // ---- what it says ----

    pub fn worker_says(&mut self, id: usize, say: Say) {
        if self.workers[id].phase == Phase::Starting {
            // Not before its program runs.
            let again = Tick::WorkerSays(id, say);
            return self.at(100_000_000, again);
        }
        if self.workers[id].phase != Phase::Running {
            return;
        }
        self.active = self.now;
        match say {
            Say::Ready => self.line(id, Some(b"{\"ready\":true}".to_vec())),
            Say::Nonsense => {
                let line = *self.works.pick(&[
                    &b"starting up..."[..],
                    b"{\"job\":17,\"result\":\"done\"}",
                    b"{\"job\":\"x-1\"}",
                    b"",
                ]);
                self.line(id, Some(line.to_vec()));
            }
            Say::TooLong => self.line(id, None),
            Say::Foreign => {
                // Another worker's, one that was answered before, or none.
                let others: Vec<JobId> = self
                    .children
                    .iter()
                    .filter(|child| child.worker != Some(id))
                    .flat_map(|child| child.order.jobs.iter().copied())
                    .collect();
                let job = match others.len() as u64 {
                    0 => JobId(self.works.below(1000)),
                    n => others[self.works.below(n) as usize],
                };
                let result = *self.works.pick(&["done", "retry", "dead"]);
                let own = self.workers[id].seen.held.contains(&job);
                if !own {
                    let line = format!("{{\"job\":\"{}\",\"result\":\"{result}\"}}", name(job));
                    self.line(id, Some(line.into_bytes()));
                }
            }
            Say::Answer {
                jobs,
                result,
                after,
                twice,
            } => {
                let (answered, doing): (Vec<usize>, Vec<usize>) =
                    std::mem::take(&mut self.workers[id].doing)
                        .into_iter()
                        .partition(|child| jobs.contains(&self.children[*child].order.jobs[0]));
                self.workers[id].doing = doing;
                for child in answered {
                    let child = &mut self.children[child];
                    if child.phase == Phase::Running {
                        child.phase = Phase::Ended(ChildEnd::Exit(0));
                    }
                    if result == "done" {
                        self.oracle.succeeded(child);
                    }
                }
                let after = after.map_or(String::new(), |after| format!(",\"after\":{after}"));
                let rest = format!("\"result\":\"{result}\"{after},\"message\":\"as said\"}}");
                let names: Vec<String> = jobs
                    .iter()
                    .map(|job| format!("\"{}\"", name(*job)))
                    .collect();
                let line = if names.len() == 1 {
                    format!("{{\"job\":{},{rest}", names[0])
                } else {
                    format!("{{\"jobs\":[{}],{rest}", names.join(","))
                };
                self.line(id, Some(line.clone().into_bytes()));
                if twice {
                    self.line(id, Some(line.into_bytes()));
                }
            }
        }
        if self.workers[id].seen.closed.is_some() || self.workers[id].life != self.life {
            self.maybe_leaves(id);
        }
    }

    fn later(&mut self, id: usize, input: Input) {
        let worker = &mut self.workers[id];
        let at = (self.now + self.works.below(3_000_000)).max(worker.last_said);
        worker.last_said = at;
        if worker.life == self.life && self.core.is_some() {
            self.input(at - self.now, input);
        }
    }

    fn line(&mut self, id: usize, line: Option<Vec<u8>>) {
        let run = self.workers[id].order.run;
        self.later(id, Input::WorkerLine { run, line });
    }

    pub fn worker_ends(&mut self, id: usize, end: ChildEnd) {
        if !matches!(self.workers[id].phase, Phase::Starting | Phase::Running) {
            return;
        }
        story!(self.now, "worker {id} ends: {end:?}");
        self.active = self.now;
        self.workers[id].phase = Phase::Ended(end);
        for child in &mut self.children {
            if child.worker == Some(id) && child.phase == Phase::Running {
                child.phase = Phase::Ended(ChildEnd::Signal(9));
            }
        }
        let run = self.workers[id].order.run;
        let output = vec![b'e'; self.setup.faults.output];
        self.later(id, Input::Ended { run, end, output });
    }

    /// Its input has ended: it leaves once it has nothing to do.
    pub fn maybe_leaves(&mut self, id: usize) {
        let busy = self
            .children
            .iter()
            .any(|child| child.worker == Some(id) && child.phase == Phase::Running);
        if !busy && !self.workers[id].stubborn {
            let wait = self.works.below(300_000_000);
            self.at(wait, Tick::WorkerEnds(id, ChildEnd::Exit(0)));
        }
    }

    // ---- what the core does to it, and hears of it ----

    pub fn close_input(&mut self, run: RunId) {
        let Some(id) = self.worker_of(run) else {
            let text = format!("{run:?} has no input to be closed");
            return self.oracle.broken(Rule::Worker, text);
        };
        if !self.workers[id].seen.held.is_empty() {
            let text = format!(
                "{run:?} is to end, and has {:?}",
                self.workers[id].seen.held
            );
            self.oracle.broken(Rule::Worker, text);
        }
        let now = self.now;
        self.workers[id].seen.closed.get_or_insert(now);
        self.maybe_leaves(id);
    }

    pub fn kill_worker(&mut self, id: usize, signal: i32) {
        let worker = &self.workers[id];
        self.oracle
            .worker_killed(worker.watch, &worker.seen, signal);
        let now = self.now;
        self.workers[id].seen.killed.get_or_insert(now);
        self.signal_worker(id, signal);
    }

    pub fn signal_worker(&mut self, id: usize, signal: i32) {
        if signal == 9 || self.workers[id].heeds {
            let wait = self.works.below(50_000_000);
            let lies = signal != 9 && self.works.chance(1, 2);
            let end = if lies {
                ChildEnd::Exit(0)
            } else {
                ChildEnd::Signal(signal)
            };
            self.at(wait, Tick::WorkerEnds(id, end));
        }
    }

    /// The core is about to be told what a worker said.
    pub fn line_told(&mut self, run: RunId, line: Option<&[u8]>) {
        let Some(id) = self.worker_of(run) else {
            return;
        };
        let said = line.and_then(|line| serde_json::from_slice::<Value>(line).ok());
        let Some(said) = said else {
            self.workers[id].seen.nonsense = true;
            return;
        };
        if said.get("ready").is_some() {
            self.workers[id].seen.ready = true;
            self.workers[id].seen.proved = true;
            return;
        }
        let name = |value: &Value| value.as_str().map(str::to_owned);
        let one = said.get("job").and_then(name);
        let many = said.get("jobs").and_then(Value::as_array);
        let names: Vec<String> = many
            .map(|jobs| jobs.iter().filter_map(name).collect())
            .unwrap_or_default();
        let result = said.get("result").and_then(Value::as_str);
        let end = match result {
            Some("done") => AttemptEnd::SaidDone,
            Some("retry") => AttemptEnd::AskedRetry,
            Some("dead") => AttemptEnd::AskedDead,
            _ => {
                self.workers[id].seen.nonsense = true;
                return;
            }
        };
        if one.is_none() && names.is_empty() {
            self.workers[id].seen.nonsense = true;
            return;
        }
        let after = said.get("after").and_then(Value::as_f64);
        for name in one.into_iter().chain(names) {
            let job = name.split_once('-').and_then(|(_, n)| n.parse().ok());
            let Some(job) = job.map(JobId) else { continue };
            let seen = &mut self.workers[id].seen;
            let Some(at) = seen.held.iter().position(|held| *held == job) else {
                continue;
            };
            seen.held.remove(at);
            seen.proved = true;
            seen.since = self.now;
            self.tally.answered += 1;
            let after = after.map(Duration::from_secs_f64);
            self.oracle.ends(job, vec![end], after);
            for child in &mut self.children {
                if child.worker == Some(id)
                    && child.order.jobs[0] == job
                    && child.phase != Phase::Reaped
                {
                    if end == AttemptEnd::SaidDone {
                        self.oracle.child_ended(child, &self.setup.disk);
                    }
                    child.phase = Phase::Reaped;
                }
            }
        }
    }

    /// The core is about to be told of a worker's end.
    pub fn worker_end_told(&mut self, id: usize, end: ChildEnd) {
        let (watch, held) = (self.workers[id].watch, self.workers[id].seen.held.clone());
        self.tally.lost += u64::from(held.len() > 1);
        let seen = &self.workers[id].seen;
        self.oracle.worker_ended(watch, seen, end);
        for child in &mut self.children {
            if child.worker == Some(id) {
                child.phase = Phase::Reaped;
            }
        }
    }

    /// The daemon is gone: its workers' inputs end.
    pub fn orphan_workers(&mut self) {
        for id in 0..self.workers.len() {
            if !matches!(self.workers[id].phase, Phase::Starting | Phase::Running)
                || self.workers[id].life != self.life
            {
                continue;
            }
            let kill = settled::plan::Orphans::Kill;
            let killed = self.oracle.watches[self.workers[id].watch].plan.orphans == kill;
            if self.works.chance(1, 2) {
                story!(self.now, "worker {id} dies with the daemon");
                self.worker_ends(id, ChildEnd::Signal(9));
            } else if self.works.chance(1, 2) || !killed || self.workers[id].seen.held.is_empty() {
                // Of one that has nothing to do no job asks.
                let longest = if self.workers[id].stubborn { 40 } else { 8 };
                let wait = self.works.below(longest * SECOND);
                self.at(wait, Tick::WorkerEnds(id, ChildEnd::Exit(0)));
            }
        }
    }
}
